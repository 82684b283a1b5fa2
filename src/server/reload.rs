//! A configuration in place of another, without a stop.
//!
//! It is read, checked and compiled aside; its sockets are opened before anything is changed. Then it is in force for every
//! connection that begins; those that there are keep theirs to their end, with whatever was negotiated for it. What cannot be
//! put in force changes nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::context::Context;
use super::context::InForce;
use super::http::Gate;
use super::listener;
use super::listener::BindError;
use super::listener::Listener;
use super::load::Loaded;
use super::notify;
use super::notify::Notifier;
use crate::config::At;
use crate::config::Config;
use crate::config::Diagnostics;
use crate::config::Endpoint;
use crate::config::Server;
use crate::config::Severity;
use crate::lookup;
use crate::lookup::Shared;
use crate::policy::Policy;

/// Reads the configuration anew, from where the first one came.
pub type Reader = Arc<dyn Fn() -> Result<Loaded, (PathBuf, std::io::Error)> + Send + Sync>;

/// Asks the server for a reload.
#[derive(Clone, Debug)]
pub struct Reloader {
    requests: mpsc::Sender<Request>,
}

/// Where the outcome goes.
pub(super) type Request = oneshot::Sender<Box<Outcome>>;

/// What became of a reload.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Why it is not in force; `None`: it is.
    pub problem: Option<String>,
    /// What is wrong with it, or worth a look.
    pub diagnostics: Diagnostics,
    /// What is otherwise than one might think: counters that are dropped, settings that wait for a restart.
    pub notes: Vec<String>,
    /// The hash of the configuration in force.
    pub hash: String,
    /// How many rules there are in force.
    pub rules: usize,
}

/// Everything ready for a change that cannot fail any more.
pub(super) struct Prepared {
    config: Config,
    policy: Arc<Policy>,
    lookups: Arc<Shared>,
    notifier: Notifier,
    gate: Gate,
    /// Listeners that are new, with what they are in the configuration.
    pub(super) opened: Vec<(Endpoint, Listener)>,
    outcome: Box<Outcome>,
}

impl Reloader {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(WAITING);
        (Self { requests }, receiver)
    }

    /// Puts the configuration in force that there is now, if it can be.
    pub async fn reload(&self) -> Box<Outcome> {
        let (answer, outcome) = oneshot::channel();
        // It is being stopped where nobody takes the request, or drops it.
        _ = self.requests.send(answer).await;
        outcome.await.unwrap_or_else(|_| refused("the daemon is stopping".to_owned()))
    }
}

/// What a reload finds open.
#[derive(Clone, Debug)]
pub(super) struct Open {
    /// The listeners; `None`: they are systemd's, whatever the configuration says.
    pub(super) listeners: Option<Vec<Place>>,
    /// Where HTTP is served.
    pub(super) http: Option<SocketAddr>,
    /// Root has opened them, who is no more.
    pub(super) has_made_way: bool,
}

/// Where a listener is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// In the configuration.
    pub(super) configured: Endpoint,
    /// In truth: a name or port 0 has become an address.
    pub(super) actual: Endpoint,
}

impl Place {
    /// Whether the configuration means this one.
    pub(super) fn is(&self, configured: &Endpoint) -> bool {
        [&self.configured, &self.actual].contains(&configured)
    }
}

