//! Rate counters in memory, exact: what a limit like "100 per hour" has admitted, and what it has room for.
//!
//! An amount is *held* first, which only reserves it, and later *released* or *committed*; only a commit is dated.
//! Each key has a log of its commits (`charges`; of different values, `values`), and every rate of a counter is judged from that one log (`bounds`):
//! what is dated inside `(now - per, now]`, plus all that is held, never passes the rate's amount. Since time only takes
//! away from the first part and a commit only moves between the two, that holds for every window of that length,
//! wherever it begins.
//!
//! Keys are spread over shards with one lock each (`shard`): an index, the entries (`entry`, in a `slab`), and for each
//! counter the order in which they may be forgotten (`order`). No call does work in proportion to the number of keys:
//! a key is forgotten once nothing is held and its last commit has left the longest window, at once where a call
//! notices, otherwise a few with each `hold` and with each [`Counters::sweep`]. Only when there are too many is one
//! forgotten early: the one that was unused for longest; but keys without room, refused or blocked ones only when there
//! are no others (those never refused first, the blocked ones last, each by when that ends), and never one with something
//! held.
//!
//! Deliberately not here: a clock (callers say `now`), what a key is made of, what follows from a refusal, files.

mod bounds;
mod carry;
mod charges;
mod entry;
mod fullness;
#[cfg(test)]
mod oracle;
mod order;
#[cfg(test)]
mod properties;
mod rules;
mod seating;
mod shard;
mod slab;
#[cfg(test)]
mod tests;
mod tries;
mod values;
mod views;

pub(crate) use carry::Record;
#[cfg(test)]
pub(crate) use fullness::FULLNESS_BOUNDS;
pub(crate) use fullness::Fullness;
pub(crate) use rules::Seats;
pub(crate) use tries::Tries;
pub(crate) use views::Cursor;
pub(crate) use views::Stats;
pub(crate) use views::View;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::Rate;
use crate::config::Share;
use bounds::NEVER;
use bounds::Refusal;
use bounds::nanos;
use entry::Blocked;
use entry::Pin;
use rules::Name;
use rules::Rules;
use shard::Locked;
use shard::Shard;

/// What one counter allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    /// Bounds for classes of keys: the first row is the default, others are for keys with bounds of their own, each with
    /// another name. Charges are kept for the longest window of all rows.
    pub(crate) rows: Vec<Row>,
    /// How many keys are kept, or as many as have something held.
    pub(crate) max_keys: usize,
    /// What its rates bound.
    pub(crate) counts: Counts,
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Amounts.
    #[default]
    Amounts,
    /// Those tried, and those of them refused.
    Tries,
    /// Different values, each once in a window, however often it was charged.
    Values,
}

/// What is held, and charged later: of a counter of amounts an amount, of one of different values a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// So much.
    Amount(u64),
    /// Nothing that is held: one that is tried. What becomes of it is charged by [`Counters::note`].
    Try,
    /// This one: a hash of what it stands for.
    Value(u64),
}

impl Load {
    /// How much more it is, at most.
    const fn amount(self) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Try | Self::Value(_) => 1,
        }
    }
}

impl From<u64> for Load {
    fn from(amount: u64) -> Self {
        Self::Amount(amount)
    }
}

/// All bounds that a key is under together. Without any it is unlimited, and yet counted if another row has a window.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Row {
    /// For which keys, as administrators call them; `None` for all others.
    pub(crate) whose: Option<Arc<str>>,
    /// Bounds on what is committed within a time, plus what is held. An amount of 0 forbids.
    pub(crate) rates: Vec<Rate>,
    /// Bounds on how many of those tried are refused, in a counter of such.
    pub(crate) shares: Vec<Share>,
    /// Bound on what is held at the same time.
    pub(crate) concurrent: Option<u64>,
    /// How far above these bounds what happens.
    pub(crate) steps: Steps,
}

/// Parts of bounds, in percent. Above one of them a hold tells of it, and above the ceiling reserves nothing.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Steps {
    /// The lowest first; one at least.
    pub(crate) percents: Arc<[u32]>,
    /// The first of them above which the caller lets nothing through; what has to be waited for is room under that. One
    /// more than there are: none.
    pub(crate) blocking: usize,
    /// The one above which nothing is reserved.
    pub(crate) ceiling: usize,
}

