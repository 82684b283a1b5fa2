//! What an event tells, taken apart, before anybody knows how it is written.

use std::fmt;

use tracing::Event;
use tracing::Level;
use tracing::field::Field;
use tracing::field::Visit;

/// How much of a value is told. Real addresses, names and replies are far shorter; what is longer comes from somebody who
/// wants to fill the log.
const MAX_VALUE: usize = 1000;

/// An event.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// The value of a field.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Flag(bool),
    Number(String),
    /// A text of ours or of a stranger.
    Text(String),
    /// What our own types say of themselves: needs no quotes if it is one word.
    Word(String),
}

impl Told {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut told =
            Self { level: *event.metadata().level(), message: String::new(), fields: Vec::with_capacity(16) };
        event.record(&mut told);
        told
    }

    fn text(&mut self, field: &Field, text: String, kind: fn(String) -> Value) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), kind(text)));
        }
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, cut(format!("{value:?}")), Value::Word);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, cut_str(value), Value::Text);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Flag(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Number(value.to_string())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::Number(value.to_string())));
    }
}

fn cut(text: String) -> String {
    if text.len() <= MAX_VALUE { text } else { cut_str(&text) }
}

fn cut_str(text: &str) -> String {
    if text.len() <= MAX_VALUE {
        return text.to_owned();
    }
    let kept = (0..=MAX_VALUE).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    format!("{kept}... ({} bytes more)", text.len() - kept.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(cut_str(&"x".repeat(MAX_VALUE)), "x".repeat(MAX_VALUE));
        let long = format!("{}\u{20ac}{}", "x".repeat(MAX_VALUE - 1), "y".repeat(10));
        assert_eq!(cut_str(&long), format!("{}... (13 bytes more)", "x".repeat(MAX_VALUE - 1)));
        assert_eq!(cut(long.clone()), cut_str(&long));
    }
}
