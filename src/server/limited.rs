//! Warnings that a peer or the world can cause at will: the first ones of a minute are told at once, the others summed up at
//! its end. So a flood of them fills neither the log nor the time, and still nothing is kept back for long.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// What one sum is about.
const WINDOW: Duration = Duration::from_secs(60);

/// One kind of warning.
#[derive(Debug)]
pub struct Limited {
    what: &'static str,
    at_once: u32,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    told: u32,
    untold: u64,
}

impl Limited {
    /// A kind of which so many a minute are told in full; `what` names it in the sum of the others.
    #[must_use]
    pub const fn new(what: &'static str, at_once: u32) -> Self {
        Self { what, at_once, window: Mutex::new(None) }
    }

    /// Whether this one is to be told; if not, it is counted.
    pub fn admits(&self) -> bool {
        self.sum_up();
        let mut window = self.lock();
        let window = window.get_or_insert_with(|| Window { began: Instant::now(), told: 0, untold: 0 });
        let is_told = window.told < self.at_once;
        if is_told {
            window.told += 1;
        } else {
            window.untold += 1;
        }
        is_told
    }

    /// Tells how many were not told, if their minute is over. To be called now and then.
    pub(super) fn sum_up(&self) {
        self.tell(self.take(WINDOW));
    }

    /// As `sum_up`, but now.
    fn finish(&self) {
        self.tell(self.take(Duration::ZERO));
    }

    fn tell(&self, untold: u64) {
        if untold > 0 {
            tracing::warn!(more = untold, "more of the same within a minute: {}", self.what);
        }
    }

    /// Ends a minute that began so long ago; how many were not told in it.
    fn take(&self, age: Duration) -> u64 {
        let ended = self.lock().take_if(|window| window.began.elapsed() >= age);
        ended.map_or(0, |window| window.untold)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Window>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every kind there is, but for panics.
#[derive(Debug)]
pub(super) struct Warnings {
    /// A socket could not accept.
    pub(super) accept: Limited,
    /// A bug was met.
    pub(super) bug: Limited,
    /// A wrong token for the status page.
    pub(super) denied: Limited,
    /// An MTA does not grant what the policy needs.
    pub(super) missing: Limited,
    /// An MTA's side makes no sense.
    pub(super) protocol: Limited,
    /// Too many are connected.
    pub(super) shed: Limited,
    /// An MTA said nothing for too long.
    pub(super) silent: Limited,
    /// Somebody could not be told.
    pub(super) unsent: Limited,
    /// Too many were to be told at once.
    pub(super) untold: Limited,
}

impl Warnings {
    pub(super) const fn new() -> Self {
        Self {
            accept: Limited::new("cannot accept a connection", 1),
            bug: Limited::new("a bug was met; sessions are answered by on_error", 10),
            denied: Limited::new("somebody was not let in to the status page: a wrong token", 10),
            missing: Limited::new("the MTA does not grant what the policy needs", 1),
            // Each may have another peer and another cause.
            protocol: Limited::new("closing: the MTA's side makes no sense", 30),
            shed: Limited::new("more connections than max_sessions, or than there is memory or time for", 1),
            silent: Limited::new("closing: silent for too long", 10),
            unsent: Limited::new("nobody was told that a limit was passed", 10),
            untold: Limited::new("too many notifications at once: dropping some", 1),
        }
    }

    /// Tells of each kind how many were not told, if their minute is over.
    pub(super) fn sum_up(&self) {
        self.all().into_iter().for_each(Limited::sum_up);
    }

    /// As `sum_up`, at the end.
    pub(super) fn finish(&self) {
        self.all().into_iter().for_each(Limited::finish);
    }

    const fn all(&self) -> [&Limited; 9] {
        let Self { accept, bug, denied, missing, protocol, shed, silent, unsent, untold } = self;
        [accept, bug, denied, missing, protocol, shed, silent, unsent, untold]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_are_told_and_the_others_of_the_minute_are_summed_up() {
        let limited = Limited::new("test", 2);
        assert_eq!([(); 4].map(|()| limited.admits()), [true, true, false, false]);
        tokio::time::advance(WINDOW - Duration::from_millis(1)).await;
        assert!(!limited.admits());
        assert_eq!(limited.take(WINDOW), 0, "the minute is not over");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(limited.take(WINDOW), 3);
        assert_eq!(limited.take(WINDOW), 0, "told once");
        assert!(limited.admits(), "a new minute");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_after_a_minute_is_told_though_nobody_summed_up() {
        let limited = Limited::new("test", 1);
        assert_eq!([(); 3].map(|()| limited.admits()), [true, false, false]);
        tokio::time::advance(WINDOW).await;
        assert_eq!([(); 2].map(|()| limited.admits()), [true, false]);
        assert_eq!(limited.take(WINDOW), 0);
        assert_eq!(limited.take(Duration::ZERO), 1);
    }

    /// For ten minutes a hundred a second: two lines a minute, and none is missing from the sums.
    #[tokio::test(start_paused = true)]
    async fn a_flood_is_two_lines_a_minute() {
        let limited = Limited::new("test", 1);
        let (mut told, mut sums, mut summed) = (0, 0, 0);
        for _ in 0..60_000 {
            let untold = limited.take(WINDOW);
            (sums, summed) = (sums + u64::from(untold > 0), summed + untold);
            told += u64::from(limited.admits());
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        summed += limited.take(Duration::ZERO);
        assert_eq!((told, sums, told + summed), (10, 9, 60_000));
    }
}
