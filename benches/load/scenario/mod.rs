//! What is measured, one module for each question.

mod readme;

use std::path::Path;

use crate::compare::Turns;
use crate::report::Report;

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

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Setting<'_>) -> Result<Vec<Report>, String>,
}

pub(crate) const ALL: [Scenario; 2] = [
    Scenario {
        name: "readme-tcp",
        about: "the README's rules and 100,000 networks, 50 connections, TCP",
        run: readme::tcp,
    },
    Scenario { name: "readme-unix", about: "the same over a unix socket", run: readme::unix },
];
