//! What all shards share: the bounds of each counter, which shards its keys are in, and how many there are.
//!
//! A policy's counters have *seats*: the numbers of their counters here, and of their rows of bounds. Another policy may go
//! on with a counter of the one before; while sessions of both live, each is judged by its own rows, over one count.
//! A counter that no policy uses any more is swept away.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::Counter;
use super::Stats;
use super::bounds::Bounds;
use super::charges::Charges;
use super::entry::Pin;
use super::fullness::Asked;
use super::fullness::Fullness;

/// All counters, as they are until a policy comes or goes.
#[derive(Clone)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    common: Arc<Common>,
}

/// What never changes, and what is counted of all counters.
struct Common {
    shards: usize,
    hasher: RandomState,
    /// Keys of all counters, and their bound.
    keys: AtomicUsize,
    max_keys: usize,
    evictions: AtomicU64,
}

/// One counter.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) bounds: Bounds,
    pub(super) tally: Arc<Tally>,
    max_keys: usize,
    /// Its keys are in so many shards, from this one on. Never changed while there are keys.
    shards: usize,
    first: usize,
    /// How many policies count with it.
    users: usize,
}

/// How many of a counter's keys there are in all shards, and how full they were.
#[derive(Default)]
pub(super) struct Tally {
    keys: AtomicUsize,
    limited: AtomicUsize,
    blocked: AtomicUsize,
    evictions: AtomicU64,
    asked: Asked,
}

/// A key with its counter, and the part of its hash by which its shard finds it.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) counter: usize,
    pub(super) key: &'a [u8],
    pub(super) hash: u32,
}

/// Where the counters of one policy are.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    seats: Vec<Seat>,
}

#[derive(Debug)]
struct Seat {
    counter: usize,
    /// By the policy's number of a row.
    rows: Vec<usize>,
}

/// What becomes of the rows of a counter that a new policy goes on with: for each that there was, the one for the same keys.
pub(super) type Heirs = HashMap<usize, Vec<usize>>;

impl Seats {
    /// The counter here of a policy's; one that does not exist for one that the policy does not have.
    pub(crate) fn counter(&self, counter: usize) -> usize {
        self.seats.get(counter).map_or(usize::MAX, |seat| seat.counter)
    }

    /// The row here of a policy's.
    pub(crate) fn row(&self, counter: usize, row: usize) -> usize {
        let seat = self.seats.get(counter);
        seat.and_then(|seat| seat.rows.get(row).or_else(|| seat.rows.first())).copied().unwrap_or_default()
    }

    /// The policy's number of a counter here.
    pub(crate) fn policy_counter(&self, counter: usize) -> Option<usize> {
        self.seats.iter().position(|seat| seat.counter == counter)
    }
}

impl Rules {
    /// No counters.
    pub(super) fn new(max_keys: usize) -> Self {
        let shards = (max_keys / KEYS_PER_SHARD).clamp(1, MAX_SHARDS);
        let (keys, evictions) = (AtomicUsize::new(0), AtomicU64::new(0));
        let common = Arc::new(Common { shards, hasher: RandomState::new(), keys, max_keys, evictions });
        Self { rules: Vec::new(), common }
    }

    /// Makes room for a policy's counters. Those that go on with one that there is already keep its keys.
    pub(super) fn seat(&mut self, counters: &[Counter], heirs: &[Option<usize>]) -> (Seats, Heirs) {
        let mut changed = Heirs::new();
        let mut seats = Seats::default();
        for (index, counter) in counters.iter().enumerate() {
            let heir = heirs.get(index).copied().flatten().filter(|heir| *heir < self.rules.len());
            let number = heir.unwrap_or_else(|| self.free(counter));
            let mut rows = Vec::new();
            let most = self.common.max_keys;
            if let Some(rule) = self.rules.get_mut(number) {
                let before = rule.bounds.names();
                rows = rule.bounds.seat(&counter.rows);
                rule.max_keys = counter.max_keys.min(most);
                rule.users += 1;
                if heir.is_some() {
                    changed.extend(rule.bounds.heirs(&before, &rows).map(|rows| (number, rows)));
                }
            }
            seats.seats.push(Seat { counter: number, rows });
        }
        (seats, changed)
    }

    /// A policy has gone.
    pub(super) fn leave(&mut self, seats: &Seats) {
        for seat in &seats.seats {
            if let Some(rule) = self.rules.get_mut(seat.counter) {
                rule.users = rule.users.saturating_sub(1);
                rule.bounds.leave(&seat.rows);
            }
        }
    }

