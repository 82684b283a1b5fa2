//! Arbitrary bytes as the stream of an MTA.

#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::frames(data));
