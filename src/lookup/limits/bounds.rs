//! Whether an amount fits: the bounds of a counter, row by row, against what one key has used.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Block;
use super::By;
use super::Counts;
use super::Exceeded;
use super::Load;
use super::Row;
use super::Steps;
use super::charges::Charges;
use super::entry::Blocked;
use super::tries::ShareBound;
use super::tries::Tries;
use crate::config::MOST_APART;
use crate::config::Rate;
use crate::config::scaled;

/// Rows of bounds, of all policies that count with a counter. A row keeps its number as long as one of them has it.
#[derive(Clone, Default)]
pub(super) struct Bounds {
    rows: Vec<Option<Seated>>,
    /// The row that stands for one that is not there any more.
    default: usize,
    /// The newest policy's rows that are not for all, by whose they are.
    named: HashMap<Arc<str>, usize>,
    /// The longest window of all rows, for which charges are kept; 0 if there is none.
    pub(super) longest: u64,
    pub(super) counts: Counts,
    /// How exactly charges are dated where no rate bounds how many there are.
    coarse: u64,
    /// How many different values of one key are kept at most: as many as may be in any window, so that none of those is missed.
    pub(super) most_values: usize,
}

#[derive(Clone)]
struct Seated {
    row: Arc<RowBounds>,
    /// How many policies have it.
    users: usize,
}

/// A [`Row`], in nanoseconds.
struct RowBounds {
    written: Arc<Row>,
    /// As if there were no steps.
    whole: StepBounds,
    /// One for each step, the lowest first.
    steps: Vec<StepBounds>,
    /// The step above which nothing passes, and the one above which nothing is reserved.
    blocking: usize,
    ceiling: usize,
}

/// The bounds of a row at one of its steps.
struct StepBounds {
    rates: Vec<RateBound>,
    shares: Vec<ShareBound>,
    concurrent: Option<u64>,
}

struct RateBound {
    amount: u64,
    per: u64,
}

/// [`Exceeded`], with the absolute time, or [`NEVER`].
pub(super) struct Refusal {
    by: Refuser,
    step: usize,
    used: u64,
    pub(super) until: u64,
}

pub(super) enum Refuser {
    Block { since: u64 },
    Concurrent,
    Rate(usize),
    Share(usize),
}

/// The rows that there were, by number: for which keys.
pub(super) type Names = Vec<Option<Option<Arc<str>>>>;

impl Bounds {
    /// No rows yet.
    pub(super) fn new(counts: Counts) -> Self {
        Self { counts, ..Self::default() }
    }

    /// Adds the rows of a policy, and gives their numbers. What equals one that is there is that one.
    pub(super) fn seat(&mut self, rows: &[Row]) -> Vec<usize> {
        let before: HashMap<Row, usize> =
            self.seated().map(|(number, seated)| (Row::clone(&seated.row.written), number)).collect();
        let taken: HashSet<usize> = before.values().copied().collect();
        let mut free = (0..).filter(|number| !taken.contains(number));
        let mut numbers = Vec::with_capacity(rows.len());
        for row in rows {
            let number = before.get(row).copied().unwrap_or_else(|| free.next().unwrap_or(usize::MAX));
            if number >= self.rows.len() {
                self.rows.resize(number + 1, None);
            }
            if let Some(place) = self.rows.get_mut(number) {
                let seated = place.get_or_insert_with(|| Seated { row: Arc::new(RowBounds::new(row)), users: 0 });
                seated.users += 1;
            }
            numbers.push(number);
        }
        self.default = numbers.first().copied().unwrap_or_default();
        let named = rows.iter().zip(&numbers).filter_map(|(row, number)| Some((row.whose.clone()?, *number)));
        self.named = named.collect();
        self.measure();
        numbers
    }

