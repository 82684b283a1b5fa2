//! The log: what the crate tells through `tracing`, as text, JSON or fields of the journal.
//!
//! An event becomes a line on the thread that tells it (`event.rs`, `format.rs`), waits in a bounded queue (`queue.rs`), and
//! is written by a thread of its own (`sink.rs`). So mail never waits for whoever reads the log.

mod event;
mod format;
mod panics;
mod queue;
mod sink;

use std::env;
use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::SystemTime;

use nix::sys::stat::fstat;
use postward::config;
use postward::config::LogFormat;
use tracing::Event;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use event::tell;
use format::Format;
use sink::Journal;
use sink::Sink;
use sink::Stream;

pub(crate) use queue::Log;

/// Starts the log. What it tells is chosen by the option, else by `RUST_LOG`, else by the configuration. Nothing that is wrong
/// with its reader may hold up or end a task, so what panics tell goes the same way.
pub(crate) fn start(settings: &config::Log, level: Option<&str>) -> io::Result<Arc<Log>> {
    let (format, sink, no_journal) = open(settings);
    let log = Log::start(sink)?;
    let lines = Lines { format, log: Arc::clone(&log) };
    tracing_subscriber::registry().with(chosen(settings, level)).with(lines).init();
    if let Some(error) = no_journal {
        let socket = settings.socket.display();
        tracing::warn!(%socket, %error, "cannot reach the journal; logging text to standard error until the next start");
    }
    panics::log_them();
    Ok(log)
}

/// Checks what `--log-level` or `RUST_LOG` says. A bare word is taken for a level only: as the name of a module, which the
/// crate would take it for, a misspelt level silences the whole log.
pub(crate) fn directives(wanted: &str) -> Result<String, String> {
    let words: Vec<&str> = wanted.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    for word in words.iter().filter(|word| !word.contains(['=', '['])) {
        let is_level = word.parse::<tracing::level_filters::LevelFilter>().is_ok();
        if !is_level {
            return Err(format!("`{word}` is not a level (off, error, warn, info, debug, trace)"));
        }
    }
    if words.is_empty() {
        return Err("expected a level (off, error, warn, info, debug, trace)".to_owned());
    }
    let wanted = words.join(",");
    EnvFilter::try_new(&wanted).map_err(|error| error.to_string())?;
    Ok(wanted)
}

fn chosen(settings: &config::Log, level: Option<&str>) -> EnvFilter {
    let configured = settings.level.name();
    if let Some(level) = level {
        return EnvFilter::new(level);
    }
    match env::var("RUST_LOG") {
        Ok(wanted) if !wanted.trim().is_empty() => EnvFilter::new(directives(&wanted).unwrap_or_else(|problem| {
            let text = format!("postward: RUST_LOG: {problem}; using {configured}\n");
            _ = io::stderr().write_all(text.as_bytes());
            configured.to_owned()
        })),
        Ok(_) | Err(_) => EnvFilter::new(configured),
    }
}

/// Where the log goes, and how it is written there. A daemon does not refuse to start for its log: without a journal it is
/// text, and why is to be told.
fn open(settings: &config::Log) -> (Format, Sink, Option<io::Error>) {
    let is_journal = stderr_is_journal();
    let text =
        Format::Text { colours: !is_journal && io::stderr().is_terminal(), times: !is_journal, priorities: is_journal };
    let stderr = Sink::Stderr(Stream::new(io::stderr()));
    match settings.format {
        LogFormat::Json => (Format::Json { priorities: is_journal }, stderr, None),
        LogFormat::Text => (text, stderr, None),
        LogFormat::Journald => match Journal::open(&settings.socket) {
            Ok(journal) => (Format::Journald, Sink::Journal(journal), None),
            Err(error) => (text, stderr, Some(error)),
        },
    }
}

/// Whether standard error leads to the journal, which has times of its own and takes priorities (sd-daemon(3)). The variable
/// alone does not say so: it is inherited by programs whose standard error was led elsewhere (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(told) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    let found = fstat(io::stderr().as_fd());
    found.is_ok_and(|found| told == format!("{}:{}", found.st_dev, found.st_ino))
}

/// Makes a line of each event.
struct Lines {
    format: Format,
    log: Arc<Log>,
}

impl<S: Subscriber> Layer<S> for Lines {
    #[expect(clippy::disallowed_methods, reason = "each line of the log has its time")]
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut line = self.format.line(level, SystemTime::now());
        tell(event, &mut line);
        self.log.push(&line.finish(), level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A misspelt level would be taken for a module and silence everything.
    #[test]
    fn a_word_that_is_no_level_is_not_a_filter() {
        for wanted in ["warn", "debug,postward=trace", "off", "info, hyper=warn"] {
            assert!(directives(wanted).is_ok(), "{wanted}");
        }
        for wanted in ["", " , ", "debgu", "verbose", "info,debgu", "postward=debgu"] {
            assert!(directives(wanted).is_err(), "{wanted}");
        }
    }
}
