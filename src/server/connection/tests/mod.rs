mod pieces;

use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::*;
use crate::config::Config;
use crate::config::Source;
use crate::facts::Answer;
use crate::facts::Query;
use crate::lookup::Ledger;
use crate::policy::Policy;
use crate::session::Settlement;
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

    fn answer_now(&mut self, _: &Query) -> Option<Answer> {
        None
    }

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
    let text = format!("{settings}\n[[rule]]\nname = \"full\"\nwhen.disk_free = {{ path = \"/\", below = \"1 B\" }}");
    context_of(text)
}

/// With this configuration and nothing else.
fn context_of(text: String) -> Context {
    let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text }]);
    let policy = Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}"));
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
    drive(Socket::Unix(ours), &"test", session, Broken::Hangs, &context.in_force(), context, Some(&traffic(context)))
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
        () = drive(Socket::Unix(ours), &"test", session, Broken::Hangs, &in_force, &context, Some(&traffic)) => {}
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
    drive(Socket::Unix(ours), &"test", session, lookup, &context.in_force(), &context, Some(&traffic(&context))).await;
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

/// What the MTA has said is handled and answered, and the connection is open.
async fn hears<'a>(context: &'a Context, in_force: &'a InForce, said: &[&[u8]]) -> (Connection<'a, Ledger>, BytesMut) {
    let (_mta, ours) = UnixStream::pair().unwrap();
    let mut connection = Connection {
        socket: Socket::Unix(ours),
        session: Session::new(Arc::clone(&in_force.policy), 1, Transport::Unix),
        lookup: Ledger::new(Arc::clone(&in_force.lookups)),
        in_force,
        context,
        traffic: None,
        partial: BytesMut::new(),
        body_left: 0,
        negotiated: false,
        share: Share::new(&context.kept),
        woken: Instant::now(),
    };
    let mut input = BytesMut::from(NEGOTIATION);
    for packet in [&b"Cmx\x004\0\x19192.0.2.1\0"[..]].iter().chain(said) {
        input.extend_from_slice(&u32::try_from(packet.len()).unwrap().to_be_bytes());
        input.extend_from_slice(packet);
    }
    let length = input.len();
    let mut burst = Burst { lent: context.buffers.lend(), length, partial: input, taken: 0 };
    let handled = connection.handle_all(&mut burst).unwrap();
    let open = match handled {
        Progress::Asks(query) => connection.handle_slowly(query, &mut burst).await.unwrap(),
        Progress::Done(open) => open,
    };
    assert!(open);
    assert_eq!(burst.taken, length);
    let output = std::mem::take(&mut burst.lent.buffer.output);
    (connection, output)
}

/// A client may be silent for minutes after a message, an MTA for hours.
#[tokio::test]
async fn a_message_that_is_over_is_not_kept() {
    let context = context("");
    let in_force = context.in_force();
    let said: [&[u8]; 4] = [b"M<a@b>\0", b"R<c@d>\0", b"T", b"E"];
    for (length, is_kept) in [(2, true), (3, true), (4, false)] {
        let (connection, _) = hears(&context, &in_force, &said[..length]).await;
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
        let octets = hears(&context, &in_force, &said[..length]).await.0.session.octets();
        assert!(octets >= length * long.len(), "{length}: {octets}");
    }
}

/// Of a long frame nothing is kept once it is handled, however little of the next one has come.
#[tokio::test]
async fn what_is_handled_is_not_kept() {
    let context = context("");
    let in_force = context.in_force();
    let long = [&b"H"[..], &[b'x'; 1 << 19], b"\0"].concat();
    let (mut connection, _) = hears(&context, &in_force, &[]).await;
    let mut partial = BytesMut::from(&*pieces::frames(&[&long]));
    let taken = partial.len();
    partial.extend_from_slice(b"\0\0");
    let lent = context.buffers.lend();
    connection.keep(&mut Burst { lent, length: 2, partial, taken });
    assert_eq!(connection.partial, &b"\0\0"[..]);
    assert!(!connection.partial.try_reclaim(1 << 19));
}

/// Who waits for a look-up with much behind it keeps that.
#[tokio::test]
async fn what_waits_for_a_look_up_is_counted() {
    let context = context("[server]\nmax_memory = \"16 MiB\"");
    let in_force = context.in_force();
    let behind = pieces::frames(&[b"M<a@b>\0", &[&b"L"[..], &[b'x'; 66_000], b"\0\0"].concat()]);
    let mut others = Share::new(&context.kept);
    for (octets, has_room) in [(8 << 20, true), (16 << 20, false)] {
        assert!(others.keep(octets, usize::MAX));
        let (mut connection, _) = hears(&context, &in_force, &[]).await;
        let mut lent = context.buffers.lend();
        lent.buffer.input[..behind.len()].copy_from_slice(&behind);
        let taken = connection.take_in(lent, behind.len());
        assert_eq!(matches!(taken, Ok(Taken::Asks(..))), has_room);
        assert!(context.kept.octets() - octets >= 48 << 10, "{}", context.kept.octets());
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
        let context = context_of(format!("{LIMITS}\nat = \"{at}\""));
        let in_force = context.in_force();
        let (_connection, output) = hears(&context, &in_force, said).await;
        let heard = String::from_utf8_lossy(&output).into_owned();
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

/// What a connection takes that waits, beside what its session keeps of names.
#[tokio::test]
async fn a_connection_that_waits_is_small() {
    let context = context("");
    let in_force = context.in_force();
    let (_mta, ours) = UnixStream::pair().unwrap();
    let session = Session::new(Arc::clone(&in_force.policy), 1, Transport::Unix);
    let ledger = Ledger::new(Arc::clone(&in_force.lookups));
    let driving = drive(Socket::Unix(ours), &"test", session, ledger, &in_force, &context, None);
    assert!(size_of_val(&driving) <= 1024, "{}", size_of_val(&driving));
}
