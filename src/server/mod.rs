//! Listeners, tasks, time-outs and shutdown: everything that waits.
//!
//! [`load()`] turns files into a policy, [`Server::bind`] opens every socket or none, [`Server::run`] serves until it is told
//! to stop. One task for each MTA connection, one for each listener; all of them in [`JoinSet`]s, which report panics and
//! are waited for.

mod connection;
mod control;
mod http;
mod journal;
mod listener;
mod load;
mod socket;
mod upkeep;

pub use control::VERSION as CONTROL_VERSION;
pub use listener::BindError;
pub use load::Loaded;
pub use load::check;
pub use load::load;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::lookup;
use crate::lookup::Ledger;
use crate::lookup::Shared;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::session::Session;
use journal::Limited;
use listener::Listener;
use socket::Socket;
use upkeep::Keeper;

/// How long open transactions may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);

/// How long sessions without a transaction live on after SIGTERM: a client that is about to begin one is served, where the
/// MTA would otherwise take its default action.
const GRACE: Duration = Duration::from_secs(5);

/// File descriptors for all but MTA connections: listeners, HTTP, logs.
const OTHER_FILES: u64 = 128;

/// How long `accept` rests after it failed: out of file descriptors, most likely.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Everything that is bound and ready to serve.
pub struct Server {
    listeners: Vec<Listener>,
    http: Option<http::Http>,
    control: Option<control::Control>,
    keeper: Option<Keeper>,
    context: Arc<Context>,
}

/// What all tasks share.
struct Context {
    policy: Arc<Policy>,
    metrics: Metrics,
    lookups: Arc<Shared>,
    deadline: Duration,
    max_sessions: usize,
    /// How many MTAs are connected, over all listeners.
    active: AtomicUsize,
    /// The number of the next session; its start is the time, so that ids do not repeat after a restart.
    next_session: AtomicU64,
    /// Once no new connections are taken: until when sessions without a transaction live on.
    stopping: watch::Sender<Option<Instant>>,
}

impl Server {
    /// Opens every socket, in the order of the configuration. Those that systemd hands over replace `listen`. Then takes over
    /// the counters that were saved; MTAs that come meanwhile wait.
    ///
    /// # Errors
    ///
    /// The first socket that cannot be had, with the reason; nothing is served then.
    pub async fn bind(config: &Config, policy: Policy) -> Result<Self, BindError> {
        if let Some((path, error)) = lookup::unusable_path(&policy) {
            return Err(BindError::DiskFree { path, error });
        }
        let context = Context::new(config, policy).map_err(BindError::Metrics)?;
        let keeper = Keeper::open(&config.state)?;
        raise_open_files(config.server.max_sessions);
        let mut listeners = listener::inherited()?;
        if listeners.is_empty() {
            for endpoint in &config.server.listen {
                listeners.push(Listener::bind(&endpoint.value, &config.server).await?);
            }
        }
        let http = match &config.http.listen {
            Some(listen) => Some(http::Http::bind(&listen.value).await?),
            None => None,
        };
        let control = match &config.server.control {
            Some(path) => Some(control::Control::bind(&path.value, config.server.control_group.as_ref())?),
            None => None,
        };
        if let Some(keeper) = &keeper {
            keeper.restore(&context)?;
        }
        Ok(Self { listeners, http, control, keeper, context: Arc::new(context) })
    }

