//! What was found: a table in Markdown for each scenario, or JSON for all.

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::Value;
use serde_json::json;

use crate::compare::median;
use crate::load::Outcome;

/// What a figure should be; of a ratio, or of the figure itself where there is nothing to compare it with.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// One figure of a scenario.
struct Row {
    what: String,
    value: f64,
    /// The other server's, and of each pair the ratio.
    against: Option<(f64, Vec<f64>)>,
    target: Option<Target>,
}

/// What a scenario found.
pub(crate) struct Report {
    scenario: &'static str,
    /// What ours is compared with.
    against: &'static str,
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) const fn new(scenario: &'static str, against: &'static str) -> Self {
        Self { scenario, against, notes: Vec::new(), rows: Vec::new() }
    }

    /// What is to be known beside the figures.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A figure by itself.
    pub(crate) fn figure(&mut self, what: impl Into<String>, value: f64, target: Option<Target>) {
        self.rows.push(Row { what: what.into(), value, against: None, target });
    }

    /// A figure of every round, and the other's in the same rounds. The target is one of the ratio.
    pub(crate) fn ratio(&mut self, what: impl Into<String>, ours: &[f64], others: &[f64], target: Option<Target>) {
        let ratios = ours.iter().zip(others).map(|(ours, other)| ours / other).collect();
        let against = Some((median(others.to_vec()), ratios));
        self.rows.push(Row { what: what.into(), value: median(ours.to_vec()), against, target });
    }

    /// All that a load tells of two servers, with targets for processor, rate, and latencies by quantile.
    pub(crate) fn loads(&mut self, [ours, others]: &[Vec<Outcome>; 2], targets: &Targets) {
        let each = |outcomes: &[Outcome], of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).collect::<Vec<_>>();
        let mut both = |what: String, target, of: &dyn Fn(&Outcome) -> f64| {
            self.ratio(what, &each(ours, of), &each(others, of), target);
        };
        both("CPU per message, µs".to_owned(), targets.cpu, &Outcome::cpu_per_message);
        both("messages per second".to_owned(), targets.rate, &Outcome::messages_per_second);
        both("resident memory, MiB".to_owned(), None, &|outcome| outcome.resident as f64 / 1_048_576.0);
        for (quantile, name) in QUANTILES {
            let target =
                targets.latency.filter(|(at, _)| (at - quantile).abs() < f64::EPSILON).map(|(_, target)| target);
            both(format!("whole message, {name}, µs"), target, &|outcome| {
                micros(outcome.latencies.message(), quantile)
            });
        }
        let commands: Vec<&str> =
            ours.iter().take(1).flat_map(|o| o.latencies.answered()).map(|(name, _)| name).collect();
        for command in commands {
            for (quantile, name) in QUANTILES {
                let of_command = targets.commands.filter(|_| quantile < 0.9);
                both(format!("{command}, {name}, µs"), of_command, &|outcome| {
                    let found = outcome.latencies.answered().find(|(name, _)| *name == command);
                    found.map_or(f64::NAN, |(_, histogram)| micros(histogram, quantile))
                });
            }
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        json!({ "scenario": self.scenario, "against": self.against, "notes": self.notes, "figures": rows })
    }
}

/// What a scenario wants of a load.
#[derive(Default)]
pub(crate) struct Targets {
    pub(crate) cpu: Option<Target>,
    pub(crate) rate: Option<Target>,
    /// Of whole messages, at this quantile.
    pub(crate) latency: Option<(f64, Target)>,
    /// Of the median of every command.
    pub(crate) commands: Option<Target>,
}

impl Targets {
    pub(crate) fn cpu(most: f64) -> Self {
        Self { cpu: Some(Target::AtMost(most)), ..Self::default() }
    }
}

impl Row {
    /// What the target is about.
    fn judged(&self) -> f64 {
        self.against.as_ref().map_or(self.value, |(_, ratios)| median(ratios.clone()))
    }

    fn to_json(&self) -> Value {
        let (other, ratios) =
            self.against.as_ref().map_or((None, None), |(other, ratios)| (Some(*other), Some(ratios)));
        json!({
            "what": self.what,
            "value": self.value,
            "other": other,
            "ratio": ratios.map(|ratios| median(ratios.clone())),
            "ratios": ratios,
            "target": self.target.map(|target| target.to_string()),
            "met": self.target.map(|target| target.is_met(self.judged())),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} |", self.what, Figure(self.value))?;
        match &self.against {
            Some((other, ratios)) => {
                let (least, most) = ratios.iter().fold((f64::MAX, f64::MIN), |(a, b), r| (a.min(*r), b.max(*r)));
                let digits = if self.target.is_some() { 3 } else { 2 };
                write!(f, " {} | {:.digits$} | {least:.2}..{most:.2} |", Figure(*other), self.judged())?;
            }
            None => write!(f, " | | |")?,
        }
        match self.target {
            Some(target) => write!(f, " {target} | {} |", if target.is_met(self.judged()) { "met" } else { "MISSED" }),
            None => write!(f, " | |"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n### {}\n", self.scenario)?;
        for note in &self.notes {
            writeln!(f, "{note}\n")?;
        }
        if self.rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "| | postward | {} | ratio | spread | target | |", self.against)?;
        writeln!(f, "| --- | ---: | ---: | ---: | --- | --- | --- |")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

/// With as many digits as say something.
struct Figure(f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value.abs() < 10.0 => write!(f, "{value:.2}"),
            value if value.abs() < 1000.0 => write!(f, "{value:.1}"),
            value => write!(f, "{value:.0}"),
        }
    }
}

pub(crate) fn micros(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];
