//! What is told: as environment variables, and as JSON. What strangers sent is bounded here.

use std::time::SystemTime;

use serde_json::Map;
use serde_json::Value;

use crate::policy::Excess;
use crate::policy::Match;
use crate::policy::MatchedAction;
use crate::session::Decision;
use crate::session::Session;
use crate::session::Verdict;

/// The longest value, in characters.
const MAX_VALUE: usize = 1000;

/// An excess, as values with names.
#[derive(Clone, Debug)]
pub(super) struct Event {
    values: Vec<(&'static str, Option<String>)>,
}

impl Event {
    /// What a decision has to tell of one of its matches.
    pub(super) fn new(
        told: &str,
        session: &Session,
        decision: &Decision,
        matched: &Match,
        Excess { counter, key, exceeded }: &Excess,
    ) -> Self {
        let policy = session.policy();
        let subject = session.subject();
        let (connection, message) = (subject.connection, subject.message);
        let counter = policy.counters().get(*counter);
        let recipient = || subject.recipient.map(|recipient| recipient.address.as_written().to_owned());
        let values = [
            ("notify", Some(told.to_owned())),
            ("time", Some(humantime::format_rfc3339_seconds(now()).to_string())),
            ("rule", Some(policy.rule_name(matched.rule).to_owned())),
            ("mode", Some(matched.mode.name().to_owned())),
            ("action", Some(action(matched).to_owned())),
            ("step", matched.step.map(|percent| format!("{percent}%"))),
            ("stage", Some(decision.stage.name().to_owned())),
            ("key", counter.map(|counter| counter.written(key))),
            ("measure", counter.map(|counter| counter.measure.name().to_owned())),
            ("limit", counter.map(|counter| counter.bound(exceeded))),
            ("used", Some(exceeded.used.to_string())),
            ("retry_at", exceeded.retry_at.map(|at| humantime::format_rfc3339_seconds(at).to_string())),
            ("client", connection.client.map(|client| client.to_string())),
            ("client_name", Some(connection.client_name.as_written().to_owned())),
            ("helo", connection.helo.as_ref().map(|helo| helo.as_written().to_owned())),
            ("login", message.and_then(|message| message.login.as_deref()).map(str::to_owned)),
            ("sender", message.map(|message| message.sender.or_null().to_owned())),
            ("recipient", matched.recipient.clone().or_else(recipient)),
            ("reply", reply(decision, matched)),
            ("decision_id", Some(decision.id.to_string())),
            ("queue_id", message.and_then(|message| message.queue_id.as_deref()).map(str::to_owned)),
        ];
        Self { values: values.map(|(name, value)| (name, value.map(|value| bounded(&value)))).into() }
    }

    /// Each value under its name, `POSTWARD_RULE`; empty where it is not known. A shell, a log, a terminal: whoever reads
    /// them finds no control character.
    pub(super) fn environment(&self) -> impl Iterator<Item = (String, String)> {
        let name = |name: &str| format!("POSTWARD_{}", name.to_ascii_uppercase());
        self.values.iter().map(move |(key, value)| (name(key), visible(value.as_deref().unwrap_or_default())))
    }

    /// An object with the same values; `null` where one is not known.
    pub(super) fn to_json(&self) -> String {
        let value = |(name, value): &(&str, Option<String>)| {
            let number = value.as_deref().filter(|_| *name == "used").and_then(|text| text.parse::<u64>().ok());
            let value = number.map(Value::from).unwrap_or_else(|| Value::from(value.clone()));
            ((*name).to_owned(), value)
        };
        Value::Object(self.values.iter().map(value).collect::<Map<_, _>>()).to_string()
    }
}

/// What the client was told, or would have been.
fn reply(decision: &Decision, matched: &Match) -> Option<String> {
    let spoken = match &decision.verdict {
        Verdict::Refuse(reply) => Some(reply),
        Verdict::Accept | Verdict::Continue | Verdict::Discard | Verdict::Quarantine(_) => decision.watched.as_ref(),
    };
    let spoken = spoken.filter(|_| decision.rule == Some(matched.rule));
    matched.watched.as_ref().or(spoken).map(ToString::to_string)
}

/// Without steps a rule refuses, be it for a while only.
const fn action(matched: &Match) -> &'static str {
    let refuses = matches!(matched.action, MatchedAction::Refuse(_));
    if refuses && matched.step.is_none() { "refuse" } else { matched.action.step_name() }
}

fn bounded(value: &str) -> String {
    value.chars().take(MAX_VALUE).collect()
}

/// `\n`, `\u{1b}` and the like in place of control characters.
fn visible(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "the server reads the clock, so that the core need not")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::server::notify) fn event(values: &[(&'static str, &str)]) -> Event {
        Event { values: values.iter().map(|(name, value)| (*name, Some((*value).to_owned()))).collect() }
    }

    #[test]
    fn a_strangers_value_has_no_control_characters_in_the_environment() {
        let event = event(&[("helo", "a\nPATH=/evil\0\u{1b}[2J\u{9b}\u{e9}\\n")]);
        let environment: Vec<_> = event.environment().collect();
        let shown = "a\\nPATH=/evil\\u{0}\\u{1b}[2J\\u{9b}\u{e9}\\n";
        assert_eq!(environment, [("POSTWARD_HELO".to_owned(), shown.to_owned())]);
        let json: Value = serde_json::from_str(&event.to_json()).unwrap();
        assert_eq!(json["helo"], "a\nPATH=/evil\0\u{1b}[2J\u{9b}\u{e9}\\n");
    }

    #[test]
    fn what_is_not_known_is_empty_or_null() {
        let event = Event { values: vec![("login", None), ("used", Some("7".to_owned()))] };
        let environment: Vec<_> = event.environment().map(|(_, value)| value).collect();
        assert_eq!(environment, ["", "7"]);
        assert_eq!(event.to_json(), r#"{"login":null,"used":7}"#);
    }

    #[test]
    fn a_value_is_bounded() {
        assert_eq!(bounded(&"\u{e9}".repeat(5000)).chars().count(), MAX_VALUE);
    }
}
