//! The fifteen requirements of a policy daemon (`milter-protocol.md` §13), one test for each, by number.
//!
//! What a session or a policy can show is asserted on them; what concerns the shell on the real program, over a socket.
//! Unit tests in `src/` that name a requirement have the details; here is what they leave out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper that fails fails the test")]

#[path = "sessions/driver.rs"]
mod driver;
mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use postward::config::Config;
use postward::config::Source;
use postward::facts::Amount;
use postward::facts::Answer;
use postward::facts::Bound;
use postward::facts::Exceeded;
use postward::facts::Query;
use postward::policy::Policy;
use postward::server;
use postward::server::Server;
use postward::server::Setup;
use postward::session::Action;
use postward::session::MessageEnd;
use postward::session::ProtocolError;
use postward::session::Transport;
use postward::wire::Actions;
use postward::wire::Command;
use postward::wire::Frame;
use postward::wire::FrameError;
use postward::wire::MAX_FRAME;
use postward::wire::Offer;
use postward::wire::Steps;

use driver::Driver;
use driver::Step;
use support::Daemon;
use support::PATIENCE;
use support::TempDir;
use support::postward;

/// What Postfix 3.7 and Sendmail 8.17 offer.
const OFFER: Offer = Offer { version: 6, actions: Actions(0x1ff), steps: Steps(0x1f_ffff) };

/// The same, and nothing may be left out: every command comes and wants its reply.
const NOTHING_LEFT_OUT: Offer = Offer { steps: Steps(0), ..OFFER };

/// A whole session, every letter of the MTA in it; `r` is another recipient.
const SESSION: &str = "C|H|A|U|M|R|r|T|L|L|N|B|B|E|A|D|M|R|U|A|M|M|R|H|A|A|M|R|T|N|E|K|C|M|R|E|Q";

/// Policies that answer at every stage, in every way there is.
const POLICIES: &[&str] = &[
    "",
    "[[rule]]\nname = \"a\"\nthen = \"accept\"",
    "[[rule]]\nname = \"d\"\nthen = \"discard\"",
    "[[rule]]\nname = \"q\"\nthen = \"quarantine\"",
    "[[rule]]\nname = \"d\"\nwhen.recipient = \"b@example.test\"\nthen = \"discard\"",
    "[[rule]]\nname = \"h\"\nadd_header = \"X-A: {helo}\"",
    "[[rule]]\nname = \"r\"",
    "[policy]\nmode = \"monitor\"\n[[rule]]\nname = \"r\"",
    "[policy]\nanswer_at = \"rcpt\"\n[[rule]]\nname = \"r\"",
    "[[rule]]\nname = \"r\"\nat = \"connect\"\nreply = \"554 5.7.1 No\"",
    "[[rule]]\nname = \"r\"\nat = \"connect\"\ndisconnect = true\nreply = \"421 4.7.0 No\"",
    "[[rule]]\nname = \"r\"\nat = \"data\"",
    "[[rule]]\nname = \"r\"\nat = \"end-of-message\"",
    "[[rule]]\nname = \"r\"\nwhen.size = \"> 1\"",
    "[[rule]]\nname = \"r\"\nlimit = { messages = \"1/hour\", recipients = \"1/hour\", bytes = \"1 KiB/hour\" }",
    "[[rule]]\nname = \"r\"\nlimit = { key = \"client\", bad_recipients = \"0% of 1/hour\" }",
    "[[rule]]\nname = \"r\"\nlimit = { connections = \"1/hour\", concurrent = 1 }",
    "[[rule]]\nname = \"r\"\nwhen.disk_free = { path = \"/\", below = \"1 GiB\" }",
    "[server]\non_error = \"accept\"\n[[rule]]\nname = \"r\"\nwhen.disk_free = { path = \"/\", below = \"1 GiB\" }",
];

/// An MTA that says whatever a test wants.
struct Mta {
    driver: Driver,
    answer: fn(&Query) -> Answer,
}

impl Mta {
    fn new(policy: &str, offer: Offer) -> Self {
        Self::under(&driver::policy(policy), offer)
    }

    fn under(policy: &Arc<Policy>, offer: Offer) -> Self {
        let mut mta = Self { driver: Driver::new(Arc::clone(policy), Transport::Tcp), answer: within };
        mta.hear(Command::Negotiate(offer)).unwrap();
        mta
    }

    /// Connected from this address.
    fn connected(policy: &str, address: &str) -> Self {
        let mut mta = Self::new(policy, OFFER);
        mta.connect(address, 40_000);
        mta
    }

    fn hear(&mut self, command: Command<'_>) -> Result<Step, ProtocolError> {
        self.driver.handle(command, self.answer)
    }

    fn try_say(&mut self, letter: u8, data: &[u8]) -> Result<Step, ProtocolError> {
        let command = Command::decode(Frame { code: letter, data })?;
        self.hear(command)
    }

    fn say(&mut self, letter: u8, data: &[u8]) -> Step {
        self.try_say(letter, data).unwrap()
    }

    fn connect(&mut self, address: &str, port: u16) -> Step {
        let family = if address.contains(':') { b'6' } else { b'4' };
        let mut data = b"client.example.net\0".to_vec();
        data.push(family);
        data.extend_from_slice(&port.to_be_bytes());
        data.extend_from_slice(address.as_bytes());
        data.push(0);
        self.say(b'C', &data)
    }

    fn macros(&mut self, letter: u8, pairs: &[&str]) {
        let mut data = vec![letter];
        for string in pairs {
            data.extend_from_slice(string.as_bytes());
            data.push(0);
        }
        self.say(b'D', &data);
    }

    /// MAIL with these strings; the refusal, if there was one.
    fn mail(&mut self, strings: &str) -> Option<String> {
        self.say(b'M', &nul_terminated(strings)).refusal()
    }

    fn rcpt(&mut self, strings: &str) -> Option<String> {
        self.say(b'R', &nul_terminated(strings)).refusal()
    }

    fn end(&mut self) -> Step {
        self.say(b'E', b"")
    }
}

/// Each word is a string.
fn nul_terminated(words: &str) -> Vec<u8> {
    words.split(' ').flat_map(|word| word.bytes().chain([0])).collect()
}

