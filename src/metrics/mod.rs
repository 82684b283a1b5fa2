//! Counts what was decided; serves it to Prometheus.
//!
//! Labels come from the configuration, never from the mail, and every series exists from the start at zero. No globals: the
//! registry is ours. What is counted for one policy stands in `series`, what for one listener in `traffic`.

mod copied;
mod exemplars;
mod history;
mod openmetrics;
mod series;
mod traffic;

pub use history::Counted;
pub use history::History;
pub use history::Hits;
pub use history::Picture;
pub use history::Told;
pub use openmetrics::OPEN_METRICS_FORMAT;
pub use openmetrics::is_wanted as wants_open_metrics;
pub use series::FULLNESS;
pub use series::Series;
pub use traffic::Traffic;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use prometheus::CounterVec;
use prometheus::Gauge;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;

use crate::config::OnError;
use crate::facts::Stage;
use crate::policy::Policy;
use crate::session::Cause;
use crate::session::Decision;
use crate::session::Failure;
use crate::session::RecipientEnd;
use exemplars::Exemplar;
use exemplars::Exemplars;
use series::Families;
use traffic::Listeners;

/// From 10 µs to 5 s.
const STAGE_BUCKETS: [f64; 14] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// Every metric of the daemon.
pub struct Metrics {
    registry: Registry,
    families: Families,
    listeners: Listeners,
    exemplars: Exemplars,
    /// By [`RecipientEnd`].
    recipients: Vec<(RecipientEnd, IntCounter)>,
    /// By [`Stage`].
    stage_duration: Vec<Histogram>,
    /// By [`Stage`].
    deadline_exceeded: Vec<IntCounter>,
    /// What `on_error` decided.
    on_error: Vec<(Failure, IntCounter)>,
    /// By [`Shed`].
    connections_shed: Vec<(Shed, IntCounter)>,
    accept_errors: IntCounter,
    session_memory: IntGauge,
    protocol_errors: IntCounter,
    internal_errors: IntCounter,
    log_dropped: IntCounter,
    /// How many there were when they were counted last.
    lost_lines: AtomicU64,
    /// By [`LimitChange`].
    limit_changes: Vec<(LimitChange, IntCounter)>,
    state: State,
    reloads: Reloads,
    worker_busy: Mutex<CounterVec>,
}

/// What became of a connection for which there was no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shed {
    /// The session passes unseen.
    Accepted,
    /// It was closed: the MTA takes its default action.
    Closed,
    /// The client was told to come again later.
    Deferred,
}

impl Shed {
    const ALL: [Self; 3] = [Self::Accepted, Self::Closed, Self::Deferred];

    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Closed => "closed",
            Self::Deferred => "deferred",
        }
    }
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notified {
    /// Too many were waiting.
    Dropped,
    /// Nobody was told.
    Failed,
    /// Somebody was told.
    Sent,
}

impl Notified {
    const ALL: [Self; 3] = [Self::Dropped, Self::Failed, Self::Sent];

    const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::Sent => "sent",
        }
    }
}

/// What an administrator did to a key of a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitChange {
    /// Nothing passes.
    Block,
    /// What was counted is forgotten.
    Reset,
    /// A block has ended.
    Unblock,
}

impl LimitChange {
    const ALL: [Self; 3] = [Self::Block, Self::Reset, Self::Unblock];

    /// As metrics, the log and the control socket have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Reset => "reset",
            Self::Unblock => "unblock",
        }
    }
}

/// What can be well or not, for the status page.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// Whether the configuration that was read last is in force.
    pub reloaded: bool,
    /// When the configuration in force was read.
    pub in_force_since: Option<SystemTime>,
    /// When the counters were as they are saved.
    pub state_saved: Option<SystemTime>,
    /// How often they could not be.
    pub saves_failed: u64,
    /// Sessions that met a bug.
    pub internal_errors: u64,
    /// Connections on which the MTA made no sense.
    pub protocol_errors: u64,
    /// Connections for which there was no room.
    pub shed: u64,
}

/// The file that counters are saved in.
struct State {
    saved: IntCounter,
    failed: IntCounter,
    last: Gauge,
    duration: Gauge,
    bytes: IntGauge,
}

