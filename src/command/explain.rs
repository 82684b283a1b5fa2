//! `postward explain`: what a code, or each reply in a text, means.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::IsTerminal as _;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use postward::explain;
use postward::explain::Explanation;
use postward::explain::Found;
use postward::explain::Origins;
use postward::explain::Scanner;
use postward::explain::Summary;
use postward::explain::Typed;
use postward::policy::Policy;
use postward::server;
use serde_json::Value;
use serde_json::json;

use super::BAD_CONFIGURATION;
use super::DEFAULT_PATH;
use super::FAILED;
use super::configuration_path;
use super::decision;
use super::object_to;
use super::print;
use super::print_json;
use super::read;
use super::source_name;
use crate::args::Format;

/// More lines of a log, or more different replies, are counted and not explained one by one.
const MOST_EXPLAINED: usize = 10;

/// A text of so many lines may be codes that somebody typed, one on each.
const MOST_TYPED: u64 = 10;

/// So much is looked at to see what a source is.
const START: usize = 1 << 16;

/// What lies behind that in a message is not read.
const LONGEST_MESSAGE: u64 = 1 << 26;

/// How files begin that gzip, bzip2, xz and zstd made.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"];

/// How names of files end that people have explained.
const ENDINGS: [&str; 5] = ["eml", "gz", "log", "msg", "txt"];

/// A line that is longer is cut: no log has such.
const LONGEST_LINE: u64 = 1 << 20;

/// What is asked.
pub(crate) struct Inquiry {
    /// The arguments.
    pub(crate) text: Vec<String>,
    /// The configuration whose rules are looked for.
    pub(crate) config: Option<PathBuf>,
    /// The daemon's control socket.
    pub(crate) control: Option<PathBuf>,
    /// The file to read.
    pub(crate) file: Option<PathBuf>,
    /// How to show the answer.
    pub(crate) format: Format,
    /// Whether only to count.
    pub(crate) summary: bool,
}

