//! The last decisions, in memory: what the status page shows and `postward explain ID` finds.
//!
//! Bounded by their number and by their octets, so that neither time nor what clients write makes it grow. To keep one costs
//! two allocations and a moment under one lock; what it comes to as a text is for who asks.

mod entry;
pub(super) mod story;

pub(super) use entry::Book;
pub(super) use entry::Entry;
pub(super) use entry::Outcome;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use smallvec::SmallVec;

use crate::facts::DecisionId;
use crate::session::Decision;
use crate::session::Session;

/// How much memory there is for each decision on average; one with long names takes more, most take less.
const OCTETS_EACH: usize = 1024;

/// How many are looked at under one lock.
const STRIDE: usize = 256;

/// The last decisions.
#[derive(Debug)]
pub(super) struct Ring {
    most: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    entries: VecDeque<Arc<Entry>>,
    octets: usize,
    /// How many have been forgotten: the number of the oldest.
    forgotten: u64,
}

/// How far a walk from the newest to the oldest has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before(Option<u64>);

/// What there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stock {
    /// How many are kept.
    pub(super) decisions: usize,
    /// How many may be.
    pub(super) most: usize,
    /// What they take.
    pub(super) octets: usize,
    /// When the oldest of them was made.
    pub(super) since: Option<SystemTime>,
}

impl Ring {
    /// For so many decisions; zero keeps none.
    pub(super) fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), kept: Mutex::default() }
    }

    /// From now on for so many.
    pub(super) fn resize(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
        drop(self.lock().shrink(most));
    }

    /// Keeps a decision, if there is something to tell of it.
    pub(super) fn keep(&self, session: &Session, decision: Decision, book: &Arc<Book>, at: SystemTime) {
        let most = self.most.load(Ordering::Relaxed);
        if most == 0 {
            return;
        }
        if let Some(entry) = Entry::of(session, decision, book, at) {
            self.push(Arc::new(entry), most);
        }
    }

    fn push(&self, entry: Arc<Entry>, most: usize) {
        let mut kept = self.lock();
        kept.octets += entry.octets();
        kept.entries.push_back(entry);
        let forgotten = kept.shrink(most);
        // What is freed is freed without the lock.
        drop(kept);
        drop(forgotten);
    }

    /// The next ones of a walk from the newest to the oldest; none at the end. What comes meanwhile is not seen.
    pub(super) fn next(&self, before: &mut Before) -> Vec<Arc<Entry>> {
        let kept = self.lock();
        let end = kept.forgotten + kept.entries.len() as u64;
        let end = before.0.map_or(end, |number| number.min(end)).saturating_sub(kept.forgotten);
        let end = usize::try_from(end).unwrap_or_default();
        let start = end.saturating_sub(STRIDE);
        *before = Before(Some(kept.forgotten + start as u64));
        kept.entries.range(start..end).rev().map(Arc::clone).collect()
    }

    /// Every decision about a message, or in a session, in the order in which they were made. What was decided for the session
    /// before the message is a part of its story.
    pub(super) fn find(&self, id: DecisionId) -> Vec<Arc<Entry>> {
        let (mut before, mut found) = (Before::default(), Vec::new());
        loop {
            let entries = self.next(&mut before);
            if entries.is_empty() {
                break;
            }
            let is_meant = |entry: &DecisionId| id.number == 0 || entry.number == 0 || entry.number == id.number;
            found.extend(entries.into_iter().filter(|entry| entry.id.session == id.session && is_meant(&entry.id)));
        }
        if found.iter().all(|entry| entry.id.number != id.number) && id.number > 0 {
            found.clear();
        }
        found.reverse();
        found
    }

    /// What there is.
    pub(super) fn stock(&self) -> Stock {
        let kept = self.lock();
        Stock {
            decisions: kept.entries.len(),
            most: self.most.load(Ordering::Relaxed),
            octets: kept.octets,
            since: kept.entries.front().map(|entry| entry.at),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets the oldest until there are no more than so many, in no more than their octets.
    fn shrink(&mut self, most: usize) -> SmallVec<[Arc<Entry>; 2]> {
        let mut forgotten = SmallVec::new();
        while self.entries.len() > most || self.octets > most.saturating_mul(OCTETS_EACH) {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.octets -= entry.octets();
            self.forgotten += 1;
            forgotten.push(entry);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests;
