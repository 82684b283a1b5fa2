//! What is told: keys of limits as JSON, and why a request is refused.

use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use super::VERSION;
use crate::lookup::Shared;
use crate::lookup::Tries;
use crate::lookup::View;
use crate::lookup::ends_after;
use crate::metrics::LimitChange;
use crate::policy::Counter;
use crate::server::reload::Outcome;
use crate::server::ring::Entry;

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    kind: &'static str,
    message: String,
}

impl Refusal {
    /// Too many ask at once.
    pub(super) fn busy() -> Self {
        Self { kind: "busy", message: "too many connections to the control socket; try again later".to_owned() }
    }

    /// No limit has such keys.
    pub(super) const fn key(message: String) -> Self {
        Self { kind: "key", message }
    }

    /// It cannot be understood.
    pub(super) const fn request(message: String) -> Self {
        Self { kind: "request", message }
    }

    /// There is no such rule, or more than one is meant.
    pub(super) const fn rule(message: String) -> Self {
        Self { kind: "rule", message }
    }

    /// Nothing is known of the key.
    pub(super) const fn unknown(message: String) -> Self {
        Self { kind: "unknown", message }
    }

    /// The last line of an answer.
    pub(super) fn line(&self) -> String {
        let Self { kind, message } = self;
        format!("{}\n", json!({"error": {"kind": kind, "message": message}, "version": VERSION}))
    }
}

/// A key as it is now.
pub(super) fn limit(counter: &Counter, view: &View) -> String {
    format!("{}\n", json!({"limit": known(counter, view), "version": VERSION}))
}

/// A key that was changed, as it is now.
pub(super) fn changed(counter: &Counter, change: LimitChange, view: &View) -> String {
    format!("{}\n", json!({"change": change.name(), "limit": known(counter, view), "version": VERSION}))
}

/// A decision, with all that is kept of it.
pub(super) fn decision(entry: &Entry) -> String {
    format!("{}\n", json!({"decision": entry.to_json(), "version": VERSION}))
}

/// What became of a reload.
pub(super) fn reloaded(outcome: &Outcome) -> String {
    let told = json!({
        "in_force": outcome.problem.is_none(),
        "problem": outcome.problem,
        "diagnostics": outcome.diagnostics.to_json(),
        "text": outcome.diagnostics.render(false),
        "notes": outcome.notes,
        "hash": outcome.hash,
        "rules": outcome.rules,
    });
    format!("{}\n", json!({"reload": told, "version": VERSION}))
}

/// The last line of an answer.
pub(super) fn done(lines: usize) -> String {
    format!("{}\n", json!({"done": lines, "version": VERSION}))
}

/// Of what is used, what is held is a part. Seconds are rounded up.
fn known(counter: &Counter, view: &View) -> Value {
    let rates = view.row.rates.iter().zip(&view.used);
    let rates =
        rates.map(|(rate, used)| (counter.rate(rate), rate.amount, Some(rate.per), used.saturating_add(view.held)));
    let concurrent = view.row.concurrent.map(|most| (format!("{most} at once"), most, None, view.held));
    let bounds = rates.chain(concurrent).map(|(bound, amount, per, used)| {
        json!({"bound": bound, "amount": amount, "seconds": per.map(|per| per.as_secs_f64()), "used": used})
    });
    let shares = view.row.shares.iter().zip(&view.tries).map(|(share, tries)| {
        json!({
            "bound": share.to_string(), "amount": share.percent, "seconds": share.per.as_secs_f64(),
            "used": tries.percent(), "tried": tries.tried, "refused": tries.refused,
        })
    });
    let blocked = view.blocked.and_then(ends_after);
    json!({
        "rule": counter.rule,
        "measure": counter.measure.name(),
        "key": counter.written(&view.key),
        "override": view.row.whose.as_deref(),
        "bounds": bounds.chain(shares).collect::<Vec<_>>(),
        "held": view.held,
        "limited": view.retry_after.is_some(),
        "limited_until": view.retry_after.and_then(time),
        "limited_seconds": view.retry_after.map(seconds),
        "blocked": view.blocked.is_some(),
        "blocked_until": blocked.and_then(time),
        "blocked_seconds": blocked.map(seconds),
    })
}

/// A key of which nothing is known any more, under the bounds that it had.
pub(super) fn forgotten(before: View) -> View {
    let used = vec![0; before.used.len()];
    let tries = vec![Tries::default(); before.tries.len()];
    View { charged: 0, used, tries, held: 0, retry_after: None, blocked: None, ..before }
}

/// Past the year 9999 there is no way to write it.
fn time(left: Duration) -> Option<String> {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = Shared::time_in(left).filter(|time| *time <= last)?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

fn seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
