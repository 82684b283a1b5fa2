//! Postward's command line: arguments, signals, log set-up and exit codes; nothing else.
//!
//! Exit codes: 0 fine, 1 the daemon could not start or go on, 2 bad usage or configuration.

mod args;
mod log;

use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use nix::sys::stat::Mode;
use nix::sys::stat::umask;
use postward::config::Config;
use postward::config::LogFormat;
use postward::config::Severity;
use postward::policy::Outline;
use postward::policy::Outlines;
use postward::policy::Policy;
use postward::server;
use postward::server::Loaded;
use postward::server::Server;
use serde_json::Value;
use serde_json::json;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tracing_subscriber::EnvFilter;

use args::Arguments;
use args::Command;
use args::Format;
use log::Log;

/// Read when no other file is named.
const DEFAULT_PATH: &str = "/etc/postward/postward.toml";

/// How long a look-up that hangs may hold up the end.
const SHUTDOWN_TIME: Duration = Duration::from_secs(1);

const FAILED: u8 = 1;
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { config, file, format } => check(config.or(file), format),
        Command::Serve { config } => serve(config),
    }
}

/// Prints what is wrong, then how each rule is judged.
fn check(config: Option<PathBuf>, format: Format) -> ExitCode {
    let path = configuration_path(config, Path::new(DEFAULT_PATH));
    let (text, valid) = match format {
        Format::Json => check_json(path.as_deref()),
        Format::Text => match read(server::check(path.as_deref()), path.as_deref(), "") {
            Ok((_, policy)) => (plan(&source_name(path.as_deref()), &policy), true),
            Err(code) => return code,
        },
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) if valid => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(BAD_CONFIGURATION),
        Err(_) => ExitCode::from(FAILED),
    }
}

/// How each rule is judged, for people.
fn plan(name: &str, policy: &Policy) -> String {
    if policy.outlines().is_empty() {
        return format!("{name} is fine. It has no rules: everything is accepted.\n");
    }
    let rules = policy.outlines().chunk_by(|a, b| a.rule == b.rule);
    let rules: String = rules.map(|outlines| format!("\n{}", Outlines(outlines))).collect();
    format!("{name} is fine. Its rules, from top to bottom:\n{rules}")
}

/// Everything for programs, as `args.rs` describes it, and whether the configuration is fit for use.
fn check_json(path: Option<&Path>) -> (String, bool) {
    let (diagnostics, policy) = match server::check(path) {
        Ok(loaded) => (loaded.diagnostics.to_json(), loaded.policy),
        Err((path, error)) => {
            let (file, message) = (path.to_string_lossy(), format!("cannot read it: {error}"));
            let unreadable = json!({
                "severity": "error", "file": file, "line": null, "column": null, "message": message, "hint": null,
            });
            (json!([unreadable]), None)
        }
    };
    let plan: Value = policy.iter().flat_map(Policy::outlines).map(Outline::to_json).collect();
    let valid = policy.is_some();
    let object = json!({
        "configuration": source_name(path), "valid": valid, "diagnostics": diagnostics, "plan": plan,
    });
    (format!("{object:#}\n"), valid)
}

fn serve(config: Option<PathBuf>) -> ExitCode {
    let path = configuration_path(config, Path::new(DEFAULT_PATH));
    let (config, policy) = match read(server::load(path.as_deref()), path.as_deref(), "; nothing was started") {
        Ok(read) => read,
        Err(code) => return code,
    };
    let log = match start_log(config.log.format) {
        Ok(log) => log,
        Err(error) => return failed(&format!("cannot start the log: {error}")),
    };
    // Sockets get their mode after they are bound; until then they are nobody else's.
    umask(Mode::from_bits_truncate(0o177));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let code = runtime.block_on(run(&config, policy, path.as_deref(), &log));
    runtime.shutdown_timeout(SHUTDOWN_TIME);
    log.flush();
    code
}

