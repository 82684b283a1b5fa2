//! How an event is written: text for people, JSON for programs, fields for the journal.
//!
//! Whatever a stranger sent stays inside its value: in text and JSON it is a JSON string in which everything that does not
//! print is escaped, so a line is one line and a terminal finds nothing to obey; the journal is told how long each value is.

use std::fmt::Write as _;
use std::time::SystemTime;

use tracing::Level;

use super::event::Value;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    /// A datagram of the journal's native protocol.
    Journald,
    /// One object.
    Json { priorities: bool },
    /// Time, level, message, `key=value`.
    Text { colours: bool, times: bool, priorities: bool },
}

/// syslog's LOG_MAIL, as other milters have it.
const FACILITY: &str = "2";

/// A line, or a datagram, that is being written.
#[derive(Debug)]
pub(super) struct Line {
    format: Format,
    /// The line; of a datagram, its text.
    text: String,
    /// Where the message belongs, until it is there.
    message_at: Option<usize>,
    /// Of a datagram, all but the text.
    fields: Vec<u8>,
}

impl Format {
    /// A line of this level and time, without a message and fields yet.
    pub(super) fn line(self, level: Level, time: SystemTime) -> Line {
        let mut text = String::with_capacity(512);
        let mut fields = Vec::new();
        if let Self::Json { priorities: true } | Self::Text { priorities: true, .. } = self {
            write(&mut text, format_args!("<{}>", priority(level)));
        }
        match self {
            Self::Journald => {
                fields.reserve(1024);
                field(&mut fields, "PRIORITY", priority(level));
                field(&mut fields, "SYSLOG_IDENTIFIER", "postward");
                field(&mut fields, "SYSLOG_FACILITY", FACILITY);
            }
            Self::Json { .. } => {
                let time = humantime::format_rfc3339_micros(time);
                write(&mut text, format_args!("{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"message\":"));
            }
            Self::Text { colours, times, .. } => {
                if times {
                    let [dim, plain] = if colours { ["\x1b[2m", "\x1b[0m"] } else { [""; 2] };
                    write(&mut text, format_args!("{dim}{}{plain} ", humantime::format_rfc3339_micros(time)));
                }
                let [colour, plain] = if colours { [colour(level), "\x1b[0m"] } else { [""; 2] };
                write(&mut text, format_args!("{colour}{:>5}{plain} ", level.as_str()));
            }
        }
        Line { format: self, message_at: Some(text.len()), text, fields }
    }
}

impl Line {
    /// What it is about; before or after the fields, once.
    pub(super) fn message(&mut self, message: &str) {
        let Some(at) = self.message_at.take() else {
            return;
        };
        let fields = self.text.split_off(at);
        match self.format {
            Format::Json { .. } => quote(&mut self.text, message),
            Format::Journald | Format::Text { .. } => escape(&mut self.text, message),
        }
        if matches!(self.format, Format::Journald) {
            field(&mut self.fields, "POSTWARD_EVENT", message);
        }
        self.text.push_str(&fields);
    }

    pub(super) fn field(&mut self, name: &str, value: Value<'_>) {
        match self.format {
            Format::Json { .. } => {
                write(&mut self.text, format_args!(",\"{name}\":"));
                bare_or_quoted(&mut self.text, value);
            }
            Format::Text { .. } => key_and_value(&mut self.text, name, value),
            Format::Journald => {
                key_and_value(&mut self.text, name, value);
                let name = format!("POSTWARD_{}", name.replace('.', "_").to_ascii_uppercase());
                field(&mut self.fields, &name, plain(&value));
            }
        }
    }

    /// The whole line, with its end; or the datagram.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.message("");
        match self.format {
            Format::Journald => {
                field(&mut self.fields, "MESSAGE", &self.text);
                return self.fields;
            }
            Format::Json { .. } => self.text.push_str("}\n"),
            Format::Text { .. } => self.text.push('\n'),
        }
        self.text.into_bytes()
    }
}

/// A String takes everything.
fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    _ = text.write_fmt(what);
}

/// syslog's number: 3 error, 4 warning, 6 info, 7 debug.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

fn key_and_value(line: &mut String, name: &str, value: Value<'_>) {
    line.push(' ');
    line.push_str(name);
    line.push('=');
    match value {
        Value::Word(word) if is_word(word) => line.push_str(word),
        Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::Word(_) => bare_or_quoted(line, value),
    }
}

fn bare_or_quoted(line: &mut String, value: Value<'_>) {
    match value {
        Value::Flag(_) | Value::Number(_) => line.push_str(plain(&value)),
        Value::Text(text) | Value::Word(text) => quote(line, text),
    }
}

const fn plain<'a>(value: &Value<'a>) -> &'a str {
    match *value {
        Value::Flag(true) => "true",
        Value::Flag(false) => "false",
        Value::Number(text) | Value::Text(text) | Value::Word(text) => text,
    }
}

/// systemd's "Native Journal Protocol": fields whose values may hold anything, since their length comes first.
fn field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// What nobody takes for more than one value: no blanks, quotes or equals signs.
fn is_word(text: &str) -> bool {
    let is_plain =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'=' | b'\'' | b'`' | b',' | b'{' | b'}');
    !text.is_empty() && text.bytes().fold(true, |all, b| all & is_plain(b))
}

/// A JSON string.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    escape(line, text);
    line.push('"');
}

