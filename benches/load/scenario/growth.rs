//! How the cost grows with rules, lists, recipients, bodies and connections.

use super::Setting;
use super::beside_floor;
use crate::compare::Contender;
use crate::compare::by_turns;
use crate::load::Load;
use crate::load::Outcome;
use crate::policies;
use crate::report::Report;
use crate::report::Target;
use crate::server::Endpoint;
use crate::server::FULL_OFFER;
use crate::server::Server;

pub(crate) fn run(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    Ok(vec![rules(setting)?, lists(setting)?, workers(setting)?, loads(setting)?])
}

fn rules(setting: &Setting<'_>) -> Result<Report, String> {
    let mut report = Report::new("growth with rules", "10 rules");
    report
        .note("CPU per message, µs; each rule is about a client, a sender or a recipient that is none of the load's.");
    let sizes = [10, 100, 1000, 10_000];
    let policies = sizes.map(|size| (policies::many_rules(setting.scaled(size)), String::new()));
    let limit = |size| (size == 1000).then_some(Target::AtMost(2.0));
    against_first(setting, &mut report, &sizes.map(|size| (format!("{size} rules"), limit(size))), &policies)?;
    Ok(report)
}

fn lists(setting: &Setting<'_>) -> Result<Report, String> {
    let mut report = Report::new("growth with lists", "1000 entries");
    report.note("CPU per message, µs; the README's rules, and a list of networks that is asked for every client.");
    let sizes = [1000, 100_000, 1_000_000];
    let readme = policies::readme()?;
    let policies = sizes.map(|size| (format!("{readme}\n{}", policies::networks(setting.scaled(size))), String::new()));
    against_first(setting, &mut report, &sizes.map(|size| (format!("{size} entries"), None)), &policies)?;
    Ok(report)
}

fn workers(setting: &Setting<'_>) -> Result<Report, String> {
    let mut report = Report::new("growth with workers", "1 worker");
    report.note("CPU per message, µs; the README's rules, server.workers.");
    let sizes = [1, 2, 4];
    let readme = policies::readme()?;
    let policies = sizes.map(|size| (readme.clone(), format!("workers = {size}")));
    against_first(setting, &mut report, &sizes.map(|size| (format!("{size} workers"), None)), &policies)?;
    Ok(report)
}

/// One Postward for each policy, with these settings of the server, all by turns; ratios are those to the first.
fn against_first(
    setting: &Setting<'_>,
    report: &mut Report,
    names: &[(String, Option<Target>)],
    policies: &[(String, String)],
) -> Result<(), String> {
    let start = |(rules, settings): &(String, String)| {
        let endpoint = Endpoint::any_port();
        Server::postward(setting.folder, &policies::serving(rules, &endpoint, settings), endpoint)
    };
    let servers = policies.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let load = Load::usual(setting.scaled(50));
    let contenders: Vec<_> = servers.iter().map(|server| Contender { server, load: load.clone() }).collect();
    let outcomes = by_turns(&contenders, setting.turns)?;
    let costs: Vec<Vec<f64>> =
        outcomes.iter().map(|turns| turns.iter().map(Outcome::cpu_per_message).collect()).collect();
    for ((name, target), cost) in names.iter().zip(&costs) {
        report.ratio(name, cost, &costs[0], *target);
    }
    for ((name, _), turns) in names.iter().zip(&outcomes) {
        let last = turns.last().map_or(f64::NAN, |outcome| outcome.resident as f64 / 1_048_576.0);
        report.figure(format!("{name}: resident memory, MiB"), last, None);
    }
    Ok(())
}

/// The same policy, other loads, each against the floor.
fn loads(setting: &Setting<'_>) -> Result<Report, String> {
    let rules = policies::readme_with_networks(setting.scaled(100_000))?;
    let [postward, floor] = beside_floor(setting, &rules, FULL_OFFER)?;
    let mut report = Report::new("growth with load", "floor");
    report.note(
        "CPU per message, µs; the README's rules. 50 connections, 1 recipient, 4 KiB where nothing else is said.",
    );
    let loads = [
        ("1 recipient", 50, 1, 4096),
        ("10 recipients", 50, 10, 4096),
        ("100 recipients", 50, 100, 4096),
        ("4 KiB", 50, 1, 4096),
        ("100 KiB", 50, 1, 100 << 10),
        ("5 MiB", 50, 1, 5 << 20),
        ("1 connection", 1, 1, 4096),
        ("50 connections", 50, 1, 4096),
        ("500 connections", 500, 1, 4096),
    ];
    for (name, connections, recipients, body) in loads {
        let load = Load::of(setting.scaled(connections), recipients, body);
        let contenders = [&postward, &floor].map(|server| Contender { server, load: load.clone() });
        let outcomes = by_turns(&contenders, setting.turns)?;
        let [ours, floors] = [0, 1].map(|i| outcomes[i].iter().map(Outcome::cpu_per_message).collect::<Vec<_>>());
        report.ratio(name, &ours, &floors, None);
    }
    Ok(report)
}
