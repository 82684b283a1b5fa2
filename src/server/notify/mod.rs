//! Tells people, or other programs, that somebody is over a limit: once in an episode, and never at the cost of a reply.
//!
//! A decision whose rules name a `[notify.NAME]` is turned into an event and put into that one's queue, if it begins an
//! episode (`episodes`). One worker for each empties it (`worker`): runs a program (`command`) or sends JSON (`post`). When
//! the queue is full the event is dropped and counted, and its episode is not begun, so that the next excess is told.
//!
//! Made from the configuration as a whole: a reload puts a new one in the place of another, whose workers then end by
//! themselves, and whose episodes go on.

mod command;
mod episodes;
mod event;
mod post;
pub(super) mod secret;
mod worker;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::context::Context;
use crate::config::Diagnostic;
use crate::config::Notify;
use crate::config::Via;
use crate::metrics::Notified;
use crate::session::Decision;
use crate::session::Session;
use episodes::Episodes;
use episodes::Who;
use event::Event;
use worker::Worker;

/// How many events wait for one worker; a slow receiver takes a few in a minute.
const QUEUE: usize = 100;

/// Everybody who can be told.
pub(super) struct Notifier {
    channels: Vec<Channel>,
    episodes: Arc<Mutex<Episodes>>,
    /// Those that nobody runs yet.
    workers: Mutex<Vec<Worker>>,
}

/// The way to one of them.
struct Channel {
    name: String,
    cool_down: Duration,
    /// `None` once nothing more is taken.
    queue: Mutex<Option<mpsc::Sender<Event>>>,
}

impl Notifier {
    /// Whom the configuration names. Reads the certificates of this host if somebody needs them.
    pub(super) fn new(notify: &[Notify]) -> Self {
        Self::with(notify, Arc::default())
    }

    /// Those whom another configuration names, which goes on with the episodes.
    pub(super) fn succeed(&self, notify: &[Notify]) -> Self {
        Self::with(notify, Arc::clone(&self.episodes))
    }

    fn with(notify: &[Notify], episodes: Arc<Mutex<Episodes>>) -> Self {
        let (mut channels, mut workers) = (Vec::new(), Vec::new());
        for notify in notify {
            let name = notify.name.value.clone();
            let (sender, receiver) = mpsc::channel(QUEUE);
            workers.push(Worker::new(notify, receiver));
            let queue = Mutex::new(Some(sender));
            channels.push(Channel { name, cool_down: notify.cool_down, queue });
        }
        Self { channels, episodes, workers: Mutex::new(workers) }
    }

    /// The workers, which the caller runs. There are some only the first time.
    pub(super) fn workers(&self) -> Vec<Worker> {
        std::mem::take(&mut *lock(&self.workers))
    }

    /// Takes nothing more: the workers end once their queues are empty.
    pub(super) fn close(&self) {
        self.channels.iter().for_each(|channel| _ = lock(&channel.queue).take());
    }

    /// Puts what is to be told of a decision into the queues.
    pub(super) fn decided(&self, session: &Session, decision: &Decision, context: &Context) {
        for matched in &decision.matches {
            let (Some(excess), Some(rule)) = (&matched.excess, session.policy().rules().get(matched.rule)) else {
                continue;
            };
            for name in &rule.notify {
                let Some(channel) = self.channels.iter().find(|channel| channel.name == *name) else {
                    continue;
                };
                let begins = |may_begin| {
                    let who = Who { told: name, rule: &rule.name, key: &excess.key, step: matched.step };
                    lock(&self.episodes).excess(Instant::now(), &who, channel.cool_down, may_begin)
                };
                let event = || Event::new(name, session, decision, matched, excess);
                channel.tell(begins, event, &rule.name, context);
            }
        }
    }
}

impl Channel {
    /// Queues the event if it begins an episode, which it does only if there is room for it.
    fn tell(&self, begins: impl FnOnce(bool) -> bool, event: impl FnOnce() -> Event, rule: &str, context: &Context) {
        let queue = lock(&self.queue);
        match queue.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => {
                if begins(true) {
                    place.send(event());
                }
            }
            Some(Err(TrySendError::Full(()))) => {
                if begins(false) {
                    context.metrics.notified(&self.name, Notified::Dropped);
                    if context.warnings.untold.admits() {
                        tracing::warn!(
                            notify = self.name,
                            rule,
                            "too many notifications at once: dropping some; whoever is told is slow, or cannot be told"
                        );
                    }
                }
            }
            Some(Err(TrySendError::Closed(()))) | None => {}
        }
    }
}

/// What of a notify is not there on this host. Not whether the daemon's user may use it: somebody else may be asking.
pub(super) fn unusable(notify: &Notify) -> Option<Diagnostic> {
    let (path, must_run) = match &notify.via {
        Via::Command { program, .. } => (program, true),
        Via::Post { authorization_file, .. } => (authorization_file.as_ref()?, false),
    };
    let error = secret::locate(&path.value).and_then(|path| usable(&path, must_run)).err()?;
    let (key, what) = if must_run { ("command", "run") } else { ("authorization_file", "read") };
    let name = &notify.name.value;
    let message = format!("notify.{name}.{key}: cannot {what} {} here: {error}", path.value.display());
    Some(Diagnostic::warning(path.place.clone(), message))
}

