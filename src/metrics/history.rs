//! The same counts over time, for who looks at the status page: by second, minute and quarter of an hour.
//!
//! Bounded: for each reply code of the policies a few hundred numbers, however much mail there is. Reloads change nothing here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::policy::Policy;
use crate::reply::Status;
use crate::session::Decision;
use crate::session::MessageEnd;
use crate::session::Verdict;

/// What was counted when.
#[derive(Debug, Default)]
pub struct History {
    tracks: Mutex<BTreeMap<Counted, Track>>,
    rules: Mutex<BTreeMap<String, Arc<Hits>>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Counted {
    /// Messages that were not refused.
    Passed,
    /// Replies, as `postward_replies_total` has them.
    Reply(Status, Told),
}

/// Whether the client was told.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Told {
    /// He was.
    Really,
    /// He would have been: in monitor mode.
    Would,
}

/// One of the counts, over time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Picture {
    /// In the last sixty seconds.
    pub minute: u64,
    /// In each of the last sixty minutes, the current one last.
    pub hour: Vec<u32>,
    /// In each of the last 96 quarters of an hour, the current one last.
    pub day: Vec<u32>,
    /// Since the start.
    pub total: u64,
}

/// How often a rule held, and when it last did.
#[derive(Debug, Default)]
pub struct Hits {
    count: AtomicU64,
    /// In seconds since 1970.
    last: AtomicU64,
}

impl Hits {
    /// How often.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// When it last did, if ever.
    pub fn last(&self) -> Option<SystemTime> {
        let last = self.last.load(Ordering::Relaxed);
        (last > 0).then(|| UNIX_EPOCH + Duration::from_secs(last))
    }

    fn hit(&self, at: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.store(at.as_secs(), Ordering::Relaxed);
    }
}

impl History {
    /// The hits of this policy's rules, by number; a rule of a name that was there before goes on where that has come to.
    #[must_use]
    pub fn adopt(&self, policy: &Policy) -> Vec<Arc<Hits>> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let hits = policy.rules().iter().map(|rule| Arc::clone(rules.entry(rule.name.clone()).or_default())).collect();
        // What no policy has any more of which a session is left.
        rules.retain(|_, hits| Arc::strong_count(hits) > 1);
        hits
    }

    /// Counts what a decision says, of a policy with these hits.
    pub fn record(&self, hits: &[Arc<Hits>], decision: &Decision, at: SystemTime) {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        for hits in decision.matches.iter().filter_map(|matched| hits.get(matched.rule)) {
            hits.hit(at);
        }
        let mut counted = counted(decision).peekable();
        if counted.peek().is_none() {
            return;
        }
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        for what in counted {
            tracks.entry(what).or_default().count(at);
        }
    }

    /// Everything, as it is at this time.
    #[must_use]
    pub fn pictures(&self, at: SystemTime) -> Vec<(Counted, Picture)> {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        tracks.iter_mut().map(|(what, track)| (*what, track.picture(at))).collect()
    }
}

/// What a decision counts as. `Series::record` has the same replies.
fn counted(decision: &Decision) -> impl Iterator<Item = Counted> {
    let passed = match decision.message {
        Some(MessageEnd::Accepted | MessageEnd::Discarded | MessageEnd::Quarantined) => Some(Counted::Passed),
        Some(MessageEnd::Aborted | MessageEnd::Deferred | MessageEnd::Rejected) | None => None,
    };
    let told = match &decision.verdict {
        Verdict::Refuse(reply) => Some(Counted::Reply(reply.status(), Told::Really)),
        Verdict::Accept | Verdict::Continue | Verdict::Discard | Verdict::Quarantine(_) => None,
    };
    let watched = decision.matches.iter().filter_map(|matched| matched.watched.as_ref()).chain(&decision.watched);
    let watched = watched.map(|reply| Counted::Reply(reply.status(), Told::Would));
    passed.into_iter().chain(told).chain(watched)
}

/// One count.
#[derive(Debug, Default)]
struct Track {
    seconds: Window<60>,
    minutes: Window<60>,
    quarters: Window<96>,
    total: u64,
}

impl Track {
    fn count(&mut self, at: Duration) {
        self.total += 1;
        self.seconds.count(at.as_secs());
        self.minutes.count(at.as_secs() / MINUTE);
        self.quarters.count(at.as_secs() / QUARTER);
    }

    fn picture(&mut self, at: Duration) -> Picture {
        Picture {
            minute: self.seconds.read(at.as_secs()).into_iter().map(u64::from).sum(),
            hour: self.minutes.read(at.as_secs() / MINUTE),
            day: self.quarters.read(at.as_secs() / QUARTER),
            total: self.total,
        }
    }
}

/// The last so many slots of time, each with a count.
#[derive(Debug)]
struct Window<const N: usize> {
    counts: [u32; N],
    /// The number of the last slot that was counted in.
    now: u64,
}

impl<const N: usize> Default for Window<N> {
    fn default() -> Self {
        Self { counts: [0; N], now: 0 }
    }
}

impl<const N: usize> Window<N> {
    fn count(&mut self, slot: u64) {
        self.go_to(slot);
        if let Some(count) = self.counts.get_mut(Self::index(self.now)) {
            *count = count.saturating_add(1);
        }
    }

    /// The oldest first.
    fn read(&mut self, slot: u64) -> Vec<u32> {
        self.go_to(slot);
        let oldest = Self::index(self.now + 1);
        self.counts.iter().cycle().skip(oldest).take(N).copied().collect()
    }

    /// Empties the slots in between. A clock that went back stays where it was.
    fn go_to(&mut self, slot: u64) {
        let passed = slot.saturating_sub(self.now);
        if passed >= N as u64 {
            self.counts = [0; N];
        } else {
            for slot in self.now + 1..=self.now + passed {
                if let Some(count) = self.counts.get_mut(Self::index(slot)) {
                    *count = 0;
                }
            }
        }
        self.now = self.now.max(slot);
    }

    fn index(slot: u64) -> usize {
        usize::try_from(slot % N as u64).unwrap_or_default()
    }
}

const MINUTE: u64 = 60;
const QUARTER: u64 = 15 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    /// Against all times, kept one by one.
    #[test]
    fn a_window_has_what_was_counted_in_it() {
        let mut window = Window::<60>::default();
        let (mut slots, mut slot) = (Vec::new(), 1_000_000_u64);
        for step in 0..5000_u64 {
            slot += [0, 0, 0, 1, 1, 2, 7, 59, 60, 61][usize::try_from(step * step % 97 % 10).unwrap()];
            window.count(slot);
            slots.push(slot);
            let expected: Vec<u32> = (slot - 59..=slot)
                .map(|slot| slots.iter().rev().take(200).filter(|s| **s == slot).count())
                .map(|count| u32::try_from(count).unwrap())
                .collect();
            assert_eq!(window.read(slot), expected, "step {step}");
        }
        assert_eq!(window.read(slot + 59).iter().sum::<u32>(), window.read(slot + 59)[0]);
        assert_eq!(window.read(slot + 120), [0; 60]);
        window.count(slot - 5000);
        assert_eq!(window.read(slot)[59], 1, "a clock that went back counts all the same");
    }
}
