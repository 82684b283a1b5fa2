//! One MTA connection: bytes in, commands through the session (`commands.rs`), bytes out.
//!
//! All commands that have arrived are handled in one go, and their answers leave in one write. A connection that waits has no
//! buffers, but for a frame of which only a part has come.

mod commands;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::pin::pin;
use std::task;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep_until;

use super::buffers::Lent;
use super::context::Context;
use super::context::InForce;
use super::journal;
use super::memory::Share;
use super::socket::Socket;
use crate::facts::Query;
use crate::lookup::Lookup;
use crate::metrics::Shed;
use crate::metrics::Traffic;
use crate::session::ProtocolError;
use crate::session::Session;
use commands::Progress;

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

/// How much room is made at once for a frame that has begun: its length may say anything.
const MAX_RESERVE: usize = 64 << 10;

/// Talks with the MTA until either side ends it.
pub(super) fn drive<'a, L: Lookup + 'a>(
    socket: Socket,
    peer: &'a (dyn fmt::Display + Sync),
    session: Session,
    lookup: L,
    in_force: &'a InForce,
    context: &'a Context,
    traffic: Option<&'a Traffic>,
) -> impl Future<Output = ()> + Send + 'a {
    let mut connection = Connection {
        socket,
        session,
        lookup,
        in_force,
        context,
        traffic,
        partial: BytesMut::new(),
        body_left: 0,
        negotiated: false,
        share: Share::new(&context.kept),
        woken: Instant::now(),
    };
    // No async function: that would keep room for its arguments, too, as long as it lives.
    async move {
        // What panics outside of a command, where no answer is owed, ends this connection and nothing else.
        let ended = AssertUnwindSafe(connection.run()).catch_unwind().await.unwrap_or(Err(Ended::Bug));
        connection.end(ended, peer);
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
    /// The beginning of a frame whose end has not come.
    partial: BytesMut,
    /// How much is still to come of a piece of a body of which the beginning is handled.
    body_left: usize,
    negotiated: bool,
    share: Share<'a>,
    /// When the latest packets came.
    woken: Instant,
}

/// What has arrived at once.
struct Burst<'a> {
    /// Where it was read to, if no frame had begun before, and where answers are written.
    lent: Lent<'a>,
    /// How much was read.
    length: usize,
    /// Where it was read to else, behind the beginning of that frame.
    partial: BytesMut,
    /// How much of it was handled.
    taken: usize,
}

