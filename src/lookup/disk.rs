//! Free space of file systems, asked at most once a second.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

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

/// The last answer for each path.
pub(super) struct DiskSpace {
    known: Mutex<Vec<Option<(Duration, Answer)>>>,
}

impl DiskSpace {
    pub(super) fn new(paths: usize) -> Self {
        Self { known: Mutex::new(vec![None; paths]) }
    }

    /// How much an unprivileged user can still write there. The question may hang (a dead network file system), so it is
    /// asked on a thread of its own; whoever waits has a deadline.
    pub(super) async fn free(&self, number: usize, path: &Path, now: Duration) -> Answer {
        if let Some(answer) = self.fresh(number, now) {
            return answer;
        }
        let owned = path.to_owned();
        let asked = tokio::task::spawn_blocking(move || statvfs(&owned)).await;
        let answer = match asked {
            Ok(Ok(stat)) => Answer::Bytes(stat.blocks_available().saturating_mul(stat.fragment_size())),
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot ask for free disk space");
                Answer::Failed
            }
            Err(_) => Answer::Failed,
        };
        if let Some(slot) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
            *slot = Some((now, answer));
        }
        answer
    }

    fn fresh(&self, number: usize, now: Duration) -> Option<Answer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = (*known.get(number)?)?;
        (now.saturating_sub(at) < FRESH).then_some(answer)
    }
}
