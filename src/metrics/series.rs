//! The series of one policy: its replies, its rules, its limits.
//!
//! They are known by their names, so that a policy that follows on another one goes on counting where that has come to.
//! Rules and limits that no policy has any more are forgotten; replies stay, or their sum would shrink.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;

use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;

use super::Notified;
use super::register;
use crate::config::Mode;
use crate::facts::Stage;
use crate::policy::Failure;
use crate::policy::Match;
use crate::policy::Policy;
use crate::policy::Rule;
use crate::reply::Status;
use crate::session::Decision;
use crate::session::Verdict;

/// What is counted for one policy.
#[derive(Debug)]
pub struct Series {
    replies: IntCounterVec,
    /// By rule, then by what follows: one thing, or what its steps do.
    matches: Vec<Vec<(&'static str, IntCounter)>>,
    /// By the policy's number of a counter.
    limited: Vec<IntGauge>,
    blocked: Vec<IntGauge>,
}

/// The series of all policies that have sessions.
pub(super) struct Families {
    replies: IntCounterVec,
    matches: IntCounterVec,
    limited: IntGaugeVec,
    blocked: IntGaugeVec,
    notifications: IntCounterVec,
    info: IntGaugeVec,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    policies: Vec<Weak<Policy>>,
    rules: BTreeSet<[String; 3]>,
    limits: BTreeSet<[String; 2]>,
    notifiers: BTreeSet<String>,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let limit = ["rule", "measure"];
        Ok(Self {
            replies: counters(
                "postward_replies_total",
                "SMTP replies that refused something, as the client was told",
                &["stage", "code", "enhanced_code", "mode"],
            )?,
            matches: counters("postward_rule_matches_total", "How often a rule held", &["rule", "action", "mode"])?,
            limited: gauges("postward_limit_keys_limited", "Keys of limits that have no room left", &limit)?,
            blocked: gauges("postward_limit_keys_blocked", "Keys of limits that are blocked", &limit)?,
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
        let gauges = |family: &IntGaugeVec| limits.iter().map(|labels| family.with_label_values(labels)).collect();
        let series = Series {
            replies: self.replies.clone(),
            matches: policy.rules().iter().enumerate().map(|rule| self.of_rule(policy, rule)).collect(),
            limited: gauges(&self.limited),
            blocked: gauges(&self.blocked),
        };
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
        }
        live.rules = known;
        let known: BTreeSet<_> = policies.iter().flat_map(|policy| limits(policy)).collect();
        for labels in live.limits.difference(&known) {
            let labels = labels.each_ref().map(String::as_str);
            _ = self.limited.remove_label_values(&labels);
            _ = self.blocked.remove_label_values(&labels);
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

    fn of_rule(&self, policy: &Policy, rule: (usize, &Rule)) -> Vec<(&'static str, IntCounter)> {
        let counter = |action| (action, self.matches.with_label_values(&labels(policy, rule, action)));
        actions(rule.1).iter().copied().map(counter).collect()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    /// Counts what a decision of this policy says.
    pub(super) fn record(&self, decision: &Decision) {
        for matched in &decision.matches {
            self.record_match(decision, matched);
        }
        if let Verdict::Refuse(reply) = &decision.verdict {
            self.reply(decision.stage, reply.status(), Mode::Enforce).inc();
        }
        if let Some(reply) = &decision.watched {
            self.reply(decision.stage, reply.status(), Mode::Monitor).inc();
        }
    }

    /// How many keys of a counter have no room, and how many are blocked.
    pub fn limit_states(&self, counter: usize, limited: usize, blocked: usize) {
        for (gauges, keys) in [(&self.limited, limited), (&self.blocked, blocked)] {
            if let Some(gauge) = gauges.get(counter) {
                gauge.set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
        }
    }

    /// A rule that is only watched has its reply counted with its match: nothing else tells of it.
    fn record_match(&self, decision: &Decision, matched: &Match) {
        let of_rule = self.matches.get(matched.rule).map(Vec::as_slice).unwrap_or_default();
        let is_meant = |(action, _): &&(&str, IntCounter)| of_rule.len() == 1 || *action == matched.action.step_name();
        if let Some((_, counter)) = of_rule.iter().find(is_meant) {
            counter.inc();
        }
        if let Some(reply) = &matched.watched {
            self.reply(decision.stage, reply.status(), Mode::Monitor).inc();
        }
    }

    fn reply(&self, stage: Stage, status: Status, mode: Mode) -> IntCounter {
        self.replies.with_label_values(&reply_labels(stage, status, mode).each_ref().map(String::as_str))
    }
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
        series.matches[0][0].1.inc();
        series.matches[1][0].1.inc();
        let new = policy(&RULE.replace("5.2.1", "5.7.1"));
        let series = metrics.adopt(&new, "new");
        series.matches[0][0].1.inc();
        let both = metrics.encode().unwrap();
        let closed = "postward_rule_matches_total{action=\"refuse\",mode=\"enforce\",rule=\"closed\"} 2";
        assert!(both.contains(closed) && both.contains("rule=\"rate\""), "{both}");
        assert!(both.contains("hash=\"new\"") && !both.contains("hash=\"old\""), "{both}");
        drop(old);
        let new = metrics.encode().unwrap();
        assert!(new.contains(closed) && !new.contains("rule=\"rate\""), "{new}");
        assert!(has(&new, ("rcpt", 550, "5.2.1", "enforce")), "{new}");
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
