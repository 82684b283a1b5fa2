//! However the bytes are cut, and however long look-ups take: the answers and the charges are the same.

use super::*;
use crate::lookup::Shared;
use crate::wire::Frame;

/// Nearly every part of the protocol has a question to ask.
const POLICY: &str = r#"
    [[rule]]
    name = "rate"
    limit = { key = "client", messages = "90/hour", recipients = "90/hour", bytes = "1 GiB/hour" }
    [[rule]]
    name = "tries"
    limit = { key = "client", bad_recipients = "90% of 50/hour" }
    at = "rcpt"
    [[rule]]
    name = "refused"
    limit = { key = "client", messages = "90/hour", recipients = "90/hour", charge = "refused" }
    [[rule]]
    name = "trap"
    when.recipient = "trap@b"
    [[rule]]
    name = "measured"
    when.size = "> 1 KiB"
    when.sender = "small@a"
    reply = "552 5.3.4 {size}"
    [[rule]]
    name = "full"
    when.disk_free = { path = "/", below = "1 B" }
    at = "rcpt"
"#;

/// Wants an answer to each piece of a body.
const NEGOTIATION_OF_OLD: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\0\0\0";

/// A session's own counters, and whether they take their time; the look-up of this number has a bug.
struct Planted {
    ledger: Ledger,
    is_slow: bool,
    bug_at: Option<usize>,
    asked: usize,
}

impl Planted {
    fn look_up(&mut self, query: &Query) -> Answer {
        self.asked += 1;
        assert!(self.bug_at != Some(self.asked), "planted");
        match query {
            Query::DiskFree(_) => Answer::Bytes(1 << 30),
            Query::Hold(_) => self.ledger.answer_now(query).unwrap(),
        }
    }
}

impl Lookup for Planted {
    fn begin(&mut self) {
        self.ledger.begin();
    }

    fn answer_now(&mut self, query: &Query) -> Option<Answer> {
        (!self.is_slow).then(|| self.look_up(query))
    }

    async fn answer(&mut self, query: &Query) -> Answer {
        tokio::task::yield_now().await;
        self.look_up(query)
    }

    fn settle(&mut self, settlement: Settlement) {
        self.ledger.settle(settlement);
    }

    fn restart(&mut self) {
        self.ledger.restart();
    }
}

/// What came of a conversation.
#[derive(Debug, PartialEq)]
struct Outcome {
    heard: Vec<u8>,
    /// Whether it goes on.
    ended: Result<bool, String>,
    /// Of each counter what is charged and what is held, before the connection is gone.
    counts: Vec<(u64, u64)>,
    asked: usize,
}

pub(super) fn frames(packets: &[&[u8]]) -> Vec<u8> {
    let frame = |packet: &&[u8]| [&u32::try_from(packet.len()).unwrap().to_be_bytes(), *packet].concat();
    packets.iter().flat_map(frame).collect()
}

/// Messages one after the other, given up at any stage, and superseded.
fn conversation(negotiation: &[u8], body: &[u8], end: &[u8]) -> Vec<u8> {
    let body = [b"B", body].concat();
    let short = [b"B", &body[1..body.len() / 3]].concat();
    let packets: &[&[u8]] = &[
        b"Cmx\x004\0\x19192.0.2.1\0",
        b"Hmx\0",
        b"DM{auth_authen}\0bob\0i\0q1\0",
        b"M<small@a>\0",
        b"DR{rcpt_addr}\0c@b\0",
        b"R<c@b>\0",
        b"R<trap@b>\0",
        b"T",
        b"LSubject\0 hi\0",
        b"N",
        &body,
        b"B",
        &short,
        b"Erest",
        b"M<large@a>\0SIZE=10\0",
        b"R<c@b>\0",
        b"R<d@b>\0",
        b"N",
        &body,
        &short,
        b"E",
        b"M<gone@a>\0",
        b"R<c@b>\0",
        b"N",
        &short,
        b"A",
        b"M<left@a>\0",
        b"R<c@b>\0",
        b"R<trap@b>\0",
        &short,
        b"M<next@a>\0",
        b"R<c@b>\0",
        &short,
        b"K",
        b"Cmx\x004\0\x19192.0.2.1\0",
        b"M<open@a>\0",
        b"R<c@b>\0",
        b"R<trap@b>\0",
        &short,
    ];
    [negotiation, &frames(packets), end].concat()
}

