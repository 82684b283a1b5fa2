//! Listeners, tasks, time-outs, reload and shutdown: everything that waits.
//!
//! [`load()`] turns files into a policy, [`Server::bind`] opens every socket or none, [`Server::run`] serves until it is told
//! to stop. One task for each MTA connection, one for each listener; all of them in [`JoinSet`]s, which report panics and
//! are waited for.

mod accept;
mod buffers;
mod connection;
mod context;
mod control;
mod health;
mod http;
mod identity;
mod journal;
mod limited;
mod listener;
mod load;
mod memory;
mod notify;
mod reload;
mod ring;
mod socket;
mod upkeep;
mod workers;

pub use control::VERSION as CONTROL_VERSION;
pub use health::Health;
pub use health::Stuck;
pub use identity::Identity;
pub use identity::IdentityError;
pub use limited::Limited;
pub use listener::BindError;
pub use load::Loaded;
pub use load::check;
pub use load::load;
pub use load::series;
pub use reload::Outcome;
pub use reload::Reader;
pub use reload::Reloader;
pub use workers::too_many_workers;
pub use workers::workers;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::At;
use crate::config::Config;
use crate::config::Endpoint;
use crate::config::Listen;
use crate::lookup;
use crate::policy::Policy;
use context::Context;
use listener::Listener;
use reload::Open;
use reload::Place;
use reload::Prepared;
use upkeep::Keeper;

/// How long sessions without a transaction live on after SIGTERM: a client that is about to begin one is served, where the
/// MTA would otherwise take its default action.
const GRACE: Duration = Duration::from_secs(5);

/// How long notifications that were not sent yet have after that.
const FAREWELL: Duration = Duration::from_secs(5);

/// File descriptors for all but MTA connections that are served: listeners, HTTP, logs, those that are sent away.
const OTHER_FILES: u64 = 384;

/// How long `accept` rests after it failed: out of file descriptors, most likely.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Everything that is bound and ready to serve.
pub struct Server {
    /// Each with what it is in the configuration; those that systemd hands over are in none.
    listeners: Vec<(Option<Endpoint>, Listener)>,
    http: Option<http::Http>,
    control: Option<control::Control>,
    keeper: Option<Keeper>,
    context: Arc<Context>,
    reader: Reader,
    reloader: Reloader,
    requests: mpsc::Receiver<reload::Request>,
    /// It was root who opened all that.
    has_made_way: bool,
}

/// What a server needs beside its configuration.
pub struct Setup {
    /// Who is to serve.
    pub identity: Identity,
    /// How many lines of the log could not be written, as counted by whoever writes it.
    pub lost_lines: Arc<AtomicU64>,
    /// Goes up while counters are read and saved.
    pub progress: Arc<AtomicU64>,
    /// Reads the configuration anew, for a reload.
    pub reader: Reader,
}

impl Setup {
    /// For whoever runs the program to serve.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self { identity: Identity::unchanged(None), lost_lines: Arc::default(), progress: Arc::default(), reader }
    }
}

/// The tasks that take connections, and what ends each of them.
struct Accepting {
    tasks: JoinSet<()>,
    /// Those of the configuration.
    open: Vec<(Place, watch::Sender<usize>)>,
    /// Those that systemd handed over.
    inherited: Vec<watch::Sender<usize>>,
}

impl Server {
    /// Opens every socket, in the order of the configuration. Those that systemd hands over replace `listen`. Then takes over
    /// the counters that were saved; MTAs that come meanwhile wait. `setup.reader` reads the configuration anew for a reload;
    /// `setup.progress` goes up as counters are read, now, and saved. Where root is to make way for another user, it does as
    /// soon as all sockets are open, with all of the process.
    ///
    /// # Errors
    ///
    /// The first socket that cannot be had, with the reason; nothing is served then.
    pub async fn bind(config: &Config, policy: Policy, setup: Setup) -> Result<Self, BindError> {
        let Setup { identity, lost_lines, progress, reader } = setup;
        raise_open_files(config.server.max_sessions);
        let mut listeners: Vec<_> = listener::inherited()?.into_iter().map(|listener| (None, listener)).collect();
        if listeners.is_empty() {
            for listen in &config.server.listen {
                let endpoint = &listen.value.endpoint;
                listeners
                    .push((Some(endpoint.clone()), Listener::bind(endpoint, &config.server, identity.owner()).await?));
            }
        }
        let http = match &config.http.listen {
            Some(listen) => Some(http::Http::bind(&listen.value).await?),
            None => None,
        };
        let (reloader, requests) = Reloader::new();
        let control = match &config.server.control {
            Some(path) => {
                let group = config.server.control_group.as_ref();
                Some(control::Control::bind(&path.value, group, identity.owner(), reloader.clone())?)
            }
            None => None,
        };
        identity.assume().map_err(BindError::Identity)?;
        if let Some((path, error)) = lookup::unusable_path(&policy) {
            return Err(BindError::DiskFree { path, error });
        }
        let context = Arc::new(Context::new(config, policy, lost_lines).map_err(BindError::Metrics)?);
        // As the user that is to read it at every reload.
        let gate = http::Gate::new(&config.http);
        if let Some(problem) = gate.problem() {
            tracing::warn!("{problem}");
        }
        context.gate.store(Arc::new(gate));
        let keeper = match Keeper::open(&config.state, progress)? {
            Some(keeper) => Some(keeper.restored(&context).await?),
            None => None,
        };
        for problem in config.notify.iter().filter_map(notify::unusable) {
            tracing::warn!("{}; nobody can be told that way", problem.message);
        }
        for problem in config.notify.iter().filter_map(notify::exposed) {
            tracing::warn!("{}", problem.message);
        }
        let has_made_way = identity.successor().is_some();
        Ok(Self { listeners, http, control, keeper, context, reader, reloader, requests, has_made_way })
    }

