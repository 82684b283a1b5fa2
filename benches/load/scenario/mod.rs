//! What is measured, one module for each question.

mod growth;
mod idle;
mod libmilter;
mod lockstep;
mod mta;
mod overheads;
mod readme;
mod steps;

use std::path::Path;

use crate::compare::Turns;
use crate::policies;
use crate::report::Report;
use crate::server::Endpoint;
use crate::server::Offer;
use crate::server::Server;

/// What every scenario gets.
pub(crate) struct Setting<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) turns: Turns,
    /// Small sizes, to see that it works: nothing is measured.
    pub(crate) is_smoke: bool,
}

impl Setting<'_> {
    /// So many, or, to see that it works, a few.
    pub(crate) fn scaled(&self, count: usize) -> usize {
        if self.is_smoke { count.min(20) } else { count }
    }
}

/// One question.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Setting<'_>) -> Result<Vec<Report>, String>,
}

pub(crate) const ALL: [Scenario; 11] = [
    Scenario {
        name: "readme-tcp",
        about: "the README's rules and 100,000 networks, 50 connections, TCP",
        run: readme::tcp,
    },
    Scenario { name: "readme-unix", about: "the same over a unix socket", run: readme::unix },
    Scenario {
        name: "libmilter",
        about: "the same against a milter in C that does next to nothing",
        run: libmilter::run,
    },
    Scenario { name: "all-steps", about: "an MTA that waits for a reply to everything", run: steps::all },
    Scenario { name: "big-bodies", about: "5 MiB a message, and a rule about the true size", run: steps::big_bodies },
    Scenario { name: "lockstep", about: "one connection, one command at a time, on one processor", run: lockstep::run },
    Scenario { name: "idle", about: "10,000 sessions that are silent, then all active at once", run: idle::run },
    Scenario { name: "overheads", about: "metrics, log and limits against none of them", run: overheads::run },
    Scenario { name: "growth", about: "more rules, entries, recipients, octets and connections", run: growth::run },
    Scenario { name: "postfix", about: "behind a private Postfix, 20 sessions and 1", run: mta::postfix },
    Scenario { name: "sendmail", about: "behind a private Sendmail, 1 session", run: mta::sendmail },
];

/// Postward with these rules, and a floor that negotiates the same with an MTA that offers this, both over TCP.
fn beside_floor(setting: &Setting<'_>, rules: &str, offer: Offer) -> Result<[Server; 2], String> {
    let endpoint = Endpoint::any_port();
    let postward = Server::postward(setting.folder, &policies::serving(rules, &endpoint, ""), endpoint)?;
    let floor = Server::floor_beside(&postward, offer, Endpoint::any_port())?;
    Ok([postward, floor])
}
