//! Counts what was decided; serves it to Prometheus.
//!
//! Labels come from the configuration, never from the mail, and every series exists from the start at zero. No globals: the
//! registry is ours.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

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

use crate::config::Mode;
use crate::facts::Stage;
use crate::policy::Failure;
use crate::policy::Match;
use crate::policy::Policy;
use crate::reply::Status;
use crate::session::Decision;
use crate::session::MessageEnd;
use crate::session::RecipientEnd;
use crate::session::Verdict;

/// From 10 µs to 5 s.
const STAGE_BUCKETS: [f64; 14] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// Every metric of the daemon.
pub struct Metrics {
    registry: Registry,
    policy: Arc<Policy>,
    replies: IntCounterVec,
    /// By rule.
    matches: Vec<IntCounter>,
    /// By [`MessageEnd`].
    messages: Vec<(MessageEnd, IntCounter)>,
    /// By [`RecipientEnd`].
    recipients: Vec<(RecipientEnd, IntCounter)>,
    /// By [`Stage`].
    stage_duration: Vec<Histogram>,
    connections: IntCounter,
    connections_active: IntGauge,
    connections_shed: IntCounter,
    protocol_errors: IntCounter,
    internal_errors: IntCounter,
    limit_keys: IntGauge,
    limit_evictions: IntCounter,
    /// By the policy's number of a counter.
    limit_keys_limited: Vec<IntGauge>,
    limit_keys_blocked: Vec<IntGauge>,
    /// By [`LimitChange`].
    limit_changes: Vec<(LimitChange, IntCounter)>,
    state: State,
}

/// What an operator did to a key of a limit.
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

/// The file that counters are saved in.
struct State {
    saved: IntCounter,
    failed: IntCounter,
    last: Gauge,
    duration: Gauge,
    bytes: IntGauge,
}

