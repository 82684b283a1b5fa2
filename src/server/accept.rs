//! Takes connections of MTAs, each in a task of its own. What there is no room for gets an answer, and quickly.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ACCEPT_REST;
use super::connection;
use super::context::Context;
use super::listener::Listener;
use super::listener::Peer;
use super::report;
use super::socket::Socket;
use crate::config::OnError;
use crate::lookup::Ledger;
use crate::metrics::Shed;
use crate::metrics::Traffic;
use crate::session::Session;

/// How many connections are told at once that there is no room; further ones are closed.
const MAX_SHEDDING: usize = 256;

/// How long that may take: an MTA negotiates and tells of the client as soon as it is connected.
const SHEDDING_TIME: Duration = Duration::from_secs(5);

/// Takes connections of one listener until the server stops or `max_sessions` has no sender any more, then waits for them:
/// when the server stops, not for ever.
pub(super) async fn accept(
    mut listener: Listener,
    traffic: Arc<Traffic>,
    mut max_sessions: watch::Receiver<usize>,
    context: Arc<Context>,
) {
    let mut sessions = JoinSet::new();
    let mut stopping = context.stopping.subscribe();
    let mut stops = pin!(stopping.wait_for(Option::is_some));
    let bound = max_sessions.clone();
    let mut closes = pin!(async { while max_sessions.changed().await.is_ok() {} });
    let here = Arc::new(AtomicUsize::new(0));
    let mut spare = Spare::new();
    let is_stopping = loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut stops => break true,
            () = &mut closes => break false,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let most = *bound.borrow();
        match accepted {
            Ok((socket, peer)) => match Active::new(&context, &traffic, &here, most) {
                Some(active) => _ = sessions.spawn(serve(socket, peer, active)),
                None => {
                    warn_of_shedding(&context);
                    if let Some(shedding) = Shedding::new(&context) {
                        sessions.spawn(send_away(socket, peer, Arc::clone(&traffic), shedding));
                    } else {
                        context.metrics.connection_shed(Shed::Closed);
                    }
                }
            },
            Err(error) => {
                context.metrics.not_accepted();
                if context.warnings.accept.admits() {
                    tracing::warn!(%error, listener = %listener, "cannot accept a connection; trying again");
                }
                if !(is_out_of_files(&error) && spare.close_next(&mut listener, &context).await) {
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    };
    drop(listener);
    if !is_stopping {
        // A listener that is no more listened on has all the time until the server stops.
        tokio::select! {
            () = finish(&mut sessions) => return,
            _ = &mut stops => {}
        }
    }
    let drain = context.in_force().config.server.drain;
    if timeout(drain, finish(&mut sessions)).await.is_err() {
        tracing::warn!(sessions = sessions.len(), "closing sessions whose transactions did not end in time");
        sessions.shutdown().await;
    }
}

fn warn_of_shedding(context: &Context) {
    if !context.warnings.shed.admits() {
        return;
    }
    match context.in_force().on_overload() {
        OnError::Accept => {
            tracing::warn!("too many connections: new ones pass unseen (server.on_overload); raise max_sessions");
        }
        OnError::Defer => {
            tracing::warn!(
                "too many connections: new ones are told 421 4.3.2 (server.on_overload); raise max_sessions"
            );
        }
    }
}

async fn finish(sessions: &mut JoinSet<()>) {
    while let Some(ended) = sessions.join_next().await {
        report(ended);
    }
}

/// No async function: that would keep room for its arguments beside what they become, as long as the connection lives.
fn serve(socket: Socket, peer: Peer, active: Active) -> impl Future<Output = ()> + Send {
    let in_force = active.context.in_force();
    async move {
        let session = Session::new(Arc::clone(&in_force.policy), active.context.next_session(), socket.transport());
        let ledger = Ledger::new(Arc::clone(&in_force.lookups));
        connection::drive(socket, &peer, session, ledger, &in_force, &active.context, Some(&active.traffic)).await;
    }
}

/// There is no room: the client is told so, or the session passes unseen.
async fn send_away(socket: Socket, peer: Peer, traffic: Arc<Traffic>, shedding: Shedding) {
    let context = &shedding.context;
    let in_force = context.in_force();
    let (policy, on_overload) = (Arc::clone(&in_force.policy), in_force.on_overload());
    let session = Session::overloaded(policy, context.next_session(), socket.transport(), on_overload);
    let ledger = Ledger::new(Arc::clone(&in_force.lookups));
    let talk = connection::drive(socket, &peer, session, ledger, &in_force, context, Some(&traffic));
    let end = match (timeout(SHEDDING_TIME, talk).await, on_overload) {
        (Err(_), _) => Shed::Closed,
        (Ok(()), OnError::Accept) => Shed::Accepted,
        (Ok(()), OnError::Defer) => Shed::Deferred,
    };
    context.metrics.connection_shed(end);
}

/// A connection that is served: counted as long as it lives, however it ends.
struct Active {
    context: Arc<Context>,
    traffic: Arc<Traffic>,
    /// How many its listener has.
    here: Arc<AtomicUsize>,
}

impl Active {
    /// Unless there are too many, of this listener or of all.
    fn new(context: &Arc<Context>, traffic: &Arc<Traffic>, here: &Arc<AtomicUsize>, most_here: usize) -> Option<Self> {
        if !enter(here, most_here) {
            return None;
        }
        if !enter(&context.active, context.in_force().config.server.max_sessions) {
            here.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        traffic.connection_opened();
        Some(Self { context: Arc::clone(context), traffic: Arc::clone(traffic), here: Arc::clone(here) })
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.traffic.connection_closed();
        self.context.active.fetch_sub(1, Ordering::Relaxed);
        self.here.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is sent away.
struct Shedding {
    context: Arc<Context>,
}

impl Shedding {
    fn new(context: &Arc<Context>) -> Option<Self> {
        enter(&context.shedding, MAX_SHEDDING).then(|| Self { context: Arc::clone(context) })
    }
}

impl Drop for Shedding {
    fn drop(&mut self) {
        self.context.shedding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One more, if that is not too many.
fn enter(count: &AtomicUsize, most: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < most).then_some(count + 1)).is_ok()
}

/// An open file that can be given up when there are no more to be had: a connection that nobody takes would keep its MTA
/// waiting, while one that is closed lets it take its default action.
struct Spare {
    file: Option<File>,
}

impl Spare {
    fn new() -> Self {
        Self { file: File::open("/dev/null").ok() }
    }

    /// Takes the next connection, and closes it. False if not even that can be done.
    async fn close_next(&mut self, listener: &mut Listener, context: &Context) -> bool {
        if self.file.take().is_none() {
            *self = Self::new();
            return false;
        }
        let taken = timeout(Duration::ZERO, listener.accept()).await;
        let is_closed = matches!(taken, Ok(Ok(_)));
        drop(taken);
        if is_closed {
            context.metrics.connection_shed(Shed::Closed);
        }
        *self = Self::new();
        is_closed
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE].map(|errno| Some(errno as i32)).contains(&error.raw_os_error())
}
