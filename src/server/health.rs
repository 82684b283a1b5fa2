//! Whether the daemon lives, for whoever tells the service manager so (`WATCHDOG=1`).
//!
//! Asked from a thread outside of the runtime, so that the answer comes also when the runtime gives none. Three things must
//! be: the loop of every listener goes round; a session, of the path that those of MTAs take, negotiates and ends; and no
//! worker of the runtime has been at one and the same task since the last time. Deliberately not here: whether mail can be
//! judged. A look-up that hangs has its deadline, and too many sessions are sent away; a restart would heal neither.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::connection;
use super::context::Context;
use super::socket::Socket;
use crate::lookup::Ledger;
use crate::session::Session;
use crate::session::Transport;

/// Asks how the daemon is.
pub struct Health {
    context: Arc<Context>,
    runtime: Handle,
    /// Of each worker, how it was the last time.
    workers: Vec<Worker>,
}

/// What does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Its loop does not go round; the listener's name.
    Listener(String),
    /// A task that has nothing to wait for is not run.
    Runtime,
    /// One that is no MTA's does not come to its end.
    Session,
    /// The number of one that has been at the same task since the last time.
    Worker(usize),
}

/// What a worker has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Worker {
    /// Even while it is at work.
    parked_and_unparked: u64,
    busy: Duration,
}

impl Health {
    pub(super) fn new(context: Arc<Context>, runtime: Handle) -> Self {
        Self { context, runtime, workers: Vec::new() }
    }

    /// Whether all goes on, which is waited for so long at most. Blocks: not to be called by a task.
    ///
    /// # Errors
    ///
    /// What does not. It may be the machine that was too busy, suspended or paused: only what does not go on again and again is
    /// stuck.
    pub fn check(&mut self, patience: Duration) -> Result<(), Stuck> {
        let at = Arc::new(Mutex::new(Stuck::Runtime));
        let (done, is_done) = std::sync::mpsc::channel();
        let mut probing = JoinSet::new();
        let (context, probed) = (Arc::clone(&self.context), Arc::clone(&at));
        let probe = async move {
            let found = probe(&context, &probed).await;
            _ = done.send(found);
        };
        probing.spawn_on(probe, &self.runtime);
        // One that panics has dropped its sender.
        is_done.recv_timeout(patience).unwrap_or_else(|_| Err(lock(&at).clone()))?;
        self.progress()
    }

    /// How long open transactions have when the daemon is told to stop now.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.context.in_force().config.server.drain
    }

    fn progress(&mut self) -> Result<(), Stuck> {
        let metrics = self.runtime.metrics();
        let worker = |number| Worker {
            parked_and_unparked: metrics.worker_park_unpark_count(number),
            busy: metrics.worker_total_busy_duration(number),
        };
        // One that is alone has just been through the task that asked.
        let others = (0..metrics.num_workers()).filter(|_| metrics.num_workers() > 1);
        let workers: Vec<_> = others.map(worker).collect();
        let before = std::mem::replace(&mut self.workers, workers);
        let stuck = before.iter().zip(&self.workers).position(|(before, now)| now.is_at_work() && before == now);
        stuck.map_or(Ok(()), |number| Err(Stuck::Worker(number)))
    }
}

impl Worker {
    const fn is_at_work(&self) -> bool {
        self.parked_and_unparked.is_multiple_of(2)
    }
}

/// Asks listeners and then a session; `at` says how far it is.
async fn probe(context: &Context, at: &Mutex<Stuck>) -> Result<(), Stuck> {
    for pulse in context.pulses.all() {
        *lock(at) = Stuck::Listener(pulse.listener.clone());
        pulse.feel().await;
    }
    *lock(at) = Stuck::Session;
    converse(context).await
}

/// A conversation with nobody, which nothing counts or limits: it ends before CONNECT.
async fn converse(context: &Context) -> Result<(), Stuck> {
    // Where files run out, sessions are the ones that have them.
    let Ok((mut mta, ours)) = UnixStream::pair() else {
        return Ok(());
    };
    let in_force = context.in_force();
    let session = Session::new(Arc::clone(&in_force.policy), 0, Transport::Unix);
    let ledger = Ledger::new(Arc::clone(&in_force.lookups));
    let mut answer = Vec::new();
    let talking = async {
        mta.write_all(OFFER_AND_QUIT).await?;
        mta.read_to_end(&mut answer).await
    };
    let driving = connection::drive(Socket::Unix(ours), &"watchdog", session, ledger, &in_force, context, None);
    let (talked, ()) = tokio::join!(talking, driving);
    match (talked, answer.get(4)) {
        (Ok(_), Some(b'O')) => Ok(()),
        // Sessions that have not begun a message may be ended before they are heard.
        (Ok(_) | Err(_), None) if context.stopping.borrow().is_some() => Ok(()),
        (Ok(_) | Err(_), _) => Err(Stuck::Session),
    }
}

/// The pulses of all listeners that are open.
#[derive(Debug, Default)]
pub(super) struct Pulses(Mutex<Vec<Pulse>>);

impl Pulses {
    pub(super) fn add(&self, pulse: Pulse) {
        lock(&self.0).push(pulse);
    }

    fn all(&self) -> Vec<Pulse> {
        let mut pulses = lock(&self.0);
        pulses.retain(|pulse| !pulse.ask.is_closed());
        pulses.clone()
    }
}

/// Where one feels whether a listener's loop goes round.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    listener: String,
    ask: mpsc::Sender<oneshot::Sender<()>>,
}

impl Pulse {
    /// Done when the loop has gone round, or the listener is closed.
    async fn feel(&self) {
        let (answer, beat) = oneshot::channel();
        if self.ask.send(answer).await.is_ok() {
            _ = beat.await;
        }
    }
}

