//! A compiled rule: tests, each at the stage where it is judged.

use std::sync::Arc;

use super::condition::Condition;
use super::gate::Admitted;
use super::gate::Gates;
use super::limit::Limit;
use super::step::Passing;
use crate::config::HeaderField;
use crate::config::Template;
use crate::facts::Exceeded;
use crate::reply::Status;

/// The tests of one stage, in the order of their rules, and which of them can hold when.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) tests: Vec<Test>,
    pub(crate) gates: Gates,
}

impl Plan {
    pub(crate) fn new(tests: Vec<Test>) -> Self {
        Self { gates: Gates::new(&tests), tests }
    }

    /// The first test from `from` on that can hold, and its number.
    pub(crate) fn next(&self, from: usize, admitted: &Admitted) -> Option<(usize, &Test)> {
        let number = self.gates.next(from, admitted)?;
        Some((number, self.tests.get(number)?))
    }
}

/// One judgement of one rule. A rule has several where it is judged more than once: on the declared size and on the true
/// one; for each thing that its limit counts.
#[derive(Debug)]
pub(crate) struct Test {
    /// The rule it belongs to; rules read top to bottom.
    pub(crate) rule: usize,
    /// Holds when `when` holds and `unless` does not.
    pub(crate) condition: Arc<Condition>,
    /// Then, whether there is no room left.
    pub(crate) limit: Option<Limit>,
    /// Whether it may differ between the recipients of one message.
    pub(crate) of_recipient: bool,
    /// What follows when it holds; with steps, each of them says it.
    pub(crate) outcome: Outcome,
    /// What follows at each step of its limit.
    pub(crate) steps: Arc<[Outcome]>,
    /// Whether it decides here, or only prepares what is decided later.
    pub(crate) purpose: Purpose,
    /// The bound on the size, for texts.
    pub(crate) size_bound: Option<u64>,
}

impl Test {
    /// What follows, at this step.
    pub(crate) fn outcome(&self, exceeded: Option<&Exceeded>) -> &Outcome {
        exceeded.and_then(|exceeded| self.steps.get(exceeded.step)).unwrap_or(&self.outcome)
    }

    /// All that may follow.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.steps.iter().chain(Some(&self.outcome).filter(|_| self.steps.is_empty()))
    }
}

/// What a test is judged for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// A connection is counted now; whether there was room is spoken later.
    Count,
    /// What follows from it, follows.
    Decide,
    /// It exempts from what is counted or answered at this early stage, and decides about the message again at MAIL.
    Exempt,
}

/// What follows when a test holds.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Accept,
    AddHeader(HeaderField),
    Discard,
    /// A step: it passes, and reading goes on.
    Pass(Passing),
    Quarantine,
    Refuse(Refuse),
}

impl Outcome {
    /// Whether the message is put on hold.
    pub(crate) const fn holds_message(&self) -> bool {
        match self {
            Self::Pass(Passing::Quarantine) | Self::Quarantine => true,
            Self::Accept | Self::AddHeader(_) | Self::Discard | Self::Pass(Passing::Monitor) | Self::Refuse(_) => false,
        }
    }
}

/// A refusal before its text is filled in.
#[derive(Clone, Debug)]
pub(crate) struct Refuse {
    pub(crate) status: Status,
    pub(crate) text: Template,
    /// Whether the text is the default one, which speaks of a bound.
    pub(crate) is_default: bool,
}
