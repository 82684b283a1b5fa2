//! Takes connections of MTAs, each in a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ACCEPT_REST;
use super::connection;
use super::context::Context;
use super::listener::Listener;
use super::report;
use super::socket::Socket;
use crate::lookup::Ledger;
use crate::session::Session;

/// How long open transactions may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);

/// Takes connections of one listener until the server stops or `closed` has no sender any more, then waits for them: when the
/// server stops, not for ever.
pub(super) async fn accept(mut listener: Listener, mut closed: watch::Receiver<()>, context: Arc<Context>) {
    let mut sessions = JoinSet::new();
    let mut stopping = context.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(Option::is_some) => break,
            _ = closed.changed() => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if context.active.load(Ordering::Relaxed) >= context.in_force().config.server.max_sessions => {
                context.metrics.connection_shed();
                if context.warnings.shed.admits() {
                    tracing::warn!(
                        "too many connections: closing new ones, for which the MTA takes its default action; raise max_sessions"
                    );
                }
            }
            Ok((socket, peer)) => {
                context.active.fetch_add(1, Ordering::Relaxed);
                sessions.spawn(serve(socket, peer, Arc::clone(&context)));
            }
            Err(error) => {
                if context.warnings.accept.admits() {
                    tracing::warn!(%error, listener = %listener, "cannot accept a connection; trying again");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    // A listener that is no more listened on has all the time until the server stops.
    tokio::select! {
        () = finish(&mut sessions) => return,
        _ = stopping.wait_for(Option::is_some) => {}
    }
    if tokio::time::timeout(DRAIN, finish(&mut sessions)).await.is_err() {
        tracing::warn!(sessions = sessions.len(), "closing sessions whose transactions did not end in time");
        sessions.shutdown().await;
    }
}

async fn finish(sessions: &mut JoinSet<()>) {
    while let Some(ended) = sessions.join_next().await {
        report(ended);
    }
}

async fn serve(socket: Socket, peer: String, context: Arc<Context>) {
    let _active = Active::new(&context);
    let in_force = context.in_force();
    let number = context.next_session.fetch_add(1, Ordering::Relaxed);
    let session = Session::new(Arc::clone(&in_force.policy), number, socket.transport());
    let ledger = Ledger::new(Arc::clone(&in_force.lookups));
    connection::drive(socket, &peer, session, ledger, &in_force, &context).await;
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
