//! The series of one policy: its replies, its rules, its limits.
//!
//! They are known by their names, so that a policy that follows on another one goes on counting where that has come to.
//! Rules and limits that no policy has any more are forgotten; replies stay, or their sum would shrink.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Instant;

use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;

use super::Notified;
use super::copied::Copied;
use super::exemplars::Exemplar;
use super::exemplars::Exemplars;
use super::exemplars::Last;
use super::exemplars::MATCHES;
use super::exemplars::REPLIES;
use super::register;
use crate::config::Mode;
use crate::facts::Answer;
use crate::facts::Bound;
use crate::facts::Exceeded;
use crate::facts::Stage;
use crate::policy::Failure;
use crate::policy::Match;
use crate::policy::Policy;
use crate::policy::Rule;
use crate::reply::Status;
use crate::session::Decision;
use crate::session::Verdict;

/// The bounds of the histogram of how full limits were.
pub const FULLNESS: [f64; 6] = [0.1, 0.25, 0.5, 0.75, 0.9, 1.0];

/// What is counted for one policy.
pub struct Series {
    replies: IntCounterVec,
    /// By rule, then by what follows: one thing, or what its steps do.
    matches: Vec<Vec<MatchSeries>>,
    /// By the policy's number of a counter.
    limits: Vec<LimitSeries>,
    exemplars: Exemplars,
}

/// How often one thing followed from a rule.
struct MatchSeries {
    action: &'static str,
    counter: IntCounter,
    last: Last,
}

/// What is counted for one counter of a limit.
struct LimitSeries {
    labels: [String; 2],
    checks: [IntCounter; CHECKS.len()],
    keys: IntGauge,
    limited: IntGauge,
    blocked: IntGauge,
    evictions: IntCounter,
    /// How many there were when they were counted last.
    evicted: Arc<Mutex<u64>>,
    fullness: Copied,
}

/// What can become of a check: there was room, there was none, it was blocked, nobody could say.
const CHECKS: [&str; 4] = ["within", "over", "blocked", "failed"];

/// The series of all policies that have sessions.
pub(super) struct Families {
    replies: IntCounterVec,
    matches: IntCounterVec,
    limits: Limits,
    lists: IntGaugeVec,
    notifications: IntCounterVec,
    info: IntGaugeVec,
    exemplars: Exemplars,
    live: Mutex<Live>,
}

/// The series of all limits.
struct Limits {
    checks: IntCounterVec,
    keys: IntGaugeVec,
    limited: IntGaugeVec,
    blocked: IntGaugeVec,
    evictions: IntCounterVec,
    evicted: Mutex<BTreeMap<[String; 2], Arc<Mutex<u64>>>>,
    fullness: Copied,
}

#[derive(Default)]
struct Live {
    policies: Vec<Weak<Policy>>,
    rules: BTreeSet<[String; 3]>,
    limits: BTreeSet<[String; 2]>,
    notifiers: BTreeSet<String>,
}

