//! What was decided at one stage: recorded, then sent. Nothing else reaches the MTA.

use bytes::BytesMut;

use crate::config::Mode;
use crate::config::OnError;
use crate::facts::DecisionId;
use crate::facts::Stage;
use crate::policy::Match;
use crate::reply::Class;
use crate::reply::Reply;
use crate::wire::Actions;
use crate::wire::Response;

/// The outcome of one command.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What it is called in replies and logs.
    pub id: DecisionId,
    /// The stage at which it was made.
    pub stage: Stage,
    /// What the client is told.
    pub verdict: Verdict,
    /// The rule that decided, if one did.
    pub rule: Option<usize>,
    /// The step of its limit, in percent, that puts the message on hold.
    pub step: Option<u32>,
    /// Every rule that held, in order, those only watched included.
    pub matches: Vec<Match>,
    /// Whether the verdict is enforced.
    pub mode: Mode,
    /// In monitor mode: what would have been said.
    pub watched: Option<Reply>,
    /// A refusal that cannot be spoken here; it is, at the end of the message.
    pub held_back: bool,
    /// What becomes of what the limits hold.
    pub settlement: Settlement,
    /// What became of the message, if it ended here.
    pub message: Option<MessageEnd>,
    /// What became of the recipient, at RCPT.
    pub recipient: Option<RecipientEnd>,
    /// Header fields to add.
    pub headers: Vec<(String, String)>,
    /// Recipients to remove, as the client wrote them.
    pub delete: Vec<Box<[u8]>>,
    /// Whether the MTA waits for a reply.
    pub owed: bool,
    /// Something could not be judged, or not be done.
    pub failure: Option<Failure>,
}

/// What went wrong with a decision, and what `on_error` made of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What went wrong.
    pub cause: Cause,
    /// What became of that.
    pub outcome: OnError,
}

/// Why something could not be judged, or not be done.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cause {
    /// A bug of ours.
    Bug,
    /// A look-up failed, or took too long.
    LookUp,
    /// The MTA does not grant what it takes. Always deferred.
    NotGranted,
}

impl Cause {
    /// Every cause, by name.
    pub const ALL: [Self; 3] = [Self::Bug, Self::LookUp, Self::NotGranted];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bug => "bug",
            Self::LookUp => "lookup",
            Self::NotGranted => "not-granted",
        }
    }
}

/// What the client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The message is let through.
    Accept,
    /// Nothing against it so far.
    Continue,
    /// 250, and the message is dropped.
    Discard,
    /// 250, and the message is put on hold by the rule of this name.
    Quarantine(String),
    /// This.
    Refuse(Reply),
}

/// What becomes of what the limits hold for this message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// It is charged: the message was accepted.
    Commit,
    /// It stays.
    Keep,
    /// All of it is given back: the message is over.
    Release,
    /// As `Release`, and by a failure of ours: nothing is charged as refused.
    ReleaseUnjudged,
    /// What was reserved for this command is given back.
    RollBack,
    /// As `RollBack`, and by a failure of ours: nothing is charged as refused.
    RollBackUnjudged,
}

impl Settlement {
    /// The same, where what the client did was not judged.
    pub(super) const fn unjudged(self) -> Self {
        match self {
            Self::Release | Self::ReleaseUnjudged => Self::ReleaseUnjudged,
            Self::RollBack | Self::RollBackUnjudged => Self::RollBackUnjudged,
            Self::Commit | Self::Keep => self,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MessageEnd {
    /// The client gave up: RSET, QUIT, a lost connection.
    Aborted,
    /// Let through.
    Accepted,
    /// Refused with 4yz.
    Deferred,
    /// Dropped.
    Discarded,
    /// Put on hold.
    Quarantined,
    /// Refused with 5yz.
    Rejected,
}

impl MessageEnd {
    /// Every end, by name.
    pub const ALL: [Self; 6] =
        [Self::Aborted, Self::Accepted, Self::Deferred, Self::Discarded, Self::Quarantined, Self::Rejected];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Accepted => "accepted",
            Self::Deferred => "deferred",
            Self::Discarded => "discarded",
            Self::Quarantined => "quarantined",
            Self::Rejected => "rejected",
        }
    }

    pub(super) const fn refused(class: Class) -> Self {
        match class {
            Class::Permanent => Self::Rejected,
            Class::Transient => Self::Deferred,
        }
    }
}

/// What became of a recipient at RCPT.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RecipientEnd {
    /// Nothing against it.
    Accepted,
    /// Refused with 4yz.
    Deferred,
    /// Refused with 5yz.
    Rejected,
}