/// What became of configurations that were read.
struct Reloads {
    ok: IntCounter,
    failed: IntCounter,
    is_ok: IntGauge,
    since: Gauge,
}

impl Metrics {
    /// All series that do not depend on the policy, at zero.
    ///
    /// # Errors
    ///
    /// A name or label that Prometheus does not allow; none of ours is one.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let exemplars = Exemplars::default();
        let families = Families::new(&registry, exemplars.clone())?;
        let recipients = IntCounterVec::new(
            Opts::new("postward_recipients_total", "Recipients (RCPT commands), by what became of them"),
            &["result"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(exemplars::DURATIONS, "Time from a command to its decision")
                .buckets(STAGE_BUCKETS.to_vec()),
            &["stage"],
        )?;
        let changes = IntCounterVec::new(
            Opts::new("postward_limit_changes_total", "Changes of limits' keys by administrators"),
            &["change"],
        )?;
        let shed = IntCounterVec::new(
            Opts::new("postward_connections_shed_total", "Connections from MTAs for which there was no room"),
            &["result"],
        )?;
        let late = IntCounterVec::new(
            Opts::new(
                "postward_deadline_exceeded_total",
                "Commands whose look-ups were not all answered within server.deadline",
            ),
            &["stage"],
        )?;
        for collector in [&recipients, &changes, &late, &shed] {
            registry.register(Box::new(collector.clone()))?;
        }
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = Self {
            listeners: Listeners::new(&registry)?,
            deadline_exceeded: Stage::ALL.map(|stage| late.with_label_values(&[stage.name()])).into(),
            on_error: on_error(&registry)?,
            connections_shed: Shed::ALL.map(|end| (end, shed.with_label_values(&[end.name()]))).into(),
            accept_errors: counter(
                &registry,
                "postward_accept_errors_total",
                "Connections from MTAs that could not be taken, for want of open files or other means",
            )?,
            session_memory: gauge(
                &registry,
                "postward_session_memory_bytes",
                "What all sessions together keep of what MTAs have sent, but for the usual few kilobytes",
            )?,
            protocol_errors: counter(
                &registry,
                "postward_protocol_errors_total",
                "Connections closed because what the MTA sent made no sense",
            )?,
            internal_errors: counter(
                &registry,
                "postward_internal_errors_total",
                "Bugs that were met; sessions that meet one are answered by on_error",
            )?,
            log_dropped: counter(
                &registry,
                "postward_log_dropped_total",
                "Lines of the log that were lost, because nobody read them or they could not be written",
            )?,
            lost_lines: AtomicU64::new(0),
            limit_changes: LimitChange::ALL.map(|change| (change, changes.with_label_values(&[change.name()]))).into(),
            state: State::new(&registry)?,
            reloads: Reloads::new(&registry)?,
            worker_busy: Mutex::new(worker_busy(&registry)?),
            recipients: RecipientEnd::ALL.map(|end| (end, recipients.with_label_values(&[end.name()]))).into(),
            stage_duration: Stage::ALL.map(|stage| durations.with_label_values(&[stage.name()])).into(),
            families,
            exemplars,
            registry,
        };
        metrics.describe()?;
        Ok(metrics)
    }

    /// All series of this policy, which is the one in force from now on: at zero, or as far as those before have come.
    #[must_use]
    pub fn adopt(&self, policy: &Arc<Policy>, hash: &str) -> Series {
        self.families.adopt(policy, hash)
    }

    /// All series of a listener, `server.listen` as it really is: at zero, or where they have come to.
    #[must_use]
    pub fn listener(&self, listen: &str) -> Traffic {
        self.listeners.traffic(listen)
    }

    /// Counts a decision of a policy with these series, when its command came, and the time that it took.
    pub fn record(&self, series: &Series, decision: &Decision, at: Instant, took: Duration) {
        let took = took.as_secs_f64();
        if let Some(histogram) = self.stage_duration.get(decision.stage as usize) {
            histogram.observe(took);
            let bucket = STAGE_BUCKETS.partition_point(|bound| *bound < took);
            self.exemplars.took(decision.stage, bucket, Exemplar { id: decision.id, value: took, at });
        }
        series.record(decision, at);
        let failed = |(failure, _): &&(Failure, IntCounter)| decision.failure == Some(*failure);
        if let Some((_, counter)) = self.on_error.iter().find(failed) {
            counter.inc();
        }
        let ended = |(end, _): &&(RecipientEnd, IntCounter)| decision.recipient == Some(*end);
        if let Some((_, counter)) = self.recipients.iter().find(ended) {
            counter.inc();
        }
    }

