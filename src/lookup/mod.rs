//! Answers questions: counters of limits, free space of file systems. Keeps the counters for the next start.
//!
//! What is held for a message lives in its session's ledger and is given back when that is dropped, however the session
//! ends. Reads the clock; knows nothing of the protocol.

mod disk;
mod hashes;
mod held_values;
mod ledger;
mod limits;
mod operate;
mod state;
mod succession;

pub use disk::unusable_path;
pub use ledger::Ledger;
pub(crate) use limits::Cursor;
#[cfg(test)]
pub(crate) use limits::FULLNESS_BOUNDS;
pub(crate) use limits::Tries;
pub(crate) use limits::View;
pub(crate) use operate::ends_after;
pub use state::Found;
pub use state::Saved;
pub use state::Store;

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use nix::time::ClockId;
use nix::time::clock_gettime;

use crate::facts::Answer;
use crate::facts::Query;
use crate::policy::Measure;
use crate::policy::Policy;
use crate::session::Settlement;
use disk::DiskSpace;
use hashes::Hashes;
use limits::Counter;
use limits::Counters;
use limits::Counts;
use limits::Row;
use limits::Seats;
use limits::Steps;
use succession::Heir;
use succession::labels;

/// The most keys that all limits together remember. A key takes about 100 bytes.
const MAX_KEYS: usize = 10_000_000;

/// How many keys one counter remembers.
fn most_keys(counter: &crate::policy::Counter) -> usize {
    counter.max_keys.and_then(|most| usize::try_from(most).ok()).map_or(MAX_KEYS, |most| most.min(MAX_KEYS))
}

/// What the rates of a counter bound.
const fn counts(measure: Measure) -> Counts {
    match measure {
        Measure::BadRecipients => Counts::Tries,
        Measure::Distinct => Counts::Values,
        Measure::Bytes | Measure::Concurrent | Measure::Connections | Measure::Messages | Measure::Recipients => {
            Counts::Amounts
        }
    }
}

/// What answers the questions of one session.
pub trait Lookup: Send {
    /// A new command: what is held from here on can be rolled back together.
    fn begin(&mut self);

    /// Answers, if that takes no waiting; what is reserved is held by this session from now on.
    fn answer_now(&mut self, query: &Query) -> Option<Answer>;

    /// The same for a question that was not answered at once, however long it takes.
    fn answer(&mut self, query: &Query) -> impl Future<Output = Answer> + Send;

    /// Charges, keeps or gives back what is held for the message.
    fn settle(&mut self, settlement: Settlement);

    /// Gives back what is held for the connection, too: another SMTP session follows on it.
    fn restart(&mut self);
}

/// What all sessions of one policy ask. The counts are those of all policies.
pub struct Shared {
    policy: Arc<Policy>,
    counters: Arc<Counters>,
    /// Which of the counters are this policy's.
    seats: Seats,
    /// Of all policies, too.
    hashes: Arc<Hashes>,
    disk: DiskSpace,
    clock: Clock,
}

