//! An MTA that plays a script to the real session, command by command, and notes what it hears.
//!
//! On the way it holds the session to its promises: one reply to each command that is owed one and none to others, each
//! message ends once, and nothing is held for a message that is over.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use postward::config;
use postward::facts::Amount;
use postward::facts::Answer as Found;
use postward::facts::Bound;
use postward::facts::Exceeded;
use postward::facts::Hold;
use postward::facts::Query;
use postward::facts::Scope;
use postward::policy;
use postward::reply::Class;
use postward::session::Action;
use postward::session::Decision;
use postward::session::MessageEnd;
use postward::session::RecipientEnd;
use postward::session::Session;
use postward::session::Settlement;
use postward::session::Transport;
use postward::session::Verdict;
use postward::wire::Actions;
use postward::wire::Command;
use postward::wire::Connect;
use postward::wire::Envelope;
use postward::wire::Frame;
use postward::wire::Offer;
use postward::wire::Response;
use postward::wire::Steps;
use postward::wire::Strings;

use crate::model;
use crate::model::Auth;
use crate::model::Message;
use crate::model::Moment;
use crate::model::PATHS;
use crate::model::Policy;
use crate::model::Script;
use crate::model::SmtpSession;
use crate::model::Tls;
use crate::naive::Answer;
use crate::naive::Charges;
use crate::naive::Fate;
use crate::naive::MessageOutcome;
use crate::naive::Outcome;
use crate::naive::SessionOutcome;

pub(crate) struct Mta<'a> {
    /// As written, to compare replies and modes with.
    written: &'a Policy,
    policy: Arc<policy::Policy>,
    script: &'a Script,
    session: Session,
    ledger: Ledger,
    /// What was negotiated.
    steps: Steps,
    /// How messages ended, each of them once.
    ends: Vec<MessageEnd>,
    /// The class of the last refusal that the client heard.
    last_refusal: Option<Class>,
}

impl<'a> Mta<'a> {
    pub(crate) fn new(written: &'a Policy, policy: policy::Policy, script: &'a Script) -> Self {
        let transport = if script.mta.unix_socket { Transport::Unix } else { Transport::Tcp };
        let policy = Arc::new(policy);
        let session = Session::new(Arc::clone(&policy), 1, transport);
        let ledger = Ledger::new(Arc::clone(&policy));
        Self { written, policy, script, session, ledger, steps: Steps(0), ends: Vec::new(), last_refusal: None }
    }

    pub(crate) fn play(mut self) -> Outcome {
        let model::Mta { version, steps, .. } = self.script.mta;
        self.say(&Command::Negotiate(Offer { version, actions: Actions(0x1ff), steps: Steps(steps) }));
        let mut outcome = Outcome::default();
        for (number, session) in self.script.sessions.iter().enumerate() {
            if number > 0 {
                self.say(&Command::QuitNewConnection);
            }
            outcome.sessions.push(self.session(session));
        }
        self.say(&Command::Quit);
        if let Some(end) = self.session.abandon() {
            self.ended(end);
            self.ledger.settle(Settlement::Release);
        }
        self.ledger.assert_nothing_is_held();
        self.tell_fates(&mut outcome);
        outcome.charged = self.charged();
        outcome
    }

    fn session(&mut self, session: &SmtpSession) -> SessionOutcome {
        let port = session.port.map(|port| port.to_string()).unwrap_or_default();
        self.macros(b'C', &[("{daemon_name}", session.listener.unwrap_or_default()), ("{daemon_port}", &port)]);
        let is_local = self.script.mta.local_submission && session.client == Some("127.0.0.1");
        let connect = self.say(&Command::Connect(Connect {
            hostname: session.client_name.as_bytes(),
            family: session.client.map_or(b'U', |address| if address.contains(':') { b'6' } else { b'4' }),
            port: if is_local { 0 } else { 44_956 },
            address: session.client.unwrap_or_default().as_bytes(),
        }));
        let connect = self.answer(connect);
        self.last_refusal = None;
        if connect.refused_by.is_some() && !self.written.monitor {
            return SessionOutcome { connect, messages: Vec::new() };
        }
        self.helo(session.helo, session.tls);
        let mut messages = Vec::new();
        for message in &session.messages {
            self.helo(message.helo, session.tls);
            messages.push(self.message(message, session.tls));
            let breaks_off_silently = message.gives_up.is_some_and(|gives_up| !gives_up.says_so);
            if self.script.mta.aborts_always || (self.session.has_message() && !breaks_off_silently) {
                self.say(&Command::Abort);
            }
        }
        if self.session.has_message() && self.script.sessions.len() > 1 {
            self.say(&Command::Abort);
        }
        SessionOutcome { connect, messages }
    }

