//! The log's way to standard error: a bounded buffer, and a thread that empties it. Mail never waits for the log: what finds
//! no room, because nobody reads standard error, is lost and counted; what cannot be written is lost.

use std::io;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

/// How many bytes may wait to be written.
const MAX_WAITING: usize = 16 << 20;

/// How long a line may wait for others to be written with it: a wake-up and a write for each line cost more than the rest
/// of a message.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// How long [`Log::flush`] waits for whoever reads standard error.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// What is still to be written; one write is one line.
#[derive(Debug, Default)]
pub(crate) struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    lost: u64,
    writing: bool,
    /// Somebody waits for it: gather no more.
    hurry: bool,
}

impl Log {
    /// A log and the thread that writes it, which lives as long as the process.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_out())?;
        Ok(log)
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

    fn write_out(&self) {
        loop {
            let idle = |state: &mut State| state.waiting.is_empty();
            let state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let gathered = self.changed.wait_timeout_while(state, GATHER_TIME, |state| !state.hurry);
            let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut state.waiting);
            let lost = std::mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            // Nobody can be told.
            _ = io::stderr().write_all(&lines);
            if lost > 0 {
                tracing::warn!(lost, "lines of the log were lost: standard error was not read in time");
            }
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.lost += 1;
        } else {
            let is_first = state.waiting.is_empty();
            state.waiting.extend_from_slice(line);
            if is_first {
                self.changed.notify_all();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
            (&log).write_all(&line).unwrap();
        }
        let state = log.lock();
        assert_eq!((state.waiting.len(), state.lost), (MAX_WAITING, 2));
    }
}