impl Shared {
    /// Counters and look-ups for the first policy.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Arc<Self> {
        Self::seated(policy, &[], Arc::new(Counters::new(MAX_KEYS)), Arc::default(), Clock::start())
    }

    /// The same for the policy that follows on this one: it goes on with all that this one counts for the same rule, measure
    /// and key. Also says what it does not go on with.
    #[must_use]
    pub fn succeed(&self, policy: Arc<Policy>) -> (Arc<Self>, Vec<String>) {
        let ours = labels(&policy);
        let mut heirs = vec![None; ours.len()];
        let mut notes = Vec::new();
        for (number, label) in labels(&self.policy).into_iter().enumerate() {
            let mut heir = Heir::of(label, &ours);
            heir.keys = u64::try_from(self.limit_stats(number).keys).unwrap_or(u64::MAX);
            notes.extend(heir.note(&ours));
            if let Some(heir) = heir.counter.and_then(|ours| heirs.get_mut(ours)) {
                *heir = Some(self.seats.counter(number));
            }
        }
        let (counters, hashes) = (Arc::clone(&self.counters), Arc::clone(&self.hashes));
        (Self::seated(policy, &heirs, counters, hashes, self.clock), notes)
    }

    fn seated(
        policy: Arc<Policy>,
        heirs: &[Option<usize>],
        counters: Arc<Counters>,
        hashes: Arc<Hashes>,
        clock: Clock,
    ) -> Arc<Self> {
        let counter = |counter: &crate::policy::Counter| {
            let levels = &counter.levels;
            let (blocking, ceiling) = (levels.blocking(), levels.ceiling());
            let steps = Steps { percents: levels.percents().into(), blocking, ceiling };
            let row = |row: &crate::policy::Row| Row {
                whose: row.whose.clone(),
                rates: row.rates.clone(),
                shares: row.shares.clone(),
                concurrent: row.concurrent,
                steps: steps.clone(),
            };
            let rows = counter.rows.iter().map(row).collect();
            Counter { rows, max_keys: most_keys(counter), counts: counts(counter.measure) }
        };
        let bounds: Vec<_> = policy.counters().iter().map(counter).collect();
        let seats = counters.seat(&bounds, heirs);
        let disk = DiskSpace::new(policy.paths().len());
        Arc::new(Self { policy, counters, seats, hashes, disk, clock })
    }

    /// What the last answer about the free space of a path was; `None` if there is none yet.
    #[must_use]
    pub fn last_disk_space(&self, number: usize) -> Option<Answer> {
        self.disk.last(number)
    }

    /// How many keys the limits remember.
    #[must_use]
    pub fn limit_keys(&self) -> usize {
        self.counters.keys()
    }

    /// A number that grows whenever there is something new to save.
    #[must_use]
    pub fn limit_changes(&self) -> u64 {
        self.counters.changes()
    }

    /// Forgets keys whose time is over, of about as many as `budget`.
    pub fn sweep(&self, budget: usize) {
        self.counters.sweep(self.clock.now(), budget);
    }

    /// How many keys were forgotten before their time, for want of room.
    #[must_use]
    pub fn limit_evictions(&self) -> u64 {
        self.counters.evictions()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.counters.leave(&self.seats);
    }
}

impl Lookup for Ledger {
    fn begin(&mut self) {
        self.mark();
    }

    fn answer_now(&mut self, query: &Query) -> Option<Answer> {
        match query {
            Query::DiskFree(number) => self.shared().disk.fresh(*number, self.shared().clock.now()),
            Query::Hold(hold) => Some(self.hold(hold)),
        }
    }

    async fn answer(&mut self, query: &Query) -> Answer {
        match query {
            Query::DiskFree(number) => {
                let shared = self.shared();
                match shared.policy.path(*number) {
                    Some(path) => shared.disk.free(*number, path, shared.clock.now()).await,
                    None => Answer::Failed,
                }
            }
            Query::Hold(hold) => self.hold(hold),
        }
    }

    fn settle(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Commit => self.commit(),
            Settlement::Keep => self.keep(),
            Settlement::Release => self.release(),
            Settlement::ReleaseUnjudged => self.release_unjudged(),
            Settlement::RollBack => self.roll_back(),
            Settlement::RollBackUnjudged => self.roll_back_unjudged(),
        }
    }

    fn restart(&mut self) {
        self.release();
        self.release_connection();
    }
}

/// The time since the program started, which never goes backwards. Unlike std's `Instant` it goes on while the machine sleeps
/// (`CLOCK_BOOTTIME`): an hour's limit is over an hour later, whatever happened in between.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { start: Self::since_boot() }
    }

    fn now(self) -> Duration {
        Self::since_boot().saturating_sub(self.start)
    }

    /// Every Linux that this runs on has this clock.
    fn since_boot() -> Duration {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
    }

    /// The time of day, for texts.
    #[expect(clippy::disallowed_methods, reason = "look-ups read the clock, so that the core need not")]
    fn time_of_day() -> SystemTime {
        SystemTime::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/proc/uptime` goes on while the machine sleeps.
    #[test]
    fn the_clock_is_the_one_that_does_not_sleep() {
        let uptime = || std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds = |text: String| text.split_once(' ').unwrap().0.parse::<f64>().unwrap();
        let before = seconds(uptime());
        let now = Clock::since_boot().as_secs_f64();
        let after = seconds(uptime());
        // It has hundredths.
        assert!((before - 0.01..=after + 0.01).contains(&now), "{before} {now} {after}");
    }
}