/// A bound is a bound.
impl Default for Steps {
    fn default() -> Self {
        Self { percents: [100].into(), blocking: 0, ceiling: 0 }
    }
}

/// Which bound said no. Of several, the one that takes longest to give way, then the first (`concurrent` is last).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// What it was.
    pub(crate) by: By,
    /// The highest step that was passed.
    pub(crate) step: usize,
    /// How much of that bound is used: committed inside the window, plus held. 0 for a block, hundredths for a share.
    pub(crate) used: u64,
    /// When the same amount will fit, counted from the `now` of the call, if nothing else happens until then. `None`:
    /// never, unless something that is held is released or committed (or not even then, above the bound itself).
    pub(crate) retry_after: Option<Duration>,
}

/// What said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The key is blocked; nothing was judged.
    Block(Block),
    /// [`Row::concurrent`].
    Concurrent,
    /// Index in [`Row::rates`].
    Rate(usize),
    /// Index in [`Row::shares`].
    Share(usize),
}

/// A block, seen from the `now` of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// How long ago it began.
    pub(crate) age: Duration,
    /// For how long it will go on.
    pub(crate) left: Duration,
}

/// All counters with all of their keys. Calls wait for one another only if their keys fall into the same shard.
///
/// `now` is the time since any fixed moment. Time does not go backwards: a `now` older than the newest that the key's
/// shard has seen counts as that newest.
pub(crate) struct Counters {
    rules: ArcSwap<Rules>,
    /// Policies come and go one after the other.
    seating: Mutex<()>,
    shards: Vec<Mutex<Shard>>,
    /// The shard that is swept next.
    swept: AtomicUsize,
    /// How often something was done that an export tells of.
    changes: AtomicU64,
}

impl Counters {
    /// No counters yet. Of all keys together at most `max_keys` will be kept, or as many as have something held.
    pub(crate) fn new(max_keys: usize) -> Self {
        let rules = Rules::new(max_keys);
        let shards = (0..rules.shards()).map(|_| Mutex::new(Shard::default())).collect();
        Self {
            rules: ArcSwap::from_pointee(rules),
            seating: Mutex::new(()),
            shards,
            swept: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
        }
    }

    /// Reserves `load` under every bound of the row, or under none. Nothing (0) always fits, and of a row with steps tells
    /// whether the key is above one. While the key is blocked, nothing else does. A value that is in a window already, or
    /// held, is not one more in it. Counters and rows have the numbers of their [`Seats`].
    ///
    /// It may have been reserved although a step was passed: `Ok(Some(_))`.
    pub(crate) fn hold_in_steps(
        &self,
        now: Duration,
        counter: usize,
        row: usize,
        key: &[u8],
        load: impl Into<Load>,
    ) -> Result<Option<Exceeded>, Exceeded> {
        let asked = inside(now);
        let rules = self.rules.load();
        let (mut shard, name) = self.shard(&rules, asked, counter, key);
        let verdict = shard.hold(&name, row, load.into());
        verdict.map(|over| over.map(|step| step.seen_from(asked))).map_err(|refusal| refusal.seen_from(asked))
    }

    /// The same where nobody asks for steps.
    #[cfg(test)]
    pub(crate) fn hold(
        &self,
        now: Duration,
        counter: usize,
        row: usize,
        key: &[u8],
        load: impl Into<Load>,
    ) -> Result<(), Exceeded> {
        self.hold_in_steps(now, counter, row, key, load).map(|_| ())
    }

    /// Gives back `load` of what is held.
    pub(crate) fn release(&self, counter: usize, key: &[u8], load: impl Into<Load>) {
        let rules = self.rules.load();
        let (mut shard, name) = self.shard(&rules, 0, counter, key);
        shard.release(&name, load.into());
    }

    /// Turns `load` of what is held into a charge dated `now`; what was never held is charged all the same.
    pub(crate) fn commit(&self, now: Duration, counter: usize, key: &[u8], load: impl Into<Load>) {
        let rules = self.rules.load();
        let (mut shard, name) = self.shard(&rules, inside(now), counter, key);
        shard.commit(&name, load.into());
        self.changed();
    }

