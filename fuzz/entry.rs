//! What is fuzzed: four functions that take any bytes and must never panic. The fuzz targets and `tests/fuzz_smoke.rs`
//! share them.

#![allow(dead_code, reason = "each target uses one of the functions")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a panic is what is looked for")]

#[path = "../tests/sessions/driver.rs"]
mod driver;

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::BytesMut;
use postward::config::Config;
use postward::config::Source;
use postward::explain::Scanner;
use postward::facts::Answer;
use postward::facts::Bound;
use postward::facts::Exceeded;
use postward::facts::Query;
use postward::policy::Policy;
use postward::session::Action;
use postward::session::Transport;
use postward::wire::Actions;
use postward::wire::Command;
use postward::wire::Frame;
use postward::wire::Offer;
use postward::wire::Steps;

use driver::Driver;

/// The policies that sessions are played under: all that a rule can do, at every stage.
const POLICIES: [&str; 6] = [
    "",
    postward::config::DEFAULT,
    r#"
    [lists.l]
    networks = ["192.0.2.0/24 # net"]
    domains = ["example.net", ".example.org"]
    addresses = ["b@example.test", "<>"]
    logins = ["alice"]
    senders = { alice = "example.net" }
    [[rule]]
    name = "stamp"
    add_header = "X-A: {client} {client_name} {helo} {listener} {port} {id} {rule}"
    [[rule]]
    name = "open"
    when.recipient = "open@example.test"
    then = "accept"
    [[rule]]
    name = "facts"
    when.any = [
      { client = "@l", not = { helo = "@l" } }, { client_name = "@l" }, { login = "@l", tls = false },
      { sender = "@l" }, { sender_domain = "@l" }, { sender_login_mismatch = "@l" }, { port = 25, listener = "MTA" },
    ]
    reply = "550 5.7.1 {client} {client_name} {helo} {login} {sender} {sender_domain} {size} {list} {list.entry} {list.comment}"
    at = "rcpt"
    [[rule]]
    name = "quota"
    when.over_quota = "@l"
    [[rule]]
    name = "size"
    when.size = "> 100"
    unless.authenticated = true
    "#,
    r#"
    [[rule]]
    name = "hole"
    when.recipient = "example.test"
    then = "discard"
    [[rule]]
    name = "hold"
    when.recipients = "> 1"
    then = "quarantine"
    [[rule]]
    name = "disk"
    when.disk_free = { path = "/", below = "1 GiB" }
    [[rule]]
    name = "limits"
    limit = { key = ["client/24", "sender", "recipient"], messages = "1/hour", recipients = "2/day", bytes = "1 KiB/minute" }
    reply = "450 4.7.1 {limit} {used} {retry_after} {retry_at} {recipient} {recipients}"
    "#,
    r#"
    [server]
    on_error = "accept"
    [policy]
    answer_at = "connect"
    [[rule]]
    name = "flood"
    limit = { key = "client", connections = "1/hour", concurrent = 2 }
    at = "connect"
    disconnect = true
    [[rule]]
    name = "data"
    when.sender = "example.net"
    at = "data"
    [[rule]]
    name = "end"
    at = "end-of-message"
    reply = "550 5.7.1 {queue_id} {sender}"
    "#,
    r#"
    [policy]
    mode = "monitor"
    [[rule]]
    name = "limit"
    limit = { key = "helo", messages = "1/hour", steps = { "100%" = "monitor", "200%" = "quarantine", "300%" = "defer" } }
    [[rule]]
    name = "hold"
    when.sender = "example.net"
    then = "quarantine"
    [[rule]]
    name = "all"
    "#,
];

static COMPILED: LazyLock<Vec<Arc<Policy>>> =
    LazyLock::new(|| POLICIES.iter().map(|text| driver::policy(text)).collect());

