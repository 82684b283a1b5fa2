//! Recorded sessions of real MTAs, played packet by packet: no error, no unexpected end, exactly one reply where one is
//! owed (`sessions/driver.rs` sees to that), and the facts and counts are what the SMTP client did according to its own
//! record. What the client did is read from the `.smtp` file, what the MTA sent from the `.jsonl` file.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken recording fails the test")]

#[path = "sessions/driver.rs"]
mod driver;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use postward::facts::Answer;
use postward::facts::Message;
use postward::facts::Query;
use postward::policy::Policy;
use postward::session::Action;
use postward::session::MessageEnd;
use postward::session::RecipientEnd;
use postward::session::Transport;
use postward::session::Verdict;
use postward::wire::Command;
use postward::wire::Frame;
use postward::wire::Steps;

use driver::Driver;

/// Nothing is asked for, nothing judged.
const NOTHING: &str = "";

/// Every stage, every fact, every kind of effect; nothing that holds for any recording but the header.
const EVERYTHING: &str = r#"
[lists.full]
addresses = ["full@nowhere.example"]
[lists.owners]
senders = { alice = "example.net", "alice@example.test" = "example.net", "bob@example.org" = "example.net" }

[[rule]]
name = "stamp"
add_header = "X-Postward: {id}"

[[rule]]
name = "busy"
limit = { key = "client", connections = "1000/hour", concurrent = 100 }

[[rule]]
name = "nobody"
when.any = [
  { client = "203.0.113.1" }, { client_name = "nobody.example" }, { helo = ".nobody.example" }, { port = 1 },
  { listener = "nobody" }, { login = "nobody" }, { sender_domain = "nobody.example" },
]

[[rule]]
name = "not-yours"
when.sender_login_mismatch = "@owners"

[[rule]]
name = "rates"
limit = { key = "sender", messages = "1000/hour", recipients = "1000/hour", bytes = "100 GiB/hour" }

[[rule]]
name = "disk"
when.disk_free = { path = "/var/spool", below = "1 GiB" }

[[rule]]
name = "full"
when.over_quota = "@full"

[[rule]]
name = "data"
when.tls = true
when.recipients = "> 1000"
at = "data"

[[rule]]
name = "hold"
when.sender = "nobody@nowhere.example"
then = "quarantine"

[[rule]]
name = "drop-one"
when.recipient = "nobody@nowhere.example"
then = "discard"

[[rule]]
name = "too-big"
when.size = "> 100 GiB"
"#;

/// Refuses every recipient at RCPT and every message at its end: the MTA goes on as it did, whatever we say.
const REFUSE: &str = r#"
[[rule]]
name = "odd-recipients"
when.recipient = "b@example.test"
reply = "550 5.7.1 No {recipient}"
[[rule]]
name = "everything-else"
when.size = ">= 1"
at = "end-of-message"
reply = "452 4.3.1 Store is 100% full"
"#;

/// Quarantine, and discarding for one recipient.
const DIVERT: &str = r#"
[[rule]]
name = "hold"
when.sender = "second@example.net"
then = "quarantine"
[[rule]]
name = "drop-for-b"
when.recipient = "b@example.test"
then = "discard"
"#;

/// Every message is discarded.
const DISCARD: &str = "[[rule]]\nname = \"hole\"\nthen = \"discard\"\n";

#[test]
fn facts_and_counts_are_what_the_client_did() {
    for case in cases() {
        let expected = case.expected();
        for (name, policy) in
            [("nothing", NOTHING), ("everything", EVERYTHING), ("the default", postward::config::DEFAULT)]
        {
            for offer in [Offer::AsRecorded, Offer::AsTaken] {
                let policy = driver::policy(policy);
                let observed = case.play(&policy, offer, within);
                let context = format!("{}, policy: {name}, {offer:?}", case.name);
                assert_eq!(observed.errors, case.errors(), "{context}");
                if observed.errors.is_empty() {
                    assert_eq!(observed.envelope, expected, "{context}");
                }
            }
        }
    }
}