    /// Blocks a key until `until`, a time like `now`, or longer if it is blocked for longer already.
    pub(crate) fn block(&self, now: Duration, counter: usize, key: &[u8], until: Duration) {
        let rules = self.rules.load();
        let (mut shard, name) = self.shard(&rules, inside(now), counter, key);
        shard.block(&name, inside(until));
        self.changed();
    }

    /// Ends a block; whether there was one. What was counted before it counts on.
    pub(crate) fn unblock(&self, now: Duration, counter: usize, key: &[u8]) -> bool {
        let rules = self.rules.load();
        let (mut shard, name) = self.shard(&rules, inside(now), counter, key);
        self.changed();
        shard.unblock(&name)
    }

    /// Forgets what a key was charged; whether there was anything. What is held stays held, what is blocked blocked.
    pub(crate) fn reset(&self, now: Duration, counter: usize, key: &[u8]) -> bool {
        let rules = self.rules.load();
        let (mut shard, name) = self.shard(&rules, inside(now), counter, key);
        self.changed();
        shard.reset(&name)
    }

    /// Does what time has left to do in shards that nobody asks: ends pins and forgets keys whose time is over, those that
    /// are too many, and those of counters that no policy has any more. Looks at about `budget` keys, few under each lock, and at each shard once at most; goes on where
    /// the last call ended. Gives how many there were; 0 means that nothing is left to do.
    pub(crate) fn sweep(&self, now: Duration, budget: usize) -> usize {
        let now = inside(now);
        let mut done = 0;
        for _ in 0..self.shards.len() {
            if done >= budget {
                break;
            }
            let next = self.swept.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            if let Some(shard) = self.shards.get(next) {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                // Not before: a place that nobody had may be somebody's by now.
                let rules = self.rules.load();
                let mut locked = Locked::at(&rules, shard, now);
                done += rules.abandoned().map(|counter| locked.clear(counter)).sum::<usize>();
                done += locked.sweep_all(SWEPT_AT_ONCE.min(budget.saturating_sub(done)));
            }
        }
        done
    }

    /// How many keys are kept, of all counters.
    pub(crate) fn keys(&self) -> usize {
        self.rules.load().keys()
    }

    /// How many keys were forgotten before their time, of all counters.
    pub(crate) fn evictions(&self) -> u64 {
        self.rules.load().evictions()
    }

    /// A number that grows with every charge and every change by hand, under the key's lock: what an export that begins
    /// later does not tell is counted later.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Locks the shard of a key.
    fn shard<'a>(&'a self, rules: &'a Rules, now: u64, counter: usize, key: &'a [u8]) -> (Locked<'a>, Name<'a>) {
        let (number, name) = rules.locate(counter, key);
        let shard = self.shards.get(number).expect("`locate` knows how many shards there are");
        (locked(rules, shard, now), name)
    }
}

/// A panic elsewhere under the lock must not stop all mail; every change in here leaves a state that can be used.
fn locked<'a>(rules: &'a Rules, shard: &'a Mutex<Shard>, now: u64) -> Locked<'a> {
    Locked::at(rules, shard.lock().unwrap_or_else(PoisonError::into_inner), now)
}

