//! Arbitrary text as what a person pastes, to find replies in it.

#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::scan(data));