impl Limits {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        const LIMIT: [&str; 2] = ["rule", "measure"];
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str| register(registry, IntGaugeVec::new(Opts::new(name, help), &LIMIT)?);
        let help = "How full the fullest bound of a key was each time that a limit was asked: 1 is all of it; not of blocked keys";
        let fullness = Copied::new("postward_limit_fullness_ratio", help, &LIMIT, &FULLNESS)?;
        Ok(Self {
            checks: counters(
                "postward_limit_checks_total",
                "How often limits were asked: there was room, there was none, the key was blocked, nobody could say",
                &["rule", "measure", "result"],
            )?,
            keys: gauges("postward_limit_keys", "Keys (logins, clients, ...) that limits remember")?,
            limited: gauges("postward_limit_keys_limited", "Keys of limits that have no room left")?,
            blocked: gauges("postward_limit_keys_blocked", "Keys of limits that are blocked")?,
            evictions: counters(
                "postward_limit_evictions_total",
                "Keys of limits that were forgotten early, for want of room",
                &LIMIT,
            )?,
            evicted: Mutex::default(),
            fullness: register(registry, fullness)?,
        })
    }

    fn series(&self, labels: &[String; 2]) -> LimitSeries {
        let [rule, measure] = labels;
        self.fullness.add(labels);
        LimitSeries {
            labels: labels.clone(),
            checks: CHECKS.map(|result| self.checks.with_label_values(&[rule.as_str(), measure, result])),
            keys: self.keys.with_label_values(labels),
            limited: self.limited.with_label_values(labels),
            blocked: self.blocked.with_label_values(labels),
            evictions: self.evictions.with_label_values(labels),
            evicted: Arc::clone(locked(&self.evicted).entry(labels.clone()).or_default()),
            fullness: self.fullness.clone(),
        }
    }

    /// There is nothing to remove only if it is gone.
    fn forget(&self, labels: &[String; 2]) {
        let [rule, measure] = labels.each_ref().map(String::as_str);
        for result in CHECKS {
            _ = self.checks.remove_label_values(&[rule, measure, result]);
        }
        for gauges in [&self.keys, &self.limited, &self.blocked] {
            _ = gauges.remove_label_values(&[rule, measure]);
        }
        _ = self.evictions.remove_label_values(&[rule, measure]);
        locked(&self.evicted).remove(labels);
        self.fullness.remove(labels);
    }
}

impl Families {
    pub(super) fn new(registry: &Registry, exemplars: Exemplars) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            replies: counters(
                REPLIES,
                "SMTP replies that refused something, as the client was told",
                &["stage", "code", "enhanced_code", "mode"],
            )?,
            matches: counters(MATCHES, "How often a rule held", &["rule", "action", "mode"])?,
            limits: Limits::new(registry)?,
            lists: gauges("postward_list_entries", "Entries of the lists of the policy in force", &["list"])?,
            notifications: counters(
                "postward_notifications_total",
                "Notifications of keys over a limit, by what became of them",
                &["notify", "result"],
            )?,
            info: gauges(
                "postward_policy_info",
                "The policy in force: how many rules, whether they are enforced, and the hash of the configuration",
                &["rules", "mode", "hash"],
            )?,
            exemplars,
            live: Mutex::default(),
        })
    }

    /// All series of this policy: at zero, or where they have come to. It is the one in force from now on.
    pub(super) fn adopt(&self, policy: &Arc<Policy>, hash: &str) -> Series {
        let mut live = self.live();
        live.policies.push(Arc::downgrade(policy));
        for (stage, status, mode) in policy.replies().chain(own_replies(policy.mode())) {
            self.replies.with_label_values(&reply_labels(stage, status, mode).each_ref().map(String::as_str));
        }
        let (rules, limits) = (rules(policy), limits(policy));
        let series = Series {
            replies: self.replies.clone(),
            matches: policy.rules().iter().enumerate().map(|rule| self.of_rule(policy, rule)).collect(),
            limits: limits.iter().map(|labels| self.limits.series(labels)).collect(),
            exemplars: self.exemplars.clone(),
        };
        self.lists.reset();
        for (list, entries) in policy.named_lists() {
            self.lists.with_label_values(&[list]).set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
        for notify in policy.notifiers() {
            Notified::ALL.iter().for_each(|result| _ = self.notifications.with_label_values(&[notify, result.name()]));
        }
        live.notifiers.extend(policy.notifiers().iter().cloned());
        live.rules.extend(rules);
        live.limits.extend(limits);
        self.info.reset();
        self.info.with_label_values(&[&policy.rules().len().to_string(), policy.mode().name(), hash]).set(1);
        series
    }

    /// Counts a notification, unless no policy has this notify any more: its series would never go again.
    pub(super) fn notified(&self, notify: &str, result: Notified) {
        if self.live().notifiers.contains(notify) {
            self.notifications.with_label_values(&[notify, result.name()]).inc();
        }
    }

    /// Forgets the rules, limits and notifies that only policies had of which no session is left.
    pub(super) fn forget(&self) {
        let mut live = self.live();
        let before = live.policies.len();
        live.policies.retain(|policy| policy.strong_count() > 0);
        if live.policies.len() == before {
            return;
        }
        let policies: Vec<_> = live.policies.iter().filter_map(Weak::upgrade).collect();
        let known: BTreeSet<_> = policies.iter().flat_map(|policy| rules(policy)).collect();
        for labels in live.rules.difference(&known) {
            // There is nothing to remove only if it is gone.
            _ = self.matches.remove_label_values(&labels.each_ref().map(String::as_str));
            self.exemplars.forget(MATCHES, &in_order_of_names(labels));
        }
        live.rules = known;
        let known: BTreeSet<_> = policies.iter().flat_map(|policy| limits(policy)).collect();
        for labels in live.limits.difference(&known) {
            self.limits.forget(labels);
        }
        live.limits = known;
        let known: BTreeSet<_> = policies.iter().flat_map(|policy| policy.notifiers()).cloned().collect();
        for notify in live.notifiers.difference(&known) {
            Notified::ALL
                .iter()
                .for_each(|result| _ = self.notifications.remove_label_values(&[notify, result.name()]));
        }
        live.notifiers = known;
    }

    #[cfg(test)]
    pub(super) fn policies(&self) -> usize {
        self.live().policies.len()
    }

    fn of_rule(&self, policy: &Policy, rule: (usize, &Rule)) -> Vec<MatchSeries> {
        let series = |action| {
            let labels = labels(policy, rule, action);
            let last = self.exemplars.last(MATCHES, in_order_of_names(&labels));
            MatchSeries { action, counter: self.matches.with_label_values(&labels), last }
        };
        actions(rule.1).iter().copied().map(series).collect()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        locked(&self.live)
    }
}

