//! What is asked, done. Reads and changes the limits; whatever changes is logged with who did it, and counted.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Uid;
use nix::unistd::User;

use super::answer;
use super::answer::Refusal;
use super::request::Command;
use super::request::Request;
use crate::facts::DecisionId;
use crate::facts::Key;
use crate::lookup::Cursor;
use crate::metrics::LimitChange;
use crate::policy::Counter;
use crate::policy::Policy;
use crate::server::context::Context;
use crate::server::context::InForce;
use crate::server::ring::Stock;

/// Does what does not need many answers one after the other; gives the whole answer.
pub(super) fn perform(request: &Request, context: &Context, uid: u32) -> String {
    let in_force = context.in_force();
    let operator = Operator { context, in_force: &in_force, uid, rule: request.rule.as_deref() };
    let answer = match &request.command {
        Command::Block { key, span } => operator.block(key, *span),
        Command::Explain { id } => explain(*id, context),
        Command::List { .. } | Command::Reload => Ok(Vec::new()),
        Command::Reset { key } => operator.reset(key),
        Command::Show { key } => operator.show(key),
        Command::Top { most } => operator.top(*most),
        Command::Unblock { key } => operator.unblock(key),
    };
    match answer {
        Ok(lines) => lines.concat() + &answer::done(lines.len()),
        Err(refusal) => refusal.line(),
    }
}

/// What was decided about a message, or in a session.
fn explain(id: DecisionId, context: &Context) -> Result<Vec<String>, Refusal> {
    let found = context.ring.find(id);
    if !found.is_empty() {
        return Ok(found.iter().map(|entry| answer::decision(entry)).collect());
    }
    let Stock { decisions, most, since, .. } = context.ring.stock();
    Err(Refusal::unknown(match since {
        _ if most == 0 => "no decisions are kept (http.decisions = 0); the log has them".to_owned(),
        None => format!("nothing is known of {id}: since the daemon started nothing was decided; the log may have it"),
        Some(since) => format!(
            "nothing is known of {id}: the last {decisions} decisions are kept, since {}; the log may have it",
            humantime::format_rfc3339_seconds(since)
        ),
    }))
}

/// A walk over all keys of some counters.
pub(super) struct Listing {
    in_force: Arc<InForce>,
    counters: Range<usize>,
    rule: Option<String>,
    limited: bool,
    cursor: Cursor,
    listed: usize,
}

impl Listing {
    pub(super) fn new(in_force: Arc<InForce>, rule: Option<&str>, limited: bool) -> Result<Self, Refusal> {
        chosen(&in_force.policy, rule)?;
        let counters = 0..in_force.policy.counters().len();
        Ok(Self { in_force, counters, rule: rule.map(str::to_owned), limited, cursor: Cursor::default(), listed: 0 })
    }

    /// The next lines, and what is left to list.
    pub(super) fn more(mut self) -> (String, Option<Self>) {
        let Some(counter) =
            self.in_force.policy.counters().get(self.counters.start).filter(|_| !self.counters.is_empty())
        else {
            return (answer::done(self.listed), None);
        };
        let is_meant = self.rule.as_ref().is_none_or(|rule| counter.rule == *rule);
        let mut lines = String::new();
        let mut is_last = true;
        if is_meant {
            let views = self.in_force.lookups.list_limits(self.counters.start, &mut self.cursor, AT_ONCE);
            is_last = views.len() < AT_ONCE;
            let told =
                views.iter().filter(|view| !self.limited || view.retry_after.is_some() || view.blocked.is_some());
            for view in told {
                lines.push_str(&answer::limit(counter, view));
                self.listed += 1;
            }
        }
        if is_last {
            self.counters.start += 1;
            self.cursor = Cursor::default();
        }
        (lines, Some(self))
    }
}

/// Who asks, and about which rule.
struct Operator<'a> {
    context: &'a Context,
    in_force: &'a InForce,
    uid: u32,
    rule: Option<&'a str>,
}

