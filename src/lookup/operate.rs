//! What sessions and administrators do to the limits and see of them, by the policy's number of a counter.

use std::time::Duration;
use std::time::SystemTime;

use super::Clock;
use super::Shared;
use super::limits::Block;
use super::limits::Cursor;
use super::limits::Exceeded;
use super::limits::Fullness;
use super::limits::Load;
use super::limits::Stats;
use super::limits::View;
use crate::facts::Hold;

impl Shared {
    /// Reserves under a row of a counter.
    pub(super) fn hold(&self, now: Duration, hold: &Hold, load: impl Into<Load>) -> Result<Option<Exceeded>, Exceeded> {
        let row = self.seats.row(hold.counter, hold.row);
        self.counters.hold_in_steps(now, self.seats.counter(hold.counter), row, &hold.key, load)
    }

    /// Gives back a part of what is held.
    pub(super) fn release(&self, counter: usize, key: &[u8], load: impl Into<Load>) {
        self.counters.release(self.seats.counter(counter), key, load);
    }

    /// Charges a part of what is held.
    pub(super) fn commit(&self, now: Duration, counter: usize, key: &[u8], load: impl Into<Load>) {
        self.counters.commit(now, self.seats.counter(counter), key, load);
    }

    /// Charges one that was tried.
    pub(super) fn note(&self, now: Duration, counter: usize, row: usize, key: &[u8], is_refused: bool) {
        let seat = self.seats.row(counter, row);
        self.counters.note(now, self.seats.counter(counter), seat, key, is_refused);
    }

    /// Lets nothing of a key pass until then.
    pub(super) fn block(&self, now: Duration, counter: usize, key: &[u8], until: Duration) {
        self.counters.block(now, self.seats.counter(counter), key, until);
    }

    /// How many keys of a counter there are, and in which state.
    pub(crate) fn limit_stats(&self, counter: usize) -> Stats {
        self.counters.stats(self.seats.counter(counter))
    }

    /// How full the keys of a counter were whenever they were judged.
    pub(crate) fn limit_fullness(&self, counter: usize) -> Fullness {
        self.counters.fullness(self.seats.counter(counter))
    }

    /// Notices a part of what time has done to limits that nobody asks, so that it is not counted any more.
    pub(crate) fn sweep_limits(&self) {
        self.counters.sweep(self.clock.now(), SWEPT);
    }

    /// The next keys of a counter, in no order: `most`, or less at the end.
    pub(crate) fn list_limits(&self, counter: usize, cursor: &mut Cursor, most: usize) -> Vec<View> {
        self.counters.list(self.clock.now(), self.seats.counter(counter), cursor, most)
    }

    /// The keys of a counter with the most charged and held. Looks at every key.
    pub(crate) fn top_limits(&self, counter: usize, most: usize) -> Vec<View> {
        self.counters.top(self.clock.now(), self.seats.counter(counter), most)
    }

    /// One key, unless nothing is known of it.
    pub(crate) fn show_limit(&self, counter: usize, key: &[u8]) -> Option<View> {
        self.counters.show(self.clock.now(), self.seats.counter(counter), key)
    }

    /// Forgets what a key was charged; whether there was anything.
    pub(crate) fn reset_limit(&self, counter: usize, key: &[u8]) -> bool {
        self.counters.reset(self.clock.now(), self.seats.counter(counter), key)
    }

    /// Blocks a key for so long, or until it is unblocked; never for less than it is blocked already.
    pub(crate) fn block_limit(&self, counter: usize, key: &[u8], span: Option<Duration>) {
        let now = self.clock.now();
        self.counters.block(now, self.seats.counter(counter), key, now.saturating_add(span.unwrap_or(Duration::MAX)));
    }

    /// Ends a block; whether there was one.
    pub(crate) fn unblock_limit(&self, counter: usize, key: &[u8]) -> bool {
        self.counters.unblock(self.clock.now(), self.seats.counter(counter), key)
    }

    /// The time of day that is so far off.
    pub(crate) fn time_in(left: Duration) -> Option<SystemTime> {
        Clock::time_of_day().checked_add(left)
    }
}

/// For how long a block goes on; `None`: until somebody ends it.
pub(crate) fn ends_after(block: Block) -> Option<Duration> {
    Some(block.left).filter(|left| *left < FOR_EVER)
}

/// A block that is longer has no end; whoever sets one sets less.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How many keys are swept for one look at all: a few milliseconds.
const SWEPT: usize = 10_000;
