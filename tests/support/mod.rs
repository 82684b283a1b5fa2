//! What end-to-end tests share: the daemon as a process, private Postfix and Sendmail instances, an SMTP client that
//! keeps every byte, and metrics read back. Nothing here sleeps without a deadline or uses a fixed port.

#![allow(dead_code, unused_imports, reason = "each test file is a crate of its own and uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]
#![allow(clippy::disallowed_methods, reason = "deadlines need the clock")]

mod browser;
mod daemon;
mod metrics;
mod milter;
mod mta;
mod prometheus;
mod smtp;
mod tempdir;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

pub(crate) use browser::Browser;
pub(crate) use daemon::Daemon;
pub(crate) use daemon::is_root;
pub(crate) use daemon::postward;
pub(crate) use daemon::serving;
pub(crate) use metrics::Metrics;
pub(crate) use milter::Milter;
pub(crate) use mta::Instance;
pub(crate) use mta::Mta;
pub(crate) use mta::Queued;
pub(crate) use prometheus::Prometheus;
pub(crate) use prometheus::Sample;
pub(crate) use prometheus::promtool;
pub(crate) use smtp::Reply;
pub(crate) use smtp::Smtp;
pub(crate) use tempdir::TempDir;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; fails the test, naming `what`, when patience ends.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As `wait_for`, for a test that goes on in any case.
pub(crate) fn wait_up_to_patience(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A TCP port that nothing listens on and that this process has not handed out before. It lies below the range from
/// which the kernel takes ports for clients, so that only another fixture can come in between.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;

    // Processes start at different places, so that two of them rarely try the same port.
    let start = u16::try_from(std::process::id() * 61 % u32::from(COUNT)).unwrap();
    let mut taken = TAKEN.lock().unwrap();
    (0..COUNT)
        .map(|step| FIRST + (start + step) % COUNT)
        .find(|&port| !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port))
        .expect("one port in twenty thousand is free")
}
