//! `postward serve`: the daemon.

use std::io;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::sys::stat::umask;
use postward::config::Config;
use postward::policy::Policy;
use postward::server;
use postward::server::Health;
use postward::server::Identity;
use postward::server::IdentityError;
use postward::server::Reader;
use postward::server::Reloader;
use postward::server::Server;
use postward::server::Setup;
use sd_notify::NotifyState;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::BAD_CONFIGURATION;
use super::DEFAULT_PATH;
use super::FAILED;
use super::complain;
use super::configuration_path;
use super::failed;
use super::notify::Notifier;
use super::notify::start_watchdog;
use super::read;
use super::source_name;
use crate::log;
use crate::log::Log;

/// How long a look-up that hangs may hold up the end.
const SHUTDOWN_TIME: Duration = Duration::from_secs(1);

/// How many connections are looked for at once, and served before the next look. A worker has a queue for 256; what does not fit
/// goes to one that is looked at seldom, and of thousands that are ready together some would wait several times as long as others.
const AT_ONCE: u32 = 61;

pub(crate) fn serve(named: Option<PathBuf>, log_level: Option<&str>, user: Option<&str>) -> ExitCode {
    let path = configuration_path(named.clone(), Path::new(DEFAULT_PATH));
    let (config, policy) = match read(server::load(path.as_deref()), path.as_deref(), "; nothing was started") {
        Ok(read) => read,
        Err(code) => return code,
    };
    let identity = match Identity::of(&config.server, user, path.is_none()) {
        Ok(identity) => identity,
        Err(error @ IdentityError::Root) => {
            complain(&format!("postward: {error}\n"));
            return ExitCode::from(BAD_CONFIGURATION);
        }
        Err(error) => return failed(&error.to_string()),
    };
    let log = match log::start(&config.log, log_level) {
        Ok(log) => log,
        Err(error) => return failed(&format!("cannot start the log: {error}")),
    };
    // Sockets get their mode after they are bound; until then they are nobody else's. Programs that tell somebody inherit this,
    // and need the right to enter the directories that they make.
    umask(Mode::from_bits_truncate(0o077));
    let runtime = match start_runtime(server::workers(&config.server)) {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let setup = Setup { identity, lost_lines: log.lost(), progress: Arc::default(), reader: reader(named) };
    // What the log has of a bug that ends the daemon is still to be written.
    let ran = || runtime.block_on(run(&config, policy, setup, path.as_deref(), &log));
    let code = catch_unwind(AssertUnwindSafe(ran)).unwrap_or_else(|_| ExitCode::from(FAILED));
    runtime.shutdown_timeout(SHUTDOWN_TIME);
    log.flush();
    code
}

/// Also what waits for files and names has threads, under another name: so `top -H` tells who is busy.
fn start_runtime(workers: usize) -> io::Result<Runtime> {
    let started = AtomicUsize::new(0);
    // Those that serve are the first, and are never replaced.
    let name = move || {
        let name = if started.fetch_add(1, Ordering::Relaxed) < workers { "worker" } else { "blocking" };
        name.to_owned()
    };
    Builder::new_multi_thread()
        .worker_threads(workers)
        .event_interval(AT_ONCE)
        .max_io_events_per_tick(AT_ONCE as usize)
        .thread_name_fn(name)
        .enable_all()
        .build()
}

/// Reads the configuration again, for a reload: one that was missing at the start may be there by now.
fn reader(named: Option<PathBuf>) -> Reader {
    Arc::new(move || server::load(configuration_path(named.clone(), Path::new(DEFAULT_PATH)).as_deref()))
}

async fn run(config: &Config, policy: Policy, setup: Setup, path: Option<&Path>, log: &Log) -> ExitCode {
    let (identity, reader) = (setup.identity.clone(), Arc::clone(&setup.reader));
    let notifier = match Notifier::start(Arc::clone(&setup.progress)) {
        Ok(notifier) => notifier,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let mut signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("cannot watch for signals: {error}")),
    };
    let bound = tokio::select! {
        bound = Server::bind(config, policy, setup) => bound,
        () = signals.stop() => {
            tracing::info!("stopped before it was ready");
            return ExitCode::SUCCESS;
        }
    };
    let server = match bound {
        Ok(server) => server,
        Err(error) => return failed(&error.to_string()),
    };
    let stop = signals.serve(server.reloader(), server.health(), notifier.clone());
    announce(&server, path, Handle::current().metrics().num_workers());
    if let Some(note) = server::too_many_workers(&config.server) {
        tracing::warn!("{}: {}", note.message, note.hint.unwrap_or_default());
    }
    introduce(&identity, &reader);
    // Whoever waits for READY may then look where it listens.
    log.flush();
    notifier.notify(&[NotifyState::Ready]);
    if let Err(error) = start_watchdog(server.health(), notifier) {
        return failed(&format!("cannot start: {error}"));
    }
    let stopped = server.run(stop).await;
    tracing::info!("stopped");
    if stopped { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// The signals that are heard.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Done when the daemon shall stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// As `stop`. Until then SIGHUP reloads; several that come meanwhile are one.
    async fn serve(mut self, reloader: Reloader, health: Health, notifier: Notifier) {
        let reload = async {
            loop {
                self.hang_up.recv().await;
                reload(&reloader, &notifier).await;
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = reload => {}
        }
        tracing::info!("stopping: taking no new connections, waiting for open transactions");
        notifier.stopping(health.drain());
    }
}

/// Tells the service manager, which may wait for it. What became of it stands in the log.
async fn reload(reloader: &Reloader, notifier: &Notifier) {
    notifier.reloading();
    reloader.reload().await;
    notifier.notify(&[NotifyState::Ready]);
}

/// Says who serves; and warns where that user will not be able to read the configuration again.
fn introduce(identity: &Identity, reader: &Reader) {
    if let Some(note) = identity.note() {
        tracing::warn!("{note}");
    }
    let Some(user) = identity.successor() else {
        return;
    };
    tracing::info!(user, "privileges were dropped");
    if let Err((path, error)) = reader() {
        let path = path.display();
        tracing::warn!("user {user} cannot read {path}: {error}; until that is changed every reload will fail");
    }
}

/// Says where it listens; with the built-in configuration also what to tell the MTAs.
fn announce(server: &Server, path: Option<&Path>, workers: usize) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), configuration = %source_name(path), workers, "postward");
    for endpoint in server.endpoints() {
        tracing::info!("listening on {endpoint}");
    }
    if let Some(address) = server.http_address() {
        tracing::info!("metrics on http://{address}/metrics");
    }
    if let Some(endpoint) = server.control() {
        tracing::info!("control socket {endpoint}");
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

#[cfg(test)]
mod tests {
    use postward::server::Loaded;

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

    /// What the built-in configuration listens on is what the README tells people to paste.
    #[test]
    fn the_built_in_configuration_is_the_default_endpoint() {
        let Loaded { config, policy, .. } = server::load(None).unwrap();
        assert!(policy.is_some());
        assert_eq!(config.server.listen[0].value.endpoint.to_string(), "inet:127.0.0.1:8891");
    }
}