/// What the packet with this letter holds in a plain session.
fn sample(letter: u8) -> &'static [u8] {
    match letter {
        b'B' => b"hello\r\n",
        b'C' => b"client.example.net\x004\x9c\x40192.0.2.1\0",
        b'D' => b"Mi\0A1\0{auth_authen}\0alice\0",
        b'H' => b"client.example.net\0",
        b'L' => b"Subject\0 hello\0",
        b'M' => b"<a@example.net>\0SIZE=100\0",
        b'R' => b"<b@example.test>\0",
        b'U' => b"FOO bar\0",
        b'r' => b"<c@example.test>\0",
        _ => b"",
    }
}

fn sample_command(letter: &str) -> Command<'static> {
    let code = letter.as_bytes()[0];
    Command::decode(Frame { code: code.to_ascii_uppercase(), data: sample(code) }).unwrap()
}

fn within(query: &Query) -> Answer {
    match query {
        Query::DiskFree(_) => Answer::Bytes(u64::MAX),
        Query::Hold(_) => Answer::Within,
    }
}

fn nothing_left(query: &Query) -> Answer {
    match query {
        Query::DiskFree(_) => Answer::Bytes(0),
        Query::Hold(_) => Answer::Exceeded(Exceeded {
            row: 0,
            step: 0,
            bound: Bound::Concurrent,
            used: 1,
            retry_after: None,
            retry_at: None,
        }),
    }
}

fn failed(_: &Query) -> Answer {
    Answer::Failed
}

/// Whatever a session may negotiate: everything, nothing, and each single step left out.
fn offers() -> impl Iterator<Item = Offer> {
    let single = (0..21).map(|bit| Offer { steps: Steps(1 << bit), ..OFFER });
    let old = Offer { version: 2, actions: Actions(0x3f), steps: Steps(0x7f) };
    [OFFER, NOTHING_LEFT_OUT, old].into_iter().chain(single)
}

/// Every message of the log that warns, with `text` in it.
fn warnings<'a>(log: &'a str, text: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains("WARN") && line.contains(text)).collect()
}

/// `Driver` looks at every command: one reply where one is owed, none elsewhere. Here are the circumstances: every policy,
/// every offer, look-ups that succeed, refuse and fail, and a bug at each command.
#[test]
fn requirement_01_exactly_one_reply_to_what_is_owed_one() {
    for policy in POLICIES {
        let policy = driver::policy(policy);
        for offer in offers() {
            for answer in [within, nothing_left, failed] {
                let mut mta = Mta { answer, ..Mta::under(&policy, offer) };
                for letter in SESSION.split('|') {
                    play(&mut mta, letter);
                }
            }
        }
        for broken in 0..SESSION.split('|').count() {
            let mut mta = Mta::under(&policy, NOTHING_LEFT_OUT);
            for (number, letter) in SESSION.split('|').enumerate() {
                let command = sample_command(letter);
                if number == broken {
                    mta.driver.break_down(command);
                } else {
                    play(&mut mta, letter);
                }
            }
            let left = mta.driver.session.has_message();
            assert!(!left, "a message is left over after a bug at command {broken}: {:?}", policy.rules());
        }
    }
}

/// One command; where the transaction is over because we refused MAIL, an MTA does not say it.
fn play(mta: &mut Mta, letter: &str) {
    match mta.hear(sample_command(letter)) {
        Ok(_) => {}
        Err(ProtocolError::Order { expected: "MAIL first", .. }) if "RrTLNBE".contains(letter) => {}
        Err(error) => panic!("{letter}: {error}"),
    }
}

#[test]
fn requirement_02_only_letters_that_do_no_harm() {
    let mut sent: BTreeMap<&str, BTreeSet<char>> = BTreeMap::new();
    for policy in POLICIES {
        let policy = driver::policy(policy);
        for offer in offers() {
            for answer in [within, nothing_left, failed] {
                let mut mta = Mta { answer, ..Mta::under(&policy, offer) };
                for letter in SESSION.split('|') {
                    let Ok(step) = mta.hear(sample_command(letter)) else { continue };
                    sent.entry(letter).or_default().extend(step.sent.iter().map(|sent| char::from(sent.letter)));
                }
            }
        }
    }
    let letters = |command: &str| sent[command].iter().collect::<String>();
    assert_eq!(letters("U"), "c");
    assert_eq!(letters("H"), "c");
    for command in ["C", "M", "R", "T"] {
        assert_eq!(letters(command), "cy", "{command}");
    }
    for command in ["L", "N", "B"] {
        assert_eq!(letters(command), "c", "{command}");
    }
    assert_eq!(letters("E"), "-cdhqy");
    for command in ["A", "D", "K", "Q"] {
        assert_eq!(letters(command), "", "{command}");
    }
    // "421 and close" is `y` with 421.
    let mut mta = Mta::new(POLICIES[10], OFFER);
    assert_eq!(mta.connect("192.0.2.1", 40_000).refusal().unwrap(), "421 4.7.0 No");
}

/// From configuration and from anything that a client can influence; `Driver` checks every reply against the safe form.
#[test]
fn requirement_03_reply_text_is_built_in_one_safe_form() {
    let policy = driver::policy(
        "[[rule]]\nname = \"r\"\nreply = \"550 5.7.1 {client_name} {helo} {sender} {sender_domain} {login} 100% {recipient}\"\nat = \"rcpt\"",
    );
    let hostile: [&[u8]; 8] = [
        b"a\r\n250 2.0.0 Ok",
        b"%s%n%%d%",
        b"\x01\x1b[2J\x7f\x80\xff",
        "grün.example".as_bytes(),
        b"{sender}{{}}",
        b"550-5.7.1",
        b" ",
        b"",
    ];
    let long = "%".repeat(3000);
    for text in hostile.into_iter().chain([long.as_bytes()]) {
        let mut mta = Mta::under(&policy, OFFER);
        let string = |before: &[u8], after: &[u8]| [before, text, after, b"\0"].concat();
        mta.say(b'C', &[string(b"", b""), b"4\0\x19192.0.2.1\0".to_vec()].concat());
        mta.say(b'H', &string(b"", b""));
        mta.say(b'D', &[b"M{auth_authen}\0".to_vec(), string(b"", b"")].concat());
        mta.say(b'M', &string(b"<", b"@example.net>"));
        let reply = mta.say(b'R', &string(b"<b@", b">")).refusal().unwrap();
        assert!(reply.starts_with("550") && reply.contains("100%%"), "{reply}");
    }
    // What an MTA would mangle does not load, and the program says so before it starts.
    let directory = TempDir::new("r");
    for reply in [
        "550 4.7.1 No",
        "250 2.0.0 Ok",
        "550 No",
        "5501 5.7.1 No",
        "421 4.7.0 No",
        "521 5.7.1 No",
        "550 5.7.1 gr\u{fc}n",
        "550 5.7.1 \\u0007",
        "550 5.7.1 {nobody}",
    ] {
        let text = format!("[[rule]]\nname = \"r\"\nreply = \"{reply}\"\n");
        assert!(driver::try_policy(&text).is_err(), "{reply}");
    }
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, "[[rule]]\nname = \"r\"\nreply = \"550 4.7.1 No\"\n").unwrap();
    for command in ["check", "serve"] {
        let output = postward(&[command, "--config", path.to_str().unwrap()]);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains("bad.toml:3:9") && complaint.contains("different classes"), "{complaint}");
    }
}

