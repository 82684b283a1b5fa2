//! Tells the service manager how it goes (`sd_notify`), where one listens.
//!
//! From a thread of its own: a manager that does not read its socket must not keep signals waiting. While the daemon starts
//! or stops, it asks for more time as long as counters are read or written; in between, the watchdog tells that all goes on
//! ([`start_watchdog`]), if the manager wants to know.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use postward::server::Health;
use sd_notify::NotifyState;

/// Tells, in the order in which it is called.
#[derive(Clone, Debug)]
pub(super) struct Notifier {
    messages: SyncSender<Vec<NotifyState<'static>>>,
}

impl Notifier {
    /// Before there is anything to tell: `progress` is asked for while the daemon starts, and while it stops.
    pub(super) fn start(progress: Arc<AtomicU64>) -> io::Result<Self> {
        Self::start_with(progress, EXTEND_EVERY, |states| {
            if let Err(error) = sd_notify::notify(states) {
                tracing::warn!(%error, "cannot notify the service manager");
            }
        })
    }

    fn start_with(
        progress: Arc<AtomicU64>,
        every: Duration,
        tell: impl Fn(&[NotifyState<'static>]) + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, received) = mpsc::sync_channel(WAITING);
        let work = move || tell_all(&received, &progress, every, tell);
        thread::Builder::new().name("notify".to_owned()).spawn(work)?;
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

    /// The daemon stops from now on, which may take as long as open transactions have: not for `TimeoutStopSec=` to guess.
    pub(super) fn stopping(&self, drain: Duration) {
        self.notify(&[NotifyState::Stopping, extend(drain + MORE_TIME)]);
    }
}

fn extend(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

/// Tells what is to be told until nobody can tell more, and meanwhile, where there is a time-out, that it goes on.
fn tell_all(
    received: &Receiver<Vec<NotifyState<'static>>>,
    progress: &AtomicU64,
    every: Duration,
    tell: impl Fn(&[NotifyState<'static>]),
) {
    let (mut has_timeout, mut seen) = (true, 0);
    loop {
        match received.recv_timeout(every) {
            Ok(states) => {
                match states.first() {
                    Some(NotifyState::Ready) => has_timeout = false,
                    Some(NotifyState::Stopping) => has_timeout = true,
                    _ => {}
                }
                tell(&states);
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = progress.load(Ordering::Relaxed);
                if std::mem::replace(&mut seen, now) != now && has_timeout {
                    tell(&[extend(MORE_TIME)]);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Tells the service manager, if it wants to know (`WatchdogSec=`), again and again that the daemon lives, and only then;
/// until the process ends.
pub(super) fn start_watchdog(health: Health, notifier: Notifier) -> io::Result<()> {
    if let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) {
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || feed(health, &notifier, limit))?;
    }
    Ok(())
}

/// Asks four times within the limit, so that it takes more than one bad answer, or one that comes too late because the
/// machine was busy or asleep, until the service manager ends the daemon.
fn feed(mut health: Health, notifier: &Notifier, limit: Duration) {
    let mut was_well = true;
    loop {
        let answer = health.check(limit / 4);
        match &answer {
            Ok(()) if was_well => {}
            Ok(()) => tracing::info!("watchdog: all goes on again"),
            Err(stuck) => {
                let seconds = limit.as_secs_f32();
                tracing::error!(
                    "watchdog: {stuck}; if that lasts for {seconds} s, the service manager ends the daemon"
                );
            }
        }
        was_well = answer.is_ok();
        if was_well {
            notifier.notify(&[NotifyState::Watchdog]);
        }
        thread::sleep(limit / 4);
    }
}

/// Messages that wait to be read.
const WAITING: usize = 64;
/// Far more often than any time-out ends.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// For as long as a disk may take for one piece of the work.
const MORE_TIME: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: &str = "EXTEND_TIMEOUT_USEC=120000000";

    /// A notifier that is impatient, and what it tells.
    fn notifier(progress: &Arc<AtomicU64>) -> (Notifier, Receiver<String>) {
        let (told, tells) = mpsc::channel();
        let tell = move |states: &[NotifyState<'static>]| {
            _ = told.send(states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        };
        (Notifier::start_with(Arc::clone(progress), Duration::from_millis(1), tell).unwrap(), tells)
    }

    #[test]
    fn time_is_asked_for_only_while_something_goes_on_and_has_a_time_out() {
        let progress = Arc::new(AtomicU64::new(0));
        let (notifier, tells) = notifier(&progress);
        let quiet = || tells.recv_timeout(Duration::from_millis(30)).is_err();
        let next = || tells.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(quiet(), "nothing has gone on yet");
        progress.fetch_add(1, Ordering::Relaxed);
        assert_eq!(next(), MORE);
        assert!(quiet(), "nothing has gone on since");
        notifier.notify(&[NotifyState::Ready]);
        assert_eq!(next(), "READY=1");
        progress.fetch_add(1, Ordering::Relaxed);
        assert!(quiet(), "a daemon that runs has no time-out");
        notifier.stopping(Duration::from_secs(30));
        assert_eq!(next(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=150000000");
        progress.fetch_add(1, Ordering::Relaxed);
        assert_eq!(next(), MORE);
    }
}
