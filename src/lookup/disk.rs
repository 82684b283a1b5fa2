//! Free space of file systems, asked at most once a second.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::sync::watch;

use crate::facts::Answer;
use crate::policy::Policy;

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(1);

/// The first path of the policy whose free space cannot be told: every message that such a rule is about would wait.
#[must_use]
pub fn unusable_path(policy: &Policy) -> Option<(PathBuf, io::Error)> {
    let asked = policy.paths().iter().map(|path| (path, statvfs(path)));
    asked.into_iter().find_map(|(path, answer)| Some((path.clone(), answer.err()?.into())))
}

/// The last question for each path. It may hang (a dead network file system), so it is asked on a thread of its own, and
/// only one at a time: whoever comes meanwhile waits for the same answer.
pub(super) struct DiskSpace {
    asked: Mutex<Vec<Option<Asked>>>,
    ask: Arc<Ask>,
}

type Ask = dyn Fn(&Path) -> Answer + Send + Sync;

/// A question, and its answer once it is there.
#[derive(Clone)]
struct Asked {
    at: Duration,
    answer: watch::Receiver<Option<Answer>>,
}

impl DiskSpace {
    pub(super) fn new(paths: usize) -> Self {
        let failing = Mutex::default();
        Self::with(paths, Arc::new(move |path: &Path| free_space(path, &failing)))
    }

    fn with(paths: usize, ask: Arc<Ask>) -> Self {
        Self { asked: Mutex::new(vec![None; paths]), ask }
    }

    /// How much an unprivileged user can still write there. Whoever waits has a deadline.
    pub(super) async fn free(&self, number: usize, path: &Path, now: Duration) -> Answer {
        let Some(mut answer) = self.answer(number, path, now) else {
            return Answer::Failed;
        };
        let answer = answer.wait_for(Option::is_some).await;
        answer.ok().and_then(|answer| *answer).unwrap_or(Answer::Failed)
    }

    /// The same, if it is known already.
    pub(super) fn fresh(&self, number: usize, now: Duration) -> Option<Answer> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = asked.get(number)?.as_ref().filter(|asked| asked.serves(now))?;
        *asked.answer.borrow()
    }

    /// The last answer, however old it is. Asks nothing.
    pub(super) fn last(&self, number: usize) -> Option<Answer> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(number)?.as_ref().and_then(|asked| *asked.answer.borrow())
    }

    /// The answer that is there or on its way; asks if there is none.
    fn answer(&self, number: usize, path: &Path, now: Duration) -> Option<watch::Receiver<Option<Answer>>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = asked.get_mut(number)?;
        if let Some(asked) = slot.as_ref().filter(|asked| asked.serves(now)) {
            return Some(asked.answer.clone());
        }
        let (sender, answer) = watch::channel(None);
        let (ask, path) = (Arc::clone(&self.ask), path.to_owned());
        tokio::task::spawn_blocking(move || _ = sender.send(Some(ask(&path))));
        *slot = Some(Asked { at: now, answer: answer.clone() });
        Some(answer)
    }
}

impl Asked {
    /// Whether its answer is good at this time, or still to come.
    fn serves(&self, now: Duration) -> bool {
        match *self.answer.borrow() {
            Some(_) => now.saturating_sub(self.at) < FRESH,
            // Whoever should answer may have panicked.
            None => self.answer.has_changed().is_ok(),
        }
    }
}

impl fmt::Debug for DiskSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskSpace").finish_non_exhaustive()
    }
}

/// That it cannot be asked is told once, and that it can again.
fn free_space(path: &Path, failing: &Mutex<BTreeSet<PathBuf>>) -> Answer {
    let answer = statvfs(path);
    let mut failing = failing.lock().unwrap_or_else(PoisonError::into_inner);
    match answer {
        Ok(stat) => {
            if failing.remove(path) {
                tracing::info!(path = %path.display(), "free disk space can be asked for again");
            }
            Answer::Bytes(stat.blocks_available().saturating_mul(stat.fragment_size()))
        }
        Err(error) => {
            if failing.insert(path.to_owned()) {
                tracing::warn!(path = %path.display(), %error, "cannot ask for free disk space; on_error decides meanwhile");
            }
            Answer::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;

    use tracing::Event;
    use tracing::Level;
    use tracing::Subscriber;
    use tracing_subscriber::layer::Context;
    use tracing_subscriber::layer::Layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The levels of what is logged.
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[test]
    fn a_path_that_cannot_be_asked_is_told_once_and_when_it_can_again() {
        let path = std::env::temp_dir().join(format!("postward-disk-{}", std::process::id()));
        let failing = Mutex::default();
        let levels = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Levels(Arc::clone(&levels)));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                assert_eq!(free_space(&path, &failing), Answer::Failed);
            }
            std::fs::create_dir(&path).unwrap();
            for _ in 0..3 {
                assert!(matches!(free_space(&path, &failing), Answer::Bytes(_)));
            }
            std::fs::remove_dir(&path).unwrap();
            assert_eq!(free_space(&path, &failing), Answer::Failed);
        });
        assert_eq!(*levels.lock().unwrap(), [Level::WARN, Level::INFO, Level::WARN]);
    }

    const NOW: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_question_that_hangs_is_asked_once() {
        let questions = Arc::new(AtomicUsize::new(0));
        let (answers, answer) = mpsc::channel();
        let (counted, answer) = (Arc::clone(&questions), Mutex::new(answer));
        let ask = move |_: &Path| {
            counted.fetch_add(1, Ordering::Relaxed);
            answer.lock().unwrap().recv().unwrap()
        };
        let disk = DiskSpace::with(1, Arc::new(ask));
        let free = |now| disk.free(0, Path::new("/"), now);
        // Each gives up at its deadline, however long ago the question was put.
        for seconds in 0..50 {
            let waiting = tokio::time::timeout(Duration::from_millis(1), free(NOW + Duration::from_secs(seconds)));
            assert!(waiting.await.is_err());
        }
        answers.send(Answer::Bytes(1)).unwrap();
        assert_eq!(free(NOW).await, Answer::Bytes(1));
        assert_eq!(free(NOW).await, Answer::Bytes(1));
        assert_eq!(questions.load(Ordering::Relaxed), 1);
        answers.send(Answer::Bytes(2)).unwrap();
        assert_eq!(free(NOW + FRESH).await, Answer::Bytes(2));
        assert_eq!(questions.load(Ordering::Relaxed), 2);
        // The thread that asks panics: its question is over.
        drop(answers);
        assert_eq!(free(NOW + 2 * FRESH).await, Answer::Failed);
        assert_eq!(free(NOW + 2 * FRESH).await, Answer::Failed);
        assert_eq!(questions.load(Ordering::Relaxed), 4);
    }
}
