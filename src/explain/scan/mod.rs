//! Finds the replies in a text: reply lines, transcripts, mail logs, delivery reports, prose.
//!
//! A line is either an entry of a log, where a reply is looked for only in the slots in which the program writes one
//! (`entry`, `postfix`, `sendmail`, `others`), or text that a person wrote or pasted (`unit`, `report`, `prose`). Nothing
//! here knows what a reply means.
//!
//! Strangers choose much of what a log holds. So a slot is looked for where the program writes it, not anywhere in a line.

mod entry;
mod others;
mod postfix;
mod prose;
mod report;
mod sendmail;
mod slot;
mod unit;

use super::Found;
use super::Speaker;
use entry::Entry;
use entry::Program;
use entry::Service;
use prose::Mode;
use report::Field;
use report::Report;
use sendmail::Events;
use sendmail::Step;
use slot::Head;
use slot::Slot;
use unit::Kind;
use unit::Unit;

/// Finds the replies in a text, line by line.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The number of the last line.
    line: usize,
    log_lines: usize,
    done: Vec<Found>,
    /// Text that may go on with the next line.
    unit: Option<Unit>,
    /// The last line of text said that a reply follows.
    introduced: bool,
    report: Report,
    /// Replies of several lines in a log, by process.
    waiting: Vec<(u64, Unit)>,
    events: Events,
}

impl Scanner {
    /// A scanner that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, without its line end; gives what is complete by now.
    pub fn line(&mut self, line: &str) -> Vec<Found> {
        self.line += 1;
        let line = line.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        match Entry::parse(line.trim_start_matches([' ', '\t', '>'])) {
            Some(entry) => {
                self.log_lines += 1;
                self.end_text();
                self.entry(&entry);
            }
            None => self.text(line),
        }
        std::mem::take(&mut self.done)
    }

    /// No more lines: gives what was waiting for a continuation.
    pub fn finish(&mut self) -> Vec<Found> {
        self.end_text();
        for (process, unit) in std::mem::take(&mut self.waiting) {
            self.end_said(process, Some(unit));
        }
        std::mem::take(&mut self.done)
    }

    /// How many lines had the form of a mail log's: syslog's, one with an ISO time stamp, or the journal's short one.
    #[must_use]
    pub const fn log_lines(&self) -> usize {
        self.log_lines
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        match entry.program {
            Program::Exim => match others::exim(entry.message) {
                Some(slot) => self.push(slot),
                None => self.pairs(entry.message),
            },
            Program::Other => self.pairs(entry.message),
            Program::Postfix(service) => self.postfix(service, entry),
            Program::Postward => self.done.extend(others::postward(entry.message).map(|slot| slot.found(self.line))),
            Program::Sendmail => self.sendmail(entry),
        }
    }

    fn postfix(&mut self, service: Service, entry: &Entry<'_>) {
        if let Some((speaker, said)) = postfix::dialogue(service, entry.message) {
            return self.said_by(entry.key, said, speaker);
        }
        let Some(slot) = postfix::find(entry.message) else { return };
        if slot.is_to_client() {
            self.events.is_new(entry.key, Step::Refused, slot.codes());
        }
        self.push(slot);
    }

    fn sendmail(&mut self, entry: &Entry<'_>) {
        let (_, body) = slot::queue_id(entry.message);
        if let Some(said) = body.strip_prefix("--- ") {
            if let Some(said) = sendmail::said(said) {
                self.said_by(entry.key, said, Speaker::Mta);
            }
            return;
        }
        let Some((slot, step)) = sendmail::find(body) else { return };
        if step.is_none_or(|step| self.events.is_new(entry.key, step, slot.codes())) {
            self.push(slot);
        }
    }

