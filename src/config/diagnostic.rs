//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::AnnotationKind;
use annotate_snippets::Group;
use annotate_snippets::Level;
use annotate_snippets::Renderer;
use annotate_snippets::Snippet;
use serde_json::Value;
use serde_json::json;

use super::notice::Notice;

/// A file of the configuration.
#[derive(Clone, Debug)]
pub struct Source {
    /// How it is called in messages.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

/// A place in one of the configuration's files: bytes, counted from zero.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Index of the file.
    pub source: usize,
    /// First byte and the one after the last.
    pub span: Range<usize>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but a reply in it is unusual.
    Notice,
    /// It can, but somebody should look.
    Warning,
}

impl Severity {
    /// The word before the message.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Notice => "notice",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// What kind of notice it is, if it is one.
    pub notice: Option<Notice>,
    /// What, in one line.
    pub message: String,
    /// Where.
    pub place: Place,
    /// What to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at `place`.
    #[must_use]
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, notice: None, message: message.into(), place, hint: None }
    }

    /// A notice of this kind at `place`.
    #[must_use]
    pub fn notice(notice: Notice, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, notice: Some(notice), message: message.into(), place, hint: None }
    }

    /// A warning at `place`.
    #[must_use]
    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, notice: None, message: message.into(), place, hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Everything found wrong, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// The files that places point into.
    pub sources: Vec<Source>,
    /// What was found.
    pub list: Vec<Diagnostic>,
    /// Whether a part could not be read, so that a warning about the whole would be guesswork.
    pub partial: bool,
}

/// More than anybody reads: a list of thousands may be wrong in every line.
const MOST_SHOWN: usize = 100;

impl Diagnostics {
    /// Notes one more.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.severity != Severity::Warning || !self.partial {
            self.list.push(diagnostic);
        }
    }

    /// Makes an error of whatever was found.
    pub fn be_strict(&mut self) {
        self.list.iter_mut().for_each(|diagnostic| diagnostic.severity = Severity::Error);
    }

    /// Whether anything found makes the configuration unusable.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// How many errors there are.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// How much of each severity is shown, the worst first: `1 error and 2 notices`; empty if nothing is.
    #[must_use]
    pub fn counted(&self) -> String {
        let sorted = self.sorted();
        let counts = [Severity::Error, Severity::Warning, Severity::Notice].map(|severity| {
            let count = sorted.iter().filter(|diagnostic| diagnostic.severity == severity).count();
            (count > 0).then(|| format!("{count} {}{}", severity.name(), if count == 1 { "" } else { "s" }))
        });
        let mut counts: Vec<String> = counts.into_iter().flatten().collect();
        match (counts.pop(), counts.is_empty()) {
            (Some(last), false) => format!("{} and {last}", counts.join(", ")),
            (last, _) => last.unwrap_or_default(),
        }
    }

    /// All of them in the order of their places, each once.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut list: Vec<&Diagnostic> = self.list.iter().collect();
        list.sort_by_key(|d| (d.place.source, d.place.span.start, d.place.span.end, &d.message));
        list.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        list
    }

    /// All of them, as `rustc` shows its own: message, file, line, column, the line with a caret below, the hint.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let list = self.sorted();
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let shown = list.iter().take(MOST_SHOWN);
        let mut text: String =
            shown.map(|diagnostic| format!("{}\n", self.render_one(&renderer, diagnostic))).collect();
        if let Some(more @ 1..) = list.len().checked_sub(MOST_SHOWN) {
            text.push_str(&format!("... and {more} more\n"));
        }
        text
    }

    /// The first occurrence of `part` within what is written at `place`; all of it where there is none.
    #[must_use]
    pub fn narrow(&self, place: &Place, part: &str) -> Place {
        let written = self.sources.get(place.source).and_then(|source| source.text.get(place.span.clone()));
        let Some(offset) = written.and_then(|written| written.find(part)).filter(|_| !part.is_empty()) else {
            return place.clone();
        };
        let start = place.span.start + offset;
        Place { source: place.source, span: start..start + part.len() }
    }

    /// The same for programs: what `check --format json` has in its diagnostics.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let describe = |diagnostic: &Diagnostic| {
            let (line, column) = self.line_and_column(&diagnostic.place);
            let source = self.sources.get(diagnostic.place.source);
            json!({
                "severity": diagnostic.severity.name(),
                "notice": diagnostic.notice.map(Notice::name),
                "file": source.map(|source| source.path.to_string_lossy()),
                "line": line,
                "column": column,
                "message": diagnostic.message,
                "hint": diagnostic.hint,
            })
        };
        self.sorted().into_iter().map(describe).collect()
    }

    /// Line and column of a place, counted from one; columns in characters.
    #[must_use]
    pub fn line_and_column(&self, place: &Place) -> (usize, usize) {
        let text = self.sources.get(place.source).map_or("", |source| source.text.as_str());
        let before = text.get(..whole_characters(text, &place.span).start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// `conf.d/10-local.toml:8`, for messages about another place than their own.
    #[must_use]
    pub(super) fn file_and_line(&self, place: &Place) -> String {
        let file = self.sources.get(place.source).map(|source| source.path.display().to_string());
        format!("{}:{}", file.unwrap_or_default(), self.line_and_column(place).0)
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Notice => Level::NOTE.with_name(Severity::Notice.name()),
            Severity::Warning => Level::WARNING,
        };
        let mut title = level.primary_title(diagnostic.message.as_str());
        if let Some(notice) = diagnostic.notice {
            title = title.id(notice.name());
        }
        let Some(source) = self.sources.get(diagnostic.place.source) else {
            return renderer.render(&[Group::with_title(title)]);
        };
        let span = whole_characters(&source.text, &diagnostic.place.span);
        let path = source.path.to_string_lossy();
        let snippet =
            Snippet::source(source.text.as_str()).path(path.as_ref()).annotation(AnnotationKind::Primary.span(span));
        let mut group = Group::with_title(title).element(snippet);
        if let Some(hint) = &diagnostic.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Where a span cuts a character in two, the renderer would panic.
fn whole_characters(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = (0..=span.start.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    let end = (span.end..text.len()).find(|&at| text.is_char_boundary(at));
    start.unwrap_or_default()..end.unwrap_or(text.len())
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
