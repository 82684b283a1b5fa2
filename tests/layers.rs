//! Holds `src/` to its layers.
//!
//! A module imports only from rows below its own (`ROWS`), and what lies below the line has no IO, no async, no clock
//! and no locks. Reads tokens and not lines: comments and strings say what they like, paths count wherever they stand.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a file that cannot be read fails the test"
)]

use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The modules of the crate, from top to bottom.
const ROWS: [&[&str]; 7] = [
    &["main", "args", "command", "log"],
    &["server"],
    &["lookup", "metrics"],
    &["explain", "session"],
    &["policy"],
    &["config"],
    BOTTOM,
];

/// Here `wire` may import `reply`, and `reply` may import `codes`; that is all.
const BOTTOM: &[&str] = &["codes", "facts", "reply", "wire"];

/// From this row on: no IO, no async, no clock, no locks.
const BELOW_THE_LINE: usize = 3;

/// Crates and modules that wait, block, or look at the world.
const FORBIDDEN_PATHS: &[&[&str]] = &[
    &["futures_util"],
    &["hyper"],
    &["hyper_util"],
    &["nix"],
    &["prometheus"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net", "TcpListener"],
    &["std", "net", "TcpStream"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "net", "UdpSocket"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime", "now"],
    &["tokio"],
    &["tracing"],
    &["Instant", "now"],
    &["SystemTime", "now"],
];

/// Words that have no place below the line, however they got there.
const FORBIDDEN_WORDS: &[&str] =
    &["Condvar", "LazyLock", "Mutex", "OnceLock", "RwLock", "async", "await", "static", "thread_local", "unsafe"];

#[test]
fn every_module_imports_only_from_rows_below_its_own() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    assert!(files.len() > 20, "only {} files under {}", files.len(), source.display());
    let mut violations = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        violations.extend(check(file.strip_prefix(&source).unwrap(), &text));
    }
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "src/ breaks its layers:\n{}", list.join("\n"));
}