/// What a packet holds if the input does not say.
const SAMPLES: [(u8, &[u8]); 18] = [
    (b'A', b""),
    (b'B', b"hello\r\n"),
    (b'C', b"mx.example.net\x004\x9c\x40192.0.2.1\0"),
    (b'C', b"localhost\x006\0\0IPv6:0:0:0:0:0:0:0:1\0"),
    (b'D', b"C{daemon_name}\0MTA\0{daemon_port}\x0025\0"),
    (b'D', b"Mi\0A1\0{auth_type}\0PLAIN\0{auth_authen}\0alice\0{tls_version}\0TLSv1.3\0"),
    (b'E', b""),
    (b'H', b"mx.example.org\0"),
    (b'K', b""),
    (b'L', b"Subject\0 hello\n\tworld\0"),
    (b'M', b"<a@example.net>\0SIZE=200\0"),
    (b'M', b"\0"),
    (b'N', b""),
    (b'Q', b""),
    (b'R', b"<b@example.test>\0NOTIFY=never\0"),
    (b'R', b"<Open@Example.test>\0"),
    (b'T', b""),
    (b'U', b"FOO\0"),
];

/// Arbitrary bytes as the stream of an MTA: split, decoded, and encoded again.
pub(crate) fn frames(mut input: &[u8]) {
    while let Ok(Some((frame, length))) = Frame::split(input) {
        if let Ok(command) = Command::decode(frame) {
            let mut bytes = BytesMut::new();
            command.encode(&mut bytes);
            let (again, taken) = Frame::split(&bytes).unwrap().unwrap();
            assert_eq!(taken, bytes.len());
            assert_eq!(Command::decode(again), Ok(command));
        }
        input = &input[length..];
    }
}

/// Arbitrary commands under one of the policies. The first bytes choose policy, answers, transport and offer; what follows
/// is either a stream of frames, or for each command one byte for the letter and one for the length of its data, where 255
/// takes the sample and 254 makes the command meet a bug.
pub(crate) fn session(input: &[u8]) {
    let Some((&[choice, answers, transport, actions, steps @ ..], mut rest)) = input.split_first_chunk::<7>() else {
        return;
    };
    let policy = &COMPILED[usize::from(choice) % COMPILED.len()];
    let mut player = Player::new(policy, if transport & 1 == 0 { Transport::Tcp } else { Transport::Unix }, answers);
    if transport & 2 == 0 {
        while let Ok(Some((frame, length))) = Frame::split(rest) {
            if !player.play(frame, false) {
                return;
            }
            rest = &rest[length..];
        }
        return;
    }
    let steps = Steps(u32::from_be_bytes([0, steps[0], steps[1], steps[2]]));
    player.negotiate(Offer { version: 6, actions: Actions(u32::from(actions) << 1), steps });
    while let [letter, length, after @ ..] = rest {
        let (code, sample) = SAMPLES[usize::from(*letter) % SAMPLES.len()];
        let (data, after) = match length {
            254 | 255 => (sample, after),
            length => after.split_at(usize::from(*length).min(after.len())),
        };
        if !player.play(Frame { code, data }, *length == 254) {
            return;
        }
        rest = after;
    }
    player.end();
}

/// Arbitrary text as a configuration. One that loads must be able to judge.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let source = Source { path: "fuzz.toml".into(), text: text.to_owned() };
    let (config, mut diagnostics) = Config::read(vec![source]);
    let policy = Policy::compile(&config, &mut diagnostics);
    assert_eq!(policy.is_none(), diagnostics.has_errors());
    let shown = diagnostics.render(false);
    assert_eq!(shown.is_empty(), diagnostics.list.is_empty());
    for diagnostic in &diagnostics.list {
        assert!(text.is_char_boundary(diagnostic.place.span.start), "{diagnostic:?}");
    }
    let Some(policy) = policy.map(Arc::new) else {
        return;
    };
    for outline in policy.outlines() {
        assert!(!outline.to_string().is_empty());
    }
    for answers in [0, 1, 255] {
        let mut player = Player::new(&policy, Transport::Tcp, answers);
        player.negotiate(Offer { version: 6, actions: Actions(0x1ff), steps: Steps(0) });
        for letter in *b"DCHDMRRTLNBEAMREQ" {
            let (code, data) = *SAMPLES.iter().find(|(code, _)| *code == letter).unwrap();
            if !player.play(Frame { code, data }, false) {
                break;
            }
        }
    }
}

