//! Replies in text that follows no form.
//!
//! A number is a code only where something says so: an enhanced code of the same class behind it, a word such as *error*
//! before it, quotes or brackets around it, or the start of a line.

use super::Found;
use super::Speaker;
use super::slot;
use super::slot::Head;
use super::slot::Slot;
use super::unit::Kind;
use super::unit::Unit;
use crate::codes;
use crate::codes::EnhancedCode;

/// How much counts as a code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// Only a code with an enhanced code of its class.
    Pairs,
    /// As people write.
    Text,
}

/// Appends every reply in a text to `found`.
pub(super) fn find(unit: &Unit, mode: Mode, found: &mut Vec<Found>) {
    let text = unit.text();
    let mut last: Option<Hit<'_>> = None;
    let mut from = 0;
    while let Some(hit) = next_hit(text, from, mode) {
        let after = text.len() - hit.head.rest().len();
        if let Some(last) = last.replace(hit) {
            found.push(last.found(unit, hit.start));
        }
        from = end_of_reply(&hit, text).unwrap_or(after).max(hit.start + 3);
    }
    if let Some(last) = last {
        found.push(last.found(unit, text.len()));
    }
}

/// Whether a text that follows a number says what it counts: `messages`, `ms`, `%`.
pub(super) fn counts(rest: &str) -> bool {
    let rest = rest.trim_start();
    let word = rest.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    COUNTED.iter().any(|known| word.eq_ignore_ascii_case(known)) || rest.starts_with(['%', '€', '$', '£', '×'])
}

/// Where a reply is, with all the text behind it.
#[derive(Clone, Copy, Debug)]
struct Hit<'a> {
    start: usize,
    head: Head<'a>,
    text: &'a str,
}

impl Hit<'_> {
    /// The reply, if the next one begins at `end`.
    fn found(&self, unit: &Unit, end: usize) -> Found {
        let rest = self.head.rest();
        let offset = self.text.len() - rest.len();
        let mine = rest.get(..end.saturating_sub(offset)).unwrap_or_default();
        let mine = mine.get(..slot::without_command(mine)).unwrap_or(mine);
        let before = self.text.get(..self.start).unwrap_or_default();
        let head = self.head.until(closing(before, mine));
        let mut found = Slot::new(&head, speaker(unit, before)).found(unit.line_at(self.start));
        if unit.kind() == Kind::Prose {
            let text = found.text.trim_start_matches(LEFT_OVER).trim();
            found.text = text.to_owned();
        }
        found
    }
}

/// The next reply at or behind `from`.
fn next_hit(text: &str, from: usize, mode: Mode) -> Option<Hit<'_>> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| matches!(byte, b'2'..=b'5'))?;
        if !is_joined(bytes, at)
            && let Some(head) = hit_at(text, at, mode)
        {
            return Some(Hit { start: at, head, text });
        }
        // Past the whole number.
        at += bytes.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    }
}

fn hit_at(text: &str, at: usize, mode: Mode) -> Option<Head<'_>> {
    let (before, from) = text.split_at_checked(at)?;
    if let Some((code, after)) = slot::basic(from) {
        if let Some(head) = pair(from, after) {
            return Some(head);
        }
        if let Some(head) = Head::apart(from).filter(|head| mode == Mode::Text && is_one_class(head)) {
            return Some(head);
        }
        return (mode == Mode::Text && is_code(before, code, after)).then(|| Head::basic(from)).flatten();
    }
    let (enhanced, after) = slot::enhanced(from)?;
    if mode == Mode::Pairs || (!is_enhanced(before, after, enhanced)) || is_explained(after) {
        return None;
    }
    Head::parse_enhanced(from)
}

/// A code with an enhanced code of its class: blanks, a hyphen or `#` between.
fn pair<'a>(from: &'a str, after: &str) -> Option<Head<'a>> {
    after.starts_with([' ', '\t', '\n', '-', '#']).then(|| Head::parse(from)).flatten().filter(is_one_class)
}

fn is_one_class(head: &Head<'_>) -> bool {
    matches!((head.code, head.enhanced), (Some(code), Some(enhanced)) if code / 100 == enhanced.class)
}