    /// Where MTAs reach us, in Postfix's spelling: the ports as they really are.
    pub fn endpoints(&self) -> impl Iterator<Item = String> {
        self.listeners.iter().map(ToString::to_string)
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

    /// Serves until `stop` is done; then no connection is taken any more, open transactions have 30 seconds to end, and the
    /// counters are saved.
    /// False if it stopped of itself, because a listener was lost to a bug.
    pub async fn run(self, stop: impl Future<Output = ()>) -> bool {
        let Self { listeners, http, control, keeper, context } = self;
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(listener, Arc::clone(&context)));
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
        let mut keeping = JoinSet::new();
        let (finish, finished) = oneshot::channel();
        if let Some(keeper) = keeper {
            keeping.spawn(keeper.run(Arc::clone(&context), finished));
        }
        let stopped = tokio::select! {
            () = stop => true,
            Some(ended) = accepting.join_next() => lost(ended),
            Some(ended) = serving_others.join_next() => lost(ended),
        };
        context.stop();
        while let Some(ended) = accepting.join_next().await {
            report(ended);
        }
        serving_others.shutdown().await;
        // There may be nobody to keep them.
        _ = finish.send(());
        while let Some(ended) = keeping.join_next().await {
            report(ended);
        }
        sweeping.shutdown().await;
        stopped
    }
}

impl Context {
    fn new(config: &Config, policy: Policy) -> Result<Self, prometheus::Error> {
        let policy = Arc::new(policy);
        Ok(Self {
            metrics: Metrics::new(Arc::clone(&policy))?,
            lookups: Shared::new(Arc::clone(&policy)),
            deadline: config.server.deadline,
            max_sessions: config.server.max_sessions,
            active: AtomicUsize::new(0),
            next_session: AtomicU64::new(first_session()),
            stopping: watch::Sender::new(None),
            policy,
        })
    }

    /// Takes no new work; sessions without a transaction have a while to begin one.
    fn stop(&self) {
        self.stopping.send_replace(Some(Instant::now() + GRACE));
    }
}

/// Takes connections of one listener, each in a task of its own, until the server stops; then waits for them.
async fn accept(mut listener: Listener, context: Arc<Context>) {
    let mut sessions = JoinSet::new();
    let mut stopping = context.stopping.subscribe();
    let mut shed = Limited::default();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(Option::is_some) => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if context.active.load(Ordering::Relaxed) >= context.max_sessions => {
                context.metrics.connection_shed();
                shed.warn("too many connections: closing new ones, for which the MTA takes its default action; raise max_sessions");
            }
            Ok((socket, peer)) => {
                context.active.fetch_add(1, Ordering::Relaxed);
                sessions.spawn(serve(socket, peer, Arc::clone(&context)));
            }
            Err(error) => {
                tracing::warn!(%error, listener = %listener, "cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN, async {
        while let Some(ended) = sessions.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(sessions = sessions.len(), "closing sessions whose transactions did not end in time");
        sessions.shutdown().await;
    }
}

async fn serve(socket: Socket, peer: String, context: Arc<Context>) {
    let _active = Active::new(&context);
    let number = context.next_session.fetch_add(1, Ordering::Relaxed);
    let session = Session::new(Arc::clone(&context.policy), number, socket.transport());
    let ledger = Ledger::new(Arc::clone(&context.lookups));
    connection::drive(socket, &peer, session, ledger, &context).await;
}

/// Counts a connection as long as it lives, however it ends.
struct Active<'a> {
    context: &'a Context,
}

impl<'a> Active<'a> {
    fn new(context: &'a Context) -> Self {
        context.metrics.connection_opened();
        Self { context }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.context.metrics.connection_closed();
        self.context.active.fetch_sub(1, Ordering::Relaxed);
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

/// A task that serves for ever has ended.
fn lost(ended: Result<(), tokio::task::JoinError>) -> bool {
    report(ended);
    tracing::error!("a listener ended of itself; stopping, so that the service manager starts the daemon again");
    false
}

/// Milliseconds, in the upper bits: a session takes longer than they take to be numbered past, so that a restart, however
/// quick, repeats no id. They begin anew after 198 days, which keeps ids short.
#[expect(clippy::disallowed_methods, reason = "the server reads the clock, so that the core need not")]
fn first_session() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let milliseconds = u64::try_from(since_1970.as_millis()).unwrap_or_default();
    (milliseconds & 0x3_ffff_ffff) << 10
}