/// What stands between the quotes of a JSON string.
fn escape(line: &mut String, text: &str) {
    // Nearly every text. Looked at to its end, which compilers make into many bytes at a time.
    let is_plain = |b: u8| matches!(b, b' '..=b'~') & (b != b'"') & (b != b'\\');
    if text.bytes().fold(true, |all, b| all & is_plain(b)) {
        line.push_str(text);
    } else {
        text.chars().for_each(|c| escape_one(line, c));
    }
}

fn escape_one(line: &mut String, c: char) {
    match c {
        '"' => line.push_str("\\\""),
        '\\' => line.push_str("\\\\"),
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        c if prints(c) => line.push(c),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write(line, format_args!("\\u{unit:04x}"));
            }
        }
    }
}

/// Whether it can be seen, and only seen: no control, no blank but the common one, nothing that turns the direction of
/// writing, joins or has no width. The standard library's `Debug` draws the line.
fn prints(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && c.escape_debug().len() == 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    use serde_json::Value as Json;

    use super::*;

    fn bytes(format: Format, fields: &[(&str, Value<'_>)]) -> Vec<u8> {
        let mut line = format.line(Level::WARN, UNIX_EPOCH + Duration::from_micros(1_500_000));
        line.message("met");
        fields.iter().for_each(|(name, value)| line.field(name, *value));
        line.finish()
    }

    fn line(format: Format, fields: &[(&str, Value<'_>)]) -> String {
        String::from_utf8(bytes(format, fields)).unwrap()
    }

    const TEXT: Format = Format::Text { colours: false, times: true, priorities: false };
    const JSON: Format = Format::Json { priorities: false };

    #[test]
    fn values_are_told_apart_from_what_stands_around_them() {
        let fields = [
            ("n", Value::Number("7")),
            ("on", Value::Flag(true)),
            ("text", Value::Text("a=b \"c\"")),
            ("word", Value::Word("192.0.2.1")),
            ("words", Value::Word("out of order")),
            ("empty", Value::Word("")),
        ];
        let rest = r#"n=7 on=true text="a=b \"c\"" word=192.0.2.1 words="out of order" empty="""#;
        assert_eq!(line(TEXT, &fields), format!("1970-01-01T00:00:01.500000Z  WARN met {rest}\n"));
    }

    /// Every character there is, in both formats.
    #[test]
    fn only_what_prints_is_written_and_nothing_is_lost() {
        let all: String = ('\0'..=char::MAX).collect();
        let fields = [("all", Value::Text(&all))];
        for format in [TEXT, JSON] {
            let line = line(format, &fields);
            let body = line.strip_suffix('\n').unwrap();
            let hides = |c: char| c.is_control() || postward::explain::is_hidden(c) || (c != ' ' && c.is_whitespace());
            assert_eq!(body.chars().find(|c| hides(*c)), None);
        }
        let object: Json = serde_json::from_str(&line(JSON, &fields)).unwrap();
        assert_eq!(object["all"], Json::String(all.clone()));
        assert_eq!((&object["level"], &object["message"]), (&"WARN".into(), &"met".into()));
        let text = line(TEXT, &fields);
        let (_, quoted) = text.trim_end().split_once(" all=").unwrap();
        assert_eq!(serde_json::from_str::<String>(quoted).unwrap(), all);
    }

    #[test]
    fn the_journal_keeps_the_level_of_lines_from_standard_error() {
        let format = Format::Text { colours: false, times: false, priorities: true };
        assert_eq!(line(format, &[]), "<4> WARN met\n");
        assert!(line(Format::Json { priorities: true }, &[]).starts_with("<4>{\"timestamp\":"));
    }

    #[test]
    fn a_terminal_shows_levels_in_colours() {
        let format = Format::Text { colours: true, times: false, priorities: false };
        assert_eq!(line(format, &[]), "\x1b[33m WARN\x1b[0m met\n");
    }

    #[test]
    fn a_value_cannot_become_a_field_of_the_journal() {
        let datagram = bytes(Format::Journald, &[("helo", Value::Text("x\nPRIORITY=0\n"))]);
        let expected: [&[u8]; 6] = [
            b"PRIORITY\n\x01\0\0\0\0\0\0\x004",
            b"SYSLOG_IDENTIFIER\n\x08\0\0\0\0\0\0\0postward",
            b"SYSLOG_FACILITY\n\x01\0\0\0\0\0\0\x002",
            b"POSTWARD_EVENT\n\x03\0\0\0\0\0\0\0met",
            b"POSTWARD_HELO\n\x0d\0\0\0\0\0\0\0x\nPRIORITY=0\n",
            b"MESSAGE\n\x1a\0\0\0\0\0\0\0met helo=\"x\\nPRIORITY=0\\n\"",
        ];
        assert_eq!(datagram, [expected.join(&b'\n'), b"\n".to_vec()].concat());
    }

    #[test]
    fn a_message_comes_before_the_fields_whenever_it_is_told_and_is_never_missing() {
        let mut line = TEXT.line(Level::INFO, UNIX_EPOCH);
        line.field("n", Value::Number("7"));
        line.message("met");
        assert!(line.finish().ends_with(b" INFO met n=7\n"));
        let mut line = JSON.line(Level::INFO, UNIX_EPOCH);
        line.field("n", Value::Number("7"));
        assert!(line.finish().ends_with(b"\"message\":\"\",\"n\":7}\n"));
    }
}