#[test]
fn requirement_04_what_is_known_early_is_spoken_when_the_text_is_seen() {
    let rule = "[[rule]]\nname = \"r\"\nwhen.client = \"192.0.2.66\"\nreply = \"550 5.7.1 {client}\"";
    let mut mta = Mta::new(rule, NOTHING_LEFT_OUT);
    assert_eq!(mta.connect("192.0.2.66", 40_000).refusal(), None);
    for _ in 0..2 {
        assert_eq!(mta.say(b'H', b"client.example.net\0").refusal(), None);
        let step = mta.say(b'M', b"<a@example.net>\0");
        assert_eq!(step.refusal().unwrap(), "550 5.7.1 192.0.2.66");
        // The one line in the log has the sender, too.
        assert_eq!(mta.driver.session.subject().message.unwrap().sender.as_written(), "a@example.net");
    }
    // With answer_at = "rcpt", the recipient.
    let mut mta = Mta::new(&format!("[policy]\nanswer_at = \"rcpt\"\n{rule}"), NOTHING_LEFT_OUT);
    mta.connect("192.0.2.66", 40_000);
    assert_eq!(mta.mail("<a@example.net>"), None);
    assert_eq!(mta.rcpt("<b@example.test>").unwrap(), "550 5.7.1 192.0.2.66");
    assert_eq!(mta.driver.session.subject().recipient.unwrap().address.as_written(), "b@example.test");
    // At CONNECT only what means there what it says: 421 and 554; at HELO nothing.
    let at = |at: &str, reply: &str, more: &str| {
        let text = format!("[[rule]]\nname = \"r\"\nat = \"{at}\"\nreply = \"{reply}\"\n{more}");
        driver::try_policy(&text).is_ok()
    };
    assert!(at("connect", "421 4.7.0 No", "disconnect = true"));
    assert!(at("connect", "554 5.7.1 No", ""));
    assert!(!at("connect", "550 5.7.1 No", ""));
    assert!(!at("connect", "450 4.7.1 No", ""));
    assert!(!at("helo", "550 5.7.1 No", ""));
}

#[test]
fn requirement_05_authentication_and_tls_are_known_at_mail() {
    // An exemption of those who log in makes a rule about the client wait for MAIL.
    let mut mta = Mta::new(
        r#"
        [[rule]]
        name = "own-users"
        when.authenticated = true
        then = "accept"
        [[rule]]
        name = "blocked"
        when.client = "192.0.2.66"
        "#,
        NOTHING_LEFT_OUT,
    );
    assert_eq!(mta.connect("192.0.2.66", 40_000).refusal(), None);
    assert!(mta.mail("<a@example.net>").is_some());
    mta.macros(b'M', &["{auth_type}", "PLAIN", "{auth_authen}", "alice"]);
    assert_eq!(mta.mail("<a@example.net>"), None);
    mta.say(b'A', b"");
    // The macros of a MAIL are a full statement: the next one has none.
    mta.macros(b'M', &["i", "A1"]);
    assert!(mta.mail("<a@example.net>").is_some());
    // It cannot be made to answer earlier.
    let early = "[[rule]]\nname = \"r\"\nwhen.authenticated = false\nat = \"connect\"\nreply = \"554 5.7.1 No\"";
    assert!(driver::try_policy(early).is_err());

    let mut mta = Mta::connected("[[rule]]\nname = \"r\"\nwhen.authenticated = false", "192.0.2.1");
    assert_eq!(mta.mail("<a@example.net>").unwrap(), "530 5.7.0 Authentication required");

    let mut mta = Mta::connected("[[rule]]\nname = \"r\"\nwhen.tls = false", "192.0.2.1");
    mta.macros(b'H', &[]);
    mta.say(b'H', b"client.example.net\0");
    assert!(mta.mail("<a@example.net>").unwrap().starts_with("530 5.7.0 "));
    mta.macros(b'H', &["{tls_version}", "TLSv1.3"]);
    mta.say(b'H', b"client.example.net\0");
    assert_eq!(mta.mail("<a@example.net>"), None);
    // A client that says no second EHLO: {tls_version} is asked for at MAIL.
    let mut mta = Mta::connected("[[rule]]\nname = \"r\"\nwhen.tls = false", "192.0.2.1");
    mta.macros(b'M', &["{tls_version}", "TLSv1.2"]);
    assert_eq!(mta.mail("<a@example.net>"), None);
}

#[test]
fn requirement_06_size_is_refused_when_declared_and_counted_for_those_that_lie() {
    let rule = "[[rule]]\nname = \"r\"\nwhen.size = \"> 1000\"";
    let mut mta = Mta::connected(rule, "192.0.2.1");
    for arguments in ["SIZE=1001", "size=1001", "BODY=8BITMIME Size=1001", "SIZE=18446744073709551615"] {
        let reply = mta.mail(&format!("<a@example.net> {arguments}")).unwrap();
        assert!(reply.starts_with("552 5.3.4 "), "{arguments}: {reply}");
    }
    for arguments in ["SIZE=1000", "SIZE=", "SIZE=-1", "SIZE=18446744073709551616", "XSIZE=9999", "SIZE=1 SIZE=9999"] {
        assert_eq!(mta.mail(&format!("<a@example.net> {arguments}")), None, "{arguments}");
    }
    // Content is counted whether or not it may be left unanswered, and refused at the end.
    for offer in [OFFER, NOTHING_LEFT_OUT] {
        let mut mta = Mta::new(rule, offer);
        mta.connect("192.0.2.1", 40_000);
        for (extra, refused) in [(0, false), (1, true)] {
            mta.mail("<a@example.net> SIZE=1");
            mta.say(b'R', b"<b@example.test>\0");
            let value: &[u8] = if mta.driver.steps().contains(Steps::HEADER_LEADING_SPACE) { b" b\0" } else { b"b\0" };
            mta.say(b'L', &[b"A\0", value].concat());
            mta.say(b'N', b"");
            // `A: b` and the empty line are 8 octets.
            mta.say(b'B', &vec![b'x'; 500]);
            mta.say(b'B', &vec![b'x'; 492 + extra]);
            assert_eq!(mta.end().refusal().is_some(), refused, "{extra} {offer:?}");
        }
    }
    // A message over the MTA's own limit is DATA and then ABORT: given up, not refused by us.
    mta.mail("<a@example.net>");
    mta.say(b'T', b"");
    assert!(matches!(mta.say(b'A', b"").action, Action::Aborted(MessageEnd::Aborted)));
}

