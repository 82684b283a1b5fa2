//! One MTA connection: bytes in, commands through the session, bytes out.
//!
//! All commands that have arrived are handled in one go, and their answers leave in one write.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf as _;
use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout_at;

use super::context::Context;
use super::context::InForce;
use super::context::time_of_day;
use super::journal;
use super::memory::Share;
use super::socket::Socket;
use crate::facts::Answer;
use crate::facts::Query;
use crate::lookup::Lookup;
use crate::metrics::Shed;
use crate::metrics::Traffic;
use crate::session::Action;
use crate::session::Decision;
use crate::session::MessageEnd;
use crate::session::ProtocolError;
use crate::session::Session;
use crate::session::Settlement;
use crate::wire::Command;
use crate::wire::Frame;
use crate::wire::Response;

/// How long after connecting an MTA may take to negotiate.
const GREETING_TIME: Duration = Duration::from_secs(60);

/// How long it may be silent in the middle of a frame.
const FRAME_TIME: Duration = Duration::from_secs(60);

/// How long it may be silent between frames: an SMTP client may sit for Postfix's `smtpd_timeout` (300 s), and libmilter
/// waits two hours.
const IDLE_TIME: Duration = Duration::from_secs(7210);

/// How long it may leave our answer unread.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// The longest frame taken from who has not negotiated; that of a negotiation is far shorter.
const MAX_GREETING: usize = 64 << 10;

/// The receive buffer of a connection that has nothing to say.
const SMALL_BUFFER: usize = 4096;

/// Talks with the MTA until either side ends it.
pub(super) async fn drive<L: Lookup>(
    socket: Socket,
    peer: &str,
    session: Session,
    lookup: L,
    in_force: &InForce,
    context: &Context,
    traffic: Option<&Traffic>,
) {
    let id = session.id();
    let mut connection = Connection {
        socket,
        session,
        lookup,
        in_force,
        context,
        traffic,
        input: BytesMut::with_capacity(SMALL_BUFFER),
        output: BytesMut::new(),
        negotiated: false,
        share: Share::new(&context.kept),
        woken: Instant::now(),
    };
    // What panics outside of a command, where no answer is owed, ends this connection and nothing else.
    let ended = AssertUnwindSafe(connection.run()).catch_unwind().await.unwrap_or(Err(Ended::Bug));
    let abandoned = catch_unwind(AssertUnwindSafe(|| connection.session.abandon()));
    if let (Ok(Some(end)), Some(traffic)) = (abandoned, traffic) {
        traffic.message_ended(end);
    }
    match ended {
        Ok(()) => tracing::debug!(session = %id, peer, "closed"),
        Err(Ended::Protocol(error)) => {
            context.metrics.protocol_error();
            if context.warnings.protocol.admits() {
                tracing::warn!(session = %id, peer, %error, "closing: the MTA's side makes no sense");
            }
        }
        Err(Ended::Bug) => {
            context.metrics.internal_error();
            tracing::error!(session = %id, peer, "closing: a bug was met that leaves no answer; please report this");
        }
        Err(Ended::Io(error)) => tracing::debug!(session = %id, peer, %error, "lost"),
        Err(Ended::NoRoom) => {
            context.metrics.connection_shed(Shed::Closed);
            if context.warnings.shed.admits() {
                tracing::warn!(session = %id, peer, "closing: sessions keep more than server.max_memory together");
            }
        }
        Err(Ended::Silent) => {
            if context.warnings.silent.admits() {
                tracing::warn!(session = %id, peer, "closing: silent for too long");
            }
        }
        Err(Ended::Stranger) => {
            context.metrics.protocol_error();
            if context.warnings.protocol.admits() {
                tracing::warn!(session = %id, peer, "closing: this is no milter client, its first frame is too long");
            }
        }
    }
}

struct Connection<'a, L> {
    socket: Socket,
    session: Session,
    lookup: L,
    /// What was in force when it began.
    in_force: &'a InForce,
    context: &'a Context,
    /// Where its messages are counted; `None`: it has none.
    traffic: Option<&'a Traffic>,
    input: BytesMut,
    output: BytesMut,
    negotiated: bool,
    share: Share<'a>,
    /// When the latest packets came.
    woken: Instant,
}

