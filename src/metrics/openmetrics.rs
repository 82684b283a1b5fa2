//! OpenMetrics 1.0, which Prometheus asks for first: units, and with an exemplar the decision that was counted last.
//!
//! The crate `prometheus` has its own text format only. What differs: a counter's family is called without `_total`, one
//! that ends with `_info` is of a type of its own, and `# EOF` says that nothing was cut off.

use std::fmt::Write as _;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use prometheus::proto::LabelPair;
use prometheus::proto::Metric;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;

use super::exemplars::Exemplar;
use super::exemplars::Exemplars;

/// The content type.
pub const OPEN_METRICS_FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a client that sends this `Accept` would rather have OpenMetrics than plain text.
#[must_use]
pub fn is_wanted(accept: &str) -> bool {
    let (mut open, mut plain) = (0.0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut is_known) = (1.0, true);
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => is_known = value.trim().trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        match kind.as_str() {
            "application/openmetrics-text" if is_known => open = f32::max(open, quality),
            "text/plain" | "text/*" => plain = f32::max(plain, quality),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

/// All families; `time` tells the time of day that a moment was.
pub(super) fn encode(
    families: &[MetricFamily],
    exemplars: &Exemplars,
    time: impl Fn(Instant) -> Option<SystemTime>,
) -> String {
    let mut out = Out { text: String::with_capacity(64 << 10), exemplars, time: &time };
    for family in families {
        out.family(family);
    }
    out.text.push_str("# EOF\n");
    out.text
}

struct Out<'a> {
    text: String,
    exemplars: &'a Exemplars,
    time: &'a dyn Fn(Instant) -> Option<SystemTime>,
}

impl Out<'_> {
    fn family(&mut self, family: &MetricFamily) {
        let (kind, suffix) = match family.get_field_type() {
            MetricType::COUNTER => ("counter", "_total"),
            MetricType::GAUGE if family.name().ends_with("_info") => ("info", "_info"),
            MetricType::GAUGE => ("gauge", ""),
            MetricType::HISTOGRAM => ("histogram", ""),
            // Nothing here is one.
            MetricType::SUMMARY | MetricType::UNTYPED => return,
        };
        let base = family.name().strip_suffix(suffix).unwrap_or_else(|| family.name());
        self.text.push_str(&format!("# TYPE {base} {kind}\n"));
        if let Some(unit) = UNITS.iter().find(|unit| base.ends_with(&format!("_{unit}"))) {
            self.text.push_str(&format!("# UNIT {base} {unit}\n"));
        }
        self.text.push_str(&format!("# HELP {base} {}\n", escaped(family.help())));
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::HISTOGRAM => self.histogram(base, metric),
                MetricType::COUNTER => {
                    let exemplar = self.exemplars.of(family.name(), metric, None);
                    self.sample(base, suffix, metric, None, metric.get_counter().get_value(), exemplar);
                }
                MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                    self.sample(base, suffix, metric, None, metric.get_gauge().get_value(), None);
                }
            }
        }
    }

    fn histogram(&mut self, name: &str, metric: &Metric) {
        let histogram = metric.get_histogram();
        let count = histogram.get_sample_count();
        let bounds = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        let rest = std::iter::once((f64::INFINITY, count));
        for (index, (bound, so_far)) in bounds.filter(|(bound, _)| bound.is_finite()).chain(rest).enumerate() {
            let exemplar = self.exemplars.of(name, metric, Some(index));
            self.sample(name, "_bucket", metric, Some(bound), so_far as f64, exemplar);
        }
        self.sample(name, "_sum", metric, None, histogram.get_sample_sum(), None);
        self.sample(name, "_count", metric, None, count as f64, None);
    }

    fn sample(
        &mut self,
        base: &str,
        suffix: &str,
        metric: &Metric,
        bound: Option<f64>,
        value: f64,
        exemplar: Option<Exemplar>,
    ) {
        self.text.push_str(base);
        self.text.push_str(suffix);
        self.labels(metric.get_label(), bound);
        // A `String` takes whatever is written.
        _ = write!(self.text, " {}", Number(value));
        if let Some(Exemplar { id, value, at }) = exemplar {
            let at = (self.time)(at).and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let (seconds, millis) = (at.as_secs(), at.subsec_millis());
            _ = write!(self.text, " # {{decision_id=\"{id}\"}} {} {seconds}.{millis:03}", Number(value));
        }
        self.text.push('\n');
    }

    fn labels(&mut self, labels: &[LabelPair], bound: Option<f64>) {
        let mut separator = '{';
        for label in labels {
            _ = write!(self.text, "{separator}{}=\"{}\"", label.name(), escaped(label.value()));
            separator = ',';
        }
        if let Some(bound) = bound {
            _ = write!(self.text, "{separator}le=\"{}\"", Bound(bound));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
    }
}

fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['\\', '"', '\n']) {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        text.into()
    }
}

/// A value.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            value if value.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            value => write!(f, "{value}"),
        }
    }
}

/// A bucket's bound in the one form that the standard has for it: `1.0`, `0.25`, `2.5e-05`.
struct Bound(f64);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(bound) = *self;
        if !bound.is_finite() {
            return Number(bound).fmt(f);
        }
        let scientific = format!("{bound:e}");
        match scientific.split_once("e-") {
            Some((digits, exponent)) if bound.abs() < 1e-4 => write!(f, "{digits}e-{exponent:0>2}"),
            _ => write!(f, "{bound:?}"),
        }
    }
}

/// In which base units metrics here are; the name of a family ends with its own.
const UNITS: [&str; 3] = ["bytes", "ratio", "seconds"];

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn prometheus_is_given_what_it_asks_for_first() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let newer =
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.5";
        for (accept, wanted) in [
            (prometheus, true),
            (newer, true),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"", true),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text; version=2.0.0", false),
            ("application/openmetrics-text;q=0.3, text/plain", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=nonsense", false),
            ("text/html,*/*;q=0.8", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(is_wanted(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn bounds_have_one_form() {
        for (bound, form) in [
            (0.000_01, "1e-05"),
            (0.000_025, "2.5e-05"),
            (0.000_1, "0.0001"),
            (0.25, "0.25"),
            (1.0, "1.0"),
            (67_108_864.0, "67108864.0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(Bound(bound).to_string(), form);
        }
    }

    /// What the standard asks of a text: each family once, its lines together, its samples called as its type has it.
    #[test]
    fn the_text_is_in_order() {
        let metrics = Metrics::new().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test may")]
        let start = Instant::now();
        let _traffic = metrics.listener("unix:/a \"quoted\" \\ path");
        let text = metrics.encode_open(start, UNIX_EPOCH);
        assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
        assert!(text.contains("listen=\"unix:/a \\\"quoted\\\" \\\\ path\"}"), "{text}");
        let mut seen = std::collections::BTreeSet::new();
        let mut family = (String::new(), String::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["#", "TYPE", name, kind] => {
                    assert!(seen.insert(name.to_owned()), "{name} comes twice");
                    family = (name.to_owned(), kind.to_owned());
                }
                ["#", "UNIT", name, unit] => assert!(name == family.0 && name.ends_with(unit), "{line}"),
                ["#", "HELP", name, ..] => assert_eq!(name, family.0, "{line}"),
                _ => {
                    let name = words[0].split('{').next().unwrap();
                    let suffixes: &[&str] = match family.1.as_str() {
                        "counter" => &["_total"],
                        "histogram" => &["_bucket", "_sum", "_count"],
                        "info" => &["_info"],
                        _ => &[""],
                    };
                    assert!(suffixes.iter().any(|suffix| name == format!("{}{suffix}", family.0)), "{line}");
                }
            }
        }
        assert!(seen.contains("postward_build") && seen.contains("process_cpu_seconds"), "{seen:?}");
    }
}
