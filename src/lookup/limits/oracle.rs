//! An oracle without any cleverness: all that ever happened, counted anew each time; and counters that are played the same
//! history beside it, under simulated time.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::prop_assert;
use proptest::prelude::prop_assert_eq;
use proptest::test_runner::TestCaseError;

use super::Block;
use super::By;
use super::Counter;
use super::Counters;
use super::Counts;
use super::Cursor;
use super::Exceeded;
use super::Load;
use super::Row;
use super::Seats;
use super::Steps;
use super::bounds::nanos;
use super::entry::Pin;
use super::locked;
use super::order::Order;
use super::tests::at;
use crate::config::Rate;
use crate::config::Share;

/// What happened to one key. Of a counter of different values, an amount is a value; of tries, whether it was refused.
#[derive(Clone, Default)]
struct History {
    counts: Counts,
    commits: Vec<(u64, u64)>,
    held: Vec<u64>,
    block: Option<(u64, u64)>,
}

struct Oracle {
    /// Of each policy, oldest first.
    counters: Vec<Vec<Counter>>,
    /// There was more than one.
    is_mixed: bool,
    now: u64,
    keys: BTreeMap<(usize, u8), History>,
}

impl History {
    fn inside(&self, now: u64, per: u64) -> impl Iterator<Item = u64> {
        let inside = move |time: u64| time <= now && (now < per || time > now - per);
        self.commits.iter().filter(move |(time, _)| inside(*time)).map(|(_, amount)| *amount)
    }

    fn charged(&self, now: u64, per: u64) -> u64 {
        match self.counts {
            Counts::Amounts => self.inside(now, per).sum(),
            Counts::Tries => self.inside(now, per).count() as u64,
            Counts::Values => self.inside(now, per).collect::<BTreeSet<_>>().len() as u64,
        }
    }

    fn values(&self, rate: Rate, now: u64) -> BTreeSet<u64> {
        self.inside(now, nanos(rate.per)).chain(self.held.iter().copied()).collect()
    }

    fn used(&self, rate: Rate, now: u64) -> u64 {
        match self.counts {
            Counts::Amounts => self.charged(now, nanos(rate.per)) + self.held(),
            Counts::Tries => self.charged(now, nanos(rate.per)),
            Counts::Values => self.values(rate, now).len() as u64,
        }
    }

    fn held(&self) -> u64 {
        self.held.iter().sum()
    }

    fn fits(&self, rate: Rate, now: u64, amount: u64) -> bool {
        match self.counts {
            Counts::Amounts => self.used(rate, now) + amount <= rate.amount,
            Counts::Tries => rate.amount > 0,
            Counts::Values if rate.amount == 0 => false,
            Counts::Values => self.values(rate, now).contains(&amount) || self.used(rate, now) < rate.amount,
        }
    }

    /// Hundredths that were refused, if that is over the share.
    fn over(&self, share: &Share, now: u64) -> Option<u64> {
        let tries: Vec<u64> = self.inside(now, nanos(share.per)).collect();
        let (refused, tried) = (tries.iter().sum::<u64>(), tries.len() as u64);
        let is_over = tried >= share.least && refused * 100 > share.percent * tried;
        is_over.then(|| refused * 100 / tried)
    }

    /// The first moment at which it is not over any more.
    fn ends(&self, share: &Share, now: u64) -> u64 {
        let mut moments: Vec<u64> = self.commits.iter().map(|(time, _)| time + nanos(share.per)).collect();
        moments.retain(|moment| *moment > now);
        moments.sort_unstable();
        moments.into_iter().find(|moment| self.over(share, *moment).is_none()).unwrap()
    }

    fn give_back(&mut self, amount: u64) {
        let index = self.held.iter().position(|held| *held == amount).unwrap();
        self.held.swap_remove(index);
    }

    /// Tries every moment at which a charge leaves the window.
    fn fits_at(&self, rate: Rate, now: u64, amount: u64) -> Option<u64> {
        let mut moments: Vec<u64> = self.commits.iter().map(|(time, _)| time + nanos(rate.per)).collect();
        moments.retain(|moment| *moment > now);
        moments.push(now);
        moments.sort_unstable();
        moments.into_iter().find(|moment| self.fits(rate, *moment, amount))
    }

