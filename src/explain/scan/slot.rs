//! A reply at a known place of a text.

use super::Found;
use super::Speaker;
use crate::codes::EnhancedCode;

/// How a reply begins: its codes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Head<'a> {
    pub(super) code: Option<u16>,
    pub(super) enhanced: Option<EnhancedCode>,
    /// A hyphen behind the code: another line follows.
    more: bool,
    rest: &'a str,
}

impl<'a> Head<'a> {
    /// `550`, `550 text`, `550-text`, `550 5.7.1 text`, `550-5.7.1 text` or `550 #5.7.1 text` at the start of a text.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (code, after) = basic(text)?;
        if !matches!(
            after.bytes().next(),
            None | Some(b' ' | b'\t' | b'\n' | b'-' | b'#' | b',' | b';' | b':' | b'?' | b'\\')
        ) {
            return None;
        }
        let more = after.starts_with('-');
        let after = if more { after.get(1..).unwrap_or_default() } else { after };
        let start = after.trim_start();
        let (enhanced, rest) = match enhanced(start.strip_prefix('#').unwrap_or(start)) {
            Some((enhanced, rest)) => (Some(enhanced), rest),
            None => (None, start),
        };
        Some(Self { code: Some(code), enhanced, more, rest: of_text(rest) })
    }

    /// Both codes with punctuation between, as programs show them: `(550, b'5.7.1 text')`, `(550) 5.7.1`, `550/5.7.1`.
    pub(super) fn apart(text: &'a str) -> Option<Self> {
        let (code, after) = basic(text)?;
        let gap = after.bytes().take(MAX_GAP).take_while(|byte| b" ,/)('\"b".contains(byte)).count();
        let (enhanced, rest) = after.get(gap..).filter(|_| gap > 0).and_then(enhanced)?;
        Some(Self { code: Some(code), enhanced: Some(enhanced), more: false, rest: of_text(rest) })
    }

    /// As `parse`, with any sign behind the three digits.
    pub(super) fn basic(text: &'a str) -> Option<Self> {
        let (code, after) = basic(text)?;
        let more = after.starts_with('-');
        let rest = if more { after.get(1..).unwrap_or_default() } else { after };
        Some(Self { code: Some(code), enhanced: None, more, rest: of_text(rest) })
    }

    /// `5.7.1 text` at the start of a text.
    pub(super) fn parse_enhanced(text: &'a str) -> Option<Self> {
        let (enhanced, rest) = enhanced(text)?;
        Some(Self { code: None, enhanced: Some(enhanced), more: false, rest: of_text(rest) })
    }

    /// The codes.
    pub(super) const fn codes(&self) -> Codes {
        (self.code, self.enhanced)
    }

    /// This head, with less text behind it.
    pub(super) fn until(self, end: usize) -> Self {
        Self { rest: self.rest.get(..end).unwrap_or(self.rest), ..self }
    }

    /// The first of several lines, of which only the others have this code.
    pub(super) const fn with_code(self, code: Option<u16>) -> Self {
        Self { code, more: true, ..self }
    }

    /// What stands behind the codes.
    pub(super) const fn rest(&self) -> &'a str {
        self.rest
    }

    /// The last line of several; `None` if it is the first.
    pub(super) fn last_line(&self) -> Option<Self> {
        let mut last = None;
        let (mut line, mut more) = (*self, self.more);
        while more && let Some((_, next)) = line.next_line() {
            more = next.more;
            line = next;
            last = Some(next);
        }
        last
    }

    /// The text of all lines, without codes, and whether another line is still to come.
    pub(super) fn text(&self) -> (String, bool) {
        let mut text = String::new();
        let (mut line, mut more) = (*self, self.more);
        while more {
            let Some((end, next)) = line.next_line() else { break };
            push_line(&mut text, line.rest.get(..end).unwrap_or_default());
            text.push('\n');
            more = next.more;
            line = next;
        }
        push_line(&mut text, line.rest);
        (text, more)
    }

    /// The end of this line, and the head of the next one of this reply.
    fn next_line(&self) -> Option<(usize, Self)> {
        let code = self.code?.to_string();
        let near = (0..=LONGEST_LINE.min(self.rest.len())).rev().find_map(|end| self.rest.get(..end))?;
        near.match_indices(&code).find_map(|(at, _)| {
            let (before, from) = self.rest.split_at_checked(at)?;
            let next = Self::parse(from)?;
            let (end, certain) = line_end(before)?;
            (certain || next.enhanced == self.enhanced).then_some((end, next))
        })
    }
}

/// How far away the next line of a reply can begin: RFC 5321 §4.5.3.1.5 has 512 octets in a line. It also bounds the work on a
/// text made of nothing but codes.
const LONGEST_LINE: usize = 1024;

