//! Shares: how many of those who were tried were refused.
//!
//! Nothing is held: what becomes of a try is known soon, and only then both are charged together, with one date. A charge is
//! two counts in one number, so that the log of a key is what it is for amounts; sums of such are sums of both.

use std::time::Duration;

use super::Counters;
use super::bounds::Refusal;
use super::bounds::Refuser;
use super::bounds::nanos;
use super::bounds::thousandths;
use super::charges::Charges;
use super::inside;
use super::rules::Name;
use super::shard::Locked;
use crate::config::Share;

/// How many were tried, and how many of them were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    /// All.
    pub(crate) tried: u32,
    /// Those refused.
    pub(crate) refused: u32,
}

impl Tries {
    /// Of a sum of charges.
    #[expect(clippy::cast_possible_truncation, reason = "each count is one half")]
    pub(super) const fn of(charged: u64) -> Self {
        Self { tried: charged as u32, refused: (charged >> 32) as u32 }
    }

    const fn charge(self) -> u64 {
        (self.refused as u64) << 32 | self.tried as u64
    }

    /// In hundredths, rounded down.
    pub(crate) fn percent(self) -> u64 {
        (u64::from(self.refused) * 100).checked_div(self.tried.into()).unwrap_or(0)
    }

    fn is_over(self, share: &ShareBound) -> bool {
        let (tried, refused) = (u64::from(self.tried), u64::from(self.refused));
        tried >= share.least && refused * 100 > share.percent * tried
    }

    const fn without(self, other: Self) -> Self {
        let (tried, refused) = (self.tried.saturating_sub(other.tried), self.refused.saturating_sub(other.refused));
        Self { tried, refused }
    }
}

/// A [`Share`], in nanoseconds.
pub(super) struct ShareBound {
    percent: u64,
    least: u64,
    pub(super) per: u64,
}

impl ShareBound {
    pub(super) fn new(share: &Share) -> Self {
        Self { percent: share.percent, least: share.least.max(1), per: nanos(share.per).max(1) }
    }

    /// How much of the share is reached, in thousandths; nothing while too few were tried.
    pub(super) fn fullness(&self, charges: &Charges, now: u64) -> u64 {
        let tries = Tries::of(charges.charged(now, self.per));
        let (tried, refused) = (u64::from(tries.tried), u64::from(tries.refused));
        if tried < self.least { 0 } else { thousandths(refused * 100, self.percent * tried) }
    }

    /// Why nothing more may be tried, if so: it ends when enough of what was refused, or of all, has left the window.
    pub(super) fn refusal(&self, index: usize, charges: &Charges, now: u64) -> Option<Refusal> {
        let mut left = Tries::of(charges.charged(now, self.per));
        if !left.is_over(self) {
            return None;
        }
        let used = left.percent();
        let inside = charges.iter().filter(|(time, _)| now.saturating_sub(*time) < self.per);
        let mut until = now;
        for (time, charge) in inside {
            left = left.without(Tries::of(charge));
            until = time.saturating_add(self.per);
            if !left.is_over(self) {
                break;
            }
        }
        Some(Refusal::new(Refuser::Share(index), used, until))
    }
}

impl Counters {
    /// Charges one that was tried under this row, dated `now`, and whether it was refused.
    pub(crate) fn note(&self, now: Duration, counter: usize, row: usize, key: &[u8], is_refused: bool) {
        let rules = self.rules.load();
        let (mut shard, name) = self.shard(&rules, inside(now), counter, key);
        shard.note(&name, row, Tries { tried: 1, refused: is_refused.into() });
        self.changed();
    }
}