    /// The bound that takes longest to give way, of those of a row at this step.
    fn exceeded(&self, row: &Row, percent: u32, asked: u64, now: u64, amount: u64) -> Option<Exceeded> {
        let part = |bound: u64| u64::try_from(u128::from(bound) * u128::from(percent) / 100).unwrap_or(u64::MAX);
        let mut worst: Option<Exceeded> = None;
        let mut report = |exceeded: Exceeded| {
            let wait = |exceeded: &Exceeded| exceeded.retry_after.unwrap_or(Duration::MAX);
            if worst.as_ref().is_none_or(|worst| wait(worst) < wait(&exceeded)) {
                worst = Some(exceeded);
            }
        };
        for (index, rate) in row.rates.iter().enumerate() {
            let rate = Rate { amount: part(rate.amount), ..*rate };
            let used = self.used(rate, now);
            let fits = self.fits_at(rate, now, amount);
            if fits != Some(now) {
                let retry_after = fits.map(|time| at(time - asked));
                report(Exceeded { by: By::Rate(index), step: 0, used, retry_after });
            }
        }
        for (index, share) in row.shares.iter().enumerate() {
            if let Some(used) = self.over(share, now) {
                let retry_after = Some(at(self.ends(share, now) - asked));
                report(Exceeded { by: By::Share(index), step: 0, used, retry_after });
            }
        }
        if row.concurrent.is_some_and(|bound| self.held() + amount > part(bound)) {
            report(Exceeded { by: By::Concurrent, step: 0, used: self.held(), retry_after: None });
        }
        worst
    }

    fn block(&self, now: u64) -> Option<(u64, u64)> {
        self.block.filter(|(_, until)| *until > now)
    }
}

impl Oracle {
    fn history(&mut self, counter: usize, key: u8) -> &mut History {
        let counts = self.counts(counter);
        self.keys.entry((counter, key)).or_insert_with(|| History { counts, ..History::default() })
    }

    /// The same under every policy.
    fn counts(&self, counter: usize) -> Counts {
        self.counters[0][counter].counts
    }

    fn verdict(&mut self, asked: u64, of: &Asked) -> Result<Option<Exceeded>, Exceeded> {
        let Asked { policy, counter, row, key, amount } = *of;
        let now = self.now;
        let history = self.history(counter, key).clone();
        let row = self.counters[policy][counter].rows[row].clone();
        let Steps { percents, blocking, ceiling } = &row.steps;
        let is_none = amount == 0 && history.counts == Counts::Amounts;
        if is_none && row.steps == Steps::default() {
            return Ok(None);
        }
        if let Some((since, until)) = history.block(now).filter(|_| !is_none) {
            let block = Block { age: at(asked.saturating_sub(since)), left: at(until - asked) };
            let step = (*blocking).min(percents.len() - 1);
            return Err(Exceeded { by: By::Block(block), step, used: 0, retry_after: Some(block.left) });
        }
        let exceeded = |step: usize| history.exceeded(&row, percents[step], asked, now, amount);
        let Some(step) = (0..percents.len()).rev().find(|step| exceeded(*step).is_some()) else {
            return Ok(None);
        };
        let exceeded = Exceeded { step, ..exceeded(step.min(*blocking)).unwrap() };
        if step >= *ceiling { Err(exceeded) } else { Ok(Some(exceeded)) }
    }

    /// Of all windows of a rate's length, those that end at a commit hold the most. Keys below [`ROWS`] never leave
    /// their row, unless there is another policy.
    fn check_all_windows(&self) -> Result<(), TestCaseError> {
        let Some(policy) = self.counters.first().filter(|_| !self.is_mixed) else {
            return Ok(());
        };
        for ((counter, key), history) in self.keys.iter().filter(|((_, key), _)| usize::from(*key) < ROWS) {
            let row = &policy[*counter].rows[usize::from(*key)];
            let most = row.steps.percents[row.steps.ceiling];
            for rate in &row.rates {
                for (end, _) in &history.commits {
                    let charged = history.charged(*end, nanos(rate.per));
                    prop_assert!(charged <= rate.scaled(most).amount, "{rate:?} until {end}");
                }
            }
        }
        Ok(())
    }