/// Reads and handles these pieces one after the other, as `run` does.
async fn hear(context: &Context, pieces: &[&[u8]], is_slow: bool, bug_at: Option<usize>) -> Outcome {
    let in_force = context.in_force();
    let shared = Shared::new(Arc::clone(&in_force.policy));
    let lookup = Planted { ledger: Ledger::new(Arc::clone(&shared)), is_slow, bug_at, asked: 0 };
    let (mut mta, ours) = UnixStream::pair().unwrap();
    let mut connection = Connection {
        socket: Socket::Unix(ours),
        session: Session::new(Arc::clone(&in_force.policy), 1, Transport::Unix),
        lookup,
        in_force: &in_force,
        context,
        traffic: None,
        partial: BytesMut::new(),
        body_left: 0,
        negotiated: false,
        share: Share::new(&context.kept),
        woken: Instant::now(),
    };
    let ended = feed(&mut connection, &mut mta, pieces).await.map_err(|ended| format!("{ended:?}"));
    let counts = (0..in_force.policy.counters().len()).flat_map(|counter| shared.top_limits(counter, 9));
    let counts = counts.map(|view| (view.charged, view.held)).collect();
    let asked = connection.lookup.asked;
    drop(connection);
    let mut heard = Vec::new();
    // The end is a reset where something was left unread, behind all answers.
    _ = mta.read_to_end(&mut heard).await;
    Outcome { heard, ended, counts, asked }
}

