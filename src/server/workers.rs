//! How many threads serve MTAs, and how long they were at work.
//!
//! Few: one serves more than an MTA on the same machine sends, and threads that wake each other cost more for each message.
//! So whatever takes more than a few milliseconds is for other threads (`spawn_blocking`).

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::Server;

/// MTAs on the same machine need the others.
const CPUS_FOR_EACH: usize = 4;

/// As many as the configuration says, or else one for every four CPUs that this process may use.
#[must_use]
pub fn workers(server: &Server) -> usize {
    server.workers.unwrap_or_else(|| suited_to(available_parallelism().map_or(1, NonZero::get)))
}

/// What is odd about their number: more than one for each CPU only take turns.
#[must_use]
pub fn too_many_workers(server: &Server) -> Option<String> {
    let (workers, cpus) = (server.workers?, available_parallelism().map_or(usize::MAX, NonZero::get));
    (workers > cpus).then(|| {
        format!(
            "server.workers is {workers}, more than the CPUs that this process may use ({cpus}): \
             the threads that serve MTAs take turns, which costs time and gains nothing"
        )
    })
}

fn suited_to(cpus: usize) -> usize {
    (cpus / CPUS_FOR_EACH).max(1)
}

/// How long each of them has been at work so far.
pub(super) fn busy() -> impl Iterator<Item = Duration> {
    let metrics = Handle::current().metrics();
    (0..metrics.num_workers()).map(move |number| metrics.worker_total_busy_duration(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_for_every_four_cpus_and_at_least_one() {
        assert_eq!([1, 2, 4, 7, 8, 64].map(suited_to), [1, 1, 1, 1, 2, 16]);
    }

    #[test]
    fn the_configuration_wins() {
        assert_eq!(workers(&Server { workers: Some(3), ..Server::default() }), 3);
    }

    #[test]
    fn more_than_there_are_cpus_are_too_many() {
        let told = |workers| too_many_workers(&Server { workers, ..Server::default() });
        assert_eq!([told(None), told(Some(1))], [None, None]);
        let many = told(Some(usize::MAX)).unwrap();
        assert!(many.starts_with(&format!("server.workers is {}, more than the CPUs", usize::MAX)), "{many}");
    }
}
