//! An SMTP reply that cannot be wrong: one class, a code, an enhanced status code, printable text.
//!
//! Postfix hangs up on a malformed reply and applies its default action, which may be *accept* (`milter8.c`); Sendmail
//! replaces it by a text of its own. So what an MTA would refuse cannot be built here. Which code is right at which stage
//! is not decided here but where policies are compiled.

use std::fmt;
use std::str::FromStr;

use crate::codes::EnhancedCode;

/// The longest text of one line, in characters. RFC 5321 §4.5.3.1.5 allows 512 octets for the whole line; Sendmail may
/// put `<address>... `, up to 207 octets, before the text of a 550 at MAIL and RCPT (`fmtmsg`, err.c).
pub const MAX_LINE_TEXT: usize = 240;

/// The most lines of one reply (libmilter `smfi.c` allows no more).
pub const MAX_LINES: usize = 32;

/// Whether a refusal is for now or for good.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// 5yz: the same command will fail again.
    Permanent,
    /// 4yz: waiting may cure it.
    Transient,
}

impl Class {
    const fn digit(self) -> u16 {
        match self {
            Self::Permanent => 5,
            Self::Transient => 4,
        }
    }
}

/// The two codes of a reply. The class is stored once, so `550 4.7.1` cannot exist.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Status {
    class: Class,
    /// The second and third digit of the code together, 0 to 59.
    rest: u16,
    subject: u16,
    detail: u16,
}

impl Status {
    /// A status from its parts; `None` where a part is out of range (`rest` above 59, `subject` or `detail` above 999).
    #[must_use]
    pub const fn new(class: Class, rest: u16, subject: u16, detail: u16) -> Option<Self> {
        if rest > 59 || subject > 999 || detail > 999 {
            return None;
        }
        Some(Self { class, rest, subject, detail })
    }

    /// For now or for good.
    #[must_use]
    pub const fn class(self) -> Class {
        self.class
    }

    /// The three-digit code of RFC 5321.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.class.digit() * 100 + self.rest
    }

    /// The enhanced status code of RFC 3463, `5.7.1`.
    #[must_use]
    pub const fn enhanced(self) -> Enhanced {
        Enhanced { class: self.class, subject: self.subject, detail: self.detail }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.enhanced())
    }
}

impl FromStr for Status {
    type Err = ReplyError;

    fn from_str(text: &str) -> Result<Self, ReplyError> {
        let (status, rest) = split_status(text)?;
        if rest.is_empty() { Ok(status) } else { Err(ReplyError::Enhanced { found: first_word(text, 1) }) }
    }
}

/// An enhanced status code: class, subject, detail.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Enhanced {
    class: Class,
    /// The second number (`7`: security or policy).
    pub subject: u16,
    /// The third number.
    pub detail: u16,
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class.digit(), self.subject, self.detail)
    }
}

impl From<Enhanced> for EnhancedCode {
    fn from(enhanced: Enhanced) -> Self {
        Self { class: enhanced.class.digit(), subject: enhanced.subject, detail: enhanced.detail }
    }
}

/// A whole reply, as the SMTP client shall see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    status: Status,
    /// Printable ASCII and line feeds, nothing else.
    text: String,
}

impl Reply {
    /// A reply with this text. A line feed starts a new line; a tab becomes a blank; whatever else is not printable ASCII
    /// becomes `?` (RFC 5321 §4.2 `textstring`).
    #[must_use]
    pub fn new(status: Status, text: &str) -> Self {
        let text = text.trim_end().chars().map(|c| if c == '\n' { c } else { printable_char(c) }).collect();
        Self { status, text }
    }

    /// The codes.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The text without codes; line feeds between lines.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same with the first of its [`Self::lines`] only.
    #[must_use]
    pub fn first_line(&self) -> Self {
        let text = self.text.split('\n').flat_map(fold).next().unwrap_or_default();
        Self { status: self.status, text: text.to_owned() }
    }

    /// The lines as the client sees them, without CR LF: code and enhanced code on each, a hyphen after the code on all
    /// but the last. Text longer than a line allows is folded at a blank; past [`MAX_LINES`] it is cut.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut texts: Vec<&str> = self.text.split('\n').flat_map(fold).collect();
        texts.truncate(MAX_LINES);
        let last = texts.len().saturating_sub(1);
        let (code, enhanced) = (self.status.code(), self.status.enhanced());
        let line = |(number, text): (usize, &&str)| {
            let hyphen = if number == last { ' ' } else { '-' };
            format!("{code}{hyphen}{enhanced} {text}")
        };
        texts.iter().enumerate().map(line).collect()
    }
}

