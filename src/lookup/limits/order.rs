//! In what order the keys of one counter may be forgotten, within one shard.
//!
//! Idle keys are in a list by use, through their entries. Keys without room, refused or blocked ones are *pinned*: they
//! are in a set by the time at which that ends. What is held is in no list, since it is never forgotten.

use std::collections::BTreeSet;

use super::entry::Links;
use super::entry::NONE;
use super::entry::Tier;
use super::slab::Slab;

/// One counter's keys in one shard.
pub(super) struct Order {
    /// The idle key that was unused for longest, and the one that was used last.
    oldest: u32,
    newest: u32,
    /// Every pinned key, also if something is held for it.
    pinned: BTreeSet<(Tier, u64, u32)>,
    /// No idle key is worth looking at for expiry before this time.
    pub(super) due: u64,
}

impl Order {
    pub(super) const fn new() -> Self {
        Self { oldest: NONE, newest: NONE, pinned: BTreeSet::new(), due: 0 }
    }

    /// The idle key that was unused for longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        Some(self.oldest).filter(|slot| *slot != NONE)
    }

    /// Makes a key that is in no list the one used last.
    pub(super) fn append(&mut self, slab: &mut Slab, slot: u32) {
        if let Some(entry) = slab.get_mut(slot) {
            entry.links = Links { before: self.newest, after: NONE };
        }
        match slab.get_mut(self.newest) {
            Some(newest) => newest.links.after = slot,
            None => {
                self.oldest = slot;
                self.due = 0;
            }
        }
        self.newest = slot;
    }

    /// Takes a key out of the list, if it is in there.
    pub(super) fn unlink(&mut self, slab: &mut Slab, slot: u32) {
        let Some(entry) = slab.get_mut(slot).filter(|entry| entry.links != Links::OUT) else {
            return;
        };
        let Links { before, after } = std::mem::replace(&mut entry.links, Links::OUT);
        match slab.get_mut(before) {
            Some(neighbour) => neighbour.links.after = after,
            None => {
                self.oldest = after;
                self.due = 0;
            }
        }
        match slab.get_mut(after) {
            Some(neighbour) => neighbour.links.before = before,
            None => self.newest = before,
        }
    }

    pub(super) fn pin(&mut self, rank: (Tier, u64), slot: u32) {
        self.pinned.insert((rank.0, rank.1, slot));
    }

    pub(super) fn unpin(&mut self, rank: (Tier, u64), slot: u32) {
        self.pinned.remove(&(rank.0, rank.1, slot));
    }

    /// A key whose pin ends at `now` or before.
    pub(super) fn lapsed(&self, now: u64) -> Option<u32> {
        let first = |tier| self.pinned.range((tier, 0, 0)..).next();
        let ended = |(_, until, _): &&(Tier, u64, u32)| *until <= now;
        let found = [Tier::Full, Tier::Refused, Tier::Blocked].into_iter().filter_map(first).find(ended);
        found.map(|(_, _, slot)| *slot)
    }

    /// Pinned keys, those first that would have to go first.
    pub(super) fn pinned(&self) -> impl Iterator<Item = (Tier, u64, u32)> + '_ {
        self.pinned.iter().copied()
    }
}