/// On the real program, by its metrics: what began, what was let through, and what an ABORT after success is not.
#[test]
fn requirement_07_counts_are_of_messages_recipients_and_parsed_addresses() {
    let daemon = Daemon::start(
        "[server]\nlisten = \"inet:127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[rule]]\nname = \"closed\"\nwhen.recipient = \"closed@example.test\"\n\
         [[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"2/hour\" }\n",
    );
    let mut mta = Peer::negotiated(&daemon);
    // Accepted, and an ABORT after it as Postfix sends it.
    mta.exchange(b'C', b"mx\x004\0\x19192.0.2.1\0");
    mta.exchange(b'M', b"<a@example.net>\0");
    assert_eq!(mta.exchange(b'R', b"<b@example.test>\0"), "c");
    assert!(mta.exchange(b'R', b"<closed@example.test>\0").starts_with("y550"));
    assert!(mta.exchange(b'R', b"<closed@example.test>\0").starts_with("y550"));
    assert_eq!(mta.exchange(b'E', b""), "c");
    mta.send(b'A', b"");
    // Given up.
    mta.exchange(b'M', b"<a@example.net>\0");
    mta.send(b'A', b"");
    mta.send(b'A', b"");
    // Another session: IPv4-mapped, and one message more than it may send.
    mta.send(b'K', b"");
    mta.exchange(b'C', b"mx\x006\0\x19IPv6:::ffff:192.0.2.1\0");
    mta.exchange(b'M', b"<a@example.net>\0");
    assert_eq!(mta.exchange(b'E', b""), "c");
    assert!(mta.exchange(b'M', b"<a@example.net>\0").starts_with("y452 4.3.1"));
    mta.send(b'Q', b"");
    mta.wait_for_end();
    daemon.wait_for_metric("postward_connections_active", &[], 0.0);
    let metrics = daemon.metrics();
    let messages = |result| metrics.get("postward_messages_total", &[("result", result)]);
    assert_eq!(["accepted", "aborted", "deferred", "rejected"].map(messages), [2.0, 1.0, 1.0, 0.0]);
    let recipients = |result| metrics.get("postward_recipients_total", &[("result", result)]);
    assert_eq!(["accepted", "rejected", "deferred"].map(recipients), [1.0, 2.0, 0.0]);
    let replies =
        metrics.get("postward_replies_total", &[("stage", "rcpt"), ("code", "550"), ("enhanced_code", "5.7.1")]);
    assert_eq!(replies, 2.0);
    // One connection of the MTA, although two clients came over it.
    assert_eq!(metrics.get("postward_connections_total", &[]), 1.0);

    // IPv6 counts by /64, or as the rule says.
    for (key, same) in [("client", true), ("client/32/128", false)] {
        let policy = format!("[[rule]]\nname = \"r\"\nlimit = {{ key = \"{key}\", messages = \"1/hour\" }}");
        let [one, other] = ["2001:db8::1", "IPv6:2001:DB8:0:0:0:0:0:2"].map(|address| {
            let mut mta = Mta::connected(&policy, address);
            let step = mta.say(b'M', b"<a@example.net>\0");
            let [Query::Hold(hold)] = &step.asked[..] else { panic!("{:?}", step.asked) };
            assert_eq!(hold.amount, Amount::Total(1));
            hold.key.clone()
        });
        assert_eq!(one == other, same, "{key}");
    }
}

#[test]
fn requirement_08_connection_data_lives_for_the_session_and_the_rest_for_the_message() {
    let policy = r#"
        [[rule]]
        name = "helo"
        when.helo = "bad.example"
        [[rule]]
        name = "two"
        when.recipients = "> 1"
        [[rule]]
        name = "listener"
        when.listener = "MSA"
        when.authenticated = false
        at = "data"
        [[rule]]
        name = "size"
        when.size = "> 10"
    "#;
    // Each line a session; after `=` what is refused in it.
    let sessions = [
        // H inside a transaction, before the A; it is of the session.
        ("O C Hgood M R Hbad A M", "M"),
        ("O C Hbad A M", "M"),
        ("O C Hbad Hgood M R", ""),
        // M without H; a new M ends the message by itself, its recipients and its size with it.
        ("O C M R M R M R", ""),
        ("O C M R R", "R"),
        ("O C M R A M R", ""),
        ("O C M B M B E", ""),
        ("O C M B B E", "E"),
        // T may come twice, E never; macros of CONNECT outlive ABORT.
        ("O Dlistener C M R A M R T T A", "TT"),
        ("O C M R T T A M R A", ""),
        // ABORT at any point, any number of times.
        ("O A C A A H A M A A M R A A", ""),
        // A new session on the same connection forgets it all.
        ("O Dlistener C Hbad K C M R T", ""),
        ("O C Hgood M R K C M R E K C M E Q", ""),
    ];
    for (session, expected) in sessions {
        let mut driver = Driver::new(driver::policy(policy), Transport::Unix);
        let mut refused = String::new();
        for word in session.split(' ') {
            let (letter, data): (u8, &[u8]) = match word {
                "O" => (b'O', b"\0\0\0\x06\0\0\x01\xff\0\0\0\0"),
                "Dlistener" => (b'D', b"C{daemon_name}\0MSA\0"),
                "Hbad" => (b'H', b"bad.example\0"),
                "Hgood" => (b'H', b"good.example\0"),
                "M" => (b'M', b"<a@example.net>\0"),
                word => (word.as_bytes()[0], sample(word.as_bytes()[0])),
            };
            let command = Command::decode(Frame { code: letter, data }).unwrap();
            let step = driver.handle(command, within).unwrap_or_else(|error| panic!("{session}: {word}: {error}"));
            if step.refusal().is_some() {
                refused.push_str(&word[..1]);
            }
        }
        assert_eq!(refused, expected, "{session}");
    }
    // The socket may close without QUIT: what was begun was given up.
    let mut mta = Mta::connected(policy, "192.0.2.1");
    mta.mail("<a@example.net>");
    assert_eq!(mta.driver.session.abandon(), Some(MessageEnd::Aborted));
    assert_eq!(mta.driver.session.abandon(), None);
}

