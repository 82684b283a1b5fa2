//! Rate counters in memory, exact: what a limit like "100 per hour" has admitted, and what it has room for.
//!
//! An amount is *held* first, which only reserves it, and later *released* or *committed*; only a commit is dated.
//! Each key has a log of its commits, and every rate of a counter is judged from that one log: what is dated inside
//! `(now - per, now]`, plus all that is held, never passes the rate's amount. Since time only takes away from the
//! first part and a commit only moves between the two, that holds for every window of that length, wherever it begins.
//! Entries carry running totals, so that a window's sum is a subtraction, and both its beginning and the time at which
//! it has room again are binary searches: nothing is kept per rate, hence nothing can fall out of step.
//!
//! A key is forgotten once nothing is held and its last commit has left the longest window: at once where a call
//! notices, otherwise by sweeping a few keys in each `hold`. Under `max_keys` live keys nothing else is ever forgotten.
//!
//! Deliberately not here: a clock (callers say `now`), what a key is made of, what follows from a refusal, storage that
//! outlives the process or is shared between hosts.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crate::config::Rate;

/// What one counter allows: all of its bounds together, for each key separately.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    /// Bounds on what is committed within a time, plus what is held.
    pub(crate) rates: Vec<Rate>,
    /// Bound on what is held at the same time.
    pub(crate) concurrent: Option<u64>,
}

/// Which bound said no. Of several, the one that takes longest to give way, then the first (`concurrent` is last).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// Index in [`Counter::rates`]; `None` for `concurrent`.
    pub(crate) rate: Option<usize>,
    /// How much of that bound is used: committed inside the window, plus held.
    pub(crate) used: u64,
    /// When the same amount will fit, counted from the `now` of the call, if nothing else happens until then. `None`:
    /// never, unless something that is held is released or committed (or not even then, above the bound itself).
    pub(crate) retry_after: Option<Duration>,
}

/// All counters with all of their keys. Calls wait for one another only if their keys fall into the same shard.
///
/// `now` is the time since any fixed moment. Time does not go backwards: a `now` older than the newest that the key's
/// shard has seen counts as that newest.
pub(crate) struct Counters {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

impl Counters {
    /// Counters known by their index. Of all keys together at most `max_keys` are kept, or as many as have something
    /// held. The bound is split over the shards, so that large ones are reached a few percent early.
    pub(crate) fn new(counters: Vec<Counter>, max_keys: usize) -> Self {
        let bounds: Vec<_> = counters.iter().map(|counter| Arc::new(Bounds::new(counter))).collect();
        let count = (max_keys / KEYS_PER_SHARD).clamp(1, MAX_SHARDS);
        let shards = (0..count).map(|_| Mutex::new(Shard::new(&bounds, max_keys / count))).collect();
        Self { shards, hasher: RandomState::new() }
    }

    /// Reserves `amount` under every bound of the counter, or under none. Nothing (0) always fits.
    pub(crate) fn hold(&self, now: Duration, counter: usize, key: &[u8], amount: u64) -> Result<(), Exceeded> {
        let asked = nanos(now);
        self.shard(counter, key).hold(asked, counter, key, amount).map_err(|refusal| refusal.seen_from(asked))
    }

    /// Gives back `amount` of what is held.
    pub(crate) fn release(&self, counter: usize, key: &[u8], amount: u64) {
        self.shard(counter, key).release(counter, key, amount);
    }

    /// Turns `amount` of what is held into a charge dated `now`; what was never held is charged all the same.
    pub(crate) fn commit(&self, now: Duration, counter: usize, key: &[u8], amount: u64) {
        self.shard(counter, key).commit(nanos(now), counter, key, amount);
    }

    /// How many keys are kept, of all counters.
    pub(crate) fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).keys()).sum()
    }

    /// How many keys were forgotten before their time, to stay below `max_keys`.
    pub(crate) fn evictions(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).evictions).sum()
    }

    fn shard(&self, counter: usize, key: &[u8]) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one((counter, key));
        let index = usize::try_from(hash % self.shards.len() as u64);
        let shard = index.ok().and_then(|index| self.shards.get(index));
        lock(shard.expect("a remainder is below the length, and `new` makes at least one shard"))
    }
}

/// One lock's worth of keys. Times in here are nanoseconds, which last for 584 years.
struct Shard {
    /// The newest time seen.
    now: u64,
    /// One for each counter.
    tables: Vec<Table>,
    /// Whose turn it is to be swept, besides the table in use.
    turn: usize,
    max_keys: usize,
    evictions: u64,
}

impl Shard {
    fn new(bounds: &[Arc<Bounds>], max_keys: usize) -> Self {
        let tables = bounds.iter().map(|bounds| Table::new(Arc::clone(bounds))).collect();
        Self { now: 0, tables, turn: 0, max_keys, evictions: 0 }
    }

    fn hold(&mut self, asked: u64, counter: usize, key: &[u8], amount: u64) -> Result<(), Refusal> {
        self.now = self.now.max(asked);
        self.sweep(counter);
        let now = self.now;
        if self.table(counter).map_or(Ok(false), |table| table.hold(now, key, amount))? {
            self.make_room();
        }
        Ok(())
    }

    fn release(&mut self, counter: usize, key: &[u8], amount: u64) {
        let now = self.now;
        if let Some(table) = self.table(counter) {
            table.release(now, key, amount);
        }
    }

    fn commit(&mut self, asked: u64, counter: usize, key: &[u8], amount: u64) {
        self.now = self.now.max(asked);
        let now = self.now;
        if self.table(counter).is_some_and(|table| table.commit(now, key, amount)) {
            self.make_room();
        }
    }