async fn run(config: &Config, policy: Policy, path: Option<&Path>, log: &Log) -> ExitCode {
    let server = match Server::bind(config, policy).await {
        Ok(server) => server,
        Err(error) => return failed(&error.to_string()),
    };
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => return failed(&format!("cannot watch for signals: {error}")),
    };
    announce(&server, path);
    // Whoever waits for READY may then look where it listens.
    log.flush();
    notify(&[sd_notify::NotifyState::Ready]);
    let stopped = server.run(stop).await;
    tracing::info!("stopped");
    if stopped { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Done when the daemon shall stop: SIGTERM or SIGINT. SIGHUP, which would end a program that ignores it, is only noted.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => tracing::warn!("SIGHUP: this version cannot reload; restart it instead"),
            }
        }
        tracing::info!("stopping: taking no new connections, waiting for open transactions");
        notify(&[sd_notify::NotifyState::Stopping]);
    })
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Says where it listens; with the built-in configuration also what to tell the MTAs.
fn announce(server: &Server, path: Option<&Path>) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), configuration = %source_name(path), "postward");
    for endpoint in server.endpoints() {
        tracing::info!("listening on {endpoint}");
    }
    if let Some(address) = server.http_address() {
        tracing::info!("metrics on http://{address}/metrics");
    }
    if path.is_none() {
        let lines: String = server.endpoints().map(|endpoint| paste_lines(&endpoint)).collect();
        let text = format!("\nNo configuration at {DEFAULT_PATH}: running the built-in one.\n{lines}");
        // Advice on a closed standard output is advice that nobody wants.
        _ = io::stdout().write_all(text.as_bytes());
    }
}

/// What to paste into the MTAs' configurations.
fn paste_lines(endpoint: &str) -> String {
    let sendmail = match endpoint.strip_prefix("inet:").and_then(|rest| rest.rsplit_once(':')) {
        Some((host, port)) if host.starts_with('[') => format!("inet6:{port}@{}", host.trim_matches(['[', ']'])),
        Some((host, port)) => format!("inet:{port}@{host}"),
        None => endpoint.replacen("unix:", "local:", 1),
    };
    format!(
        "\nPostfix, main.cf:\n\n    smtpd_milters = {endpoint}\n    milter_default_action = tempfail\n\n\
         or, behind other milters and with settings of its own:\n\n    \
         {{ {endpoint}, default_action=tempfail, connect_timeout=5s, command_timeout=15s }}\n\n\
         Sendmail, sendmail.mc:\n\n    INPUT_MAIL_FILTER(`postward', `S={sendmail}, F=T, T=C:5s;S:10s;R:10s;E:5m')\n\n"
    )
}

/// The file named, else the default one; `None`, the built-in configuration, only if there surely is no such file: one that
/// may not be seen must not be passed over.
fn configuration_path(named: Option<PathBuf>, default: &Path) -> Option<PathBuf> {
    let is_missing = || default.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if named.is_none() && is_missing() { None } else { Some(named.unwrap_or_else(|| default.to_owned())) }
}

fn source_name(path: Option<&Path>) -> String {
    path.map_or_else(|| "the built-in configuration".to_owned(), |path| path.display().to_string())
}