impl Operator<'_> {
    fn top(&self, most: usize) -> Result<Vec<String>, Refusal> {
        let mut lines = Vec::new();
        for (number, counter) in chosen(&self.in_force.policy, self.rule)? {
            let views = self.in_force.lookups.top_limits(number, most);
            lines.extend(views.iter().map(|view| answer::limit(counter, view)));
        }
        Ok(lines)
    }

    fn show(&self, text: &str) -> Result<Vec<String>, Refusal> {
        let mut lines = Vec::new();
        for (number, counter, key) in self.keys(text)? {
            let view = self.in_force.lookups.show_limit(number, &key);
            lines.extend(view.map(|view| answer::limit(counter, &view)));
        }
        if lines.is_empty() { Err(Refusal::unknown(format!("no limit knows {text}"))) } else { Ok(lines) }
    }

    fn reset(&self, text: &str) -> Result<Vec<String>, Refusal> {
        let lookups = &self.in_force.lookups;
        let lines = self.change(text, LimitChange::Reset, None, |number, key| lookups.reset_limit(number, key))?;
        if lines.is_empty() { Err(Refusal::unknown(format!("nothing is counted for {text}"))) } else { Ok(lines) }
    }

    /// A key that no limit knows may be blocked beforehand; so one that many rules could have needs the name of one.
    fn block(&self, text: &str, span: Option<Duration>) -> Result<Vec<String>, Refusal> {
        let keys = self.keys(text)?;
        let rules = rules(keys.iter().map(|(_, counter, _)| *counter));
        if rules.len() > 1 {
            return Err(Refusal::rule(format!("{} have such keys; choose one (--rule)", rules.join(", "))));
        }
        self.change(text, LimitChange::Block, span, |number, key| {
            self.in_force.lookups.block_limit(number, key, span);
            true
        })
    }

    fn unblock(&self, text: &str) -> Result<Vec<String>, Refusal> {
        let lookups = &self.in_force.lookups;
        let lines = self.change(text, LimitChange::Unblock, None, |number, key| lookups.unblock_limit(number, key))?;
        if lines.is_empty() { Err(Refusal::unknown(format!("{text} is not blocked"))) } else { Ok(lines) }
    }

    /// Changes a key in each limit that has such keys; `work` says whether there was anything to do.
    fn change(
        &self,
        text: &str,
        change: LimitChange,
        span: Option<Duration>,
        work: impl Fn(usize, &[u8]) -> bool,
    ) -> Result<Vec<String>, Refusal> {
        let user = User::from_uid(Uid::from_raw(self.uid)).ok().flatten().map(|user| user.name);
        let mut lines = Vec::new();
        for (number, counter, key) in self.keys(text)? {
            let before = self.in_force.lookups.show_limit(number, &key);
            if !work(number, &key) {
                continue;
            }
            let view = self.in_force.lookups.show_limit(number, &key).or_else(|| before.map(answer::forgotten));
            self.context.metrics.limit_changed(change);
            tracing::info!(
                change = change.name(),
                rule = counter.rule,
                measure = counter.measure.name(),
                key = counter.written(&key),
                seconds = span.map(|span| span.as_secs()),
                uid = self.uid,
                user,
                "limit changed by an administrator"
            );
            lines.extend(view.map(|view| answer::changed(counter, change, &view)));
        }
        Ok(lines)
    }

    /// The key that is meant, for each limit that has such keys.
    fn keys(&self, text: &str) -> Result<Vec<(usize, &Counter, Key)>, Refusal> {
        let mut keys = Vec::new();
        let mut whys: Vec<String> = Vec::new();
        for (number, counter) in chosen(&self.in_force.policy, self.rule)? {
            match counter.meant(text) {
                Ok(key) => keys.push((number, counter, key)),
                Err(error) => {
                    let why = format!("{}: {error}", counter.rule);
                    whys.extend(Some(why).filter(|why| !whys.contains(why)));
                }
            }
        }
        if keys.is_empty() {
            return Err(Refusal::key(format!("no limit has such keys; {}", whys.join("; "))));
        }
        Ok(keys)
    }
}

/// The counters of the rule, or all, by number.
fn chosen<'a>(policy: &'a Policy, rule: Option<&str>) -> Result<Vec<(usize, &'a Counter)>, Refusal> {
    let counters = policy.counters().iter().enumerate();
    let chosen: Vec<_> = counters.filter(|(_, counter)| rule.is_none_or(|rule| counter.rule == rule)).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let rules = rules(policy.counters().iter());
    Err(Refusal::rule(match rule {
        Some(rule) if !rules.is_empty() => format!("no limit is called `{rule}`; there are: {}", rules.join(", ")),
        Some(_) | None => "the configuration has no limits".to_owned(),
    }))
}

/// The rules that have these counters, each once.
fn rules<'a>(counters: impl Iterator<Item = &'a Counter>) -> Vec<&'a str> {
    let mut rules: Vec<&str> = Vec::new();
    for counter in counters {
        if !rules.contains(&counter.rule.as_str()) {
            rules.push(&counter.rule);
        }
    }
    rules
}

/// How many keys are told at once.
const AT_ONCE: usize = 256;
