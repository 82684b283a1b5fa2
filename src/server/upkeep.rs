//! What is done beside the mail: counters are swept, and saved where the configuration says so; warnings are summed up.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::unistd::User;
use nix::unistd::geteuid;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

use super::context::Context;
use super::listener::BindError;
use crate::config::State;
use crate::lookup::Found;
use crate::lookup::Saved;
use crate::lookup::Store;

/// How often counters are swept.
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);

/// How many keys a sweep looks at: less than a millisecond's work. Checks sweep, too.
const SWEEP_BUDGET: usize = 2000;

/// How long it rests after a bug, which may well come again.
const REST: Duration = Duration::from_secs(10);

/// Forgets keys whose time is over and sums up warnings, until it is dropped.
pub(super) async fn sweep(context: Arc<Context>) {
    let swept = Arc::clone(&context);
    let sweep = move || {
        swept.in_force().lookups.sweep(SWEEP_BUDGET);
        swept.free_retired();
        swept.warnings.sum_up();
    };
    sweep_with(&context, sweep).await;
}

/// A bug in a sweep does not end sweeping. On another thread: all that a reload has left behind may be to be forgotten at once.
async fn sweep_with(context: &Context, sweep: impl Fn() + Send + Sync + 'static) {
    let sweep = Arc::new(sweep);
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let work = Arc::clone(&sweep);
        if tokio::task::spawn_blocking(move || work()).await.is_err_and(|error| error.is_panic()) {
            context.metrics.internal_error();
            tracing::error!("a bug was met while counters were swept; trying again soon; please report this");
            tokio::time::sleep(REST).await;
        }
    }
}

/// Who else could change what is kept in a directory, if anybody; `uid` is who should be the only one.
pub(super) fn others(directory: &Path, uid: Option<u32>) -> Option<String> {
    let found = fs::metadata(directory).ok()?;
    let (owner, mode) = (found.uid(), found.mode());
    if uid.is_some_and(|uid| owner != uid && owner != 0) {
        let owner = User::from_uid(owner.into()).ok().flatten().map_or_else(|| owner.to_string(), |user| user.name);
        return Some(format!("it belongs to user {owner}, who can change what limits have counted"));
    }
    (mode & 0o022 != 0)
        .then(|| format!("with mode {:04o} others can change what limits have counted; chmod 0700", mode & 0o7777))
}

/// Saves the counters.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Arc<Store>,
    path: PathBuf,
    /// How far the counters had changed at the last save.
    saved: u64,
    is_failing: bool,
}

impl Keeper {
    /// Takes the directory; `None` if the configuration has none. `progress` goes up while it works.
    pub(super) fn open(state: &State, progress: Arc<AtomicU64>) -> Result<Option<Self>, BindError> {
        let Some(path) = &state.path else {
            return Ok(None);
        };
        let path = path.value.clone();
        let store = match Store::open(&path, progress) {
            Ok(store) => Arc::new(store),
            Err(error) => return Err(BindError::State { path, error }),
        };
        if let Some(problem) = others(&path, Some(geteuid().as_raw())) {
            tracing::warn!("state.path: {}: {problem}", path.display());
        }
        Ok(Some(Self { store, path, saved: 0, is_failing: false }))
    }

    /// With what was saved taken over, before anybody asks. On another thread, so that signals are heard meanwhile.
    pub(super) async fn restored(self, context: &Arc<Context>) -> Result<Self, BindError> {
        let (path, context) = (self.path.clone(), Arc::clone(context));
        let restoring = tokio::task::spawn_blocking(move || self.restore(&context).map(|()| self));
        restoring.await.unwrap_or_else(|panic| Err(BindError::State { path, error: io::Error::other(panic) }))
    }

    fn restore(&self, context: &Context) -> Result<(), BindError> {
        let error = |error| BindError::State { path: self.path.clone(), error };
        let path = self.path.display();
        match context.in_force().lookups.restore(&self.store).map_err(error)? {
            Found::Damaged { problem, aside: Ok(aside) } => {
                let aside = aside.display();
                tracing::error!(%aside, problem, "the counters in {path} cannot be used; starting with empty ones");
            }
            Found::Damaged { problem, aside: Err(error) } => {
                tracing::error!(%error, problem, "the counters in {path} cannot be used, nor renamed; starting with empty ones");
            }
            Found::Nothing => tracing::info!("there are no counters in {path} yet; starting with empty ones"),
            Found::Whole { saved: Saved { at, keys, bytes }, age, notes } => {
                for note in notes {
                    tracing::info!("counters of {note}");
                }
                let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
                tracing::info!(keys, %age, "took over the counters in {path}");
                context.metrics.state_restored(at, bytes);
            }
        }
        Ok(())
    }

    /// Saves after every interval what has changed, and for the last time when `finish` is done.
    pub(super) async fn run(mut self, context: Arc<Context>, mut finish: oneshot::Receiver<()>) {
        loop {
            let interval = context.in_force().config.state.interval;
            let is_last = tokio::select! {
                biased;
                _ = &mut finish => true,
                () = tokio::time::sleep(interval) => false,
            };
            self.save(&context, is_last).await;
            if is_last {
                return;
            }
        }
    }

    async fn save(&mut self, context: &Context, is_last: bool) {
        // Before the counters are read: what changes while they are is saved the next time.
        let lookups = Arc::clone(&context.in_force().lookups);
        let changes = lookups.limit_changes();
        if changes == self.saved {
            return;
        }
        let store = Arc::clone(&self.store);
        let began = Instant::now();
        let saving = tokio::task::spawn_blocking(move || lookups.save(&store));
        let path = self.path.display();
        let saved = saving.await.unwrap_or_else(|panic| {
            context.metrics.internal_error();
            Err(io::Error::other(panic))
        });
        match saved {
            Ok(Saved { at, keys, bytes }) => {
                context.metrics.state_saved(at, began.elapsed(), bytes);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(keys, "counters are saved in {path} again");
                }
                self.saved = changes;
            }
            Err(error) => {
                context.metrics.state_not_saved();
                if !std::mem::replace(&mut self.is_failing, true) || is_last {
                    tracing::error!(%error, "cannot save counters in {path}; a restart goes back to those saved before");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::connection::tests::context;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bug_in_a_sweep_does_not_end_sweeping() {
        let context = context("");
        let sweeps = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sweeps);
        let sweeping = sweep_with(&context, move || {
            assert!(count.fetch_add(1, Ordering::Relaxed) % 2 == 1, "planted");
        });
        _ = tokio::time::timeout(3 * REST, sweeping).await;
        assert_eq!(sweeps.load(Ordering::Relaxed), 5);
        assert!(context.metrics.encode().unwrap().contains("postward_internal_errors_total 3"));
    }
}
