//! Steps of a limit: what follows from how far over it somebody is.
//!
//! A step that lets pass (`monitor`, `quarantine`) decides nothing: reading goes on below the rule, as under the limit, and
//! whoever is over it is exempt from nothing. So no rule below has to wait for it, and the stage at which it is judged
//! matters to nobody. What `quarantine` asks for is kept with the message and done at its end, if no rule has refused,
//! or discarded, it by then. A step that lets nothing through is a refusal like any other, spoken where the rule speaks.

use crate::config::Limit;
use crate::config::StepAction;

/// A step of a counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Level {
    /// In percent of the bounds.
    pub percent: u32,
    /// Whether what is above it passes all the same.
    pub passes: bool,
}

/// The steps of a counter, the lowest first; none: what is above the bounds does not pass.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Levels {
    levels: Vec<Level>,
    /// Whether what did not pass is counted on, up to the highest step.
    counts_refused: bool,
}

impl Levels {
    pub(super) fn new(limit: &Limit, counts_refused: bool) -> Self {
        let level = |step: &crate::config::Step| Level { percent: step.percent.value, passes: step.then.passes() };
        Self { levels: limit.steps.iter().map(level).collect(), counts_refused }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// In percent of the bounds, the lowest first; one at least.
    #[must_use]
    pub fn percents(&self) -> Vec<u32> {
        if self.is_empty() { vec![100] } else { self.levels.iter().map(|level| level.percent).collect() }
    }

    /// The first that lets nothing through; one more than there are if all let pass.
    #[must_use]
    pub fn blocking(&self) -> usize {
        self.levels.iter().position(|level| !level.passes).unwrap_or(self.levels.len())
    }

    /// The one above which nothing is counted any more: no other can be reached.
    #[must_use]
    pub fn ceiling(&self) -> usize {
        let last = self.levels.len().saturating_sub(1);
        if self.counts_refused { last } else { self.blocking().min(last) }
    }

    /// Whether what is at this step passes.
    #[must_use]
    pub fn passes(&self, step: usize) -> bool {
        step < self.blocking()
    }

    /// The part of the bounds, in percent, that has to be undershot for this step to be left: where nothing passes, that of
    /// the lowest such step.
    pub(super) fn bound(&self, step: usize) -> u32 {
        self.levels.get(step.min(self.blocking())).map_or(100, |level| level.percent)
    }

    /// The step itself, in percent; `None` if there are none.
    #[must_use]
    pub fn percent(&self, step: usize) -> Option<u32> {
        self.levels.get(step).map(|level| level.percent)
    }
}

/// What passes under a step, and what is done about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Passing {
    Monitor,
    Quarantine,
}

impl Passing {
    pub(super) const fn of(action: &StepAction) -> Option<Self> {
        match action {
            StepAction::Monitor => Some(Self::Monitor),
            StepAction::Quarantine => Some(Self::Quarantine),
            StepAction::Defer | StepAction::Refuse | StepAction::Reply(_) => None,
        }
    }
}

/// A step that puts a message on hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct HeldBy {
    pub(super) rule: usize,
    pub(super) percent: u32,
}

impl HeldBy {
    /// The one whose rule stands higher, and of one rule the higher step.
    pub(super) fn or_above(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let rank = |held: &Self| (std::cmp::Reverse(held.rule), held.percent);
        one.into_iter().chain(other).max_by_key(rank)
    }
}

/// A rule that has told of a match for a message or a recipient: it does not again, unless a step lets pass and another one
/// is passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mark {
    pub(super) rule: usize,
    /// `None`: it would have decided.
    pub(super) step: Option<usize>,
}

impl Mark {
    /// Whether nothing more is to be told.
    pub(super) fn is_among(self, marks: &[Self]) -> bool {
        marks.iter().any(|mark| mark.rule == self.rule && (mark.step.is_none() || mark.step == self.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(steps: &[(u32, bool)], counts_refused: bool) -> Levels {
        let levels = steps.iter().map(|&(percent, passes)| Level { percent, passes }).collect();
        Levels { levels, counts_refused }
    }

    #[test]
    fn without_steps_the_bound_is_the_end() {
        let none = Levels::default();
        assert_eq!((none.percents(), none.blocking(), none.ceiling()), (vec![100], 0, 0));
        assert_eq!((none.passes(0), none.bound(0), none.percent(0)), (false, 100, None));
    }

    #[test]
    fn what_passes_is_counted_up_to_the_first_step_that_lets_nothing_through() {
        let steps = [(100, true), (150, true), (200, false), (400, false)];
        let accepted = levels(&steps, false);
        assert_eq!((accepted.blocking(), accepted.ceiling()), (2, 2));
        assert_eq!([0, 1, 2, 3].map(|step| accepted.passes(step)), [true, true, false, false]);
        assert_eq!([0, 1, 2, 3].map(|step| accepted.bound(step)), [100, 150, 200, 200]);
        assert_eq!(levels(&steps, true).ceiling(), 3);
        let all_pass = levels(&steps[..2], false);
        assert_eq!((all_pass.blocking(), all_pass.ceiling()), (2, 1));
    }

    #[test]
    fn of_several_steps_that_hold_a_message_the_highest_rule_is_told() {
        let held = |rule, percent| Some(HeldBy { rule, percent });
        assert_eq!(HeldBy::or_above(held(2, 900), held(1, 150)), held(1, 150));
        assert_eq!(HeldBy::or_above(held(1, 150), held(1, 300)), held(1, 300));
        assert_eq!(HeldBy::or_above(None, held(1, 150)), held(1, 150));
    }
}
