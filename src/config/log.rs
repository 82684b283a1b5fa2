//! `[log]`: how the log is written, and how much.

use std::path::PathBuf;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::document::Fields;
use super::document::Node;
use super::endpoint::Endpoint;
use super::endpoint::LONGEST_PATH;

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// For people, for programs, or for the journal.
    pub format: LogFormat,
    /// How much is told, if neither the command line nor the environment says so.
    pub level: LogLevel,
    /// The socket of the journal.
    pub socket: PathBuf,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: LogLevel::default(), socket: JOURNAL_SOCKET.into() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// Fields, over journald's socket.
    Journald,
    /// One JSON object a line.
    Json,
    /// `key=value`.
    #[default]
    Text,
}

/// How much is told: what it is called, and all that is called before it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogLevel {
    /// We fail to serve.
    Error,
    /// Someone must act.
    Warn,
    /// Each decision.
    #[default]
    Info,
    /// Why.
    Debug,
    /// Each packet.
    Trace,
}

impl LogLevel {
    const ALL: [(&str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Where systemd has it (systemd-journald.service(8)).
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

pub(super) fn log(node: Node, diagnostics: &mut Diagnostics) -> Log {
    let mut log = Log::default();
    let Some(mut fields) = Fields::of(node, "a table [log]", diagnostics) else {
        return log;
    };
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];
    let format = fields.take("format").map(|node| node.choice(&formats, diagnostics));
    if let Some(Some(format)) = &format {
        log.format = format.value;
    }
    if let Some(level) = fields.take("level").and_then(|node| node.choice(&LogLevel::ALL, diagnostics)) {
        log.level = level.value;
    }
    let example = format!("a path such as \"{JOURNAL_SOCKET}\"");
    if let Some(socket) = fields.take("socket").and_then(|node| node.string(&example, diagnostics)) {
        let is_used = log.format == LogFormat::Journald || matches!(format, Some(None));
        journal_socket(&socket, is_used, diagnostics);
        log.socket = socket.value.into();
    }
    fields.finish(diagnostics);
    log
}

fn journal_socket(socket: &At<String>, is_used: bool, diagnostics: &mut Diagnostics) {
    if format!("unix:{}", socket.value).parse::<Endpoint>().is_err() {
        let message = format!("expected a path that starts with / and has at most {LONGEST_PATH} characters");
        diagnostics.push(Diagnostic::error(socket.place.clone(), format!("{message}, found \"{}\"", socket.value)));
    } else if !is_used {
        let message = "`socket` is only used with format = \"journald\"";
        diagnostics.push(Diagnostic::warning(socket.place.clone(), message));
    }
}