/// Reads, compiles and opens, aside.
pub(super) async fn prepare(read: Reader, context: Arc<Context>, open: Open) -> Result<Prepared, Box<Outcome>> {
    let before = context.in_force();
    let (config, policy, mut outcome) = off_thread(&context, move || compile(&read)).await??;
    outcome.notes = waiting_for_a_restart(&context.started, &config, &open);
    let http = config.http.clone();
    let gate = off_thread(&context, move || Gate::new(&http)).await?;
    outcome.notes.extend(gate.problem().map(str::to_owned));
    let refuse = |error: BindError, mut outcome: Box<Outcome>| {
        let hint = if open.has_made_way && error.is_permission() { MADE_WAY } else { "" };
        outcome.problem = Some(format!("{error}{hint}"));
        outcome
    };
    let opened = match listeners(&config.server, open.listeners.as_deref()).await {
        Ok(opened) => opened,
        Err(error) => return Err(refuse(error, outcome)),
    };
    let (then, now, places) = (Arc::clone(&before), config.server.clone(), open.listeners.clone());
    let permitted = off_thread(&context, move || permit_again(&then.config.server, &now, &places.unwrap_or_default()));
    if let Err(error) = permitted.await? {
        return Err(refuse(error, outcome));
    }
    // Last, since it cannot fail: keys of limits that have changed are judged anew.
    let policy = Arc::new(policy);
    let ours = Arc::clone(&policy);
    let (lookups, dropped) = off_thread(&context, move || before.lookups.succeed(ours)).await?;
    let told = config.notify.clone();
    let teller = Arc::clone(&context);
    let (notifier, problems) = off_thread(&context, move || {
        let problems = told.iter().flat_map(|notify| [notify::unusable(notify), notify::exposed(notify)]).flatten();
        (teller.notifier().succeed(&told), problems.collect::<Vec<_>>())
    })
    .await?;
    outcome.notes.extend(problems.into_iter().map(|problem| problem.message));
    outcome.notes.extend(dropped.into_iter().map(|note| format!("counters of {note}")));
    outcome.hash.clone_from(&config.hash);
    outcome.rules = policy.rules().len();
    Ok(Prepared { config, policy, lookups, gate, notifier, opened, outcome })
}

fn compile(read: &Reader) -> Result<(Config, Policy, Box<Outcome>), Box<Outcome>> {
    let loaded = read().map_err(|(path, error)| refused(format!("cannot read {}: {error}", path.display())))?;
    let Loaded { config, policy, diagnostics } = loaded;
    let problem = match &policy {
        None => Some(diagnostics.counted()),
        Some(policy) => {
            lookup::unusable_path(policy).map(|(path, error)| BindError::DiskFree { path, error }.to_string())
        }
    };
    let outcome = Box::new(Outcome { problem, diagnostics, ..Outcome::default() });
    match policy {
        Some(policy) if outcome.problem.is_none() => Ok((config, policy, outcome)),
        Some(_) | None => Err(outcome),
    }
}

/// Opens the listeners that are new.
async fn listeners(server: &Server, open: Option<&[Place]>) -> Result<Vec<(Endpoint, Listener)>, BindError> {
    let mut opened = Vec::new();
    let Some(open) = open else {
        return Ok(opened);
    };
    for endpoint in endpoints(server).filter(|endpoint| !is_open(open, endpoint)) {
        opened.push((endpoint.clone(), Listener::bind(endpoint, server, None).await?));
    }
    Ok(opened)
}

/// Those that are open already have the mode and group that they are to have now.
fn permit_again(before: &Server, now: &Server, open: &[Place]) -> Result<(), BindError> {
    let group = |server: &Server| server.socket_group.as_ref().map(|group| group.value.clone());
    for endpoint in endpoints(now).filter(|endpoint| is_open(open, endpoint)) {
        let permitted = listener::permit_again(endpoint, now);
        // What is as before need not be in our power any more: root may have done it.
        if before.socket_mode != now.socket_mode || group(before) != group(now) {
            permitted?;
        }
    }
    Ok(())
}

fn endpoints(server: &Server) -> impl Iterator<Item = &Endpoint> {
    server.listen.iter().map(|listen| &listen.value.endpoint)
}

fn is_open(open: &[Place], endpoint: &Endpoint) -> bool {
    open.iter().any(|place| place.is(endpoint))
}

/// Where files that hang, and millions of keys, keep no session waiting.
async fn off_thread<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Outcome>> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| {
        context.metrics.internal_error();
        refused(format!("a bug was met: {panic}"))
    })
}

