//! Where Sendmail's log has replies (`srvrsmtp.c`, `milter.c`, `deliver.c: logdelivery`, `err.c: putoutmsg`).
//!
//! Of one refusal it may log up to three lines: what a milter answered, what becomes of it, at a high log level what the
//! client was told, and by which rules.

use super::Speaker;
use super::slot;
use super::slot::Codes;
use super::slot::Head;
use super::slot::Slot;

/// The steps in which one refusal comes into the log, in order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Step {
    /// `milter=name, action=rcpt, reject=…`
    Answered,
    /// `Milter: to=<a@b>, reject=…`
    Refused,
    /// `--- 550 …`
    Said,
    /// `ruleset=check_rcpt, …, reject=…`
    Explained,
}

/// The last refusal of each process, so that it counts once.
#[derive(Debug, Default)]
pub(super) struct Events {
    last: Vec<(u64, Step, Codes)>,
}

impl Events {
    /// Whether this is not a later step of what is known.
    pub(super) fn is_new(&mut self, key: u64, step: Step, codes: Codes) -> bool {
        let at = self.last.iter().position(|(known, _, _)| *known == key);
        let last = at.map(|at| self.last.remove(at));
        if self.last.len() >= MAX_EVENTS {
            self.last.remove(0);
        }
        self.last.push((key, step, codes));
        !last.is_some_and(|(_, before, known)| before < step && known == codes)
    }
}

/// The reply in a message, and, if it is a refusal, how far it has come.
pub(super) fn find(body: &str) -> Option<(Slot, Option<Step>)> {
    if body.starts_with("to=") {
        return delivery(body).map(|slot| (slot, None));
    }
    let refusals = [
        ("ruleset=", Speaker::Mta, Step::Explained),
        ("Milter: ", Speaker::Milter, Step::Refused),
        ("milter=", Speaker::Milter, Step::Answered),
    ];
    let (_, speaker, step) = refusals.into_iter().find(|(start, _, _)| body.starts_with(start))?;
    // The argument, which a stranger chose, comes first.
    let body = match body.split_once("arg1=<") {
        Some((_, argument)) => slot::after_address(argument)?,
        None => body,
    };
    let head = body.match_indices(", reject=").find_map(|(at, found)| Head::parse(body.get(at + found.len()..)?))?;
    let head = head.rest().find(", errormode=").map_or(head, |end| head.until(end));
    Some((Slot::new(&head, speaker), Some(step)))
}

/// What stands behind `--- ` without marks; `None` where it is held back and logged again when it is said.
pub(super) fn said(line: &str) -> Option<&str> {
    let line = line.trim_end();
    (!line.ends_with(" (hold)")).then(|| line.strip_suffix(" (held)").unwrap_or(line))
}

/// `to=<a@b>, delay=…, relay=mx [address], dsn=5.1.1, reply=550 5.1.1 text, stat=User unknown`
fn delivery(body: &str) -> Option<Slot> {
    let mut body = body.strip_prefix("to=")?;
    while let Some(address) = body.strip_prefix('<') {
        body = slot::after_address(address)?;
        body = body.strip_prefix(',').filter(|next| next.starts_with('<')).unwrap_or(body);
    }
    let (fields, stat) = body.rsplit_once(", stat=").unwrap_or((body, ""));
    if let Some(head) = fields.find(", reply=").and_then(|at| Head::parse(fields.get(at + 8..)?)) {
        return Some(Slot::new(&head, speaker_of(&head)));
    }
    let sent = stat.strip_prefix("Sent (").map(|text| text.strip_suffix(')').unwrap_or(text));
    if let Some(head) = sent.or_else(|| stat.strip_prefix("Deferred: ")).and_then(Head::parse) {
        return Some(Slot::new(&head, Speaker::Remote));
    }
    let (dsn, _) = slot::enhanced(fields.get(fields.rfind(", dsn=")? + 6..)?)?;
    Some(match sent {
        // Of `250 2.0.0 Ok` Sendmail keeps `2.0.0 Ok`.
        Some(text) => match Head::parse_enhanced(text) {
            Some(head) => Slot::new(&head, Speaker::Remote),
            None => Slot::of_status(dsn, text, Speaker::Remote),
        },
        None => Slot::of_status(dsn, stat, Speaker::Nobody),
    })
}

/// Where a connection breaks, Sendmail makes a reply up (`usersmtp.c: reply`).
fn speaker_of(head: &Head<'_>) -> Speaker {
    let made_up = head.code == Some(421) && head.rest().starts_with("Connection reset by ");
    if made_up { Speaker::Nobody } else { Speaker::Remote }
}

/// How many processes' refusals are kept.
const MAX_EVENTS: usize = 64;
