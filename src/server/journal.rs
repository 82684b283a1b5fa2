//! One line for each decision. What a stranger sent is quoted and escaped, so that it cannot forge a line.

use std::time::Duration;
use std::time::Instant;

use crate::config::Mode;
use crate::policy::Match;
use crate::policy::MatchedAction;
use crate::session::Decision;
use crate::session::Negotiation;
use crate::session::Session;
use crate::session::Subject;
use crate::session::Verdict;
use crate::wire::Actions;

/// Tells what the MTA will not let us do, if the policy needs it.
pub(super) fn negotiated(session: &Session, negotiation: &Negotiation) {
    let taken = negotiation.taken();
    tracing::debug!(session = %session.id(), version = taken.version, steps = ?taken.steps, "negotiated");
    if negotiation.missing() != Actions::default() {
        tracing::warn!(
            session = %session.id(), missing = ?negotiation.missing(),
            "the MTA does not grant what the policy needs; messages that need it are deferred"
        );
    }
}

/// Tells of a decision: at `info` if the client or an administrator could notice it, else at `debug`.
pub(super) fn decided(session: &Session, decision: &Decision) {
    let subject = session.subject();
    for matched in decision.matches.iter().filter(|matched| is_watched(session, matched)) {
        watched(session, decision, subject, matched);
    }
    let last = decision.matches.iter().rev().find(|matched| !is_watched(session, matched));
    let rule = decision.rule.or_else(|| last.map(|matched| matched.rule));
    let line = Line {
        session,
        decision,
        subject,
        rule: rule.map_or("", |rule| session.policy().rule_name(rule)),
        detail: last.and_then(|matched| matched.detail.as_deref()),
    };
    match (&decision.verdict, &decision.watched) {
        (Verdict::Refuse(reply), _) => line.write("refuse", Some(&reply.to_string())),
        (_, Some(reply)) => line.write("would refuse", Some(&reply.to_string())),
        (Verdict::Accept, None) => line.write("accept", None),
        (Verdict::Discard, None) => line.write("discard", None),
        (Verdict::Quarantine(rule), None) => Line { rule, ..line }.write("quarantine", None),
        (Verdict::Continue, None) if decision.held_back => line.write("refuse at end of message", None),
        (Verdict::Continue, None) => {
            tracing::trace!(id = %decision.id, stage = %decision.stage, rule = line.rule, "continue");
        }
    }
}

/// A rule in monitor mode held.
fn watched(session: &Session, decision: &Decision, subject: Subject<'_>, matched: &Match) {
    let rule = session.policy().rule_name(matched.rule);
    let line = Line { session, decision, subject, rule, detail: matched.detail.as_deref() };
    match matched.action {
        MatchedAction::Refuse(status) => line.write("would refuse", Some(&status.to_string())),
        MatchedAction::Accept => line.write("would accept", None),
        MatchedAction::AddHeader => line.write("would add a header", None),
        MatchedAction::Discard => line.write("would discard", None),
        MatchedAction::Quarantine => line.write("would quarantine", None),
    }
}

fn is_watched(session: &Session, matched: &Match) -> bool {
    session.policy().rules().get(matched.rule).is_some_and(|rule| rule.mode == Mode::Monitor)
}

/// What a line tells.
struct Line<'a> {
    session: &'a Session,
    decision: &'a Decision,
    subject: Subject<'a>,
    rule: &'a str,
    detail: Option<&'a str>,
}

impl Line<'_> {
    fn write(&self, verdict: &str, reply: Option<&str>) {
        let Subject { connection, message, recipient, recipients } = self.subject;
        let helo = connection.helo.as_ref().map(|helo| helo.as_written());
        let unknown = self.session.policy().rule_name(usize::MAX);
        tracing::info!(
            id = %self.decision.id,
            queue_id = message.and_then(|message| message.queue_id.as_deref()),
            stage = %self.decision.stage,
            client = connection.client.map(tracing::field::display),
            client_name = ?connection.client_name.as_written(),
            helo = helo.map(tracing::field::debug),
            login = message.and_then(|message| message.login.as_deref()).map(tracing::field::debug),
            sender = message.map(|message| tracing::field::debug(message.sender.as_written())),
            recipient = recipient.map(|recipient| tracing::field::debug(recipient.address.as_written())),
            recipients = (recipients > 1).then_some(recipients),
            rule = (self.rule != unknown).then_some(self.rule),
            matched = self.detail.map(tracing::field::debug),
            reply = reply.map(tracing::field::debug),
            "{verdict}"
        );
    }
}

/// A warning that is not repeated more than once a second.
#[derive(Debug, Default)]
pub struct Limited {
    last: Option<Instant>,
}

impl Limited {
    /// Warns, unless it did just now.
    #[expect(clippy::disallowed_methods, reason = "the server reads the clock, so that the core need not")]
    pub fn warn(&mut self, message: &'static str) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1)) {
            self.last = Some(now);
            tracing::warn!(message);
        }
    }
}