/// Files with one violation each: were the check blind, it would say so here.
#[test]
fn planted_violations_are_found() {
    let planted = [
        ("policy/judge.rs", "use crate::session::Session;", "`policy` may not use `session`"),
        ("policy/judge.rs", "fn f() { let _ = crate::lookup::Ledger::new; }", "`policy` may not use `lookup`"),
        ("config/rule.rs", "type T = super::super::policy::Policy;", "`config` may not use `policy`"),
        ("config/mod.rs", "mod tests { type T = super::super::policy::Policy; }", "`config` may not use `policy`"),
        ("lookup/mod.rs", "use crate::metrics::Metrics;", "`lookup` may not use `metrics`"),
        ("facts/mod.rs", "use crate::wire::Frame;", "`facts` may not use `wire`"),
        ("reply.rs", "use crate::wire::Frame;", "`reply` may not use `wire`"),
        ("server/mod.rs", "use postward::args::Arguments;", "`server` may not use `args`"),
        ("policy/judge.rs", "use crate::Session;", "`crate::Session` is in no row"),
        ("policy/judge.rs", "use crate::*;", "`crate::*` is in no row"),
        ("helpers/mod.rs", "", "`helpers` is in no row"),
        ("session/mod.rs", "use std::time::Instant;", "`std::time::Instant` below the line"),
        ("facts/mod.rs", "fn f() { SystemTime::now(); }", "`SystemTime::now` below the line"),
        ("wire/frame.rs", "use tokio::net::TcpStream;", "`tokio` below the line"),
        ("session/mod.rs", "fn f() { std::fs::read(p); }", "`std::fs` below the line"),
        ("session/mod.rs", "use std::net::TcpStream;", "`std::net::TcpStream` below the line"),
        ("policy/judge.rs", "async fn f() {}", "`async` below the line"),
        ("policy/judge.rs", "struct S { m: std::sync::Mutex<u8> }", "`Mutex` below the line"),
        ("server/mod.rs", "use std::{fmt, io};", "one import path for each `use`"),
        ("server/mod.rs", "use std::fmt; use std::io;", "one `use` for each line"),
        ("session/mod.rs", "use std::sync::*;", "glob import"),
    ];
    for (file, text, expected) in planted {
        let text = format!("//! Innocent.\n\n{text}\n");
        let found = check(Path::new(file), &text);
        let [violation] = &found[..] else { panic!("{file}: {text}: expected one violation, got {found:?}") };
        let line = if file.starts_with("helpers") { 1 } else { 3 };
        assert_eq!(violation.to_string(), format!("src/{file}:{line}: {expected}"), "{text}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    let allowed = [
        ("main.rs", "use postward::server::Server; use_it(args::Command);"),
        ("server/mod.rs", "use crate::lookup::Ledger;\nuse crate::metrics::Metrics;\nasync fn f() {}"),
        ("lookup/mod.rs", "use crate::session::Settlement;\nuse std::time::Instant;"),
        ("metrics.rs", "use crate::session::Decision;"),
        ("wire/response.rs", "use crate::reply::Reply;"),
        ("policy/judge.rs", "use super::Policy;\nuse std::time::SystemTime;\nuse std::net::IpAddr;"),
        ("policy/judge.rs", "/// See [`crate::session::Session`].\nfn f() {} // tokio::spawn\n/* async */"),
        ("policy/judge.rs", "const TEXT: &str = \"crate::session \\\" tokio::\";\nconst C: char = '\"';"),
        ("policy/judge.rs", "const RAW: &str = r#\"crate::server::\" async \"#;\nconst S: &'static str = \"\";"),
        ("policy/judge.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n    use proptest::prelude::*;\n}"),
        ("codes/tests.rs", "use super::*;"),
        ("server/connection/tests/mod.rs", "use super::*;"),
        ("policy/compile/stage.rs", "use super::super::Policy;"),
        ("config/mod.rs", "pub(in crate::config) fn f() {}"),
    ];
    for (file, text) in allowed {
        let found = check(Path::new(file), text);
        assert!(found.is_empty(), "{file}: {text}: {found:?}");
    }
}

/// Something that breaks the layers, and where.
#[derive(Debug)]
struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Everything wrong with one file; `file` is its path below `src`.
fn check(file: &Path, text: &str) -> Vec<Violation> {
    let mut module = module_path(file);
    if module.is_empty() {
        // lib.rs only names the modules.
        return Vec::new();
    }
    let tokens = tokens(text);
    let mut checker = Checker { file, own: module[0].clone(), violations: Vec::new() };
    if row(&checker.own).is_none() {
        let message = format!("`{}` is in no row", checker.own);
        checker.report(1, message);
        return checker.violations;
    }
    let depth = module.len();
    let mut braces = Vec::new();
    let mut last_use = None;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let previous = at.checked_sub(1).and_then(|before| tokens.get(before)).map_or("", |token| token.text.as_str());
        let next = tokens.get(at + 1).map_or("", |token| token.text.as_str());
        let mut taken = 1;
        match token.text.as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|token| token.text == "{") => {
                module.push(next.to_owned());
                braces.push(true);
                taken = 3;
            }
            "{" => braces.push(false),
            "}" => {
                let ends_module = braces.pop() == Some(true);
                module.truncate(module.len() - usize::from(ends_module));
            }
            "use" => {
                let is_test_file =
                    file.ends_with("tests.rs") || file.parent().is_some_and(|folder| folder.ends_with("tests"));
                let is_test = is_test_file || module.len() > depth;
                checker.import(&tokens, at, last_use, is_test);
                last_use = Some(token.line);
            }
            _ if token.is_word && previous != "::" => {
                let path = path(&tokens, at);
                checker.path(&path, &module, token.line);
                taken = 2 * path.len() - 1;
            }
            _ => {}
        }
        at += taken;
    }
    checker.violations
}

struct Checker<'a> {
    file: &'a Path,
    own: String,
    violations: Vec<Violation>,
}

