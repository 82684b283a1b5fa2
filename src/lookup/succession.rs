//! How one configuration goes on with what another has counted: after a restart, or a reload.
//!
//! Counters are known by rule, measure and key, not by their place.

use std::fmt;
use std::time::Duration;

use crate::config::Charge;
use crate::config::Span;
use crate::policy::Counter;
use crate::policy::Measure;
use crate::policy::Policy;

/// What a counter counts, in words that mean the same to another configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// The rule's name.
    pub(super) rule: String,
    /// What is counted.
    pub(super) measure: String,
    /// Whose count.
    pub(super) key: String,
    /// The lengths of the rates' windows, in nanoseconds.
    pub(super) windows: Vec<u64>,
}

impl Label {
    /// Whether both count the same, for however long.
    pub(super) fn counts_the_same(&self, other: &Self) -> bool {
        (&self.rule, &self.measure, &self.key) == (&other.rule, &other.measure, &other.key)
    }

    /// How far back it counts.
    pub(super) fn longest(&self) -> u64 {
        self.windows.iter().copied().max().unwrap_or_default()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}`, {}", self.rule, self.measure)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, " by {}", self.key) }
    }
}

/// What becomes of a counter of another configuration.
pub(super) struct Heir {
    pub(super) label: Label,
    /// Which of ours goes on with it.
    pub(super) counter: Option<usize>,
    pub(super) keys: u64,
}

impl Heir {
    pub(super) fn of(label: Label, ours: &[Label]) -> Self {
        let counter = ours.iter().position(|our| our.counts_the_same(&label));
        Self { label, counter, keys: 0 }
    }

    /// What whoever changed the configuration may want to know.
    pub(super) fn note(&self, ours: &[Label]) -> Option<String> {
        let (label, keys) = (&self.label, self.keys);
        if keys == 0 {
            return None;
        }
        let Some(our) = self.counter.and_then(|counter| ours.get(counter)) else {
            return Some(format!("{label}: not in this configuration; dropped, keys: {keys}"));
        };
        if our.longest() <= label.longest() {
            return None;
        }
        let [now, before] = [our, label].map(|label| Span(Duration::from_nanos(label.longest())));
        Some(format!("{label}: now counted for {now}, and so far only for {before}"))
    }
}

fn label(counter: &Counter) -> Label {
    let key: Vec<_> = counter.key.iter().map(ToString::to_string).collect();
    let mut measure = counter.measure.name().to_owned();
    if counter.measure == Measure::Distinct {
        let of: Vec<_> = counter.of.iter().map(ToString::to_string).collect();
        measure = format!("{measure} {}", of.join(", "));
    }
    // What was accepted must not be taken for what was refused.
    match counter.charge {
        Charge::Accepted => {}
        Charge::Attempts | Charge::Refused => measure = format!("{measure} {}", counter.charge.name()),
    }
    let of_rates = counter.rows.iter().flat_map(|row| &row.rates).map(|rate| rate.per);
    let windows = of_rates.chain(counter.rows.iter().flat_map(|row| &row.shares).map(|share| share.per));
    Label { rule: counter.rule.clone(), measure, key: key.join(", "), windows: windows.map(nanos).collect() }
}

/// What each counter of a policy counts, by its number.
pub(super) fn labels(policy: &Policy) -> Vec<Label> {
    policy.counters().iter().map(label).collect()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