    /// `None` for an index that `new` was not given, which bounds nothing.
    fn table(&mut self, counter: usize) -> Option<&mut Table> {
        let table = self.tables.get_mut(counter);
        debug_assert!(table.is_some(), "there is no counter {counter}");
        table
    }

    fn keys(&self) -> usize {
        self.tables.iter().map(|table| table.keys.len()).sum()
    }

    /// Forgets a few keys whose time is over: here, and wherever it may be that nobody asks any more.
    fn sweep(&mut self, counter: usize) {
        self.turn = (self.turn + 1) % self.tables.len().max(1);
        for index in [counter, self.turn] {
            if let Some(table) = self.tables.get_mut(index) {
                table.sweep(self.now);
            }
        }
    }

    /// After one key was added. Tries twice, which also makes up for times when nothing could be evicted.
    fn make_room(&mut self) {
        for _ in 0..2 {
            if self.keys() > self.max_keys {
                self.evict();
            }
        }
    }

    /// Forgets the key that was unused for longest, of all counters.
    fn evict(&mut self) {
        let first = |table: &Table| table.queue.first().map_or(NEVER, |(queued, _)| *queued);
        let table = self.tables.iter_mut().min_by_key(|table| first(table));
        if table.is_some_and(|table| table.evict(self.now)) {
            self.evictions += 1;
        }
    }
}

/// One counter's keys in one shard.
struct Table {
    bounds: Arc<Bounds>,
    keys: HashMap<Arc<[u8]>, Usage>,
    /// Every key once, with its [`Usage::queued`]: those unused for longest are first.
    queue: BTreeSet<(u64, Arc<[u8]>)>,
}

impl Table {
    fn new(bounds: Arc<Bounds>) -> Self {
        Self { bounds, keys: HashMap::new(), queue: BTreeSet::new() }
    }

    /// Whether a key was added.
    fn hold(&mut self, now: u64, key: &[u8], amount: u64) -> Result<bool, Refusal> {
        if amount == 0 {
            return Ok(false);
        }
        let Some(usage) = self.keys.get_mut(key) else {
            let mut usage = Usage::new(now);
            self.bounds.check(&usage, now, amount)?;
            usage.held = amount;
            self.insert(key, usage);
            return Ok(true);
        };
        usage.forget(now, self.bounds.longest);
        let verdict = self.bounds.check(usage, now, amount);
        if verdict.is_ok() {
            usage.held = usage.held.saturating_add(amount);
        }
        match usage.kept_by(now, self.bounds.longest) {
            Some(_) if now.saturating_sub(usage.queued) >= QUEUE_PRECISION => self.requeue(now, key),
            Some(_) => {}
            None => self.remove(key),
        }
        verdict.map(|()| false)
    }

    fn release(&mut self, now: u64, key: &[u8], amount: u64) {
        let Some(usage) = self.keys.get_mut(key) else {
            return;
        };
        usage.held = usage.held.saturating_sub(amount);
        if usage.kept_by(now, self.bounds.longest).is_none() {
            self.remove(key);
        }
    }

    /// Whether a key was added.
    fn commit(&mut self, now: u64, key: &[u8], amount: u64) -> bool {
        if self.bounds.rates.is_empty() {
            self.release(now, key, amount);
            return false;
        }
        if amount == 0 {
            return false;
        }
        let Some(usage) = self.keys.get_mut(key) else {
            let mut usage = Usage::new(now);
            usage.charge(now, amount);
            self.insert(key, usage);
            return true;
        };
        usage.held = usage.held.saturating_sub(amount);
        usage.forget(now, self.bounds.longest);
        usage.charge(now, amount);
        false
    }

    fn insert(&mut self, key: &[u8], usage: Usage) {
        let key: Arc<[u8]> = key.into();
        self.queue.insert((usage.queued, Arc::clone(&key)));
        self.keys.insert(key, usage);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, usage)) = self.keys.remove_entry(key) {
            self.queue.remove(&(usage.queued, key));
        }
    }

    /// Forgets keys whose time is over, looking at few. Without rates there are none: such keys go with the last thing
    /// held.
    fn sweep(&mut self, now: u64) {
        let longest = self.bounds.longest;
        for _ in 0..SWEEP {
            let due = |(queued, _): &&(u64, Arc<[u8]>)| longest > 0 && now.saturating_sub(*queued) >= longest;
            let Some((_, key)) = self.queue.first().filter(due) else {
                return;
            };
            let key = Arc::clone(key);
            match self.keys.get(&key).and_then(|usage| usage.kept_by(now, longest)) {
                Some(time) => self.requeue(time, &key),
                None => self.remove(&key),
            }
        }
    }

    /// Forgets the first key in the queue that has nothing held, unless too many before it have; they go to the end.
    fn evict(&mut self, now: u64) -> bool {
        let sample: Vec<_> = self.queue.iter().take(EVICTION_SAMPLE).map(|(_, key)| Arc::clone(key)).collect();
        for key in sample {
            if self.keys.get(&key).is_none_or(|usage| usage.held == 0) {
                self.remove(&key);
                return true;
            }
            self.requeue(now, &key);
        }
        false
    }

    fn requeue(&mut self, time: u64, key: &[u8]) {
        let Some(key) = self.keys.get_key_value(key).map(|(key, _)| Arc::clone(key)) else {
            return;
        };
        if let Some(usage) = self.keys.get_mut(&key) {
            self.queue.remove(&(usage.queued, Arc::clone(&key)));
            usage.queued = time;
            self.queue.insert((time, key));
        }
    }
}