impl Series {
    /// Counts what a decision of this policy says.
    pub(super) fn record(&self, decision: &Decision, at: Instant) {
        for matched in &decision.matches {
            self.record_match(decision, matched, at);
        }
        if let Verdict::Refuse(reply) = &decision.verdict {
            self.reply(decision, reply.status(), Mode::Enforce, at);
        }
        if let Some(reply) = &decision.watched {
            self.reply(decision, reply.status(), Mode::Monitor, at);
        }
    }

    /// A limit was asked.
    pub fn limit_checked(&self, counter: usize, answer: &Answer) {
        let [within, over, blocked, failed] = [0, 1, 2, 3];
        let result = match answer {
            Answer::Within => within,
            Answer::Exceeded(Exceeded { bound: Bound::Block, .. }) => blocked,
            Answer::Exceeded(_) => over,
            Answer::Bytes(_) | Answer::Failed => failed,
        };
        if let Some(check) = self.limits.get(counter).and_then(|limit| limit.checks.get(result)) {
            check.inc();
        }
    }

    /// How many keys of a counter there are, have no room, are blocked, and were forgotten early so far.
    pub fn limit_keys(&self, counter: usize, keys: usize, limited: usize, blocked: usize, evictions: u64) {
        if let Some(limit) = self.limits.get(counter) {
            for (gauge, keys) in [(&limit.keys, keys), (&limit.limited, limited), (&limit.blocked, blocked)] {
                gauge.set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
            let mut evicted = locked(&limit.evicted);
            // A limit with another key has begun anew.
            limit.evictions.inc_by(evictions.checked_sub(*evicted).unwrap_or(evictions));
            *evicted = evictions;
        }
    }

    /// How full a counter was whenever it was asked: how often up to each of [`FULLNESS`], and above; and the sum.
    pub fn limit_fullness(&self, counter: usize, counts: &[u64], sum: f64) {
        if let Some(limit) = self.limits.get(counter) {
            limit.fullness.set(&limit.labels, counts, sum);
        }
    }

    /// A rule that is only watched has its reply counted with its match: nothing else tells of it.
    fn record_match(&self, decision: &Decision, matched: &Match, at: Instant) {
        let of_rule = self.matches.get(matched.rule).map(Vec::as_slice).unwrap_or_default();
        let is_meant = |series: &&MatchSeries| of_rule.len() == 1 || series.action == matched.action.step_name();
        if let Some(MatchSeries { counter, last, .. }) = of_rule.iter().find(is_meant) {
            counter.inc();
            last.is(Exemplar { id: decision.id, value: 1.0, at });
        }
        if let Some(reply) = &matched.watched {
            self.reply(decision, reply.status(), Mode::Monitor, at);
        }
    }

    fn reply(&self, decision: &Decision, status: Status, mode: Mode, at: Instant) {
        let [stage, code, enhanced, mode] = reply_labels(decision.stage, status, mode);
        self.replies.with_label_values(&[&stage, &code, &enhanced, &mode]).inc();
        let last = self.exemplars.last(REPLIES, vec![code, enhanced, mode, stage]);
        last.is(Exemplar { id: decision.id, value: 1.0, at });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of a rule: action, mode, rule.
fn in_order_of_names([rule, action, mode]: &[String; 3]) -> Vec<String> {
    vec![action.clone(), mode.clone(), rule.clone()]
}

/// What we may say without a rule: that we failed, that there are more recipients than we keep, or more sessions.
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
    let replies = replies.flat_map(move |(stage, status)| {
        let watched = (policy == Mode::Monitor).then_some((stage, status, Mode::Monitor));
        std::iter::once((stage, status, Mode::Enforce)).chain(watched)
    });
    // Where nothing is enforced, who has no room is let through.
    replies.chain(std::iter::once((Stage::Connect, Policy::overloaded().status(), Mode::Enforce)))
}

fn reply_labels(stage: Stage, status: Status, mode: Mode) -> [String; 4] {
    [stage.name().to_owned(), status.code().to_string(), status.enhanced().to_string(), mode.name().to_owned()]
}

/// What a rule's matches are counted by.
fn actions(rule: &Rule) -> &[&'static str] {
    if rule.steps.is_empty() { std::slice::from_ref(&rule.action) } else { &rule.steps }
}

fn labels(policy: &Policy, (number, rule): (usize, &Rule), action: &str) -> [String; 3] {
    [rule.name.clone(), action.to_owned(), policy.mode_of(number).name().to_owned()]
}

/// The labels of all rules.
fn rules(policy: &Policy) -> Vec<[String; 3]> {
    let of_rule = |rule: (usize, &Rule)| actions(rule.1).iter().map(|action| labels(policy, rule, action)).collect();
    policy.rules().iter().enumerate().flat_map::<Vec<_>, _>(of_rule).collect()
}

/// The labels of each counter.
fn limits(policy: &Policy) -> Vec<[String; 2]> {
    policy.counters().iter().map(|counter| [counter.rule.clone(), counter.measure.name().to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;
    use crate::config::Config;
    use crate::config::Source;

    fn policy(text: &str) -> Arc<Policy> {
        let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text: text.to_owned() }]);
        let policy = Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}"));
        Arc::new(policy)
    }

