//! Rules compiled into one plan per stage; facts in, verdicts out.
//!
//! Rules read top to bottom: the first that holds decides. They are judged as soon as their facts are known, in a way that
//! never gives another result; `compile.rs` says how rules come to their stages, `judge.rs` how a plan is walked, `gate.rs` what
//! of it is passed over. Nothing here waits: what has to be asked of the world outside is returned as a question.

mod compile;
mod condition;
mod defaults;
mod found;
mod gate;
mod index;
mod judge;
mod key;
mod limit;
mod lint;
mod list;
mod matched;
mod needs;
mod outline;
mod overrides;
mod plan;
mod standing;
mod step;
mod text;
mod walk;

pub use condition::Failure;
pub(crate) use judge::Case;
pub use judge::Refusal;
pub use judge::Step;
pub use key::KeyError;
pub use limit::Counter;
pub use limit::Measure;
pub use limit::Row;
pub use matched::Excess;
pub use matched::Match;
pub use matched::MatchedAction;
pub use needs::Needs;
pub use outline::Outline;
pub use outline::Outlines;
pub use outline::StepOutline;
pub use standing::Judgement;
pub use standing::MessageStanding;
pub use standing::SessionStanding;
pub use step::Level;
pub use step::Levels;
pub use walk::Lookups;
pub use walk::Walk;

use std::path::Path;
use std::path::PathBuf;

use crate::config::Mode;
use crate::config::OnError;
use crate::facts::Stage;
use crate::reply::Reply;
use crate::reply::Status;
use index::Index;
use list::List;
use plan::Outcome;
use plan::Plan;

/// The most recipients of one message that are kept; the next one is refused with 452 4.5.3. RFC 5321 §4.5.3.1.8 asks
/// for at least 100, Postfix stops at 1000 by default.
pub const MAX_RECIPIENTS: usize = 10_000;

/// The most octets of the addresses of one message's recipients that are kept, refused ones included. An address has at most
/// 254 (RFC 5321 §4.5.3.1.3), so that many recipients fit.
pub const MAX_RECIPIENT_OCTETS: usize = 4 << 20;

/// The most keys of one counter of connections that a session remembers and holds; a client makes more of them by one
/// EHLO name, or one sender, after another. The oldest gives way.
pub const MAX_SESSION_KEYS: usize = 64;

/// A policy in force.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    plans: Vec<Plan>,
    lists: Vec<List>,
    index: Index,
    counters: Vec<Counter>,
    paths: Vec<PathBuf>,
    outlines: Vec<Outline>,
    needs: Needs,
    mode: Mode,
    on_error: OnError,
    notifiers: Vec<String>,
}

/// What metrics and logs call a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it does: `accept`, `add_header`, `discard`, `quarantine`, `refuse`, or `steps`.
    pub action: &'static str,
    /// Whether it is enforced.
    pub mode: Mode,
    /// Who is told of keys that are over its limit.
    pub notify: Vec<String>,
    /// What the steps of its limit do, each once: `monitor`, `quarantine`, `defer`, `refuse`.
    pub steps: Vec<&'static str>,
}

impl Policy {
    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The lists that have a name, and how many entries each has.
    pub fn named_lists(&self) -> impl Iterator<Item = (&str, usize)> {
        self.lists.iter().filter(|list| !list.name.is_empty()).map(|list| (list.name.as_str(), list.len()))
    }

    /// The counters that limits ask, by number.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// The paths whose free space is asked, by number.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The names of all who can be told of something.
    #[must_use]
    pub fn notifiers(&self) -> &[String] {
        &self.notifiers
    }

    /// What to ask of the MTA.
    #[must_use]
    pub const fn needs(&self) -> &Needs {
        &self.needs
    }

    /// How each rule came to its stages, for people.
    #[must_use]
    pub fn outlines(&self) -> &[Outline] {
        &self.outlines
    }