async fn feed(connection: &mut Connection<'_, Planted>, mta: &mut UnixStream, pieces: &[&[u8]]) -> Result<bool, Ended> {
    for piece in pieces {
        mta.write_all(piece).await.unwrap();
        let mut left = piece.len();
        while left > 0 {
            let (lent, length) = poll_fn(|context| connection.poll_arrival(context)).await.unwrap();
            left -= length;
            let taken = connection.take_in(lent, length)?;
            if !connection.go_on(taken).await? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn policy() -> Context {
    context_of(POLICY.to_owned())
}

/// What an MTA may say at the end, and some that none may.
const ENDS: [&[u8]; 6] = [
    b"",
    b"\0\0\0\x01Q",
    b"\0\0\0\x01E\0\0\0\x01Q",
    b"\0\0\0\x01A\0\0\0\x03Bxx",
    b"\0\0\0\0",
    b"\0\0\0\x06Bhello\0\x10\0\x01Bxx",
];

#[tokio::test]
async fn wherever_it_is_cut_the_same_is_answered_and_charged() {
    let context = policy();
    for (negotiation, end) in [NEGOTIATION, NEGOTIATION_OF_OLD].into_iter().zip([0, 3].map(|end| ENDS[end])) {
        let said = conversation(negotiation, &[b'x'; 40], end);
        let whole = hear(&context, &[&said], false, None).await;
        assert!(whole.counts.iter().any(|(charged, _)| *charged > 0) && whole.asked > 9, "{whole:?}");
        for cut in 1..said.len() {
            let (first, second) = said.split_at(cut);
            for is_slow in [false, true] {
                assert_eq!(hear(&context, &[first, second], is_slow, None).await, whole, "cut at {cut}");
            }
        }
    }
}

#[tokio::test]
async fn in_however_many_pieces_it_comes_the_same_is_answered_and_charged() {
    let context = policy();
    for negotiation in [NEGOTIATION, NEGOTIATION_OF_OLD] {
        for end in ENDS {
            let said = conversation(negotiation, &[b'x'; 2000], end);
            let whole = hear(&context, &[&said], false, None).await;
            assert!(String::from_utf8_lossy(&whole.heard).contains("y552 5.3.4"), "{whole:?}");
            for size in [1, 2, 3, 5, 7, 64, 1000, said.len()] {
                let pieces: Vec<&[u8]> = said.chunks(size).collect();
                for is_slow in [false, true] {
                    assert_eq!(hear(&context, &pieces, is_slow, None).await, whole, "in pieces of {size}");
                }
            }
        }
    }
}

/// Longer than what is read at once.
#[tokio::test]
async fn of_a_long_body_nothing_is_lost() {
    let context = policy();
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(65_535).collect();
    for negotiation in [NEGOTIATION, NEGOTIATION_OF_OLD] {
        let said = conversation(negotiation, &body, b"\0\0\0\x01E");
        let mut outcomes = Vec::new();
        for size in [999, 4096, 65_535, 65_540, 70_000] {
            for is_slow in [false, true] {
                let pieces: Vec<&[u8]> = said.chunks(size).collect();
                outcomes.push(hear(&context, &pieces, is_slow, None).await);
            }
        }
        assert_eq!(outcomes[0].ended, Ok(true));
        assert!(outcomes.windows(2).all(|two| two[0] == two[1]), "{outcomes:?}");
    }
}

#[tokio::test]
async fn wherever_a_bug_is_met_there_is_one_answer_and_nothing_is_held_twice() {
    let context = policy();
    let said = conversation(NEGOTIATION, b"xxx", b"\0\0\0\x01E");
    let sound = hear(&context, &[&said], false, None).await;
    let answers = |heard: &[u8]| {
        let mut rest = heard;
        std::iter::from_fn(|| {
            let (_, length) = Frame::split(rest).unwrap()?;
            rest = &rest[length..];
            Some(())
        })
        .count()
    };
    for bug_at in 1..=sound.asked {
        let whole = hear(&context, &[&said], false, Some(bug_at)).await;
        assert_eq!(answers(&whole.heard), answers(&sound.heard), "at question {bug_at}");
        for (size, is_slow) in [(1, false), (1, true), (7, false), (7, true), (said.len(), true)] {
            let pieces: Vec<&[u8]> = said.chunks(size).collect();
            let outcome = hear(&context, &pieces, is_slow, Some(bug_at)).await;
            assert_eq!(outcome, whole, "at question {bug_at} in pieces of {size}");
        }
    }
    let bugs = format!("postward_internal_errors_total {}\n", 6 * sound.asked);
    assert!(context.metrics.encode().unwrap().contains(&bugs));
}

/// A body that is handled as it comes is a frame all the same.
#[tokio::test(start_paused = true)]
async fn who_is_silent_within_a_body_is_not_waited_for_long() {
    let context = context("[server]\non_error = \"accept\"\n[[rule]]\nname = \"big\"\nwhen.size = \"> 1 GiB\"");
    let envelope = frames(&[b"Cmx\x004\0\x19192.0.2.1\0", b"M<a@b>\0", b"R<c@d>\0"]);
    for (body, seconds) in [(&b"\0\0\0\x06Bfour"[..], 60), (b"\0\0\0\x05Bfour", 7210)] {
        assert_eq!(lasts(&context, &[NEGOTIATION, &envelope, body].concat()).await, seconds);
    }
}

/// The rest of the answers waits, and goes before those that come later.
#[tokio::test]
async fn an_mta_that_does_not_read_gets_every_answer_later_and_in_order() {
    let context = policy();
    let in_force = context.in_force();
    let (mut connection, _) = hears(&context, &in_force, &[]).await;
    let (mut mta, ours) = UnixStream::pair().unwrap();
    connection.socket = Socket::Unix(ours);
    connection.session = Session::new(Arc::clone(&in_force.policy), 1, Transport::Unix);
    let mut said = [NEGOTIATION_OF_OLD, &frames(&[b"Cmx\x004\0\x19192.0.2.1\0", b"M<a@b>\0"])].concat();
    let mut bodies = 0;
    let unsent = loop {
        let mut lent = context.buffers.lend();
        lent.buffer.input[..said.len()].copy_from_slice(&said);
        match connection.take_in(lent, said.len()).unwrap() {
            unsent @ Taken::Unsent(..) => break unsent,
            taken @ (Taken::Asks(..) | Taken::Whole(_)) => assert!(connection.go_on(taken).await.unwrap()),
        }
        bodies += 10_000;
        said = frames(&[&b"B"[..]; 10_000]);
    };
    let mut heard = vec![0; 5 * bodies];
    let (open, read) = tokio::join!(connection.go_on(unsent), mta.read_exact(&mut heard));
    assert!(open.unwrap() && read.unwrap() == 5 * bodies);
    let lent = context.buffers.lend();
    let refused = frames(&[b"R<trap@b>\0"]);
    let mut burst = Burst { lent, length: refused.len(), partial: BytesMut::from(&*refused), taken: 0 };
    assert!(matches!(connection.handle_all(&mut burst), Ok(Progress::Asks(_) | Progress::Done(true))));
    connection.send(burst, Ok(true)).unwrap();
    drop(connection);
    mta.read_to_end(&mut heard).await.unwrap();
    let at = heard.windows(5).position(|answer| answer == b"\0\0\0\x01c").unwrap();
    assert!(heard[at..at + 5 * bodies].chunks(5).all(|answer| answer == b"\0\0\0\x01c"));
}