impl Checker<'_> {
    fn report(&mut self, line: usize, what: impl Into<String>) {
        self.violations.push(Violation { file: self.file.to_owned(), line, what: what.into() });
    }

    /// A `use` has one path and a line of its own; a glob is for tests, where it brings in the module tested.
    fn import(&mut self, tokens: &[Token], at: usize, last_use: Option<usize>, in_inner_module: bool) {
        let line = tokens[at].line;
        let statement: Vec<&str> =
            tokens[at..].iter().map(|token| token.text.as_str()).take_while(|text| *text != ";").collect();
        if statement.contains(&"{") {
            self.report(line, "one import path for each `use`");
        }
        if last_use == Some(line) {
            self.report(line, "one `use` for each line");
        }
        if statement.ends_with(&["*"]) && !in_inner_module && statement.get(1) != Some(&"crate") {
            self.report(line, "glob import");
        }
    }

    fn path(&mut self, path: &[&str], module: &[String], line: usize) {
        match path {
            [root @ ("crate" | "postward"), target, ..] => self.target(root, target, line),
            ["super", ..] => {
                let supers = path.iter().take_while(|part| **part == "super").count();
                // `super` out of a file of the crate's root is the crate itself.
                if let (true, Some(target)) = (supers >= module.len(), path.get(supers)) {
                    self.target("crate", target, line);
                }
            }
            _ => {}
        }
        if row(&self.own).is_none_or(|own| own < BELOW_THE_LINE) {
            return;
        }
        let forbidden = FORBIDDEN_PATHS.iter().find(|forbidden| path.len() > 1 && path.starts_with(forbidden));
        let word = path.iter().find(|part| FORBIDDEN_WORDS.contains(part));
        match (forbidden, word) {
            (Some(forbidden), _) => self.report(line, format!("`{}` below the line", forbidden.join("::"))),
            (None, Some(word)) => self.report(line, format!("`{word}` below the line")),
            (None, None) => {}
        }
    }

    fn target(&mut self, root: &str, target: &str, line: usize) {
        let Some(its) = row(target) else {
            self.report(line, format!("`{root}::{target}` is in no row"));
            return;
        };
        let below = row(&self.own).is_some_and(|own| own < its);
        let allowed = below || self.own == target || ROWS[0].contains(&self.own.as_str());
        if !allowed && ![("reply", "codes"), ("wire", "reply")].contains(&(self.own.as_str(), target)) {
            self.report(line, format!("`{}` may not use `{target}`", self.own));
        }
    }
}

/// Counted from the top.
fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// `policy/judge.rs` is `policy::judge`; `lib.rs` is the crate itself.
fn module_path(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// The words of the path that begins at `at`: `a :: b :: c`; a `*` may end it.
fn path(tokens: &[Token], at: usize) -> Vec<&str> {
    let mut path = vec![tokens[at].text.as_str()];
    let mut rest = &tokens[at + 1..];
    while let [colons, word, after @ ..] = rest
        && colons.text == "::"
        && (word.is_word || word.text == "*")
    {
        path.push(&word.text);
        rest = after;
    }
    path
}

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
    /// An identifier or a keyword.
    is_word: bool,
}

/// Rust without comments, strings, characters and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let (length, is_word) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), None),
            '/' if rest.starts_with("/*") => (comment(rest), None),
            '"' => (string(rest), None),
            'r' if raw_string(rest).is_some() => (raw_string(rest).unwrap(), None),
            '\'' => (quote(rest), None),
            ':' if rest.starts_with("::") => (2, Some(false)),
            c if c.is_alphanumeric() || c == '_' => (word(rest), Some(true)),
            c if c.is_whitespace() => (c.len_utf8(), None),
            c => (c.len_utf8(), Some(false)),
        };
        let (token, after) = rest.split_at(length);
        tokens.extend(is_word.map(|is_word| Token { text: token.to_owned(), line, is_word }));
        rest = after;
    }
    tokens
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Block comments nest.
fn comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// `r"…"`, `r#"…"#`; `None` for a word that begins with r.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].find(|c| c != '#')?;
    let inner = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + inner.find(&close).map_or(inner.len(), |at| at + close.len()))
}

/// A character or a lifetime.
fn quote(text: &str) -> usize {
    let inner = &text[1..];
    if inner.starts_with('\\') {
        return inner[2..].find('\'').map_or(text.len(), |at| at + 4);
    }
    match inner.char_indices().nth(1) {
        Some((at, '\'')) => at + 2,
        _ => 1 + word(inner),
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}
