//! Ten thousand sessions that say nothing, and then all speak at once.

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;

use super::Setting;
use super::beside_floor;
use crate::held::Held;
use crate::held::Woken;
use crate::policies;
use crate::report::Report;
use crate::report::Target;
use crate::report::micros;
use crate::server::GREETING_OFFER;
use crate::server::Memory;
use crate::server::Server;

pub(crate) fn run(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let mut report = Report::new("idle", "floor");
    let wanted = setting.scaled(10_000);
    // Each takes a file here, and one in the server.
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let sessions = wanted.min(usize::try_from(files.saturating_sub(100)).unwrap_or(wanted));
    let fewer = if sessions < wanted { ", since no more files may be open (ulimit -Hn)" } else { "" };
    report.note(format!(
        "{sessions} sessions, each as far as HELO{fewer}; then one message each, all at once, and again."
    ));
    let rules = policies::readme_with_networks(setting.scaled(100_000))?;
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for round in 0..setting.turns.rounds {
        // New servers in each round: memory that was used once is not given back.
        let [postward, floor] = beside_floor(setting, &rules, GREETING_OFFER)?;
        for (server, found) in [(&postward, &mut ours), (&floor, &mut floors)] {
            let all = measure(server, sessions, round)?;
            let rate = all.woken.messages_per_second();
            setting.turns.say(|| format!("round {} {:<10} {rate:>9.0} messages/s", round + 1, server.name));
            found.push(all);
        }
    }
    let both = |of: &dyn Fn(&Found) -> f64| [&ours, &floors].map(|found| found.iter().map(of).collect::<Vec<_>>());
    let memory = |pick: fn(&Memory) -> u64, found: &Found| {
        (pick(&found.after) as f64 - pick(&found.before) as f64) / sessions as f64
    };
    let mut rows: Vec<(String, [Vec<f64>; 2], Option<Target>)> = Vec::new();
    rows.push(("resident bytes per session".into(), both(&|found| memory(|m| m.resident, found)), None));
    rows.push(("proportional bytes per session".into(), both(&|found| memory(|m| m.proportional, found)), None));
    let rate = Some(Target::AtLeast(0.9));
    rows.push(("messages per second".into(), both(&|found| found.woken.messages_per_second()), rate));
    for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
        let of = move |found: &Found| micros(&found.woken.latencies, quantile) / 1000.0;
        rows.push((format!("whole message, {name}, ms"), both(&of), None));
    }
    for (what, [ours, floors], target) in &rows {
        report.ratio(what.clone(), ours, floors, *target);
    }
    let most = ours.iter().map(|found| memory(|m| m.resident, found)).fold(f64::MIN, f64::max);
    report.figure("most resident bytes per session in any round", most, Some(Target::AtMost(2048.0)));
    let unfair = |found: &Found| micros(&found.woken.latencies, 0.99) / micros(&found.woken.latencies, 0.5);
    report.figure("p99 / p50 in the worst round", ours.iter().map(unfair).fold(f64::MIN, f64::max), None);
    Ok(vec![report])
}

struct Found {
    before: Memory,
    after: Memory,
    woken: Woken,
}

fn measure(server: &Server, sessions: usize, round: usize) -> Result<Found, String> {
    // The first session makes what all share.
    Held::open(server, 1, 0)?.wake(1)?;
    let before = server.memory()?;
    let held = Held::open(server, sessions, round as u64 * 1_000_000)?;
    let after = server.memory()?;
    let woken = held.wake(2)?;
    Ok(Found { before, after, woken })
}