/// On one line, for logs: line feeds become ` / `.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (number, line) in self.text.split('\n').enumerate() {
            write!(f, "{}{line}", if number == 0 { " " } else { " / " })?;
        }
        Ok(())
    }
}

impl FromStr for Reply {
    type Err = ReplyError;

    fn from_str(text: &str) -> Result<Self, ReplyError> {
        let (status, text) = split_status(text)?;
        Ok(Self::new(status, text))
    }
}

/// Takes the two codes off the start of `text`: `550 5.7.1 Go away` gives the status and `Go away`.
///
/// # Errors
///
/// The part that is missing or wrong, with what was found.
pub fn split_status(text: &str) -> Result<(Status, &str), ReplyError> {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (class, two_digits) = parse_code(code)?;
    let (enhanced, rest) = rest.split_once([' ', '\n']).unwrap_or((rest, ""));
    let (enhanced_class, subject, detail) = parse_enhanced(enhanced)?;
    if enhanced_class != class {
        return Err(ReplyError::ClassMismatch { code: code.to_owned(), enhanced: enhanced.to_owned() });
    }
    Ok((Status { class, rest: two_digits, subject, detail }, rest))
}

/// Reduces what a stranger sent to at most `limit` printable ASCII characters, so that it can stand in a reply or a log.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    let mut printable: String = text.chars().take(limit).map(printable_char).collect();
    if text.chars().nth(limit).is_some() {
        printable.push_str("...");
    }
    printable
}

/// Why a text is not a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyError {
    /// `550 4.7.1`: Postfix calls it malformed and drops the milter for the session.
    ClassMismatch {
        /// The code as written.
        code: String,
        /// The enhanced code as written.
        enhanced: String,
    },
    /// The code is not three digits, not 4yz or 5yz, or its second digit is above 5.
    Code {
        /// What stands there.
        found: String,
    },
    /// The enhanced status code is missing or not `class.subject.detail`.
    Enhanced {
        /// What stands there.
        found: String,
    },
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClassMismatch { code, enhanced } => {
                write!(f, "code {code} and enhanced status code {enhanced} are of different classes")
            }
            Self::Code { found } => {
                write!(f, "expected a reply code from 400 to 459 or 500 to 559, found {}", quoted(found))
            }
            Self::Enhanced { found } => {
                write!(
                    f,
                    "expected an enhanced status code such as 5.7.1 after the reply code, found {}",
                    quoted(found)
                )
            }
        }
    }
}

impl std::error::Error for ReplyError {}

fn quoted(found: &str) -> String {
    if found.is_empty() { "nothing".to_owned() } else { format!("`{found}`") }
}

fn parse_code(found: &str) -> Result<(Class, u16), ReplyError> {
    let error = || ReplyError::Code { found: found.to_owned() };
    let (first, rest) = match found.as_bytes() {
        [first, rest @ ..] if rest.len() == 2 && rest.iter().all(u8::is_ascii_digit) => (first, found.get(1..)),
        _ => return Err(error()),
    };
    let class = match first {
        b'4' => Class::Transient,
        b'5' => Class::Permanent,
        _ => return Err(error()),
    };
    match rest.and_then(|rest| rest.parse().ok()) {
        Some(rest @ 0..=59) => Ok((class, rest)),
        _ => Err(error()),
    }
}

fn parse_enhanced(found: &str) -> Result<(Class, u16, u16), ReplyError> {
    let error = || ReplyError::Enhanced { found: found.to_owned() };
    let EnhancedCode { class, subject, detail } = found.parse().map_err(|_| error())?;
    match class {
        4 => Ok((Class::Transient, subject, detail)),
        5 => Ok((Class::Permanent, subject, detail)),
        _ => Err(error()),
    }
}

/// The `number`th word, for an error's text.
fn first_word(text: &str, number: usize) -> String {
    text.splitn(2, ' ').nth(number).unwrap_or_default().to_owned()
}

const fn printable_char(c: char) -> char {
    match c {
        ' '..='~' => c,
        '\t' => ' ',
        _ => '?',
    }
}

