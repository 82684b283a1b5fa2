//! Policies come and go: their counters get seats, and leave them.

use std::sync::PoisonError;

use super::Counter;
use super::Counters;
use super::entry::Pin;
use super::locked;
use super::rules::Heirs;
use super::rules::Seats;
use super::shard::Locked;

impl Counters {
    /// Gives a policy's counters their seats. `heirs` says for each which counter of a policy before it goes on with, by the
    /// number that it has here: all that is charged, held and blocked stays, and counts for both. A key that had bounds of its own and
    /// has none under the new policy is shown under those of all, until somebody asks.
    ///
    /// Looks at every key if bounds have changed, few milliseconds under one lock.
    pub(crate) fn seat(&self, counters: &[Counter], heirs: &[Option<usize>]) -> Seats {
        let _one_at_a_time = self.seating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rules = (**self.rules.load()).clone();
        let (seats, changed) = rules.seat(counters, heirs);
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).grow(rules.counters());
        }
        self.rules.store(rules.into());
        self.hand_on(&changed);
        // What no policy has any more is to be forgotten by who keeps an export, too.
        self.changed();
        seats
    }

    /// A policy is used by nobody any more. What only it counted is forgotten in the next sweeps.
    pub(crate) fn leave(&self, seats: &Seats) {
        let _one_at_a_time = self.seating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rules = (**self.rules.load()).clone();
        rules.leave(seats);
        self.rules.store(rules.into());
    }

    fn hand_on(&self, changed: &Heirs) {
        if changed.is_empty() {
            return;
        }
        let rules = self.rules.load();
        for shard in &self.shards {
            let mut locked = locked(&rules, shard, 0);
            changed.iter().for_each(|(counter, rows)| locked.hand_on(*counter, rows));
        }
    }
}

#[cfg(test)]
impl Counters {
    /// The counters of a policy, by their index.
    pub(super) fn of(counters: &[Counter], max_keys: usize) -> Self {
        let all = Self::new(max_keys);
        all.seat(counters, &[]);
        all
    }
}

impl Locked<'_> {
    /// Gives every key its new row, and finds out anew which have room.
    fn hand_on(&mut self, counter: usize, rows: &[usize]) {
        if let Some(order) = self.shard.orders.get_mut(counter) {
            order.due = 0;
        }
        for slot in self.slots_of(counter) {
            let Some(entry) = self.entry(slot) else {
                continue;
            };
            if let Some(row) = rows.get(entry.row()) {
                entry.set_row(*row);
            }
            if matches!(entry.pin, Pin::Full(_) | Pin::Refused(_)) {
                self.pin(slot, Pin::Free);
                self.judge(slot);
                self.place(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Row;
    use super::super::tests::*;
    use super::*;

    fn named(bounds: &[(Option<&str>, u64)]) -> Counter {
        let row =
            |(whose, amount): &(Option<&str>, u64)| Row { whose: whose.map(Into::into), ..row(&[rate(*amount, 100)]) };
        Counter { rows: bounds.iter().map(row).collect(), max_keys: usize::MAX, ..Counter::default() }
    }

    #[test]
    fn another_policy_goes_on_with_what_was_counted() {
        let counters = Counters::new(1000);
        let old = counters.seat(&[rates(&[rate(5, 100)]), rates(&[rate(3, 100)])], &[]);
        for now in [1, 2] {
            assert_eq!(send(&counters, now, KEY, 1), Ok(()));
        }
        // In another place, and with other bounds.
        let new = counters.seat(&[concurrent(1), rates(&[rate(3, 100)])], &[None, Some(old.counter(0))]);
        assert_eq!((new.counter(1), new.counter(0)), (old.counter(0), 2));
        let hold = |seats: &Seats, counter| counters.hold(at(3), seats.counter(counter), seats.row(counter, 0), KEY, 1);
        assert_eq!(hold(&new, 1), Ok(()));
        assert_eq!(hold(&new, 1), refused(0, 3, 98));
        assert_eq!(hold(&old, 0), Ok(()), "its own bound is 5");
        counters.commit(at(3), old.counter(0), KEY, 2);
        assert_eq!(hold(&new, 1), refused(0, 4, 99), "both have counted");
    }

    #[test]
    fn what_no_policy_counts_is_forgotten_and_its_place_used_again() {
        let counters = Counters::new(100_000);
        let old = counters.seat(&[rates(&[rate(1, 1_000_000)])], &[]);
        for key in 0..3000u32 {
            counters.commit(at(0), 0, &key.to_ne_bytes(), 1);
            counters.block(at(0), 0, &key.to_ne_bytes(), at(u64::from(key)));
        }
        let new = counters.seat(&[rates(&[rate(1, 100)])], &[]);
        assert_eq!((old.counter(0), new.counter(0)), (0, 1));
        counters.leave(&old);
        while counters.sweep(at(1), 1000) > 0 {}
        assert_eq!(counters.keys(), 0);
        let third = counters.seat(&[rates(&[rate(1, 100)])], &[None]);
        assert_eq!((third.counter(0), counters.evictions()), (0, 0));
    }

    /// A thousand reloads must not grow anything.
    #[test]
    fn rows_and_places_are_used_again() {
        let counters = Counters::new(1000);
        let mut seats = counters.seat(&[named(&[(None, 1), (Some("vip"), 2)])], &[]);
        for round in 0..1000 {
            let bounds = named(&[(None, round), (Some("vip"), round + 1), (Some("new"), 7)]);
            let next = counters.seat(&[bounds, rates(&[rate(1, 100)])], &[Some(seats.counter(0))]);
            counters.leave(&seats);
            seats = next;
        }
        assert!(counters.rules.load().counters() <= 3);
        assert!(seats.row(0, 2) < 9, "{seats:?}");
    }

    #[test]
    fn a_key_keeps_the_row_of_its_name() {
        let counters = Counters::new(1000);
        let old = counters.seat(&[named(&[(None, 1), (Some("vip"), 1), (Some("gone"), 1)])], &[]);
        for (row, key) in [b"a", b"v", b"g"].into_iter().enumerate() {
            counters.hold(at(0), 0, old.row(0, row), key, 1).unwrap();
            counters.commit(at(0), 0, key, 1);
        }
        assert_eq!(counters.stats(0).limited, 3);
        counters.seat(&[named(&[(None, 2), (Some("first"), 1), (Some("vip"), 1)])], &[Some(0)]);
        let whose = |key| counters.show(at(1), 0, key).unwrap().row.whose.clone();
        assert_eq!((whose(b"a"), whose(b"v").as_deref(), whose(b"g")), (None, Some("vip"), None));
        assert_eq!(counters.stats(0).limited, 1, "only `vip` has no more room than before");
    }
}
