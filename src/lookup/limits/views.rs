//! What administrators see of the counters: how many keys there are, single keys, all of them, those that use most.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::Block;
use super::Counters;
use super::Fullness;
use super::Row;
use super::entry::Entry;
use super::entry::Pin;
use super::inside;
use super::locked;
use super::rules::Rule;
use super::tries::Tries;

/// How many keys a counter has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// All that are kept.
    pub(crate) keys: usize,
    /// Those without room: for anything, or for what they last asked for.
    pub(crate) limited: usize,
    /// Those that are blocked.
    pub(crate) blocked: usize,
    /// How many were forgotten before their time, since the start.
    pub(crate) evictions: u64,
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Whose count.
    pub(crate) key: Vec<u8>,
    /// The row that it was last judged by.
    pub(crate) row: Arc<Row>,
    /// What is charged in the longest window of all rows; of tries, those refused.
    pub(crate) charged: u64,
    /// What is charged in the window of each rate of its row.
    pub(crate) used: Vec<u64>,
    /// What was tried in the window of each share of its row.
    pub(crate) tries: Vec<Tries>,
    /// What is reserved.
    pub(crate) held: u64,
    /// For how long there is no room for anything, or for what was last asked for.
    pub(crate) retry_after: Option<Duration>,
    /// The block that it is under.
    pub(crate) blocked: Option<Block>,
}

/// How far a walk over all keys has come. What is added meanwhile may be missed; what is there all the time never is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    shard: usize,
    slot: u32,
}

impl Counters {
    /// How many keys a counter has.
    pub(crate) fn stats(&self, counter: usize) -> Stats {
        self.rules.load().rule(counter).map_or_else(Stats::default, Rule::stats)
    }

    /// How full a counter was whenever it was asked.
    pub(crate) fn fullness(&self, counter: usize) -> Fullness {
        self.rules.load().rule(counter).map_or_else(Fullness::default, Rule::fullness)
    }

    /// One key, unless nothing is known of it.
    pub(crate) fn show(&self, now: Duration, counter: usize, key: &[u8]) -> Option<View> {
        let rules = self.rules.load();
        let (shard, name) = self.shard(&rules, inside(now), counter, key);
        let entry = shard.shard.slab.get(shard.find(&name)?)?;
        Some(view(entry, rules.rule(counter)?, shard.shard.now))
    }

    /// The next keys of a counter, in no order: `most`, or less at the end.
    pub(crate) fn list(&self, now: Duration, counter: usize, cursor: &mut Cursor, most: usize) -> Vec<View> {
        let look = |entry: &Entry, rule: &Rule, now: u64| {
            let is_meant = entry.counter() == counter;
            is_meant.then(|| view(entry, rule, now))
        };
        self.walk(inside(now), cursor, most, look)
    }

    /// The keys of a counter that have the most charged in its longest window, and held: those with the most first. Of keys
    /// with the same, any.
    pub(crate) fn top(&self, now: Duration, counter: usize, most: usize) -> Vec<View> {
        let (mut cursor, mut top) = (Cursor::default(), Vec::new());
        let mut least = 0;
        loop {
            let look = |entry: &Entry, rule: &Rule, now: u64| {
                let is_meant = entry.counter() == counter && used(entry, rule, now) > least;
                is_meant.then(|| view(entry, rule, now))
            };
            let found = self.walk(inside(now), &mut cursor, STRIDE, look);
            let is_last = found.len() < STRIDE;
            top.extend(found);
            top.sort_unstable_by(|one: &View, other| one.rank().cmp(&other.rank()));
            top.truncate(most);
            if is_last {
                return top;
            }
            least = top.last().filter(|_| top.len() == most).map_or(0, View::total);
        }
    }

    /// Looks at keys, some under each lock, until `most` were taken or all were seen.
    pub(super) fn walk<T>(
        &self,
        now: u64,
        cursor: &mut Cursor,
        most: usize,
        look: impl Fn(&Entry, &Rule, u64) -> Option<T>,
    ) -> Vec<T> {
        let rules = self.rules.load();
        let mut taken = Vec::new();
        while let Some(shard) = self.shards.get(cursor.shard).filter(|_| taken.len() < most) {
            taken.reserve(STRIDE.min(most - taken.len()));
            let locked = locked(&rules, shard, now);
            let (slab, now) = (&locked.shard.slab, locked.shard.now);
            for _ in 0..STRIDE {
                if cursor.slot >= slab.slots() {
                    *cursor = Cursor { shard: cursor.shard + 1, slot: 0 };
                    break;
                }
                if taken.len() == most {
                    break;
                }
                let entry = slab.get(cursor.slot);
                let rule = entry.and_then(|entry| rules.rule(entry.counter()));
                taken.extend(entry.zip(rule).and_then(|(entry, rule)| look(entry, rule, now)));
                cursor.slot += 1;
            }
        }
        taken
    }
}

