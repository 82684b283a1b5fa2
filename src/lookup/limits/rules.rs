//! What all shards share: the bounds of each counter, which shards its keys are in, and how many there are.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::Counter;
use super::Stats;
use super::bounds::Bounds;
use super::entry::Pin;

/// All counters.
pub(super) struct Rules {
    rules: Vec<Rule>,
    shards: usize,
    hasher: RandomState,
    /// Keys of all counters, and their bound.
    keys: AtomicUsize,
    max_keys: usize,
}

/// One counter.
pub(super) struct Rule {
    pub(super) bounds: Bounds,
    pub(super) tally: Tally,
    max_keys: usize,
    /// Its keys are in so many shards, from this one on.
    shards: usize,
    first: usize,
}

/// How many of a counter's keys there are in all shards.
#[derive(Default)]
pub(super) struct Tally {
    keys: AtomicUsize,
    limited: AtomicUsize,
    blocked: AtomicUsize,
    evictions: AtomicU64,
}

/// A key with its counter, and the part of its hash by which its shard finds it.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) counter: usize,
    pub(super) key: &'a [u8],
    pub(super) hash: u32,
}

impl Rules {
    /// A counter with few keys has them in few shards: in many, none of them could tell which is the oldest of all.
    pub(super) fn new(counters: &[Counter], max_keys: usize) -> Self {
        let shards = (max_keys / KEYS_PER_SHARD).clamp(1, MAX_SHARDS);
        let rule = |(index, counter): (usize, &Counter)| {
            let max_keys = counter.max_keys.min(max_keys);
            Rule {
                bounds: Bounds::new(counter),
                tally: Tally::default(),
                max_keys,
                shards: (max_keys / KEYS_PER_SHARD).clamp(1, shards),
                first: index.wrapping_mul(SPREAD) % shards,
            }
        };
        let rules = counters.iter().take(MAX_COUNTERS).enumerate().map(rule).collect();
        Self { rules, shards, hasher: RandomState::new(), keys: AtomicUsize::new(0), max_keys }
    }

    pub(super) const fn shards(&self) -> usize {
        self.shards
    }

    pub(super) const fn counters(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn get(&self, counter: usize) -> Option<&Rule> {
        self.rules.get(counter)
    }

    /// `None` for an index that `new` was not given, which bounds nothing.
    pub(super) fn rule(&self, counter: usize) -> Option<&Rule> {
        let rule = self.get(counter);
        debug_assert!(rule.is_some(), "there is no counter {counter}");
        rule
    }

    /// Where a key is: its shard, and its name in there.
    pub(super) fn locate<'a>(&self, counter: usize, key: &'a [u8]) -> (usize, Name<'a>) {
        let hash = self.hasher.hash_one((counter, key));
        let (first, shards) = self.rules.get(counter).map_or((0, 1), |rule| (rule.first, rule.shards));
        let number = usize::try_from(hash >> 32).unwrap_or_default();
        ((first + number % shards) % self.shards, Name { counter, key, hash: low_half(hash) })
    }

    pub(super) fn added(&self, rule: &Rule) {
        rule.tally.keys.fetch_add(1, Ordering::Relaxed);
        self.keys.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn removed(&self, rule: &Rule) {
        rule.tally.keys.fetch_sub(1, Ordering::Relaxed);
        self.keys.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether there are too many keys of all counters together.
    pub(super) fn is_over(&self) -> bool {
        self.keys() > self.max_keys
    }

    pub(super) fn evictions(&self) -> u64 {
        self.rules.iter().map(|rule| rule.tally.evictions.load(Ordering::Relaxed)).sum()
    }
}

impl Rule {
    /// Whether there are too many keys of this counter.
    pub(super) fn is_over(&self) -> bool {
        self.tally.keys.load(Ordering::Relaxed) > self.max_keys
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

    pub(super) fn evicted(&self) {
        self.evictions.fetch_add(1, Ordering::Relaxed);
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
