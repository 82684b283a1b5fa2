//! What is told of a rule that held.

use crate::config::Mode;
use crate::facts::Exceeded;
use crate::facts::Key;
use crate::reply::Class;
use crate::reply::Reply;
use crate::reply::Status;

/// A rule that held, for metrics and logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Which.
    pub rule: usize,
    /// What follows from it, or would.
    pub action: MatchedAction,
    /// What it would say, if it is only watched.
    pub watched: Option<Reply>,
    /// Whether it does.
    pub mode: Mode,
    /// The list and the entry that matched, or the limit that was passed.
    pub detail: Option<String>,
    /// The recipient it held for, where it is about one.
    pub recipient: Option<String>,
    /// The step of its limit, in percent, if that has any.
    pub step: Option<u32>,
    /// How its limit was passed, where it has one.
    pub excess: Option<Box<Excess>>,
}

/// A limit that was passed, and by whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Excess {
    /// The policy's number of the counter.
    pub counter: usize,
    /// Whose count.
    pub key: Key,
    /// By how much, and until when.
    pub exceeded: Exceeded,
}

/// What follows from a match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MatchedAction {
    /// Everything below is skipped.
    Accept,
    /// A header field is added.
    AddHeader,
    /// The message is dropped.
    Discard,
    /// It passes, and reading goes on.
    Monitor,
    /// The message is put on hold.
    Quarantine,
    /// This reply is spoken.
    Refuse(Status),
}

impl MatchedAction {
    /// What a step of a limit does, in metrics and notifications.
    #[must_use]
    pub const fn step_name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::AddHeader => "add_header",
            Self::Discard => "discard",
            Self::Monitor => "monitor",
            Self::Quarantine => "quarantine",
            Self::Refuse(status) => match status.class() {
                Class::Permanent => "refuse",
                Class::Transient => "defer",
            },
        }
    }
}
