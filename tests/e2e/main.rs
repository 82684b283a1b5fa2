//! What an SMTP client sees with the daemon behind real MTAs, byte for byte, and what the daemon counts of it.
//!
//! Every test that ends with [`Site::check`] also proves that the counters equal what the client saw, and that the MTA
//! logged the same and had nothing to complain of.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod actions;
mod addresses;
mod codes;
mod defaults;
mod failures;
mod limits;
mod log;
mod privileges;
mod protocol;
mod replies;
mod seeing;
mod sink;
mod site;
mod stages;
mod submission;
mod truth;