#[cfg(test)]
impl Order {
    /// All idle keys, by use; their links are right in both directions.
    pub(super) fn idle(&self, slab: &Slab) -> Vec<u32> {
        let (mut all, mut before, mut next) = (Vec::new(), NONE, self.oldest);
        while let Some(entry) = slab.get(next) {
            assert_eq!(entry.links.before, before);
            all.push(next);
            (before, next) = (next, entry.links.after);
        }
        assert_eq!((before, next), (self.newest, NONE));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::Counter;
    use super::super::Counters;
    use super::super::Stats;
    use super::super::tests::*;

    #[test]
    fn a_full_table_evicts_what_was_idle_longest() {
        let day = || rates(&[rate(3, 1000 * SECOND)]);
        let counters = Counters::of(&[day(), day()], 3);
        assert_eq!(send(&counters, SECOND, b"a", 1), Ok(()));
        counters.commit(at(2 * SECOND), 1, b"b", 2);
        assert_eq!(send(&counters, 3 * SECOND, b"c", 1), Ok(()));
        assert_eq!(send(&counters, 4 * SECOND, b"a", 1), Ok(()));
        assert_eq!(send(&counters, 5 * SECOND, b"d", 1), Ok(())); // instead of b
        assert_eq!((counters.keys(), counters.evictions()), (3, 1));
        assert_eq!(send(&counters, 6 * SECOND, b"a", 2), refused(0, 2, 995 * SECOND));
        assert_eq!(counters.hold(at(7 * SECOND), 1, 0, b"b", 2), Ok(())); // instead of c
        assert_eq!((counters.keys(), counters.evictions()), (3, 2));
        assert_eq!(send(&counters, 8 * SECOND, b"d", 3), refused(0, 1, 997 * SECOND));
    }

    #[test]
    fn what_is_held_is_never_evicted() {
        let counters = Counters::of(&[rates(&[rate(1, 1000)])], 10);
        for key in 0..100u8 {
            assert_eq!(counters.hold(at(0), 0, 0, &[key], 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (100, 0));
        for key in 0..100u8 {
            assert_eq!(counters.hold(at(1), 0, 0, &[key], 1), refused(0, 1, None));
            counters.commit(at(1), 0, &[key], 1);
        }
        for key in 100..200u8 {
            assert_eq!(send(&counters, 2, &[key], 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (10, 190));
    }

    #[test]
    fn what_is_held_does_not_stand_in_the_way_of_evictions() {
        let counters = Counters::of(&[rates(&[rate(1, 1000)])], 10);
        for key in 0..9u8 {
            assert_eq!(counters.hold(at(0), 0, 0, &[key], 1), Ok(()));
        }
        for key in 9..50u8 {
            assert_eq!(send(&counters, u64::from(key), &[key], 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (10, 40));
    }

    #[test]
    fn max_keys_bounds_all_shards_together() {
        let counters = Counters::of(&[rates(&[rate(1, 1000)])], 10_000);
        assert_eq!(counters.shards.len(), 2);
        for key in 0..30_000u32 {
            assert_eq!(send(&counters, 0, &key.to_ne_bytes(), 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (10_000, 20_000));
    }

    #[test]
    fn keys_in_use_survive_a_flood_of_others() {
        let counters = Counters::of(&[rates(&[rate(1, 99_999 * SECOND)]), rates(&[rate(1, 99_999 * SECOND)])], 100);
        let used = || (0..50u8).map(|key| (usize::from(key % 2), [key]));
        used().for_each(|(counter, key)| counters.commit(at(0), counter, &key, 1));
        for flood in 1..10_000u64 {
            assert_eq!(send(&counters, flood * SECOND, &flood.to_ne_bytes(), 1), Ok(()));
            if flood % 40 == 0 {
                used().for_each(|(counter, key)| {
                    assert!(counters.hold(at(flood * SECOND), counter, 0, &key, 1).is_err())
                });
            }
        }
        assert_eq!((counters.keys(), counters.evictions()), (100, 9_949));
    }

    #[test]
    fn each_counter_has_a_bound_of_its_own() {
        let counter = |max_keys| Counter { max_keys, ..rates(&[rate(9, 1000)]) };
        let counters = Counters::of(&[counter(3), counter(100), counter(100)], 50);
        for key in 0..200u8 {
            (0..2).for_each(|counter| counters.commit(at(u64::from(key)), counter, &[key], 1));
        }
        let keys = |counter| counters.stats(counter).keys;
        assert_eq!((keys(0), keys(1), keys(2)), (3, 47, 0));
        assert_eq!(counters.stats(0).evictions, 197);
        for key in 0..50u8 {
            counters.commit(at(300), 2, &[key], 1);
        }
        assert_eq!((keys(0), keys(1), keys(2), counters.keys()), (0, 0, 50, 50), "the oldest of all counters");
    }

    /// A key that has used all of its budget would get another one.
    #[test]
    fn keys_without_room_survive_a_flood_of_new_ones() {
        let counters = Counters::of(&[rates(&[rate(2, 10_000)])], 10);
        assert_eq!(send(&counters, 0, b"full", 2), Ok(()));
        counters.block(at(0), 0, b"blocked", at(10_000));
        assert_eq!(send(&counters, 0, b"refused", 1), Ok(()));
        assert_eq!(send(&counters, 0, b"refused", 2), refused(0, 1, 10_000));
        assert_eq!(counters.stats(0), Stats { keys: 3, limited: 2, blocked: 1, evictions: 0 });
        for flood in 0..5000u64 {
            assert_eq!(send(&counters, flood, &flood.to_ne_bytes(), 1), Ok(()));
        }
        assert_eq!(send(&counters, 9999, b"full", 1), refused(0, 2, 1));
        assert_eq!(send(&counters, 9999, b"refused", 2), refused(0, 1, 1));
        assert!(counters.hold(at(9999), 0, 0, b"blocked", 1).is_err());
    }

    #[test]
    fn of_pinned_keys_those_never_refused_go_first_and_then_those_that_end_first() {
        let counters = Counters::of(&[rates(&[rate(1, 1000)])], 4);
        for (now, key) in [(0, b"a"), (1, b"b"), (2, b"c"), (3, b"d")] {
            assert_eq!(send(&counters, now, key, 1), Ok(()));
        }
        assert!(send(&counters, 4, b"a", 1).is_err() && send(&counters, 4, b"b", 1).is_err());
        let left = |gone: &[u8]| {
            (b'a'..=b'd')
                .filter(|key| counters.show(at(9), 0, &[*key]).is_some())
                .eq((b'a'..=b'd').filter(|key| !gone.contains(key)))
        };
        for (index, gone) in [&b"c"[..], b"cd", b"cda", b"cdab"].into_iter().enumerate() {
            counters.block(at(9), 0, &[u8::try_from(index).unwrap()], at(9999));
            assert!(left(gone), "{index}");
        }
    }

    #[test]
    fn a_key_that_has_room_again_can_be_spared_again() {
        let counters = one(rates(&[rate(2, 1000), rate(1, 10)]));
        assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
        assert_eq!(counters.stats(0).limited, 1);
        assert_eq!(counters.sweep(at(9), 10), 0);
        assert_eq!(counters.sweep(at(10), 10), 1);
        assert_eq!(counters.stats(0), Stats { keys: 1, limited: 0, blocked: 0, evictions: 0 });
        assert_eq!(send(&counters, 10, KEY, 1), Ok(()));
        assert_eq!(counters.show(at(10), 0, KEY).unwrap().retry_after, Some(at(990)));
    }
}