    fn exposition(text: &str) -> String {
        let metrics = Metrics::new().unwrap();
        let policy = policy(text);
        let _series = metrics.adopt(&policy, "");
        metrics.encode().unwrap()
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

    /// The sum over all codes never shrinks, and a rule that is no more does not stay for ever.
    #[test]
    fn a_policy_goes_on_with_the_series_of_another() {
        let limit = "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/hour\" }\n";
        let metrics = Metrics::new().unwrap();
        let old = policy(&format!("{RULE}{limit}"));
        let series = metrics.adopt(&old, "old");
        series.matches[0][0].counter.inc();
        series.matches[1][0].counter.inc();
        let new = policy(&RULE.replace("5.2.1", "5.7.1"));
        let series = metrics.adopt(&new, "new");
        series.matches[0][0].counter.inc();
        let both = metrics.encode().unwrap();
        let closed = "postward_rule_matches_total{action=\"refuse\",mode=\"enforce\",rule=\"closed\"} 2";
        assert!(both.contains(closed) && both.contains("rule=\"rate\""), "{both}");
        assert!(both.contains("hash=\"new\"") && !both.contains("hash=\"old\""), "{both}");
        drop(old);
        let new = metrics.encode().unwrap();
        assert!(new.contains(closed) && !new.contains("rule=\"rate\""), "{new}");
        assert!(has(&new, ("rcpt", 550, "5.2.1", "enforce")), "{new}");
    }

    /// As a limit does whose key is another one after a reload; the counter of the metric never goes back.
    #[test]
    fn evictions_of_a_limit_that_begins_anew_are_counted_on() {
        let limit = "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/hour\" }\n";
        let metrics = Metrics::new().unwrap();
        let old = policy(limit);
        let series = metrics.adopt(&old, "old");
        let evicted = |count: u64| {
            let line = format!("postward_limit_evictions_total{{measure=\"messages\",rule=\"rate\"}} {count}\n");
            metrics.encode().unwrap().contains(&line)
        };
        series.limit_keys(0, 0, 0, 0, 5);
        series.limit_keys(0, 0, 0, 0, 7);
        assert!(evicted(7));
        let new = policy(&limit.replace("client", "sender"));
        let series = metrics.adopt(&new, "new");
        series.limit_keys(0, 0, 0, 0, 2);
        assert!(evicted(9));
        let series = metrics.adopt(&new, "the same limit");
        series.limit_keys(0, 0, 0, 0, 3);
        assert!(evicted(10));
    }

    /// A worker may have something to say after the last connection that had its notify.
    #[test]
    fn who_is_told_no_more_does_not_come_back() {
        let told = "limit = { messages = \"1/hour\" }\nnotify = \"admin\"\n[notify.admin]\ncommand = \"/bin/true\"\n";
        let metrics = Metrics::new().unwrap();
        let old = policy(&format!("{RULE}[[rule]]\nname = \"r\"\n{told}"));
        let _series = metrics.adopt(&old, "old");
        metrics.notified("admin", Notified::Sent);
        let sent = "postward_notifications_total{notify=\"admin\",result=\"sent\"} 1";
        assert!(metrics.encode().unwrap().contains(sent));
        let new = policy(RULE);
        let _series = metrics.adopt(&new, "new");
        drop(old);
        assert!(!metrics.encode().unwrap().contains("notify=\"admin\""));
        metrics.notified("admin", Notified::Sent);
        assert!(!metrics.encode().unwrap().contains("notify=\"admin\""));
    }

    #[test]
    fn every_step_of_a_limit_has_its_series_from_the_start() {
        let steps = "\"100%\" = \"monitor\", \"150%\" = \"quarantine\", \"200%\" = \"defer\", \"300%\" = \"450 4.7.1 No\", \
                     \"400%\" = \"refuse\"";
        let limit = format!("limit = {{ messages = \"9/hour\", charge = \"attempts\", steps = {{ {steps} }} }}");
        let exposition = exposition(&format!("[[rule]]\nname = \"r\"\n{limit}\nallow = \"unusual-stage\"\n"));
        let of_rule = exposition.lines().filter_map(|line| line.strip_prefix("postward_rule_matches_total{action=\""));
        let of_rule: Vec<_> = of_rule.filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(of_rule, ["defer", "monitor", "quarantine", "refuse"], "{exposition}");
        for (code, enhanced) in [(452, "4.3.1"), (450, "4.7.1"), (550, "5.7.1")] {
            assert!(has(&exposition, ("mail", code, enhanced, "enforce")), "{code}\n{exposition}");
        }
    }
}