impl RecipientEnd {
    /// Every end, by name.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Deferred, Self::Rejected];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
        }
    }

    pub(super) const fn refused(class: Class) -> Self {
        match class {
            Class::Permanent => Self::Rejected,
            Class::Transient => Self::Deferred,
        }
    }
}

impl Decision {
    /// A decision against nothing.
    pub(super) const fn new(id: DecisionId, stage: Stage, owed: bool) -> Self {
        Self {
            id,
            stage,
            verdict: Verdict::Continue,
            rule: None,
            step: None,
            matches: Vec::new(),
            mode: Mode::Enforce,
            watched: None,
            held_back: false,
            settlement: Settlement::Keep,
            message: None,
            recipient: None,
            headers: Vec::new(),
            delete: Vec::new(),
            owed,
            failure: None,
        }
    }

    /// Whether there is anything to count or to keep: most only say that there is nothing against the client so far.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.verdict != Verdict::Continue
            || !self.matches.is_empty()
            || self.watched.is_some()
            || self.held_back
            || self.message.is_some()
    }

    /// Appends what the MTA is told: at the end of the message the changes first.
    pub fn encode(&self, out: &mut BytesMut) {
        if !self.owed {
            return;
        }
        for (name, value) in &self.headers {
            Response::AddHeader { name, value }.encode(out);
        }
        for recipient in &self.delete {
            Response::DeleteRecipient(recipient).encode(out);
        }
        match &self.verdict {
            // The MTA shows us nothing more of the session.
            Verdict::Accept if self.stage == Stage::Connect => Response::Accept.encode(out),
            Verdict::Accept | Verdict::Continue => Response::Continue.encode(out),
            Verdict::Discard => Response::Discard.encode(out),
            Verdict::Quarantine(rule) => {
                Response::Quarantine(&format!("rule {rule}")).encode(out);
                Response::Continue.encode(out);
            }
            // Sendmail looks for `421 ` there and goes on after `421-` (`milter_connect`, milter.c); no MTA shows the text.
            Verdict::Refuse(reply) if self.stage == Stage::Connect && reply.status().code() == 421 => {
                Response::Reply(&reply.first_line()).encode(out);
            }
            Verdict::Refuse(reply) => Response::Reply(reply).encode(out),
        }
    }

    /// The powers that sending it takes.
    pub(super) fn actions(&self) -> Actions {
        let mut actions = Actions::default();
        if !self.headers.is_empty() {
            actions |= Actions::ADD_HEADERS;
        }
        if !self.delete.is_empty() {
            actions |= Actions::DELETE_RECIPIENTS;
        }
        if matches!(self.verdict, Verdict::Quarantine(_)) {
            actions |= Actions::QUARANTINE;
        }
        actions
    }

    /// The MTA did not grant what it takes: the message waits until somebody has seen to it, and nothing opens silently.
    pub(super) fn cannot_be_done(&mut self, reply: Reply) {
        self.failure = Some(Failure { cause: Cause::NotGranted, outcome: OnError::Defer });
        self.headers.clear();
        self.delete.clear();
        self.message = Some(MessageEnd::refused(reply.status().class()));
        self.settlement = Settlement::ReleaseUnjudged;
        self.verdict = Verdict::Refuse(reply);
    }

    pub(super) fn accept(&mut self, rule: Option<usize>) {
        self.rule = rule.or(self.rule);
        self.verdict = Verdict::Accept;
        self.message = Some(MessageEnd::Accepted);
    }

    pub(super) fn discard(&mut self, rule: Option<usize>) {
        self.rule = rule;
        self.verdict = Verdict::Discard;
        self.message = Some(MessageEnd::Discarded);
    }

    pub(super) fn quarantine(&mut self, rule: usize, name: &str) {
        self.rule = Some(rule);
        self.verdict = Verdict::Quarantine(name.to_owned());
        self.message = Some(MessageEnd::Quarantined);
    }
}