/// How far a burst has come.
enum Taken<'a> {
    /// This has to be looked up first.
    Asks(Burst<'a>, Query),
    /// The MTA does not read; how it was handled.
    Unsent(Vec<u8>, Result<bool, Ended>),
    /// It is handled and answered; false: the conversation is over.
    Whole(bool),
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

impl<'a, L: Lookup> Connection<'a, L> {
    async fn run(&mut self) -> Result<(), Ended> {
        let mut stopping = self.context.stopping.subscribe();
        let mut grace = pin!(grace_ends(&mut stopping));
        let greeting_ends = self.woken + GREETING_TIME;
        // Fires no later than patience ends. Made anew for each read, a timer would cost about as much as the read.
        let mut alarm = pin!(sleep_until(greeting_ends));
        loop {
            let is_between_frames = self.partial.is_empty() && self.body_left == 0;
            let patience_ends = match (self.negotiated, is_between_frames) {
                (false, _) => greeting_ends,
                (true, false) => self.woken + FRAME_TIME,
                (true, true) => self.woken + IDLE_TIME,
            };
            if patience_ends < alarm.deadline() {
                alarm.as_mut().reset(patience_ends);
            }
            let at_rest = !self.session.has_message() && is_between_frames;
            let arrived = loop {
                tokio::select! {
                    biased;
                    arrived = poll_fn(|context| self.poll_arrival(context)) => break arrived,
                    () = &mut grace, if at_rest => return Ok(()),
                    () = &mut alarm => {
                        if Instant::now() >= patience_ends {
                            return Err(Ended::Silent);
                        }
                        alarm.as_mut().reset(patience_ends);
                    }
                }
            };
            let (lent, length) = arrived.map_err(Ended::Io)?;
            if length == 0 {
                return Ok(());
            }
            self.woken = Instant::now();
            let rest = match self.take_in(lent, length)? {
                Taken::Whole(true) => continue,
                Taken::Whole(false) => return Ok(()),
                taken @ (Taken::Asks(..) | Taken::Unsent(..)) => self.go_on(taken),
            };
            if !rest.await? {
                return Ok(());
            }
        }
    }

    /// Reads to a buffer that is lent for it, or on with the frame that has begun; how much came, zero at the end.
    fn poll_arrival(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<(Lent<'a>, usize)>> {
        let mut lent = self.context.buffers.lend();
        let length = if self.partial.is_empty() {
            ready!(self.socket.poll_read(context, &mut lent.buffer.input))?
        } else {
            ready!(self.socket.poll_append(context, &mut self.partial))?
        };
        Poll::Ready(Ok((lent, length)))
    }

    /// Handles what has arrived and sends all answers in one go, as far as that takes no waiting.
    fn take_in(&mut self, lent: Lent<'a>, length: usize) -> Result<Taken<'a>, Ended> {
        let partial = std::mem::take(&mut self.partial);
        let mut burst = Burst { lent, length, partial, taken: 0 };
        match self.handle_all(&mut burst) {
            Ok(Progress::Asks(query)) => self.wait(burst.without_room(), query),
            Ok(Progress::Done(open)) => self.send(burst, Ok(open)),
            Err(ended) => self.send(burst, Err(ended)),
        }
    }

    /// Sends the answers to what was handled; also those before something that makes no sense.
    fn send(&mut self, mut burst: Burst<'a>, handled: Result<bool, Ended>) -> Result<Taken<'a>, Ended> {
        self.keep(&mut burst);
        if let Some(unsent) = self.flush(burst.lent)? {
            self.check_room(unsent.capacity())?;
            return Ok(Taken::Unsent(unsent, handled));
        }
        self.finish_burst(handled)
    }

    fn finish_burst(&mut self, handled: Result<bool, Ended>) -> Result<Taken<'a>, Ended> {
        let open = handled?;
        if open {
            self.check_room(0)?;
        }
        Ok(Taken::Whole(open))
    }

    /// Sees that there is room for a burst until its question is answered.
    fn wait(&mut self, burst: Burst<'a>, query: Query) -> Result<Taken<'a>, Ended> {
        match self.check_room(burst.partial.capacity() + burst.lent.buffer.output.capacity()) {
            Ok(()) => Ok(Taken::Asks(burst, query)),
            Err(ended) => self.send(burst, Err(ended)),
        }
    }

    /// Sees that there is room for what is kept, and for so much that waits.
    fn check_room(&mut self, waiting: usize) -> Result<(), Ended> {
        let kept = self.session.octets() + self.partial.capacity() + waiting;
        let has_room = self.share.keep(kept, self.in_force.config.server.max_memory);
        if has_room { Ok(()) } else { Err(Ended::NoRoom) }
    }

    /// Goes on with what takes its time; false once the conversation is over.
    ///
    /// In a box: it is rare, and a connection would keep room for it all its life.
    fn go_on<'b>(&'b mut self, mut taken: Taken<'a>) -> Pin<Box<dyn Future<Output = Result<bool, Ended>> + Send + 'b>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            loop {
                taken = match taken {
                    Taken::Asks(mut burst, query) => {
                        let handled = self.handle_slowly(query, &mut burst).await;
                        self.send(burst, handled)?
                    }
                    Taken::Unsent(unsent, handled) => {
                        self.flush_slowly(unsent).await?;
                        self.finish_burst(handled)?
                    }
                    Taken::Whole(open) => return Ok(open),
                };
            }
        })
    }

    /// Keeps the frame of which only the beginning has come.
    fn keep(&mut self, burst: &mut Burst<'_>) {
        let mut partial = std::mem::take(&mut burst.partial);
        if partial.is_empty() {
            partial.extend_from_slice(burst.lent.buffer.input.get(burst.taken..burst.length).unwrap_or_default());
        } else if burst.taken > 0 {
            // Elsewhere: room before what is left would be kept, too, and nobody would count it.
            partial = partial.get(burst.taken..).unwrap_or_default().into();
        }
        if !partial.is_empty() {
            partial.reserve(missing(&partial).clamp(1, MAX_RESERVE));
            self.partial = partial;
        }
    }

    /// Sends the answers, as far as that takes no waiting; what is left is returned.
    fn flush(&mut self, mut lent: Lent<'_>) -> Result<Option<Vec<u8>>, Ended> {
        let output = &mut lent.buffer.output;
        if output.is_empty() {
            self.socket.acknowledge();
            return Ok(None);
        }
        journal::sent(&self.session, output);
        let is_sent = self.socket.write_now(output).map_err(Ended::Io)?;
        Ok((!is_sent).then(|| output.to_vec()))
    }

    /// Sends the rest to an MTA that does not read. The buffers are others' by now.
    async fn flush_slowly(&mut self, unsent: Vec<u8>) -> Result<(), Ended> {
        match tokio::time::timeout(WRITE_TIME, self.socket.write_all(&unsent)).await {
            Ok(written) => written.map_err(Ended::Io),
            Err(_elapsed) => Err(Ended::Silent),
        }
    }

    /// Gives back what it holds, and tells how it ended.
    fn end(&mut self, ended: Result<(), Ended>, peer: &dyn fmt::Display) {
        let (id, context) = (self.session.id(), self.context);
        let abandoned = catch_unwind(AssertUnwindSafe(|| self.session.abandon()));
        if let (Ok(Some(end)), Some(traffic)) = (abandoned, self.traffic) {
            traffic.message_ended(end);
        }
        match ended {
            Ok(()) => tracing::debug!(session = %id, peer = peer.to_string(), "closed"),
            Err(Ended::Protocol(error)) => {
                context.metrics.protocol_error();
                if context.warnings.protocol.admits() {
                    tracing::warn!(session = %id, peer = peer.to_string(), %error, "closing: the MTA's side makes no sense");
                }
            }
            Err(Ended::Bug) => {
                context.metrics.internal_error();
                tracing::error!(session = %id, peer = peer.to_string(), "closing: a bug was met that leaves no answer; please report this");
            }
            Err(Ended::Io(error)) => tracing::debug!(session = %id, peer = peer.to_string(), %error, "lost"),
            Err(Ended::NoRoom) => {
                context.metrics.connection_shed(Shed::Closed);
                if context.warnings.shed.admits() {
                    tracing::warn!(session = %id, peer = peer.to_string(), "closing: sessions keep more than server.max_memory together");
                }
            }
            Err(Ended::Silent) => {
                if context.warnings.silent.admits() {
                    tracing::warn!(session = %id, peer = peer.to_string(), "closing: silent for too long");
                }
            }
            Err(Ended::Stranger) => {
                context.metrics.protocol_error();
                if context.warnings.protocol.admits() {
                    tracing::warn!(session = %id, peer = peer.to_string(), "closing: this is no milter client, its first frame is too long");
                }
            }
        }
    }
}

/// How much is missing of the frame that these bytes begin; of its length, if not even that is known.
fn missing(partial: &[u8]) -> usize {
    match partial.first_chunk::<4>() {
        Some(length) => (length.len() + u32::from_be_bytes(*length) as usize).saturating_sub(partial.len()),
        None => 4 - partial.len(),
    }
}

impl Burst<'_> {
    /// The same with what is still to be handled in a place of its own: many may wait at once.
    fn without_room(mut self) -> Self {
        if self.partial.is_empty() {
            let rest = self.lent.buffer.input.get(self.taken..self.length).unwrap_or_default();
            (self.partial, self.taken) = (rest.into(), 0);
        }
        self.lent.keep_output();
        self
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
pub(super) mod tests;
