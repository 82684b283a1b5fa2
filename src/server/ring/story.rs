//! A decision as the control socket tells it: everything that is kept of it.

use serde_json::Value;
use serde_json::json;

use super::Entry;
use crate::policy::Match;
use crate::policy::MatchedAction;
use crate::reply::Reply;

impl Entry {
    /// For programs. What is not known is null.
    pub(in crate::server) fn to_json(&self) -> Value {
        let known = |text: &'static str, value: &str| (!value.is_empty()).then(|| (text, value.to_owned()));
        let texts = [
            known("client_name", self.client_name()),
            known("helo", self.helo()),
            known("listener", self.listener()),
            known("login", self.login()),
            known("sender", self.sender()),
            known("queue_id", self.queue_id()),
        ];
        let mut told = json!({
            "id": self.id.to_string(),
            "time": humantime::format_rfc3339_millis(self.at).to_string(),
            "stage": self.stage.name(),
            "outcome": self.outcome.name(),
            "reply": self.reply.as_ref().map(Reply::to_string),
            "rule": self.rule(),
            "client": self.client,
            "client_name": null,
            "helo": null,
            "port": self.port,
            "listener": null,
            "tls": self.tls,
            "authenticated": self.authenticated,
            "login": null,
            "sender": null,
            "recipients": self.recipients().collect::<Vec<_>>(),
            "recipients_accepted": self.recipients,
            "size": self.size,
            "queue_id": null,
            "matches": self.matches.iter().map(|matched| self.match_json(matched)).collect::<Vec<_>>(),
            "configuration": self.book.hash,
        });
        for (key, value) in texts.into_iter().flatten() {
            if let Some(place) = told.get_mut(key) {
                *place = value.into();
            }
        }
        told
    }

    fn match_json(&self, matched: &Match) -> Value {
        let outline = self.book.outline(matched.rule, self.stage);
        json!({
            "rule": self.book.rule_name(matched.rule),
            "action": action(matched.action),
            "mode": matched.mode.name(),
            "step": matched.step,
            "matched": matched.detail,
            "recipient": matched.recipient,
            "would_reply": matched.watched.as_ref().map(Reply::to_string),
            "asked": outline.map(|outline| outline.facts.iter().map(|fact| fact.name()).collect::<Vec<_>>()),
            "counts": outline.and_then(|outline| outline.counts.as_deref()),
        })
    }
}

/// As metrics and `postward check` have it.
pub(in crate::server) const fn action(action: MatchedAction) -> &'static str {
    match action {
        MatchedAction::Accept => "accept",
        MatchedAction::AddHeader => "add_header",
        MatchedAction::Discard => "discard",
        MatchedAction::Monitor => "monitor",
        MatchedAction::Quarantine => "quarantine",
        MatchedAction::Refuse(_) => "refuse",
    }
}