impl Locked<'_> {
    fn note(&mut self, name: &Name<'_>, row: usize, tries: Tries) {
        let (now, rules) = (self.shard.now, self.rules);
        let Some(rule) = rules.rule(name.counter).filter(|rule| rule.bounds.longest > 0) else {
            return;
        };
        let found = self.find(name);
        let slot = found.unwrap_or_else(|| self.insert(rule, name));
        self.lapse(slot);
        if let Some(entry) = self.entry(slot) {
            entry.set_row(row);
            entry.charges.forget(now, rule.bounds.longest);
            let before = Tries::of(entry.charges.charged(now, rule.bounds.longest));
            // Four thousand million in one window: the share is what it is.
            if before.tried < u32::MAX {
                entry.charges.charge(now, tries.charge(), rule.bounds.grain(row));
            }
        }
        self.judge(slot);
        self.place(slot);
        if found.is_none() {
            self.make_room(name.counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::By;
    use super::super::Counter;
    use super::super::Counts;
    use super::super::Cursor;
    use super::super::Exceeded;
    use super::super::Load;
    use super::super::Row;
    use super::super::tests::*;
    use super::*;

    fn shares(all: &[(u64, u64, u64)]) -> Counters {
        let share = |(percent, least, per): &(u64, u64, u64)| Share { percent: *percent, least: *least, per: at(*per) };
        let rows = vec![Row { shares: all.iter().map(share).collect(), ..Row::default() }, Row::default()];
        one(Counter { rows, max_keys: 1000, counts: Counts::Tries })
    }

    fn look(counters: &Counters, now: u64) -> Result<(), Exceeded> {
        counters.hold(at(now), 0, 0, KEY, Load::Try)
    }

    fn note(counters: &Counters, now: u64, is_refused: bool) {
        counters.note(at(now), 0, 0, KEY, is_refused);
    }

    fn over(share: usize, used: u64, retry_after: u64) -> Result<(), Exceeded> {
        Err(Exceeded { by: By::Share(share), step: 0, used, retry_after: Some(at(retry_after)) })
    }

    #[test]
    fn a_share_is_judged_of_enough_and_then_of_all() {
        let counters = shares(&[(50, 4, 100)]);
        for (now, is_refused) in [(0, true), (1, true), (2, true)] {
            note(&counters, now, is_refused);
            assert_eq!(look(&counters, now), Ok(()), "three are too few");
        }
        note(&counters, 3, false);
        assert_eq!(look(&counters, 3), over(0, 75, 97), "when the first has left there are three");
        note(&counters, 4, false);
        assert_eq!(look(&counters, 4), over(0, 60, 96));
        note(&counters, 5, false);
        assert_eq!(look(&counters, 5), Ok(()), "half is not more than half");
        note(&counters, 6, true);
        assert_eq!(look(&counters, 99), over(0, 57, 1));
        assert_eq!(look(&counters, 100), Ok(()));
    }

    #[test]
    fn each_share_has_a_window_of_its_own() {
        let counters = shares(&[(0, 1, 10), (20, 5, 100)]);
        for now in 0..8 {
            note(&counters, now, now < 2);
        }
        assert_eq!(look(&counters, 8), over(1, 25, 92), "which takes longer than the other");
        assert_eq!(look(&counters, 50), over(1, 25, 50));
        counters.reset(at(50), 0, KEY);
        note(&counters, 50, true);
        assert_eq!(look(&counters, 51), over(0, 100, 9));
    }

    /// A newsletter with a million recipients must not fill the memory.
    #[test]
    fn the_log_of_a_busy_key_is_bounded_and_never_dated_too_early() {
        let counters = shares(&[(30, 20, 100_000)]);
        for now in 0..50_000 {
            note(&counters, now, now % 5 == 0);
        }
        let charges = counters.export(at(50_000), &mut Cursor::default(), 10).remove(0).charges;
        assert!(charges.len() <= 1025, "{}", charges.len());
        let tries = counters.show(at(50_000), 0, KEY).unwrap().tries;
        assert_eq!(tries, [Tries { tried: 50_000, refused: 10_000 }]);
        assert_eq!(tries[0].percent(), 20);
    }

    /// A bound for a minute beside one for a month is judged by that minute.
    #[test]
    fn a_long_span_does_not_blur_a_short_one() {
        const MINUTE: u64 = 60_000_000_000;
        for long in [60, 1440, 2048] {
            for start in (0..8).map(|quarter| quarter * MINUTE / 4) {
                let counters = shares(&[(90, 5, MINUTE), (99, 1_000_000, long * MINUTE)]);
                (0..5).for_each(|second| note(&counters, start + second * MINUTE / 60, true));
                let later = start + MINUTE + MINUTE / 3;
                note(&counters, later, true);
                assert_eq!(look(&counters, later), Ok(()), "{long} minutes, from {start}");
            }
        }
    }

    #[test]
    fn tries_go_from_counters_to_counters() {
        let (old, new) = (shares(&[(30, 2, 100)]), shares(&[(30, 2, 100)]));
        note(&old, 0, true);
        note(&old, 0, false);
        note(&new, 10, false);
        old.export(at(20), &mut Cursor::default(), 10).into_iter().for_each(|record| new.import(at(20), record));
        let view = new.show(at(20), 0, KEY).unwrap();
        assert_eq!((view.charged, view.tries), (1, vec![Tries { tried: 3, refused: 1 }]));
        assert_eq!(look(&new, 20), over(0, 33, 80));
    }

    #[test]
    fn whose_row_has_no_share_is_counted_and_not_refused() {
        let counters = shares(&[(0, 1, 100)]);
        for now in 0..50 {
            assert_eq!(counters.hold(at(now), 0, 1, KEY, Load::Try), Ok(()));
            counters.note(at(now), 0, 1, KEY, true);
        }
        assert_eq!(counters.stats(0).limited, 0);
        assert_eq!(look(&counters, 50), over(0, 100, 99));
        assert_eq!(counters.stats(0).limited, 1);
    }

    #[test]
    fn while_a_key_is_blocked_nothing_may_be_tried() {
        let counters = shares(&[(50, 4, 100)]);
        counters.block(at(0), 0, KEY, at(9));
        assert!(matches!(look(&counters, 5), Err(Exceeded { by: By::Block(_), .. })));
        assert_eq!(look(&counters, 9), Ok(()));
        assert_eq!(counters.keys(), 0);
    }
}
