//! What a scrape costs: `cargo bench --bench metrics [-- SERIES...]`.
//!
//! For about so many series: how many there are, how large the answer is, and the CPU time of gathering and writing it, as
//! text and as OpenMetrics. The median of many rounds. No decision was counted yet, so there are no exemplars.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "it ends with the first thing that goes wrong")]
#![allow(clippy::indexing_slicing, reason = "the median of a list that is not empty")]

use std::env;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use nix::sys::resource::UsageWho;
use nix::sys::resource::getrusage;
use nix::sys::time::TimeValLike as _;
use postward::config::Config;
use postward::config::Source;
use postward::metrics::Metrics;
use postward::policy::Policy;

const ROUNDS: usize = 200;

fn main() {
    let wanted: Vec<usize> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let wanted = if wanted.is_empty() { vec![500, 2000, 10_000] } else { wanted };
    println!("series | text: bytes, CPU | OpenMetrics: bytes, CPU");
    for series in wanted {
        measure(series);
    }
}

fn measure(wanted: usize) {
    let metrics = Metrics::new().unwrap();
    let listener = metrics.listener("inet:127.0.0.1:8891");
    let (mut rules, mut policy) = (0, policy(0));
    let mut series = metrics.adopt(&policy, "");
    while metrics.series() < wanted {
        rules += 10;
        policy = self::policy(rules);
        series = metrics.adopt(&policy, "");
    }
    let (text, text_time) = timed(|| metrics.encode().unwrap().len());
    let (open, open_time) = timed(|| metrics.encode_open(Instant::now(), SystemTime::now()).len());
    println!("{} | {text}, {text_time:?} | {open}, {open_time:?}", metrics.series());
    drop((listener, series));
}

/// Half of the rules are limits.
fn policy(rules: usize) -> Arc<Policy> {
    let rule = |number: usize| match number % 2 {
        0 => format!("[[rule]]\nname = \"refusal-{number}\"\nwhen.sender = \"a{number}@b.example\"\n"),
        _ => format!(
            "[[rule]]\nname = \"limit-{number}\"\nlimit = {{ key = \"login\", messages = \"{number}/hour\" }}\n"
        ),
    };
    let text = (0..rules).map(rule).collect();
    let (config, mut diagnostics) = Config::read(vec![Source { path: "bench.toml".into(), text }]);
    let policy = Policy::compile(&config, &mut diagnostics);
    Arc::new(policy.unwrap_or_else(|| panic!("{diagnostics}")))
}

/// The median of what a call takes of the processor.
fn timed(call: impl Fn() -> usize) -> (usize, Duration) {
    let mut times = Vec::new();
    let mut size = 0;
    for _ in 0..ROUNDS {
        let before = cpu();
        size = call();
        times.push(cpu().saturating_sub(before));
    }
    times.sort();
    (size, times[ROUNDS / 2])
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}
