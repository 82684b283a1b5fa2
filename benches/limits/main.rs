//! What the counters of limits cost: `cargo bench --bench limits [-- KEYS...]`.
//!
//! For each number of keys: bytes per key (resident memory before and after), ns per check (a hold and its commit; wall
//! time over all tasks), and the longest single calls while keys are added, exported and expired. Every figure is the
//! median of several rounds, since machines are noisy; time inside is simulated, so that expiry needs no waiting.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::cast_possible_truncation, reason = "figures that are rounded anyway")]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "it ends with the first thing that goes wrong")]

use std::env;
use std::fs;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use config::Rate;
use limits::Counter;
use limits::Counters;
use limits::Cursor;
use limits::Row;

#[allow(dead_code, unused_imports, reason = "only a part of it is measured")]
#[path = "../../src/lookup/limits/mod.rs"]
mod limits;

/// What the counters need of the crate.
mod config {
    pub(crate) use postward::config::MOST_APART;
    pub(crate) use postward::config::Rate;
    pub(crate) use postward::config::Share;
    pub(crate) use postward::config::scaled;
}

fn main() {
    let sizes: Vec<u64> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 1_000_000, 10_000_000] } else { sizes };
    println!("keys | bytes/key | ns/check, {TASKS:?} tasks | growth | check beside export | check beside expiry");
    for keys in sizes {
        measure(keys);
    }
}

fn measure(keys: u64) {
    let rounds = if keys > 1_000_000 { 3 } else { 5 };
    let mut growth = Vec::new();
    let before = resident();
    let mut counters = counters(keys);
    let mut bytes = 0;
    for round in 0..rounds {
        if round > 0 {
            drop(std::mem::replace(&mut counters, self::counters(keys)));
        }
        growth.push(Latencies::of((0..keys).map(|key| timed(|| check(&counters, START, key)))));
        if round == 0 {
            bytes = resident().saturating_sub(before) / keys;
        }
    }
    print!("{keys} | {bytes}");
    for tasks in TASKS {
        print!(" | {}", median((0..rounds).map(|round| throughput(&counters, keys, tasks, round)).collect()));
        flush();
    }
    print!(" | {}", Latencies::median(growth));
    flush();
    let (spans, exporting): (Vec<_>, Vec<_>) = (0..rounds).map(|round| beside(&counters, keys, round, export)).unzip();
    print!(" | {} in {} ms", Latencies::median(exporting), median(spans));
    flush();
    let (span, expiring) = beside(&counters, keys, 2 * WINDOW.as_secs(), expire);
    println!(" | {expiring} in {span} ms, {} left", counters.keys());
}

/// Wall time in ns for each check on keys that are there, each by chance charged a few times.
fn throughput(counters: &Counters, keys: u64, tasks: u64, round: u64) -> u64 {
    let checks = CHECKS / tasks;
    let span = timed(|| {
        thread::scope(|scope| {
            for task in 0..tasks {
                scope.spawn(move || {
                    let mut random = Random(round * TASKS.len() as u64 + task + 1);
                    for step in 0..checks {
                        let now = START + WINDOW.mul_f64(step as f64 * tasks as f64 / (4 * keys) as f64 % 0.2);
                        check(counters, now, random.below(keys));
                    }
                });
            }
        });
    });
    span / (checks * tasks)
}

/// How long checks take while `other` goes on, and how many ms that takes.
fn beside(counters: &Counters, keys: u64, seconds: u64, other: fn(&Counters, Duration)) -> (u64, Latencies) {
    let now = START + WINDOW / 4 + Duration::from_secs(seconds);
    let is_over = AtomicBool::new(false);
    let mut random = Random(seconds + 1);
    let mut span = 0;
    let latencies = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let span = timed(|| other(counters, now));
            is_over.store(true, Ordering::Relaxed);
            span
        });
        let checks = std::iter::from_fn(|| {
            let goes_on = !is_over.load(Ordering::Relaxed);
            goes_on.then(|| timed(|| check(counters, now, random.below(keys))))
        });
        let latencies = Latencies::of(checks);
        span = other.join().unwrap();
        latencies
    });
    (span / 1_000_000, latencies)
}

fn export(counters: &Counters, now: Duration) {
    let mut cursor = Cursor::default();
    while !counters.export(now, &mut cursor, 1000).is_empty() {}
}

fn expire(counters: &Counters, now: Duration) {
    while counters.sweep(now, 1000) > 0 {}
}

fn check(counters: &Counters, now: Duration, key: u64) {
    let mut name = *b"user00000000@example.x";
    let mut rest = key;
    for digit in name[4..12].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap();
        rest /= 10;
    }
    if counters.hold_in_steps(now, 0, 0, &name, 1).is_ok() {
        counters.commit(now, 0, &name, 1);
    }
}

/// `PINNED=1`: a limit that every key reaches with its first charge.
fn counters(keys: u64) -> Counters {
    let amount = if env::var_os("PINNED").is_some() { 1 } else { 1_000_000 };
    let row = Row { rates: vec![Rate { amount, per: WINDOW }], ..Row::default() };
    let max_keys = usize::try_from(keys.max(4_000_000)).unwrap();
    let counters = Counters::new(max_keys);
    counters.seat(&[Counter { rows: vec![row], max_keys, ..Counter::default() }], &[]);
    counters
}

fn timed(run: impl FnOnce()) -> u64 {
    let start = Instant::now();
    run();
    u64::try_from(start.elapsed().as_nanos()).unwrap()
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn flush() {
    std::io::stdout().flush().unwrap();
}

/// Single calls, in ns, counted by 1/16 of their power of two, which takes no memory that would disturb.
struct Latencies {
    counts: [u64; 64 * 16],
    max: u64,
}

impl Latencies {
    fn of(all: impl Iterator<Item = u64>) -> Self {
        let mut latencies = Self { counts: [0; 64 * 16], max: 0 };
        for nanos in all {
            let power = u64::from(nanos.max(16).ilog2());
            let place = power * 16 + (nanos.max(16) >> (power - 4)) % 16;
            latencies.counts[usize::try_from(place).unwrap()] += 1;
            latencies.max = latencies.max.max(nanos);
        }
        latencies
    }

    /// `share` of all calls are not longer than this.
    fn within(&self, share: f64) -> u64 {
        let all: u64 = self.counts.iter().sum();
        let mut left = all - (all as f64 * share) as u64;
        let mut place = self.counts.len() - 1;
        while left > self.counts[place] && place > 0 {
            left -= self.counts[place];
            place -= 1;
        }
        let (power, part) = (place as u64 / 16, place as u64 % 16);
        (16 + part + 1) << power.saturating_sub(4)
    }

    fn median(all: Vec<Self>) -> String {
        let of = |take: fn(&Self) -> u64| median(all.iter().map(take).collect()) as f64 / 1000.0;
        let (half, most) = (of(|one| one.within(0.5)), of(|one| one.within(0.9999)));
        format!("p50 {half:.2} µs, p99.99 {most:.0} µs, max {:.0} µs", of(|one| one.max))
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |share| self.within(share) as f64 / 1000.0;
        let max = self.max as f64 / 1000.0;
        write!(f, "p50 {:.2} µs, p99.99 {:.0} µs, max {max:.0} µs", of(0.5), of(0.9999))
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

const TASKS: [u64; 3] = [1, 2, 8];
const CHECKS: u64 = 2_000_000;
const WINDOW: Duration = Duration::from_secs(3600);
/// When the simulated time begins.
const START: Duration = Duration::from_secs(10);
