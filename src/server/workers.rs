//! How many threads serve MTAs, and how long they were at work.
//!
//! Few: one serves more than an MTA on the same machine sends, and threads that wake each other cost more for each message.
//! So whatever takes more than a few milliseconds is for other threads (`spawn_blocking`).

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::Diagnostic;
use crate::config::Server;

/// MTAs on the same machine need the others.
const CPUS_FOR_EACH: usize = 4;

/// As many as the configuration says, or else one for every four CPUs that this process may use.
#[must_use]
pub fn workers(server: &Server) -> usize {
    let chosen = server.workers.as_ref().map(|workers| workers.value);
    chosen.unwrap_or_else(|| suited_to(available_parallelism().map_or(1, NonZero::get)))
}

/// What is odd about their number: more than one for each CPU only take turns.
#[must_use]
pub fn too_many_workers(server: &Server) -> Option<Diagnostic> {
    let (workers, cpus) = (server.workers.as_ref()?, available_parallelism().map_or(usize::MAX, NonZero::get));
    let message = format!(
        "server.workers: {} threads would take turns on the CPUs that this process may use here: {cpus}",
        workers.value
    );
    let hint = format!("write {cpus} or less; left out, there is one for every four CPUs");
    (workers.value > cpus).then(|| Diagnostic::warning(workers.place.clone(), message).hint(hint))
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
    use crate::config::At;
    use crate::config::Place;

    #[test]
    fn there_is_one_for_every_four_cpus_and_at_least_one() {
        assert_eq!([1, 2, 4, 7, 8, 64].map(suited_to), [1, 1, 1, 1, 2, 16]);
    }

    #[test]
    fn the_configuration_wins() {
        assert_eq!(workers(&with(Some(3))), 3);
    }

    #[test]
    fn more_than_there_are_cpus_are_too_many() {
        let told = |workers| too_many_workers(&with(workers)).map(|problem| problem.message);
        assert_eq!([told(None), told(Some(1))], [None, None]);
        let many = told(Some(usize::MAX)).unwrap();
        assert!(many.starts_with(&format!("server.workers: {} threads would take turns", usize::MAX)), "{many}");
    }

    fn with(workers: Option<usize>) -> Server {
        let workers = workers.map(|value| At { value, place: Place::default() });
        Server { workers, ..Server::default() }
    }
}
