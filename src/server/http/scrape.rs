//! What `/metrics` answers. There may be hundreds of thousands of series, and limits with as many keys: not for threads that
//! serve mail.

use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::header::HeaderValue;

use crate::metrics::OPEN_METRICS_FORMAT;
use crate::metrics::wants_open_metrics;
use crate::server::context::Context;
use crate::server::context::InForce;
use crate::server::context::time_of_day;
use crate::server::workers;

/// How metrics are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    Open,
    Prometheus,
}

impl Format {
    pub(super) fn wanted(request: &Request<Incoming>) -> Self {
        let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        if wants_open_metrics(&accepted.collect::<Vec<_>>().join(",")) { Self::Open } else { Self::Prometheus }
    }

    pub(super) const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Open => OPEN_METRICS_FORMAT,
            Self::Prometheus => prometheus::TEXT_FORMAT,
        })
    }
}

/// Every metric as it is now.
pub(super) fn scrape(context: &Context, format: Format) -> Result<String, prometheus::Error> {
    count(context);
    match format {
        Format::Open => Ok(context.metrics.encode_open(now(), time_of_day())),
        Format::Prometheus => context.metrics.encode(),
    }
}

/// What is counted elsewhere.
fn count(context: &Context) {
    // With them go their series.
    context.free_retired();
    let (metrics, in_force) = (&context.metrics, context.in_force());
    let InForce { policy, lookups, series, .. } = &*in_force;
    metrics.log_dropped(context.lost_lines.load(Ordering::Relaxed));
    metrics.session_memory(context.kept.octets());
    workers::busy().enumerate().for_each(|(worker, busy)| metrics.worker_busy(worker, busy));
    lookups.sweep_limits();
    for counter in 0..policy.counters().len() {
        let stats = lookups.limit_stats(counter);
        series.limit_keys(counter, stats.keys, stats.limited, stats.blocked, stats.evictions);
        let fullness = lookups.limit_fullness(counter);
        series.limit_fullness(counter, &fullness.counts, fullness.sum as f64 / 1000.0);
    }
}

#[expect(clippy::disallowed_methods, reason = "the server reads the clock, so that the core need not")]
fn now() -> Instant {
    Instant::now()
}
