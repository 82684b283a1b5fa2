//! What the README's rules cost above a server that does nothing.

use super::Setting;
use crate::compare::pairs;
use crate::load::Load;
use crate::policies;
use crate::report::Report;
use crate::report::Targets;
use crate::server::Endpoint;
use crate::server::FULL_OFFER;
use crate::server::Server;

pub(crate) fn tcp(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    measure("readme-tcp", setting, &Endpoint::any_port(), Endpoint::any_port())
}

pub(crate) fn unix(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let [ours, floor] = ["readme.sock", "floor.sock"].map(|name| Endpoint::Unix(setting.folder.join(name)));
    measure("readme-unix", setting, &ours, floor)
}

fn measure(
    name: &'static str,
    setting: &Setting<'_>,
    endpoint: &Endpoint,
    floor: Endpoint,
) -> Result<Vec<Report>, String> {
    let rules = policies::readme_with_networks(setting.scaled(100_000))?;
    let config = policies::serving(&rules, endpoint, "");
    let postward = Server::postward(setting.folder, &config, endpoint.clone())?;
    let floor = Server::floor_beside(&postward, FULL_OFFER, floor)?;
    let outcomes = pairs(&postward, &floor, &Load::usual(setting.scaled(50)), setting.turns)?;
    let mut report = Report::new(name, "floor");
    report.loads(&outcomes, &Targets::cpu(1.35));
    Ok(vec![report])
}