#[test]
fn requirement_09_parsing_is_lenient_comparing_strict_and_everything_bounded() {
    let policy = driver::policy(
        "[[rule]]\nname = \"r\"\nwhen.client = \"2001:db8::1\"\nreply = \"550 5.7.1 {client}\"\n\
         [[rule]]\nname = \"s\"\nwhen.sender = [\"<>\", \"a@example.net\"]\nreply = \"550 5.7.1 {sender}\"",
    );
    let client = |data: &[u8]| {
        let mut mta = Mta::under(&policy, OFFER);
        mta.say(b'C', data);
        let connection = mta.driver.session.subject().connection;
        (connection.client.map(|client| client.to_string()), connection.client_name.as_written().to_owned())
    };
    let known = |client: &str, name: &str| (Some(client.to_owned()), name.to_owned());
    assert_eq!(client(b"mx.example\0U"), (None, "mx.example".to_owned()));
    assert_eq!(client(b"unknown\x004\0\0unknown\0"), (None, "unknown".to_owned()));
    assert_eq!(client(b"[192.0.2.1]\x004\0\x00192.0.2.1\0"), known("192.0.2.1", "unknown"));
    assert_eq!(client(b"mx.example.\x006\0\0ipV6:2001:DB8:0::1\0"), known("2001:db8::1", "mx.example"));
    assert_eq!(client(b"mx\x006\0\0IPv6:::ffff:192.0.2.1\0"), known("192.0.2.1", "mx"));
    assert_eq!(client(b"mx\x004\0\0not an address\0"), (None, "mx".to_owned()));
    assert_eq!(client(b"\xff\xfe\x004\0\0\xff\0"), (None, "\u{fffd}\u{fffd}".to_owned()));
    assert_eq!(client(b"\0L\0\0/run/x\0"), (None, "unknown".to_owned()));

    let mut mta = Mta::under(&policy, OFFER);
    mta.connect("192.0.2.1", 0);
    for sender in [&b"\0"[..], b"<>\0", b" < > \0", b"a@example.net\0", b"<A@EXAMPLE.NET.>\0"] {
        assert!(mta.say(b'M', sender).refusal().is_some(), "{}", sender.escape_ascii());
    }
    for sender in
        [&b"<a@example.net.org>\0"[..], b"<a\xff@example.net>\0", b"<xa@example.net>\0", b"<a@sub.example.net>\0"]
    {
        assert!(mta.say(b'M', sender).refusal().is_none(), "{}", sender.escape_ascii());
    }
    // 8-bit headers, empty macro packets, odd names, macros of a stage that there is not.
    mta.say(b'L', b"X-\xfcber\0\xff\xfe\x01\0");
    for macros in [&b"H"[..], b"C", b"Zi\0x\0", b"M\0\0", b"M{}\0{auth_authen\0", b"\0\xff\0\xff\0"] {
        mta.say(b'D', macros);
    }
    assert_eq!(mta.driver.session.subject().connection.listener, None);

    // One recipient more than are kept.
    let mut mta = Mta::connected("[[rule]]\nname = \"r\"\nwhen.recipient = \"nobody@example.test\"", "192.0.2.1");
    mta.mail("<a@example.net>");
    for _ in 0..postward::policy::MAX_RECIPIENTS {
        assert_eq!(mta.rcpt("<b@example.test>"), None);
    }
    assert_eq!(mta.rcpt("<b@example.test>").unwrap(), "452 4.5.3 Too many recipients in one message");
    assert!(mta.end().refusal().is_none());
    // Their addresses together, too, are bounded.
    let long = format!("<{}@example.test>", "x".repeat(500_000));
    mta.mail("<a@example.net>");
    let passed = (0..10).take_while(|_| mta.rcpt(&long).is_none()).count();
    assert_eq!(passed, postward::policy::MAX_RECIPIENT_OCTETS / long.len());
    // A frame up to 1 MiB, and no longer: known from the length alone, before anything is kept.
    let prefix = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    assert_eq!(Frame::split(&prefix(MAX_FRAME)), Ok(None));
    assert_eq!(Frame::split(&prefix(MAX_FRAME + 1)), Err(FrameError::TooLong { length: MAX_FRAME + 1 }));
    const { assert!(MAX_FRAME == 1 << 20) };
}

/// Runs the server inside the test, on a clock that the test moves: two hours pass in which the SMTP client says nothing.
#[tokio::test(start_paused = true)]
async fn requirement_10_answers_come_within_seconds_and_idle_sessions_stay() {
    let toml = "[server]\nlisten = \"inet:127.0.0.1:0\"\n[[rule]]\nname = \"r\"\nwhen.sender = \"spam@example.net\"";
    let source = Source { path: "test.toml".into(), text: toml.to_owned() };
    let (config, mut diagnostics) = Config::read(vec![source]);
    let policy = Policy::compile(&config, &mut diagnostics).unwrap();
    let server = Server::bind(&config, policy, Setup::new(Arc::new(|| server::load(None)))).await.unwrap();
    let address = server.endpoints().next().unwrap().strip_prefix("inet:").unwrap().to_owned();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (pause, mut pauses) = tokio::sync::mpsc::unbounded_channel::<(Duration, mpsc::Sender<()>)>();
    // The clock stands still while a blocking task runs.
    let mta = tokio::task::spawn_blocking(move || {
        let wait = |duration| {
            let (done, is_done) = mpsc::channel();
            pause.send((duration, done)).unwrap();
            is_done.recv_timeout(PATIENCE).unwrap();
        };
        let mut mta = Peer::connect(&address);
        mta.negotiate();
        mta.exchange(b'C', sample(b'C'));
        wait(Duration::from_secs(300));
        assert!(mta.exchange(b'M', b"<spam@example.net>\0").starts_with("y550"));
        wait(Duration::from_secs(7200));
        assert_eq!(mta.exchange(b'M', b"<a@example.net>\0"), "c");
        wait(Duration::from_secs(7200));
        assert_eq!(mta.exchange(b'E', b""), "c");
        // Past libmilter's own two hours it is given up.
        wait(Duration::from_secs(7300));
        mta.wait_for_end();
        // One that never even negotiates has a minute.
        let mut silent = Peer::connect(&address);
        // It is accepted once another that came later is served.
        Peer::connect(&address).negotiate();
        wait(Duration::from_secs(61));
        silent.wait_for_end();
        stop.send(()).unwrap();
    });
    let serving = server.run(async { stopped.await.unwrap_or_default() });
    let clock = async {
        while let Some((duration, done)) = pauses.recv().await {
            // Whatever has arrived is handled before the time passes.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(duration).await;
            _ = done.send(());
        }
    };
    tokio::join!(serving, clock);
    mta.await.unwrap();

    // Sendmail waits 10 seconds: a longer deadline does not load.
    for (deadline, loads) in [("5s", true), ("9s", true), ("10s", false), ("0s", false)] {
        assert_eq!(driver::try_policy(&format!("[server]\ndeadline = \"{deadline}\"")).is_ok(), loads, "{deadline}");
    }
}