/// Whatever the policy answers, the MTA's next packet finds the session ready, and every message ends once.
#[test]
fn every_message_ends_exactly_once() {
    let failed = |_: &Query| Answer::Failed;
    for case in cases() {
        for policy in [NOTHING, EVERYTHING, REFUSE, DIVERT, DISCARD, postward::config::DEFAULT] {
            let policy = driver::policy(policy);
            for answer in [within as fn(&Query) -> Answer, failed] {
                let observed = case.play(&policy, Offer::AsTaken, answer);
                let started = observed.envelope.senders.len();
                assert_eq!(observed.ends.values().sum::<usize>(), started, "{}: {:?}", case.name, observed.ends);
            }
        }
    }
}

#[test]
fn verdicts_reach_the_recorded_sessions() {
    let ends = |policy: &str| {
        let policy = driver::policy(policy);
        let case = Case::read("postfix-rcpt-one-of-three-550");
        case.play(&policy, Offer::AsTaken, within)
    };
    let refused = ends(REFUSE);
    assert_eq!(refused.replies.iter().filter(|reply| reply.starts_with("550")).count(), 2, "{:?}", refused.replies);
    assert!(refused.replies.contains(&"452 4.3.1 Store is 100%% full".to_owned()), "{:?}", refused.replies);
    let diverted = ends(DIVERT);
    assert_eq!(diverted.verdicts, ["- <b@example.test>, accept", "quarantine hold"]);
    let case = Case::read("postfix-multi-message");
    let diverted = case.play(&driver::policy(DIVERT), Offer::AsTaken, within);
    assert_eq!(diverted.verdicts, ["discard", "quarantine hold", "discard"]);
    assert_eq!(ends(DISCARD).verdicts, ["discard", "discard"]);
}

/// The number of octets that the client sent, however the MTA cuts it and whichever blank it leaves out.
#[test]
fn the_true_size_is_what_the_client_sent() {
    let policy = driver::policy(EVERYTHING);
    let size = |name: &str| Case::read(name).play(&policy, Offer::AsTaken, within).sizes;
    // `BDAT 173` and `BDAT 4 LAST`.
    assert_eq!(size("postfix-bdat"), [177]);
    let plain = size("postfix-plain");
    assert_eq!(plain, size("sendmail-plain"));
    for same in ["helo", "auth", "tls", "null-sender", "ipv6"] {
        assert_eq!(size(&format!("postfix-{same}")), plain, "{same}");
        assert_eq!(size(&format!("sendmail-{same}")), plain, "{same}");
    }
    // 185,000 octets of body in three packets, and a header.
    for big in size("postfix-big-body").into_iter().chain(size("sendmail-big-body")) {
        assert!((185_000..185_500).contains(&big), "{big}");
    }
    // The same message with and without the blanks after its colons.
    assert_eq!(size("postfix-neg-leadspc"), size("postfix-neg-setsymlist"));
    assert_eq!(size("sendmail-neg-leadspc"), size("sendmail-neg-setsymlist"));
}

/// The id that logs are searched by is the one that the MTA tells the client.
#[test]
fn the_queue_id_is_what_the_client_was_told() {
    let policy = driver::policy(NOTHING);
    let mut found = 0;
    for case in cases() {
        let (mta, name) = case.mta_and_case();
        // The end of a message was not shown, or not negotiated.
        if ["rcpt-accept", "connect-accept", "neg-skip-all"].contains(&name) {
            continue;
        }
        let told = exchanges(&case.smtp).into_iter().filter(|(command, reply)| {
            let is_end = command == "<message>" || (command.starts_with("BDAT") && command.ends_with("LAST"));
            is_end && reply.starts_with("250")
        });
        let told: Vec<String> = told
            .filter_map(|(_, reply)| match mta {
                "postfix" => reply.rsplit_once("queued as ").map(|(_, id)| id.to_owned()),
                _ => reply.split(' ').nth(2).map(str::to_owned),
            })
            .collect();
        found += told.len();
        let known = case.play(&policy, Offer::AsTaken, within).queue_ids;
        assert!(told.iter().all(|id| known.contains(id)), "{}: told {told:?}, known {known:?}", case.name);
    }
    assert!(found > 100, "only {found} queue ids");
}

