//! Makes constants of the catalogue of reply codes, `src/codes/catalogue.toml`, for `src/codes/mod.rs` to include.
//!
//! A table with a key that is missing, unknown or of another type stops the build with its name.

#![allow(clippy::panic, clippy::print_stdout, reason = "that is how a build script speaks")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use toml::Table;
use toml::Value;

const CATALOGUE: &str = "src/codes/catalogue.toml";

/// How a value is written as Rust.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    /// A word that is a variant of this type.
    Choice(&'static str, &'static [(&'static str, &'static str)]),
    Number,
    Numbers,
    OptionalText,
    Text,
    Texts,
}

const SUPPRESS: Kind = Kind::Choice(
    "Suppress",
    &[("-", "NotApplicable"), ("address", "Address"), ("never", "Never"), ("repeated", "Repeated")],
);
const KIND: Kind = Kind::Choice(
    "Kind",
    &[("dotless", "Dotless"), ("local", "Local"), ("non-standard", "NonStandard"), ("standard", "Standard")],
);
const STATUS: Kind =
    Kind::Choice("Registration", &[("deprecated", "Deprecated"), ("registered", "Registered"), ("vendor", "Vendor")]);
const MILTER_USE: Kind = Kind::Choice("MilterUse", &[("no", "No"), ("rarely", "Rarely"), ("yes", "Yes")]);
const VERDICT: Kind = Kind::Choice(
    "Verdict",
    &[("partly", "Partly"), ("right", "Right"), ("unverified", "Unverified"), ("wrong", "Wrong")],
);

type Fields = &'static [(&'static str, Kind)];

/// The tables: key in the catalogue, constant, type, fields.
const TABLES: [(&str, &str, &str, Fields); 7] = [
    (
        "class",
        "CLASSES",
        "Class",
        &[
            ("digit", Kind::Number),
            ("name", Kind::Text),
            ("meaning", Kind::Text),
            ("sender", Kind::Text),
            ("suppress", SUPPRESS),
            ("in_smtp", Kind::Bool),
        ],
    ),
    (
        "second_digit",
        "SECOND_DIGITS",
        "SecondDigit",
        &[("digit", Kind::Number), ("name", Kind::Text), ("meaning", Kind::Text), ("in_smtp", Kind::Bool)],
    ),
    ("subject", "SUBJECTS", "Subject", &[("number", Kind::Number), ("name", Kind::Text), ("meaning", Kind::Text)]),
    (
        "basic",
        "BASIC",
        "Basic",
        &[
            ("code", Kind::Number),
            ("name", Kind::Text),
            ("kind", KIND),
            ("defined_by", Kind::Text),
            ("stages", Kind::Texts),
            ("milter", Kind::Texts),
            ("milter_unusual", Kind::Texts),
            ("milter_why", Kind::OptionalText),
            ("meaning", Kind::Text),
            ("causes", Kind::Texts),
            ("receiver", Kind::Text),
            ("sender", Kind::Text),
            ("suppress", SUPPRESS),
            ("first", Kind::Text),
            ("dotted", Kind::OptionalText),
            ("instead", Kind::OptionalText),
            ("usual", Kind::Texts),
        ],
    ),
    (
        "enhanced",
        "ENHANCED",
        "Enhanced",
        &[
            ("code", Kind::Text),
            ("name", Kind::Text),
            ("status", STATUS),
            ("vendor", Kind::OptionalText),
            ("defined_by", Kind::Text),
            ("classes", Kind::Numbers),
            ("seen", Kind::Numbers),
            ("basic", Kind::Numbers),
            ("usual", Kind::Texts),
            ("milter", MILTER_USE),
            ("milter_why", Kind::OptionalText),
            ("meaning", Kind::Text),
            ("causes", Kind::Texts),
            ("receiver", Kind::Text),
            ("sender", Kind::Text),
            ("suppress", SUPPRESS),
            ("first", Kind::Text),
        ],
    ),
    (
        "text",
        "TEXTS",
        "KnownText",
        &[
            ("contains", Kind::Texts),
            ("code", Kind::OptionalText),
            ("name", Kind::Text),
            ("means", Kind::Text),
            ("first", Kind::Text),
        ],
    ),
    (
        "claim",
        "CLAIMS",
        "Claim",
        &[
            ("id", Kind::Text),
            ("about", Kind::Texts),
            ("says", Kind::Text),
            ("verdict", VERDICT),
            ("truth", Kind::OptionalText),
        ],
    ),
];