/// What follows an address between angle brackets, whose quoted part may hold anything; `text` begins behind the first one.
pub(super) fn after_address(text: &str) -> Option<&str> {
    let quoted = text.strip_prefix('"').map(|inner| {
        let mut escaped = false;
        let end = inner.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        end.and_then(|end| inner.get(end + 1..))
    });
    let rest = quoted.unwrap_or(Some(text))?;
    rest.get(rest.find('>')? + 1..)
}

/// Both codes, as far as they are there.
pub(super) type Codes = (Option<u16>, Option<EnhancedCode>);

/// A reply with its text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Slot {
    codes: Codes,
    text: String,
    speaker: Speaker,
}

impl Slot {
    /// The reply that begins so.
    pub(super) fn new(head: &Head<'_>, speaker: Speaker) -> Self {
        Self { codes: head.codes(), text: head.text().0, speaker }
    }

    /// What an MTA says of a delivery in which nobody replied.
    pub(super) fn of_status(enhanced: EnhancedCode, text: &str, speaker: Speaker) -> Self {
        Self { codes: (None, Some(enhanced)), text: text.to_owned(), speaker }
    }

    pub(super) const fn codes(&self) -> Codes {
        self.codes
    }

    /// Whether the MTA that logged it said it to a client.
    pub(super) fn is_to_client(&self) -> bool {
        matches!(self.speaker, Speaker::Mta | Speaker::Milter)
    }

    /// As found in a line.
    pub(super) fn found(self, line: usize) -> Found {
        let Self { codes: (code, enhanced), text, speaker } = self;
        Found { code, enhanced, text, speaker, line }
    }
}

/// Three digits at the start, the first 2 to 5, and what is behind them.
pub(super) fn basic(text: &str) -> Option<(u16, &str)> {
    let &[a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text.as_bytes().first_chunk()? else { return None };
    let after = text.get(3..)?;
    let digit = |byte: u8| u16::from(byte - b'0');
    (!after.starts_with(|c: char| c.is_ascii_digit())).then_some((digit(a) * 100 + digit(b) * 10 + digit(c), after))
}

/// An enhanced code at the start, not part of a longer word, and what is behind it.
pub(super) fn enhanced(text: &str) -> Option<(EnhancedCode, &str)> {
    if !text.starts_with(['2', '4', '5']) {
        return None;
    }
    // No further, so that what a stranger repeats costs no more.
    let of_code = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let end = text.bytes().take(MAX_ENHANCED + 2).take_while(of_code).count();
    let token = text.get(..end)?.trim_end_matches('.');
    let after = text.get(token.len()..)?;
    let mut next = after.chars();
    let joined = match next.next() {
        Some('.' | '-') => next.next().is_some_and(char::is_alphanumeric),
        Some(c) => c.is_alphanumeric() || matches!(c, '@' | '_' | '%' | '/' | '+'),
        None => false,
    };
    if joined {
        return None;
    }
    Some((token.parse().ok()?, after))
}

/// The name of a queued message, or `NOQUEUE`, before a log's message; empty where there is none.
pub(super) fn queue_id(message: &str) -> (&str, &str) {
    match message.split_once(": ") {
        Some((id, body)) if (6..=20).contains(&id.len()) && is_queue_id(id) => (id, body),
        _ => ("", message),
    }
}

/// What is left of a reply's text without what a log puts behind it.
pub(super) fn without_command(text: &str) -> usize {
    text.find("(in reply to ").map_or(text.len(), |at| text.get(..at).unwrap_or_default().trim_end().len())
}

fn is_queue_id(id: &str) -> bool {
    id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && (id == "NOQUEUE" || id.bytes().any(|byte| byte.is_ascii_digit()))
}

fn of_text(rest: &str) -> &str {
    rest.trim_start_matches([' ', '\t', '\n', ':'])
}

/// Where the line ends that another one may follow, and whether the separator leaves no doubt.
fn line_end(before: &str) -> Option<(usize, bool)> {
    // Postfix writes `??`, Sendmail and Exim escape.
    for separator in ["??", "\\r\\n", "\\n", "\n"] {
        if let Some(line) = before.trim_end_matches([' ', '\t']).strip_suffix(separator) {
            return Some((line.len(), true));
        }
    }
    let line = before.trim_end();
    (line.len() < before.len() || before.is_empty()).then_some((line.len(), false))
}

/// Appends a line; what was folded is one line again.
fn push_line(text: &mut String, line: &str) {
    for (at, part) in line.lines().map(str::trim).filter(|part| !part.is_empty()).enumerate() {
        if at > 0 {
            text.push(' ');
        }
        text.push_str(part);
    }
}

/// `5.123.123`
const MAX_ENHANCED: usize = 9;

/// `, b'`, with room for blanks.
const MAX_GAP: usize = 6;
