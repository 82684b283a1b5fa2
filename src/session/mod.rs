//! One MTA connection as a state machine: commands in, actions out. No IO, no clock.
//!
//! The shell reads a [`Command`], calls [`Session::handle`], and does what the [`Action`] says: after [`Action::Ask`] it
//! finds the answer and calls [`Session::answer`]; a [`Decision`] it settles, records, logs and sends, in this order.
//!
//! How long things live: [`Connection`] and what was counted for it with the session, a `Transaction` with the message;
//! dropping it is the whole of ABORT.

mod client;
mod decision;
mod error;
mod judging;
mod negotiation;
mod transaction;

pub use decision::Cause;
pub use decision::Decision;
pub use decision::Failure;
pub use decision::MessageEnd;
pub use decision::RecipientEnd;
pub use decision::Settlement;
pub use decision::Verdict;
pub use error::ProtocolError;
pub use negotiation::Negotiation;
pub use negotiation::Transport;

use std::sync::Arc;

use crate::config::OnError;
use crate::facts::Address;
use crate::facts::Answer;
use crate::facts::Connection;
use crate::facts::DecisionId;
use crate::facts::Message;
use crate::facts::Name;
use crate::facts::Query;
use crate::facts::Recipient;
use crate::facts::Stage;
use crate::policy::MAX_RECIPIENT_OCTETS;
use crate::policy::MAX_RECIPIENTS;
use crate::policy::Needs;
use crate::policy::Policy;
use crate::policy::Refusal;
use crate::policy::SessionStanding;
use crate::policy::Walk;
use crate::wire::Command;
use crate::wire::Connect;
use crate::wire::Envelope;
use crate::wire::MIN_VERSION;
use crate::wire::Macros;
use crate::wire::Offer;
use crate::wire::Steps;
use client::client_address;
use client::client_name;
use client::declared_size;
use client::parse;
use transaction::Transaction;

/// One MTA connection.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    /// This session and the current or last message in it.
    id: DecisionId,
    transport: Transport,
    /// What was negotiated; `None` before.
    taken: Option<Offer>,
    connected: bool,
    connection: Connection,
    standing: SessionStanding,
    /// What macros of MAIL tell that came before MAIL itself; each packet is a full statement.
    coming: Option<Box<Transaction>>,
    /// How the MTA reads the address of the MAIL or RCPT that follows.
    read_by_mta: Vec<u8>,
    /// In a box, as what is coming and what is over: most of its life a session has none of them.
    transaction: Option<Box<Transaction>>,
    /// The transaction that ended with the last command, for the log.
    finished: Option<Box<Transaction>>,
    /// The judgement that waits for an answer, before there is a message; later the message has it.
    early_walk: Option<Box<Walk>>,
    /// The recipient being judged.
    candidate: Option<Recipient>,
    /// Whether the MTA refuses the recipient that follows, whatever we say.
    refused_by_mta: bool,
    /// Whether the MTA waits for a reply to the current command.
    owed: bool,
    /// A bug was met: from here on everything is answered by `on_error`.
    broken: bool,
    /// There is no room for it: it is sent away at CONNECT.
    overload: Option<OnError>,
    /// Nothing more is to be said.
    is_over: bool,
}

/// What the session asks of the shell.
#[derive(Debug)]
pub enum Action {
    /// The message is over without having been sent.
    Aborted(MessageEnd),
    /// Find the answer and call [`Session::answer`].
    Ask(Query),
    /// The conversation is over.
    Close,
    /// Send CONTINUE; nothing was judged.
    Continue,
    /// Settle, record, log and send this.
    Decided(Box<Decision>),
    /// Send this.
    Negotiated(Negotiation),
    /// Nothing to say.
    Read,
    /// This SMTP session is over, another follows: give back what was held for it.
    Restart,
}

/// What a log line tells about: the client and the message it concerns.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The client.
    pub connection: &'a Connection,
    /// The message, if there is one.
    pub message: Option<&'a Message>,
    /// The recipient that was judged, or the only one.
    pub recipient: Option<&'a Recipient>,
    /// How many recipients were accepted.
    pub recipients: usize,
}

impl Session {
    /// A session under this policy, which it keeps to its end. `number` names it in logs and replies.
    #[must_use]
    pub fn new(policy: Arc<Policy>, number: u64, transport: Transport) -> Self {
        Self {
            policy,
            id: DecisionId { session: number, number: 0 },
            transport,
            taken: None,
            connected: false,
            connection: Connection::default(),
            standing: SessionStanding::default(),
            coming: None,
            read_by_mta: Vec::new(),
            transaction: None,
            finished: None,
            early_walk: None,
            candidate: None,
            refused_by_mta: false,
            owed: false,
            broken: false,
            overload: None,
            is_over: false,
        }
    }

