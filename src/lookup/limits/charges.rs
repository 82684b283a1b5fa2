//! What one key was charged, and when.
//!
//! Entries carry running totals, so that a window's sum is a subtraction, and both its beginning and the time at which
//! it has room again are binary searches: nothing is kept for each rate, hence nothing can fall out of step. Most keys
//! are charged once and never seen again, so one charge needs no memory of its own. A long log is made of pieces: it
//! grows and shrinks without being copied as a whole, and whoever copies it shares all pieces but the last.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Counts;
use super::values::Values;

/// The charges of a key, by time. Those of one moment are one entry.
#[derive(Clone, Debug, Default)]
pub(super) enum Charges {
    #[default]
    None,
    One {
        amount: u32,
        time: u64,
    },
    Many(Box<Log>),
    /// Of a counter of different values; what is held of them is in here, too.
    Values(Box<Values>),
}

impl Charges {
    /// Charges with these dates, in any order.
    pub(super) fn of(counts: Counts, mut dated: Vec<(u64, u64)>) -> Self {
        if counts == Counts::Values {
            return Self::Values(Box::new(dated.into_iter().collect()));
        }
        let mut charges = Self::None;
        dated.sort_by_key(|(time, _)| *time);
        dated.into_iter().for_each(|(time, amount)| charges.charge(time, amount, 1));
        charges
    }

    /// The date of the last one.
    pub(super) fn last(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::One { time, .. } => Some(*time),
            Self::Many(log) => log.last().map(|charge| charge.time),
            Self::Values(values) => values.last(),
        }
    }

    fn first(&self) -> Option<u64> {
        self.iter().next().map(|(time, _)| time)
    }

    /// What is charged inside `(now - per, now]`.
    pub(super) fn charged(&self, now: u64, per: u64) -> u64 {
        match self {
            Self::One { amount, time } if is_inside(*time, now, per) => u64::from(*amount),
            Self::None | Self::One { .. } => 0,
            Self::Many(log) => {
                let outside = log.partition_point(|charge| !is_inside(charge.time, now, per));
                log.total().wrapping_sub(log.total_of(outside))
            }
            Self::Values(values) => values.charged(now, per),
        }
    }

    /// The date of the charge that has to leave a window before no more than `allowed` is in it, where now there is more.
    pub(super) fn last_beyond(&self, allowed: u64) -> Option<u64> {
        match self {
            Self::None => None,
            Self::One { time, .. } => Some(*time),
            Self::Many(log) => {
                let total = log.total();
                let index = log.partition_point(|charge| total.wrapping_sub(charge.total) > allowed);
                log.get(index).map(|charge| charge.time)
            }
            Self::Values(values) => values.last_beyond(allowed),
        }
    }

    /// Adds `amount`, dated `now`, which is not before the last charge; with a `grain` above 1, charges that fall into the
    /// same one are dated as the last of them. All together stay within u64.
    pub(super) fn charge(&mut self, now: u64, amount: u64, grain: u64) {
        match self {
            Self::None => *self = Self::one(now, amount),
            Self::One { amount: before, time } => {
                let sum = u64::from(*before).saturating_add(amount);
                if is_same(now, *time, grain) {
                    *self = Self::one(now, sum);
                } else {
                    let mut log = Log::of(*time, u64::from(*before));
                    log.push(now, amount, grain);
                    *self = Self::Many(Box::new(log));
                }
            }
            Self::Many(log) => log.push(now, amount, grain),
            // A counter never counts both.
            Self::Values(_) => {}
        }
    }

    /// Drops what has left the longest window, and memory that a burst has left behind.
    pub(super) fn forget(&mut self, now: u64, longest: u64) {
        match self {
            Self::None => {}
            Self::One { time, .. } if is_inside(*time, now, longest) => {}
            Self::One { .. } => *self = Self::None,
            Self::Many(log) => {
                log.forget(now, longest);
                match (log.len() - log.skipped, log.last().copied()) {
                    (1, Some(last)) => *self = Self::one(last.time, log.total().wrapping_sub(log.before)),
                    (0, _) | (_, None) => *self = Self::None,
                    _ => {}
                }
            }
            Self::Values(_) => self.change_values(|values| values.forget(now, longest)),
        }
    }

    /// Forgets all; whether there was anything. What is held stays.
    pub(super) fn reset(&mut self) -> bool {
        let was_charged = self.last().is_some();
        match self {
            Self::Values(_) => self.change_values(Values::reset),
            Self::None | Self::One { .. } | Self::Many(_) => *self = Self::None,
        }
        was_charged
    }

    /// The different values, of a counter of such.
    pub(super) const fn values(&self) -> Option<&Values> {
        match self {
            Self::Values(values) => Some(values),
            Self::None | Self::One { .. } | Self::Many(_) => None,
        }
    }

    /// Changes the different values, of a counter of such.
    pub(super) fn change_values(&mut self, change: impl FnOnce(&mut Values)) {
        let mut values = match std::mem::take(self) {
            Self::Values(values) => values,
            Self::None | Self::One { .. } | Self::Many(_) => Box::default(),
        };
        change(&mut values);
        if !values.is_empty() {
            *self = Self::Values(values);
        }
    }

    /// Times and amounts, by time; or times and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let one = match self {
            Self::One { amount, time } => Some((*time, u64::from(*amount))),
            Self::None | Self::Many(_) | Self::Values(_) => None,
        };
        let many = match self {
            Self::Many(log) => Some(log.iter()),
            Self::None | Self::One { .. } | Self::Values(_) => None,
        };
        let values = self.values().map(Values::iter);
        one.into_iter().chain(many.into_iter().flatten()).chain(values.into_iter().flatten())
    }

    /// All charges of both; of different values the newest `most`. Only if they overlap is this more than adding the later
    /// ones to the earlier.
    pub(super) fn merge(&mut self, other: Self, most: usize) {
        let mut other = other;
        if let Self::Values(others) = &other {
            self.change_values(|values| values.merge(others, most));
            return;
        }
        if other.last() <= self.first() {
            std::mem::swap(self, &mut other);
        }
        if self.last().is_none() {
            *self = other;
            return;
        }
        if self.last() <= other.first() {
            other.iter().for_each(|(time, amount)| self.charge(time, amount, 1));
            return;
        }
        let mut all: Vec<_> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        *self = Self::None;
        all.into_iter().for_each(|(time, amount)| self.charge(time, amount, 1));
    }

    fn one(time: u64, amount: u64) -> Self {
        match u32::try_from(amount) {
            Ok(0) => Self::None,
            Ok(amount) => Self::One { amount, time },
            Err(_) => Self::Many(Box::new(Log::of(time, amount))),
        }
    }
}

