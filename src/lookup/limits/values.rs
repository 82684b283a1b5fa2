//! The different values that one key had, and when it last had each: "5 networks per hour".
//!
//! A value counts in a window if it was charged inside, or is held; however often, it is one. Only the date of its last
//! charge is kept: a value is in a window that ends now exactly if that date is. Values are numbers here, hashes of what they
//! stand for.
//!
//! All of it is in one row by date. So much as may be in a window is little, and a search along it costs less than an index
//! would; a key that nothing bounds keeps its newest values only.

/// The values of a key, by the date of their last charge; those never charged, only held, first.
#[derive(Clone, Debug, Default)]
pub(super) struct Values(Vec<Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    value: u64,
    /// When it was last charged, or [`NEVER_CHARGED`].
    time: u64,
    /// How often it is held.
    held: u32,
}

impl Values {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The date of the last charge.
    pub(super) fn last(&self) -> Option<u64> {
        self.0.last().map(|seen| seen.time).filter(|time| *time != NEVER_CHARGED)
    }

    /// How many are held.
    pub(super) fn held(&self) -> u64 {
        self.0.iter().filter(|seen| seen.held > 0).count() as u64
    }

    /// Whether a value counts in `(now - per, now]` already.
    pub(super) fn has(&self, value: u64, now: u64, per: u64) -> bool {
        let found = self.0.iter().find(|seen| seen.value == value);
        found.is_some_and(|seen| seen.held > 0 || seen.is_inside(now, per))
    }

    /// How many are dated inside `(now - per, now]`, without those that count because they are held.
    pub(super) fn charged(&self, now: u64, per: u64) -> u64 {
        self.charged_by_age().take_while(|seen| seen.is_inside(now, per)).count() as u64
    }

    /// The date of the value that has to leave a window before no more than `allowed` of those not held are in it, where now
    /// there are more.
    pub(super) fn last_beyond(&self, allowed: u64) -> Option<u64> {
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        self.charged_by_age().nth(allowed).map(|seen| seen.time)
    }

    pub(super) fn hold(&mut self, value: u64) {
        match self.0.iter_mut().find(|seen| seen.value == value) {
            Some(seen) => seen.held = seen.held.saturating_add(1),
            None => self.0.insert(0, Seen { value, time: NEVER_CHARGED, held: 1 }),
        }
    }

    /// What was never held is released without a trace.
    pub(super) fn release(&mut self, value: u64) {
        let Some(index) = self.0.iter().position(|seen| seen.value == value) else {
            return;
        };
        if let Some(seen) = self.0.get_mut(index) {
            seen.held = seen.held.saturating_sub(1);
            if seen.held == 0 && seen.time == NEVER_CHARGED {
                self.0.remove(index);
            }
        }
    }

    /// Turns one reservation of a value into its charge, dated `now`, which is not before the last one. Of those not held
    /// the newest `most` are kept.
    pub(super) fn charge(&mut self, value: u64, now: u64, most: usize) {
        let found = self.0.iter().position(|seen| seen.value == value);
        let held = found.map_or(0, |index| self.0.remove(index).held.saturating_sub(1));
        self.0.push(Seen { value, time: now.max(NEVER_CHARGED + 1), held });
        self.keep(most);
    }

    /// Drops what has left the longest window; what is held stays, without its date.
    pub(super) fn forget(&mut self, now: u64, longest: u64) {
        self.0.retain(|seen| seen.held > 0 || seen.is_inside(now, longest));
        let outside = self.0.iter_mut().take_while(|seen| !seen.is_inside(now, longest));
        outside.for_each(|seen| seen.time = NEVER_CHARGED);
        self.shrink();
    }

    /// Forgets all charges. What is held stays held.
    pub(super) fn reset(&mut self) {
        self.0.retain(|seen| seen.held > 0);
        self.0.iter_mut().for_each(|seen| seen.time = NEVER_CHARGED);
        self.shrink();
    }