    fn helo(&mut self, name: Option<&str>, tls: Tls) {
        let Some(name) = name else { return };
        self.macros(b'H', if tls == Tls::SaidAtHelo { &[("{tls_version}", "TLSv1.3")] } else { &[] });
        let heard = self.say(&Command::Helo(name.as_bytes()));
        assert_eq!(self.answer(heard), Answer::default(), "nothing is said at HELO");
    }

    fn message(&mut self, message: &Message, tls: Tls) -> MessageOutcome {
        let gives_up_at = |moment| message.gives_up.is_some_and(|gives_up| gives_up.after == moment);
        let refused = |mta: &Self, answer: &Answer| answer.refused_by.is_some() && !mta.written.monitor;
        let mut told = MessageOutcome::default();
        if self.script.mta.version >= 3 && !self.steps.contains(Steps::NO_UNKNOWN) {
            self.say(&Command::Unknown(b"FOO"));
        }

        told.mail = self.mail(message, tls);
        if refused(self, &told.mail) || gives_up_at(Moment::Mail) {
            return told;
        }

        let mut is_anybody_left = false;
        for recipient in &message.recipients {
            let address = recipient.as_bytes();
            let heard = self.say(&Command::Recipient(Envelope { address, arguments: Strings::default() })).unwrap();
            is_anybody_left |= heard.recipient == Some(RecipientEnd::Accepted);
            told.recipients.push(self.answer(Some(heard)));
            if gives_up_at(Moment::Recipient) {
                return told;
            }
        }
        if !is_anybody_left || gives_up_at(Moment::Recipients) {
            return told;
        }

        if self.script.mta.has_data() && !self.steps.contains(Steps::NO_DATA) {
            let heard = self.say(&Command::Data);
            told.data = self.answer(heard);
        }
        if refused(self, &told.data) || gives_up_at(Moment::Data) {
            return told;
        }

        self.content(message);
        if gives_up_at(Moment::Content) {
            return told;
        }
        let heard = self.say(&Command::EndOfMessage(b"")).unwrap();
        told.fate = self.fate(&heard);
        told.end = self.answer(Some(heard));
        told
    }

    fn mail(&mut self, message: &Message, tls: Tls) -> Answer {
        let mut macros = Vec::new();
        if tls == Tls::SaidAtMail {
            macros.push(("{tls_version}", "TLSv1.3"));
        }
        match message.auth {
            Auth::No if macros.is_empty() => {}
            Auth::No => macros.push(("{auth_type}", "")),
            Auth::Nameless => macros.push(("{auth_type}", "PLAIN")),
            Auth::Login(login) => macros.extend([("{auth_type}", "PLAIN"), ("{auth_authen}", login)]),
        }
        if !macros.is_empty() {
            self.macros(b'M', &macros);
        }
        let size = message.declared_size.map(|size| format!("BODY=8BITMIME\0size={size}\0")).unwrap_or_default();
        let envelope = Envelope { address: message.sender.as_bytes(), arguments: Strings::new(size.as_bytes()) };
        let heard = self.say(&Command::Mail(envelope));
        self.answer(heard)
    }