    /// A session for which there is no room: at CONNECT the client is told to come again later, or the MTA that nobody looks
    /// at this one.
    #[must_use]
    pub fn overloaded(policy: Arc<Policy>, number: u64, transport: Transport, on_overload: OnError) -> Self {
        Self { overload: Some(on_overload), ..Self::new(policy, number, transport) }
    }

    /// Whether everything is said, so that the connection can be closed.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it is only there to be sent away.
    #[must_use]
    pub const fn is_overload(&self) -> bool {
        self.overload.is_some()
    }

    /// The session's name in logs.
    #[must_use]
    pub const fn id(&self) -> DecisionId {
        DecisionId { number: 0, ..self.id }
    }

    /// The policy it is judged by.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether a body may come in any pieces: each is only counted, and none is answered.
    #[must_use]
    pub fn takes_any_piece_of_a_body(&self) -> bool {
        self.taken.is_some_and(|taken| taken.steps.contains(Steps::NO_REPLY_BODY))
    }

    /// Whether a message is on its way.
    #[must_use]
    pub const fn has_message(&self) -> bool {
        self.transaction.is_some()
    }

    /// How much it keeps of what the MTA has sent, about: addresses and names are kept as they were written and as they are
    /// compared.
    #[must_use]
    pub fn octets(&self) -> usize {
        let Connection { client_name, helo, listener, .. } = &self.connection;
        let names = client_name.as_written().len() + helo.as_ref().map_or(0, |helo| helo.as_written().len());
        let of_session = 2 * names + length(listener.as_deref()) + self.read_by_mta.capacity();
        let of_message = self.transaction.as_deref().map_or(0, |transaction| {
            2 * transaction.recipient_octets
                + transaction.standing.recipients() * size_of::<Recipient>()
                + octets_of(&transaction.facts)
        });
        of_session
            + self.standing.octets()
            + self.coming.as_deref().map_or(0, |coming| octets_of(&coming.facts))
            + of_message
    }

    /// The last decision was told: what it was about is not kept until the next command, which may be hours away.
    pub fn forget(&mut self) {
        self.finished = None;
        self.candidate = None;
    }