    /// A policy with these rows has gone.
    pub(super) fn leave(&mut self, rows: &[usize]) {
        for number in rows {
            if let Some(place) = self.rows.get_mut(*number)
                && let Some(seated) = place
            {
                seated.users = seated.users.saturating_sub(1);
                if seated.users == 0 {
                    *place = None;
                }
            }
        }
        // The newest policy, if it never was in force.
        if self.rows.get(self.default).is_none_or(Option::is_none) {
            let first = self.seated().map(|(number, _)| number).next();
            self.default = first.unwrap_or_default();
        }
        self.measure();
    }

    /// For which keys each row is.
    pub(super) fn names(&self) -> Names {
        self.rows.iter().map(|place| place.as_ref().map(|seated| seated.row.written.whose.clone())).collect()
    }

    /// For each row that there was before, the one among these for the same keys, or for all. `None`: all are the same.
    pub(super) fn heirs(&self, before: &Names, rows: &[usize]) -> Option<Vec<usize>> {
        let named: HashMap<_, _> =
            rows.iter().filter_map(|row| Some((self.row(*row)?.written.whose.clone(), *row))).collect();
        let heir = |name: &Option<Option<Arc<str>>>| name.as_ref().and_then(|name| named.get(name)).copied();
        let heirs: Vec<_> = before.iter().map(|name| heir(name).unwrap_or(self.default)).collect();
        let is_same = heirs.iter().enumerate().zip(before).all(|((row, heir), name)| row == *heir || name.is_none());
        (!is_same).then_some(heirs)
    }

    /// Whether `load` fits under all bounds of the row, be it that a step is passed. Of several steps the highest is told,
    /// with the bound that has to give way: its own, or where nothing passes the lowest one of those.
    pub(super) fn check(
        &self,
        row: usize,
        charges: &Charges,
        held: u64,
        now: u64,
        load: Load,
    ) -> Result<Option<Refusal>, Refusal> {
        let Some(row) = self.row(row) else {
            return Ok(None);
        };
        let refusal = |step: usize| row.steps.get(step)?.refusal(self.counts, charges, held, now, load);
        let Some((step, own)) = (0..row.steps.len()).rev().find_map(|step| Some((step, refusal(step)?))) else {
            return Ok(None);
        };
        let to_give_way = Some(row.blocking).filter(|blocking| *blocking < step).and_then(refusal).unwrap_or(own);
        let refusal = Refusal { step, ..to_give_way };
        if step >= row.ceiling { Err(refusal) } else { Ok(Some(refusal)) }
    }

    /// Whether the row has steps, so that it tells of those who are above one already.
    pub(super) fn has_steps(&self, row: usize) -> bool {
        self.row(row).is_some_and(|row| row.written.steps != Steps::default())
    }

    /// The step that a blocked key is at: the first that lets nothing through, or the last.
    pub(super) fn blocked_step(&self, row: usize) -> usize {
        self.row(row).map_or(0, |row| row.blocking.min(row.steps.len().saturating_sub(1)))
    }

    /// How much of the bound that is used most is used, whatever the steps, in thousandths; `None` where nothing is bounded.
    pub(super) fn fullness(&self, row: usize, charges: &Charges, held: u64, now: u64) -> Option<u64> {
        self.row(row)?.whole.fullness(self.counts, charges, held, now)
    }

    /// When there is room again for anything at all, if there is none now and nothing is held.
    pub(super) fn full_until(&self, row: usize, charges: &Charges, now: u64) -> Option<u64> {
        let row = self.row(row)?;
        let lowest = row.steps.first()?;
        let shares = lowest.shares.iter().filter_map(|share| share.refusal(0, charges, now));
        let refusals = lowest.rates.iter().filter_map(|rate| rate.refusal(0, charges, 0, now, 1)).chain(shares);
        refusals.map(|refusal| refusal.until).filter(|until| *until != NEVER).max()
    }

    /// What is charged in each window of the row.
    pub(super) fn used(&self, row: usize, charges: &Charges, now: u64) -> Vec<u64> {
        let rates = self.lowest(row).map_or(&[][..], |lowest| &lowest.rates);
        rates.iter().map(|rate| counted(self.counts, charges.charged(now, rate.per))).collect()
    }

