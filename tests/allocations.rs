//! Judging a message that no rule refuses allocates nothing, however many rules there are: what a session allocates is what it
//! allocates where there is no rule.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "what breaks fails the test")]

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BytesMut;
use postward::config;
use postward::config::Config;
use postward::config::Source;
use postward::facts::Answer;
use postward::facts::Query;
use postward::policy::Policy;
use postward::session::Action;
use postward::session::Session;
use postward::session::Transport;
use postward::session::Verdict;
use postward::wire::Actions;
use postward::wire::Command;
use postward::wire::Connect;
use postward::wire::Envelope;
use postward::wire::Frame;
use postward::wire::Offer;
use postward::wire::Steps;
use postward::wire::Strings;

/// Asks about everything that there is, in lists and out of them, and counts everything that is counted for messages.
const THOROUGH: &str = r#"
[lists.trusted]
networks = ["127.0.0.0/8", "198.51.100.0/24"]
[lists.wide]
networks = ["192.0.0.0/8", "192.0.2.0/24"]
[lists.own.senders]
alice = ["example.org"]
[lists.bulk.limits]
"newsletter" = "unlimited"

[[rule]]
when.client = "@trusted"
then = "accept"
[[rule]]
when.client = "@wide"
when.authenticated = false
reply = "530 5.7.0 Authentication required"
[[rule]]
when.helo = ["localhost", ".localdomain"]
[[rule]]
when.any = [{ client_name = "unknown" }, { tls = false, port = 587 }]
[[rule]]
when.sender_login_mismatch = "@own"
[[rule]]
when.sender = ["spam@example.com", ".spam.example"]
unless.listener = "internal"
[[rule]]
when.disk_free = { path = "/var/spool", below = "1 GiB" }
[[rule]]
when.recipient = "secret@example.org"
unless.login = "bob"
[[rule]]
when.recipients = "> 100"
[[rule]]
when.size = "> 25 MiB"
[[rule]]
when.recipient = "list@example.org"
when.size = "> 1 MiB"
[[rule]]
limit = { key = ["login", "client"], messages = ["20/minute", "500/day"], recipients = "1000/day", bytes = "1 GiB/day", overrides = "@bulk" }
[[rule]]
limit = { key = "sender_domain", messages = "100/hour" }
mode = "monitor"
"#;

/// A policy; rules without a name get one.
fn policy(text: &str) -> Arc<Policy> {
    let named = |(number, rule): (usize, &str)| {
        if number == 0 || rule.starts_with("name") { rule.to_owned() } else { format!("name = \"r{number}\"\n{rule}") }
    };
    let text = text.split("[[rule]]\n").enumerate().map(named).collect::<Vec<_>>().join("[[rule]]\n");
    let (config, mut diagnostics) = Config::read(vec![Source { path: "policy.toml".into(), text }]);
    Arc::new(Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}")))
}

/// So many rules about clients, senders and recipients that are others.
fn long(rules: usize) -> String {
    (0..rules / 4).fold(String::new(), |mut text, n| {
        writeln!(text, "[[rule]]\nwhen.client = \"198.18.{}.{}\"", n / 250, n % 250).unwrap();
        writeln!(text, "[[rule]]\nwhen.sender = \"s{n}@example.com\"").unwrap();
        writeln!(text, "[[rule]]\nwhen.recipient = \"r{n}@example.net\"").unwrap();
        writeln!(
            text,
            "[[rule]]\nwhen.sender = \"l{n}@example.com\"\nlimit = {{ key = \"sender\", messages = \"9/day\" }}"
        )
        .unwrap();
        text
    })
}