impl View {
    const fn total(&self) -> u64 {
        self.charged.saturating_add(self.held)
    }

    fn rank(&self) -> (Reverse<u64>, &[u8]) {
        (Reverse(self.total()), &self.key)
    }
}

fn used(entry: &Entry, rule: &Rule, now: u64) -> u64 {
    rule.bounds.charged(&entry.charges, now).saturating_add(entry.held)
}

fn view(entry: &Entry, rule: &Rule, now: u64) -> View {
    let until = |until: u64| Some(Duration::from_nanos(until.saturating_sub(now))).filter(|left| !left.is_zero());
    let (retry_after, blocked) = match &entry.pin {
        Pin::Blocked(block) => {
            let age = Duration::from_nanos(now.saturating_sub(block.since));
            (None, until(block.until).map(|left| Block { age, left }))
        }
        Pin::Free => (None, None),
        Pin::Full(end) | Pin::Refused(end) => (until(*end), None),
    };
    View {
        key: entry.key.as_slice().to_vec(),
        row: rule.bounds.written(entry.row()),
        charged: rule.bounds.charged(&entry.charges, now),
        used: rule.bounds.used(entry.row(), &entry.charges, now),
        tries: rule.bounds.tries(entry.row(), &entry.charges, now),
        held: entry.held,
        retry_after,
        blocked,
    }
}

/// How many slots are looked at under one lock: a few dozen microseconds.
const STRIDE: usize = if cfg!(test) { 5 } else { 256 };

#[cfg(test)]
mod tests {
    use super::super::Counter;
    use super::super::Row;
    use super::super::tests::*;
    use super::*;

    #[test]
    fn a_key_is_shown_with_all_that_is_known_of_it() {
        let row = Row { rates: vec![rate(9, 10), rate(9, 100)], whose: Some("vip".into()), ..Row::default() };
        let counters = one(Counter { rows: vec![Row::default(), row.clone()], max_keys: 1000, ..Counter::default() });
        assert_eq!(counters.show(at(0), 0, KEY), None);
        for now in [0, 50, 95] {
            assert_eq!(counters.hold(at(now), 0, 1, KEY, 3), Ok(()));
            counters.commit(at(now), 0, KEY, 3);
        }
        let shown = |retry_after, blocked| {
            let (key, used) = (KEY.to_vec(), vec![3, 9]);
            Some(View {
                key,
                row: row.clone().into(),
                charged: 9,
                used,
                tries: Vec::new(),
                held: 0,
                retry_after,
                blocked,
            })
        };
        assert_eq!(counters.show(at(96), 0, KEY), shown(Some(at(4)), None));
        counters.block(at(97), 0, KEY, at(200));
        assert_eq!(counters.show(at(99), 0, KEY), shown(None, Some(Block { age: at(2), left: at(101) })));
        assert_eq!(counters.stats(0), Stats { keys: 1, limited: 0, blocked: 1, evictions: 0 });
    }

    #[test]
    fn what_is_held_is_shown() {
        let counters = one(concurrent(3));
        assert_eq!(counters.hold(at(0), 0, 0, KEY, 2), Ok(()));
        let view = counters.show(at(9), 0, KEY).unwrap();
        assert_eq!((view.held, view.charged, view.used), (2, 0, Vec::new()));
    }

    /// In many shards, and with keys of another counter among them.
    #[test]
    fn the_top_is_what_sorting_all_gives() {
        let counters = Counters::of(&[rates(&[rate(9999, 100)]), rates(&[rate(9999, 100)])], 20_000);
        for key in 0..300u64 {
            let amount = key * 7919 % 101;
            counters.commit(at(0), 0, &key.to_be_bytes(), amount);
            counters.commit(at(0), 1, &key.to_be_bytes(), 5000);
        }
        let mut all: Vec<_> = (0..300u64).map(|key| key * 7919 % 101).collect();
        all.sort_by_key(|amount| Reverse(*amount));
        for most in [1, 10, 200] {
            let top = counters.top(at(1), 0, most);
            assert!(top.iter().map(|view| view.charged).eq(all[..most].iter().copied()), "{top:?}");
        }
    }

    #[test]
    fn a_list_has_every_key_once() {
        let counters = Counters::of(&[rates(&[rate(9, 100)]), rates(&[rate(9, 100)])], 20_000);
        for key in 0..100u8 {
            counters.commit(at(0), usize::from(key % 2), &[key], 1);
        }
        for most in [1, 7, 1000] {
            let (mut cursor, mut listed) = (Cursor::default(), Vec::new());
            loop {
                let some = counters.list(at(1), 1, &mut cursor, most);
                assert!(some.len() <= most);
                listed.extend(some.iter().map(|view| view.key[0]));
                if some.len() < most {
                    break;
                }
            }
            listed.sort_unstable();
            assert_eq!(listed, (0..100).filter(|key| key % 2 == 1).collect::<Vec<u8>>());
        }
    }
}