    /// Where MTAs reach us, in Postfix's spelling: the ports as they really are.
    pub fn endpoints(&self) -> impl Iterator<Item = String> {
        self.listeners.iter().map(|(_, listener)| listener.to_string())
    }

    /// Where Prometheus reaches us.
    #[must_use]
    pub fn http_address(&self) -> Option<std::net::SocketAddr> {
        self.http.as_ref().map(http::Http::address)
    }

    /// Where administrators reach us.
    #[must_use]
    pub fn control(&self) -> Option<String> {
        self.control.as_ref().map(ToString::to_string)
    }

    /// What reloads this server.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// What tells whether this server lives, also while it stops. To be called by a task of the runtime that serves.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::new(Arc::clone(&self.context), tokio::runtime::Handle::current())
    }

    /// Serves until `stop` is done; then no connection is taken any more, open transactions have 30 seconds to end, and the
    /// counters are saved.
    /// False if it stopped of itself, because a part of it was lost to a bug.
    pub async fn run(self, stop: impl Future<Output = ()>) -> bool {
        let Self { listeners, http, control, keeper, context, reader, mut requests, has_made_way, reloader: _reloader } =
            self;
        let mut accepting = Accepting { tasks: JoinSet::new(), open: Vec::new(), inherited: Vec::new() };
        let http_address = http.as_ref().map(http::Http::address);
        for (endpoint, listener) in listeners {
            accepting.open(endpoint, listener, &context);
        }
        let mut serving_others = JoinSet::new();
        if let Some(http) = http {
            serving_others.spawn(http.serve(Arc::clone(&context)));
        }
        if let Some(control) = control {
            serving_others.spawn(control.serve(Arc::clone(&context)));
        }
        let mut sweeping = JoinSet::new();
        sweeping.spawn(upkeep::sweep(Arc::clone(&context)));
        let mut notifying = JoinSet::new();
        tell(&mut notifying, &context);
        let mut keeping = JoinSet::new();
        let (finish, finished) = oneshot::channel();
        if let Some(keeper) = keeper {
            keeping.spawn(keeper.run(Arc::clone(&context), finished));
        }
        let mut preparing = JoinSet::new();
        let mut asking = None;
        tokio::pin!(stop);
        let stopped = loop {
            tokio::select! {
                () = &mut stop => break true,
                Some(ended) = accepting.tasks.join_next() => match ended {
                    // A reload has closed it.
                    Ok(()) => {}
                    Err(_) => break lost(ended),
                },
                // A reload has put others in their place.
                Some(ended) = notifying.join_next() => report(ended),
                Some(ended) = serving_others.join_next() => break lost(ended),
                Some(ended) = sweeping.join_next() => break lost(ended),
                Some(ended) = keeping.join_next() => break lost(ended),
                Some(request) = requests.recv(), if preparing.is_empty() => {
                    asking = Some(request);
                    let open = Open { listeners: accepting.places(), http: http_address, has_made_way };
                    preparing.spawn(reload::prepare(Arc::clone(&reader), Arc::clone(&context), open));
                }
                Some(prepared) = preparing.join_next() => {
                    let prepared = prepared.unwrap_or_else(|panic| {
                        context.metrics.internal_error();
                        Err(reload::refused(panic.to_string()))
                    });
                    let outcome = accepting.reload(prepared, &context);
                    tell(&mut notifying, &context);
                    outcome.log();
                    // Whoever asked may have gone.
                    _ = asking.take().map(|asking: reload::Request| asking.send(outcome));
                }
            }
        };
        context.stop();
        preparing.shutdown().await;
        while let Some(ended) = accepting.tasks.join_next().await {
            report(ended);
        }
        serving_others.shutdown().await;
        context.notifier().close();
        // There may be nobody to keep them.
        _ = finish.send(());
        while let Some(ended) = keeping.join_next().await {
            report(ended);
        }
        finish_telling(&mut notifying).await;
        sweeping.shutdown().await;
        context.warnings.finish();
        stopped
    }
}