impl Locked<'_> {
    fn hold(&mut self, name: &Name<'_>, row: usize, load: Load) -> Result<Option<Refusal>, Refusal> {
        self.tidy(name.counter);
        let (now, rules) = (self.shard.now, self.rules);
        let is_some = load.amount() > 0;
        let Some(rule) = rules.rule(name.counter).filter(|rule| is_some || rule.bounds.has_steps(row)) else {
            return Ok(None);
        };
        let Some(slot) = self.find(name) else {
            let verdict = rule.bounds.check(row, &charges::Charges::None, 0, now, load);
            if is_some {
                let held = if verdict.is_ok() && load != Load::Try { load.amount() } else { 0 };
                rule.asked(row, &charges::Charges::None, held, now);
            }
            let verdict = verdict?;
            if is_some && load != Load::Try {
                let slot = self.insert(rule, name);
                if let Some(entry) = self.entry(slot) {
                    entry.hold(load);
                    entry.set_row(row);
                }
                self.make_room(name.counter);
            }
            return Ok(verdict);
        };
        self.lapse(slot);
        let Some(entry) = self.entry(slot) else {
            return Ok(None);
        };
        if let Pin::Blocked(block) = &entry.pin
            && is_some
        {
            return Err(Refusal::blocked(block, rule.bounds.blocked_step(row)));
        }
        entry.set_row(row);
        entry.charges.forget(now, rule.bounds.longest);
        let verdict = rule.bounds.check(row, &entry.charges, entry.held, now, load);
        if verdict.is_ok() {
            entry.hold(load);
        }
        let is_blocked = matches!(entry.pin, Pin::Blocked(_));
        match &verdict {
            _ if is_blocked => {}
            Ok(None) => self.pin(slot, Pin::Free),
            Ok(Some(refusal)) | Err(refusal) if refusal.until != NEVER => {
                self.pin(slot, Pin::Refused(refusal.until));
            }
            Ok(Some(_)) | Err(_) => {}
        }
        if let Some(entry) = self.shard.slab.get(slot).filter(|_| is_some) {
            rule.asked(row, &entry.charges, entry.held, now);
        }
        self.place(slot);
        verdict
    }

    fn release(&mut self, name: &Name<'_>, load: Load) {
        let Some(slot) = self.find(name) else {
            return;
        };
        if let Some(entry) = self.entry(slot) {
            entry.release(load);
        }
        self.judge(slot);
        self.place(slot);
    }

    fn commit(&mut self, name: &Name<'_>, load: Load) {
        let (now, rules) = (self.shard.now, self.rules);
        let Some(rule) = rules.rule(name.counter).filter(|_| load.amount() > 0) else {
            return;
        };
        if rule.bounds.longest == 0 {
            self.release(name, load);
            return;
        }
        let found = self.find(name);
        let slot = found.unwrap_or_else(|| self.insert(rule, name));
        if let Some(entry) = self.entry(slot) {
            entry.charge(load, now, &rule.bounds);
        }
        self.judge(slot);
        self.place(slot);
        if found.is_none() {
            self.make_room(name.counter);
        }
    }

    fn block(&mut self, name: &Name<'_>, until: u64) {
        let (now, rules) = (self.shard.now, self.rules);
        let Some(rule) = rules.rule(name.counter).filter(|_| until > now) else {
            return;
        };
        let found = self.find(name);
        let slot = found.unwrap_or_else(|| self.insert(rule, name));
        self.lapse(slot);
        self.pin_blocked(slot, Blocked { since: now, until });
        self.place(slot);
        if found.is_none() {
            self.make_room(name.counter);
        }
    }

    fn unblock(&mut self, name: &Name<'_>) -> bool {
        let Some(slot) = self.find(name) else {
            return false;
        };
        self.lapse(slot);
        let is_blocked = self.entry(slot).is_some_and(|entry| matches!(entry.pin, Pin::Blocked(_)));
        if is_blocked {
            self.pin(slot, Pin::Free);
            self.judge(slot);
        }
        self.place(slot);
        is_blocked
    }

    fn reset(&mut self, name: &Name<'_>) -> bool {
        let Some(slot) = self.find(name) else {
            return false;
        };
        self.lapse(slot);
        let (now, rule) = (self.shard.now, self.rules.rule(name.counter));
        let Some((entry, rule)) = self.entry(slot).zip(rule) else {
            return false;
        };
        entry.charges.forget(now, rule.bounds.longest);
        let was_charged = entry.charges.reset();
        if !matches!(entry.pin, Pin::Blocked(_)) {
            self.pin(slot, Pin::Free);
        }
        self.place(slot);
        was_charged
    }
}

/// A caller's time in here, where there is room for what an import dates before the caller's fixed moment.
fn inside(now: Duration) -> u64 {
    nanos(now).saturating_add(ORIGIN)
}

/// A little over 146 years, in nanoseconds; callers have 438 more.
const ORIGIN: u64 = 1 << 62;
/// How many keys are swept under one lock, about.
const SWEPT_AT_ONCE: usize = 64;