pub(crate) fn explain(inquiry: Inquiry) -> ExitCode {
    let text = inquiry.text.join(" ");
    let typed = if inquiry.summary { Vec::new() } else { explain::typed(&text) };
    if let Some(id) = decision::id(&text).filter(|_| typed.is_empty() && !inquiry.summary) {
        return decision::explain(id, inquiry.control, inquiry.config, inquiry.format);
    }
    let inquiry = &inquiry;
    let origins = match origins(inquiry.config.clone()) {
        Ok(origins) => origins,
        Err(code) => return code,
    };
    if !typed.is_empty() {
        return show(inquiry, &Answer::of_typed(&typed, &origins));
    }
    match sources(inquiry).and_then(|sources| answer(inquiry, &origins, sources, &text)) {
        Ok(answer) => show(inquiry, &answer),
        Err(message) => {
            object_to(&message);
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

/// What stands in the sources, or in the arguments themselves.
fn answer(inquiry: &Inquiry, origins: &Origins, sources: Vec<Source>, text: &str) -> Result<Answer, String> {
    let mut answer = Answer { wants_summary: inquiry.summary, ..Answer::default() };
    if sources.is_empty() {
        answer.scan(origins, text.as_bytes()).map_err(|error| error.to_string())?;
    }
    for Source { name, input } in sources {
        let problem = |error: io::Error| format!("cannot read {name}: {error}");
        let mut input = BufReader::with_capacity(START, input);
        let start = input.fill_buf().map_err(problem)?;
        if COMPRESSED.iter().any(|magic| start.starts_with(magic)) {
            return Err(format!("{name} is compressed: zcat {name} | postward explain"));
        }
        if explain::is_message(&String::from_utf8_lossy(start)) {
            let mut message = Vec::new();
            input.take(LONGEST_MESSAGE).read_to_end(&mut message).map_err(problem)?;
            for text in explain::texts(&message).unwrap_or_default() {
                answer.scan(origins, text.as_bytes()).map_err(problem)?;
            }
        } else {
            answer.scan(origins, input).map_err(problem)?;
        }
    }
    Ok(answer)
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
        object_to(&format!("{name} is not fit for use; no rules are looked for"));
    }
    Ok(policy.as_ref().map(of).unwrap_or_default())
}

/// Something to read, and how it is called.
struct Source {
    name: String,
    input: Box<dyn Read>,
}

/// The files, or standard input, that the arguments name; none where they are the text themselves.
fn sources(inquiry: &Inquiry) -> Result<Vec<Source>, String> {
    let words: Vec<&Path> = inquiry.text.iter().map(Path::new).collect();
    let are_files = words.iter().all(|word| *word == Path::new("-") || word.is_file());
    match (&inquiry.file, words.as_slice()) {
        (Some(path), _) => Ok(vec![open(path)?]),
        (None, []) if io::stdin().is_terminal() => {
            Err("nothing to explain: give a code, a text or a file, or pipe one in (`postward explain --help`)"
                .to_owned())
        }
        (None, []) => Ok(vec![open(Path::new("-"))?]),
        (None, words) if are_files => words.iter().map(|word| open(word)).collect(),
        // Whoever writes a path means a file.
        (None, [word]) if inquiry.text.iter().all(|text| text.contains('/') && !text.contains(' ')) => {
            Ok(vec![open(word)?])
        }
        (None, _) => Ok(Vec::new()),
    }
}

fn open(path: &Path) -> Result<Source, String> {
    if path == Path::new("-") {
        return Ok(Source { name: "standard input".to_owned(), input: Box::new(io::stdin()) });
    }
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Source { name: path.display().to_string(), input: Box::new(file) })
}

/// What was found.
#[derive(Default)]
struct Answer {
    lines: u64,
    replies: u64,
    /// Those of the replies that are none: messages delivered without one, which a summary leaves out.
    delivered: u64,
    /// Of the first different replies.
    explanations: Vec<Explanation>,
    /// The codes that they have.
    explained: BTreeSet<(String, Vec<String>)>,
    summary: Summary,
    log_lines: usize,
    wants_summary: bool,
}

impl Answer {
    fn of_typed(typed: &[Typed], origins: &Origins) -> Self {
        let explanations: Vec<_> = typed.iter().map(|typed| Explanation::of_typed(typed, origins)).collect();
        Self { lines: 1, replies: explanations.len() as u64, explanations, ..Self::default() }
    }

    /// Adds every reply of a text.
    fn scan(&mut self, origins: &Origins, mut input: impl BufRead) -> io::Result<()> {
        let mut scanner = Scanner::default();
        let mut line = Vec::new();
        let mut typed = Vec::new();
        let (lines, replies) = (self.lines, self.replies);
        while input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? > 0 {
            self.lines += 1;
            let text = String::from_utf8_lossy(line.trim_ascii_end());
            scanner.line(&text).iter().for_each(|found| self.add(found, origins));
            if self.lines - lines <= MOST_TYPED {
                typed.extend(explain::typed(&text));
            }
            line.clear();
        }
        scanner.finish().iter().for_each(|found| self.add(found, origins));
        self.log_lines += scanner.log_lines();
        // A code on a line of its own is one only where all of it may have been typed.
        if self.replies == replies && self.lines - lines <= MOST_TYPED {
            self.replies += typed.len() as u64;
            self.explanations.extend(typed.iter().map(|typed| Explanation::of_typed(typed, origins)));
        }
        Ok(())
    }

    fn add(&mut self, found: &Found, origins: &Origins) {
        self.replies += 1;
        if found.is_mere_delivery() {
            self.delivered += 1;
        } else {
            self.summary.add(found, origins);
        }
        if self.explained.len() > MOST_EXPLAINED {
            return;
        }
        let explanation = Explanation::of_found(found, origins);
        if self.explained.insert((explanation.title(), explanation.rules().to_vec())) {
            self.explanations.push(explanation);
        }
    }

    fn is_summary(&self) -> bool {
        self.replies > 0
            && (self.wants_summary || self.log_lines > MOST_EXPLAINED || self.explained.len() > MOST_EXPLAINED)
    }

    /// How many replies are shown.
    fn counted(&self) -> u64 {
        if self.is_summary() { self.replies - self.delivered } else { self.replies }
    }

    fn to_json(&self) -> Value {
        let explanations: Vec<Value> = self.explanations.iter().map(Explanation::to_json).collect();
        let (explanations, summary) =
            if self.is_summary() { (Value::Null, self.summary.to_json()) } else { (explanations.into(), Value::Null) };
        json!({"lines": self.lines, "replies": self.counted(), "explanations": explanations, "summary": summary})
    }

    fn to_text(&self) -> String {
        if self.is_summary() {
            let replies = if self.counted() == 1 { "reply" } else { "replies" };
            let lines = if self.lines == 1 { "line" } else { "lines" };
            return format!("{} {replies} in {} {lines}.\n\n{}", self.counted(), self.lines, self.summary);
        }
        let texts: Vec<String> = self.explanations.iter().map(Explanation::to_string).collect();
        texts.join("\n")
    }
}

fn show(inquiry: &Inquiry, answer: &Answer) -> ExitCode {
    let code = if answer.replies == 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
    match inquiry.format {
        Format::Json => print_json(&answer.to_json(), code),
        Format::Text if answer.replies == 0 => {
            object_to(&nothing_found(&inquiry.text.join(" ")));
            code
        }
        Format::Text => print(&answer.to_text(), code),
    }
}

fn nothing_found(text: &str) -> String {
    let text = text.trim();
    let is_file_name = !text.contains(' ') && text.rsplit_once('.').is_some_and(|(_, end)| ENDINGS.contains(&end));
    if explain::is_port(text) {
        format!("{text} is a port for mail, no reply code")
    } else if is_file_name {
        format!("there is no file {text}, and no reply code in its name")
    } else {
        "no reply code was found. A code is 550, 5.7.1 or both; `postward codes` lists all".to_owned()
    }
}