impl Accepting {
    fn open(&mut self, endpoint: Option<Endpoint>, listener: Listener, context: &Arc<Context>) {
        let listen = &context.in_force().config.server.listen;
        let configured = listen.iter().find(|listen| Some(&listen.value.endpoint) == endpoint.as_ref());
        let (close, closed) = watch::channel(most_sessions(configured));
        let traffic = Arc::new(context.metrics.listener(&listener.to_string()));
        match endpoint {
            Some(configured) => self.open.push((Place { configured, actual: listener.endpoint().clone() }, close)),
            None => self.inherited.push(close),
        }
        context.pulses.add(listener.pulse());
        self.tasks.spawn(accept::accept(listener, traffic, closed, Arc::clone(context)));
    }

    /// Listeners that did not change are not touched.
    fn reload(&mut self, prepared: Result<Prepared, Box<Outcome>>, context: &Arc<Context>) -> Box<Outcome> {
        let mut prepared = match prepared {
            Ok(prepared) => prepared,
            Err(mut outcome) => {
                context.not_reloaded();
                outcome.stays(&context.in_force());
                return outcome;
            }
        };
        let opened = std::mem::take(&mut prepared.opened);
        let outcome = prepared.put_in_force(context);
        raise_open_files(context.in_force().config.server.max_sessions);
        for (endpoint, listener) in opened {
            tracing::info!("listening on {listener}");
            self.open(Some(endpoint), listener, context);
        }
        let in_force = context.in_force();
        let listen = &in_force.config.server.listen;
        self.open.retain_mut(|(place, sessions)| match listen.iter().find(|listen| place.is(&listen.value.endpoint)) {
            Some(listen) => {
                place.configured.clone_from(&listen.value.endpoint);
                sessions.send_replace(most_sessions(Some(listen)));
                true
            }
            None => {
                tracing::info!("not listening on {} any more", place.actual);
                false
            }
        });
        outcome
    }

    /// Where they listen; `None` if that is not for the configuration to say.
    fn places(&self) -> Option<Vec<Place>> {
        self.inherited.is_empty().then(|| self.open.iter().map(|(place, _)| place.clone()).collect())
    }
}

/// How many sessions a listener may have, besides what all may have together.
fn most_sessions(listen: Option<&At<Listen>>) -> usize {
    listen.and_then(|listen| listen.value.max_sessions).unwrap_or(usize::MAX)
}

/// Runs whoever tells somebody and is not run yet.
fn tell(notifying: &mut JoinSet<()>, context: &Arc<Context>) {
    for worker in context.notifier().workers() {
        notifying.spawn(worker.run(Arc::clone(context)));
    }
}

/// What waits to be told is told, if that does not take long.
async fn finish_telling(notifying: &mut JoinSet<()>) {
    let told = tokio::time::timeout(FAREWELL, async {
        while let Some(ended) = notifying.join_next().await {
            report(ended);
        }
    });
    if told.await.is_err() {
        tracing::warn!("stopping before all notifications were sent");
        notifying.shutdown().await;
    }
}

/// Takes as many file descriptors as the system grants, and warns if `max_sessions` cannot be reached with them.
fn raise_open_files(max_sessions: usize) {
    let needed = max_sessions as u64 + OTHER_FILES;
    let granted = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = needed.clamp(soft, hard.max(soft));
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map(|()| wanted)
    });
    match granted {
        Ok(granted) if granted >= needed => {}
        Ok(granted) => tracing::warn!(
            granted,
            needed,
            "too few open files for server.max_sessions; raise LimitNOFILE= of the unit, or lower max_sessions"
        ),
        Err(error) => tracing::warn!(%error, "cannot ask how many files may be open"),
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task panicked; please report this");
    }
}

/// As [`report`], and counts it.
fn report_counted(ended: Result<(), tokio::task::JoinError>, context: &Context) {
    if matches!(&ended, Err(error) if error.is_panic()) {
        context.metrics.internal_error();
    }
    report(ended);
}

/// A task that serves for ever has ended.
fn lost(ended: Result<(), tokio::task::JoinError>) -> bool {
    report(ended);
    tracing::error!("a part of the daemon ended of itself; stopping, so that the service manager starts it again");
    false
}
