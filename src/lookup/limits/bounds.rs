//! Whether an amount fits: the bounds of a counter, row by row, against what one key has used.

use std::cmp::Reverse;
use std::time::Duration;

use super::Block;
use super::By;
use super::Counter;
use super::Exceeded;
use super::Row;
use super::charges::Charges;
use super::entry::Blocked;

/// The rows of a [`Counter`], in nanoseconds.
pub(super) struct Bounds {
    rows: Vec<RowBounds>,
    /// The longest window of all rows, for which charges are kept; 0 if there is none.
    pub(super) longest: u64,
}

struct RowBounds {
    rates: Vec<RateBound>,
    concurrent: Option<u64>,
}

struct RateBound {
    amount: u64,
    per: u64,
}

/// [`Exceeded`], with the absolute time, or [`NEVER`].
pub(super) struct Refusal {
    by: Refuser,
    used: u64,
    pub(super) until: u64,
}

enum Refuser {
    Block { since: u64 },
    Concurrent,
    Rate(usize),
}

impl Bounds {
    /// A window contains at least the present moment.
    pub(super) fn new(counter: &Counter) -> Self {
        let rows: Vec<_> = counter.rows.iter().map(RowBounds::new).collect();
        let longest = rows.iter().flat_map(|row| &row.rates).map(|rate| rate.per).max().unwrap_or(0);
        Self { rows, longest }
    }

    /// Whether `amount`, not 0, fits under all bounds of the row.
    pub(super) fn check(&self, row: usize, charges: &Charges, held: u64, now: u64, amount: u64) -> Result<(), Refusal> {
        let Some(row) = self.row(row) else {
            return Ok(());
        };
        let rates = row.rates.iter().enumerate();
        let rates = rates.filter_map(|(index, rate)| rate.refusal(index, charges, held, now, amount));
        let concurrent = row.concurrent.filter(|bound| amount > bound.saturating_sub(held));
        let concurrent = concurrent.map(|_| Refusal { by: Refuser::Concurrent, used: held, until: NEVER });
        rates.chain(concurrent).min_by_key(|refusal| Reverse(refusal.until)).map_or(Ok(()), Err)
    }

    /// When there is room again for anything at all, if there is none now and nothing is held.
    pub(super) fn full_until(&self, row: usize, charges: &Charges, now: u64) -> Option<u64> {
        let row = self.row(row)?;
        let refusals = row.rates.iter().filter_map(|rate| rate.refusal(0, charges, 0, now, 1));
        refusals.map(|refusal| refusal.until).filter(|until| *until != NEVER).max()
    }

    /// What is charged in each window of the row.
    pub(super) fn used(&self, row: usize, charges: &Charges, now: u64) -> Vec<u64> {
        let rates = self.row(row).map_or(&[][..], |row| &row.rates);
        rates.iter().map(|rate| charges.charged(now, rate.per)).collect()
    }

    /// How exactly charges are dated. Where no rate bounds how many there are, a part of the longest window does.
    pub(super) fn grain(&self, row: usize) -> u64 {
        let is_bounded = self.row(row).is_some_and(|row| !row.rates.is_empty());
        if is_bounded { 1 } else { (self.longest / GRAINS).max(1) }
    }

    /// A row that does not exist is the default.
    fn row(&self, row: usize) -> Option<&RowBounds> {
        self.rows.get(row).or_else(|| self.rows.first())
    }
}

impl RowBounds {
    fn new(row: &Row) -> Self {
        let rates = row.rates.iter();
        let rates = rates.map(|rate| RateBound { amount: rate.amount, per: nanos(rate.per).max(1) }).collect();
        Self { rates, concurrent: row.concurrent }
    }
}

impl RateBound {
    fn refusal(&self, index: usize, charges: &Charges, held: u64, now: u64, amount: u64) -> Option<Refusal> {
        let used = charges.charged(now, self.per).saturating_add(held);
        if amount <= self.amount.saturating_sub(used) {
            return None;
        }
        let allowed = self.amount.checked_sub(amount).and_then(|rest| rest.checked_sub(held));
        let last = allowed.and_then(|allowed| charges.last_beyond(allowed));
        let until = last.map_or(NEVER, |last| last.saturating_add(self.per));
        Some(Refusal { by: Refuser::Rate(index), used, until })
    }
}

impl Refusal {
    pub(super) const fn blocked(block: &Blocked) -> Self {
        Self { by: Refuser::Block { since: block.since }, used: 0, until: block.until }
    }

    pub(super) fn seen_from(self, asked: u64) -> Exceeded {
        let left = Duration::from_nanos(self.until.saturating_sub(asked));
        let by = match self.by {
            Refuser::Block { since } => {
                By::Block(Block { age: Duration::from_nanos(asked.saturating_sub(since)), left })
            }
            Refuser::Concurrent => By::Concurrent,
            Refuser::Rate(index) => By::Rate(index),
        };
        Exceeded { by, used: self.used, retry_after: (self.until != NEVER).then_some(left) }
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Later than any time.
pub(super) const NEVER: u64 = u64::MAX;
/// Entries in the longest window of a key without rates, at most.
const GRAINS: u64 = 1024;