#[test]
fn requirement_11_as_many_sessions_as_the_mta_has_and_none_is_closed_by_us() {
    const SESSIONS: usize = 300;
    let mut daemon = Daemon::start(
        "[server]\nlisten = \"inet:127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[rule]]\nname = \"r\"\nwhen.sender = \"spam@example.net\"\n",
    );
    // A burst, some of which stop in the middle of a packet: nobody waits for them.
    let mut stuck: Vec<Peer> = (0..20).map(|_| Peer::to(&daemon)).collect();
    stuck.iter_mut().for_each(|peer| peer.stream.write_all(b"\0\0\0\x0dO\0").unwrap());
    let mut peers: Vec<Peer> = (0..SESSIONS).map(|_| Peer::to(&daemon)).collect();
    for peer in &mut peers {
        peer.negotiate();
    }
    for peer in &mut peers {
        assert_eq!(peer.exchange(b'C', sample(b'C')), "c");
        assert!(peer.exchange(b'M', b"<spam@example.net>\0").starts_with("y550"));
    }
    let metrics = daemon.metrics();
    assert_eq!(metrics.get("postward_connections_active", &[]), (SESSIONS + 20) as f64);
    assert_eq!(metrics.get("postward_connections_shed_total", &[]), 0.0);
    drop(stuck);
    // A reload closes nothing.
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded");
    assert!(peers[0].exchange(b'M', b"<spam@example.net>\0").starts_with("y550"));
    // On shutdown a message under way is finished, and nobody new is taken.
    let mut last = peers.swap_remove(0);
    drop(peers);
    assert_eq!(last.exchange(b'M', b"<a@example.net>\0"), "c");
    daemon.signal("TERM");
    daemon.wait_for_log("stopping");
    let address = daemon.milter().strip_prefix("inet:").unwrap().to_owned();
    support::wait_for("new connections to be refused", || TcpStream::connect(&address).is_err().then_some(()));
    assert_eq!(last.exchange(b'E', b""), "c");
    last.wait_for_end();
    assert!(daemon.wait_for_exit().success());
}

/// Whatever is offered and whatever the policy: nothing beyond the offer, and never a step that the policy needs.
#[test]
fn requirement_12_negotiation_takes_what_is_offered_and_needed() {
    for policy in POLICIES {
        let policy = driver::policy(policy);
        let needs = *policy.needs();
        for offer in offers() {
            for transport in [Transport::Tcp, Transport::Unix] {
                let mut driver = Driver::new(Arc::clone(&policy), transport);
                let step = driver.handle(Command::Negotiate(offer), within).unwrap();
                let Action::Negotiated(negotiation) = &step.action else { panic!("{step:?}") };
                let taken = negotiation.taken();
                assert_eq!(taken.version, offer.version.min(6));
                assert!(offer.steps.contains(taken.steps) && offer.actions.contains(taken.actions), "{taken:?}");
                let steps = taken.steps;
                let envelope = Steps::NO_CONNECT | Steps::NO_HELO | Steps::NO_MAIL | Steps::NO_RECIPIENTS;
                assert_eq!(steps.0 & envelope.0, 0, "the envelope is always needed");
                if needs.content {
                    let content = Steps::NO_HEADERS | Steps::NO_END_OF_HEADERS | Steps::NO_BODY;
                    assert_eq!(steps.0 & content.0, 0);
                }
                if transport == Transport::Tcp || needs.answers_data {
                    assert_eq!(steps.0 & (Steps::NO_DATA | Steps::NO_REPLY_DATA).0, 0);
                }
                for (needed, no_reply) in [
                    (needs.answers_connect, Steps::NO_REPLY_CONNECT),
                    (true, Steps::NO_REPLY_MAIL),
                    (needs.answers_rcpt, Steps::NO_REPLY_RECIPIENT),
                ] {
                    assert!(!needed || !steps.contains(no_reply), "{no_reply:?}");
                }
                // MDS and the SKIP reply are never asked for, RCPT_REJ only where somebody counts what it shows.
                let can_tell =
                    offer.actions.contains(Actions::SET_MACRO_LIST) && offer.steps.contains(Steps::REFUSED_RECIPIENTS);
                assert_eq!(steps.contains(Steps::REFUSED_RECIPIENTS), needs.refused_recipients && can_tell);
                assert!(!steps.contains(Steps::SKIP));
            }
        }
    }
    // The lists: 5 and 6 go together, what is not offered is not sent, each is one string.
    let mut driver = Driver::new(driver::policy(""), Transport::Tcp);
    let step = driver.handle(Command::Negotiate(OFFER), within).unwrap();
    let mut lists = &step.sent[0].data[12..];
    let mut stages = Vec::new();
    while let Some((stage, rest)) = lists.split_first_chunk::<4>() {
        let end = rest.iter().position(|&byte| byte == 0).unwrap();
        assert!(end > 0, "an empty list");
        stages.push(u32::from_be_bytes(*stage));
        lists = &rest[end + 1..];
    }
    assert_eq!(stages.contains(&5), stages.contains(&6));
    assert!([0, 1, 2, 3].iter().all(|stage| stages.contains(stage)), "{stages:?}");
    let mut driver = Driver::new(driver::policy(""), Transport::Tcp);
    let offer = Offer { actions: Actions(0x0ff), ..OFFER };
    assert_eq!(driver.handle(Command::Negotiate(offer), within).unwrap().sent[0].data.len(), 12);
}