/// Commands as they come.
struct Script(Vec<(&'static str, BytesMut)>);

impl Script {
    fn say(&mut self, command: &Command<'_>) {
        let mut wire = BytesMut::new();
        command.encode(&mut wire);
        self.0.push((command.name(), wire));
    }

    fn macros(&mut self, command: u8, pairs: &[(&str, &str)]) {
        let mut wire = BytesMut::new();
        Frame::write(&mut wire, b'D', |out| {
            out.extend_from_slice(&[command]);
            pairs.iter().flat_map(|(name, value)| [name, value]).for_each(|text| {
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(&[0]);
            });
        });
        self.0.push(("macros", wire));
    }

    fn connect() -> Self {
        let mut script = Self(Vec::new());
        script.say(&Command::Negotiate(Offer { version: 6, actions: Actions(0x1ff), steps: Steps(0x1f_ffff) }));
        script.macros(b'C', &[("{daemon_name}", "smtp"), ("{daemon_port}", "25")]);
        let (hostname, address) = (b"mx.example.net", b"192.0.2.7");
        script.say(&Command::Connect(Connect { hostname, family: b'4', port: 44_956, address }));
        script.macros(b'H', &[("{tls_version}", "TLSv1.3")]);
        script.say(&Command::Helo(b"mx.example.net"));
        script
    }

    fn message() -> Self {
        let mut script = Self(Vec::new());
        let envelope = |address, arguments| Envelope { address, arguments: Strings::new(arguments) };
        script.macros(b'M', &[("{auth_type}", "PLAIN"), ("{auth_authen}", "alice"), ("{tls_version}", "TLSv1.3")]);
        script.say(&Command::Mail(envelope(b"<alice@example.org>", b"SIZE=12345\0")));
        script.macros(b'R', &[("i", "4hBxYz0ABCz1")]);
        script.say(&Command::Recipient(envelope(b"<bob@example.net>", b"")));
        script.say(&Command::Recipient(envelope(b"<carol@mail.example.net>", b"")));
        script.say(&Command::Data);
        script.say(&Command::Header { name: b"Subject", value: b" hello" });
        script.say(&Command::EndOfHeaders);
        script.say(&Command::Body(b"hello\r\n"));
        script.say(&Command::EndOfMessage(b""));
        script.say(&Command::Abort);
        script
    }

    /// What each command allocates, and how many questions were asked on the way.
    fn play(&self, session: &mut Session) -> (Vec<(&'static str, u64)>, usize) {
        let mut asked = 0;
        let mut count = |wire: &BytesMut| allocation_counter::measure(|| asked += send(wire, session)).count_total;
        let allocations = self.0.iter().map(|(name, wire)| (*name, count(wire))).collect();
        (allocations, asked)
    }
}

/// There is room in every limit and on every disk, and nothing is refused. How many questions were asked.
fn send(wire: &BytesMut, session: &mut Session) -> usize {
    let (frame, _) = Frame::split(wire).unwrap().unwrap();
    let mut action = session.handle(Command::decode(frame).unwrap()).unwrap();
    let mut asked = 0;
    while let Action::Ask(query) = action {
        let answer = match query {
            Query::DiskFree(_) => Answer::Bytes(u64::MAX),
            Query::Hold(_) => Answer::Within,
        };
        action = session.answer(query, answer);
        asked += 1;
    }
    if let Action::Decided(decision) = action {
        assert!(matches!(decision.verdict, Verdict::Accept | Verdict::Continue), "{decision:?}");
        assert!(decision.matches.is_empty());
    }
    asked
}

/// What is allocated for a session, and for each of two messages in it.
#[derive(Debug, PartialEq)]
struct Allocations {
    session: Vec<(&'static str, u64)>,
    messages: [Vec<(&'static str, u64)>; 2],
}

/// Also how many questions were asked.
fn allocations(policy: &Arc<Policy>) -> (Allocations, usize) {
    let mut session = Session::new(Arc::clone(policy), 1, Transport::Tcp);
    let (of_session, asked) = Script::connect().play(&mut session);
    let (first, asked_first) = Script::message().play(&mut session);
    let (second, asked_second) = Script::message().play(&mut session);
    (Allocations { session: of_session, messages: [first, second] }, asked + asked_first + asked_second)
}

#[test]
fn rules_that_refuse_nothing_allocate_nothing() {
    let (without_rules, _) = allocations(&policy(""));
    let both = format!("{THOROUGH}{}", long(1000));
    // Of each message: one limit of the default policy; the disk, at MAIL and RCPT messages, recipients and octets of the login
    // and messages of the domain.
    for (text, least_asked) in [(config::DEFAULT, 2), (THOROUGH, 12), (&long(10), 0), (&long(10_000), 0), (&both, 12)] {
        let policy = policy(text);
        let (with_rules, asked) = allocations(&policy);
        assert!(asked >= least_asked, "only {asked} questions");
        assert_eq!(with_rules, without_rules, "{} rules", policy.rules().len());
    }
}

/// What is counted once for a connection is remembered for it, and a judgement that asks needs a place where there is no message
/// yet that has one.
#[test]
fn a_limit_on_connections_allocates_once_in_a_session_and_for_each_question() {
    let limits = "[[rule]]\nlimit = { key = \"client\", connections = \"60/minute\", concurrent = 10 }\n";
    let (without_rules, _) = allocations(&policy(""));
    let (with_rules, asked) = allocations(&policy(limits));
    assert_eq!(asked, 2);
    let total = |counts: &[(&str, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(total(&with_rules.session), total(&without_rules.session) + 1 + asked as u64);
    assert_eq!(with_rules.messages, without_rules.messages);
}

/// Everything that is allocated keeps what the MTA has sent, but for the decisions: one for each stage.
#[test]
fn a_session_allocates_little_beside_what_it_keeps() {
    let (Allocations { session, messages }, _) = allocations(&policy(config::DEFAULT));
    let most = |counts: &[(&str, u64)], most: &[(&str, u64)]| {
        for (name, count) in counts {
            let most = most.iter().find(|(command, _)| command == name).map_or(0, |(_, most)| *most);
            assert!(*count <= most, "{name}: {count} allocations, {counts:?}");
        }
    };
    // The listener, the client's name, HELO.
    most(&session, &[("macros", 1), ("CONNECT", 2), ("HELO", 2)]);
    // The message with its login or its queue id; its sender. A recipient as it was written and as it was read, both again where it
    // is kept for the message, and the room for it there.
    let of_message = [("macros", 2), ("MAIL", 2), ("RCPT", 6), ("DATA", 1), ("BODYEOB", 1)];
    messages.iter().for_each(|message| most(message, &of_message));
}
