//! One lock's worth of keys: finding, adding and removing them, and keeping each where it belongs.
//!
//! Whatever a call changes about a key, it ends with [`Locked::place`], which alone decides where the key is from then
//! on: in the order of use, pinned, or forgotten.

use std::ops::Range;
use std::sync::MutexGuard;

use hashbrown::HashTable;

use super::bounds::NEVER;
use super::charges::Charges;
use super::entry::Blocked;
use super::entry::Entry;
use super::entry::Links;
use super::entry::Pin;
use super::entry::Tier;
use super::order::Order;
use super::rules::Name;
use super::rules::Rule;
use super::rules::Rules;
use super::slab::Slab;

/// The keys that share a lock. Times are nanoseconds.
#[derive(Default)]
pub(super) struct Shard {
    /// The newest time seen.
    pub(super) now: u64,
    index: HashTable<Indexed>,
    pub(super) slab: Slab,
    /// One for each counter.
    pub(super) orders: Vec<Order>,
    /// Whose turn it is to be swept, besides the counter in use.
    turn: usize,
    /// How many times a key went to the end of an order.
    uses: u32,
}

/// Where an entry is. Its hash is here, too, so that a growing index needs to look at no entry.
struct Indexed {
    hash: u32,
    slot: u32,
}

impl Shard {
    /// Makes room for so many counters.
    pub(super) fn grow(&mut self, counters: usize) {
        if counters > self.orders.len() {
            self.orders.resize_with(counters, Order::new);
        }
    }
}

/// A shard, locked, at a time.
pub(super) struct Locked<'a> {
    pub(super) rules: &'a Rules,
    pub(super) shard: MutexGuard<'a, Shard>,
}

impl<'a> Locked<'a> {
    /// Time does not go backwards: what is older than the newest that was seen counts as that.
    pub(super) fn at(rules: &'a Rules, mut shard: MutexGuard<'a, Shard>, now: u64) -> Self {
        shard.now = shard.now.max(now);
        Self { rules, shard }
    }

    pub(super) fn find(&self, name: &Name<'_>) -> Option<u32> {
        let is_same = |indexed: &Indexed| {
            let entry = || self.shard.slab.get(indexed.slot);
            indexed.hash == name.hash
                && entry().is_some_and(|entry| entry.key.as_slice() == name.key && entry.counter() == name.counter)
        };
        self.shard.index.find(spread(name.hash), is_same).map(|indexed| indexed.slot)
    }

    pub(super) fn entry(&mut self, slot: u32) -> Option<&mut Entry> {
        let entry = self.shard.slab.get_mut(slot);
        debug_assert!(entry.is_some(), "no entry in slot {slot}");
        entry
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, rule: &Rule, name: &Name<'_>) -> u32 {
        let counter = u16::try_from(name.counter).expect("there is a rule, and no more rules than that");
        let slot = self.shard.slab.insert(Entry::new(counter, name.key));
        let indexed = Indexed { hash: name.hash, slot };
        self.shard.index.insert_unique(spread(name.hash), indexed, |indexed| spread(indexed.hash));
        self.rules.added(rule);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.pin(slot, Pin::Free);
        self.unlink(slot);
        let Some(entry) = self.shard.slab.remove(slot) else {
            return;
        };
        let (_, name) = self.rules.locate(entry.counter(), entry.key.as_slice());
        if let Ok(found) = self.shard.index.find_entry(spread(name.hash), |indexed| indexed.slot == slot) {
            found.remove();
        }
        if let Some(rule) = self.rules.rule(entry.counter()) {
            self.rules.removed(rule);
        }
    }

    /// Puts a key where it belongs after something about it has changed. Unless it is held or pinned, this is its last
    /// use.
    pub(super) fn place(&mut self, slot: u32) {
        let now = self.shard.now;
        let (rules, Some(entry)) = (self.rules, self.entry(slot)) else {
            return;
        };
        let Some(rule) = rules.rule(entry.counter()) else {
            return;
        };
        let (counter, is_held, is_free) = (entry.counter(), entry.held > 0, entry.pin == Pin::Free);
        if is_free && !is_held && !is_alive(&entry.charges, now, rule) {
            self.remove(slot);
            return;
        }
        self.unlink(slot);
        if is_free && !is_held {
            self.shard.uses = self.shard.uses.wrapping_add(1);
            let Shard { slab, orders, uses, .. } = &mut *self.shard;
            if let Some(entry) = slab.get_mut(slot) {
                entry.used = *uses;
            }
            if let Some(order) = orders.get_mut(counter) {
                order.append(slab, slot);
            }
        }
    }

    /// Changes why a key must not be forgotten, and what is counted of that.
    pub(super) fn pin(&mut self, slot: u32, pin: Pin) {
        let (rules, Some(entry)) = (self.rules, self.entry(slot)) else {
            return;
        };
        if entry.pin == pin {
            return;
        }
        let (counter, rank) = (entry.counter(), pin.rank());
        let before = std::mem::replace(&mut entry.pin, pin.clone());
        if let Some(order) = self.shard.orders.get_mut(counter) {
            before.rank().into_iter().for_each(|rank| order.unpin(rank, slot));
            rank.into_iter().for_each(|rank| order.pin(rank, slot));
        }
        if let Some(rule) = rules.rule(counter) {
            rule.tally.changed(&before, &pin);
        }
    }