/// However the bytes arrive, the same frames come out, and with them the same session.
#[test]
fn bytes_may_arrive_in_any_pieces() {
    let mut random = Random(0x5eed);
    for case in cases() {
        for stream in case.streams() {
            let whole = commands(&[&stream]);
            let step = if stream.len() > 20_000 { stream.len() / 50 } else { 1 };
            for at in (0..stream.len()).step_by(step) {
                assert_eq!(commands(&[&stream[..at], &stream[at..]]).len(), whole.len(), "{} cut at {at}", case.name);
            }
            for _ in 0..3 {
                let mut pieces = Vec::new();
                let mut rest = &stream[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(1 + random.below(rest.len().min(4000)));
                    pieces.push(piece);
                    rest = after;
                }
                assert_eq!(commands(&pieces), whole, "{}", case.name);
            }
        }
    }
}

/// A recording cut short anywhere is a connection that was lost: its last message ends, nothing else happens.
#[test]
fn the_connection_may_be_lost_anywhere() {
    let policy = driver::policy(EVERYTHING);
    for case in ["postfix-multi-message", "sendmail-multi-message", "postfix-tls-auth", "sendmail-rset"].map(Case::read)
    {
        for length in 0..case.packets.len() {
            let mut cut = case.clone();
            cut.packets.truncate(length);
            let observed = cut.play(&policy, Offer::AsTaken, within);
            assert_eq!(observed.errors, Vec::<String>::new());
            assert_eq!(observed.ends.values().sum::<usize>(), observed.envelope.senders.len(), "{}", case.name);
        }
    }
}

/// What the protocol forbids ends the connection with an error that says what was expected.
#[test]
fn commands_out_of_order_are_errors() {
    let played = |name: &str, order: &str| {
        let mut case = Case::read(name);
        let first = |cmd| case.packets.iter().find(|packet| packet.from_mta && packet.letter == cmd).unwrap().clone();
        let packets = order.bytes().map(first).collect();
        case.packets = packets;
        case.play(&driver::policy(NOTHING), Offer::AsTaken, within).errors
    };
    for mta in ["postfix-plain", "sendmail-plain"] {
        assert_eq!(played(mta, "OCHMRTLNBEQ"), Vec::<String>::new());
        assert_eq!(played(mta, "OCMRTE"), Vec::<String>::new());
        assert_eq!(played(mta, "C"), ["command CONNECT: out of order, expected OPTNEG first"]);
        assert_eq!(played(mta, "OM"), ["command MAIL: out of order, expected CONNECT first"]);
        assert_eq!(played(mta, "OCC"), ["command CONNECT: out of order, expected one CONNECT for each SMTP session"]);
        for (letter, name) in
            [("R", "RCPT"), ("T", "DATA"), ("L", "HEADER"), ("N", "EOH"), ("B", "BODY"), ("E", "BODYEOB")]
        {
            let expected = format!("command {name}: out of order, expected MAIL first");
            assert_eq!(played(mta, &format!("OCH{letter}")), [expected]);
        }
    }
}

/// Questions are answered as if there were all the room in the world.
fn within(query: &Query) -> Answer {
    match query {
        Query::DiskFree(_) => Answer::Bytes(u64::MAX),
        Query::Hold(_) => Answer::Within,
    }
}

// What the MTA sent

/// A recorded session.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    packets: Vec<Packet>,
    /// The three words that the recorded milter answered the offer with.
    answered_offer: [u8; 12],
    smtp: String,
}

#[derive(Clone, Debug)]
struct Packet {
    connection: u64,
    from_mta: bool,
    /// `\0` where a connection was closed.
    letter: u8,
    data: Vec<u8>,
}

/// What the played MTA offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Offer {
    /// All that the recorded MTA offered; packets come although they were declined.
    AsRecorded,
    /// What the recorded milter took of it: the packets are just those that were negotiated.
    AsTaken,
}

