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

fn main() {
    divan::main();
}