impl Prepared {
    /// In force from now on; the listeners are for the caller to serve and to close.
    pub(super) fn put_in_force(self, context: &Context) -> Box<Outcome> {
        context.put_in_force(self.config, self.policy, self.lookups, self.gate, self.notifier);
        self.outcome
    }
}

impl Outcome {
    /// Completed by what stays in force.
    pub(super) fn stays(&mut self, in_force: &InForce) {
        self.hash.clone_from(&in_force.config.hash);
        self.rules = in_force.policy.rules().len();
    }

    /// Tells the log, whoever asked. A diagnostic is one line each.
    pub(super) fn log(&self) {
        for diagnostic in self.diagnostics.sorted().into_iter().take(MOST_LOGGED) {
            let (line, column) = self.diagnostics.line_and_column(&diagnostic.place);
            let source = self.diagnostics.sources.get(diagnostic.place.source);
            let file = source.map(|source| source.path.display().to_string()).unwrap_or_default();
            let hint = diagnostic.hint.as_deref();
            match diagnostic.severity {
                Severity::Error => tracing::error!(file, line, column, hint, "configuration: {}", diagnostic.message),
                Severity::Notice => tracing::info!(file, line, column, hint, "configuration: {}", diagnostic.message),
                Severity::Warning => tracing::warn!(file, line, column, hint, "configuration: {}", diagnostic.message),
            }
        }
        for note in &self.notes {
            tracing::warn!("reload: {note}");
        }
        match &self.problem {
            Some(problem) => tracing::error!("not reloaded, the configuration before stays in force: {problem}"),
            None => tracing::info!(hash = self.hash, rules = self.rules, "configuration reloaded"),
        }
    }
}

pub(super) fn refused(problem: String) -> Box<Outcome> {
    Box::new(Outcome { problem: Some(problem), ..Outcome::default() })
}

/// What of the settings is only read at the start, and has changed since.
fn waiting_for_a_restart(before: &Config, now: &Config, open: &Open) -> Vec<String> {
    fn value<T: ToString>(at: Option<&At<T>>) -> Option<String> {
        at.map(|at| at.value.to_string())
    }
    fn path(at: Option<&At<PathBuf>>) -> Option<String> {
        at.map(|at| at.value.display().to_string())
    }
    let http = open.http.map(|address| address.to_string());
    let listen = |config: &Config| config.server.listen.iter().map(|at| at.value.endpoint.clone()).collect::<Vec<_>>();
    let changed = [
        ("server.listen", open.listeners.is_none() && listen(before) != listen(now)),
        ("server.control", path(before.server.control.as_ref()) != path(now.server.control.as_ref())),
        (
            "server.control_group",
            value(before.server.control_group.as_ref()) != value(now.server.control_group.as_ref()),
        ),
        ("server.user", value(before.server.user.as_ref()) != value(now.server.user.as_ref())),
        ("server.group", value(before.server.group.as_ref()) != value(now.server.group.as_ref())),
        ("server.workers", value(before.server.workers.as_ref()) != value(now.server.workers.as_ref())),
        ("http.listen", ![value(before.http.listen.as_ref()), http].contains(&value(now.http.listen.as_ref()))),
        ("log.format", before.log.format != now.log.format),
        ("log.level", before.log.level != now.log.level),
        ("log.socket", before.log.socket != now.log.socket),
        ("state.path", path(before.state.path.as_ref()) != path(now.state.path.as_ref())),
    ];
    let changed = changed.into_iter().filter(|(_, has_changed)| *has_changed);
    changed.map(|(key, _)| format!("{key} has changed, which takes a restart")).collect()
}

/// How many may wait for a reload that is under way.
const WAITING: usize = 16;
const MADE_WAY: &str =
    "; what takes root's rights is done at start only, before server.user takes over: restart the daemon";
/// More than anybody reads in a log; `postward check` shows all.
const MOST_LOGGED: usize = 20;