/// The codes of `reply-codes/policy-defaults.md`, for every case that a rule can be about.
#[test]
fn requirement_13_codes_are_those_of_the_table_of_defaults() {
    let owners = "[lists.l]\nsenders = { alice = \"example.net\" }\naddresses = \"b@example.test\"\n";
    let cases = [
        ("size_declared", "when.size = \"> 10\"", "M552 5.3.4"),
        ("size_recipient", "when.size = \"> 10\"\nwhen.recipient = \"b@example.test\"", "R552 5.2.3"),
        ("quota_over", "when.over_quota = \"@l\"", "R552 5.2.2"),
        ("storage_low", "when.disk_free = { path = \"/\", below = \"1 GiB\" }", "M452 4.3.1"),
        ("too_many_recipients", "when.recipients = \"> 1\"", "R452 4.5.3"),
        ("rate_messages", "limit = { messages = \"1/hour\" }", "M452 4.3.1"),
        (
            "rate_messages at RCPT",
            "limit = { messages = \"1/hour\" }\nwhen.recipient = \"b@example.test\"",
            "R450 4.7.1",
        ),
        ("rate_recipients", "limit = { recipients = \"1/hour\" }", "R450 4.7.1"),
        ("rate_bytes", "limit = { bytes = \"1 KiB/hour\" }", "M452 4.3.1"),
        ("rate_distinct", "limit = { distinct = \"5/hour\", of = \"client\" }", "M452 4.3.1"),
        ("rate_distinct at RCPT", "limit = { distinct = \"5/hour\", of = \"recipient\" }", "R450 4.7.1"),
        ("bad_recipients", "limit = { key = \"client\", bad_recipients = \"30% of 20/hour\" }", "M451 4.7.28"),
        ("rate_connections", "limit = { connections = \"1/hour\" }", "M421 4.7.0"),
        ("concurrency", "limit = { concurrent = 1 }", "M421 4.7.0"),
        ("auth_required", "when.authenticated = false", "M530 5.7.0"),
        ("tls_required", "when.tls = false", "M530 5.7.0"),
        ("auth_sender_mismatch", "when.sender_login_mismatch = \"@l\"", "M550 5.7.1"),
        ("client_blocked", "when.client = \"192.0.2.1\"", "M550 5.7.1"),
        ("sender_blocked", "when.sender = \"a@example.com\"", "M550 5.7.1"),
        ("sender_domain_blocked", "when.sender_domain = \"example.com\"", "M550 5.7.1"),
        ("recipient_blocked", "when.recipient = \"b@example.test\"", "R550 5.7.1"),
        ("helo_blocked", "when.helo = \"client.example.net\"", "M550 5.7.1"),
        ("the rest", "", "M550 5.7.1"),
    ];
    for (outcome, rule, expected) in cases {
        let lists = if rule.contains("@l\"") { owners } else { "" };
        let mut mta =
            Mta { answer: nothing_left, ..Mta::new(&format!("{lists}[[rule]]\nname = \"r\"\n{rule}"), OFFER) };
        mta.connect("192.0.2.1", 40_000);
        mta.say(b'H', sample(b'H'));
        if outcome == "auth_sender_mismatch" {
            mta.macros(b'M', &["{auth_authen}", "alice"]);
        }
        let mut said = String::new();
        for (letter, data) in [(b'M', &b"<a@example.com>\0SIZE=11\0"[..]), (b'R', sample(b'R')), (b'R', sample(b'R'))] {
            if let Some(reply) = mta.say(letter, data).refusal() {
                said = format!("{}{reply}", char::from(letter));
                break;
            }
        }
        assert!(said.starts_with(&format!("{expected} ")), "{outcome}: {said}");
    }
    // Our own failure waits; `r` and `t` are never sent, as `Driver` sees to.
    assert_eq!(Policy::internal_error().to_string(), "451 4.3.0 Temporary local problem, try again later");
    assert_eq!(Policy::too_many_recipients().status().to_string(), "452 4.5.3");
    // A recipient's code needs a recipient; 421 and 521 are never an accident.
    let compiles = |text: &str| driver::try_policy(&format!("[[rule]]\nname = \"r\"\n{text}")).is_ok();
    assert!(!compiles("reply = \"552 5.2.2 Full\""));
    assert!(compiles("reply = \"552 5.2.2 Full\"\nat = \"rcpt\""));
    assert!(!compiles("reply = \"421 4.7.0 Bye\""));
    assert!(compiles("reply = \"421 4.7.0 Bye\"\ndisconnect = true"));
    assert!(!compiles("reply = \"521 5.7.1 Bye\""));
    assert!(compiles("reply = \"521 5.7.1 Bye\"\ndisconnect = true"));
}

#[test]
fn requirement_14_mail_that_did_not_come_by_smtp_is_never_refused_at_rcpt() {
    for policy in POLICIES {
        let policy = driver::policy(policy);
        for address in ["127.0.0.1", "::1"] {
            for answer in [within, nothing_left, failed] {
                let mut mta = Mta { answer, ..Mta::under(&policy, NOTHING_LEFT_OUT) };
                mta.connect(address, 0);
                if mta.say(b'M', b"a@example.net\0").ended().is_some() {
                    continue;
                }
                let held_back = (0..2).any(|_| {
                    let step = mta.say(b'R', b"b@example.test\0");
                    assert_eq!(step.refusal(), None);
                    step.decision().unwrap().held_back
                });
                let refused = mta.end().refusal().is_some();
                assert!(refused || !held_back, "what was held back at RCPT was never said");
                // A bug does not change that.
                mta.mail("a@example.net");
                let broken = mta.driver.break_down(sample_command("R"));
                assert_eq!(broken.refusal(), None);
            }
        }
    }
    // The same recipient over SMTP hears it at once.
    let rule = "[[rule]]\nname = \"r\"\nwhen.recipient = \"b@example.test\"";
    let mut mta = Mta::connected(rule, "127.0.0.1");
    mta.mail("<a@example.net>");
    assert!(mta.rcpt("<b@example.test>").is_some());
}

#[test]
fn requirement_15_addresses_come_from_the_argument_and_not_from_a_macro() {
    let policy = "[[rule]]\nname = \"s\"\nwhen.sender = \"a@example.net\"\n[[rule]]\nname = \"r\"\nwhen.recipient = \"b@example.test\"";
    let mut mta = Mta::connected(policy, "192.0.2.1");
    mta.macros(b'M', &["{mail_addr}", "a@example.net", "{mail_host}", "example.net."]);
    assert_eq!(mta.mail("<other@example.net>"), None);
    mta.macros(b'R', &["{rcpt_addr}", "b@example.test", "{rcpt_mailer}", "local"]);
    assert_eq!(mta.rcpt("<other@example.test>"), None);
    // Sendmail leaves the domain of a local recipient out, Postfix lower-cases.
    mta.macros(b'R', &["{rcpt_addr}", "b"]);
    assert!(mta.rcpt("<B@Example.Test>").is_some());
    mta.macros(b'M', &["{mail_addr}", "other@example.net"]);
    assert!(mta.mail("<A@Example.Net>").is_some());
}