/// What came of playing a session.
#[derive(Debug, Default)]
struct Observed {
    envelope: Envelopes,
    errors: Vec<String>,
    ends: BTreeMap<&'static str, usize>,
    replies: Vec<String>,
    verdicts: Vec<String>,
    sizes: Vec<u64>,
    queue_ids: Vec<String>,
}

/// What the session learned, or what the client says that it did.
#[derive(Debug, Default, Eq, PartialEq)]
struct Envelopes {
    senders: Vec<Sender>,
    recipients: Vec<String>,
    accepted: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Sender {
    client: Option<IpAddr>,
    helo: Option<String>,
    login: Option<String>,
    tls: bool,
    address: String,
    declared_size: Option<u64>,
}

fn cases() -> Vec<Case> {
    let directory = directory();
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 190, "only {} recordings", names.len());
    names.iter().map(Case::read).collect()
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures"))
}

impl Case {
    fn read(name: impl AsRef<str>) -> Self {
        let name = name.as_ref().to_owned();
        let read = |extension| fs::read_to_string(directory().join(format!("{name}.{extension}"))).unwrap();
        let packets: Vec<Packet> = read("jsonl").lines().map(Packet::read).collect();
        let answer = packets.iter().find(|packet| !packet.from_mta && packet.letter == b'O').unwrap();
        Self { answered_offer: answer.data[..12].try_into().unwrap(), packets, smtp: read("smtp"), name }
    }

    /// What the MTA wrote, for each connection.
    fn streams(&self) -> Vec<Vec<u8>> {
        self.connections()
            .into_iter()
            .map(|connection| {
                let mut stream = BytesMut::new();
                self.sent_by_mta(connection).for_each(|packet| {
                    Frame::write(&mut stream, packet.letter, |out| out.extend_from_slice(&packet.data));
                });
                stream.to_vec()
            })
            .collect()
    }

    fn connections(&self) -> Vec<u64> {
        let mut connections: Vec<u64> = self.packets.iter().map(|packet| packet.connection).collect();
        connections.dedup();
        connections.sort_unstable();
        connections.dedup();
        connections
    }

    fn sent_by_mta(&self, connection: u64) -> impl Iterator<Item = &Packet> {
        self.packets
            .iter()
            .filter(move |packet| packet.from_mta && packet.letter != 0 && packet.connection == connection)
    }

    fn play(&self, policy: &Arc<Policy>, offer: Offer, answer: fn(&Query) -> Answer) -> Observed {
        let mut observed = Observed::default();
        for connection in self.connections() {
            if let Err(error) = self.play_connection(connection, policy, offer, answer, &mut observed) {
                observed.errors.push(error);
            }
        }
        observed
    }

    fn play_connection(
        &self,
        connection: u64,
        policy: &Arc<Policy>,
        offer: Offer,
        answer: fn(&Query) -> Answer,
        observed: &mut Observed,
    ) -> Result<(), String> {
        let mut driver = Driver::new(Arc::clone(policy), Transport::Tcp);
        for packet in self.sent_by_mta(connection) {
            let mut data = packet.data.clone();
            if packet.letter == b'O' && offer == Offer::AsTaken {
                // The version taken and the steps taken; every action, which no recording depends on.
                data[..4].copy_from_slice(&self.answered_offer[..4]);
                data[8..].copy_from_slice(&self.answered_offer[8..]);
            }
            let frame = Frame { code: packet.letter, data: &data };
            let command = Command::decode(frame).map_err(|error| error.to_string())?;
            let step = driver.handle(command, answer).map_err(|error| error.to_string())?;
            observed.note(&driver, command, &step);
            if matches!(step.action, Action::Close) {
                assert_eq!(packet.letter, b'Q', "{}: closed before QUIT", self.name);
            }
        }
        if let Some(end) = driver.session.abandon() {
            observed.end(end);
        }
        Ok(())
    }
}

impl Packet {
    fn read(line: &str) -> Self {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| value[key].as_str().unwrap();
        let letter = match text("cmd") {
            "eof" | "close" => 0,
            letter => letter.as_bytes()[0],
        };
        let data = text("hex").as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        Self {
            connection: value["conn"].as_u64().unwrap_or(1),
            from_mta: text("dir") == "mta>milter",
            letter,
            data: data.map(byte).collect(),
        }
    }
}

