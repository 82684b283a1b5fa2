//! How full limits were when they were asked: a histogram for each counter, of the bound that was used most.
//!
//! Not how full they are: that would take a look at every key.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What each part of the histogram goes up to, in thousandths of the bound. Above the last one there are keys whose bound
/// has become smaller.
pub(crate) const FULLNESS_BOUNDS: [u64; 6] = [100, 250, 500, 750, 900, 1000];

/// How often a counter was asked, by how full it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fullness {
    /// How often it was that full: one for each of [`FULLNESS_BOUNDS`], and one for what is above.
    pub(crate) counts: [u64; FULLNESS_BOUNDS.len() + 1],
    /// All of it together, in thousandths.
    pub(crate) sum: u64,
}

/// The same while it is counted.
#[derive(Default)]
pub(super) struct Asked {
    counts: [AtomicU64; FULLNESS_BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Asked {
    /// It was so full, in thousandths.
    pub(super) fn observe(&self, fullness: u64) {
        let part = FULLNESS_BOUNDS.partition_point(|bound| *bound < fullness);
        if let Some(count) = self.counts.get(part) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(fullness.min(MOST), Ordering::Relaxed);
    }

    pub(super) fn so_far(&self) -> Fullness {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Fullness { counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// A bound may have become as small as one likes; the sum stays one.
const MOST: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        let asked = Asked::default();
        for fullness in [0, 100, 101, 1000, 1001, u64::MAX] {
            asked.observe(fullness);
        }
        assert_eq!(asked.so_far(), Fullness { counts: [2, 1, 0, 0, 0, 1, 2], sum: 2202 + MOST });
    }

    /// What is asked for counts if it passed; of several bounds the fullest one does; a blocked key is not judged.
    #[test]
    fn every_judgement_is_counted_once() {
        let counters = one(rates(&[rate(4, 10), rate(40, 100)]));
        for held in [true, true, true, true, false] {
            assert_eq!(counters.hold(at(0), 0, 0, KEY, 1).is_ok(), held);
        }
        // 1/4, 2/4, 3/4, 4/4, and 4/4 once more.
        assert_eq!(counters.fullness(0), Fullness { counts: [0, 1, 1, 1, 0, 2, 0], sum: 3500 });
        counters.block(at(1), 0, KEY, at(9));
        assert!(counters.hold(at(2), 0, 0, KEY, 1).is_err());
        assert!(counters.hold(at(2), 0, 0, b"other", 5).is_err());
        assert_eq!(counters.fullness(0).counts, [1, 1, 1, 1, 0, 2, 0]);
    }

    #[test]
    fn of_nothing_that_is_allowed_all_is_used() {
        let counters = one(rates(&[rate(0, 10)]));
        assert!(counters.hold(at(0), 0, 0, KEY, 1).is_err());
        assert_eq!(counters.fullness(0), Fullness { counts: [0, 0, 0, 0, 0, 1, 0], sum: 1000 });
    }
}