    fn longest(&self, counter: usize) -> u64 {
        let rows = self.counters.iter().flat_map(|policy| &policy[counter].rows);
        let spans =
            rows.flat_map(|row| row.rates.iter().map(|rate| rate.per).chain(row.shares.iter().map(|share| share.per)));
        spans.map(nanos).max().unwrap_or(0)
    }

    /// How many keys must still be known.
    fn live(&self) -> usize {
        let live = |counter: usize, history: &History| {
            let is_charged = history.charged(self.now, self.longest(counter)) > 0;
            !history.held.is_empty() || is_charged || history.block(self.now).is_some()
        };
        self.keys.iter().filter(|((counter, _), history)| live(*counter, history)).count()
    }
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Advance {
        by: u64,
    },
    Block {
        counter: usize,
        key: u8,
        length: u64,
    },
    /// Everything goes to other counters, which count time from another moment.
    Carry {
        start: u64,
    },
    Commit {
        which: usize,
        back: u64,
    },
    Hold {
        policy: usize,
        counter: usize,
        row: usize,
        key: u8,
        amount: u64,
        back: u64,
    },
    Release {
        which: usize,
    },
    Reset {
        counter: usize,
        key: u8,
    },
    /// Another policy goes on with all counters; the oldest one is forgotten if there are many.
    Reload {
        counters: Vec<Counter>,
    },
    /// To when the last refusal said, or one nanosecond less, and the same again.
    Retry {
        early: bool,
    },
    Unblock {
        counter: usize,
        key: u8,
    },
}

/// What a hold asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    policy: usize,
    counter: usize,
    row: usize,
    key: u8,
    amount: u64,
}

/// The counters beside the oracle.
pub(super) struct Trial {
    tested: Counters,
    /// Of each policy that the oracle knows.
    seats: Vec<Seats>,
    oracle: Oracle,
    held: Vec<Asked>,
    refused: Option<(u64, Asked)>,
    clock: u64,
    /// The oracle's time at which the tested counters' time began.
    start: u64,
    /// What one unit is, so that amounts need 32 bits or more.
    unit: u64,
}

impl Trial {
    pub(super) fn new(counters: Vec<Counter>, unit: u64) -> Self {
        let tested = Counters::new(1000);
        let seats = vec![tested.seat(&counters, &[])];
        let oracle = Oracle { counters: vec![counters], is_mixed: false, now: 0, keys: BTreeMap::new() };
        Self { tested, seats, oracle, held: Vec::new(), refused: None, clock: EPOCH, start: 0, unit }
    }

    /// The tested counters' time.
    fn at(&self, time: u64) -> Duration {
        at(time - self.start)
    }

    fn load(&self, counter: usize, amount: u64) -> Load {
        match self.oracle.counts(counter) {
            Counts::Amounts => Load::Amount(amount),
            Counts::Tries => Load::Try,
            Counts::Values => Load::Value(amount),
        }
    }