/// Why a connection ended, if not by QUIT or end of file.
enum Ended {
    /// There was a bug, and then another one where the first was to be answered, or none that belongs to a command.
    Bug,
    Io(io::Error),
    /// All sessions together keep too much, this one not a little of it.
    NoRoom,
    Protocol(ProtocolError),
    Silent,
    Stranger,
}

impl<L: Lookup> Connection<'_, L> {
    async fn run(&mut self) -> Result<(), Ended> {
        let mut stopping = self.context.stopping.subscribe();
        let mut grace = pin!(grace_ends(&mut stopping));
        let greeting_ends = Instant::now() + GREETING_TIME;
        // Fires no later than patience ends. Made anew for each read, a timer would cost about as much as the read.
        let mut alarm = pin!(sleep_until(greeting_ends));
        loop {
            let handled = self.handle_all().await;
            // Also what was answered before something that makes no sense.
            self.flush().await?;
            if !handled? {
                return Ok(());
            }
            self.make_room();
            let kept = self.session.octets() + self.input.capacity();
            if !self.share.keep(kept, self.in_force.config.server.max_memory) {
                return Err(Ended::NoRoom);
            }
            let patience_ends = match (self.negotiated, self.input.is_empty()) {
                (false, _) => greeting_ends,
                (true, false) => self.woken + FRAME_TIME,
                (true, true) => self.woken + IDLE_TIME,
            };
            if patience_ends < alarm.deadline() {
                alarm.as_mut().reset(patience_ends);
            }
            let at_rest = !self.session.has_message() && self.input.is_empty();
            let read = loop {
                tokio::select! {
                    biased;
                    read = self.socket.read(&mut self.input) => break read,
                    () = &mut grace, if at_rest => return Ok(()),
                    () = &mut alarm => {
                        if Instant::now() >= patience_ends {
                            return Err(Ended::Silent);
                        }
                        alarm.as_mut().reset(patience_ends);
                    }
                }
            };
            if read.map_err(Ended::Io)? == 0 {
                return Ok(());
            }
            self.woken = Instant::now();
        }
    }

    /// Handles every whole frame; false once the conversation is over.
    async fn handle_all(&mut self) -> Result<bool, Ended> {
        let mut input = std::mem::take(&mut self.input);
        let mut open = true;
        while open {
            let Some((frame, length)) = Frame::split(&input)? else {
                self.check_greeting(&input)?;
                break;
            };
            journal::received(&self.session, frame);
            let command = Command::decode(frame)?;
            open = self.handle(command).await?;
            input.advance(length);
        }
        self.input = input;
        Ok(open)
    }

    /// Nobody makes us keep much before it is known to be an MTA.
    fn check_greeting(&self, incomplete: &[u8]) -> Result<(), Ended> {
        match incomplete.first_chunk::<4>().map(|prefix| u32::from_be_bytes(*prefix) as usize) {
            Some(length) if !self.negotiated && length > MAX_GREETING => Err(Ended::Stranger),
            _ => Ok(()),
        }
    }

    async fn handle(&mut self, command: Command<'_>) -> Result<bool, Ended> {
        let answered = self.output.len();
        let handled = AssertUnwindSafe(self.handle_soundly(command)).catch_unwind().await;
        if let Ok(handled) = handled {
            return handled.map_err(Ended::Protocol);
        }
        // Half an answer may stand there: the MTA would hang up on it.
        self.output.truncate(answered);
        catch_unwind(AssertUnwindSafe(|| self.survive(command))).map_err(|_| {
            self.output.truncate(answered);
            Ended::Bug
        })
    }

    async fn handle_soundly(&mut self, command: Command<'_>) -> Result<bool, ProtocolError> {
        if let Some(end) = self.session.supersede(&command) {
            self.lookup.settle(Settlement::Release);
            self.message_ended(end);
        }
        self.lookup.begin();
        let mut action = self.session.handle(command)?;
        // The deadline is for all look-ups of a command together; most are answered at once.
        let (mut deadline, mut is_late) = (None, false);
        while let Action::Ask(query) = action {
            let answer = {
                let mut answering = pin!(self.lookup.answer(&query));
                match poll_fn(|context| Poll::Ready(answering.as_mut().poll(context))).await {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => {
                        let end = || Instant::now() + self.in_force.config.server.deadline;
                        let answer = timeout_at(*deadline.get_or_insert_with(end), answering).await;
                        is_late |= answer.is_err();
                        answer.unwrap_or(Answer::Failed)
                    }
                }
            };
            if let Query::Hold(hold) = &query {
                self.in_force.series.limit_checked(hold.counter, &answer);
            }
            action = self.session.answer(query, answer);
        }
        if is_late && let Action::Decided(decision) = &action {
            self.context.metrics.deadline_exceeded(decision.stage);
        }
        Ok(self.finish(action))
    }

    /// Does what was decided; false once the conversation is over.
    fn finish(&mut self, action: Action) -> bool {
        match action {
            Action::Aborted(end) => {
                self.lookup.settle(Settlement::Release);
                self.message_ended(end);
            }
            Action::Close => return false,
            Action::Continue => Response::Continue.encode(&mut self.output),
            Action::Decided(decision) => {
                self.decided(*decision);
                return !self.session.is_over();
            }
            Action::Negotiated(negotiation) => {
                self.negotiated = true;
                journal::negotiated(&self.session, &negotiation, &self.context.warnings);
                negotiation.encode(&mut self.output);
            }
            Action::Ask(_) | Action::Read => {}
            Action::Restart => self.lookup.restart(),
        }
        true
    }

    /// Without a decision.
    fn message_ended(&self, end: MessageEnd) {
        if let Some(traffic) = self.traffic {
            traffic.message_ended(end);
        }
    }

    fn decided(&mut self, decision: Decision) {
        self.lookup.settle(decision.settlement);
        let (came, took) = (self.woken.into_std(), self.woken.elapsed());
        self.context.metrics.record(&self.in_force.series, &decision, came, took);
        if let Some(traffic) = self.traffic {
            traffic.record(&decision, &self.session.subject());
        }
        journal::decided(&self.session, &decision);
        if decision.matches.iter().any(|matched| matched.excess.is_some()) {
            self.context.notifier().decided(&self.session, &decision, self.context);
        }
        decision.encode(&mut self.output);
        if decision.is_told() {
            let at = time_of_day();
            if self.in_force.config.http.has_page() {
                self.context.history.record(&self.in_force.hits, &decision, at);
            }
            self.context.ring.keep(&self.session, decision, &self.in_force.book, at);
        }
        self.session.forget();
    }

    /// A bug panicked: the message is answered by `on_error`, and so is the rest of this session; the daemon lives.
    ///
    /// The connection is not closed, neither now nor between two messages: a milter that is gone is gone for the rest of the
    /// SMTP session, and what becomes of its mail would be for the MTA's default action to say, which may be to accept it.
    fn survive(&mut self, command: Command<'_>) -> bool {
        self.context.metrics.internal_error();
        if self.context.warnings.bug.admits() {
            tracing::error!(
                session = %self.session.id(), command = command.name(),
                "a bug was met; this session is answered by on_error from here on; please report this"
            );
        }
        let action = self.session.break_down(&command);
        self.finish(action)
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            self.socket.acknowledge();
            return Ok(());
        }
        journal::sent(&self.session, &self.output);
        match tokio::time::timeout(WRITE_TIME, self.socket.write_all(&self.output)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Ended::Io(error)),
            Err(_elapsed) => return Err(Ended::Silent),
        }
        self.output.clear();
        Ok(())
    }

    /// A buffer that grew for a body is not kept while nothing comes.
    fn make_room(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 16 * SMALL_BUFFER {
            self.input = BytesMut::new();
        }
        self.input.reserve(SMALL_BUFFER);
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bug => f.write_str("bug"),
            Self::Io(error) => write!(f, "{error}"),
            Self::NoRoom => f.write_str("no room"),
            Self::Protocol(error) => write!(f, "{error}"),
            Self::Silent => f.write_str("silent"),
            Self::Stranger => f.write_str("stranger"),
        }
    }
}

