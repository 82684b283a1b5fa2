//! Fields of delivery reports (RFC 3464), which tell of one event in two places.

use super::Found;
use super::Speaker;
use super::slot;
use super::slot::Slot;
use super::unit::Unit;
use crate::codes::EnhancedCode;

/// A field that is read here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'a> {
    /// What a server said, or (`smtp` is false) what the reporting MTA did.
    Diagnostic {
        smtp: bool,
        text: &'a str,
    },
    Status(EnhancedCode),
}

impl<'a> Field<'a> {
    /// `Diagnostic-Code: smtp; 550 …` or `Status: 5.1.1`.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (name, value) = line.trim_start_matches("> ").split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("Status") {
            return slot::enhanced(value).map(|(code, _)| Self::Status(code));
        }
        if !name.eq_ignore_ascii_case("Diagnostic-Code") {
            return None;
        }
        let (kind, text) = value.split_once(';').unwrap_or(("", value));
        let smtp = !starts_with_x(kind.trim());
        Some(Self::Diagnostic { smtp, text: text.trim() })
    }
}

/// What the fields of one recipient told so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    status: Option<(EnhancedCode, usize)>,
    /// A diagnostic without a code, and where it stood.
    diagnostic: Option<String>,
    /// A diagnostic had a code.
    answered: bool,
}

impl Report {
    /// Takes a `Status:`. A second one is another recipient's.
    pub(super) fn status(&mut self, code: EnhancedCode, line: usize, done: &mut Vec<Found>) {
        if self.status.is_some() {
            self.end(done);
        }
        self.status = Some((code, line));
    }

    /// Takes a `Diagnostic-Code:`, in which so many replies were found.
    pub(super) fn diagnostic(&mut self, unit: &Unit, replies: usize) {
        self.answered |= replies > 0;
        if replies == 0 && unit.speaker() == Speaker::Nobody {
            self.diagnostic = Some(unit.text().replace('\n', " "));
        }
    }

    /// There are no more fields: a status that no diagnostic told better.
    pub(super) fn end(&mut self, done: &mut Vec<Found>) {
        let Self { status, diagnostic, answered } = std::mem::take(self);
        let Some((code, line)) = status.filter(|_| !answered) else { return };
        let speaker = if diagnostic.is_some() { Speaker::Nobody } else { Speaker::Unknown };
        done.push(Slot::of_status(code, &diagnostic.unwrap_or_default(), speaker).found(line));
    }
}

/// `Name: value`, as every line of a report is.
pub(super) fn is_field(line: &str) -> bool {
    let name = line.trim_start_matches("> ").split_once(':').map_or("", |(name, _)| name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `X-Postfix`, `X-Unix`: no reply, but what the reporting MTA has to say.
fn starts_with_x(kind: &str) -> bool {
    kind.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"))
}