    /// A server's line in the log of one side of the session.
    fn said_by(&mut self, process: u64, said: &str, speaker: Speaker) {
        let Some(head) = Head::parse(said) else { return };
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == process);
        let unit = match at.map(|at| self.waiting.remove(at).1) {
            Some(mut unit) if unit.takes(&head) => {
                unit.add(said, self.line);
                unit
            }
            before => {
                self.end_said(process, before);
                Unit::new(Kind::Reply, said, self.line, speaker)
            }
        };
        if !unit.is_open() || unit.text().len() > MAX_UNIT {
            return self.end_said(process, Some(unit));
        }
        if self.waiting.len() >= MAX_WAITING {
            let (oldest, unit) = self.waiting.remove(0);
            self.end_said(oldest, Some(unit));
        }
        self.waiting.push((process, unit));
    }

    fn end_said(&mut self, process: u64, unit: Option<Unit>) {
        let Some(unit) = unit else { return };
        let slot = unit.reply().filter(|slot| self.events.is_new(process, Step::Said, slot.codes()));
        self.done.extend(slot.map(|slot| slot.found(unit.line_at(0))));
    }

    fn pairs(&mut self, message: &str) {
        if unit::may_hold_reply(message) {
            let unit = Unit::new(Kind::Prose, message, self.line, Speaker::Unknown);
            prose::find(&unit, Mode::Pairs, &mut self.done);
        }
    }

    /// A line of no log.
    fn text(&mut self, line: &str) {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            self.end_unit();
            self.report.end(&mut self.done);
            return;
        }
        let indented = line.starts_with([' ', '\t']);
        if Head::parse(trimmed).is_some_and(|head| self.unit.as_ref().is_some_and(|unit| unit.takes(&head)))
            && self.goes_on(trimmed)
        {
            return;
        }
        if let Some((speaker, said)) = unit::said(trimmed) {
            return self.said(said, speaker, indented);
        }
        if unit::is_clients(trimmed) {
            return self.end_text();
        }
        if let Some(field) = Field::parse(trimmed).filter(|_| !indented) {
            return self.field(field);
        }
        if !(indented && self.goes_on(trimmed)) {
            self.paragraph(trimmed);
        }
    }

    /// A line of a server: bare, quoted, or in a transcript.
    fn said(&mut self, said: &str, speaker: Speaker, indented: bool) {
        let Some(head) = Head::parse(said) else { return };
        let belongs = |unit: &Unit| unit.takes(&head) || (indented && unit.kind() != Kind::Reply);
        if self.unit.as_ref().is_some_and(belongs) && self.goes_on(said) {
            return;
        }
        let speaker = if self.introduced && speaker == Speaker::Unknown { Speaker::Remote } else { speaker };
        self.end_text();
        self.unit = Some(Unit::new(Kind::Reply, said, self.line, speaker));
    }

    /// Whether the line could be added to what waits.
    fn goes_on(&mut self, line: &str) -> bool {
        let room = |unit: &&mut Unit| unit.text().len() + line.len() < MAX_UNIT;
        let Some(unit) = self.unit.as_mut().filter(room) else { return false };
        unit.add(line, self.line);
        self.introduced = unit::introduces(line);
        true
    }

    fn field(&mut self, field: Field<'_>) {
        self.end_unit();
        match field {
            Field::Status(code) => self.report.status(code, self.line, &mut self.done),
            Field::Diagnostic { smtp, text } => {
                let speaker = if smtp { Speaker::Remote } else { Speaker::Nobody };
                self.unit = Some(Unit::new(Kind::Diagnostic, text, self.line, speaker));
            }
        }
    }

    fn paragraph(&mut self, line: &str) {
        self.end_unit();
        if !report::is_field(line) {
            self.report.end(&mut self.done);
        }
        self.introduced = unit::introduces(line);
        if is_told_to_nobody(line) {
            return;
        }
        if let Some(slot) = pasted(line) {
            self.push(slot);
        } else if self.introduced || unit::may_hold_reply(line) {
            self.unit = Some(Unit::new(Kind::Prose, line, self.line, Speaker::Unknown));
        }
    }

    fn end_text(&mut self) {
        self.end_unit();
        self.introduced = false;
        self.report.end(&mut self.done);
    }

    fn end_unit(&mut self) {
        let Some(unit) = self.unit.take() else { return };
        let before = self.done.len();
        match unit.reply().filter(|_| unit.kind() != Kind::Prose) {
            Some(slot) => self.done.push(slot.found(unit.line_at(0))),
            None => prose::find(&unit, Mode::Text, &mut self.done),
        }
        if unit.kind() == Kind::Diagnostic {
            self.report.diagnostic(&unit, self.done.len() - before);
        }
    }

    fn push(&mut self, slot: Slot) {
        self.done.push(slot.found(self.line));
    }
}

/// A log's message without what stands before it.
fn pasted(line: &str) -> Option<Slot> {
    let (_, body) = slot::queue_id(line);
    let of_mta = postfix::find(line).or_else(|| sendmail::find(body).map(|(slot, _)| slot));
    of_mta.or_else(|| others::exim(line)).or_else(|| others::postward(line))
}

/// A log's message in which a reply is named that nobody was told.
fn is_told_to_nobody(line: &str) -> bool {
    let (_, body) = slot::queue_id(line);
    body.starts_with("reject_warning: ")
}

/// How many octets of one reply or paragraph are kept while its end is waited for.
const MAX_UNIT: usize = 1 << 16;

/// How many replies of several lines, of as many processes, are waited for at once.
const MAX_WAITING: usize = 64;

#[cfg(test)]
mod tests;
