//! How an event is written: text for people, JSON for programs, fields for the journal.
//!
//! Whatever a stranger sent stays inside its value: in text and JSON it is a JSON string in which everything that does not
//! print is escaped, so a line is one line and a terminal finds nothing to obey; the journal is told how long each value is.

use std::time::SystemTime;

use tracing::Level;

use super::event::Told;
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

impl Format {
    /// One line, or one datagram.
    pub(super) fn line(self, told: &Told, time: SystemTime) -> Vec<u8> {
        match self {
            Self::Journald => datagram(told),
            Self::Json { priorities } => {
                let mut line = prefix(priorities, told.level);
                json(&mut line, told, time);
                line.push('\n');
                line.into_bytes()
            }
            Self::Text { colours, times, priorities } => {
                let mut line = prefix(priorities, told.level);
                if times {
                    let [dim, plain] = if colours { ["\x1b[2m", "\x1b[0m"] } else { [""; 2] };
                    line += &format!("{dim}{}{plain} ", humantime::format_rfc3339_micros(time));
                }
                let [colour, plain] = if colours { [colour(told.level), "\x1b[0m"] } else { [""; 2] };
                line += &format!("{colour}{:>5}{plain} ", told.level.as_str());
                text(&mut line, told);
                line.push('\n');
                line.into_bytes()
            }
        }
    }
}

/// `<6>`, which the journal takes off and keeps.
fn prefix(wanted: bool, level: Level) -> String {
    let mut line = String::with_capacity(512);
    if wanted {
        line += &format!("<{}>", priority(level));
    }
    line
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

/// The message, and `key=value` for each field.
fn text(line: &mut String, told: &Told) {
    escape(line, &told.message);
    for (name, value) in &told.fields {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        match value {
            Value::Word(word) if is_word(word) => line.push_str(word),
            Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::Word(_) => bare_or_quoted(line, value),
        }
    }
}

fn json(line: &mut String, told: &Told, time: SystemTime) {
    let (time, level) = (humantime::format_rfc3339_micros(time), told.level);
    *line += &format!("{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"message\":");
    quote(line, &told.message);
    for (name, value) in &told.fields {
        *line += &format!(",\"{name}\":");
        bare_or_quoted(line, value);
    }
    line.push('}');
}

fn bare_or_quoted(line: &mut String, value: &Value) {
    match value {
        Value::Flag(flag) => line.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => line.push_str(number),
        Value::Text(text) | Value::Word(text) => quote(line, text),
    }
}

/// systemd's "Native Journal Protocol": fields whose values may hold anything, since their length comes first.
fn datagram(told: &Told) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(1024);
    let mut message = String::with_capacity(512);
    text(&mut message, told);
    field(&mut datagram, "MESSAGE", &message);
    field(&mut datagram, "PRIORITY", priority(told.level));
    field(&mut datagram, "SYSLOG_IDENTIFIER", "postward");
    field(&mut datagram, "SYSLOG_FACILITY", FACILITY);
    field(&mut datagram, "POSTWARD_EVENT", &told.message);
    for (name, value) in &told.fields {
        let name = format!("POSTWARD_{}", name.replace('.', "_").to_ascii_uppercase());
        match value {
            Value::Flag(flag) => field(&mut datagram, &name, if *flag { "true" } else { "false" }),
            Value::Number(value) | Value::Text(value) | Value::Word(value) => field(&mut datagram, &name, value),
        }
    }
    datagram
}

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
    !text.is_empty() && text.bytes().all(is_plain)
}

/// A JSON string.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    escape(line, text);
    line.push('"');
}

/// What stands between the quotes of a JSON string.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if prints(c) => line.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
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

    fn told(fields: Vec<(&'static str, Value)>) -> Told {
        Told { level: Level::WARN, message: "met".to_owned(), fields }
    }

    fn line(format: Format, told: &Told) -> String {
        String::from_utf8(format.line(told, UNIX_EPOCH + Duration::from_micros(1_500_000))).unwrap()
    }

    const TEXT: Format = Format::Text { colours: false, times: true, priorities: false };
    const JSON: Format = Format::Json { priorities: false };

    #[test]
    fn values_are_told_apart_from_what_stands_around_them() {
        let fields = vec![
            ("n", Value::Number("7".to_owned())),
            ("on", Value::Flag(true)),
            ("text", Value::Text("a=b \"c\"".to_owned())),
            ("word", Value::Word("192.0.2.1".to_owned())),
            ("words", Value::Word("out of order".to_owned())),
            ("empty", Value::Word(String::new())),
        ];
        let rest = r#"n=7 on=true text="a=b \"c\"" word=192.0.2.1 words="out of order" empty="""#;
        assert_eq!(line(TEXT, &told(fields)), format!("1970-01-01T00:00:01.500000Z  WARN met {rest}\n"));
    }

    /// Every character there is, in both formats.
    #[test]
    fn only_what_prints_is_written_and_nothing_is_lost() {
        let all: String = ('\0'..=char::MAX).collect();
        let told = told(vec![("all", Value::Text(all.clone()))]);
        for format in [TEXT, JSON] {
            let line = line(format, &told);
            let body = line.strip_suffix('\n').unwrap();
            let hides = |c: char| c.is_control() || postward::explain::is_hidden(c) || (c != ' ' && c.is_whitespace());
            assert_eq!(body.chars().find(|c| hides(*c)), None);
        }
        let object: Json = serde_json::from_str(&line(JSON, &told)).unwrap();
        assert_eq!(object["all"], Json::String(all.clone()));
        assert_eq!((&object["level"], &object["message"]), (&"WARN".into(), &"met".into()));
        let text = line(TEXT, &told);
        let (_, quoted) = text.trim_end().split_once(" all=").unwrap();
        assert_eq!(serde_json::from_str::<String>(quoted).unwrap(), all);
    }

    #[test]
    fn the_journal_keeps_the_level_of_lines_from_standard_error() {
        let format = Format::Text { colours: false, times: false, priorities: true };
        assert_eq!(line(format, &told(Vec::new())), "<4> WARN met\n");
        assert!(line(Format::Json { priorities: true }, &told(Vec::new())).starts_with("<4>{\"timestamp\":"));
    }

    #[test]
    fn a_terminal_shows_levels_in_colours() {
        let format = Format::Text { colours: true, times: false, priorities: false };
        assert_eq!(line(format, &told(Vec::new())), "\x1b[33m WARN\x1b[0m met\n");
    }

    #[test]
    fn a_value_cannot_become_a_field_of_the_journal() {
        let helo = Value::Text("x\nPRIORITY=0\n".to_owned());
        let datagram = Format::Journald.line(&told(vec![("helo", helo)]), UNIX_EPOCH);
        let expected: [&[u8]; 6] = [
            b"MESSAGE\n\x1a\0\0\0\0\0\0\0met helo=\"x\\nPRIORITY=0\\n\"",
            b"PRIORITY\n\x01\0\0\0\0\0\0\x004",
            b"SYSLOG_IDENTIFIER\n\x08\0\0\0\0\0\0\0postward",
            b"SYSLOG_FACILITY\n\x01\0\0\0\0\0\0\x002",
            b"POSTWARD_EVENT\n\x03\0\0\0\0\0\0\0met",
            b"POSTWARD_HELO\n\x0d\0\0\0\0\0\0\0x\nPRIORITY=0\n",
        ];
        assert_eq!(datagram, [expected.join(&b'\n'), b"\n".to_vec()].concat());
    }
}
