//! One client, one command at a time: what each waits for its reply.

use nix::sched::CpuSet;
use nix::sched::sched_getaffinity;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;

use super::Setting;
use super::beside_floor;
use crate::compare::pairs;
use crate::load::Load;
use crate::policies;
use crate::report::Report;
use crate::report::Target;
use crate::report::Targets;
use crate::server::FULL_OFFER;

pub(crate) fn run(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let pinned = Pinned::new()?;
    let rules = policies::readme_with_networks(setting.scaled(100_000))?;
    let [postward, floor] = beside_floor(setting, &rules, FULL_OFFER)?;
    let load = Load { messages_a_session: 10, ..Load::usual(1) };
    let mut report = Report::new("lockstep", "floor");
    report
        .note(format!("One connection, ten messages a session; client and server on processor {}.", pinned.processor));
    let targets = Targets { commands: Some(Target::AtMost(1.25)), ..Targets::default() };
    report.loads(&pairs(&postward, &floor, &load, setting.turns)?, &targets);
    Ok(vec![report])
}

/// This thread, and what it starts meanwhile, on one processor: else a virtual machine takes 9 µs or 45 µs for a round trip,
/// as it happens to spread the two.
struct Pinned {
    processor: usize,
    before: CpuSet,
}

impl Pinned {
    fn new() -> Result<Self, String> {
        let failed = |error| format!("cannot choose a processor: {error}");
        let before = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
        // The first one has most of the interrupts.
        let processor = (0..CpuSet::count()).rev().find(|processor| before.is_set(*processor).unwrap_or(false));
        let processor = processor.ok_or("this thread may use no processor at all")?;
        let mut only = CpuSet::new();
        only.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only)).map_err(failed)?;
        Ok(Self { processor, before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What was in force before can be so again.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}