impl Metrics {
    /// All series of this policy, at zero.
    ///
    /// # Errors
    ///
    /// A name or label that Prometheus does not allow; none of ours is one.
    pub fn new(policy: Arc<Policy>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let replies = IntCounterVec::new(
            Opts::new("postward_replies_total", "SMTP replies that refused something, as the client was told"),
            &["stage", "code", "enhanced_code", "mode"],
        )?;
        for (stage, status, mode) in policy.replies().chain(own_replies(policy.mode())) {
            replies.with_label_values(&reply_labels(stage, status, mode).each_ref().map(String::as_str));
        }
        let matches = IntCounterVec::new(
            Opts::new("postward_rule_matches_total", "How often a rule held"),
            &["rule", "action", "mode"],
        )?;
        let messages = IntCounterVec::new(
            Opts::new("postward_messages_total", "Messages (MAIL commands), by what became of them"),
            &["result"],
        )?;
        let recipients = IntCounterVec::new(
            Opts::new("postward_recipients_total", "Recipients (RCPT commands), by what became of them"),
            &["result"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("postward_stage_duration_seconds", "Time from a command to its decision")
                .buckets(STAGE_BUCKETS.to_vec()),
            &["stage"],
        )?;
        let changes = IntCounterVec::new(
            Opts::new("postward_limit_changes_total", "Changes of limits' keys by operators"),
            &["change"],
        )?;
        let limited = by_counter("postward_limit_keys_limited", "Keys of limits that have no room left")?;
        let blocked = by_counter("postward_limit_keys_blocked", "Keys of limits that are blocked")?;
        for gauges in [&limited, &blocked] {
            registry.register(Box::new(gauges.clone()))?;
        }
        for collector in [&replies, &matches, &messages, &recipients, &changes] {
            registry.register(Box::new(collector.clone()))?;
        }
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = Self {
            connections: counter(&registry, "postward_connections_total", "Connections from MTAs")?,
            connections_active: gauge(&registry, "postward_connections_active", "Connections from MTAs that are open")?,
            connections_shed: counter(
                &registry,
                "postward_connections_shed_total",
                "Connections from MTAs that were closed at once, above max_sessions",
            )?,
            protocol_errors: counter(
                &registry,
                "postward_protocol_errors_total",
                "Connections closed because what the MTA sent made no sense",
            )?,
            internal_errors: counter(
                &registry,
                "postward_internal_errors_total",
                "Sessions that met a bug of ours and were answered by on_error",
            )?,
            limit_keys: gauge(&registry, "postward_limit_keys", "Keys that limits remember")?,
            limit_evictions: counter(
                &registry,
                "postward_limit_evictions_total",
                "Keys of limits that were forgotten early, for want of room",
            )?,
            limit_keys_limited: gauges(&limited, &policy),
            limit_keys_blocked: gauges(&blocked, &policy),
            limit_changes: LimitChange::ALL.map(|change| (change, changes.with_label_values(&[change.name()]))).into(),
            state: State::new(&registry)?,
            matches: (0..policy.rules().len()).map(|rule| rule_counter(&matches, &policy, rule)).collect(),
            messages: MessageEnd::ALL.map(|end| (end, messages.with_label_values(&[end.name()]))).into(),
            recipients: RecipientEnd::ALL.map(|end| (end, recipients.with_label_values(&[end.name()]))).into(),
            stage_duration: Stage::ALL.map(|stage| durations.with_label_values(&[stage.name()])).into(),
            replies,
            registry,
            policy,
        };
        metrics.describe()?;
        Ok(metrics)
    }

    /// Counts a decision and the time that it took.
    pub fn record(&self, decision: &Decision, took: Duration) {
        if let Some(histogram) = self.stage_duration.get(decision.stage as usize) {
            histogram.observe(took.as_secs_f64());
        }
        for matched in &decision.matches {
            self.record_match(decision, matched);
        }
        if let Verdict::Refuse(reply) = &decision.verdict {
            self.reply(decision.stage, reply.status(), Mode::Enforce).inc();
        }
        if let Some(reply) = &decision.watched {
            self.reply(decision.stage, reply.status(), Mode::Monitor).inc();
        }
        if let Some(end) = decision.message {
            self.message_ended(end);
        }
        let ended = |(end, _): &&(RecipientEnd, IntCounter)| decision.recipient == Some(*end);
        if let Some((_, counter)) = self.recipients.iter().find(ended) {
            counter.inc();
        }
    }

    /// Counts a message that ended without a decision, or with one.
    pub fn message_ended(&self, end: MessageEnd) {
        if let Some((_, counter)) = self.messages.iter().find(|(known, _)| *known == end) {
            counter.inc();
        }
    }

    /// An MTA connected.
    pub fn connection_opened(&self) {
        self.connections.inc();
        self.connections_active.inc();
    }

    /// An MTA's connection ended.
    pub fn connection_closed(&self) {
        self.connections_active.dec();
    }

    /// An MTA was sent away because too many are connected.
    pub fn connection_shed(&self) {
        self.connections_shed.inc();
    }

    /// What an MTA sent made no sense.
    pub fn protocol_error(&self) {
        self.protocol_errors.inc();
    }

    /// A session met a bug of ours.
    pub fn internal_error(&self) {
        self.internal_errors.inc();
    }

    /// How many keys the limits remember, and have forgotten early so far.
    pub fn limits(&self, keys: usize, evictions: u64) {
        self.limit_keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.limit_evictions.inc_by(evictions.saturating_sub(self.limit_evictions.get()));
    }

    /// How many keys of a counter have no room, and how many are blocked.
    pub fn limit_states(&self, counter: usize, limited: usize, blocked: usize) {
        for (gauges, keys) in [(&self.limit_keys_limited, limited), (&self.limit_keys_blocked, blocked)] {
            if let Some(gauge) = gauges.get(counter) {
                gauge.set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
        }
    }

    /// An operator changed a key of a limit.
    pub fn limit_changed(&self, change: LimitChange) {
        if let Some((_, counter)) = self.limit_changes.iter().find(|(known, _)| *known == change) {
            counter.inc();
        }
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

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// Two series of the same name and labels; there are none.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// A rule that is only watched has its reply counted with its match: nothing else tells of it.
    fn record_match(&self, decision: &Decision, matched: &Match) {
        if let Some(counter) = self.matches.get(matched.rule) {
            counter.inc();
        }
        if let Some(reply) = &matched.watched {
            self.reply(decision.stage, reply.status(), Mode::Monitor).inc();
        }
    }

    fn reply(&self, stage: Stage, status: Status, mode: Mode) -> IntCounter {
        self.replies.with_label_values(&reply_labels(stage, status, mode).each_ref().map(String::as_str))
    }

    /// What is running: constants as labels, as Prometheus' own exporters do it.
    fn describe(&self) -> Result<(), prometheus::Error> {
        let build = IntGaugeVec::new(Opts::new("postward_build_info", "The version that is running"), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let policy = IntGaugeVec::new(
            Opts::new("postward_policy_info", "The policy in force: how many rules, and whether they are enforced"),
            &["rules", "mode"],
        )?;
        policy.with_label_values(&[&self.policy.rules().len().to_string(), self.policy.mode().name()]).set(1);
        self.registry.register(Box::new(build))?;
        self.registry.register(Box::new(policy))
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

/// What we may say without a rule: that we failed, and that there are more recipients than we keep.
/// What is held back at RCPT is said at the end of the message; where the policy is only watched, all is counted as such.
fn own_replies(policy: Mode) -> impl Iterator<Item = (Stage, Status, Mode)> {
    let failed = Policy::internal_error().status();
    let stages = [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfMessage];
    let failures = stages.map(|stage| (stage, failed));
    let stages = [Stage::Mail, Stage::Rcpt, Stage::EndOfMessage];
    let malformed = [Failure::Sender, Failure::Recipient].into_iter().filter_map(Policy::malformed);
    let malformed = malformed.flat_map(move |reply| stages.map(|stage| (stage, reply.status())));
    let too_many = Policy::too_many_recipients().status();
    let too_many = [Stage::Rcpt, Stage::EndOfMessage].map(|stage| (stage, too_many));
    let replies = failures.into_iter().chain(malformed).chain(too_many);
    replies.flat_map(move |(stage, status)| {
        let watched = (policy == Mode::Monitor).then_some((stage, status, Mode::Monitor));
        std::iter::once((stage, status, Mode::Enforce)).chain(watched)
    })
}

fn reply_labels(stage: Stage, status: Status, mode: Mode) -> [String; 4] {
    [stage.name().to_owned(), status.code().to_string(), status.enhanced().to_string(), mode.name().to_owned()]
}

fn rule_counter(matches: &IntCounterVec, policy: &Policy, index: usize) -> IntCounter {
    let action = policy.rules().get(index).map_or("", |rule| rule.action);
    matches.with_label_values(&[policy.rule_name(index), action, policy.mode_of(index).name()])
}

fn by_counter(name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), &["rule", "measure"])
}

fn gauges(gauges: &IntGaugeVec, policy: &Policy) -> Vec<IntGauge> {
    let counters = policy.counters().iter();
    counters.map(|counter| gauges.with_label_values(&[counter.rule.as_str(), counter.measure.name()])).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Source;

    fn exposition(text: &str) -> String {
        let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text: text.to_owned() }]);
        let policy = Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}"));
        Metrics::new(Arc::new(policy)).unwrap().encode().unwrap()
    }

