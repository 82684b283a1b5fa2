//! Empties the queue of one notify, one event at a time, and tells how that went.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;

use super::command;
use super::event::Event;
use super::post::Post;
use crate::config::Notify;
use crate::config::Via;
use crate::metrics::Notified;
use crate::server::context::Context;

/// How long to rest before a web server is tried again: twice, then the notification has failed.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Tells one of those whom the configuration names.
pub(in crate::server) struct Worker {
    name: String,
    via: Teller,
    timeout: Duration,
    queue: mpsc::Receiver<Event>,
}

enum Teller {
    Command { program: PathBuf, arguments: Vec<String> },
    Post(Box<Post>),
}

/// Why nobody was told.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    /// What the program or the server said.
    said: Option<String>,
    /// Whether trying again may help.
    may_pass: bool,
}

impl Failure {
    pub(super) const fn lasting(message: String) -> Self {
        Self { message, said: None, may_pass: false }
    }

    pub(super) const fn passing(message: String) -> Self {
        Self { message, said: None, may_pass: true }
    }

    pub(super) fn saying(self, said: &str) -> Self {
        Self { said: (!said.is_empty()).then(|| said.to_owned()), ..self }
    }
}

impl Worker {
    pub(super) fn new(notify: &Notify, queue: mpsc::Receiver<Event>) -> Self {
        let via = match &notify.via {
            Via::Command { program, arguments } => {
                Teller::Command { program: program.value.clone(), arguments: arguments.clone() }
            }
            Via::Post { url, authorization_file } => {
                let authorization_file = authorization_file.as_ref().map(|path| path.value.as_path());
                Teller::Post(Box::new(Post::new(&url.value, authorization_file)))
            }
        };
        Self { name: notify.name.value.clone(), via, timeout: notify.timeout, queue }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Tells what comes, until nothing more can.
    pub(in crate::server) async fn run(mut self, context: Arc<Context>) {
        while let Some(event) = self.queue.recv().await {
            let told = AssertUnwindSafe(self.tell(&event)).catch_unwind().await;
            let told = told.unwrap_or_else(|_| {
                context.metrics.internal_error();
                Err(Failure::lasting("a bug was met".to_owned()))
            });
            match told {
                Ok(()) => {
                    context.metrics.notified(&self.name, Notified::Sent);
                    tracing::debug!(notify = self.name, "told");
                }
                Err(Failure { message, said, .. }) => {
                    context.metrics.notified(&self.name, Notified::Failed);
                    if context.warnings.unsent.admits() {
                        tracing::warn!(
                            notify = self.name,
                            error = message,
                            said,
                            "nobody was told that a limit was passed"
                        );
                    }
                }
            }
        }
    }

    async fn tell(&self, event: &Event) -> Result<(), Failure> {
        let mut rests = RESTS.iter();
        loop {
            let failure = match self.tell_once(event).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let Some(rest) = rests.next().filter(|_| failure.may_pass) else {
                return Err(failure);
            };
            tracing::debug!(notify = self.name, error = failure.message, "trying again");
            tokio::time::sleep(*rest).await;
        }
    }

    /// A program that fails may have told somebody, so it is not run again.
    async fn tell_once(&self, event: &Event) -> Result<(), Failure> {
        match &self.via {
            Teller::Command { program, arguments } => command::run(program, arguments, event, self.timeout).await,
            Teller::Post(post) => post.send(event, self.timeout).await,
        }
    }
}