    /// Dates and values, by date.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().filter(|seen| seen.time != NEVER_CHARGED).map(|seen| (seen.time, seen.value))
    }

    /// All charges of both, each value by its later one, and all that either holds.
    pub(super) fn merge(&mut self, other: &Self, most: usize) {
        for theirs in &other.0 {
            match self.0.iter_mut().find(|seen| seen.value == theirs.value) {
                Some(ours) => {
                    ours.time = ours.time.max(theirs.time);
                    ours.held = ours.held.saturating_add(theirs.held);
                }
                None => self.0.push(*theirs),
            }
        }
        self.0.sort_by_key(|seen| seen.time);
        self.keep(most);
    }

    /// Newest first, without those that are held.
    fn charged_by_age(&self) -> impl Iterator<Item = &Seen> + '_ {
        self.0.iter().rev().filter(|seen| seen.held == 0 && seen.time != NEVER_CHARGED)
    }

    /// Keeps the newest of those that are not held.
    fn keep(&mut self, most: usize) {
        let idle = self.0.iter().filter(|seen| seen.held == 0).count();
        let mut surplus = idle.saturating_sub(most);
        if surplus > 0 {
            self.0.retain(|seen| {
                let is_surplus = seen.held == 0 && surplus > 0;
                surplus -= usize::from(is_surplus);
                !is_surplus
            });
        }
    }

    /// Gives back the memory of a burst.
    fn shrink(&mut self) {
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
    }
}

/// What an import tells: dates and values in any order.
impl FromIterator<(u64, u64)> for Values {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(charges: T) -> Self {
        let seen = |(time, value): (u64, u64)| Seen { value, time: time.max(NEVER_CHARGED + 1), held: 0 };
        let mut all: Vec<Seen> = charges.into_iter().map(seen).collect();
        // Of each value the latest.
        all.sort_unstable_by_key(|seen| (seen.value, std::cmp::Reverse(seen.time)));
        all.dedup_by_key(|seen| seen.value);
        all.sort_by_key(|seen| seen.time);
        Self(all)
    }
}

impl Seen {
    const fn is_inside(&self, now: u64, per: u64) -> bool {
        self.time != NEVER_CHARGED && now.saturating_sub(self.time) < per
    }
}

/// Nothing else is dated so.
const NEVER_CHARGED: u64 = 0;

#[cfg(test)]
mod tests {
    use super::super::Counter;
    use super::super::Counters;
    use super::super::Counts;
    use super::super::Cursor;
    use super::super::Exceeded;
    use super::super::Load;
    use super::super::Row;
    use super::super::tests::*;
    use crate::config::Rate;

    fn distinct(rows: Vec<Row>) -> Counters {
        one(Counter { rows, max_keys: 1000, counts: Counts::Values })
    }

    fn rates(rates: &[Rate]) -> Counters {
        distinct(vec![row(rates)])
    }

    fn hold(counters: &Counters, now: u64, value: u64) -> Result<(), Exceeded> {
        counters.hold(at(now), 0, 0, KEY, Load::Value(value))
    }

    fn commit(counters: &Counters, now: u64, value: u64) {
        counters.commit(at(now), 0, KEY, Load::Value(value));
    }

    fn send(counters: &Counters, now: u64, value: u64) -> Result<(), Exceeded> {
        hold(counters, now, value)?;
        commit(counters, now, value);
        Ok(())
    }

    #[test]
    fn a_value_is_one_however_often_it_comes() {
        let counters = rates(&[rate(2, 100)]);
        for now in 0..50 {
            assert_eq!(send(&counters, now, 7), Ok(()));
        }
        assert_eq!(send(&counters, 50, 8), Ok(()));
        assert_eq!(send(&counters, 60, 9), refused(0, 2, 89), "49 was the last time of 7");
        assert_eq!(send(&counters, 148, 7), Ok(()), "it is inside still, and now for longer");
        assert_eq!(send(&counters, 149, 9), refused(0, 2, 1), "8 leaves next");
        assert_eq!(send(&counters, 150, 9), Ok(()));
    }

    #[test]
    fn each_window_has_values_of_its_own() {
        let counters = rates(&[rate(1, 10), rate(3, 1000)]);
        for (now, value) in [(0, 1), (10, 2), (20, 3)] {
            assert_eq!(send(&counters, now, value), Ok(()));
        }
        assert_eq!(send(&counters, 25, 1), refused(0, 1, 5), "in the long window, not in the short one");
        assert_eq!(send(&counters, 30, 1), Ok(()));
        assert_eq!(send(&counters, 50, 4), refused(1, 3, 960), "2 is the oldest now");
    }

