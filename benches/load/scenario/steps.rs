//! What it costs where nothing can be left out, and where bodies are large.

use super::Setting;
use super::beside_floor;
use crate::compare::pairs;
use crate::load::Load;
use crate::policies;
use crate::report::Report;
use crate::report::Targets;
use crate::server::FULL_OFFER;
use crate::server::STRICT_OFFER;
use crate::server::Server;

/// With an MTA that sends every step and waits for a reply to each.
pub(crate) fn all(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let rules = policies::readme_with_networks(setting.scaled(100_000))?;
    let [postward, floor] = beside_floor(setting, &rules, STRICT_OFFER)?;
    let load = Load { offer: STRICT_OFFER, ..Load::usual(setting.scaled(50)) };
    let mut report = Report::new("all-steps", "floor");
    report.loads(&pairs(&postward, &floor, &load, setting.turns)?, &Targets::cpu(1.3));
    Ok(vec![report])
}

/// 5 MiB, all of which is counted; beside a floor that acknowledges what it reads at once, as Postward does for real MTAs, and
/// beside one that leaves that to the kernel.
pub(crate) fn big_bodies(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let rules = format!("{}\n{}", policies::readme()?, policies::TRUE_SIZE);
    let [postward, silent] = beside_floor(setting, &rules, FULL_OFFER)?;
    let prompt = Server::prompt_floor_beside(&postward, FULL_OFFER)?;
    let load = Load::of(setting.scaled(10), 1, 5 << 20);
    let mut reports = Vec::new();
    for (name, floor, targets) in [("prompt floor", &prompt, Targets::cpu(1.2)), ("floor", &silent, Targets::default())]
    {
        let mut report = Report::new("big-bodies", name);
        report.loads(&pairs(&postward, floor, &load, setting.turns)?, &targets);
        reports.push(report);
    }
    Ok(reports)
}
