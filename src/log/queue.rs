//! The way to whoever reads the log: a bounded queue, and a thread that empties it. Mail never waits for the log: what finds
//! no room, because nobody reads, is lost and counted, and so is what cannot be written.

use std::io;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tracing::Level;

use super::sink::Batch;
use super::sink::Sink;

/// How many bytes may wait to be written.
const MAX_WAITING: usize = 16 << 20;

/// How many more may wait of warnings and errors: lines on mail do not crowd them out.
const RESERVE: usize = 1 << 20;

/// How long a line may wait for others to be written with it: a wake-up and a write for each line cost more than the rest
/// of a message.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// How long [`Log::flush`] waits for whoever reads the log.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// What is still to be written.
#[derive(Debug, Default)]
pub(crate) struct Log {
    state: Mutex<State>,
    changed: Condvar,
    /// How many lines were lost since the start.
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    /// How many of the lines lost nobody was told of yet.
    untold: u64,
    writing: bool,
    /// Somebody waits for it: gather no more.
    hurry: bool,
}

impl Log {
    /// A log and the thread that writes it, which lives as long as the process.
    pub(super) fn start(sink: Sink) -> io::Result<Arc<Self>> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_out(sink))?;
        Ok(log)
    }

    /// How many lines were lost so far, for metrics.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Takes a line, if there is room for it.
    pub(super) fn push(&self, line: &[u8], level: Level) {
        let room = if level <= Level::WARN { MAX_WAITING + RESERVE } else { MAX_WAITING };
        let mut state = self.lock();
        if state.waiting.len() + line.len() > room {
            state.untold += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_first = state.waiting.is_empty();
        state.waiting.push(line);
        if is_first {
            self.changed.notify_all();
        }
    }

    /// Waits until everything is written, but not for long.
    pub(crate) fn flush(&self) {
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let mut state = self.lock();
        state.hurry = true;
        self.changed.notify_all();
        if let Ok((mut state, _)) = self.changed.wait_timeout_while(state, FLUSH_TIME, busy) {
            state.hurry = false;
        }
    }

    fn write_out(&self, mut sink: Sink) {
        // Of two batches one fills while the other is written: room made anew for each costs more than the lines.
        let mut batch = Batch::default();
        loop {
            let idle = |state: &mut State| state.waiting.is_empty();
            let state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let gathered = self.changed.wait_timeout_while(state, GATHER_TIME, |state| !state.hurry);
            let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut state.waiting, &mut batch);
            let lost_before = std::mem::take(&mut state.untold);
            state.writing = true;
            drop(state);
            let lost_now = sink.write(&batch);
            batch.clear();
            self.lost.fetch_add(lost_now, Ordering::Relaxed);
            if lost_now > 0 {
                // Nobody can be told before the lines flow again.
                self.lock().untold += lost_before + lost_now;
            } else if lost_before > 0 {
                tracing::warn!(lost = lost_before, "lines of the log were lost: they could not be written in time");
            }
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_lost_and_counted() {
        // Nothing empties this one.
        let log = Log::default();
        let line = vec![b'x'; MAX_WAITING / 4];
        for _ in 0..6 {
            log.push(&line, Level::INFO);
        }
        let state = log.lock();
        assert_eq!((state.waiting.len(), state.untold), (MAX_WAITING, 2));
        assert_eq!(log.lost().load(Ordering::Relaxed), 2);
    }

    #[test]
    fn warnings_have_room_of_their_own() {
        let log = Log::default();
        log.push(&vec![b'x'; MAX_WAITING], Level::INFO);
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
            log.push(b"x", level);
        }
        log.push(&vec![b'x'; RESERVE], Level::WARN);
        let state = log.lock();
        assert_eq!((state.waiting.len(), state.untold), (MAX_WAITING + 2, 3));
    }
}
