//! For each counter of replies and rules, and each bucket of durations, the last decision that was counted there, so that
//! whoever sees a number can look up what it is about: `postward explain ID`, or the id in the log.
//!
//! Nobody waits: of two decisions that are counted at the same moment one is kept, or neither.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Instant;

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
}

/// More than any histogram here has.
const BUCKETS: usize = 16;

/// What has an exemplar.
pub(super) const REPLIES: &str = "postward_replies_total";
pub(super) const MATCHES: &str = "postward_rule_matches_total";
pub(super) const DURATIONS: &str = "postward_stage_duration_seconds";

impl Last {
    /// This one is the last now.
    pub(super) fn is(&self, exemplar: Exemplar) {
        if let Ok(mut last) = self.exemplar.try_lock() {
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