    /// What was tried in the window of each share of the row.
    pub(super) fn tries(&self, row: usize, charges: &Charges, now: u64) -> Vec<Tries> {
        let shares = self.lowest(row).map_or(&[][..], |lowest| &lowest.shares);
        shares.iter().map(|share| Tries::of(charges.charged(now, share.per))).collect()
    }

    /// How much is charged in the longest window of all rows; of tries, those refused.
    pub(super) fn charged(&self, charges: &Charges, now: u64) -> u64 {
        let charged = charges.charged(now, self.longest);
        if self.counts == Counts::Tries { Tries::of(charged).refused.into() } else { charged }
    }

    /// How exactly charges are dated.
    pub(super) fn grain(&self, row: usize) -> u64 {
        let is_bounded = self.row(row).is_some_and(|row| !row.written.rates.is_empty());
        if is_bounded { 1 } else { self.coarse }
    }

    /// The row as it was given.
    pub(super) fn written(&self, row: usize) -> Arc<Row> {
        self.row(row).map(|row| Arc::clone(&row.written)).unwrap_or_default()
    }

    /// The number of the row for these keys, or for all.
    pub(super) fn number(&self, whose: Option<&str>) -> usize {
        whose.and_then(|whose| self.named.get(whose)).copied().unwrap_or(self.default)
    }

    fn lowest(&self, row: usize) -> Option<&StepBounds> {
        self.row(row).and_then(|row| row.steps.first())
    }

    fn row(&self, row: usize) -> Option<&RowBounds> {
        let place = |row: usize| self.rows.get(row).and_then(Option::as_ref);
        place(row).or_else(|| place(self.default)).map(|seated| &*seated.row)
    }

    fn seated(&self) -> impl Iterator<Item = (usize, &Seated)> {
        self.rows.iter().enumerate().filter_map(|(number, place)| Some((number, place.as_ref()?)))
    }

    fn measure(&mut self) {
        let lowest = || self.seated().filter_map(|(_, seated)| seated.row.steps.first());
        let rates = || lowest().flat_map(|step| &step.rates);
        let shares = || lowest().flat_map(|step| &step.shares);
        let longest = rates().map(|rate| rate.per).chain(shares().map(|share| share.per)).max().unwrap_or(0);
        let shortest = shares().map(|share| share.per).min().unwrap_or(longest);
        let most = rates().map(|rate| rate.amount).max().unwrap_or(0);
        self.longest = longest;
        self.coarse = (longest / GRAINS).min(shortest / SHORT_GRAINS).max(longest / MOST_GRAINS).max(1);
        self.most_values = usize::try_from(most).unwrap_or(usize::MAX).max(UNBOUNDED_VALUES);
    }
}

impl RowBounds {
    fn new(row: &Row) -> Self {
        let Steps { percents, blocking, ceiling } = &row.steps;
        let steps = percents.iter().map(|percent| StepBounds::new(row, *percent)).collect();
        let whole = StepBounds::new(row, 100);
        Self { written: Arc::new(row.clone()), whole, steps, blocking: *blocking, ceiling: *ceiling }
    }
}

impl StepBounds {
    /// A window contains at least the present moment.
    fn new(row: &Row, percent: u32) -> Self {
        let rates = row.rates.iter();
        let bound = |rate: &Rate| RateBound { amount: rate.scaled(percent).amount, per: nanos(rate.per).max(1) };
        let shares = row.shares.iter().map(ShareBound::new).collect();
        let concurrent = row.concurrent.map(|bound| scaled(bound, percent));
        Self { rates: rates.map(bound).collect(), shares, concurrent }
    }

    fn refusal(&self, counts: Counts, charges: &Charges, held: u64, now: u64, load: Load) -> Option<Refusal> {
        let amount = load.amount();
        let rates = self.rates.iter().enumerate().filter(|(_, rate)| !rate.has_already(load, charges, now));
        let rates = rates.filter_map(|(index, rate)| rate.refusal(index, charges, held, now, amount));
        let rates = rates.map(|refusal| Refusal { used: counted(counts, refusal.used), ..refusal });
        let concurrent = self.concurrent.filter(|bound| !fits(held, amount, *bound));
        let concurrent = concurrent.map(|_| Refusal::new(Refuser::Concurrent, held, NEVER));
        let shares = self.shares.iter().enumerate();
        let shares = shares.filter_map(|(index, share)| share.refusal(index, charges, now));
        rates.chain(shares).chain(concurrent).min_by_key(|refusal| Reverse(refusal.until))
    }
}