    /// A counter without keys that nobody uses, or another one. A counter with few keys has them in few shards: in many,
    /// none of them could tell which is the oldest of all.
    fn free(&mut self, counter: &Counter) -> usize {
        let unused = |rule: &Rule| rule.users == 0 && rule.stats().keys == 0;
        let number = self.rules.iter().position(unused).unwrap_or(self.rules.len());
        let max_keys = counter.max_keys.min(self.common.max_keys);
        let rule = Rule {
            bounds: Bounds::new(counter.counts),
            tally: Arc::new(Tally::default()),
            max_keys,
            shards: (max_keys / KEYS_PER_SHARD).clamp(1, self.common.shards),
            first: number.wrapping_mul(SPREAD) % self.common.shards,
            users: 0,
        };
        match self.rules.get_mut(number) {
            Some(free) => *free = rule,
            None if number < MAX_COUNTERS => self.rules.push(rule),
            None => {}
        }
        number
    }

    pub(super) fn shards(&self) -> usize {
        self.common.shards
    }

    pub(super) const fn counters(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn get(&self, counter: usize) -> Option<&Rule> {
        self.rules.get(counter)
    }

    /// `None` for an index that `seat` has not given, which bounds nothing.
    pub(super) fn rule(&self, counter: usize) -> Option<&Rule> {
        let rule = self.get(counter);
        debug_assert!(rule.is_some(), "there is no counter {counter}");
        rule
    }

    /// The counters whose keys nobody needs any more.
    pub(super) fn abandoned(&self) -> impl Iterator<Item = usize> {
        let rules = self.rules.iter().enumerate();
        rules.filter(|(_, rule)| rule.users == 0 && rule.stats().keys > 0).map(|(number, _)| number)
    }

    /// Where a key is: its shard, and its name in there.
    pub(super) fn locate<'a>(&self, counter: usize, key: &'a [u8]) -> (usize, Name<'a>) {
        let Common { hasher, shards: all, .. } = &*self.common;
        let hash = hasher.hash_one((counter, key));
        let (first, shards) = self.rules.get(counter).map_or((0, 1), |rule| (rule.first, rule.shards));
        let number = usize::try_from(hash >> 32).unwrap_or_default();
        ((first + number % shards) % all, Name { counter, key, hash: low_half(hash) })
    }

    pub(super) fn added(&self, rule: &Rule) {
        rule.tally.keys.fetch_add(1, Ordering::Relaxed);
        self.common.keys.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn removed(&self, rule: &Rule) {
        rule.tally.keys.fetch_sub(1, Ordering::Relaxed);
        self.common.keys.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn evicted(&self, rule: &Rule) {
        rule.tally.evictions.fetch_add(1, Ordering::Relaxed);
        self.common.evictions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn keys(&self) -> usize {
        self.common.keys.load(Ordering::Relaxed)
    }

    /// Whether there are too many keys of all counters together.
    pub(super) fn is_over(&self) -> bool {
        self.keys() > self.common.max_keys
    }

    pub(super) fn evictions(&self) -> u64 {
        self.common.evictions.load(Ordering::Relaxed)
    }
}

impl Rule {
    /// Whether there are too many keys of this counter.
    pub(super) fn is_over(&self) -> bool {
        self.tally.keys.load(Ordering::Relaxed) > self.max_keys
    }

    /// A key was judged, and now has this.
    pub(super) fn asked(&self, row: usize, charges: &Charges, held: u64, now: u64) {
        if let Some(fullness) = self.bounds.fullness(row, charges, held, now) {
            self.tally.asked.observe(fullness);
        }
    }

    pub(super) fn fullness(&self) -> Fullness {
        self.tally.asked.so_far()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            keys: self.tally.keys.load(Ordering::Relaxed),
            limited: self.tally.limited.load(Ordering::Relaxed),
            blocked: self.tally.blocked.load(Ordering::Relaxed),
            evictions: self.tally.evictions.load(Ordering::Relaxed),
        }
    }
}

impl Tally {
    /// A key's pin is another one now.
    pub(super) fn changed(&self, before: &Pin, after: &Pin) {
        if let Some(count) = self.count(before) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(count) = self.count(after) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    const fn count(&self, pin: &Pin) -> Option<&AtomicUsize> {
        match pin {
            Pin::Blocked(_) => Some(&self.blocked),
            Pin::Free => None,
            Pin::Full(_) | Pin::Refused(_) => Some(&self.limited),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the other half has chosen the shard")]
const fn low_half(hash: u64) -> u32 {
    hash as u32
}

/// So many that an even hash fills no shard much before the others.
const KEYS_PER_SHARD: usize = 4096;
/// So many that ten million keys are few enough in each for its index to grow within a part of a millisecond.
const MAX_SHARDS: usize = 1024;
/// An entry says in 16 bits whose it is.
const MAX_COUNTERS: usize = 1 << 16;
/// Coprime to any number of shards that is a power of two, and to most others: counters with few keys start far apart.
const SPREAD: usize = 619;