/// A listener's own side: it beats while the listener waits for connections, and never otherwise.
#[derive(Debug)]
pub(super) struct Heart {
    ask: mpsc::Sender<oneshot::Sender<()>>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Heart {
    pub(super) fn new() -> Self {
        let (ask, asked) = mpsc::channel(1);
        Self { ask, asked }
    }

    pub(super) fn pulse(&self, listener: String) -> Pulse {
        Pulse { listener, ask: self.ask.clone() }
    }

    /// Answers as long as it is polled.
    pub(super) async fn beat(&mut self) -> std::convert::Infallible {
        loop {
            if let Some(answer) = self.asked.recv().await {
                _ = answer.send(());
            }
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(name) => write!(f, "the listener on {name} takes no connections"),
            Self::Runtime => f.write_str("no task is run"),
            Self::Session => f.write_str("a session does not come to its end"),
            Self::Worker(number) => write!(f, "worker {number} does not come to the end of a task"),
        }
    }
}

impl std::error::Error for Stuck {}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

/// What is locked here is whole after each line.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// OPTNEG with everything that there is, and QUIT.
const OFFER_AND_QUIT: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff\0\0\0\x01Q";

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::runtime::Builder;
    use tokio::runtime::Runtime;

    use super::super::connection::tests::context;
    use super::super::listener::Listener;
    use super::*;
    use crate::config::Server;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// For what is not to come.
    const SHORT: Duration = Duration::from_millis(50);

    fn runtime(workers: usize) -> Runtime {
        Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
    }

    fn health(runtime: &Runtime) -> Health {
        Health::new(Arc::new(context("")), runtime.handle().clone())
    }

    /// A task that blocks its worker until the sender is dropped.
    fn block(tasks: &mut JoinSet<()>, runtime: &Runtime) -> std::sync::mpsc::Sender<()> {
        let (release, released) = channel::<()>();
        let (begin, begun) = channel();
        let work = async move {
            begin.send(()).unwrap();
            _ = released.recv();
        };
        tasks.spawn_on(work, runtime.handle());
        begun.recv_timeout(PATIENCE).unwrap();
        release
    }

    #[test]
    fn a_runtime_that_is_blocked_is_stuck_until_it_is_not() {
        let (runtime, mut tasks) = (runtime(1), JoinSet::new());
        let mut health = health(&runtime);
        assert_eq!(health.check(PATIENCE), Ok(()));
        let release = block(&mut tasks, &runtime);
        assert_eq!(health.check(SHORT), Err(Stuck::Runtime));
        drop(release);
        assert_eq!(health.check(PATIENCE), Ok(()));
    }

    /// The other worker goes on, so that all is answered.
    #[test]
    fn one_worker_that_is_blocked_is_found_among_others() {
        let (runtime, mut tasks) = (runtime(3), JoinSet::new());
        let mut health = health(&runtime);
        let release = block(&mut tasks, &runtime);
        assert_eq!(health.check(PATIENCE), Ok(()), "it might just have begun");
        assert!(matches!(health.check(PATIENCE), Err(Stuck::Worker(_))));
        assert!(matches!(health.check(PATIENCE), Err(Stuck::Worker(_))));
        drop(release);
        runtime.block_on(tasks.join_next()).unwrap().unwrap();
        // Between its end and the worker's rest.
        assert!((0..100).any(|_| health.check(PATIENCE).is_ok()));
    }

    /// There is no other that could answer meanwhile.
    #[test]
    fn the_only_worker_may_have_no_rest_at_all() {
        let (runtime, mut tasks) = (runtime(1), JoinSet::new());
        let mut health = health(&runtime);
        let restless = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        tasks.spawn_on(restless, runtime.handle());
        assert_eq!([(); 20].map(|()| health.check(PATIENCE)), [const { Ok(()) }; 20]);
    }

    #[test]
    fn a_listener_that_nobody_accepts_from_is_named_and_forgotten_once_it_is_closed() {
        let runtime = runtime(1);
        let mut health = health(&runtime);
        let listen = "inet:127.0.0.1:0".parse().unwrap();
        let mut listener = runtime.block_on(Listener::bind(&listen, &Server::default(), None)).unwrap();
        health.context.pulses.add(listener.pulse());
        assert_eq!(health.check(SHORT), Err(Stuck::Listener(listener.to_string())));
        let mut tasks = JoinSet::new();
        tasks.spawn_on(async move { while listener.accept().await.is_ok() {} }, runtime.handle());
        assert_eq!(health.check(PATIENCE), Ok(()));
        runtime.block_on(tasks.shutdown());
        assert_eq!(health.check(PATIENCE), Ok(()));
    }

    /// Nobody's session leaves no trace in what MTAs' are counted by.
    #[test]
    fn a_check_counts_nothing() {
        let runtime = runtime(1);
        let mut health = health(&runtime);
        let lines = |health: &Health| {
            let text = health.context.metrics.encode().unwrap();
            text.lines().filter(|line| line.starts_with("postward_")).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = lines(&health);
        assert_eq!(health.check(PATIENCE), Ok(()));
        assert_eq!(lines(&health), before);
    }

    /// Sessions end at once then, but a check is none to be sent away.
    #[test]
    fn a_daemon_that_is_stopping_is_well() {
        let runtime = runtime(1);
        let mut health = health(&runtime);
        runtime.block_on(async { health.context.stop() });
        assert_eq!(health.check(PATIENCE), Ok(()));
        // As long as transactions may take to end: the grace of those that have none is over.
        let past = runtime.block_on(async { tokio::time::Instant::now() - Duration::from_secs(1) });
        health.context.stopping.send_replace(Some(past));
        assert_eq!([(); 20].map(|()| health.check(PATIENCE)), [const { Ok(()) }; 20]);
    }
}
