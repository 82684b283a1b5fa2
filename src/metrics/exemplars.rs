//! For each counter of replies and rules, and each bucket of durations, the decision counted there whose command came last, so that
//! whoever sees a number can look up what it is about: `postward explain ID`, or the id in the log.
//!
//! Nobody waits: of two decisions that are counted at the same moment one is kept, or neither.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use prometheus::proto::Metric;

use crate::facts::DecisionId;
use crate::facts::Stage;

/// One decision that was counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    pub(super) id: DecisionId,
    /// By how much the series has grown, or what was observed.
    pub(super) value: f64,
    pub(super) at: Instant,
}

/// The last decision of one series.
#[derive(Clone, Default)]
pub(super) struct Last {
    exemplar: Arc<Mutex<Option<Exemplar>>>,
}

/// The last decisions of all series.
#[derive(Clone, Default)]
pub(super) struct Exemplars {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// By family, and the values of the labels in the order of their names.
    counters: Mutex<BTreeMap<(&'static str, Vec<String>), Last>>,
    /// By [`Stage`] and bucket, the last one for whatever is above all bounds.
    durations: [[Last; BUCKETS]; Stage::ALL.len()],
    /// A moment, and which time of day it was.
    moment: Mutex<Option<(Instant, SystemTime)>>,
}

/// By how much the time of day may go another way than the clock that counts on before it is believed. Two clocks are never
/// read at the same moment.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// More than any histogram here has.
const BUCKETS: usize = 16;

/// What has an exemplar.
pub(super) const REPLIES: &str = "postward_replies_total";
pub(super) const MATCHES: &str = "postward_rule_matches_total";
pub(super) const DURATIONS: &str = "postward_stage_duration_seconds";

impl Last {
    /// This one is the last now, unless there is a later one.
    pub(super) fn is(&self, exemplar: Exemplar) {
        if let Ok(mut last) = self.exemplar.try_lock()
            && last.is_none_or(|last| last.at <= exemplar.at)
        {
            *last = Some(exemplar);
        }
    }

    fn get(&self) -> Option<Exemplar> {
        *locked(&self.exemplar)
    }
}

impl Exemplars {
    /// That of a counter; `labels` are in the order of their names.
    pub(super) fn last(&self, family: &'static str, labels: Vec<String>) -> Last {
        locked(&self.shared.counters).entry((family, labels)).or_default().clone()
    }

    /// A decision at this stage took that long, which fell into that bucket.
    pub(super) fn took(&self, stage: Stage, bucket: usize, exemplar: Exemplar) {
        if let Some(last) = self.shared.durations.get(stage as usize).and_then(|buckets| buckets.get(bucket)) {
            last.is(exemplar);
        }
    }

    /// A series is no more.
    pub(super) fn forget(&self, family: &'static str, labels: &[String]) {
        locked(&self.shared.counters).remove(&(family, labels.to_vec()));
    }

    /// When that was, as a time of day, told when it is `time`: the same whenever it is told, and in the order in which it was,
    /// as long as nobody sets the clock. Prometheus refuses an exemplar that has become older.
    pub(super) fn time_of(&self, now: Instant, time: SystemTime) -> impl Fn(Instant) -> Option<SystemTime> {
        let mut moment = locked(&self.shared.moment);
        let expected = |(then, was): (Instant, SystemTime)| was.checked_add(now.saturating_duration_since(then));
        let is_close = |expected: SystemTime| {
            let off = time.duration_since(expected).unwrap_or_else(|error| error.duration());
            off <= CLOCK_STEP
        };
        let (then, was) = match *moment {
            Some(known) if expected(known).is_some_and(is_close) => known,
            Some(_) | None => *moment.insert((now, time)),
        };
        move |at| match at.checked_duration_since(then) {
            Some(later) => was.checked_add(later),
            None => was.checked_sub(then.saturating_duration_since(at)),
        }
    }

    /// The last decision that was counted in a series; of a histogram, in one of its buckets.
    pub(super) fn of(&self, family: &str, metric: &Metric, bucket: Option<usize>) -> Option<Exemplar> {
        let counter = |family| {
            let values = metric.get_label().iter().map(|label| label.value().to_owned()).collect();
            locked(&self.shared.counters).get(&(family, values)).and_then(Last::get)
        };
        match (family, bucket) {
            (REPLIES, None) => counter(REPLIES),
            (MATCHES, None) => counter(MATCHES),
            (DURATIONS, Some(bucket)) => {
                let name = metric.get_label().first()?.value();
                let stage = Stage::ALL.into_iter().find(|stage| stage.name() == name)?;
                self.shared.durations.get(stage as usize)?.get(bucket)?.get()
            }
            _ => None,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_time_is_the_same_whenever_it_is_told() {
        #[expect(clippy::disallowed_methods, reason = "a test of times needs one")]
        let start = Instant::now();
        let exemplars = Exemplars::default();
        let [second, millisecond] = [Duration::from_secs(1), Duration::from_millis(1)];
        let day = UNIX_EPOCH + 1_000_000 * second;
        let told = |now: Duration, time: SystemTime, at: Duration| exemplars.time_of(start + now, time)(start + at);
        assert_eq!(told(10 * second, day, 9 * second), Some(day - second));
        // The second clock was read late, or early.
        assert_eq!(told(20 * second, day + 10 * second + 30 * millisecond, 9 * second), Some(day - second));
        assert_eq!(told(20 * second, day + 10 * second - 30 * millisecond, 15 * second), Some(day + 5 * second));
        // Somebody has set it.
        assert_eq!(told(30 * second, day, 29 * second), Some(day - second));
        assert_eq!(told(40 * second, day + 3610 * second, 39 * second), Some(day + 3609 * second));
    }

    #[test]
    fn an_earlier_decision_does_not_take_the_place_of_a_later_one() {
        #[expect(clippy::disallowed_methods, reason = "a test of times needs one")]
        let start = Instant::now();
        let last = Last::default();
        let exemplar = |value: f64, at: Duration| Exemplar { id: DecisionId::default(), value, at: start + at };
        for (value, at) in [(1.0, 2), (2.0, 1), (3.0, 3)] {
            last.is(exemplar(value, Duration::from_secs(at)));
        }
        assert_eq!(last.get().unwrap().value, 3.0);
        last.is(exemplar(4.0, Duration::from_secs(1)));
        assert_eq!(last.get().unwrap().value, 3.0);
    }
}