/// Two charges or more, or one that is large.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The running total before the first entry that is not skipped.
    before: u64,
    /// How many entries at the front have been forgotten, though their piece is still there.
    skipped: usize,
    /// Full pieces, which never change.
    older: VecDeque<Arc<[Charge]>>,
    /// The last piece: not empty.
    recent: SmallVec<[Charge; FEW]>,
}

#[derive(Clone, Copy, Debug)]
struct Charge {
    time: u64,
    /// Running total up to and including this entry. It wraps around, which differences don't notice.
    total: u64,
}

impl Log {
    fn of(time: u64, amount: u64) -> Self {
        let recent = std::iter::once(Charge { time, total: amount }).collect();
        Self { before: 0, skipped: 0, older: VecDeque::new(), recent }
    }

    fn len(&self) -> usize {
        self.older.len() * PIECE + self.recent.len()
    }

    fn get(&self, index: usize) -> Option<&Charge> {
        match self.older.get(index / PIECE) {
            Some(piece) => piece.get(index % PIECE),
            None => self.recent.get(index - self.older.len() * PIECE),
        }
    }

    fn last(&self) -> Option<&Charge> {
        self.recent.last()
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let charges = self.older.iter().flat_map(|piece| piece.iter()).chain(self.recent.iter()).skip(self.skipped);
        charges.scan(self.before, |before, charge| {
            let amount = charge.total.wrapping_sub(*before);
            *before = charge.total;
            Some((charge.time, amount))
        })
    }

    fn total(&self) -> u64 {
        self.last().map_or(self.before, |charge| charge.total)
    }

    /// The running total of the first `count` entries, which is not less than are skipped.
    fn total_of(&self, count: usize) -> u64 {
        if count <= self.skipped {
            return self.before;
        }
        self.get(count - 1).map_or(self.before, |charge| charge.total)
    }

