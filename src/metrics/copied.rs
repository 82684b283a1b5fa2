//! Histograms that are counted elsewhere, and copied here for whoever reads them.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::Bucket;
use prometheus::proto::Histogram;
use prometheus::proto::LabelPair;
use prometheus::proto::Metric;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;

/// Histograms by the values of their labels.
#[derive(Clone)]
pub(super) struct Copied {
    shared: Arc<Shared>,
}

struct Shared {
    desc: Desc,
    bounds: &'static [f64],
    series: Mutex<BTreeMap<Vec<String>, Copy>>,
}

#[derive(Default)]
struct Copy {
    /// One for each bound, and one for what is above.
    counts: Vec<u64>,
    sum: f64,
}

impl Copied {
    pub(super) fn new(
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &'static [f64],
    ) -> Result<Self, prometheus::Error> {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?;
        Ok(Self { shared: Arc::new(Shared { desc, bounds, series: Mutex::default() }) })
    }

    /// There is such a series, if there was none: at zero.
    pub(super) fn add(&self, labels: &[String]) {
        self.series().entry(labels.to_vec()).or_default();
    }

    /// What it has come to.
    pub(super) fn set(&self, labels: &[String], counts: &[u64], sum: f64) {
        if let Some(copy) = self.series().get_mut(labels) {
            *copy = Copy { counts: counts.to_vec(), sum };
        }
    }

    pub(super) fn remove(&self, labels: &[String]) {
        self.series().remove(labels);
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<Vec<String>, Copy>> {
        self.shared.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Copied {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.shared.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Shared { desc, bounds, .. } = &*self.shared;
        let metric = |(values, copy): (&Vec<String>, &Copy)| {
            let labels = desc.variable_labels.iter().zip(values);
            let mut labels: Vec<LabelPair> = labels.map(|(name, value)| label(name, value)).collect();
            labels.sort_by(|one, other| one.name().cmp(other.name()));
            let mut metric = Metric::from_label(labels);
            metric.set_histogram(copy.histogram(bounds));
            metric
        };
        let mut family = MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(self.series().iter().map(metric).collect());
        vec![family]
    }
}

impl Copy {
    fn histogram(&self, bounds: &[f64]) -> Histogram {
        let mut so_far = 0;
        let bucket = |(index, bound): (usize, &f64)| {
            so_far += self.counts.get(index).copied().unwrap_or_default();
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(so_far);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(bounds.iter().enumerate().map(bucket).collect());
        histogram.set_sample_count(self.counts.iter().sum());
        histogram.set_sample_sum(self.sum);
        histogram
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
