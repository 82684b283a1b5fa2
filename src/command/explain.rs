//! `postward explain`: what a code, or each reply in a text, means.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::IsTerminal as _;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use postward::codes::EnhancedCode;
use postward::explain;
use postward::explain::Explanation;
use postward::explain::Found;
use postward::explain::Origins;
use postward::explain::Scanner;
use postward::explain::Summary;
use postward::policy::Policy;
use postward::server;
use serde_json::Value;
use serde_json::json;

use super::BAD_CONFIGURATION;
use super::DEFAULT_PATH;
use super::FAILED;
use super::complain;
use super::configuration_path;
use super::print;
use super::read;
use super::source_name;
use crate::args::Format;

/// More lines of a log, or more different replies, are counted and not explained one by one.
const MOST_EXPLAINED: usize = 10;

/// A text of so many lines may be codes that somebody typed, one on each.
const MOST_TYPED: u64 = 10;

/// A line that is longer is cut: no log has such.
const LONGEST_LINE: u64 = 1 << 20;

/// What is asked.
pub(crate) struct Inquiry {
    /// The arguments.
    pub(crate) text: Vec<String>,
    /// The configuration whose rules are looked for.
    pub(crate) config: Option<PathBuf>,
    /// The file to read.
    pub(crate) file: Option<PathBuf>,
    /// How to show the answer.
    pub(crate) format: Format,
    /// Whether only to count.
    pub(crate) summary: bool,
}