impl<E: Into<ProtocolError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Protocol(error.into())
    }
}

/// Done when the server is to stop and sessions without a transaction are to end.
async fn grace_ends(stopping: &mut watch::Receiver<Option<Instant>>) {
    let end = stopping.wait_for(Option::is_some).await.map(|end| *end);
    if let Ok(Some(end)) = end {
        sleep_until(end).await;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::config::Config;
    use crate::config::Source;
    use crate::lookup::Ledger;
    use crate::policy::Policy;
    use crate::session::Transport;

    /// A look-up with a bug, or one that never comes back.
    #[derive(Clone, Copy, PartialEq)]
    enum Broken {
        Hangs,
        Panics,
        /// Also where its answer is acted upon, as what survives a panic does.
        PanicsTwice,
    }

    impl Lookup for Broken {
        fn begin(&mut self) {}

        async fn answer(&mut self, _: &Query) -> Answer {
            match self {
                Self::Hangs => std::future::pending().await,
                Self::Panics | Self::PanicsTwice => panic!("planted"),
            }
        }

        fn settle(&mut self, _: Settlement) {
            assert!(*self != Self::PanicsTwice, "planted, too");
        }

        fn restart(&mut self) {}
    }

    pub(in crate::server) fn context(settings: &str) -> Context {
        let text =
            format!("{settings}\n[[rule]]\nname = \"full\"\nwhen.disk_free = {{ path = \"/\", below = \"1 B\" }}");
        let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text }]);
        let policy = Policy::compile(&config, &mut diagnostics).expect("the policy is fine");
        Context::new(&config, policy, Arc::default()).unwrap()
    }

    fn traffic(context: &Context) -> Traffic {
        context.metrics.listener("test")
    }

    const NEGOTIATION: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff";

    /// How many seconds a connection lasts on which this is said and no more.
    async fn lasts(context: &Context, said: &[u8]) -> u64 {
        let (mut mta, ours) = UnixStream::pair().unwrap();
        let session = Session::new(Arc::clone(&context.in_force().policy), 1, Transport::Unix);
        mta.write_all(said).await.unwrap();
        let start = Instant::now();
        drive(
            Socket::Unix(ours),
            "test",
            session,
            Broken::Hangs,
            &context.in_force(),
            context,
            Some(&traffic(context)),
        )
        .await;
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn patience_depends_on_what_is_owed() {
        let context = context("");
        let half = &NEGOTIATION[..6];
        for (said, seconds) in [(&b""[..], 60), (half, 60), (NEGOTIATION, 7210), (&[NEGOTIATION, half].concat(), 60)] {
            assert_eq!(lasts(&context, said).await, seconds, "{said:?}");
        }
        // A byte now and then does not prolong the time to negotiate.
        let (mut mta, ours) = UnixStream::pair().unwrap();
        let session = Session::new(Arc::clone(&context.in_force().policy), 1, Transport::Unix);
        let start = Instant::now();
        let drip = async {
            for byte in half.chunks(1) {
                mta.write_all(byte).await.unwrap();
                tokio::time::sleep(Duration::from_secs(9)).await;
            }
            std::future::pending().await
        };
        let (in_force, traffic) = (context.in_force(), traffic(&context));
        tokio::select! {
            () = drive(Socket::Unix(ours), "test", session, Broken::Hangs, &in_force, &context, Some(&traffic)) => {}
            () = drip => {}
        }
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_does_not_make_us_keep_much() {
        let context = context("");
        assert_eq!(lasts(&context, b"\0\x01\0\x01O").await, 0);
        assert_eq!(lasts(&context, b"\0\x01\0\0O").await, 60);
        assert_eq!(lasts(&context, &[NEGOTIATION, b"\0\x01\0\x01B"].concat()).await, 60);
        assert!(context.metrics.encode().unwrap().contains("postward_protocol_errors_total 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_about_to_begin_a_message_when_we_stop_has_a_while() {
        let context = context("");
        context.stop();
        assert_eq!(lasts(&context, NEGOTIATION).await, 5);
        assert_eq!(lasts(&context, NEGOTIATION).await, 0);
    }

    /// Negotiates, says MAIL twice with an ABORT between, and returns all that came back after the negotiation.
    async fn answers(settings: &str, lookup: Broken) -> (String, String) {
        let context = context(settings);
        let (mut mta, ours) = UnixStream::pair().unwrap();
        let session = Session::new(Arc::clone(&context.in_force().policy), 1, Transport::Unix);
        mta.write_all(NEGOTIATION).await.unwrap();
        mta.write_all(b"\0\0\0\x11Cmx\x004\0\x19192.0.2.1\0").await.unwrap();
        let mail = b"\0\0\0\x07M<a@b>\0";
        mta.write_all(mail).await.unwrap();
        mta.write_all(b"\0\0\0\x01A").await.unwrap();
        mta.write_all(mail).await.unwrap();
        mta.write_all(b"\0\0\0\x01Q").await.unwrap();
        mta.shutdown().await.unwrap();
        drive(Socket::Unix(ours), "test", session, lookup, &context.in_force(), &context, Some(&traffic(&context)))
            .await;
        let mut heard = Vec::new();
        mta.read_to_end(&mut heard).await.unwrap();
        let negotiation = 4 + u32::from_be_bytes(heard[..4].try_into().unwrap()) as usize;
        (String::from_utf8_lossy(&heard[negotiation..]).into_owned(), context.metrics.encode().unwrap())
    }

    /// Requirement 1: after any internal failure there still is a reply, and the daemon lives.
    #[tokio::test]
    async fn a_panic_defers_the_message_and_the_next_one() {
        let (heard, metrics) = answers("", Broken::Panics).await;
        assert_eq!(heard.matches("y451 4.3.0 Temporary local problem, try again later\0").count(), 2, "{heard:?}");
        assert!(metrics.contains("postward_internal_errors_total 1"), "{metrics}");
        assert!(metrics.contains("postward_on_error_total{cause=\"bug\",outcome=\"deferred\"} 2"), "{metrics}");
    }

    /// Nothing can be said any more, and half an answer would be worse; the connection ends, not the task that serves it.
    #[tokio::test]
    async fn a_panic_in_what_survives_a_panic_ends_the_connection_without_half_an_answer() {
        let (heard, metrics) = answers("", Broken::PanicsTwice).await;
        assert_eq!(heard, "");
        // CONNECT, whose answer nobody waits for, MAIL, and then what was to answer MAIL.
        assert!(metrics.contains("postward_internal_errors_total 3"), "{metrics}");
    }

    #[tokio::test]
    async fn a_panic_lets_mail_pass_where_that_is_wanted() {
        let (heard, _) = answers("[server]\non_error = \"accept\"", Broken::Panics).await;
        assert_eq!(heard, "\0\0\0\x01c\0\0\0\x01c");
    }

    /// Requirement 10: who waits has a deadline.
    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_is_an_answer_after_the_deadline() {
        let (heard, metrics) = answers("", Broken::Hangs).await;
        assert_eq!(heard.matches("y451 4.3.0").count(), 2, "{heard:?}");
        assert!(metrics.contains("postward_internal_errors_total 0"), "{metrics}");
        assert!(metrics.contains("postward_deadline_exceeded_total{stage=\"mail\"} 2"), "{metrics}");
        assert!(metrics.contains("postward_on_error_total{cause=\"lookup\",outcome=\"deferred\"} 2"), "{metrics}");
        let (heard, metrics) = answers("[server]\non_error = \"accept\"", Broken::Hangs).await;
        assert_eq!(heard, "\0\0\0\x01c\0\0\0\x01c");
        assert!(metrics.contains("postward_on_error_total{cause=\"lookup\",outcome=\"accepted\"} 2"), "{metrics}");
    }

    /// What the MTA has said is handled, and the connection is open.
    async fn hears<'a>(context: &'a Context, in_force: &'a InForce, said: &[&[u8]]) -> Connection<'a, Ledger> {
        let (_mta, ours) = UnixStream::pair().unwrap();
        let mut connection = Connection {
            socket: Socket::Unix(ours),
            session: Session::new(Arc::clone(&in_force.policy), 1, Transport::Unix),
            lookup: Ledger::new(Arc::clone(&in_force.lookups)),
            in_force,
            context,
            traffic: None,
            input: NEGOTIATION.into(),
            output: BytesMut::new(),
            negotiated: false,
            share: Share::new(&context.kept),
            woken: Instant::now(),
        };
        for packet in [&b"Cmx\x004\0\x19192.0.2.1\0"[..]].iter().chain(said) {
            connection.input.extend_from_slice(&u32::try_from(packet.len()).unwrap().to_be_bytes());
            connection.input.extend_from_slice(packet);
        }
        assert!(connection.handle_all().await.unwrap());
        connection
    }

    /// A client may be silent for minutes after a message, an MTA for hours.
    #[tokio::test]
    async fn a_message_that_is_over_is_not_kept() {
        let context = context("");
        let in_force = context.in_force();
        let said: [&[u8]; 4] = [b"M<a@b>\0", b"R<c@d>\0", b"T", b"E"];
        for (length, is_kept) in [(2, true), (3, true), (4, false)] {
            let connection = hears(&context, &in_force, &said[..length]).await;
            assert_eq!(connection.session.subject().message.is_some(), is_kept, "{length}");
        }
    }

    #[tokio::test]
    async fn all_that_an_mta_makes_us_keep_is_counted() {
        let context = context("");
        let in_force = context.in_force();
        let long = "x".repeat(100_000);
        let [helo, login, sender, recipient] =
            ["H", "DM{auth_authen}\0", "M", "R"].map(|start| format!("{start}{long}\0").into_bytes());
        let said = [&*helo, &login, &sender, &recipient];
        for length in 0..=said.len() {
            let octets = hears(&context, &in_force, &said[..length]).await.session.octets();
            assert!(octets >= length * long.len(), "{length}: {octets}");
        }
    }

    /// Else, a disk that does not answer would have all clients shut out.
    #[tokio::test]
    async fn what_we_fail_to_judge_is_not_charged_as_refused() {
        const LIMITS: &str = r#"
            [[rule]]
            name = "bad"
            limit = { key = "client", bad_recipients = "30% of 3/hour" }
            at = "rcpt"
            [[rule]]
            name = "refused"
            limit = { key = "client", messages = "9/hour", recipients = "9/hour", charge = "refused" }
            [[rule]]
            name = "trap"
            when.recipient = "trap@b"
            [[rule]]
            name = "full"
            when.disk_free = { path = "/nowhere/at/all", below = "1 B" }
        "#;
        let keys_charged = async |at: &str, said: &[&[u8]]| {
            let text = format!("{LIMITS}\nat = \"{at}\"");
            let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text }]);
            let policy = Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}"));
            let context = Context::new(&config, policy, Arc::default()).unwrap();
            let in_force = context.in_force();
            let connection = hears(&context, &in_force, said).await;
            let heard = String::from_utf8_lossy(&connection.output).into_owned();
            let counters = 0..in_force.policy.counters().len();
            (heard, counters.map(|counter| in_force.lookups.top_limits(counter, 9).len()).sum::<usize>())
        };
        let (heard, keys) = keys_charged("mail", &[b"M<a@b>\0"]).await;
        assert!(heard.contains("y451 4.3.0"), "{heard:?}");
        assert_eq!(keys, 0);
        let (heard, keys) = keys_charged("rcpt", &[b"M<a@b>\0", b"R<c@b>\0"]).await;
        assert!(heard.contains("y451 4.3.0"), "{heard:?}");
        assert_eq!(keys, 0);
        let (heard, keys) = keys_charged("rcpt", &[b"M<a@b>\0", b"R<trap@b>\0"]).await;
        assert!(heard.contains("y550 5.7.1"), "{heard:?}");
        assert_eq!(keys, 2, "of recipients, tried and refused");
    }
}
