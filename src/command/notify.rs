//! Tells the service manager how it goes (`sd_notify`), where one listens.
//!
//! From a thread of its own: a manager that does not read its socket must not keep signals waiting.

use std::io;
use std::sync::mpsc;
use std::sync::mpsc::SyncSender;
use std::thread;

use sd_notify::NotifyState;

/// Tells, in the order in which it is called.
#[derive(Clone, Debug)]
pub(super) struct Notifier {
    messages: SyncSender<Vec<NotifyState<'static>>>,
}

impl Notifier {
    pub(super) fn start() -> io::Result<Self> {
        let (messages, received) = mpsc::sync_channel::<Vec<NotifyState<'static>>>(WAITING);
        thread::Builder::new().name("notify".to_owned()).spawn(move || {
            for states in received {
                if let Err(error) = sd_notify::notify(&states) {
                    tracing::warn!(%error, "cannot notify the service manager");
                }
            }
        })?;
        Ok(Self { messages })
    }

    /// Whoever does not read has had enough to read.
    pub(super) fn notify(&self, states: &[NotifyState<'static>]) {
        _ = self.messages.try_send(states.to_vec());
    }

    /// A reload begins; [`NotifyState::Ready`] ends it.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot tell the service manager of a reload"),
        }
    }
}

/// Messages that wait to be read.
const WAITING: usize = 64;