/// Cuts one line of ASCII into pieces of at most [`MAX_LINE_TEXT`], at a blank where there is one.
fn fold(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest.take()?;
        let Some((head, tail)) = line.split_at_checked(MAX_LINE_TEXT).filter(|(_, tail)| !tail.is_empty()) else {
            return Some(line);
        };
        if tail.starts_with(' ') {
            rest = Some(tail.trim_start());
            return Some(head);
        }
        let end = head.rfind(' ').filter(|&end| end > 0).unwrap_or(head.len());
        let (head, tail) = line.split_at_checked(end)?;
        rest = Some(tail.trim_start());
        Some(head)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        text.parse().unwrap()
    }

    #[test]
    fn a_reply_reads_as_it_was_written() {
        let reply = reply("452 4.3.1 Try again later");
        assert_eq!(reply.status().code(), 452);
        assert_eq!(reply.status().enhanced().to_string(), "4.3.1");
        assert_eq!(reply.status().class(), Class::Transient);
        assert_eq!(reply.to_string(), "452 4.3.1 Try again later");
    }

    #[test]
    fn what_an_mta_would_call_malformed_is_not_a_reply() {
        for text in
            ["", "55", "5501 5.7.1 x", "250 2.0.0 ok", "399 4.0.0 x", "560 5.7.1 x", "5ab 5.7.1 x", " 550 5.7.1"]
        {
            assert!(matches!(text.parse::<Reply>(), Err(ReplyError::Code { .. })), "{text}");
        }
        for text in
            ["550", "550 Go away", "550 5.7 x", "550 5.7.1234 x", "550 5.07.1 x", "550 5.7.1.1 x", "550 2.7.1 x"]
        {
            assert!(matches!(text.parse::<Reply>(), Err(ReplyError::Enhanced { .. })), "{text}");
        }
        for text in ["550 4.7.1 x", "450 5.7.1 x"] {
            assert!(matches!(text.parse::<Reply>(), Err(ReplyError::ClassMismatch { .. })), "{text}");
        }
    }

    #[test]
    fn a_reply_without_a_text_is_its_codes() {
        assert_eq!(reply("550 5.7.1").lines(), ["550 5.7.1 "]);
    }

    #[test]
    fn line_feeds_make_lines_and_only_the_last_has_a_blank_after_the_code() {
        assert_eq!(reply("550 5.7.1 one\ntwo\nthree").lines(), ["550-5.7.1 one", "550-5.7.1 two", "550 5.7.1 three"]);
    }

    #[test]
    fn control_characters_and_other_scripts_do_not_reach_the_wire() {
        let reply = Reply::new("550 5.7.1".parse().unwrap(), "a\r\0b\tgrün\u{7f}");
        assert_eq!(reply.text(), "a??b gr?n?");
    }

    #[test]
    fn long_text_is_folded_at_a_blank_and_no_line_is_too_long() {
        let text = "word ".repeat(100);
        let lines = Reply::new("550 5.7.1".parse().unwrap(), &text).lines();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE_TEXT + 10 && line.ends_with("word")), "{lines:?}");
    }

    #[test]
    fn the_first_line_is_the_one_a_client_would_see_first() {
        let long = format!("550 5.7.1 {}\nlast", "word ".repeat(100));
        for text in ["550 5.7.1 one\ntwo", "550 5.7.1 one", "550 5.7.1", &long] {
            let [lines, first] = [reply(text).lines(), reply(text).first_line().lines()];
            assert_eq!(first, [lines[0].replacen('-', " ", 1)]);
        }
    }

    #[test]
    fn a_word_longer_than_a_line_is_cut() {
        let lines = Reply::new("550 5.7.1".parse().unwrap(), &"x".repeat(MAX_LINE_TEXT + 1)).lines();
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE_TEXT + 10, 11]);
    }

    #[test]
    fn no_reply_has_more_than_the_most_lines() {
        let lines = Reply::new("550 5.7.1".parse().unwrap(), &"x\n".repeat(100)).lines();
        assert_eq!(lines.len(), MAX_LINES);
        assert!(lines.last().unwrap().starts_with("550 "));
    }

    #[test]
    fn what_a_stranger_sent_is_bounded() {
        assert_eq!(printable("evil\r\n250 ok", 6), "evil??...");
        assert_eq!(printable("short", 5), "short");
    }
}