fn main() {
    println!("cargo::rustc-env=POSTWARD_RUSTC={}", rustc());
    println!("cargo::rerun-if-changed={CATALOGUE}");
    println!("cargo::rerun-if-changed=build.rs");
    let text = fs::read_to_string(CATALOGUE).unwrap_or_else(|error| panic!("{CATALOGUE}: {error}"));
    let mut catalogue: Table = text.parse().unwrap_or_else(|error| panic!("{CATALOGUE}: {error}"));
    let mut code = String::new();
    for (key, constant, name, fields) in TABLES {
        let Some(Value::Array(tables)) = catalogue.remove(key) else {
            panic!("{CATALOGUE}: no [[{key}]]");
        };
        let values: String = tables.into_iter().map(|table| value_of(key, name, fields, table)).collect();
        _ = writeln!(code, "pub(super) const {constant}: &[{name}] = &[\n{values}];");
    }
    assert!(catalogue.is_empty(), "{CATALOGUE}: unknown keys in {catalogue:?}");
    let directory = env::var_os("OUT_DIR").unwrap_or_else(|| panic!("cargo sets OUT_DIR"));
    let path = Path::new(&directory).join("catalogue.rs");
    fs::write(&path, code).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The compiler's version, as `postward_build_info` has it.
fn rustc() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| panic!("cargo sets RUSTC"));
    let output = Command::new(rustc).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("cannot ask the compiler for its version: {error}"));
    // rustc 1.88.0 (6b00bc388 2025-06-23)
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(' ').nth(1).unwrap_or("unknown").trim().to_owned()
}

/// One table as a Rust value.
fn value_of(key: &str, name: &str, fields: Fields, value: Value) -> String {
    let Value::Table(mut table) = value else {
        panic!("{CATALOGUE}: [[{key}]] is not a table");
    };
    let shown = format!("{table:?}");
    let mut code = format!("    {name} {{");
    for (field, kind) in fields {
        let value = rust(*kind, table.remove(*field)).unwrap_or_else(|| panic!("{CATALOGUE}: {field} of\n{shown}"));
        _ = write!(code, " {field}: {value},");
    }
    assert!(table.is_empty(), "{CATALOGUE}: unknown keys {table:?} of\n{shown}");
    code + " },\n"
}

/// A value as Rust; `None` where it is missing or of another type.
fn rust(kind: Kind, value: Option<Value>) -> Option<String> {
    let each = |kind, values: Vec<Value>| {
        let values: Option<Vec<String>> = values.into_iter().map(|value| rust(kind, Some(value))).collect();
        values.map(|values| format!("&[{}]", values.join(", ")))
    };
    match (kind, value) {
        (Kind::OptionalText, None) => Some("None".to_owned()),
        (Kind::OptionalText, Some(Value::String(text))) => Some(format!("Some({text:?})")),
        (Kind::Text, Some(Value::String(text))) => Some(format!("{text:?}")),
        (Kind::Bool, Some(Value::Boolean(value))) => Some(value.to_string()),
        (Kind::Number, Some(Value::Integer(value))) => Some(value.to_string()),
        (Kind::Numbers, Some(Value::Array(values))) => each(Kind::Number, values),
        (Kind::Texts, Some(Value::Array(values))) => each(Kind::Text, values),
        (Kind::Choice(name, choices), Some(Value::String(word))) => {
            let (_, variant) = choices.iter().find(|(choice, _)| *choice == word)?;
            Some(format!("{name}::{variant}"))
        }
        _ => None,
    }
}