    /// Blocks a key from then until then; blocks that overlap are one.
    pub(super) fn pin_blocked(&mut self, slot: u32, block: Blocked) {
        let joined = match self.entry(slot).map(|entry| &entry.pin) {
            Some(Pin::Blocked(before)) => {
                Blocked { since: before.since.min(block.since), until: before.until.max(block.until) }
            }
            Some(Pin::Free | Pin::Full(_) | Pin::Refused(_)) | None => block,
        };
        self.pin(slot, Pin::Blocked(Box::new(joined)));
    }

    /// Ends a pin whose time is over.
    pub(super) fn lapse(&mut self, slot: u32) {
        let now = self.shard.now;
        let rank = self.entry(slot).and_then(|entry| entry.pin.rank());
        if rank.is_some_and(|(_, until)| until <= now) {
            self.pin(slot, Pin::Free);
            self.judge(slot);
        }
    }

    /// Finds out whether a key that nothing is held for has room for anything, unless there is more to say about it.
    pub(super) fn judge(&mut self, slot: u32) {
        let now = self.shard.now;
        let (rules, Some(entry)) = (self.rules, self.entry(slot)) else {
            return;
        };
        if entry.held > 0 || !matches!(entry.pin, Pin::Free | Pin::Full(_)) {
            return;
        }
        let rule = rules.rule(entry.counter());
        let full = rule.and_then(|rule| rule.bounds.full_until(entry.row(), &entry.charges, now));
        self.pin(slot, full.map_or(Pin::Free, Pin::Full));
    }

    /// Does a little of what time has left to do, for this counter and one other.
    pub(super) fn tidy(&mut self, counter: usize) {
        self.shard.turn = (self.shard.turn + 1) % self.shard.orders.len().max(1);
        for counter in [counter, self.shard.turn] {
            self.sweep(counter, SWEEP);
        }
    }

    /// The same for all counters, until about `most` keys were looked at; how many.
    pub(super) fn sweep_all(&mut self, most: usize) -> usize {
        let mut done = 0;
        for counter in 0..self.rules.counters() {
            done += self.sweep(counter, most.saturating_sub(done)) + self.make_room(counter);
        }
        done
    }

    /// Ends pins and forgets keys whose time is over, `most` of each; how many.
    pub(super) fn sweep(&mut self, counter: usize, most: usize) -> usize {
        let lapsed = (0..most).take_while(|_| self.lapse_next(counter)).count();
        lapsed + (0..most).take_while(|_| self.expire_next(counter)).count()
    }

    /// Forgets every key of a counter; how many.
    pub(super) fn clear(&mut self, counter: usize) -> usize {
        let slots = self.slots_of(counter);
        slots.iter().for_each(|slot| self.remove(*slot));
        slots.len()
    }

    /// Where the keys of a counter are.
    pub(super) fn slots_of(&self, counter: usize) -> Vec<u32> {
        let slab = &self.shard.slab;
        let is_meant = |slot: &u32| slab.get(*slot).is_some_and(|entry| entry.counter() == counter);
        (0..slab.slots()).filter(is_meant).collect()
    }

    fn lapse_next(&mut self, counter: usize) -> bool {
        let now = self.shard.now;
        let Some(slot) = self.shard.orders.get(counter).and_then(|order| order.lapsed(now)) else {
            return false;
        };
        self.lapse(slot);
        self.place(slot);
        true
    }

    fn expire_next(&mut self, counter: usize) -> bool {
        let (rules, Shard { now, slab, orders, .. }) = (self.rules, &mut *self.shard);
        let Some((order, rule)) = orders.get_mut(counter).zip(rules.rule(counter)) else {
            return false;
        };
        let Some(slot) = order.oldest().filter(|_| order.due <= *now) else {
            return false;
        };
        let last = slab.get(slot).and_then(|entry| entry.charges.last()).unwrap_or(0);
        if now.saturating_sub(last) < rule.bounds.longest {
            order.due = last.saturating_add(rule.bounds.longest);
            return false;
        }
        self.remove(slot);
        true
    }

    /// After one key was added. Tries twice, which also makes up for times when nothing could be evicted. Gives how many
    /// keys had to go.
    pub(super) fn make_room(&mut self, counter: usize) -> usize {
        let rules = self.rules;
        let is_over = || rules.rule(counter).is_some_and(Rule::is_over);
        let own = (0..2).filter(|_| is_over() && self.evict(counter..counter + 1)).count();
        own + (0..2).filter(|_| rules.is_over() && self.evict(0..rules.counters())).count()
    }

