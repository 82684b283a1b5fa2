//! One line for each decision. What a stranger sent is given as a string, which every format keeps apart from what stands
//! around it, so that it cannot forge a line.

use super::limited::Warnings;
use crate::config::Mode;
use crate::policy::Match;
use crate::policy::MatchedAction;
use crate::reply::Reply;
use crate::session::Decision;
use crate::session::Negotiation;
use crate::session::Session;
use crate::session::Subject;
use crate::session::Verdict;
use crate::wire::Actions;
use crate::wire::Frame;

/// Tells what the MTA will not let us do, if the policy needs it.
pub(super) fn negotiated(session: &Session, negotiation: &Negotiation, warnings: &Warnings) {
    let taken = negotiation.taken();
    tracing::debug!(session = %session.id(), version = taken.version, steps = ?taken.steps, "negotiated");
    if negotiation.missing() != Actions::default() && warnings.missing.admits() {
        tracing::warn!(
            session = %session.id(), missing = ?negotiation.missing(),
            "the MTA does not grant what the policy needs; messages that need it are deferred"
        );
    }
}

/// Tells of a packet from the MTA. What is in the message is nobody's business; and an unknown command may well be a password
/// that a client said at the wrong moment.
pub(super) fn received(session: &Session, frame: Frame<'_>) {
    let is_envelope = matches!(frame.code, b'C' | b'D' | b'H' | b'M' | b'O' | b'R');
    tracing::trace!(
        session = %session.id(), command = %frame.code.escape_ascii(), length = frame.data.len(),
        bytes = is_envelope.then(|| tracing::field::display(frame.data.escape_ascii())),
        "received"
    );
}

/// Tells of packets to the MTA.
pub(super) fn sent(session: &Session, bytes: &[u8]) {
    tracing::trace!(session = %session.id(), length = bytes.len(), bytes = %bytes.escape_ascii(), "sent");
}

/// Tells of a decision: at `info` if the client or an administrator could notice it, else at `debug`.
pub(super) fn decided(session: &Session, decision: &Decision) {
    let subject = session.subject();
    let policy = session.policy();
    // Of a policy in monitor mode the refusals are told with the decision, everything else with its match.
    let nothing_is_done = policy.mode() == Mode::Monitor;
    let is_watched = |matched: &Match| {
        policy.is_watched(matched.rule) || (nothing_is_done && !matches!(matched.action, MatchedAction::Refuse(_)))
    };
    // What a step lets pass has a line of its own: the decision may be another rule's.
    let watched = |matched: &&Match| is_watched(matched) || (matched.step.is_some() && passes(matched.action));
    for matched in decision.matches.iter().filter(watched) {
        let rule = policy.rule_name(matched.rule);
        let line = Line { decision, subject, rule, step: matched.step, detail: matched.detail.as_deref() };
        if is_watched(matched) { line.would(matched) } else { line.passes(matched) }
    }
    let last = decision.matches.iter().rfind(|matched| !watched(matched));
    let rule = decision.rule.or_else(|| last.map(|matched| matched.rule));
    let line = Line {
        decision,
        subject,
        rule: rule.map_or("", |rule| policy.rule_name(rule)),
        step: last.and_then(|matched| matched.step).or(decision.step),
        detail: last
            .and_then(|matched| matched.detail.as_deref())
            .or_else(|| session.is_overload().then_some("max_sessions")),
    };
    match (&decision.verdict, &decision.watched) {
        (Verdict::Refuse(reply), _) => line.write("refuse", Some(reply)),
        (_, Some(reply)) => line.write("would refuse", Some(reply)),
        (Verdict::Accept, None) => line.write("accept", None),
        (Verdict::Discard, None) => line.write("discard", None),
        (Verdict::Quarantine(_), None) => line.write("quarantine", None),
        (Verdict::Continue, None) if decision.held_back => line.write("refuse at end of message", None),
        (Verdict::Continue, None) => {
            let held: Vec<&str> = decision.matches.iter().map(|matched| policy.rule_name(matched.rule)).collect();
            let held = (!held.is_empty()).then(|| held.join(","));
            tracing::debug!(id = %decision.id, stage = decision.stage.name(), held, "continue");
        }
    }
}

const fn passes(action: MatchedAction) -> bool {
    matches!(action, MatchedAction::Monitor | MatchedAction::Quarantine)
}

/// What a line tells.
struct Line<'a> {
    decision: &'a Decision,
    subject: Subject<'a>,
    rule: &'a str,
    /// In percent of the rule's limit.
    step: Option<u32>,
    detail: Option<&'a str>,
}

impl Line<'_> {
    /// A rule in monitor mode held.
    fn would(&self, matched: &Match) {
        let verdict = match matched.action {
            MatchedAction::Refuse(_) => "would refuse",
            MatchedAction::Accept => "would accept",
            MatchedAction::AddHeader => "would add a header",
            MatchedAction::Discard => "would discard",
            MatchedAction::Monitor => "would let pass",
            MatchedAction::Quarantine => "would quarantine",
        };
        self.write(verdict, matched.watched.as_ref());
    }

    /// A step lets pass.
    fn passes(&self, matched: &Match) {
        let holds = matches!(matched.action, MatchedAction::Quarantine);
        self.write(if holds { "quarantine at end of message" } else { "let pass" }, None);
    }

    fn write(&self, verdict: &str, reply: Option<&Reply>) {
        let Subject { connection, message, recipient, recipients } = self.subject;
        let helo = connection.helo.as_ref().map(|helo| helo.as_written());
        tracing::info!(
            id = %self.decision.id,
            queue_id = message.and_then(|message| message.queue_id.as_deref()),
            stage = self.decision.stage.name(),
            client = connection.client.map(tracing::field::display),
            client_name = connection.client_name.as_written(),
            helo,
            login = message.and_then(|message| message.login.as_deref()),
            sender = message.map(|message| message.sender.or_null()),
            recipient = recipient.map(|recipient| recipient.address.as_written()),
            recipients = (recipients > 1).then_some(recipients),
            rule = Some(self.rule).filter(|rule| !rule.is_empty()),
            step = self.step.map(|percent| format!("{percent}%")),
            matched = self.detail,
            reply = reply.map(Reply::to_string),
            "{verdict}"
        );
    }
}
