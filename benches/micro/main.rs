//! What single parts cost, without a socket: `cargo bench --bench micro [-- NAME]`.
//!
//! Limits with many keys are measured by `limits`, a scrape by `metrics`, the whole daemon by `load`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it ends with the first thing that goes wrong")]
#![allow(missing_docs, reason = "the macros of divan make functions without a text")]

mod counting;
mod judging;
mod lists;
mod reading;
mod sample;

use divan::Divan;

fn main() {
    let is_asked = |name| std::env::args().any(|argument| argument == name);
    if is_asked("--bench") || is_asked("--list") {
        return divan::main();
    }
    // What `cargo test` passes is for its own programs, such as --test-threads: each part runs once, whatever it is.
    Divan::default().test_benches();
}