    /// The look-ups of a command took too long; this is the stage that it was judged at.
    pub fn deadline_exceeded(&self, stage: Stage) {
        if let Some(counter) = self.deadline_exceeded.get(stage as usize) {
            counter.inc();
        }
    }

    /// An MTA was sent away because too many are connected.
    pub fn connection_shed(&self, end: Shed) {
        if let Some((_, counter)) = self.connections_shed.iter().find(|(known, _)| *known == end) {
            counter.inc();
        }
    }

    /// An MTA's connection could not be taken.
    pub fn not_accepted(&self) {
        self.accept_errors.inc();
    }

    /// What an MTA sent made no sense.
    pub fn protocol_error(&self) {
        self.protocol_errors.inc();
    }

    /// A session, or a task beside them, met a bug of ours.
    pub fn internal_error(&self) {
        self.internal_errors.inc();
    }

    /// So many lines of the log were lost so far.
    pub fn log_dropped(&self, lines: u64) {
        // Two who ask at once count none twice.
        let before = self.lost_lines.fetch_max(lines, Ordering::Relaxed);
        self.log_dropped.inc_by(lines.saturating_sub(before));
    }

    /// How much all sessions keep of what MTAs have sent.
    pub fn session_memory(&self, octets: usize) {
        self.session_memory.set(i64::try_from(octets).unwrap_or(i64::MAX));
    }

    /// An administrator changed a key of a limit.
    pub fn limit_changed(&self, change: LimitChange) {
        if let Some((_, counter)) = self.limit_changes.iter().find(|(known, _)| *known == change) {
            counter.inc();
        }
    }

    /// Somebody was told of a key over a limit, or was not.
    pub fn notified(&self, notify: &str, result: Notified) {
        self.families.notified(notify, result);
    }

    /// A thread that serves MTAs was at work for so long so far.
    pub fn worker_busy(&self, worker: usize, busy: Duration) {
        // Two who ask at once count nothing twice.
        let counters = self.worker_busy.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = counters.with_label_values(&[&worker.to_string()]);
        counter.inc_by((busy.as_secs_f64() - counter.get()).max(0.0));
    }

    /// The counters were saved: how they were at this moment, in so long, in so many bytes.
    pub fn state_saved(&self, at: SystemTime, took: Duration, bytes: u64) {
        self.state.saved.inc();
        self.state.duration.set(took.as_secs_f64());
        self.state_restored(at, bytes);
    }

    /// The counters could not be saved.
    pub fn state_not_saved(&self) {
        self.state.failed.inc();
    }