/// Shows what is wrong with the configuration that was read; an error ends the program, and the `consequence` is told.
fn read(
    loaded: Result<Loaded, (PathBuf, io::Error)>,
    path: Option<&Path>,
    consequence: &str,
) -> Result<(Config, Policy), ExitCode> {
    let Loaded { config, policy, diagnostics } = loaded.map_err(|(path, error)| {
        complain(&format!("postward: cannot read {}: {error}\n", path.display()));
        ExitCode::from(BAD_CONFIGURATION)
    })?;
    complain(&diagnostics.render(io::stderr().is_terminal()));
    match policy {
        Some(policy) => Ok((config, policy)),
        None => {
            let errors = diagnostics.sorted().iter().filter(|d| d.severity == Severity::Error).count();
            let plural = if errors == 1 { "" } else { "s" };
            complain(&format!("postward: {errors} error{plural} in {}{consequence}\n", source_name(path)));
            Err(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

/// Logs go to standard error; `RUST_LOG` chooses what (default: info). The journal has times of its own. Nothing that is
/// wrong with standard error may hold up or end a task, so what panics tell goes the same way.
fn start_log(format: LogFormat) -> io::Result<Arc<Log>> {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = log_filter(&wanted).unwrap_or_else(|problem| {
        complain(&format!("postward: RUST_LOG: {problem}; using info\n"));
        EnvFilter::new("info")
    });
    let log = Log::start()?;
    let lines = tracing_subscriber::fmt()
        .with_writer(Arc::clone(&log))
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_target(false);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => lines.with_ansi(false).without_time().init(),
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!(panic = panic.to_string(), "a bug was met")));
    Ok(log)
}

/// Takes a bare word for a level only: as the name of a module, which the crate would take it for, a misspelt level silences
/// the whole log.
fn log_filter(wanted: &str) -> Result<EnvFilter, String> {
    let words: Vec<&str> = wanted.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    for word in words.iter().filter(|word| !word.contains(['=', '['])) {
        let is_level = word.parse::<tracing::level_filters::LevelFilter>().is_ok();
        if !is_level {
            return Err(format!("`{word}` is not a level (off, error, warn, info, debug, trace)"));
        }
    }
    let wanted = if words.is_empty() { "info".to_owned() } else { words.join(",") };
    EnvFilter::try_new(wanted).map_err(|error| error.to_string())
}

fn failed(message: &str) -> ExitCode {
    complain(&format!("postward: {message}\n"));
    ExitCode::from(FAILED)
}

/// Writes to standard error; where that is closed, nobody can be told.
fn complain(text: &str) {
    _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mtas_lines_are_shown_for_every_kind_of_endpoint() {
        for (endpoint, sendmail) in [
            ("inet:127.0.0.1:8891", "S=inet:8891@127.0.0.1,"),
            ("inet:[::1]:8891", "S=inet6:8891@::1,"),
            ("unix:/run/postward/postward.sock", "S=local:/run/postward/postward.sock,"),
        ] {
            let text = paste_lines(endpoint);
            assert!(text.contains(&format!("\n    smtpd_milters = {endpoint}\n")), "{text}");
            assert!(text.contains(sendmail), "{text}");
        }
    }

    /// A misspelt level would be taken for a module and silence everything.
    #[test]
    fn a_word_that_is_no_level_is_not_a_filter() {
        for wanted in ["", "warn", "debug,postward=trace", "off", "info, hyper=warn"] {
            assert!(log_filter(wanted).is_ok(), "{wanted}");
        }
        for wanted in ["debgu", "verbose", "info,debgu", "postward=debgu"] {
            assert!(log_filter(wanted).is_err(), "{wanted}");
        }
    }

    /// What the built-in configuration listens on is what the README tells people to paste.
    #[test]
    fn the_built_in_configuration_is_the_default_endpoint() {
        let Loaded { config, policy, .. } = server::load(None).unwrap();
        assert!(policy.is_some());
        assert_eq!(config.server.listen[0].value.to_string(), "inet:127.0.0.1:8891");
    }

    #[test]
    fn only_a_missing_default_is_replaced_by_the_built_in_one() {
        let directory = std::env::temp_dir().join(format!("postward-main-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let default = directory.join("postward.toml");
        assert_eq!(configuration_path(None, &default), None);
        assert_eq!(configuration_path(Some("x".into()), &default), Some("x".into()));
        std::os::unix::fs::symlink("nowhere", &default).unwrap();
        assert_eq!(configuration_path(None, &default), Some(default.clone()));
        assert_eq!(configuration_path(None, &default.join("below")), None);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