/// Arbitrary text as a log, a bounce, or whatever else a person pastes. What is found stands where it is said to.
pub(crate) fn scan(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let lines: Vec<&str> = text.lines().collect();
    let mut scanner = Scanner::new();
    let mut found: Vec<_> = lines.iter().flat_map(|line| scanner.line(line)).collect();
    found.extend(scanner.finish());
    assert!(scanner.log_lines() <= lines.len());
    for found in found {
        assert!(found.code.is_some() || found.enhanced.is_some(), "{found:?}");
        assert!(found.code.is_none_or(|code| (200..600).contains(&code)), "{found:?}");
        assert!((1..=lines.len()).contains(&found.line), "{found:?}");
    }
}

/// A session that is played to its end, with answers that the input chooses.
struct Player {
    driver: Driver,
    answers: u8,
    asked: u8,
    /// Messages begun and not ended.
    open: i64,
}

impl Player {
    fn new(policy: &Arc<Policy>, transport: Transport, answers: u8) -> Self {
        Self { driver: Driver::new(Arc::clone(policy), transport), answers, asked: 0, open: 0 }
    }

    fn negotiate(&mut self, offer: Offer) {
        self.driver.handle(Command::Negotiate(offer), |_| Answer::Failed).unwrap();
    }

    /// False once the connection is over.
    fn play(&mut self, frame: Frame<'_>, bug: bool) -> bool {
        let Ok(command) = Command::decode(frame) else {
            self.end();
            return false;
        };
        let (answers, asked) = (self.answers, &mut self.asked);
        let answer = |query: &Query| {
            *asked = asked.wrapping_add(1);
            answer(query, answers.wrapping_mul(*asked))
        };
        let step = if bug { Ok(self.driver.break_down(command)) } else { self.driver.handle(command, answer) };
        let Ok(step) = step else {
            self.end();
            return false;
        };
        self.count(command, step.superseded.is_some(), step.ended().is_some());
        let closed = matches!(step.action, Action::Close);
        if closed {
            self.end();
        }
        !closed
    }

    /// A session that no bug has met has a message exactly from MAIL to its one end.
    fn count(&mut self, command: Command<'_>, superseded: bool, ended: bool) {
        self.open -= i64::from(superseded);
        let begun = matches!(command, Command::Mail(_)) && (self.driver.session.has_message() || ended);
        self.open += i64::from(begun);
        self.open -= i64::from(ended && (self.open > 0));
        assert_eq!(self.open, i64::from(self.driver.session.has_message()), "{}", command.name());
    }

    fn end(&mut self) {
        self.driver.session.abandon();
        assert!(!self.driver.session.has_message());
    }
}

fn answer(query: &Query, choice: u8) -> Answer {
    let exceeded = Exceeded {
        step: usize::from(choice >> 6),
        row: 0,
        bound: match choice & 12 {
            0 | 8 => Bound::Rate(usize::from(choice >> 6)),
            4 => Bound::Concurrent,
            _ => Bound::Block,
        },
        used: u64::from(choice),
        retry_after: (choice & 8 == 0).then_some(Duration::from_millis(u64::from(choice) << choice.min(40))),
        retry_at: None,
    };
    match (query, choice & 3) {
        (_, 3) => Answer::Failed,
        (Query::DiskFree(_), 0) => Answer::Bytes(u64::MAX),
        (Query::DiskFree(_), _) => Answer::Bytes(0),
        (Query::Hold(_), 0) => Answer::Within,
        (Query::Hold(_), _) => Answer::Exceeded(exceeded),
    }
}