    /// Whether anything is enforced at all.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// What happens to mail that cannot be judged.
    #[must_use]
    pub const fn on_error(&self) -> OnError {
        self.on_error
    }

    /// The reply for mail that cannot be judged.
    #[must_use]
    pub fn internal_error() -> Reply {
        Reply::new(defaults::INTERNAL_ERROR.status, defaults::INTERNAL_ERROR.text)
    }

    /// The reply to an address that is malformed; `None` for what is no fault of the client.
    #[must_use]
    pub fn malformed(failure: Failure) -> Option<Reply> {
        let default = match failure {
            Failure::LookUp => return None,
            Failure::Recipient => defaults::MALFORMED_RECIPIENT,
            Failure::Sender => defaults::MALFORMED_SENDER,
        };
        Some(Reply::new(default.status, default.text))
    }

    /// The reply to one recipient more than [`MAX_RECIPIENTS`].
    #[must_use]
    pub fn too_many_recipients() -> Reply {
        Reply::new(defaults::TOO_MANY_RECIPIENTS.status, defaults::TOO_MANY_RECIPIENTS.text)
    }

    /// The reply to a client for whose session there is no room.
    #[must_use]
    pub fn overloaded() -> Reply {
        Reply::new(defaults::OVERLOADED.status, defaults::OVERLOADED.text)
    }

    /// Every reply that this policy can give, with the stage at which it is spoken and the mode it is counted under.
    pub fn replies(&self) -> impl Iterator<Item = (Stage, Status, Mode)> {
        let tests = Stage::ALL
            .into_iter()
            .zip(&self.plans)
            .flat_map(|(stage, plan)| plan.tests.iter().map(move |t| (stage, t)));
        let outcomes = tests.flat_map(|(stage, test)| test.outcomes().map(move |outcome| (stage, test.rule, outcome)));
        let refusals = outcomes.filter_map(|(stage, rule, outcome)| match outcome {
            Outcome::Refuse(refuse) => Some((stage, refuse.status, self.mode_of(rule))),
            Outcome::Accept | Outcome::AddHeader(_) | Outcome::Discard | Outcome::Pass(_) | Outcome::Quarantine => None,
        });
        refusals.flat_map(|(stage, status, mode)| {
            let at_end = is_spoken_at_end(stage, mode).then_some((Stage::EndOfMessage, status, mode));
            std::iter::once((stage, status, mode)).chain(at_end)
        })
    }

    /// The mode that a rule's matches are counted under.
    #[must_use]
    pub fn mode_of(&self, rule: usize) -> Mode {
        match self.mode {
            Mode::Monitor => Mode::Monitor,
            Mode::Enforce => self.rules.get(rule).map_or(Mode::Enforce, |rule| rule.mode),
        }
    }

    /// Whether a rule is only watched.
    #[must_use]
    pub fn is_watched(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|rule| rule.mode == Mode::Monitor)
    }

    /// The name of a rule.
    #[must_use]
    pub fn rule_name(&self, rule: usize) -> &str {
        self.rules.get(rule).map_or("", |rule| &rule.name)
    }

    /// The path of `DiskFree(number)`.
    #[must_use]
    pub fn path(&self, number: usize) -> Option<&Path> {
        self.paths.get(number).map(PathBuf::as_path)
    }

    fn plan(&self, stage: Stage) -> Option<&Plan> {
        self.plans.get(stage as usize)
    }
}

/// Whether what is found at an earlier stage may be spoken at the end of the message: at RCPT, what local submission is
/// not told there; the plan of DATA, where the MTA never showed DATA.
const fn is_spoken_at_end(stage: Stage, mode: Mode) -> bool {
    match stage {
        Stage::Rcpt => matches!(mode, Mode::Enforce),
        Stage::Data => true,
        Stage::Connect | Stage::Helo | Stage::Mail => false,
        Stage::Header | Stage::EndOfHeaders | Stage::Body | Stage::EndOfMessage => false,
    }
}