/// A secret that is none.
pub(super) fn exposed(notify: &Notify) -> Option<Diagnostic> {
    let Via::Post { authorization_file: Some(path), .. } = &notify.via else {
        return None;
    };
    let (name, shown) = (&notify.name.value, path.value.display());
    let message = format!("notify.{name}.authorization_file: every user may read {shown}; chmod 0640, or 0600");
    secret::is_exposed(&path.value).then(|| Diagnostic::warning(path.place.clone(), message))
}

fn usable(path: &Path, must_run: bool) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !must_run && !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if must_run && found.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::other("it is not executable; chmod +x"));
    }
    Ok(())
}

/// What is locked here is whole after each line, so that a panic elsewhere leaves nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::config::Config;
    use crate::config::Source;
    use crate::lookup::Ledger;
    use crate::policy::Policy;
    use crate::server::connection;
    use crate::server::socket::Socket;
    use crate::session::Transport;

    const CONFIG: &str = r#"
        [lists.none.limits]
        "b.example" = 0
        [[rule]]
        name = "r"
        limit = { key = "sender", messages = "1/hour", overrides = "@none" }
        notify = ["one", "other"]
        [notify.one]
        command = "/bin/true"
        [notify.other]
        command = "/bin/true"
        cool_down = "2h"
    "#;

    fn context(text: &str) -> Arc<Context> {
        let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text: text.to_owned() }]);
        let policy = Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}"));
        Arc::new(Context::new(&config, policy, Arc::default()).unwrap())
    }

    /// Says MAIL with each of these senders in one session.
    async fn send(context: &Arc<Context>, senders: impl IntoIterator<Item = String>) {
        let (mut mta, ours) = UnixStream::pair().unwrap();
        let session = Session::new(Arc::clone(&context.in_force().policy), 1, Transport::Unix);
        let mut said =
            [b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff".as_slice(), b"\0\0\0\x11Cmx\x004\0\x19192.0.2.1\0"]
                .concat();
        for sender in senders {
            let length = u32::try_from(sender.len() + 4).unwrap();
            said.extend([&length.to_be_bytes()[..], b"M<", sender.as_bytes(), b">\0"].concat());
        }
        said.extend(b"\0\0\0\x01Q");
        let ledger = Ledger::new(Arc::clone(&context.in_force().lookups));
        let writing = async {
            mta.write_all(&said).await.unwrap();
            // Read, so that the answers fill no buffer.
            _ = tokio::io::copy(&mut mta, &mut tokio::io::sink()).await;
        };
        let in_force = context.in_force();
        let talk = connection::drive(Socket::Unix(ours), &"test", session, ledger, &in_force, context, None);
        tokio::join!(talk, writing);
    }

    async fn send_one(context: &Arc<Context>, sender: &str) {
        send(context, [sender.to_owned()]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_told_once_in_an_episode_by_its_own_cool_down() {
        let context = context(CONFIG);
        let workers = context.notifier().workers();
        let waiting = || workers.iter().map(Worker::waiting).collect::<Vec<_>>();
        send_one(&context, "a@elsewhere.example").await;
        assert_eq!(waiting(), [0, 0]);
        send(&context, ["a@b.example", "A@B.example", "c@b.example"].map(str::to_owned)).await;
        assert_eq!(waiting(), [2, 2]);
        tokio::time::advance(Duration::from_secs(3599)).await;
        send_one(&context, "a@b.example").await;
        assert_eq!(waiting(), [2, 2]);
        // For a the cool-down begins anew, for c it is over.
        tokio::time::advance(Duration::from_secs(3599)).await;
        send(&context, ["a@b.example", "c@b.example"].map(str::to_owned)).await;
        assert_eq!(waiting(), [3, 2]);
        tokio::time::advance(Duration::from_secs(7200)).await;
        send_one(&context, "a@b.example").await;
        assert_eq!(waiting(), [4, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_dropped_counted_and_told_later() {
        let context = context(CONFIG);
        let mut workers = context.notifier().workers();
        send(&context, (0..QUEUE + 7).map(|number| format!("{number}@b.example"))).await;
        let count = |result: &str| {
            let line = format!("postward_notifications_total{{notify=\"one\",result=\"{result}\"}} ");
            let text = context.metrics.encode().unwrap();
            text.lines().find_map(|text| text.strip_prefix(&line).map(str::to_owned)).unwrap()
        };
        assert_eq!((workers[0].waiting(), count("dropped").as_str()), (QUEUE, "7"));
        let other = workers.remove(1);
        let one = workers.remove(0);
        drop(other);
        let mut running = tokio::task::JoinSet::new();
        tokio::time::resume();
        running.spawn(one.run(Arc::clone(&context)));
        while count("sent") != QUEUE.to_string() {
            tokio::task::yield_now().await;
        }
        let again = format!("{}@b.example", QUEUE + 6);
        send(&context, ["0@b.example".to_owned(), again]).await;
        context.notifier().close();
        while running.join_next().await.is_some() {}
        assert_eq!((count("sent"), count("dropped").as_str()), ((QUEUE + 1).to_string(), "7"));
        send_one(&context, "late@b.example").await;
        assert_eq!(count("dropped"), "7");
    }
}