    /// What the last decision was about.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        let transaction = self.transaction.as_deref().or(self.finished.as_deref());
        let only = || transaction.and_then(Transaction::only_recipient);
        Subject {
            connection: &self.connection,
            message: transaction.map(|transaction| &transaction.facts),
            recipient: self.candidate.as_ref().or_else(only),
            recipients: transaction.map_or(0, |transaction| transaction.standing.recipients()),
        }
    }

    /// The recipients that were accepted, of the message that the last decision was about.
    pub fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        let transaction = self.transaction.as_deref().or(self.finished.as_deref());
        transaction.into_iter().flat_map(|transaction| transaction.standing.accepted())
    }

    /// Ends a message that the next command silently replaces: Sendmail begins the next one with a bare MAIL, and some
    /// implementations without an ABORT. Called before [`Session::handle`], so that what was held for it is given back
    /// before the next one is judged.
    pub fn supersede(&mut self, command: &Command<'_>) -> Option<MessageEnd> {
        if matches!(command, Command::Mail(_) | Command::QuitNewConnection) { self.abandon() } else { None }
    }

    /// Ends the current message, if any: at ABORT, and when the connection is lost.
    pub fn abandon(&mut self) -> Option<MessageEnd> {
        self.early_walk = None;
        self.candidate = None;
        self.transaction.take().map(|transaction| transaction.end_without_message())
    }

    /// Takes one command.
    ///
    /// # Errors
    ///
    /// A command that cannot come now; the connection is of no use any more.
    pub fn handle(&mut self, command: Command<'_>) -> Result<Action, ProtocolError> {
        self.finished = None;
        let Some(taken) = self.taken else {
            return self.negotiate(command);
        };
        self.owed = command.wants_reply(taken.steps);
        if self.broken {
            return Ok(self.handle_broken(command));
        }
        match command {
            Command::Negotiate(_) => Err(ProtocolError::order("OPTNEG", "nothing but mail after the first one")),
            Command::Macros(macros) => {
                self.keep_macros(macros);
                Ok(Action::Read)
            }
            Command::Connect(connect) => self.connect(connect),
            Command::Helo(name) => self.helo(name),
            Command::Mail(envelope) => self.mail(envelope),
            Command::Recipient(envelope) => self.recipient(envelope),
            Command::Data => {
                self.open("DATA")?.seen_data = true;
                Ok(self.judge(Stage::Data))
            }
            Command::Header { name, value } => {
                let kept_space = taken.steps.contains(Steps::HEADER_LEADING_SPACE);
                self.open("HEADER")?.count_header(name, value, kept_space);
                Ok(self.unjudged())
            }
            Command::EndOfHeaders => {
                self.open("EOH")?.count_end_of_headers();
                Ok(self.unjudged())
            }
            Command::Body(data) => {
                self.open("BODY")?.count_body(data);
                Ok(self.unjudged())
            }
            Command::EndOfMessage(data) => self.end_of_message(data),
            Command::Unknown(_) => Ok(self.unjudged()),
            Command::Abort => Ok(self.abandon().map_or(Action::Read, Action::Aborted)),
            Command::Quit => Ok(Action::Close),
            Command::QuitNewConnection => Ok(self.restart()),
        }
    }

    /// Goes on with the answer to what was asked.
    pub fn answer(&mut self, query: Query, answer: Answer) -> Action {
        let Some(mut walk) = self.resume() else {
            return Action::Read;
        };
        walk.answer(query, answer, &mut self.standing);
        self.walk_on(walk)
    }

    /// A bug was met while this session was judged: the message is answered by `on_error`, and so is every later one.
    pub fn break_down(&mut self, command: &Command<'_>) -> Action {
        self.broken = true;
        drop(self.resume());
        let Some(taken) = self.taken else {
            return Action::Close;
        };
        self.owed = command.wants_reply(taken.steps);
        self.handle_broken(*command)
    }

    fn negotiate(&mut self, command: Command<'_>) -> Result<Action, ProtocolError> {
        let Command::Negotiate(offer) = command else {
            return Err(ProtocolError::order(command.name(), "OPTNEG first"));
        };
        if offer.version < MIN_VERSION {
            return Err(ProtocolError::Version { offered: offer.version });
        }
        let to_be_sent_away = Needs { answers_connect: true, ..Needs::default() };
        let needs = if self.is_overload() { &to_be_sent_away } else { self.policy.needs() };
        let negotiation = Negotiation::new(offer, needs, self.transport);
        self.taken = Some(negotiation.taken());
        Ok(Action::Negotiated(negotiation))
    }

    fn keep_macros(&mut self, macros: Macros<'_>) {
        self.read_by_mta.clear();
        self.refused_by_mta = false;
        let shows_refused = self.taken.is_some_and(|taken| taken.steps.contains(Steps::REFUSED_RECIPIENTS));
        if macros.command == b'M' {
            self.coming = None;
        }
        for (name, value) in macros.iter().filter(|(_, value)| !value.is_empty()) {
            match (macros.command, name) {
                (b'C', b"{daemon_name}") => self.connection.listener = Some(String::from_utf8_lossy(value).into()),
                (b'C', b"{daemon_port}") => self.connection.port = parse(value),
                (b'H', b"{tls_version}") => self.connection.tls = true,
                (b'M', b"{tls_version}") => self.coming().tls = true,
                (b'M', b"{auth_type}") => self.coming().authenticated = true,
                (b'M', b"{auth_authen}") => {
                    let coming = self.coming();
                    coming.authenticated = true;
                    coming.login = Some(String::from_utf8_lossy(value).to_lowercase().into());
                }
                (b'M', b"{mail_addr}") | (b'R', b"{rcpt_addr}") => self.read_by_mta.extend_from_slice(value),
                (b'R', b"{rcpt_mailer}") => self.refused_by_mta = shows_refused && value == b"error",
                (b'M', b"i") => self.coming().queue_id = Some(String::from_utf8_lossy(value).into()),
                (_, b"i") => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.name_queue(value);
                    }
                }
                _ => {}
            }
        }
    }

    fn coming(&mut self) -> &mut Message {
        &mut self.coming.get_or_insert_default().facts
    }

    /// Keeps a judgement until its question is answered.
    fn pause(&mut self, walk: Walk) {
        match &mut self.transaction {
            Some(transaction) => transaction.walk = Some(walk),
            None => self.early_walk = Some(Box::new(walk)),
        }
    }

    fn resume(&mut self) -> Option<Walk> {
        let early = self.early_walk.take().map(|walk| *walk);
        early.or_else(|| self.transaction.as_mut()?.walk.take())
    }

    fn connect(&mut self, connect: Connect<'_>) -> Result<Action, ProtocolError> {
        if self.connected {
            return Err(ProtocolError::order("CONNECT", "one CONNECT for each SMTP session"));
        }
        self.connected = true;
        let client = client_address(connect);
        self.connection.client = client;
        self.connection.client_name = client_name(connect.hostname);
        self.connection.local_submission = connect.port == 0 && client.is_some_and(|address| address.is_loopback());
        Ok(match self.overload {
            Some(on_overload) => self.send_away(on_overload),
            None => self.judge(Stage::Connect),
        })
    }

    fn helo(&mut self, name: &[u8]) -> Result<Action, ProtocolError> {
        self.expect_connect("HELO")?;
        self.connection.helo = Some(Name::of_host(name));
        Ok(self.judge(Stage::Helo))
    }

    fn mail(&mut self, envelope: Envelope<'_>) -> Result<Action, ProtocolError> {
        self.expect_connect("MAIL")?;
        self.id.number = self.id.number.wrapping_add(1);
        let mut transaction = self.coming.take().unwrap_or_default();
        transaction.facts.sender = self.address(envelope);
        transaction.facts.declared_size = declared_size(envelope);
        transaction.facts.tls |= self.connection.tls;
        self.transaction = Some(transaction);
        Ok(self.judge(Stage::Mail))
    }

    fn recipient(&mut self, envelope: Envelope<'_>) -> Result<Action, ProtocolError> {
        if std::mem::take(&mut self.refused_by_mta) {
            return self.recipient_refused_by_mta(envelope);
        }
        let address = self.address(envelope);
        let transaction = self.open("RCPT")?;
        transaction.seen_recipients += 1;
        transaction.recipient_octets += envelope.address.len();
        let is_too_much = transaction.recipient_octets > MAX_RECIPIENT_OCTETS;
        let position = transaction.standing.recipients() as u64 + 1;
        self.candidate = Some(Recipient { address, written: envelope.address.into(), position });
        if is_too_much || position > MAX_RECIPIENTS as u64 {
            let refusal = Refusal { rule: None, reply: Policy::too_many_recipients() };
            let walk = Walk::new(Stage::Rcpt, self.id);
            return Ok(self.refuse(walk, refusal));
        }
        Ok(self.judge(Stage::Rcpt))
    }

    /// It is shown because some limit counts such. It never was a recipient of the message, and our reply changes nothing.
    fn recipient_refused_by_mta(&mut self, envelope: Envelope<'_>) -> Result<Action, ProtocolError> {
        // {rcpt_addr} is the text of the MTA's refusal.
        self.read_by_mta.clear();
        let address = self.address(envelope);
        let transaction = self.open("RCPT")?;
        let position = transaction.standing.recipients() as u64 + 1;
        self.candidate = Some(Recipient { address, written: envelope.address.into(), position });
        Ok(self.count_refused())
    }

    fn address(&mut self, envelope: Envelope<'_>) -> Address {
        let read_by_mta = Some(self.read_by_mta.as_slice()).filter(|read| !read.is_empty());
        let address = Address::parse_with(envelope.address, read_by_mta);
        self.read_by_mta.clear();
        address
    }

    fn end_of_message(&mut self, data: &[u8]) -> Result<Action, ProtocolError> {
        let has_content = self.policy.needs().content;
        let transaction = self.open("BODYEOB")?;
        transaction.count_body(data);
        if has_content {
            transaction.facts.true_size = Some(transaction.size());
        }
        if let Some(refusal) = transaction.held_back.take() {
            let walk = Walk::new(Stage::EndOfMessage, self.id);
            return Ok(self.refuse(walk, refusal));
        }
        // Before version 4 the protocol has no DATA, and over a unix socket it is asked for only if it may be refused.
        let catches_up = !transaction.seen_data && !transaction.is_settled(Stage::EndOfMessage);
        if catches_up && self.policy.judges(Stage::Data) {
            return Ok(self.walk_on(Walk::catching_up(Stage::Data, self.id)));
        }
        Ok(self.judge(Stage::EndOfMessage))
    }

    /// QUIT_NC: libmilter keeps the connection and what was negotiated, and expects a new CONNECT.
    fn restart(&mut self) -> Action {
        let fresh = Self::new(Arc::clone(&self.policy), self.id.session, self.transport);
        *self = Self { taken: self.taken, id: self.id, ..fresh };
        Action::Restart
    }

    /// The current message.
    fn open(&mut self, command: &'static str) -> Result<&mut Transaction, ProtocolError> {
        self.candidate = None;
        self.transaction.as_deref_mut().ok_or_else(|| ProtocolError::order(command, "MAIL first"))
    }

    fn expect_connect(&mut self, command: &'static str) -> Result<(), ProtocolError> {
        self.candidate = None;
        if self.connected { Ok(()) } else { Err(ProtocolError::order(command, "CONNECT first")) }
    }

    /// The answer to a command that no rule looks at.
    fn unjudged(&self) -> Action {
        if self.owed { Action::Continue } else { Action::Read }
    }
}

fn octets_of(message: &Message) -> usize {
    2 * message.sender.as_written().len() + length(message.login.as_deref()) + length(message.queue_id.as_deref())
}

fn length(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}
