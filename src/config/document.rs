//! TOML text as a tree that knows its places, and tables that are read key by key.
//!
//! Not serde: deserialisation stops at the first error, and whoever wrote the file wants to hear all of them at once.

#![expect(clippy::wildcard_enum_match_arm, reason = "one kind of value is expected, every other is the same error")]

use std::fmt;

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

/// What it is, for messages.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(values) if values.is_empty() => f.write_str("an empty list"),
            Self::Array(_) => f.write_str("a list"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Other(kind) => f.write_str(kind),
            Self::String(text) => {
                let more = if text.chars().nth(LONGEST_QUOTE).is_some() { "..." } else { "" };
                let shown = text.chars().take(LONGEST_QUOTE).flat_map(char::escape_debug);
                write!(f, "\"{}{more}\"", shown.collect::<String>())
            }
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

/// The most characters of a value in a message; its place shows it all.
const LONGEST_QUOTE: usize = 40;

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
        Diagnostic::error(self.place.clone(), format!("expected {what}, found {}", self.value))
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
        T: std::str::FromStr<Err: fmt::Display>,
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

    /// The same, for a value that may have been put in quotes by mistake.
    pub(super) fn expected_unquoted<T: std::str::FromStr>(&self, what: &str) -> Diagnostic {
        let error = self.expected(what);
        match &self.value {
            Value::String(text) if text.trim().parse::<T>().is_ok() => {
                error.hint(format!("without quotes: {}", text.trim()))
            }
            _ => error,
        }
    }

    pub(super) fn boolean(&self, diagnostics: &mut Diagnostics) -> Option<bool> {
        match self.value {
            Value::Boolean(value) => Some(value),
            _ => {
                diagnostics.push(self.expected_unquoted::<bool>("true or false"));
                None
            }
        }
    }

    /// A whole number of at least one.
    pub(super) fn count(&self, diagnostics: &mut Diagnostics) -> Option<u64> {
        match self.value {
            Value::Integer(value @ 1..) => Some(value.unsigned_abs()),
            _ => {
                diagnostics.push(self.expected_unquoted::<u32>("a number of at least 1"));
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
            let hint = closest(&names, &word.value).map(|name| format!("did you mean \"{name}\"?"));
            diagnostics.push(Diagnostic { hint, ..Diagnostic::error(word.place.clone(), message) });
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
    /// The table in `node`, or an error that says what was expected.
    pub(super) fn of(node: Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Self> {
        match node.value {
            Value::Table(entries) => Some(Self { entries, known: Vec::new(), place: node.place }),
            _ => {
                diagnostics.push(node.expected(what));
                None
            }
        }
    }

    /// Whether nothing was written in it.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `key` was written and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.value == key)
    }

    /// Where `key` was written, if it was and is not yet taken.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.entries.iter().find(|(name, _)| name.value == key).map(|(name, _)| name.place.clone())
    }

    /// Takes the value of `key`.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.take_with_key(key).map(|(_, node)| node)
    }

    /// Takes the value of `key` and the key itself, for messages about the whole entry.
    pub(super) fn take_with_key(&mut self, key: &'static str) -> Option<(Place, Node)> {
        self.known.push(key);
        self.take_misplaced(key)
    }

    /// Takes a key that belongs elsewhere and is therefore not suggested here.
    pub(super) fn take_misplaced(&mut self, key: &str) -> Option<(Place, Node)> {
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
            let hint = match closest(&self.known, &key.value) {
                Some(closest) => format!("did you mean `{closest}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let message = format!("unknown key `{}`", key.value);
            diagnostics.push(Diagnostic::error(key.place, message).hint(hint));
        }
    }
}

/// What other programs, and people, call the things that have a name here.
const SYNONYMS: [(&str, &str); 12] = [
    ("by", "key"),
    ("ehlo", "helo"),
    ("end", "end-of-message"),
    ("eom", "end-of-message"),
    ("from", "sender"),
    ("ip", "client"),
    ("mail_from", "sender"),
    ("per", "key"),
    ("rcpt", "recipient"),
    ("rcpt_to", "recipient"),
    ("to", "recipient"),
    ("user", "login"),
];

/// The name that was probably meant.
pub(super) fn closest<'a>(names: &[&'a str], written: &str) -> Option<&'a str> {
    let synonym = SYNONYMS.iter().find(|(synonym, _)| synonym.eq_ignore_ascii_case(written));
    if let Some(name) = synonym.and_then(|(_, meant)| names.iter().find(|name| *name == meant)) {
        return Some(name);
    }
    let similarity = |name: &str| strsim::jaro_winkler(name, &written.to_lowercase());
    let closest = names.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    closest.copied().filter(|name| similarity(name) > 0.8)
}

/// Reads file `source` of the diagnostics. `None` where it is not TOML: all errors of syntax are reported, and nothing is
/// concluded from the rest, which an unclosed quote may have turned inside out.
pub(super) fn read(source: usize, diagnostics: &mut Diagnostics) -> Option<Fields> {
    let text = diagnostics.sources.get(source)?.text.clone();
    let (table, errors) = DeTable::parse_recoverable(&text);
    if errors.is_empty() {
        let place = Place { source, span: table.span() };
        return Some(Fields { entries: entries(table.into_inner(), source), known: Vec::new(), place });
    }
    diagnostics.partial = true;
    let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
    // The parser also takes what follows an unclosed header for a repetition, and an open quote for an open list.
    if !errors.iter().all(|(_, message)| *message == DUPLICATE) {
        errors.retain(|(_, message)| *message != DUPLICATE);
    }
    errors.reverse();
    errors.dedup_by_key(|(span, _)| span.start);
    for (span, message) in errors {
        diagnostics.push(syntax(&text, Place { source, span }, message));
    }
    None
}

/// What the parser says of a key that stands in a table twice.
const DUPLICATE: &str = "duplicate key";

/// An error of syntax in words for people who do not know TOML's grammar.
fn syntax(text: &str, place: Place, message: &str) -> Diagnostic {
    let before = text.get(..place.span.start).unwrap_or_default().trim_end_matches([' ', '\t']);
    let after = text.get(place.span.start..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
    let is_value = before.ends_with(['=', '[', ',']);
    let (message, hint) = if message == DUPLICATE {
        let key = text.get(place.span.clone()).unwrap_or_default();
        let hint = "each key and each [table] once; only [[rule]] is repeated";
        (format!("`{key}` is written twice"), Some(hint))
    } else if is_value && after.is_empty() {
        ("a value is missing".to_owned(), None)
    } else if is_value && after.starts_with(char::is_alphabetic) {
        ("text stands in quotes".to_owned(), None)
    } else if message.starts_with("invalid basic string") && after.is_empty() {
        ("the closing quote is missing".to_owned(), None)
    } else if message.starts_with("unexpected leading zero") {
        ("a number does not start with 0".to_owned(), Some("modes are written in quotes: \"0660\""))
    } else {
        (message.to_owned(), None)
    };
    Diagnostic { hint: hint.map(str::to_owned), ..Diagnostic::error(place, format!("not TOML: {message}")) }
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
        // A line end in a text is a line end, whichever editor wrote it.
        DeValue::String(text) => Value::String(text.replace("\r\n", "\n")),
        DeValue::Table(table) => Value::Table(entries(table, source)),
    };
    At { value, place }
}