    pub(super) fn play(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Reload { ref counters } => self.reload(counters),
            Event::Advance { by } => self.clock += by,
            Event::Block { counter, key, length } => {
                self.oracle.now = self.oracle.now.max(self.clock);
                let (now, until) = (self.oracle.now, self.clock + length);
                self.tested.block(self.at(self.clock), counter, &[key], self.at(until));
                let history = self.oracle.history(counter, key);
                if until > now {
                    let (since, end) = history.block(now).unwrap_or((now, until));
                    history.block = Some((since, end.max(until)));
                }
            }
            Event::Carry { start } => self.carry(start),
            Event::Commit { .. } | Event::Release { .. } if self.held.is_empty() => {}
            Event::Commit { which, back } => self.commit(which, back),
            Event::Hold { policy, counter, row, key, amount, back } => {
                let row = if usize::from(key) < ROWS { key.into() } else { row };
                let asked = Asked { policy: policy % self.seats.len(), counter, row, key, amount: amount * self.unit };
                self.hold(self.clock - back, asked)?;
            }
            Event::Release { which } => {
                let Asked { counter, key, amount, .. } = self.held.swap_remove(which % self.held.len());
                self.tested.release(counter, &[key], self.load(counter, amount));
                if self.oracle.counts(counter) != Counts::Tries {
                    self.oracle.history(counter, key).give_back(amount);
                }
            }
            Event::Reset { counter, key } => {
                self.oracle.now = self.oracle.now.max(self.clock);
                let (now, longest) = (self.oracle.now, self.oracle.longest(counter));
                let is_charged = self.oracle.history(counter, key).charged(now, longest) > 0;
                prop_assert_eq!(self.tested.reset(self.at(self.clock), counter, &[key]), is_charged);
                self.oracle.history(counter, key).commits.clear();
            }
            Event::Retry { early } => match self.refused.take() {
                Some((until, asked)) if until > self.clock => {
                    self.clock = until - u64::from(early);
                    self.hold(self.clock, asked)?;
                }
                Some(_) | None => {}
            },
            Event::Unblock { counter, key } => {
                self.oracle.now = self.oracle.now.max(self.clock);
                let now = self.oracle.now;
                let is_blocked = self.oracle.history(counter, key).block(now).is_some();
                prop_assert_eq!(self.tested.unblock(self.at(self.clock), counter, &[key]), is_blocked);
                self.oracle.history(counter, key).block = None;
            }
        }
        Ok(())
    }

    fn hold(&mut self, time: u64, asked: Asked) -> Result<(), TestCaseError> {
        let Asked { policy, counter, row, key, amount } = asked;
        self.oracle.now = self.oracle.now.max(time);
        let expected = self.oracle.verdict(time, &asked);
        let row = self.seats[policy].row(counter, row);
        let verdict = self.tested.hold_in_steps(self.at(time), counter, row, &[key], self.load(counter, amount));
        prop_assert_eq!(&verdict, &expected, "{:?} at {}", asked, time);
        match verdict {
            Ok(_) if self.load(counter, amount) == Load::Amount(0) => {}
            Ok(_) => {
                self.held.push(asked);
                if self.oracle.counts(counter) != Counts::Tries {
                    self.oracle.history(counter, key).held.push(amount);
                }
            }
            Err(Exceeded { retry_after: Some(wait), .. }) => self.refused = Some((time + nanos(wait), asked)),
            Err(_) => {}
        }
        prop_assert!(self.tested.keys() >= self.oracle.live());
        Ok(())
    }

    fn commit(&mut self, which: usize, back: u64) {
        let Asked { counter, row, key, amount, .. } = self.held.swap_remove(which % self.held.len());
        let time = self.clock - back;
        self.oracle.now = self.oracle.now.max(time);
        if self.oracle.counts(counter) == Counts::Tries {
            let is_refused = amount / self.unit % 2 == 1;
            self.tested.note(self.at(time), counter, row, &[key], is_refused);
            let now = self.oracle.now;
            self.oracle.history(counter, key).commits.push((now, is_refused.into()));
            return;
        }
        self.tested.commit(self.at(time), counter, &[key], self.load(counter, amount));
        let now = self.oracle.now;
        let history = self.oracle.history(counter, key);
        history.give_back(amount);
        history.commits.push((now, amount));
    }

    /// What is held is taken along as its sessions would: each holds again, which cannot fail.
    fn carry(&mut self, start: u64) {
        let now = self.oracle.now.max(self.clock);
        let unlimited = Row::default();
        let newest = self.oracle.counters.pop().unwrap();
        let mut counters = newest.clone();
        counters.iter_mut().for_each(|counter| counter.rows.push(unlimited.clone()));
        let new = Counters::new(1000);
        self.seats = vec![new.seat(&counters, &[])];
        self.oracle.counters = vec![newest];
        self.refused.iter_mut().for_each(|(_, asked)| asked.policy = 0);
        let (mut cursor, old) = (Cursor::default(), self.at(now));
        // Just as far before the present as time may go back, or long before.
        self.start = now - 20 - start;
        loop {
            let records = self.tested.export(old, &mut cursor, 2);
            if records.is_empty() {
                break;
            }
            records.into_iter().for_each(|record| new.import(self.at(now), record));
        }
        for Asked { counter, key, amount, .. } in &self.held {
            let block = self.oracle.history(*counter, *key).block(now);
            new.unblock(self.at(now), *counter, &[*key]);
            new.hold(self.at(now), *counter, ROWS, &[*key], self.load(*counter, *amount)).unwrap();
            if let Some((_, until)) = block {
                new.block(self.at(now), *counter, &[*key], self.at(until));
                self.oracle.history(*counter, *key).block = Some((now, until));
            }
        }
        new.sweep(self.at(now), 1);
        (self.tested, self.oracle.now) = (new, now);
    }

    /// Sessions of a policy that is forgotten are over; what they hold, their last act may commit.
    fn reload(&mut self, counters: &[Counter]) {
        let mut counters = counters.to_vec();
        for (number, counter) in counters.iter_mut().enumerate() {
            counter.counts = self.oracle.counts(number);
            counter.rows.iter_mut().for_each(|row| fit(row, counter.counts));
        }
        let heirs: Vec<_> = (0..counters.len()).map(Some).collect();
        self.seats.push(self.tested.seat(&counters, &heirs));
        self.oracle.counters.push(counters);
        self.oracle.is_mixed = true;
        if self.seats.len() > POLICIES {
            self.tested.leave(&self.seats.remove(0));
            self.oracle.counters.remove(0);
            self.refused = None;
        }
    }

    /// After all windows and blocks only what is held is left.
    pub(super) fn finish(&mut self) -> Result<(), TestCaseError> {
        self.oracle.check_all_windows()?;
        check_orders(&self.tested);
        self.oracle.now += 100;
        while self.tested.sweep(self.at(self.oracle.now), 10) > 0 {}
        prop_assert_eq!(self.tested.keys(), self.oracle.live());
        prop_assert_eq!(self.tested.evictions(), 0);
        check_orders(&self.tested);
        Ok(())
    }
}