/// Whether three digits stand where a code does.
fn is_code(before: &str, code: u16, after: &str) -> bool {
    let mut next = after.chars();
    let joined = match next.next() {
        Some('.' | ':' | ',') => next.next().is_some_and(char::is_alphanumeric),
        Some('-') => next.next().is_some_and(|c| !c.is_whitespace()) && !starts_line(before),
        Some(c) => c.is_alphanumeric() || matches!(c, '@' | '_' | '%' | '/' | '+' | '\\'),
        None => false,
    };
    if joined || code / 10 % 10 > 5 || counts(after) {
        return false;
    }
    let at_start = starts_line(before) && matches!(after.bytes().next(), None | Some(b' ' | b'-' | b'\n'));
    at_start || (is_likely(code) && (is_enclosed(before, after) || is_announced(before)))
}

/// A code that servers use, or a refusal; HTTP's refusals begin lower.
fn is_likely(code: u16) -> bool {
    code >= 420 || codes::basic(code).is_some()
}

/// Whether an enhanced code stands where one does, and not a version or a section.
fn is_enhanced(before: &str, after: &str, code: EnhancedCode) -> bool {
    if before.ends_with('#') {
        return !before.ends_with("##");
    }
    // Nobody asks what success means, and versions begin so.
    let is_likely = code.class > 2 && code.subject <= MAX_SUBJECT;
    (is_likely && is_enclosed(before, after) && !is_numbered(before)) || is_announced(before)
}

/// `<#5.1.1 smtp;550 5.1.1 …>`: the reply follows.
fn is_explained(after: &str) -> bool {
    let reply = after.trim_start().strip_prefix("smtp;");
    reply.is_some_and(|reply| Head::parse(reply.trim_start()).is_some())
}

/// Part of a longer word, an address, a path or a sum.
fn is_joined(bytes: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|before| bytes.get(before)) else { return false };
    before.is_ascii_alphanumeric() || b"@+._-/$%\\&~^*".contains(before) || (*before >= 0x80 && !ends_quote(bytes, at))
}

/// A typographic opening quote right before.
fn ends_quote(bytes: &[u8], at: usize) -> bool {
    let before = bytes.get(..at).unwrap_or_default();
    ["‘", "’", "“", "”", "„", "«"].iter().any(|quote| before.ends_with(quote.as_bytes()))
}

fn starts_line(before: &str) -> bool {
    before.trim_end_matches([' ', '\t']).chars().next_back().is_none_or(|c| c == '\n')
}

/// In quotes or brackets, by itself.
fn is_enclosed(before: &str, after: &str) -> bool {
    let Some(open) = before.chars().next_back() else { return false };
    let Some((_, close)) = ENCLOSING.iter().find(|(known, _)| *known == open) else { return false };
    let Some(after) = after.strip_prefix(*close) else { return false };
    // `"size":"550"`, `f(250)`, `(250) 555-0100`.
    let outside = before.get(..before.len() - open.len_utf8()).unwrap_or_default();
    let is_value = outside.ends_with([':', '=', ',', '{', '[']);
    let is_call = open == '(' && outside.ends_with(char::is_alphanumeric);
    let is_phone = open == '(' && after.trim_start().starts_with(|c: char| c.is_ascii_digit());
    !is_value && !is_call && !is_phone
}

/// Behind a word that announces a code: `error 550`, `SMTP error code: 554`, `got a 421`.
fn is_announced(before: &str) -> bool {
    let mut words = before.rsplit(|c: char| c.is_whitespace() || ":='\"`‘“(#".contains(c));
    let mut words = words.by_ref().take(MAX_WORDS).filter(|word| !word.is_empty());
    let mut word = words.next();
    for _ in 0..2 {
        if word.is_some_and(|word| is_one_of(word, FILLING)) {
            word = words.next();
        }
    }
    let Some(announcing) = word.filter(|word| is_one_of(word, ANNOUNCING)) else { return false };
    let is_web = |word: &str| word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http"));
    !is_web(announcing) && !words.take(2).any(is_web)
}