    #[test]
    fn two_sessions_that_hold_the_same_value_hold_one() {
        let counters = rates(&[rate(2, 100)]);
        assert_eq!((hold(&counters, 0, 1), hold(&counters, 0, 1)), (Ok(()), Ok(())));
        assert_eq!(hold(&counters, 0, 2), Ok(()));
        assert_eq!(hold(&counters, 0, 3), refused(0, 2, None));
        let release = |value| counters.release(0, KEY, Load::Value(value));
        release(1);
        assert_eq!(hold(&counters, 0, 3), refused(0, 2, None), "the other one holds it still");
        release(1);
        assert_eq!(hold(&counters, 0, 3), Ok(()));
        release(3);
        release(2);
        assert_eq!(counters.keys(), 0);
    }

    /// Else, a session that waits long enough would bring a third value into a window of two.
    #[test]
    fn what_is_held_counts_though_its_date_has_passed() {
        let counters = rates(&[rate(1, 100)]);
        assert_eq!(send(&counters, 0, 1), Ok(()));
        assert_eq!(hold(&counters, 50, 1), Ok(()));
        assert_eq!(hold(&counters, 500, 2), refused(0, 1, None));
        counters.release(0, KEY, Load::Value(1));
        assert_eq!(hold(&counters, 500, 2), Ok(()));
    }

    #[test]
    fn a_reset_forgets_values_and_keeps_what_is_held() {
        let counters = rates(&[rate(2, 100)]);
        assert_eq!((send(&counters, 0, 1), send(&counters, 0, 2), hold(&counters, 1, 2)), (Ok(()), Ok(()), Ok(())));
        assert!(counters.reset(at(2), 0, KEY) && !counters.reset(at(2), 0, KEY));
        assert_eq!(send(&counters, 2, 3), Ok(()));
        assert_eq!(send(&counters, 2, 4), refused(0, 2, 100));
        counters.block(at(3), 0, KEY, at(9));
        assert!(hold(&counters, 4, 3).is_err(), "a block holds for known values, too");
        assert_eq!(hold(&counters, 9, 3), Ok(()));
    }

    /// An override of 0 forbids what was there before it, too.
    #[test]
    fn where_nothing_is_allowed_no_value_is_known() {
        let counters = distinct(vec![row(&[rate(2, 100)]), row(&[rate(0, 100)])]);
        assert_eq!(send(&counters, 0, 1), Ok(()));
        assert_eq!(counters.hold(at(1), 0, 1, KEY, Load::Value(1)), refused(0, 1, None));
    }

    #[test]
    fn a_key_without_limits_keeps_its_newest_values_only() {
        let counters = distinct(vec![row(&[rate(2, 100_000)]), Row::default()]);
        for value in 0..5000 {
            assert_eq!(counters.hold(at(value), 0, 1, KEY, Load::Value(value)), Ok(()));
            commit(&counters, value, value);
        }
        let charges = counters.export(at(5000), &mut Cursor::default(), 10).remove(0).charges;
        assert_eq!((charges.len(), charges.last()), (1000, Some(&(1, 4999))));
        assert_eq!(hold(&counters, 5000, 4999), Ok(()));
        assert_eq!(hold(&counters, 5000, 3), refused(0, 1000, 99_998), "when only the one that is held is left");
    }

    #[test]
    fn values_go_from_counters_to_counters() {
        let (old, new) = (rates(&[rate(3, 100)]), rates(&[rate(3, 100)]));
        for (now, value) in [(0, 1), (10, 2), (20, 1)] {
            assert_eq!(send(&old, now, value), Ok(()));
        }
        assert_eq!((send(&new, 5, 2), send(&new, 30, 3)), (Ok(()), Ok(())));
        for record in old.export(at(30), &mut Cursor::default(), 10) {
            assert_eq!(record.charges, [(20, 2), (10, 1)]);
            new.import(at(30), record);
        }
        let view = new.show(at(30), 0, KEY).unwrap();
        assert_eq!((view.charged, view.used, view.held), (3, vec![3], 0));
        assert_eq!(send(&new, 40, 4), refused(0, 3, 70), "2 goes first, which was seen last at 10");
    }
}