/// Every key can be found, is where it belongs and nowhere else, and is counted as what it is.
pub(super) fn check_orders(counters: &Counters) {
    let rules = counters.rules.load();
    let mut tallied = vec![(0, 0, 0); rules.counters()];
    for shard in &counters.shards {
        let shard = locked(&rules, shard, 0);
        let (mut idle, mut pinned) = (BTreeSet::new(), BTreeSet::new());
        for slot in 0..shard.shard.slab.slots() {
            let Some(entry) = shard.shard.slab.get(slot) else {
                continue;
            };
            let (_, name) = rules.locate(entry.counter(), entry.key.as_slice());
            assert_eq!(shard.find(&name), Some(slot));
            let (keys, limited, blocked) = &mut tallied[entry.counter()];
            *keys += 1;
            match &entry.pin {
                Pin::Blocked(_) => *blocked += 1,
                Pin::Free => {}
                Pin::Full(_) | Pin::Refused(_) => *limited += 1,
            }
            if let Some((tier, until)) = entry.pin.rank() {
                pinned.insert((tier, until, slot));
            } else if entry.held == 0 {
                idle.insert(slot);
            }
        }
        let orders = || shard.shard.orders.iter();
        let listed: Vec<u32> = orders().flat_map(|order| order.idle(&shard.shard.slab)).collect();
        assert_eq!((listed.len(), listed.into_iter().collect()), (idle.len(), idle));
        assert_eq!(orders().flat_map(Order::pinned).collect::<BTreeSet<_>>(), pinned);
    }
    for (counter, tally) in tallied.into_iter().enumerate() {
        let stats = counters.stats(counter);
        assert_eq!((stats.keys, stats.limited, stats.blocked), tally);
    }
}

/// Leaves of a row what bounds such counts.
pub(super) fn fit(row: &mut Row, counts: Counts) {
    if counts != Counts::Amounts {
        row.steps = Steps::default();
    }
    match counts {
        Counts::Amounts => row.shares.clear(),
        Counts::Tries => {
            row.rates.retain(|rate| rate.amount == 0 || rate.amount == u64::MAX);
            row.concurrent = None;
        }
        Counts::Values => {
            row.shares.clear();
            row.concurrent = None;
        }
    }
}

/// The time at which trials begin, after which others can.
const EPOCH: u64 = 1000;
/// How many policies have sessions at most.
const POLICIES: usize = 3;
/// Bounds of each counter.
pub(super) const ROWS: usize = 2;
