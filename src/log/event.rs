//! An event taken apart: its message and its fields, each with what kind of value it is.

use std::fmt;
use std::fmt::Write as _;

use tracing::Event;
use tracing::field::Field;
use tracing::field::Visit;

use super::format::Line;

/// How much of a value is told. Real addresses, names and replies are far shorter; what is longer comes from somebody who
/// wants to fill the log.
const MAX_VALUE: usize = 1000;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Flag(bool),
    Number(&'a str),
    /// A text of ours or of a stranger.
    Text(&'a str),
    /// What our own types say of themselves: needs no quotes if it is one word.
    Word(&'a str),
}

/// Writes all that an event tells to a line.
pub(super) fn tell(event: &Event<'_>, line: &mut Line) {
    event.record(&mut Teller { line, scratch: String::new() });
}

struct Teller<'a> {
    line: &'a mut Line,
    /// Values as they are written by their own types.
    scratch: String,
}

impl Teller<'_> {
    fn text(&mut self, field: &Field, value: Value<'_>) {
        match value {
            Value::Text(text) | Value::Word(text) if field.name() == "message" => self.line.message(text),
            Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::Word(_) => self.line.field(field.name(), value),
        }
    }

    fn written(&mut self, field: &Field, value: fmt::Arguments<'_>, kind: for<'v> fn(&'v str) -> Value<'v>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // A String takes everything.
        _ = scratch.write_fmt(value);
        match cut(&scratch) {
            None => self.text(field, kind(&scratch)),
            Some(short) => self.text(field, kind(&short)),
        }
        self.scratch = scratch;
    }
}

impl Visit for Teller<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.written(field, format_args!("{value:?}"), |text| Value::Word(text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match cut(value) {
            None => self.text(field, Value::Text(value)),
            Some(short) => self.text(field, Value::Text(&short)),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.text(field, Value::Flag(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.written(field, format_args!("{value}"), |text| Value::Number(text));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.written(field, format_args!("{value}"), |text| Value::Number(text));
    }
}

/// What is told instead of a value that is too long.
fn cut(text: &str) -> Option<String> {
    if text.len() <= MAX_VALUE {
        return None;
    }
    let kept = (0..=MAX_VALUE).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    Some(format!("{kept}... ({} bytes more)", text.len() - kept.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(cut(&"x".repeat(MAX_VALUE)), None);
        let long = format!("{}\u{20ac}{}", "x".repeat(MAX_VALUE - 1), "y".repeat(10));
        assert_eq!(cut(&long), Some(format!("{}... (13 bytes more)", "x".repeat(MAX_VALUE - 1))));
    }
}
