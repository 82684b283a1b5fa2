//! Conditions as they are judged: what is cheap first, lists by number, answers from outside where needed.

use super::found::Asked;
use super::found::Found;
use super::index::Hit;
use super::index::Index;
use super::list::List;
use crate::config::Comparison;
use crate::facts::Answer;
use crate::facts::Facts;
use crate::facts::Query;

/// A compiled condition.
#[derive(Debug)]
pub(crate) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Question(Question),
}

/// A compiled question. Lists are indices into the policy's.
#[derive(Debug)]
pub(crate) enum Question {
    Authenticated(bool),
    DiskFree {
        path: usize,
        below: u64,
    },
    /// Whether what is asked about is in one of these lists.
    InLists(Asked, Vec<usize>),
    Listener(Vec<String>),
    Port(Vec<u16>),
    Recipients(Comparison),
    SenderLoginMismatch(usize),
    Size(Comparison),
    Tls(bool),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Truth {
    /// How much is free on this path has to be asked first.
    Depends(usize),
    /// It cannot be known.
    Failed(Failure),
    No,
    Yes,
}

/// Why a rule cannot be judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// A look-up failed.
    LookUp,
    /// It asks about a recipient whose address is malformed.
    Recipient,
    /// It asks about a sender whose address is malformed.
    Sender,
}

/// Whether the sender is one that nobody can be sure of.
pub(crate) fn malformed_sender(facts: &Facts<'_>) -> Option<Failure> {
    facts.message.is_some_and(|message| message.sender.is_malformed()).then_some(Failure::Sender)
}

/// Whether the recipient is one that nobody can be sure of.
pub(crate) fn malformed_recipient(facts: &Facts<'_>) -> Option<Failure> {
    facts.recipient.is_some_and(|recipient| recipient.address.is_malformed()).then_some(Failure::Recipient)
}

/// What a condition is judged by.
pub(crate) struct Evidence<'a> {
    pub(crate) facts: Facts<'a>,
    pub(crate) lists: &'a [List],
    pub(crate) index: &'a Index,
    /// What was looked up so far.
    pub(crate) found: &'a mut Found,
    /// What was asked and answered so far.
    pub(crate) answers: &'a [(Query, Answer)],
}

impl Condition {
    /// Judges the condition; `hit` becomes the last list entry that matched.
    pub(crate) fn evaluate(&self, evidence: &mut Evidence<'_>, hit: &mut Option<Hit>) -> Truth {
        match self {
            Self::All(parts) => strongest(parts, evidence, hit, &Truth::No),
            Self::Any(parts) => strongest(parts, evidence, hit, &Truth::Yes),
            Self::Not(part) => match part.evaluate(evidence, &mut None) {
                Truth::No => Truth::Yes,
                Truth::Yes => Truth::No,
                open @ (Truth::Depends(_) | Truth::Failed(_)) => open,
            },
            Self::Question(question) => question.evaluate(evidence, hit),
        }
    }

    /// How much work it is to judge: a question with a smaller number is asked first.
    pub(crate) fn cost(&self) -> u32 {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::cost).sum(),
            Self::Not(part) => part.cost(),
            Self::Question(question) => question.cost(),
        }
    }
}

/// `All` is settled by the first No, `Any` by the first Yes; else an open part keeps it open.
fn strongest(parts: &[Condition], evidence: &mut Evidence<'_>, hit: &mut Option<Hit>, settles: &Truth) -> Truth {
    let mut result = if *settles == Truth::No { Truth::Yes } else { Truth::No };
    for part in parts {
        match part.evaluate(evidence, hit) {
            truth if truth == *settles => return truth,
            Truth::No | Truth::Yes => {}
            open @ Truth::Depends(_) if !matches!(result, Truth::Depends(_)) => result = open,
            failed @ Truth::Failed(_) if !matches!(result, Truth::Depends(_)) => result = failed,
            Truth::Depends(_) | Truth::Failed(_) => {}
        }
    }
    result
}

impl Question {
    /// Whether it asks about an address that is malformed: be it to refuse or to exempt, it could be deceived.
    fn malformed(&self, facts: &Facts<'_>) -> Option<Failure> {
        match self {
            Self::InLists(asked, _) => asked.malformed(facts),
            Self::SenderLoginMismatch(_) => malformed_sender(facts),
            Self::Authenticated(_)
            | Self::DiskFree { .. }
            | Self::Listener(_)
            | Self::Port(_)
            | Self::Recipients(_)
            | Self::Size(_)
            | Self::Tls(_) => None,
        }
    }

    /// A fact that is not known makes no question about it hold.
    fn evaluate(&self, evidence: &mut Evidence<'_>, hit: &mut Option<Hit>) -> Truth {
        if let Some(failure) = self.malformed(&evidence.facts) {
            return Truth::Failed(failure);
        }
        let Facts { connection, message, recipient } = evidence.facts;
        let holds = match self {
            Self::Authenticated(wanted) => message.is_some_and(|message| message.authenticated == *wanted),
            Self::DiskFree { path, below } => return disk_free(*path, *below, evidence.answers),
            Self::InLists(asked, lists) => {
                let matching = evidence.found.matching(*asked, &evidence.facts, evidence.index);
                let found = lists.iter().find_map(|list| evidence.index.hit(matching, *list));
                *hit = found.or(*hit);
                found.is_some()
            }
            Self::Listener(names) => {
                connection.listener.as_ref().is_some_and(|listener| names.iter().any(|name| **name == **listener))
            }
            Self::Port(ports) => connection.port.is_some_and(|port| ports.contains(&port)),
            Self::Recipients(comparison) => recipient.is_some_and(|recipient| comparison.holds(recipient.position)),
            Self::SenderLoginMismatch(list) => message.is_some_and(|message| {
                let list = evidence.lists.get(*list);
                let login = message.login.as_deref();
                login.is_some_and(|login| list.is_some_and(|list| !list.may_use(login, &message.sender)))
            }),
            Self::Size(comparison) => evidence.facts.size().is_some_and(|size| comparison.holds(size)),
            Self::Tls(wanted) => message.is_some_and(|message| message.tls == *wanted),
        };
        if holds { Truth::Yes } else { Truth::No }
    }

    const fn cost(&self) -> u32 {
        match self {
            Self::Authenticated(_) | Self::Port(_) | Self::Recipients(_) | Self::Size(_) | Self::Tls(_) => 1,
            Self::Listener(_) => 2,
            Self::InLists(Asked::Client, _) => 3,
            Self::InLists(_, _) | Self::SenderLoginMismatch(_) => 4,
            Self::DiskFree { .. } => 100,
        }
    }
}

fn disk_free(path: usize, below: u64, answers: &[(Query, Answer)]) -> Truth {
    let query = Query::DiskFree(path);
    match answers.iter().find(|(asked, _)| *asked == query) {
        None => Truth::Depends(path),
        Some((_, Answer::Bytes(free))) if *free < below => Truth::Yes,
        Some((_, Answer::Bytes(_))) => Truth::No,
        Some((_, Answer::Exceeded(_) | Answer::Failed | Answer::Within)) => Truth::Failed(Failure::LookUp),
    }
}