/// What is known of one key.
struct Usage {
    /// By time; equal times are one entry.
    log: VecDeque<Charge>,
    /// The running total before the first entry of the log.
    before: u64,
    /// What is reserved.
    held: u64,
    /// Its place in the table's queue: when a `hold` last named it, or a little before.
    queued: u64,
}

#[derive(Clone, Copy)]
struct Charge {
    time: u64,
    /// Running total up to and including this entry. It wraps around, which differences don't notice.
    total: u64,
}

impl Usage {
    fn new(now: u64) -> Self {
        Self { log: VecDeque::new(), before: 0, held: 0, queued: now }
    }

    fn total(&self) -> u64 {
        self.log.back().map_or(self.before, |charge| charge.total)
    }

    /// What is charged inside `(now - per, now]`.
    fn charged(&self, now: u64, per: u64) -> u64 {
        let outside = self.log.partition_point(|charge| now.saturating_sub(charge.time) >= per);
        self.total().wrapping_sub(self.total_of(outside))
    }

    /// The running total of the first `count` entries.
    fn total_of(&self, count: usize) -> u64 {
        count.checked_sub(1).and_then(|last| self.log.get(last)).map_or(self.before, |charge| charge.total)
    }

    /// The date of the charge that has to leave the window before no more than `allowed` is in it.
    fn last_beyond(&self, allowed: u64) -> Option<u64> {
        let total = self.total();
        let index = self.log.partition_point(|charge| total.wrapping_sub(charge.total) > allowed);
        self.log.get(index).map(|charge| charge.time)
    }

    /// `now` is not before the last charge. The log as a whole stays within u64, as whatever was held first does.
    fn charge(&mut self, now: u64, amount: u64) {
        let room = u64::MAX - self.total().wrapping_sub(self.before);
        let total = self.total().wrapping_add(amount.min(room));
        match self.log.back_mut() {
            Some(last) if last.time == now => last.total = total,
            Some(_) => self.log.push_back(Charge { time: now, total }),
            None => {
                self.log.reserve_exact(1); // most keys are never seen again
                self.log.push_back(Charge { time: now, total });
            }
        }
    }

    /// Drops what has left the longest window, and memory that a burst has left behind.
    fn forget(&mut self, now: u64, longest: u64) {
        let outside = self.log.partition_point(|charge| now.saturating_sub(charge.time) >= longest);
        self.before = self.total_of(outside);
        self.log.drain(..outside);
        if self.log.len() < self.log.capacity() / 4 {
            self.log.shrink_to(self.log.len() * 2);
        }
    }

    /// When the key was last needed: now, if something is held, or else by a charge inside the longest window.
    fn kept_by(&self, now: u64, longest: u64) -> Option<u64> {
        if self.held > 0 {
            return Some(now);
        }
        self.log.back().map(|last| last.time).filter(|time| now.saturating_sub(*time) < longest)
    }
}

/// A [`Counter`] in nanoseconds.
struct Bounds {
    rates: Vec<Bound>,
    concurrent: Option<u64>,
    /// 0 if there are no rates.
    longest: u64,
}

struct Bound {
    amount: u64,
    per: u64,
}

/// [`Exceeded`], with the absolute time, or [`NEVER`].
struct Refusal {
    rate: Option<usize>,
    used: u64,
    until: u64,
}

impl Bounds {
    /// A window contains at least the present moment.
    fn new(counter: &Counter) -> Self {
        let bound = |rate: &Rate| Bound { amount: rate.amount, per: nanos(rate.per).max(1) };
        let rates: Vec<_> = counter.rates.iter().map(bound).collect();
        let longest = rates.iter().map(|rate| rate.per).max().unwrap_or(0);
        Self { rates, concurrent: counter.concurrent, longest }
    }

    /// Whether `amount`, not 0, fits under all bounds.
    fn check(&self, usage: &Usage, now: u64, amount: u64) -> Result<(), Refusal> {
        let rates = self.rates.iter().enumerate();
        let rates = rates.filter_map(|(index, rate)| rate.refusal(index, usage, now, amount));
        let concurrent = self.concurrent.filter(|bound| amount > bound.saturating_sub(usage.held));
        let concurrent = concurrent.map(|_| Refusal { rate: None, used: usage.held, until: NEVER });
        rates.chain(concurrent).min_by_key(|refusal| Reverse(refusal.until)).map_or(Ok(()), Err)
    }
}

impl Bound {
    fn refusal(&self, index: usize, usage: &Usage, now: u64, amount: u64) -> Option<Refusal> {
        let used = usage.charged(now, self.per).saturating_add(usage.held);
        if amount <= self.amount.saturating_sub(used) {
            return None;
        }
        let allowed = self.amount.checked_sub(amount).and_then(|rest| rest.checked_sub(usage.held));
        let last = allowed.and_then(|allowed| usage.last_beyond(allowed));
        let until = last.map_or(NEVER, |last| last.saturating_add(self.per));
        Some(Refusal { rate: Some(index), used, until })
    }
}

