//! Behind real MTAs, over TCP: what of it all a client notices.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::unistd::Uid;

use super::Setting;
use super::beside_floor;
use crate::folder::script;
use crate::policies;
use crate::report::Report;
use crate::report::Target;
use crate::server::Endpoint;
use crate::server::FULL_OFFER;
use crate::server::Server;
use crate::server::answer;
use crate::server::free_port;

pub(crate) fn postfix(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let mut report = Report::new("postfix", "floor");
    if !Uid::effective().is_root() || !is_there("smtp-source") {
        report.note("Left out: it needs root, and Postfix (Debian: `apt install postfix`).");
        return Ok(vec![report]);
    }
    let rules = format!("{}\n{}", policies::readme_for_one_client()?, policies::networks(setting.scaled(100_000)));
    let [postward, floor] = beside_floor(setting, &rules, FULL_OFFER)?;
    let silent = Server::floor(&answer(CONTENT_WITHOUT_REPLY), Endpoint::any_port())?;
    report.note("Messages per second, 4 KiB, from smtp-source over TCP; delivered to discard. One message a session.");
    for sessions in [20, 1] {
        let turns = both_ways(setting, "postfix", &[&postward, &floor, &silent], sessions)?;
        for (other, name) in [(1, "the same steps"), (2, "content without reply")] {
            let what = format!("{sessions} at once, floor with {name}");
            report.ratio(what, &turns[0], &turns[other], Some(Target::AtLeast(0.97)));
        }
    }
    Ok(vec![report])
}

pub(crate) fn sendmail(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let mut report = Report::new("sendmail", "floor");
    let root = std::env::var_os("SENDMAIL_ROOT");
    if !Uid::effective().is_root() || !is_there("smtp-source") || root.is_none_or(|root| !Path::new(&root).exists()) {
        report.note(
            "Left out: it needs root, smtp-source of Postfix, and $SENDMAIL_ROOT, a folder with Sendmail in it \
             (`tests/mta/sendmail-instance unpack FOLDER`).",
        );
        return Ok(vec![report]);
    }
    let rules = format!("{}\n{}", policies::readme_for_one_client()?, policies::networks(setting.scaled(100_000)));
    let endpoint = Endpoint::any_port();
    let postward = Server::postward(setting.folder, &policies::serving(&rules, &endpoint, ""), endpoint)?;
    let floor = Server::prompt_floor(&answer(0))?;
    let turns = both_ways(setting, "sendmail", &[&postward, &floor], 1)?;
    let times = |rates: &[f64]| rates.iter().map(|rate| 1000.0 / rate).collect::<Vec<_>>();
    report.note(
        "One session after the other over TCP, 4 KiB. The floor answers every step, and acknowledges at once \
         what wants no answer: Sendmail sends macros and command in two packets, and waits.",
    );
    report.ratio("ms per message", &times(&turns[0]), &times(&turns[1]), None);
    let more = times(&turns[0]).iter().zip(times(&turns[1])).map(|(ours, other)| ours - other).fold(f64::MIN, f64::max);
    report.figure(
        "ms more than the floor in the worst round (a delayed acknowledgement is 40)",
        more,
        Some(Target::AtMost(20.0)),
    );
    Ok(vec![report])
}

/// Messages per second behind each milter. Which MTA was started first makes a difference of some per cent: half of the rounds
/// are with MTAs that were started in the other order.
fn both_ways(
    setting: &Setting<'_>,
    mta: &'static str,
    milters: &[&Server],
    sessions: usize,
) -> Result<Vec<Vec<f64>>, String> {
    let rounds = setting.turns.rounds;
    let mut rates = vec![Vec::new(); milters.len()];
    let forth: Vec<usize> = (0..milters.len()).collect();
    let back = forth.iter().copied().rev().collect();
    for (order, rounds) in
        [(forth, rounds.div_ceil(2)), (back, rounds / 2)].into_iter().filter(|(_, rounds)| *rounds > 0)
    {
        let instances = order.iter().map(|milter| Instance::start(mta, setting.folder, milters[*milter]));
        let instances = instances.collect::<Result<Vec<_>, _>>()?;
        for (milter, found) in order.iter().zip(by_turns(setting, &instances, sessions, rounds)?) {
            rates[*milter].extend(found);
        }
    }
    Ok(rates)
}

/// The same behind MTAs that there are, so many rounds.
fn by_turns(
    setting: &Setting<'_>,
    instances: &[Instance],
    sessions: usize,
    rounds: usize,
) -> Result<Vec<Vec<f64>>, String> {
    let first = instances.first().ok_or("no MTA")?;
    for instance in instances {
        instance.send(sessions, setting.scaled(100))?;
    }
    let rate = first.send(sessions, setting.scaled(100))?;
    let most = setting.turns.until.messages.unwrap_or(u64::MAX) as f64;
    let messages = (rate * setting.turns.until.time.as_secs_f64()).min(most).max(1.0) as usize;
    let mut rates = vec![Vec::new(); instances.len()];
    for round in 0..rounds {
        // Each begins as often as the others: an MTA has work left from the turn before.
        for turn in 0..instances.len() {
            let number = (round + turn) % instances.len();
            let (instance, rates) = (&instances[number], &mut rates[number]);
            let rate = instance.send(sessions, messages)?;
            setting.turns.say(|| format!("round {} {:<10} {rate:>9.0} messages/s", round + 1, instance.milter));
            rates.push(rate);
        }
    }
    Ok(rates)
}

/// A private MTA that asks one milter; the folder it is in stops it.
struct Instance {
    milter: &'static str,
    port: u16,
}

impl Instance {
    fn start(mta: &'static str, folder: &Path, milter: &Server) -> Result<Self, String> {
        for attempt in 0..10 {
            let port = free_port()?;
            let place = folder.join(format!("{}-{port}-{attempt}", &mta[..1]));
            let mut command = script(mta);
            command.arg("start").arg(place).args(["--port", &port.to_string()]);
            command.args(["--milter", &milter.endpoint.to_string()]);
            if mta == "postfix" {
                command.args(["--set", "default_process_limit=200"]);
            }
            let started = command.output().map_err(|error| format!("cannot start {mta}: {error}"))?;
            match started.status.code() {
                Some(0) => return Ok(Self { milter: milter.name, port }),
                // Somebody else was faster with that port.
                Some(4) => {}
                _ => return Err(format!("{mta} does not start: {}", String::from_utf8_lossy(&started.stderr))),
            }
        }
        Err(format!("{mta}: every port that was tried was taken by somebody else meanwhile"))
    }

    /// Sends so many; gives messages per second. A reply that is not 2xx ends it.
    fn send(&self, sessions: usize, messages: usize) -> Result<f64, String> {
        let start = Instant::now();
        let sent = Command::new("smtp-source")
            .args(["-s", &sessions.to_string(), "-m", &messages.to_string(), "-l", "4096"])
            .args(["-f", "a@example.org", "-t", "b@example.test", "-M", "client.example.org"])
            .arg(format!("127.0.0.1:{}", self.port))
            .output()
            .map_err(|error| format!("cannot run smtp-source: {error}"))?;
        let took = start.elapsed();
        let said = String::from_utf8_lossy(&sent.stderr);
        if !sent.status.success() || !said.is_empty() {
            return Err(format!("smtp-source, with {} as milter: {said}", self.milter));
        }
        Ok(messages as f64 / took.as_secs_f64())
    }
}

fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Headers, their end and the body are sent, and wait for nothing.
const CONTENT_WITHOUT_REPLY: u32 = 0xc0080;