    fn has(exposition: &str, (stage, code, enhanced, mode): (&str, u16, &str, &str)) -> bool {
        let labels = format!("code=\"{code}\",enhanced_code=\"{enhanced}\",mode=\"{mode}\",stage=\"{stage}\"");
        exposition.contains(&format!("postward_replies_total{{{labels}}} 0"))
    }

    const RULE: &str = "[[rule]]\nname = \"closed\"\nwhen.recipient = \"c@x.example\"\nreply = \"550 5.2.1 No\"\n";

    #[test]
    fn what_is_held_back_at_rcpt_has_its_series_at_the_end() {
        let exposition = exposition(RULE);
        for stage in ["rcpt", "end-of-message"] {
            assert!(has(&exposition, (stage, 550, "5.2.1", "enforce")), "{stage}\n{exposition}");
            assert!(has(&exposition, (stage, 452, "4.5.3", "enforce")), "{stage}\n{exposition}");
        }
        assert!(!exposition.contains("mode=\"monitor\""), "nothing is watched\n{exposition}");
    }

    #[test]
    fn our_own_replies_are_watched_with_the_policy() {
        let exposition = exposition(&format!("[policy]\nmode = \"monitor\"\n{RULE}"));
        for stage in ["mail", "rcpt", "data", "end-of-message"] {
            assert!(has(&exposition, (stage, 451, "4.3.0", "monitor")), "{stage}\n{exposition}");
        }
        assert!(has(&exposition, ("rcpt", 452, "4.5.3", "monitor")), "{exposition}");
    }
}
