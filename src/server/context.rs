//! What all tasks share, and what of it a reload replaces.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::Instant;

use super::GRACE;
use super::buffers::Buffers;
use super::health::Pulses;
use super::http::Gate;
use super::limited::Warnings;
use super::memory::Kept;
use super::notify::Notifier;
use super::ring::Book;
use super::ring::Ring;
use crate::config::Config;
use crate::config::Mode;
use crate::config::OnError;
use crate::lookup::Shared;
use crate::metrics::History;
use crate::metrics::Hits;
use crate::metrics::Metrics;
use crate::metrics::Series;
use crate::policy::Policy;

/// What all tasks share.
pub(super) struct Context {
    pub(super) metrics: Metrics,
    /// Of the listeners that MTAs connect to.
    pub(super) pulses: Pulses,
    in_force: ArcSwap<InForce>,
    /// Those that were, until their last session has ended.
    retired: Mutex<Vec<Arc<InForce>>>,
    /// The configuration of the start, of which some holds until the end.
    pub(super) started: Config,
    /// The last decisions.
    pub(super) ring: Ring,
    /// The counts over time.
    pub(super) history: History,
    /// Who may see the status page.
    pub(super) gate: ArcSwap<Gate>,
    /// Of pages that are made at once.
    pub(super) pages: Arc<Semaphore>,
    /// As `pages`, of answers to Prometheus: who looks at pages does not keep it waiting.
    pub(super) scrapes: Arc<Semaphore>,
    pub(super) running_since: SystemTime,
    pub(super) warnings: Warnings,
    pub(super) buffers: Buffers,
    /// Lines of the log that were lost.
    pub(super) lost_lines: Arc<AtomicU64>,
    /// Of the configuration in force, whatever a connection began under.
    notifier: ArcSwap<Notifier>,
    /// How many MTAs are connected, over all listeners.
    pub(super) active: AtomicUsize,
    /// How many are being told that there is no room.
    pub(super) shedding: AtomicUsize,
    /// What they all keep of what MTAs have sent.
    pub(super) kept: Kept,
    /// The number of the next session; its start is the time, so that ids do not repeat after a restart.
    next_session: AtomicU64,
    /// Once no new connections are taken: until when sessions without a transaction live on.
    pub(super) stopping: watch::Sender<Option<Instant>>,
}

/// A configuration, and what it has come to. A connection keeps the one that it began under to its end.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) policy: Arc<Policy>,
    pub(super) lookups: Arc<Shared>,
    pub(super) series: Series,
    /// What decisions under it are told with.
    pub(super) book: Arc<Book>,
    /// How often each of its rules held, by number.
    pub(super) hits: Vec<Arc<Hits>>,
}

impl Context {
    /// With the first configuration in force.
    pub(super) fn new(config: &Config, policy: Policy, lost_lines: Arc<AtomicU64>) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new()?;
        let policy = Arc::new(policy);
        let lookups = Shared::new(Arc::clone(&policy));
        let history = History::default();
        let book = Arc::new(Book::new(&policy, &config.hash));
        let in_force = InForce::new(config.clone(), policy, lookups, book, &metrics, &history);
        metrics.in_force_since(time_of_day());
        Ok(Self {
            metrics,
            pulses: Pulses::default(),
            in_force: ArcSwap::from_pointee(in_force),
            retired: Mutex::default(),
            started: config.clone(),
            ring: Ring::new(config.decisions()),
            history,
            gate: ArcSwap::from_pointee(Gate::closed()),
            pages: Arc::new(Semaphore::new(2)),
            scrapes: Arc::new(Semaphore::new(1)),
            running_since: time_of_day(),
            warnings: Warnings::new(),
            buffers: Buffers::default(),
            lost_lines,
            notifier: ArcSwap::from_pointee(Notifier::new(&config.notify)),
            active: AtomicUsize::new(0),
            shedding: AtomicUsize::new(0),
            kept: Kept::default(),
            next_session: AtomicU64::new(first_session()),
            stopping: watch::Sender::new(None),
        })
    }

    /// A number that no session has had.
    pub(super) fn next_session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// What is in force now.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Who is told of keys over a limit now.
    pub(super) fn notifier(&self) -> Arc<Notifier> {
        self.notifier.load_full()
    }

    /// Puts another configuration in force: for connections that begin from now on.
    pub(super) fn put_in_force(
        &self,
        config: Config,
        policy: Arc<Policy>,
        lookups: Arc<Shared>,
        gate: Gate,
        notifier: Notifier,
    ) {
        self.notifier.store(Arc::new(notifier));
        self.gate.store(Arc::new(gate));
        self.ring.resize(config.decisions());
        let book = self.in_force().book.succeed(&policy, &config.hash);
        let now = Arc::new(InForce::new(config, policy, lookups, book, &self.metrics, &self.history));
        let before = self.in_force.swap(now);
        self.retired().push(before);
        self.metrics.reloaded(true, time_of_day());
    }

    /// Frees the configurations that no session has any more, and their series, scraped or not. Lists may be long: not for a
    /// thread that serves.
    pub(super) fn free_retired(&self) {
        let mut retired = self.retired();
        let (used, unused) = retired.drain(..).partition(|retired| Arc::strong_count(retired) > 1);
        *retired = used;
        drop(retired);
        drop::<Vec<_>>(unused);
        self.metrics.forget_gone();
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<InForce>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A configuration that was read cannot be put in force.
    pub(super) fn not_reloaded(&self) {
        self.metrics.reloaded(false, time_of_day());
    }

    /// Takes no new work; sessions without a transaction have a while to begin one.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(Some(Instant::now() + GRACE));
    }
}

impl InForce {
    fn new(
        config: Config,
        policy: Arc<Policy>,
        lookups: Arc<Shared>,
        book: Arc<Book>,
        metrics: &Metrics,
        history: &History,
    ) -> Self {
        let series = metrics.adopt(&policy, &config.hash);
        let hits = history.adopt(&policy);
        Self { config, policy, lookups, series, book, hits }
    }

    /// What becomes of connections for which there is no room. In monitor mode nobody is sent away.
    pub(super) fn on_overload(&self) -> OnError {
        match self.policy.mode() {
            Mode::Monitor => OnError::Accept,
            Mode::Enforce => self.config.server.on_overload,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server reads the clock, so that the core need not")]
pub(super) fn time_of_day() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds, in the upper bits: a session takes longer than they take to be numbered past, so that a restart, however
/// quick, repeats no id. They begin anew after 198 days, which keeps ids short.
fn first_session() -> u64 {
    let since_1970 = time_of_day().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let milliseconds = u64::try_from(since_1970.as_millis()).unwrap_or_default();
    (milliseconds & 0x3_ffff_ffff) << 10
}

#[cfg(test)]
mod tests {
    use super::super::connection::tests::context;
    use super::*;

    #[test]
    fn a_configuration_lasts_as_long_as_its_last_session() {
        let (context, another) = (context(""), context(""));
        let session = context.in_force();
        let policy = Arc::clone(&another.in_force().policy);
        let (lookups, _) = session.lookups.succeed(Arc::clone(&policy));
        let notifier = Notifier::new(&[]);
        context.put_in_force(context.started.clone(), policy, lookups, Gate::closed(), notifier);
        let before = Arc::downgrade(&session);
        context.free_retired();
        drop(session);
        assert_eq!(before.strong_count(), 1, "a session frees nothing");
        assert_eq!(context.metrics.policies(), 2);
        context.free_retired();
        assert_eq!(before.strong_count(), 0);
        assert_eq!(context.metrics.policies(), 1, "nothing waits for a scrape");
    }
}