// Over a socket

/// The MTA's end of a connection to the daemon.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn to(daemon: &Daemon) -> Self {
        Self::connect(daemon.milter().strip_prefix("inet:").unwrap())
    }

    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    fn negotiated(daemon: &Daemon) -> Self {
        let mut peer = Self::to(daemon);
        peer.negotiate();
        peer
    }

    /// Offers what keeps every command answered, so that `exchange` can wait for it.
    fn negotiate(&mut self) {
        let answer = self.exchange(b'O', b"\0\0\0\x06\0\0\x01\xff\0\0\0\0");
        assert!(answer.starts_with("O\0\0\0\x06"), "{answer:?}");
    }

    fn send(&mut self, letter: u8, data: &[u8]) {
        let length = u32::try_from(1 + data.len()).unwrap();
        let frame = [&length.to_be_bytes()[..], &[letter], data].concat();
        self.stream.write_all(&frame).unwrap();
    }

    /// Sends and waits for one packet: letter and data as text.
    fn exchange(&mut self, letter: u8, data: &[u8]) -> String {
        self.send(letter, data);
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut packet).unwrap();
        String::from_utf8_lossy(&packet).into_owned()
    }

    fn address(&self) -> String {
        self.stream.local_addr().unwrap().to_string()
    }

    /// The daemon closes, and has nothing more to say.
    fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{}", rest.escape_ascii()),
            // What it had not read when it closed.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// Each ends its own connection, with one warning that names the peer and the field; all others go on.
#[test]
fn malformed_packets_end_the_one_connection_that_sent_them() {
    let daemon = Daemon::start("[server]\nlisten = \"inet:127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
    let mut bystander = Peer::negotiated(&daemon);
    bystander.exchange(b'C', sample(b'C'));
    assert_eq!(bystander.exchange(b'M', b"<a@example.net>\0"), "c");
    // Bytes sent, after how many of `negotiate, C, M`, and what the warning says.
    let cases: [(&[u8], usize, &str); 24] = [
        (b"\0\0\0\0", 0, "frame length: zero, expected at least one byte for the command"),
        (b"\0\0\0\0", 3, "frame length: zero, expected at least one byte for the command"),
        (b"\0\x10\0\x01", 0, "frame length: 1048577 bytes, the limit is 1048576"),
        (b"HTTP/1.1 200", 3, "frame length: 1213486160 bytes, the limit is 1048576"),
        (b"\xff\xff\xff\xffO", 1, "frame length: 4294967295 bytes, the limit is 1048576"),
        (b"\0\0\0\x01z", 1, "command letter: `z` is not a milter command"),
        (b"\0\0\0\x01\0", 1, "command letter: `\\x00` is not a milter command"),
        (b"\0\0\0\x01M", 0, "mail address: data ends too early"),
        (b"\0\0\0\x05O\0\0\0\x06", 0, "negotiation actions: data ends too early"),
        (b"\0\0\0\x0dO\0\0\0\x01\0\0\0\0\0\0\0\0", 0, "negotiation version: 1, expected at least 2"),
        (b"\0\0\0\x01A", 0, "command ABORT: out of order, expected OPTNEG first"),
        (b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\0\0", 1, "command OPTNEG: out of order"),
        (b"\0\0\0\x03Cmx", 1, "connect hostname: data ends too early"),
        (b"\0\0\0\x05Cmx\x009", 1, "connect family: expected 4, 6, L or U, found `9`"),
        (b"\0\0\0\x06Cmx\x004\0", 1, "connect port: data ends too early"),
        (b"\0\0\0\x0aCmx\x004\0\x19192", 1, "connect address: data ends too early"),
        (b"\0\0\0\x05M<a>\0", 1, "command MAIL: out of order, expected CONNECT first"),
        (b"\0\0\0\x03Hab", 2, "helo name: data ends too early"),
        (b"\0\0\0\x03Mab", 2, "mail address: data ends too early"),
        (b"\0\0\0\x05R<b>\0", 2, "command RCPT: out of order, expected MAIL first"),
        (b"\0\0\0\x07R<b>\0XY", 3, "rcpt argument: data ends too early"),
        (b"\0\0\0\x04La\0b", 3, "header value: data ends too early"),
        (b"\0\0\0\x04DMi\0", 3, "macro value: data ends too early"),
        (b"\0\0\0\x01D", 3, "macro command: data ends too early"),
    ];
    for (number, (bytes, steps, expected)) in cases.into_iter().enumerate() {
        let mut peer = Peer::to(&daemon);
        let steps: &[fn(&mut Peer)] = &[
            Peer::negotiate,
            |peer: &mut Peer| assert_eq!(peer.exchange(b'C', sample(b'C')), "c"),
            |peer: &mut Peer| assert_eq!(peer.exchange(b'M', b"<a@example.net>\0"), "c"),
        ][..steps];
        steps.iter().for_each(|step| step(&mut peer));
        peer.stream.write_all(bytes).unwrap();
        peer.wait_for_end();
        let line = daemon.wait_for_log(&format!("peer=\"{}\"", peer.address()));
        let expected = format!(" error=\"{}", expected.replace('\\', "\\\\"));
        assert!(line.contains("WARN") && line.contains(&expected), "{line}");
        daemon.wait_for_metric("postward_protocol_errors_total", &[], (number + 1) as f64);
        assert_eq!(bystander.exchange(b'R', b"<b@example.test>\0"), "c");
    }
    assert_eq!(bystander.exchange(b'E', b""), "c");
    bystander.send(b'Q', b"");
    bystander.wait_for_end();
    // A connection that is lost inside a packet is no error of the protocol.
    let mut lost = Peer::negotiated(&daemon);
    lost.stream.write_all(b"\0\0\0\x09C").unwrap();
    drop(lost);
    daemon.wait_for_metric("postward_connections_active", &[], 0.0);
    let log = daemon.log();
    assert_eq!(warnings(&log, "makes no sense").len(), cases.len(), "{log}");
    assert_eq!(daemon.metrics().get("postward_protocol_errors_total", &[]), cases.len() as f64);
    // Messages that were begun on the connections that ended were given up; the bystander's went through.
    assert_eq!(daemon.metrics().get("postward_messages_total", &[("result", "accepted")]), 1.0);
}
