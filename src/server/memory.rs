//! How much all sessions together keep of what MTAs send: envelopes, packets that have not come whole, and what waits for a
//! look-up or for the MTA to read.
//!
//! One session has its bounds (a frame, the recipients of a message); thousands that reach them are more than a host has. A
//! session that keeps more than usual while all together keep too much is closed, and its MTA takes its default action.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// What a session may keep in any case.
const SMALL: usize = 64 << 10;

/// In steps of this size is counted, so that what is usual costs nothing.
const GRAIN: usize = 16 << 10;

/// What all sessions keep, in octets.
#[derive(Debug, Default)]
pub(super) struct Kept {
    octets: AtomicUsize,
}

/// The part of one session; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    all: &'a Kept,
    counted: usize,
}

impl Kept {
    /// How much there is, to the [`GRAIN`].
    pub(super) fn octets(&self) -> usize {
        self.octets.load(Ordering::Relaxed)
    }
}

impl<'a> Share<'a> {
    pub(super) const fn new(all: &'a Kept) -> Self {
        Self { all, counted: 0 }
    }

    /// The session keeps so much now. False if that is too much, since all keep more than `most`.
    pub(super) fn keep(&mut self, octets: usize, most: usize) -> bool {
        let grains = octets / GRAIN * GRAIN;
        if grains == self.counted {
            return true;
        }
        let before = std::mem::replace(&mut self.counted, grains);
        let all = match grains.checked_sub(before) {
            Some(more) => self.all.octets.fetch_add(more, Ordering::Relaxed).saturating_add(more),
            None => self.all.octets.fetch_sub(before - grains, Ordering::Relaxed),
        };
        grains <= before || octets <= SMALL || all <= most
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.all.octets.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_grows_when_there_is_no_room_has_to_go() {
        let all = Kept::default();
        let (mut first, mut second) = (Share::new(&all), Share::new(&all));
        assert!(first.keep(1 << 20, 1 << 20));
        assert!(second.keep(SMALL, 1 << 20), "a little is for everybody");
        assert!(!second.keep(2 * SMALL, 1 << 20));
        assert!(first.keep(512 << 10, 1 << 20), "who shrinks may stay");
        drop(second);
        assert_eq!(all.octets(), 512 << 10);
        drop(first);
        assert_eq!(all.octets(), 0);
    }

    #[test]
    fn what_is_usual_is_not_counted() {
        let all = Kept::default();
        let mut share = Share::new(&all);
        for octets in [0, 100, GRAIN - 1] {
            assert!(share.keep(octets, 0));
        }
        assert_eq!(all.octets(), 0);
    }
}