/// Behind a word that numbers are given to: `version (5.7.1)`, `RFC 5321 (4.2.1)`.
fn is_numbered(before: &str) -> bool {
    let outside = before.trim_end_matches(['(', '\'', '"', '`', ' ']);
    let mut words = outside.rsplit(char::is_whitespace).take(2);
    outside.ends_with(|c: char| c.is_ascii_digit() || c == '§') || words.any(|word| is_one_of(word, NUMBERED))
}

fn is_one_of(word: &str, known: &[&str]) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    known.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Where the reply ends if something before it opened quotes, brackets or `#`.
fn closing(before: &str, text: &str) -> usize {
    let close = match before.chars().next_back() {
        Some('#') => return text.find("##").unwrap_or(text.len()),
        Some(open) => ENCLOSING.iter().find(|(known, _)| *known == open).map(|(_, close)| *close),
        None => None,
    };
    let Some(close) = close else { return text.len() };
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if close == ')' && c == '(' {
            depth += 1;
        } else if c == close && depth > 0 {
            depth -= 1;
        } else if c == close
            && !text.get(at + c.len_utf8()..).is_some_and(|next| next.starts_with(char::is_alphanumeric))
        {
            return at;
        }
    }
    text.len()
}

/// Where all lines of a reply end, if it has several.
fn end_of_reply(hit: &Hit<'_>, text: &str) -> Option<usize> {
    let last = hit.head.last_line()?;
    Some(text.len() - last.rest().len())
}

/// Who says what follows.
fn speaker(unit: &Unit, before: &str) -> Speaker {
    let near = before.char_indices().rev().nth(MAX_NEAR).map_or(before, |(at, _)| before.get(at..).unwrap_or(before));
    if REMOTE.iter().any(|said| near.contains(said)) { Speaker::Remote } else { unit.speaker() }
}

/// Words that announce a code.
const ANNOUNCING: &[&str] = &[
    "answer",
    "answered",
    "answers",
    "bounce",
    "bounced",
    "code",
    "codes",
    "dsn",
    "error",
    "errors",
    "got",
    "ndr",
    "replied",
    "replies",
    "reply",
    "responded",
    "response",
    "responses",
    "return",
    "returned",
    "returns",
    "said",
    "says",
    "smtp",
    "status",
    "with",
];

/// What numbers count.
const COUNTED: &[&str] = &[
    "addresses",
    "b",
    "byte",
    "bytes",
    "characters",
    "clients",
    "connections",
    "days",
    "domains",
    "emails",
    "entries",
    "eur",
    "files",
    "gb",
    "gib",
    "hours",
    "items",
    "kb",
    "kg",
    "kib",
    "km",
    "lines",
    "mails",
    "mb",
    "messages",
    "mib",
    "minutes",
    "ms",
    "octets",
    "people",
    "percent",
    "recipients",
    "requests",
    "rows",
    "rules",
    "seconds",
    "senders",
    "servers",
    "sessions",
    "times",
    "usd",
    "users",
];

/// What opens, and what closes it.
const ENCLOSING: &[(char, char)] =
    &[('(', ')'), ('\'', '\''), ('"', '"'), ('`', '`'), ('‘', '’'), ('“', '”'), ('„', '“'), ('«', '»')];

/// Words between the one that announces and the code.
const FILLING: &[&str] = &["a", "an", "is", "no", "number", "of", "the", "their", "this", "was"];

/// What may be left before a text when codes are taken out of a sentence.
const LEFT_OVER: &[char] = &[' ', ',', ';', '.', '?', '!', ')', '\'', '"', '”', '’'];

/// How far back words about who speaks count, in characters.
const MAX_NEAR: usize = 200;

/// RFC 3463 has subjects up to 7.
const MAX_SUBJECT: u16 = 7;

/// How many words back are looked at, with empty ones between separators.
const MAX_WORDS: usize = 16;

/// Words that numbers are given to.
const NUMBERED: &[&str] = &["chapter", "clause", "ver", "version", "release", "revision", "rfc", "sec", "section", "v"];

/// What says that another server speaks.
const REMOTE: &[&str] = &[
    " said: ",
    " said:\n",
    " refused to talk to me: ",
    "MTP error from remote mail server",
    "emote Server returned ",
    "emote server returned ",
    "response was:",
    "response from the remote server was:",
    "erver responded with",
    " smtp;",
];
