//! Lines that belong together: a reply of several lines, a folded field, a paragraph with what is indented below it.

use super::Speaker;
use super::slot::Head;
use super::slot::Slot;

/// Lines that belong together.
#[derive(Debug)]
pub(super) struct Unit {
    kind: Kind,
    speaker: Speaker,
    text: String,
    /// Where in `text` each line begins, and its number.
    lines: Vec<(usize, usize)>,
    /// The code of a reply that is not yet complete.
    open: Option<u16>,
}

/// What a unit is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A field that tells what another server, or the reporting MTA, said.
    Diagnostic,
    /// Text with any number of replies in it.
    Prose,
    /// One reply.
    Reply,
}

impl Unit {
    /// A unit of one line.
    pub(super) fn new(kind: Kind, text: &str, line: usize, speaker: Speaker) -> Self {
        let mut unit = Self { kind, speaker, text: String::new(), lines: Vec::new(), open: None };
        unit.add(text, line);
        unit
    }

    /// Appends a line.
    pub(super) fn add(&mut self, line: &str, number: usize) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.lines.push((self.text.len(), number));
        self.text.push_str(line);
        if let Some(head) = Head::parse(line) {
            self.open = head.code.filter(|_| head.text().1);
        }
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) const fn speaker(&self) -> Speaker {
        self.speaker
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a reply in it waits for its next line.
    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a line that begins so is the next of a reply in it.
    pub(super) fn takes(&self, head: &Head<'_>) -> bool {
        self.open.is_some() && self.open == head.code
    }

    /// The number of the line at this place.
    pub(super) fn line_at(&self, place: usize) -> usize {
        let lines = self.lines.iter().take_while(|(start, _)| *start <= place);
        lines.last().map_or(0, |(_, number)| *number)
    }

    /// The reply with which it begins.
    pub(super) fn reply(&self) -> Option<Slot> {
        let head = Head::parse(&self.text)?;
        Some(Slot::new(&head.until(super::slot::without_command(head.rest())), self.speaker))
    }
}

/// A server's line: bare, quoted, or in one of the forms in which programs show sessions; who said it, and what.
pub(super) fn said(line: &str) -> Option<(Speaker, &str)> {
    let line = without_time(line);
    for (prefix, speaker) in SERVER {
        if let Some(said) = line.strip_prefix(prefix).map(str::trim_start).filter(|said| Head::parse(said).is_some()) {
            return Some((*speaker, said));
        }
    }
    is_reply(line).then_some((Speaker::Unknown, line))
}

/// Whether a line is what a client said.
pub(super) fn is_clients(line: &str) -> bool {
    let line = without_time(line);
    let commands = line.trim_start_matches("> ");
    CLIENT.iter().any(|prefix| line.starts_with(prefix))
        || COMMANDS.iter().any(|command| starts_with(commands, command))
}

/// Whether text may hold a reply at all: three digits or two with a dot between, the first 2 to 5.
pub(super) fn may_hold_reply(text: &str) -> bool {
    text.as_bytes().windows(3).any(|bytes| matches!(bytes, [b'2'..=b'5', b'.' | b'0'..=b'9', b'0'..=b'9']))
}

/// Whether a line says that a server's reply follows.
pub(super) fn introduces(line: &str) -> bool {
    let Some(line) = line.strip_suffix(':') else { return false };
    let words = line.rsplit(' ').take(MAX_INTRODUCTION);
    let mut words = words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    words.any(|word| INTRODUCING.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// A reply line that no number of something else begins with.
fn is_reply(line: &str) -> bool {
    Head::parse(line).is_some_and(|head| {
        let second_digit = head.code.map_or(9, |code| code / 10 % 10);
        second_digit <= 5 && (head.enhanced.is_some() || !super::prose::counts(head.rest()))
    })
}

/// Without `[13:33:58] ` before it.
fn without_time(line: &str) -> &str {
    let time = line.strip_prefix('[').and_then(|line| line.split_once(']'));
    let is_time =
        |time: &str| time.contains(':') && time.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'));
    time.filter(|(time, _)| is_time(time)).map_or(line, |(_, line)| line.trim_start())
}

fn starts_with(line: &str, prefix: &str) -> bool {
    line.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// How a server's lines are marked: by books, Sendmail's reports and log, swaks, curl, and in quoted mail.
const SERVER: &[(&str, Speaker)] = &[
    ("S:", Speaker::Unknown),
    ("Server:", Speaker::Unknown),
    ("<<< ", Speaker::Remote),
    ("<** ", Speaker::Unknown),
    ("<~* ", Speaker::Unknown),
    ("<~ ", Speaker::Unknown),
    ("<-- ", Speaker::Unknown),
    ("<- ", Speaker::Unknown),
    ("< ", Speaker::Unknown),
    ("--- ", Speaker::Mta),
    ("> ", Speaker::Unknown),
];

/// How a client's lines are marked.
const CLIENT: &[&str] = &["C:", "Client:", ">>> ", "-> ", "~> ", "<-- "];

/// Commands of a client.
const COMMANDS: &[&str] = &["MAIL FROM:", "RCPT TO:", "AUTH PLAIN ", "AUTH LOGIN", "EHLO ", "HELO ", "BDAT "];

/// Words of a line after which a server's reply follows.
const INTRODUCING: &[&str] =
    &["said", "answered", "replied", "responded", "response", "returned", "reply", "error", "host"];

/// How many words before a colon may say that a reply follows.
const MAX_INTRODUCTION: usize = 10;