    fn content(&mut self, message: &Message) {
        if !self.steps.contains(Steps::NO_HEADERS) {
            for (name, value) in &message.header {
                let keeps_blank = self.steps.contains(Steps::HEADER_LEADING_SPACE);
                let value = if keeps_blank { value } else { value.strip_prefix(' ').unwrap() };
                self.say(&Command::Header { name: name.as_bytes(), value: value.as_bytes() });
            }
        }
        if !self.steps.contains(Steps::NO_END_OF_HEADERS) {
            self.say(&Command::EndOfHeaders);
        }
        if !self.steps.contains(Steps::NO_BODY) {
            for piece in vec![b'x'; message.body].chunks(16) {
                self.say(&Command::Body(piece));
            }
        }
    }

    fn macros(&mut self, command: u8, pairs: &[(&str, &str)]) {
        let mut wire = BytesMut::new();
        Frame::write(&mut wire, b'D', |out| {
            out.extend_from_slice(&[command]);
            for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(&[0]);
            }
        });
        self.send(&wire);
    }

    fn say(&mut self, command: &Command<'_>) -> Option<Box<Decision>> {
        let mut wire = BytesMut::new();
        command.encode(&mut wire);
        self.send(&wire)
    }

    /// Sends one frame and does what `src/server/connection.rs` does; the decision, if one was made.
    fn send(&mut self, wire: &[u8]) -> Option<Box<Decision>> {
        let (frame, length) = Frame::split(wire).unwrap().unwrap();
        assert_eq!(length, wire.len());
        let command = Command::decode(frame).unwrap();
        if let Some(end) = self.session.supersede(&command) {
            self.ledger.settle(Settlement::Release);
            self.ended(end);
        }
        self.ledger.begin();
        let mut out = BytesMut::new();
        let mut decision = None;
        match self.handle(command) {
            Action::Aborted(end) => {
                self.ledger.settle(Settlement::Release);
                self.ended(end);
            }
            Action::Ask(_) | Action::Close | Action::Read | Action::Restart => {}
            Action::Continue => Response::Continue.encode(&mut out),
            Action::Decided(decided) => {
                self.ledger.settle(decided.settlement);
                self.heard(&decided);
                decided.encode(&mut out);
                decision = Some(decided);
            }
            Action::Negotiated(negotiation) => {
                self.steps = negotiation.taken().steps;
                negotiation.encode(&mut out);
            }
        }
        assert_eq!(final_responses(&out), usize::from(self.owes(&command)), "replies to {}", command.name());
        if !self.session.has_message() {
            self.ledger.assert_nothing_is_held();
        }
        decision
    }

    fn handle(&mut self, command: Command<'_>) -> Action {
        let mut action = self.session.handle(command).unwrap_or_else(|error| panic!("{error}"));
        while let Action::Ask(query) = action {
            let answer = match &query {
                Query::DiskFree(path) => Found::Bytes(self.free(*path)),
                Query::Hold(hold) => self.ledger.hold(hold),
            };
            action = self.session.answer(query, answer);
        }
        action
    }

    fn free(&self, number: usize) -> u64 {
        let path = self.policy.path(number).unwrap().to_str().unwrap();
        self.script.free[PATHS.iter().position(|known| *known == path).unwrap()]
    }

    fn owes(&self, command: &Command<'_>) -> bool {
        let no_reply = match command {
            Command::Abort | Command::Macros(_) | Command::Quit | Command::QuitNewConnection => return false,
            Command::EndOfMessage(_) | Command::Negotiate(_) => return true,
            Command::Body(_) => Steps::NO_REPLY_BODY,
            Command::Connect(_) => Steps::NO_REPLY_CONNECT,
            Command::Data => Steps::NO_REPLY_DATA,
            Command::EndOfHeaders => Steps::NO_REPLY_END_OF_HEADERS,
            Command::Header { .. } => Steps::NO_REPLY_HEADER,
            Command::Helo(_) => Steps::NO_REPLY_HELO,
            Command::Mail(_) => Steps::NO_REPLY_MAIL,
            Command::Recipient(_) => Steps::NO_REPLY_RECIPIENT,
            Command::Unknown(_) => Steps::NO_REPLY_UNKNOWN,
        };
        !self.steps.contains(no_reply)
    }

    /// Notes how a message ended, and checks what a decision says of its own class and mode.
    fn heard(&mut self, decision: &Decision) {
        if let Verdict::Refuse(reply) = &decision.verdict {
            self.last_refusal = Some(reply.status().class());
            let malformed = [policy::Failure::Recipient, policy::Failure::Sender].map(policy::Policy::malformed);
            if let Some(rule) = decision.rule
                && !malformed.contains(&Some(reply.clone()))
                && let model::Action::Refuse(Some(codes)) = self.written.rules[rule].action
            {
                assert_eq!(reply.to_string(), format!("{codes} r{rule}"));
            }
        }
        for held in &decision.matches {
            let monitored = self.written.monitor || self.written.rules[held.rule].monitor;
            assert_eq!(held.mode == config::Mode::Monitor, monitored, "rule {}", held.rule);
        }
        if let Some(end) = decision.message {
            self.ended(end);
        }
    }

    fn ended(&mut self, end: MessageEnd) {
        let class = self.last_refusal.take();
        match end {
            MessageEnd::Deferred => assert_eq!(class, Some(Class::Transient)),
            MessageEnd::Rejected => assert_eq!(class, Some(Class::Permanent)),
            MessageEnd::Aborted | MessageEnd::Accepted | MessageEnd::Discarded | MessageEnd::Quarantined => {}
        }
        self.ends.push(end);
    }

    /// What the client was told, or would have been. Nothing is said where nothing is owed.
    fn answer(&self, decision: Option<Box<Decision>>) -> Answer {
        let Some(decision) = decision else {
            return Answer::default();
        };
        assert!(decision.watched.is_none() || self.written.monitor);
        let refuses =
            matches!(decision.verdict, Verdict::Refuse(_)) || decision.watched.is_some() || decision.held_back;
        Answer {
            refused_by: decision.rule.filter(|_| refuses),
            matched: decision.matches.iter().map(|held| held.rule).collect(),
        }
    }

    /// What the decision at the end of a message makes of it. Where blanks after the colon are negotiated they are
    /// ours.
    fn fate(&self, decision: &Decision) -> Fate {
        let blank = if self.steps.contains(Steps::HEADER_LEADING_SPACE) { " " } else { "" };
        let unspaced = |value: &String| value.strip_prefix(blank).unwrap().to_owned();
        let headers: BTreeSet<_> =
            decision.headers.iter().map(|(name, value)| (name.clone(), unspaced(value))).collect();
        assert_eq!(headers.len(), decision.headers.len(), "each header field is added once");
        let passed = |quarantined_by| Fate::Passed {
            headers,
            deleted: decision.delete.iter().map(|written| String::from_utf8(written.to_vec()).unwrap()).collect(),
            quarantined_by,
        };
        match &decision.verdict {
            Verdict::Accept => passed(None),
            Verdict::Quarantine(rule) => passed(Some(rule.strip_prefix('r').unwrap().parse().unwrap())),
            Verdict::Discard => Fate::Discarded,
            Verdict::Continue | Verdict::Refuse(_) => Fate::Refused,
        }
    }

    /// Every message ended once, and in the way that its end was reported.
    fn tell_fates(&self, outcome: &mut Outcome) {
        let mut ends = self.ends.iter();
        for told in outcome.sessions.iter_mut().flat_map(|session| &mut session.messages) {
            let end = ends.next().expect("every message ends");
            let fate = std::mem::take(&mut told.fate);
            told.fate = match (end, fate) {
                (MessageEnd::Aborted, _) => Fate::Aborted,
                (MessageEnd::Deferred | MessageEnd::Rejected, _) => Fate::Refused,
                (MessageEnd::Discarded, Fate::Discarded) => Fate::Discarded,
                (MessageEnd::Accepted, fate @ Fate::Passed { quarantined_by: None, .. })
                | (MessageEnd::Quarantined, fate @ Fate::Passed { quarantined_by: Some(_), .. }) => fate,
                (MessageEnd::Accepted | MessageEnd::Discarded | MessageEnd::Quarantined, fate) => {
                    panic!("reported as {end:?}, but {fate:?}")
                }
            };
        }
        assert_eq!(ends.next(), None, "no message ends twice");
    }

    fn charged(&self) -> Charges {
        let charged = self.ledger.charged.iter().map(|(counter, key, amount)| {
            let counter = &self.policy.counters()[*counter];
            let rule = counter.rule.strip_prefix('r').unwrap().parse().unwrap();
            let measure = match counter.measure {
                policy::Measure::Bytes => model::Measure::Bytes,
                policy::Measure::Messages => model::Measure::Messages,
                policy::Measure::Recipients => model::Measure::Recipients,
                policy::Measure::BadRecipients
                | policy::Measure::Concurrent
                | policy::Measure::Connections
                | policy::Measure::Distinct => {
                    unreachable!("not in the model")
                }
            };
            ((rule, measure, key.clone()), *amount)
        });
        charged.collect()
    }
}