    /// The counters are those that were saved at this moment, in so many bytes.
    pub fn state_restored(&self, at: SystemTime, bytes: u64) {
        self.state.last.set(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.state.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A configuration was read anew, and is in force or not.
    pub fn reloaded(&self, is_in_force: bool, at: SystemTime) {
        if is_in_force {
            self.reloads.ok.inc()
        } else {
            self.reloads.failed.inc()
        }
        self.reloads.is_ok.set(is_in_force.into());
        if is_in_force {
            self.in_force_since(at);
        }
    }

    /// When the configuration in force was read.
    pub fn in_force_since(&self, at: SystemTime) {
        self.reloads.is_ok.set(1);
        self.reloads.since.set(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// What can be well or not.
    #[must_use]
    pub fn health(&self) -> Health {
        let moment = |seconds: f64| (seconds > 0.0).then(|| UNIX_EPOCH + Duration::from_secs_f64(seconds));
        Health {
            reloaded: self.reloads.is_ok.get() == 1,
            in_force_since: moment(self.reloads.since.get()),
            state_saved: moment(self.state.last.get()),
            saves_failed: self.state.failed.get(),
            internal_errors: self.internal_errors.get(),
            protocol_errors: self.protocol_errors.get(),
            shed: self.connections_shed.iter().map(|(_, counter)| counter.get()).sum(),
        }
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// Two series of the same name and labels; there are none.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.gather())
    }

    /// Everything as OpenMetrics, now, which is this time of day.
    #[must_use]
    pub fn encode_open(&self, now: Instant, time: SystemTime) -> String {
        openmetrics::encode(&self.gather(), &self.exemplars, self.exemplars.time_of(now, time))
    }

    /// How many series there are.
    #[must_use]
    pub fn series(&self) -> usize {
        let families = self.gather();
        // Beside its buckets a histogram has one for what is above them, the count and the sum.
        let series = |metric: &prometheus::proto::Metric| match metric.get_histogram().get_bucket().len() {
            0 => 1,
            buckets => buckets + 3,
        };
        families.iter().flat_map(prometheus::proto::MetricFamily::get_metric).map(series).sum()
    }

    /// Forgets the series of rules, limits and notifies that only policies had that are gone.
    pub fn forget_gone(&self) {
        self.families.forget();
    }

    /// Of how many policies there are series.
    #[cfg(test)]
    pub(crate) fn policies(&self) -> usize {
        self.families.policies()
    }

    fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.forget_gone();
        self.registry.gather()
    }

    /// What is running: constants as labels, as Prometheus' own exporters do it.
    fn describe(&self) -> Result<(), prometheus::Error> {
        let about = "The version that is running, and the compiler that it was built with";
        let build = IntGaugeVec::new(Opts::new("postward_build_info", about), &["version", "rustc"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("POSTWARD_RUSTC")]).set(1);
        self.registry.register(Box::new(build))
    }
}

/// What can fail, and what can become of it.
fn on_error(registry: &Registry) -> Result<Vec<(Failure, IntCounter)>, prometheus::Error> {
    let options = Opts::new(
        "postward_on_error_total",
        "Decisions that server.on_error made, since a rule could not be judged: by what was wrong and what became of it",
    );
    let counters = register(registry, IntCounterVec::new(options, &["cause", "outcome"])?)?;
    let outcomes = [(OnError::Accept, "accepted"), (OnError::Defer, "deferred")];
    let failures = Cause::ALL.into_iter().flat_map(|cause| outcomes.map(|(outcome, name)| (cause, outcome, name)));
    let possible = failures.filter(|(cause, outcome, _)| (*cause, *outcome) != (Cause::NotGranted, OnError::Accept));
    let counter = |(cause, outcome, name): (Cause, OnError, &str)| {
        (Failure { cause, outcome }, counters.with_label_values(&[cause.name(), name]))
    };
    Ok(possible.map(counter).collect())
}

impl Reloads {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "postward_config_reloads_total",
                "How often the configuration was read anew, and put in force or not",
            ),
            &["result"],
        )?;
        let [ok, failed] = ["ok", "failed"].map(|result| reloads.with_label_values(&[result]));
        register(registry, reloads)?;
        let last_ok = "postward_config_last_reload_successful";
        let since = "postward_config_last_reload_success_timestamp_seconds";
        Ok(Self {
            ok,
            failed,
            is_ok: gauge(registry, last_ok, "Whether the configuration that was read last is in force")?,
            since: register(registry, Gauge::new(since, "When the configuration in force was read")?)?,
        })
    }
}

impl State {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let saves = IntCounterVec::new(
            Opts::new("postward_state_saves_total", "How often the counters of limits were saved, or could not be"),
            &["result"],
        )?;
        let [saved, failed] = ["ok", "failed"].map(|result| saves.with_label_values(&[result]));
        register(registry, saves)?;
        let gauge_f64 = |name: &str, help: &str| register(registry, Gauge::new(name, help)?);
        Ok(Self {
            saved,
            failed,
            last: gauge_f64("postward_state_last_save_timestamp_seconds", "When the counters were as they are saved")?,
            duration: gauge_f64("postward_state_save_duration_seconds", "How long the last save took")?,
            bytes: gauge(registry, "postward_state_bytes", "The size of the file that the counters are saved in")?,
        })
    }
}

fn worker_busy(registry: &Registry) -> Result<CounterVec, prometheus::Error> {
    let about = "How long each thread that serves MTAs (server.workers) had work to do, waiting for a CPU included";
    register(registry, CounterVec::new(Opts::new("postward_worker_busy_seconds_total", about), &["worker"])?)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::new(name, help)?)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
