//! TOML text as a tree that knows its places, and tables that are read key by key.
//!
//! Not serde: deserialisation stops at the first error, and whoever wrote the file wants to hear all of them at once.

#![expect(clippy::wildcard_enum_match_arm, reason = "one kind of value is expected, every other is the same error")]

use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Array(Vec<Node>),
    Boolean(bool),
    Integer(i64),
    /// A float or a date: nothing in a configuration takes either, so only the kind is kept.
    Other(&'static str),
    String(String),
    Table(Vec<(At<String>, Node)>),
}

impl Value {
    /// What it is, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Array(_) => "a list",
            Self::Boolean(_) => "true or false",
            Self::Integer(_) => "a number",
            Self::Other(kind) => kind,
            Self::String(_) => "a string",
            Self::Table(_) => "a table",
        }
    }
}

/// A value with its place.
pub(super) type Node = At<Value>;

impl Node {
    /// The values of a list, or the value itself: most keys take either.
    pub(super) fn one_or_more(self) -> Vec<Self> {
        match self.value {
            Value::Array(nodes) => nodes,
            _ => vec![self],
        }
    }

    /// An error that says what was expected here.
    pub(super) fn expected(&self, what: &str) -> Diagnostic {
        Diagnostic::error(self.place.clone(), format!("expected {what}, found {}", self.value.kind()))
    }

    /// The string, or an error that says what was expected.
    pub(super) fn string(self, what: &str, diagnostics: &mut Diagnostics) -> Option<At<String>> {
        match self.value {
            Value::String(value) => Some(At { value, place: self.place }),
            _ => {
                diagnostics.push(self.expected(what));
                None
            }
        }
    }

    /// A string that reads as a `T`, or an error: `T`'s own where it is a string.
    pub(super) fn parse<T>(self, what: &str, diagnostics: &mut Diagnostics) -> Option<At<T>>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.string(what, diagnostics)?;
        match text.value.parse() {
            Ok(value) => Some(At { value, place: text.place }),
            Err(error) => {
                diagnostics.push(Diagnostic::error(text.place, format!("{error}")));
                None
            }
        }
    }

    pub(super) fn boolean(&self, diagnostics: &mut Diagnostics) -> Option<bool> {
        match self.value {
            Value::Boolean(value) => Some(value),
            _ => {
                diagnostics.push(self.expected("true or false"));
                None
            }
        }
    }

    /// A whole number of at least one.
    pub(super) fn count(&self, diagnostics: &mut Diagnostics) -> Option<u64> {
        match self.value {
            Value::Integer(value @ 1..) => Some(value.unsigned_abs()),
            Value::Integer(value) => {
                let message = format!("expected a number of at least 1, found {value}");
                diagnostics.push(Diagnostic::error(self.place.clone(), message));
                None
            }
            _ => {
                diagnostics.push(self.expected("a number"));
                None
            }
        }
    }

    /// One word out of several.
    pub(super) fn choice<T: Copy>(self, choices: &[(&'static str, T)], diagnostics: &mut Diagnostics) -> Option<At<T>> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let word = self.string(&one_of(&names), diagnostics)?;
        let found = choices.iter().find(|(name, _)| *name == word.value);
        if found.is_none() {
            let message = format!("expected {}, found \"{}\"", one_of(&names), word.value);
            diagnostics.push(Diagnostic::error(word.place.clone(), message));
        }
        found.map(|&(_, value)| At { value, place: word.place })
    }
}

/// `"a", "b" or "c"`.
fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A table that is being read: what is left in it at the end is unknown.
pub(super) struct Fields {
    entries: Vec<(At<String>, Node)>,
    /// The keys asked for so far, to suggest one of them.
    known: Vec<&'static str>,
    /// Where the table stands.
    pub(super) place: Place,
}

impl Fields {
    /// The table in `node`, or an error.
    pub(super) fn of(node: Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        match node.value {
            Value::Table(entries) => Some(Self { entries, known: Vec::new(), place: node.place }),
            _ => {
                diagnostics.push(node.expected("a table"));
                None
            }
        }
    }

    /// Takes the value of `key`.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.take_with_key(key).map(|(_, node)| node)
    }

    /// Takes the value of `key` and the key itself, for messages about the whole entry.
    pub(super) fn take_with_key(&mut self, key: &'static str) -> Option<(Place, Node)> {
        self.known.push(key);
        let index = self.entries.iter().position(|(name, _)| name.value == key)?;
        let (name, node) = self.entries.remove(index);
        Some((name.place, node))
    }

    /// Takes all that is left: for tables whose keys are the user's own.
    pub(super) fn rest(mut self) -> Vec<(At<String>, Node)> {
        std::mem::take(&mut self.entries)
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(self, diagnostics: &mut Diagnostics) {
        for (key, _) in self.entries {
            let closest =
                self.known.iter().max_by(|a, b| similarity(a, &key.value).total_cmp(&similarity(b, &key.value)));
            let hint = match closest {
                Some(closest) if similarity(closest, &key.value) > 0.7 => format!("did you mean `{closest}`?"),
                _ => format!("known here: {}", self.known.join(", ")),
            };
            let message = format!("unknown key `{}`", key.value);
            diagnostics.push(Diagnostic::error(key.place, message).hint(hint));
        }
    }
}

fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}

/// Reads the text of file `source`. Errors of syntax are reported; what could be read all the same is returned.
pub(super) fn read(text: &str, source: usize, diagnostics: &mut Diagnostics) -> Fields {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let place = Place { source, span: start_on_a_character(text, span) };
        diagnostics.push(Diagnostic::error(place, format!("not TOML: {}", error.message())));
    }
    let place = Place { source, span: table.span() };
    Fields { entries: entries(table.into_inner(), source), known: Vec::new(), place }
}

fn start_on_a_character(text: &str, span: Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    start..span.end.max(start)
}

fn entries(table: DeTable<'_>, source: usize) -> Vec<(At<String>, Node)> {
    let mut entries: Vec<_> = table
        .into_iter()
        .map(|(key, value)| {
            let place = Place { source, span: key.span() };
            (At { value: key.into_inner().into_owned(), place }, node(value, source))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.place.span.start);
    entries
}

fn node(value: Spanned<DeValue<'_>>, source: usize) -> Node {
    let place = Place { source, span: value.span() };
    let value = match value.into_inner() {
        DeValue::Array(values) => Value::Array(values.into_iter().map(|value| node(value, source)).collect()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Float(_) => Value::Other("a number with a point"),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("a number too large"), Value::Integer),
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Table(table) => Value::Table(entries(table, source)),
    };
    At { value, place }
}