impl Observed {
    fn note(&mut self, driver: &Driver, command: Command<'_>, step: &driver::Step) {
        if let Some(end) = step.superseded {
            self.end(end);
        }
        if let Some(end) = step.ended() {
            self.end(end);
        }
        self.replies.extend(step.refusal());
        let subject = driver.session.subject();
        match (command, step.decision()) {
            (Command::Mail(_), _) => {
                let connection = subject.connection;
                let message = subject.message.unwrap();
                self.envelope.senders.push(Sender {
                    client: connection.client,
                    helo: connection.helo.as_ref().map(|helo| helo.as_written().to_owned()),
                    login: message.login.as_deref().map(str::to_owned),
                    tls: message.tls,
                    address: message.sender.as_written().to_owned(),
                    declared_size: message.declared_size,
                });
                assert_eq!(message.authenticated, message.login.is_some());
            }
            (Command::Recipient(_), Some(decision)) => {
                let recipient = subject.recipient.unwrap();
                self.envelope.recipients.push(recipient.address.as_written().to_owned());
                assert!(decision.recipient.is_some());
            }
            (Command::EndOfMessage(_), Some(decision)) => {
                self.queue_ids
                    .extend(subject.message.and_then(|message| message.queue_id.as_deref()).map(str::to_owned));
                self.sizes.extend(subject.message.and_then(|message: &Message| message.true_size));
                self.envelope.accepted += usize::from(decision.message == Some(MessageEnd::Accepted));
                self.verdicts.push(verdict(decision));
            }
            _ => {}
        }
        if let Some(decision) = step.decision() {
            let refused = matches!(decision.verdict, Verdict::Refuse(_));
            let counted = decision.recipient.is_some_and(|end| end != RecipientEnd::Accepted);
            assert!(!counted || refused, "{decision:?}");
        }
    }

    fn end(&mut self, end: MessageEnd) {
        *self.ends.entry(end.name()).or_default() += 1;
    }
}

fn verdict(decision: &postward::session::Decision) -> String {
    let deleted: String = decision.delete.iter().map(|recipient| format!("- {}, ", recipient.escape_ascii())).collect();
    let verdict = match &decision.verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Discard => "discard".to_owned(),
        Verdict::Quarantine(rule) => format!("quarantine {rule}"),
        Verdict::Refuse(reply) => reply.to_string(),
    };
    deleted + &verdict
}

/// Reads the stream as it arrives, piece by piece; each command as text.
fn commands(pieces: &[&[u8]]) -> Vec<String> {
    let mut buffer = Vec::new();
    let mut commands = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut read = 0;
        while let Some((frame, length)) = Frame::split(&buffer[read..]).unwrap() {
            commands.push(format!("{:?}", Command::decode(frame).unwrap()));
            read += length;
        }
        buffer.drain(..read);
    }
    assert!(buffer.is_empty());
    commands
}

// What the client did

/// Cases in which the milter saw more or less than what the MTA said yes to: what it saw instead.
struct Exception {
    case: &'static str,
    senders: Option<&'static [&'static str]>,
    recipients: Option<&'static [&'static str]>,
    accepted: Option<usize>,
}

const fn exception(case: &'static str) -> Exception {
    Exception { case, senders: None, recipients: None, accepted: None }
}