/// How many responses end the MTA's wait; changes to the message do not.
fn final_responses(mut out: &[u8]) -> usize {
    let mut count = 0;
    while let Some((frame, length)) = Frame::split(out).unwrap() {
        count += usize::from(!matches!(frame.code, b'h' | b'-' | b'q'));
        out = &out[length..];
    }
    assert!(out.is_empty());
    count
}

/// Counters whose windows never end, and what this session holds of them; `src/lookup/ledger` in small.
struct Ledger {
    policy: Arc<policy::Policy>,
    charged: Vec<(usize, Vec<u8>, u64)>,
    held: Vec<(usize, Vec<u8>, u64)>,
    /// How much of `held` is from before the current command.
    mark: usize,
}

impl Ledger {
    const fn new(policy: Arc<policy::Policy>) -> Self {
        Self { policy, charged: Vec::new(), held: Vec::new(), mark: 0 }
    }

    fn begin(&mut self) {
        self.mark = self.held.len();
    }

    fn hold(&mut self, hold: &Hold) -> Found {
        assert_eq!(hold.scope, Scope::Message);
        let of = |all: &[(usize, Vec<u8>, u64)]| -> u64 {
            let same = all.iter().filter(|(counter, key, _)| *counter == hold.counter && **key == hold.key[..]);
            same.map(|(_, _, amount)| amount).sum()
        };
        let (charged, held) = (of(&self.charged), of(&self.held));
        let wanted = match hold.amount {
            Amount::Add(amount) => held + amount,
            Amount::Total(total) => total,
            Amount::Nothing | Amount::Try | Amount::Value(_) => unreachable!("not in the model"),
        };
        let bound = self.policy.counters()[hold.counter].rows[0].rates.iter().map(|rate| rate.amount).min().unwrap();
        if charged + wanted > bound {
            return Found::Exceeded(Exceeded {
                row: 0,
                step: 0,
                bound: Bound::Rate(0),
                used: charged + held,
                retry_after: None,
                retry_at: None,
            });
        }
        if wanted < held {
            self.held.retain(|(counter, key, _)| *counter != hold.counter || **key != hold.key[..]);
            self.held.push((hold.counter, hold.key.to_vec(), wanted));
        } else if wanted > held {
            self.held.push((hold.counter, hold.key.to_vec(), wanted - held));
        }
        Found::Within
    }

    fn settle(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Commit => {
                for (counter, key, amount) in self.held.drain(..) {
                    match self.charged.iter_mut().find(|(c, k, _)| *c == counter && *k == key) {
                        Some((_, _, charged)) => *charged += amount,
                        None => self.charged.push((counter, key, amount)),
                    }
                }
            }
            Settlement::Keep => {}
            Settlement::Release | Settlement::ReleaseUnjudged => self.held.clear(),
            Settlement::RollBack | Settlement::RollBackUnjudged => self.held.truncate(self.mark),
        }
    }

    fn assert_nothing_is_held(&self) {
        assert!(self.held.is_empty(), "still held for a message that is over: {:?}", self.held);
    }
}