impl StepBounds {
    fn fullness(&self, counts: Counts, charges: &Charges, held: u64, now: u64) -> Option<u64> {
        let used = |rate: &RateBound| counted(counts, charges.charged(now, rate.per).saturating_add(held));
        let rates = self.rates.iter().map(|rate| thousandths(used(rate), rate.amount));
        let shares = self.shares.iter().map(|share| share.fullness(charges, now));
        let concurrent = self.concurrent.map(|bound| thousandths(held, bound));
        rates.chain(shares).chain(concurrent).max()
    }
}

impl RateBound {
    /// Whether it is a value that is in the window already, and so is not one more. Where nothing is allowed, none is.
    fn has_already(&self, load: Load, charges: &Charges, now: u64) -> bool {
        match load {
            Load::Amount(_) | Load::Try => false,
            Load::Value(value) => {
                self.amount > 0 && charges.values().is_some_and(|values| values.has(value, now, self.per))
            }
        }
    }

    fn refusal(&self, index: usize, charges: &Charges, held: u64, now: u64, amount: u64) -> Option<Refusal> {
        let used = charges.charged(now, self.per).saturating_add(held);
        if fits(used, amount, self.amount) {
            return None;
        }
        let allowed = self.amount.checked_sub(amount).and_then(|rest| rest.checked_sub(held));
        let last = allowed.and_then(|allowed| charges.last_beyond(allowed));
        let until = last.map_or(NEVER, |last| last.saturating_add(self.per));
        Some(Refusal { by: Refuser::Rate(index), step: 0, used, until })
    }
}

impl Refusal {
    pub(super) const fn new(by: Refuser, used: u64, until: u64) -> Self {
        Self { by, step: 0, used, until }
    }

    pub(super) const fn blocked(block: &Blocked, step: usize) -> Self {
        Self { by: Refuser::Block { since: block.since }, step, used: 0, until: block.until }
    }

    pub(super) fn seen_from(self, asked: u64) -> Exceeded {
        let left = Duration::from_nanos(self.until.saturating_sub(asked));
        let by = match self.by {
            Refuser::Block { since } => {
                By::Block(Block { age: Duration::from_nanos(asked.saturating_sub(since)), left })
            }
            Refuser::Concurrent => By::Concurrent,
            Refuser::Rate(index) => By::Rate(index),
            Refuser::Share(index) => By::Share(index),
        };
        Exceeded { by, step: self.step, used: self.used, retry_after: (self.until != NEVER).then_some(left) }
    }
}

fn fits(used: u64, amount: u64, bound: u64) -> bool {
    used.checked_add(amount).is_some_and(|sum| sum <= bound)
}

/// A sum of charges as a count; of tries, all of them.
fn counted(counts: Counts, charged: u64) -> u64 {
    if counts == Counts::Tries { Tries::of(charged).tried.into() } else { charged }
}

/// Of nothing that is allowed all is used.
pub(super) fn thousandths(used: u64, bound: u64) -> u64 {
    used.saturating_mul(1000).checked_div(bound).unwrap_or(1000)
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Later than any time.
pub(super) const NEVER: u64 = u64::MAX;
/// Different values that are kept of a key without rates.
const UNBOUNDED_VALUES: usize = 1000;
/// Entries in the longest window of a key without rates, at most,
const GRAINS: u64 = 1024;
/// unless there are fewer than so many in the shortest one of a share: what is dated late counts in it for too long.
const SHORT_GRAINS: u64 = 16;
/// More there never are.
const MOST_GRAINS: u64 = SHORT_GRAINS * MOST_APART;