const EXCEPTIONS: &[Exception] = &[
    // ACCEPT to the first recipient of each message: nothing more of it is shown, not even its end.
    Exception {
        recipients: Some(&["b@example.test", "b@example.test"]),
        accepted: Some(0),
        ..exception("rcpt-accept")
    },
    // ACCEPT to CONNECT: nothing is shown.
    Exception { senders: Some(&[]), recipients: Some(&[]), accepted: Some(0), ..exception("connect-accept") },
    // The milter was shown what it then did not answer.
    Exception { recipients: Some(&["b@example.test"]), ..exception("milter-closes-at-rcpt") },
    Exception { accepted: Some(1), ..exception("milter-closes-at-eom") },
    // Not an SMTP session: nothing in the client's record.
    Exception {
        senders: Some(&["local@example.test"]),
        recipients: Some(&["b@example.test", "c@example.test"]),
        accepted: Some(1),
        ..exception("non-smtpd")
    },
    Exception {
        senders: Some(&[""]),
        recipients: Some(&["b@example.test"]),
        accepted: Some(1),
        ..exception("non-smtpd-null-sender")
    },
    Exception {
        senders: Some(&["local@example.test"]),
        recipients: Some(&["b@example.test"]),
        ..exception("non-smtpd-rcpt-550")
    },
];

impl Case {
    /// The MTA and the rest of the name.
    fn mta_and_case(&self) -> (&str, &str) {
        self.name.split_once('-').unwrap()
    }

    /// A milter that declined every step sees an end without a beginning, which Postward never negotiates.
    fn errors(&self) -> Vec<String> {
        match self.mta_and_case() {
            (_, "neg-skip-all") => vec!["command BODYEOB: out of order, expected MAIL first".to_owned()],
            _ => Vec::new(),
        }
    }

    /// What the client did, as far as the MTA or the recorded milter saw it.
    fn expected(&self) -> Envelopes {
        let mut client = Client::new(self);
        for (command, reply) in exchanges(&self.smtp) {
            client.exchange(&command, &reply);
        }
        let mut expected = client.envelope;
        let (_, case) = self.mta_and_case();
        if let Some(exception) = EXCEPTIONS.iter().find(|exception| exception.case == case) {
            if let Some(senders) = exception.senders {
                expected.senders = senders.iter().map(|address| client.session.sending_as(address)).collect();
            }
            if let Some(recipients) = exception.recipients {
                expected.recipients = recipients.iter().map(|&address| address.to_owned()).collect();
            }
            expected.accepted = exception.accepted.unwrap_or(expected.accepted);
        }
        expected
    }
}

/// Whom AUTH logged in, in every recording: the `.smtp` files leave the password out, and the name with it.
const LOGIN: &str = "alice@example.test";

/// The client's side of the session, followed line by line.
struct Client<'a> {
    case: &'a Case,
    session: Sender,
    envelope: Envelopes,
    /// A refusal at CONNECT or HELO ended what the milter saw.
    blind: bool,
}

impl<'a> Client<'a> {
    fn new(case: &'a Case) -> Self {
        let (_, name) = case.mta_and_case();
        let client = match name {
            "ipv6" => "::1",
            "unknown-host" => "127.0.0.9",
            _ => "127.0.0.1",
        };
        let helo = name.starts_with("non-smtpd").then(|| "localhost".to_owned());
        let session = Sender {
            client: client.parse().ok(),
            helo,
            login: None,
            tls: false,
            address: String::new(),
            declared_size: None,
        };
        let blind = name.starts_with("reply-connect") || name.starts_with("reply-helo");
        Self { case, session, envelope: Envelopes::default(), blind }
    }

    /// Postfix tells in a macro which domain it gives an address without one, Sendmail does not.
    fn completed(&self, address: String) -> String {
        let lacks_domain = !address.is_empty() && !address.contains('@');
        let completes = lacks_domain && self.case.name.starts_with("postfix");
        if completes { format!("{address}@example.test") } else { address }
    }