pub(crate) fn explain(inquiry: &Inquiry) -> ExitCode {
    let origins = match origins(inquiry.config.clone()) {
        Ok(origins) => origins,
        Err(code) => return code,
    };
    let text = inquiry.text.join(" ");
    let input: Box<dyn Read> = match source(inquiry, &text) {
        Ok(Some(input)) => input,
        Ok(None) => match explain::typed(&text).filter(|_| !inquiry.summary) {
            Some(typed) => return show(inquiry, &Answer::of_one(Explanation::of_typed(&typed, &origins))),
            None => Box::new(io::Cursor::new(text.clone())),
        },
        Err(message) => {
            complain(&format!("postward: {message}\n"));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match scan(inquiry, &origins, input) {
        Ok(answer) => show(inquiry, &answer),
        Err(error) => {
            complain(&format!("postward: cannot read what to explain: {error}\n"));
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

/// The replies of the configuration's rules. One that was not asked for may be missing or broken.
fn origins(config: Option<PathBuf>) -> Result<Origins, ExitCode> {
    let is_asked_for = config.is_some();
    let path = configuration_path(config, Path::new(DEFAULT_PATH));
    let loaded = server::load(path.as_deref());
    let of = |policy: &Policy| Origins::of(policy.outlines());
    if is_asked_for {
        return read(loaded, path.as_deref(), "").map(|(_, policy)| of(&policy));
    }
    let policy = loaded.ok().and_then(|loaded| loaded.policy);
    if policy.is_none() {
        let name = source_name(path.as_deref());
        complain(&format!("postward: {name} is not fit for use; no rules are looked for\n"));
    }
    Ok(policy.as_ref().map(of).unwrap_or_default())
}

/// The file or standard input that the arguments name; `None` where they are the text themselves.
fn source(inquiry: &Inquiry, text: &str) -> Result<Option<Box<dyn Read>>, String> {
    let standard_input = || Ok(Some(Box::new(io::stdin()) as Box<dyn Read>));
    let path = match (&inquiry.file, inquiry.text.as_slice()) {
        (Some(path), _) => path.as_path(),
        (None, []) if io::stdin().is_terminal() => {
            return Err(
                "nothing to explain: give a code, a text or a file, or pipe one in (`postward explain --help`)"
                    .to_owned(),
            );
        }
        (None, []) => return standard_input(),
        (None, [word]) if word == "-" || Path::new(word).is_file() => Path::new(word),
        (None, [word]) if word.contains('/') && !text.contains(' ') && explain::typed(word).is_none() => {
            Path::new(word)
        }
        (None, _) => return Ok(None),
    };
    if path == Path::new("-") {
        return standard_input();
    }
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut file = BufReader::new(file);
    let begins_compressed = |start: &[u8]| {
        [&b"\x1f\x8b"[..], b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"].iter().any(|magic| start.starts_with(magic))
    };
    if file.fill_buf().is_ok_and(begins_compressed) {
        return Err(format!("{0} is compressed: zcat {0} | postward explain", path.display()));
    }
    Ok(Some(Box::new(file)))
}

/// Every reply of a text.
fn scan(inquiry: &Inquiry, origins: &Origins, input: Box<dyn Read>) -> io::Result<Answer> {
    let mut answer = Answer { wants_summary: inquiry.summary, ..Answer::default() };
    let mut scanner = Scanner::default();
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut typed = Vec::new();
    while input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? > 0 {
        answer.lines += 1;
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        scanner.line(&text).iter().for_each(|found| answer.add(found, origins));
        if answer.lines <= MOST_TYPED {
            typed.extend(explain::typed(&text));
        }
        line.clear();
    }
    answer.is_log = scanner.log_lines() > MOST_EXPLAINED;
    scanner.finish().iter().for_each(|found| answer.add(found, origins));
    // A code on a line of its own is one only where all of it may have been typed.
    if answer.replies == 0 && answer.lines <= MOST_TYPED {
        for typed in &typed {
            answer.replies += 1;
            answer.explanations.push(Explanation::of_typed(typed, origins));
        }
    }
    Ok(answer)
}

/// What was found.
#[derive(Default)]
struct Answer {
    lines: u64,
    replies: u64,
    /// Of the first different replies.
    explanations: Vec<Explanation>,
    /// The codes that they have.
    explained: BTreeSet<(Option<u16>, Option<EnhancedCode>, Vec<String>)>,
    summary: Summary,
    is_log: bool,
    wants_summary: bool,
}

impl Answer {
    fn of_one(explanation: Explanation) -> Self {
        Self { lines: 1, replies: 1, explanations: vec![explanation], ..Self::default() }
    }

    fn add(&mut self, found: &Found, origins: &Origins) {
        self.replies += 1;
        self.summary.add(found, origins);
        let rules = origins.rules(found.code, &found.text).into_iter().map(str::to_owned).collect();
        let is_new =
            self.explained.len() <= MOST_EXPLAINED && self.explained.insert((found.code, found.enhanced, rules));
        if is_new {
            self.explanations.push(Explanation::of_found(found, origins));
        }
    }

    fn is_summary(&self) -> bool {
        self.replies > 0 && (self.wants_summary || self.is_log || self.explained.len() > MOST_EXPLAINED)
    }

    fn to_json(&self) -> Value {
        let explanations: Vec<Value> = self.explanations.iter().map(Explanation::to_json).collect();
        let (explanations, summary) =
            if self.is_summary() { (Value::Null, self.summary.to_json()) } else { (explanations.into(), Value::Null) };
        json!({"lines": self.lines, "replies": self.replies, "explanations": explanations, "summary": summary})
    }

    fn to_text(&self) -> String {
        if self.is_summary() {
            let replies = if self.replies == 1 { "reply" } else { "replies" };
            return format!("{} {replies} in {} lines.\n\n{}", self.replies, self.lines, self.summary);
        }
        let texts: Vec<String> = self.explanations.iter().map(Explanation::to_string).collect();
        texts.join("\n")
    }
}

fn show(inquiry: &Inquiry, answer: &Answer) -> ExitCode {
    let code = if answer.replies == 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
    match inquiry.format {
        Format::Json => print(&format!("{:#}\n", answer.to_json()), code),
        Format::Text if answer.replies == 0 => {
            complain(&nothing_found(&inquiry.text.join(" ")));
            code
        }
        Format::Text => print(&answer.to_text(), code),
    }
}

fn nothing_found(text: &str) -> String {
    let text = text.trim();
    let why = if explain::is_port(text) {
        format!("{text} is a port for mail, no reply code")
    } else {
        "no reply code was found. A code is 550, 5.7.1 or both; `postward codes` lists all".to_owned()
    };
    format!("postward: {why}\n")
}