    /// How many entries at the front are as `is_before` says, those skipped included.
    fn partition_point(&self, is_before: impl Fn(&Charge) -> bool) -> usize {
        let (mut low, mut high) = (self.skipped, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(&is_before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn push(&mut self, now: u64, amount: u64, grain: u64) {
        let room = u64::MAX - self.total().wrapping_sub(self.before);
        let total = self.total().wrapping_add(amount.min(room));
        match self.recent.last_mut() {
            Some(last) if is_same(now, last.time, grain) => *last = Charge { time: now, total },
            _ => {
                self.make_room();
                self.recent.push(Charge { time: now, total });
            }
        }
    }

    fn make_room(&mut self) {
        if self.recent.len() == self.recent.capacity() {
            self.compact();
        }
        if self.recent.len() == PIECE {
            self.older.push_back(std::mem::take(&mut self.recent).as_slice().into());
        }
    }

    fn forget(&mut self, now: u64, longest: u64) {
        let outside = self.partition_point(|charge| !is_inside(charge.time, now, longest));
        self.before = self.total_of(outside);
        self.skipped = outside;
        while self.skipped >= PIECE && self.older.pop_front().is_some() {
            self.skipped -= PIECE;
        }
        if (self.len() - self.skipped) * 4 < self.recent.capacity() {
            self.compact();
            self.recent.shrink_to_fit();
        }
    }

    /// Takes what is skipped out of the only piece.
    fn compact(&mut self) {
        if self.older.is_empty() && self.skipped < self.recent.len() {
            self.recent.drain(..self.skipped);
            self.skipped = 0;
        }
    }
}

const fn is_inside(time: u64, now: u64, per: u64) -> bool {
    now.saturating_sub(time) < per
}

const fn is_same(now: u64, time: u64, grain: u64) -> bool {
    now == time || (grain > 1 && now / grain == time / grain)
}

/// Entries that a log has room for without more memory. So many make it larger than 128 bytes: what is not, glibc collects
/// when it is freed, and after some millions sorts it all at once, which takes a second.
const FEW: usize = 6;
/// Entries in a piece: few where tests are, so that they have many pieces.
const PIECE: usize = if cfg!(test) { 8 } else { 256 };

#[cfg(test)]
mod tests {
    use super::*;

    fn charges(all: &[(u64, u64)]) -> Charges {
        let mut charges = Charges::None;
        all.iter().for_each(|(time, amount)| charges.charge(*time, *amount, 1));
        charges
    }

    fn listed(charges: &Charges) -> Vec<(u64, u64)> {
        charges.iter().collect()
    }

    #[test]
    fn a_charge_takes_sixteen_bytes() {
        assert_eq!(size_of::<Charges>(), 16);
    }

    #[test]
    fn a_log_is_no_small_piece_of_memory() {
        assert!(size_of::<Log>() > 128);
    }

    #[test]
    fn sums_are_those_of_the_window() {
        let all: Vec<_> = (0..30).map(|time| (time * 10, time + 1)).collect();
        let charges = charges(&all);
        for now in 290..700 {
            for per in 1..400 {
                let inside = |(time, _): &&(u64, u64)| now - time < per;
                let expected: u64 = all.iter().filter(inside).map(|(_, amount)| amount).sum();
                assert_eq!(charges.charged(now, per), expected, "{per} until {now}");
            }
        }
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut charges = charges(&(0..1000).map(|time| (time, 1)).collect::<Vec<_>>());
        charges.forget(1990, 1000);
        assert_eq!(charges.charged(1990, 1000), 9);
        let Charges::Many(log) = &charges else { panic!("{charges:?}") };
        assert!(log.older.len() <= 9 / PIECE + 1 && log.recent.capacity() <= PIECE, "{log:?}");
        charges.forget(1998, 1000);
        assert!(matches!(charges, Charges::One { amount: 1, time: 999 }));
        charges.forget(1999, 1000);
        assert!(matches!(charges, Charges::None));
    }

    /// What is skipped stays in its piece until that is full; no sum may notice.
    #[test]
    fn forgetting_changes_nothing_inside_the_window() {
        let mut charges = Charges::None;
        let mut all = Vec::new();
        for time in (0..500).map(|step| step * 3) {
            let amount = time % 7 + 1;
            charges.forget(time, 40);
            charges.charge(time, amount, 1);
            all.push((time, amount));
            let inside: Vec<_> = all.iter().copied().filter(|(at, _)| time - at < 40).collect();
            assert_eq!(charges.charged(time, 40), inside.iter().map(|(_, amount)| amount).sum::<u64>());
            let kept: Vec<_> = listed(&charges);
            assert!(kept.ends_with(&inside[1..]) && kept.len() <= inside.len() + 1, "{kept:?}");
        }
    }

    #[test]
    fn amounts_above_32_bits_are_kept_whole() {
        let large = u64::from(u32::MAX) + 1;
        assert_eq!(listed(&charges(&[(5, large)])), [(5, large)]);
        assert_eq!(listed(&charges(&[(5, large - 1), (5, 1)])), [(5, large)]);
        assert_eq!(
            listed(&charges(&[(5, u64::MAX), (6, 1), (7, 1)])).iter().map(|(_, amount)| amount).max(),
            Some(&u64::MAX)
        );
    }

    #[test]
    fn a_grain_bounds_how_many_there_are() {
        let mut charges = Charges::None;
        for time in 0..10_000 {
            charges.charge(time, 1, 100);
        }
        assert_eq!(listed(&charges).len(), 100);
        assert_eq!(charges.charged(9_999, 10_000), 10_000);
        assert_eq!(charges.charged(9_999, 50), 100, "dated by the last of them, so never too early");
    }

    #[test]
    fn merging_keeps_all_charges_of_both() {
        let (early, late) = (&[(1, 1), (2, 2), (3, 3)][..], &[(3, 4), (9, 5)][..]);
        let both = [(1, 1), (2, 2), (3, 7), (9, 5)];
        for (one, other, expected) in [
            (early, late, &both[..]),
            (late, early, &both[..]),
            (&[][..], late, late),
            (early, &[][..], early),
            (&[(1, 1), (5, 5)][..], &[(2, 2), (8, 8)][..], &[(1, 1), (2, 2), (5, 5), (8, 8)][..]),
        ] {
            let mut merged = charges(one);
            merged.merge(charges(other), 0);
            assert_eq!(listed(&merged), expected);
        }
    }
}