    fn exchange(&mut self, command: &str, reply: &str) {
        if self.blind {
            return;
        }
        let shown = reply.starts_with('2') || self.said_by_milter(reply);
        let (verb, argument) = command.split_once(' ').unwrap_or((command, ""));
        match verb.to_ascii_uppercase().as_str() {
            "(CONNECT)" => (self.session.helo, self.session.login, self.session.tls) = (None, None, false),
            "EHLO" | "HELO" => self.session.helo = Some(argument.to_owned()),
            "STARTTLS" if shown => self.session.tls = true,
            "AUTH" if shown => self.session.login = Some(LOGIN.to_owned()),
            "XCLIENT" => self.become_client(argument),
            "MAIL" if shown => {
                let (address, arguments) = path(argument);
                let address = self.completed(address);
                let sizes = arguments.split(' ').filter_map(|argument| argument.split_once('='));
                let mut sizes = sizes.filter(|(name, _)| name.eq_ignore_ascii_case("size"));
                let declared_size = sizes.next().and_then(|(_, size)| size.parse().ok());
                self.envelope.senders.push(Sender { declared_size, ..self.session.sending_as(&address) });
            }
            "RCPT" if shown || self.shows_refused() => {
                let recipient = self.completed(path(argument).0);
                self.envelope.recipients.push(recipient);
            }
            "<MESSAGE>" if reply.starts_with('2') => self.envelope.accepted += 1,
            "<MESSAGE>" if shown && self.case.name.contains("-reply-eom-") => self.envelope.accepted += 1,
            "BDAT" if shown && argument.ends_with(" LAST") => self.envelope.accepted += 1,
            _ => {}
        }
    }

    /// Whether the recorded milter gave that reply: its first line, which Sendmail may put the address into.
    fn said_by_milter(&self, reply: &str) -> bool {
        let texts = self.case.packets.iter().filter(|packet| !packet.from_mta && packet.letter == b'y');
        texts.filter_map(|packet| packet.data.split(|&byte| byte == b'\r' || byte == 0).next()).any(|line| {
            let line = String::from_utf8_lossy(line);
            let (_code, text) = line.split_at(4);
            let (enhanced, text) = text.split_once(' ').unwrap();
            reply.contains(enhanced) && reply.ends_with(text)
        })
    }

    /// RCPT_REJ was asked for; Postfix then shows what it refuses, too.
    fn shows_refused(&self) -> bool {
        let steps = u32::from_be_bytes(self.case.answered_offer[8..].try_into().unwrap());
        self.case.name.starts_with("postfix") && Steps(steps).contains(Steps::REFUSED_RECIPIENTS)
    }

    fn become_client(&mut self, attributes: &str) {
        for (name, value) in attributes.split(' ').filter_map(|attribute| attribute.split_once('=')) {
            match name {
                "ADDR" => self.session.client = value.trim_start_matches("IPV6:").parse().ok(),
                "LOGIN" => self.session.login = Some(value.to_owned()),
                _ => {}
            }
        }
    }
}

impl Sender {
    fn sending_as(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }
}

/// Each command of the client and the first line of its reply; pipelined commands, which are recorded without their
/// arguments, as what they were.
fn exchanges(smtp: &str) -> Vec<(String, String)> {
    let mut exchanges: Vec<(String, String)> = Vec::new();
    for line in smtp.lines() {
        if let Some(command) = line.strip_prefix("C: ") {
            let command = match command {
                "MAIL (pipelined)" => "MAIL FROM:<a@example.net>",
                "RCPT 1 (pipelined)" => "RCPT TO:<b@example.test>",
                "RCPT 2 (pipelined)" => "RCPT TO:<c@example.test>",
                plain => plain,
            };
            exchanges.push((command.to_owned(), String::new()));
        } else if let (Some(reply), Some((_, known))) = (line.strip_prefix("S: "), exchanges.last_mut())
            && known.is_empty()
        {
            *known = reply.to_owned();
        }
    }
    exchanges
}

/// `FROM:<a@example.net> SIZE=10`: the address as it is compared, and what follows.
fn path(argument: &str) -> (String, &str) {
    let (_, text) = argument.split_once(':').unwrap();
    let text = text.trim_start();
    let (address, arguments) = match text.strip_prefix('<') {
        Some(inner) => inner.rsplit_once('>').unwrap(),
        None => text.split_once(' ').unwrap_or((text, "")),
    };
    let address = address.trim();
    let address = if address.starts_with('@') { address.split_once(':').unwrap().1 } else { address };
    // Where the address routes or has no domain, the MTA's macro says what it makes of it.
    let address = match address {
        "b%other@example.test" => "b@other",
        address => address.strip_suffix('.').unwrap_or(address),
    };
    (address.to_owned(), arguments.trim_start())
}

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}
