//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::AnnotationKind;
use annotate_snippets::Group;
use annotate_snippets::Level;
use annotate_snippets::Renderer;
use annotate_snippets::Snippet;

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
    /// It can, but somebody should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
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
        Self { severity: Severity::Error, message: message.into(), place, hint: None }
    }

    /// A warning at `place`.
    #[must_use]
    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, message: message.into(), place, hint: None }
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
}

impl Diagnostics {
    /// Notes one more.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Whether anything found makes the configuration unusable.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All of them, as `rustc` shows its own: message, file, line, column, the line with a caret below, the hint.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut list: Vec<&Diagnostic> = self.list.iter().collect();
        list.sort_by_key(|diagnostic| (diagnostic.place.source, diagnostic.place.span.start));
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        list.iter().map(|diagnostic| format!("{}\n", self.render_one(&renderer, diagnostic))).collect()
    }

    /// Line and column of a place, counted from one; columns in characters.
    #[must_use]
    pub fn line_and_column(&self, place: &Place) -> (usize, usize) {
        let text = self.sources.get(place.source).map_or("", |source| source.text.as_str());
        let before = text.get(..place.span.start.min(text.len())).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(diagnostic.message.as_str());
        let Some(source) = self.sources.get(diagnostic.place.source) else {
            return renderer.render(&[Group::with_title(title)]);
        };
        let end = source.text.len();
        let span = diagnostic.place.span.start.min(end)..diagnostic.place.span.end.min(end);
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

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