    /// Forgets the key of these counters that can best be spared, if there is one.
    fn evict(&mut self, counters: Range<usize>) -> bool {
        let victims = counters.filter_map(|counter| self.victim(counter).map(|(rank, slot)| (rank, slot, counter)));
        let Some((_, slot, counter)) = victims.min() else {
            return false;
        };
        self.remove(slot);
        if let Some(rule) = self.rules.rule(counter) {
            self.rules.evicted(rule);
        }
        true
    }

    /// The idle key unused for longest; else, of those pinned but not held, the one whose pin ends first. Gives up when
    /// many of them are held.
    fn victim(&self, counter: usize) -> Option<((Tier, u64), u32)> {
        let Shard { slab, orders, uses, .. } = &*self.shard;
        let order = orders.get(counter)?;
        if let Some(slot) = order.oldest() {
            let unused = uses.wrapping_sub(slab.get(slot)?.used);
            return Some(((Tier::Idle, NEVER - u64::from(unused)), slot));
        }
        let is_spare = |slot: u32| slab.get(slot).is_some_and(|entry| entry.held == 0);
        let mut pinned = order.pinned().take(EVICTION_SAMPLE);
        pinned.find(|(_, _, slot)| is_spare(*slot)).map(|(tier, until, slot)| ((tier, until), slot))
    }

    fn unlink(&mut self, slot: u32) {
        let Shard { slab, orders, .. } = &mut *self.shard;
        let linked = slab.get(slot).filter(|entry| entry.links != Links::OUT);
        if let Some(order) = linked.and_then(|entry| orders.get_mut(entry.counter())) {
            order.unlink(slab, slot);
        }
    }
}

/// Whether a charge is inside the longest window.
fn is_alive(charges: &Charges, now: u64, rule: &Rule) -> bool {
    charges.last().is_some_and(|last| now.saturating_sub(last) < rule.bounds.longest)
}

/// The table chooses buckets by the lowest bits, and tells their entries apart by the highest.
const fn spread(hash: u32) -> u64 {
    (hash as u64) << 32 | hash as u64
}

/// How many keys of a counter each call looks at. More than one, so that sweeping keeps ahead of adding.
const SWEEP: usize = 2;
/// How many pinned keys with something held an eviction passes over before it gives up.
const EVICTION_SAMPLE: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::Counters;
    use super::super::tests::*;

    #[test]
    fn a_key_is_kept_for_its_longest_window_and_then_swept() {
        let counters = one(rates(&[rate(9, 10), rate(9, 100)]));
        for key in 0..50u8 {
            assert_eq!(send(&counters, u64::from(key), &[key], 1), Ok(()));
        }
        assert_eq!(send(&counters, 99, KEY, 1), Ok(()));
        assert_eq!(counters.keys(), 51);
        for _ in 0..25 {
            counters.hold(at(149), 0, 0, KEY, 0).unwrap();
        }
        assert_eq!(counters.keys(), 1);
        assert_eq!(counters.evictions(), 0);
    }

    #[test]
    fn a_busy_counter_sweeps_for_the_others() {
        let day = || rates(&[rate(1, 10)]);
        let counters = Counters::of(&[day(), day(), concurrent(9)], 1000);
        for key in 0..10u8 {
            counters.hold(at(0), 1, 0, &[key], 1).unwrap();
            counters.commit(at(0), 1, &[key], 1);
        }
        for _ in 0..15 {
            counters.hold(at(10), 2, 0, KEY, 0).unwrap();
        }
        assert_eq!(counters.keys(), 0);
    }

    #[test]
    fn what_is_held_outlives_any_window() {
        let counters = one(rates(&[rate(1, 10)]));
        assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), Ok(()));
        for now in 0..1000 {
            assert_eq!(counters.hold(at(now), 0, 0, KEY, 1), refused(0, 1, None));
            counters.hold(at(now), 0, 0, b"other", 1).unwrap();
            counters.release(0, b"other", 1);
        }
        assert_eq!(counters.keys(), 1);
    }

    #[test]
    fn a_release_after_the_window_forgets_the_key() {
        let counters = one(rates(&[rate(2, 100)]));
        assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(50), 0, 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(100), 0, 0, b"other", 0), Ok(()));
        assert_eq!(counters.keys(), 1);
        counters.release(0, KEY, 1);
        assert_eq!(counters.keys(), 0);
    }

    #[test]
    fn a_sweep_does_what_nobody_asks_for() {
        let counters = Counters::of(&[rates(&[rate(1, 100)]), rates(&[rate(1, 50)])], 100_000);
        for key in 0..1000u32 {
            (0..2).for_each(|counter| counters.commit(at(0), counter, &key.to_ne_bytes(), 1));
        }
        assert_eq!(counters.sweep(at(49), 5000), 0);
        let mut swept = 0;
        while counters.sweep(at(50), 10) > 0 {
            swept += 1;
        }
        assert!((50..=200).contains(&swept), "{swept}");
        assert_eq!(counters.keys(), 1000);
        while counters.sweep(at(100), 1000) > 0 {}
        assert_eq!((counters.keys(), counters.evictions()), (0, 0));
    }
}