impl Refusal {
    fn seen_from(self, asked: u64) -> Exceeded {
        let wait = (self.until != NEVER).then(|| Duration::from_nanos(self.until.saturating_sub(asked)));
        Exceeded { rate: self.rate, used: self.used, retry_after: wait }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A panic elsewhere under the lock must not stop all mail; every change in here leaves a state that can be used.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Later than any time.
const NEVER: u64 = u64::MAX;
/// So many that an even hash fills no shard much before the others.
const KEYS_PER_SHARD: usize = 4096;
const MAX_SHARDS: usize = 64;
/// How many keys of a table a `hold` looks at. More than one, so that sweeping keeps ahead of adding.
const SWEEP: usize = 2;
/// How many keys with something held an eviction passes over before it gives up.
const EVICTION_SAMPLE: usize = 8;
/// In nanoseconds: keys used more often than each second don't move in the queue each time.
const QUEUE_PRECISION: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;
    use std::thread;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"key";
    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    fn rate(amount: u64, per: u64) -> Rate {
        Rate { amount, per: at(per) }
    }

    fn rates(rates: &[Rate]) -> Counter {
        Counter { rates: rates.to_vec(), concurrent: None }
    }

    fn concurrent(bound: u64) -> Counter {
        Counter { rates: Vec::new(), concurrent: Some(bound) }
    }

    fn one(counter: Counter) -> Counters {
        Counters::new(vec![counter], 1000)
    }

    fn refused(rate: impl Into<Option<usize>>, used: u64, retry_after: impl Into<Option<u64>>) -> Result<(), Exceeded> {
        Err(Exceeded { rate: rate.into(), used, retry_after: retry_after.into().map(at) })
    }

    /// Holds and commits at once.
    fn send(counters: &Counters, now: u64, key: &[u8], amount: u64) -> Result<(), Exceeded> {
        counters.hold(at(now), 0, key, amount)?;
        counters.commit(at(now), 0, key, amount);
        Ok(())
    }

    #[test]
    fn a_charge_counts_until_its_window_has_passed() {
        let counters = one(rates(&[rate(2, 100)]));
        assert_eq!(send(&counters, 10, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 50, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 50, KEY, 1), refused(0, 2, 60));
        assert_eq!(send(&counters, 109, KEY, 1), refused(0, 2, 1));
        assert_eq!(send(&counters, 110, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 110, KEY, 1), refused(0, 2, 40));
    }

    #[test]
    fn a_charge_is_dated_by_its_commit() {
        let counters = one(rates(&[rate(1, 100)]));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(500), 0, KEY, 1), refused(0, 1, None));
        counters.commit(at(500), 0, KEY, 1);
        assert_eq!(counters.hold(at(599), 0, KEY, 1), refused(0, 1, 1));
        assert_eq!(counters.hold(at(600), 0, KEY, 1), Ok(()));
    }

    #[test]
    fn what_is_given_back_is_free() {
        let counters = one(rates(&[rate(3, 100)]));
        assert_eq!(counters.hold(at(0), 0, KEY, 3), Ok(()));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), refused(0, 3, None));
        counters.release(0, KEY, 2);
        assert_eq!(counters.hold(at(0), 0, KEY, 2), Ok(()));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), refused(0, 3, None));
        counters.release(0, KEY, 3);
        assert_eq!(counters.keys(), 0);
    }

    #[test]
    fn a_refusal_reserves_nothing_under_any_rate() {
        let counters = one(rates(&[rate(10, 10), rate(3, 100)]));
        assert_eq!(send(&counters, 0, KEY, 2), Ok(()));
        assert_eq!(counters.hold(at(20), 0, KEY, 2), refused(1, 2, 80));
        assert_eq!(counters.hold(at(20), 0, KEY, 1), Ok(()));
    }

    #[test]
    fn the_bound_that_takes_longest_is_named() {
        let both = Counter { rates: vec![rate(2, 10), rate(2, 100), rate(2, 100)], concurrent: Some(1) };
        let counters = one(both);
        assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(5), 0, KEY, 1), refused(1, 2, 95));
        assert_eq!(counters.hold(at(5), 0, KEY, 3), refused(0, 2, None));
        assert_eq!(counters.hold(at(100), 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(100), 0, KEY, 1), refused(None, 1, None));
    }

    #[test]
    fn more_than_the_bound_never_fits_and_nothing_always_does() {
        let counters = one(rates(&[rate(0, 100)]));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), refused(0, 0, None));
        assert_eq!(counters.hold(at(0), 0, KEY, 0), Ok(()));
        counters.commit(at(0), 0, KEY, 0);
        assert_eq!(counters.keys(), 0);
    }

    #[test]
    fn only_as_much_as_needed_has_to_leave() {
        let counters = one(rates(&[rate(10, 100)]));
        for (now, amount) in [(0, 3), (10, 3), (20, 4)] {
            assert_eq!(send(&counters, now, KEY, amount), Ok(()));
        }
        assert_eq!(counters.hold(at(30), 0, KEY, 3), refused(0, 10, 70));
        assert_eq!(counters.hold(at(30), 0, KEY, 4), refused(0, 10, 80));
        assert_eq!(counters.hold(at(30), 0, KEY, 7), refused(0, 10, 90));
    }

    #[test]
    fn concurrent_counts_what_is_held_and_keeps_no_charges() {
        let counters = one(concurrent(2));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(9), 0, KEY, 1), refused(None, 2, None));
        counters.commit(at(9), 0, KEY, 1);
        assert_eq!(counters.hold(at(9), 0, KEY, 1), Ok(()));
        counters.commit(at(9), 0, KEY, 1);
        counters.release(0, KEY, 1);
        assert_eq!(counters.keys(), 0);
    }

    #[test]
    fn counters_and_keys_are_separate() {
        let counters = Counters::new(vec![rates(&[rate(1, 100)]), rates(&[rate(1, 100)])], 1000);
        for (counter, key) in [(0, &b"a"[..]), (0, b"b"), (1, b"a"), (0, b"")] {
            assert_eq!(counters.hold(at(0), counter, key, 1), Ok(()));
            assert_eq!(counters.hold(at(0), counter, key, 1), refused(0, 1, None));
        }
        assert_eq!(counters.keys(), 4);
    }

    #[test]
    fn time_that_goes_backwards_opens_nothing() {
        let counters = one(rates(&[rate(2, 100)]));
        assert_eq!(send(&counters, 1000, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 0, KEY, 1), Ok(())); // dated 1000
        assert_eq!(send(&counters, 0, KEY, 1), refused(0, 2, 1100));
        assert_eq!(send(&counters, 1099, KEY, 1), refused(0, 2, 1));
        assert_eq!(send(&counters, 1100, KEY, 2), Ok(()));
    }

    /// Were the time that a key has seen forgotten with the key, its old window could be entered a second time.
    #[test]
    fn a_forgotten_key_does_not_come_back_in_the_past() {
        let counters = one(rates(&[rate(1, 100)]));
        assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 500, b"other", 1), Ok(()));
        assert_eq!(counters.keys(), 1);
        assert_eq!(send(&counters, 50, KEY, 1), Ok(())); // dated 500
        assert_eq!(send(&counters, 599, KEY, 1), refused(0, 1, 1));
    }

    #[test]
    fn extremes_neither_overflow_nor_open() {
        let most = Counter { rates: vec![rate(u64::MAX, 100)], concurrent: Some(u64::MAX) };
        let counters = one(most);
        assert_eq!(counters.hold(at(0), 0, KEY, u64::MAX), Ok(()));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), refused(0, u64::MAX, None));
        counters.commit(at(0), 0, KEY, u64::MAX);
        assert_eq!(counters.hold(at(99), 0, KEY, 1), refused(0, u64::MAX, 1));
        counters.commit(at(50), 0, KEY, u64::MAX); // never held
        counters.release(0, KEY, u64::MAX);
        assert_eq!(counters.hold(at(99), 0, KEY, u64::MAX), refused(0, u64::MAX, 1));
        assert_eq!(counters.hold(Duration::MAX, 0, KEY, u64::MAX), Ok(()));
        counters.commit(Duration::MAX, 0, KEY, u64::MAX);
        assert!(counters.hold(Duration::MAX, 0, KEY, 1).is_err());
    }

    /// Running totals wrap around after 2^64 bytes.
    #[test]
    fn a_long_life_does_not_wear_a_counter_out() {
        let counters = one(rates(&[rate(u64::MAX / 2, 10), rate(u64::MAX - 1, 20)]));
        for round in 0..100 {
            assert_eq!(send(&counters, round * 10, KEY, u64::MAX / 2), Ok(()));
            assert_eq!(send(&counters, round * 10, KEY, 1), refused(0, u64::MAX / 2, 10));
        }
    }

    #[test]
    fn a_window_without_length_is_the_present_moment() {
        let counters = one(rates(&[rate(1, 0)]));
        assert_eq!(send(&counters, 5, KEY, 1), Ok(()));
        assert_eq!(send(&counters, 5, KEY, 1), refused(0, 1, 1));
        assert_eq!(send(&counters, 6, KEY, 1), Ok(()));
    }

    #[test]
    fn a_key_is_kept_for_its_longest_window_and_then_swept() {
        let counters = one(rates(&[rate(9, 10), rate(9, 100)]));
        for key in 0..50u8 {
            assert_eq!(send(&counters, u64::from(key), &[key], 1), Ok(()));
        }
        assert_eq!(send(&counters, 99, KEY, 1), Ok(()));
        assert_eq!(counters.keys(), 51);
        for _ in 0..25 {
            counters.hold(at(149), 0, KEY, 0).unwrap();
        }
        assert_eq!(counters.keys(), 1);
        assert_eq!(counters.evictions(), 0);
    }

    #[test]
    fn a_busy_counter_sweeps_for_the_others() {
        let day = || rates(&[rate(1, 10)]);
        let counters = Counters::new(vec![day(), day(), concurrent(9)], 1000);
        for key in 0..10u8 {
            counters.hold(at(0), 1, &[key], 1).unwrap();
            counters.commit(at(0), 1, &[key], 1);
        }
        for _ in 0..15 {
            counters.hold(at(10), 2, KEY, 0).unwrap();
        }
        assert_eq!(counters.keys(), 0);
    }

    #[test]
    fn what_is_held_outlives_any_window() {
        let counters = one(rates(&[rate(1, 10)]));
        assert_eq!(counters.hold(at(0), 0, KEY, 1), Ok(()));
        for now in 0..1000 {
            assert_eq!(counters.hold(at(now), 0, KEY, 1), refused(0, 1, None));
            counters.hold(at(now), 0, b"other", 1).unwrap();
            counters.release(0, b"other", 1);
        }
        assert_eq!(counters.keys(), 1);
    }

    #[test]
    fn a_full_table_evicts_what_was_idle_longest() {
        let day = || rates(&[rate(2, 1000 * SECOND)]);
        let counters = Counters::new(vec![day(), day()], 3);
        assert_eq!(send(&counters, SECOND, b"a", 1), Ok(()));
        counters.commit(at(2 * SECOND), 1, b"b", 2);
        assert_eq!(send(&counters, 3 * SECOND, b"c", 1), Ok(()));
        assert_eq!(send(&counters, 4 * SECOND, b"a", 1), Ok(()));
        assert_eq!(send(&counters, 5 * SECOND, b"d", 1), Ok(())); // instead of b
        assert_eq!((counters.keys(), counters.evictions()), (3, 1));
        assert_eq!(send(&counters, 6 * SECOND, b"a", 1), refused(0, 2, 995 * SECOND));
        assert_eq!(counters.hold(at(7 * SECOND), 1, b"b", 2), Ok(())); // instead of c
        assert_eq!((counters.keys(), counters.evictions()), (3, 2));
        assert_eq!(send(&counters, 8 * SECOND, b"d", 2), refused(0, 1, 997 * SECOND));
    }

    #[test]
    fn what_is_held_is_never_evicted() {
        let counters = Counters::new(vec![rates(&[rate(1, 1000)])], 10);
        for key in 0..100u8 {
            assert_eq!(counters.hold(at(0), 0, &[key], 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (100, 0));
        for key in 0..100u8 {
            assert_eq!(counters.hold(at(1), 0, &[key], 1), refused(0, 1, None));
            counters.commit(at(1), 0, &[key], 1);
        }
        for key in 100..200u8 {
            assert_eq!(send(&counters, 2, &[key], 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (10, 190));
    }

    #[test]
    fn what_is_held_does_not_stand_in_the_way_of_evictions() {
        let counters = Counters::new(vec![rates(&[rate(1, 1000)])], 10);
        for key in 0..9u8 {
            assert_eq!(counters.hold(at(0), 0, &[key], 1), Ok(()));
        }
        for key in 9..50u8 {
            assert_eq!(send(&counters, u64::from(key), &[key], 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (10, 40));
    }

    #[test]
    fn a_release_after_the_window_forgets_the_key() {
        let counters = one(rates(&[rate(2, 100)]));
        assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(50), 0, KEY, 1), Ok(()));
        assert_eq!(counters.hold(at(100), 0, b"other", 0), Ok(()));
        assert_eq!(counters.keys(), 1);
        counters.release(0, KEY, 1);
        assert_eq!(counters.keys(), 0);
    }

    #[test]
    fn max_keys_bounds_all_shards_together() {
        let counters = Counters::new(vec![rates(&[rate(1, 1000)])], 10_000);
        assert_eq!(counters.shards.len(), 2);
        for key in 0..30_000u32 {
            assert_eq!(send(&counters, 0, &key.to_ne_bytes(), 1), Ok(()));
        }
        assert_eq!((counters.keys(), counters.evictions()), (10_000, 20_000));
    }

    #[test]
    fn keys_in_use_survive_a_flood_of_others() {
        let counters = Counters::new(vec![rates(&[rate(1, 99_999 * SECOND)]), rates(&[rate(1, 99_999 * SECOND)])], 100);
        let used = || (0..50u8).map(|key| (usize::from(key % 2), [key]));
        used().for_each(|(counter, key)| counters.commit(at(0), counter, &key, 1));
        for flood in 1..10_000u64 {
            assert_eq!(send(&counters, flood * SECOND, &flood.to_ne_bytes(), 1), Ok(()));
            if flood % 40 == 0 {
                used().for_each(|(counter, key)| assert!(counters.hold(at(flood * SECOND), counter, &key, 1).is_err()));
            }
        }
        assert_eq!((counters.keys(), counters.evictions()), (100, 9_949));
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let bounds = Bounds::new(&rates(&[rate(100_000, 1000)]));
        let mut usage = Usage::new(0);
        for now in 0..1000 {
            usage.charge(now, 1);
        }
        usage.forget(1990, bounds.longest);
        assert_eq!((usage.log.len(), usage.charged(1990, 1000)), (9, 9));
        assert!(usage.log.capacity() < 32);
    }

    /// 98 in any hour, evenly, for ten days.
    #[test]
    fn a_steady_sender_at_98_percent_is_never_refused() {
        let hour = Duration::from_secs(3600);
        let counters = one(rates(&[Rate { amount: 100, per: hour }]));
        for index in 0..98 * 240 {
            let now = hour * index / 98;
            assert_eq!(counters.hold(now, 0, KEY, 1), Ok(()));
            counters.commit(now + Duration::from_secs(30), 0, KEY, 1);
        }
    }

    /// All 98 at the same moment of each hour, or in two halves.
    #[test]
    fn a_bursty_sender_at_98_percent_is_never_refused() {
        let hour = Duration::from_secs(3600);
        for bursts in [1, 2, 7, 49] {
            let counters = one(rates(&[Rate { amount: 100, per: hour }, Rate { amount: 2400, per: hour * 24 }]));
            for index in 0..bursts * 240 {
                let now = hour * index / bursts;
                (0..98 / bursts).for_each(|_| assert_eq!(counters.hold(now, 0, KEY, 1), Ok(())));
                (0..98 / bursts).for_each(|_| counters.commit(now, 0, KEY, 1));
            }
        }
    }

    #[test]
    fn of_two_threads_one_gets_the_last_place() {
        let rounds = 20_000;
        let counters = one(Counter { rates: vec![rate(1, 100)], concurrent: Some(1) });
        let (barrier, admitted) = (Barrier::new(2), AtomicU64::new(0));
        let race = || {
            for round in 0..rounds {
                barrier.wait();
                if send(&counters, round * 100, KEY, 1).is_ok() {
                    admitted.fetch_add(1, Ordering::Relaxed);
                }
                barrier.wait();
                assert_eq!(admitted.load(Ordering::Relaxed), round + 1);
            }
        };
        thread::scope(|scope| [scope.spawn(race), scope.spawn(race)].map(|thread| thread.join().unwrap()));
    }

    #[test]
    fn threads_together_get_exactly_the_amount() {
        let counters = Counters::new(vec![rates(&[rate(1000, 1_000_000)])], 1_000_000);
        let admitted = AtomicU64::new(0);
        let send_many = || {
            for now in 0..8000u64 {
                let key = [u8::try_from(now % 16).unwrap()];
                if counters.hold(at(now), 0, &key, 1).is_err() {
                    continue;
                }
                if now % 3 == 0 {
                    counters.release(0, &key, 1);
                } else {
                    counters.commit(at(now), 0, &key, 1);
                    admitted.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(send_many))));
        assert_eq!(admitted.load(Ordering::Relaxed), 16_000);
    }

    #[test]
    fn a_panic_under_the_lock_is_survived() {
        let counters = one(rates(&[rate(1, 100)]));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = counters.shards[0].lock();
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && counters.shards[0].is_poisoned());
        assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
        assert_eq!(counters.keys(), 1);
    }

    /// The same rules without any cleverness: all that ever happened, counted anew each time.
    struct Oracle {
        counters: Vec<Counter>,
        now: u64,
        keys: BTreeMap<(usize, u8), History>,
    }

    #[derive(Clone, Default)]
    struct History {
        commits: Vec<(u64, u64)>,
        held: Vec<u64>,
    }

    impl History {
        fn charged(&self, now: u64, per: u64) -> u64 {
            let inside = |time: u64| time <= now && (now < per || time > now - per);
            self.commits.iter().filter(|(time, _)| inside(*time)).map(|(_, amount)| amount).sum()
        }

        fn used(&self, rate: Rate, now: u64) -> u64 {
            self.charged(now, nanos(rate.per)) + self.held.iter().sum::<u64>()
        }

        /// Tries every moment at which a charge leaves the window.
        fn fits_at(&self, rate: Rate, now: u64, amount: u64) -> Option<u64> {
            let mut moments: Vec<u64> = self.commits.iter().map(|(time, _)| time + nanos(rate.per)).collect();
            moments.retain(|moment| *moment > now);
            moments.push(now);
            moments.sort_unstable();
            moments.into_iter().find(|moment| self.used(rate, *moment) + amount <= rate.amount)
        }
    }

    impl Oracle {
        fn verdict(&self, asked: u64, counter: usize, key: u8, amount: u64) -> Result<(), Exceeded> {
            let history = self.keys.get(&(counter, key)).cloned().unwrap_or_default();
            let held = history.held.iter().sum::<u64>();
            let mut worst: Option<Exceeded> = None;
            let mut report = |exceeded: Exceeded| {
                let wait = |exceeded: &Exceeded| exceeded.retry_after.unwrap_or(Duration::MAX);
                if worst.as_ref().is_none_or(|worst| wait(worst) < wait(&exceeded)) {
                    worst = Some(exceeded);
                }
            };
            for (index, rate) in self.counters[counter].rates.iter().enumerate() {
                let used = history.used(*rate, self.now);
                let fits = history.fits_at(*rate, self.now, amount);
                if fits != Some(self.now) {
                    report(Exceeded { rate: Some(index), used, retry_after: fits.map(|time| at(time - asked)) });
                }
            }
            if self.counters[counter].concurrent.is_some_and(|bound| held + amount > bound) {
                report(Exceeded { rate: None, used: held, retry_after: None });
            }
            worst.map_or(Ok(()), Err)
        }

        /// Of all windows of a rate's length, those that end at a commit hold the most.
        fn check_all_windows(&self) -> Result<(), TestCaseError> {
            for ((counter, _), history) in &self.keys {
                for (end, _) in &history.commits {
                    for rate in &self.counters[*counter].rates {
                        prop_assert!(history.charged(*end, nanos(rate.per)) <= rate.amount, "{rate:?} until {end}");
                    }
                }
            }
            Ok(())
        }

        /// How many keys must still be known.
        fn live(&self) -> usize {
            let longest = |counter: usize| self.counters[counter].rates.iter().map(|rate| nanos(rate.per)).max();
            let live = |(counter, history): (usize, &History)| {
                !history.held.is_empty() || longest(counter).is_some_and(|per| history.charged(self.now, per) > 0)
            };
            self.keys.iter().filter(|((counter, _), history)| live((*counter, history))).count()
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Hold {
            counter: usize,
            key: u8,
            amount: u64,
            back: u64,
        },
        Commit {
            which: usize,
            back: u64,
        },
        Release {
            which: usize,
        },
        Advance {
            by: u64,
        },
        /// To when the last refusal said, or one nanosecond less, and the same again.
        Retry {
            early: bool,
        },
    }

    fn counter() -> impl Strategy<Value = Counter> {
        let rate = (0..9u64, 1..13u64).prop_map(|(amount, per)| rate(amount, per));
        let bounds = (vec(rate, 0..4), option::weighted(0.3, 0..5u64));
        bounds.prop_map(|(rates, concurrent)| Counter { rates, concurrent })
    }

    fn event() -> impl Strategy<Value = Event> {
        let back = || prop_oneof![9 => Just(0), 1 => 1..20u64];
        let hold = (0..3usize, 0..2u8, 0..4u64, back());
        prop_oneof![
            6 => hold.prop_map(|(counter, key, amount, back)| Event::Hold { counter, key, amount, back }),
            4 => (any::<usize>(), back()).prop_map(|(which, back)| Event::Commit { which, back }),
            1 => any::<usize>().prop_map(|which| Event::Release { which }),
            3 => (0..5u64).prop_map(|by| Event::Advance { by }),
            2 => any::<bool>().prop_map(|early| Event::Retry { early }),
        ]
    }

    /// Every key is queued exactly once, where it says that it is.
    fn check_queues(counters: &Counters) -> Result<(), TestCaseError> {
        for shard in &counters.shards {
            for table in &lock(shard).tables {
                let queued = |(key, usage): (&Arc<[u8]>, &Usage)| (usage.queued, Arc::clone(key));
                prop_assert_eq!(&table.keys.iter().map(queued).collect::<BTreeSet<_>>(), &table.queue);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_history_is_judged_as_the_oracle_does(counters in vec(counter(), 3), events in vec(event(), 1..120)) {
            let tested = Counters::new(counters.clone(), 1000);
            let mut oracle = Oracle { counters, now: 0, keys: BTreeMap::new() };
            let mut held: Vec<(usize, u8, u64)> = Vec::new();
            let mut refused: Option<(u64, usize, u8, u64)> = None;
            let mut clock = 0u64;
            for event in events {
                let (counter, key, amount, asked) = match event {
                    Event::Advance { by } => {
                        clock += by;
                        continue;
                    }
                    Event::Commit { .. } | Event::Release { .. } if held.is_empty() => continue,
                    Event::Commit { which, back } => {
                        let (counter, key, amount) = held.swap_remove(which % held.len());
                        let asked = clock.saturating_sub(back);
                        tested.commit(at(asked), counter, &[key], amount);
                        oracle.now = oracle.now.max(asked);
                        let history = oracle.keys.entry((counter, key)).or_default();
                        history.held.remove(history.held.iter().position(|other| *other == amount).unwrap());
                        history.commits.push((oracle.now, amount));
                        continue;
                    }
                    Event::Release { which } => {
                        let (counter, key, amount) = held.swap_remove(which % held.len());
                        tested.release(counter, &[key], amount);
                        let history = oracle.keys.entry((counter, key)).or_default();
                        history.held.remove(history.held.iter().position(|other| *other == amount).unwrap());
                        continue;
                    }
                    Event::Hold { counter, key, amount, back } => (counter, key, amount, clock.saturating_sub(back)),
                    Event::Retry { early } => match refused.take() {
                        Some((until, counter, key, amount)) if until > clock => {
                            clock = until - u64::from(early);
                            (counter, key, amount, clock)
                        }
                        Some(_) | None => continue,
                    },
                };
                oracle.now = oracle.now.max(asked);
                let expected =
                    if amount == 0 { Ok(()) } else { oracle.verdict(asked, counter, key, amount) };
                let verdict = tested.hold(at(asked), counter, &[key], amount);
                prop_assert_eq!(&verdict, &expected, "{} of {} for {} at {}", amount, counter, key, asked);
                match verdict {
                    Ok(()) if amount == 0 => {}
                    Ok(()) => {
                        held.push((counter, key, amount));
                        oracle.keys.entry((counter, key)).or_default().held.push(amount);
                    }
                    Err(Exceeded { retry_after: Some(wait), .. }) => {
                        refused = Some((asked + nanos(wait), counter, key, amount));
                    }
                    Err(_) => {}
                }
                prop_assert!(tested.keys() >= oracle.live());
            }
            oracle.check_all_windows()?;
            check_queues(&tested)?;
            oracle.now += 100;
            (0..20).for_each(|_| tested.hold(at(oracle.now), 0, b"other", 0).unwrap());
            prop_assert_eq!(tested.keys(), oracle.live());
            prop_assert_eq!(tested.evictions(), 0);
        }

        #[test]
        fn eviction_never_forgets_what_is_held(
            calls in vec((0..2usize, 0..8u8, 0..3u8, 0..4u64), 1..200),
        ) {
            let counters = Counters::new(vec![rates(&[rate(1, 5)]), rates(&[rate(1, 50)])], 3);
            let mut held = BTreeSet::new();
            let (mut now, mut most_held) = (0, 0);
            for (counter, key, call, wait) in calls {
                now += wait;
                let was_held = held.contains(&(counter, key));
                match call {
                    0 if was_held => counters.commit(at(now), counter, &[key], 1),
                    1 if was_held => counters.release(counter, &[key], 1),
                    _ => match counters.hold(at(now), counter, &[key], 1) {
                        Ok(()) => {
                            prop_assert!(!was_held);
                            held.insert((counter, key));
                            most_held = most_held.max(held.len());
                            continue;
                        }
                        Err(_) => continue,
                    },
                }
                held.remove(&(counter, key));
                prop_assert!(counters.keys() <= 3 + most_held);
                check_queues(&counters)?;
            }
        }

        #[test]
        fn the_time_to_retry_is_exact(
            charges in vec((0..50u64, 1..20u64), 1..40),
            limits in vec((20..60u64, 1..200u64), 1..4),
            amount in 1..60u64,
        ) {
            let limits: Vec<Rate> = limits.into_iter().map(|(amount, per)| rate(amount, per)).collect();
            let counters = one(rates(&limits));
            let mut now = 0;
            for (wait, amount) in charges {
                now += wait;
                let _ = send(&counters, now, KEY, amount);
            }
            let Err(exceeded) = counters.hold(at(now), 0, KEY, amount) else {
                return Ok(());
            };
            let Some(wait) = exceeded.retry_after else {
                prop_assert!(limits.iter().any(|rate| amount > rate.amount));
                return Ok(());
            };
            prop_assert!(counters.hold(at(now) + wait - at(1), 0, KEY, amount).is_err());
            prop_assert_eq!(counters.hold(at(now) + wait, 0, KEY, amount), Ok(()));
        }
    }
}
