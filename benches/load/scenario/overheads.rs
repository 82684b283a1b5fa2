//! What seeing costs: metrics that are scraped, a log line for each message, limits.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Setting;
use crate::compare::Contender;
use crate::compare::by_turns;
use crate::load::Load;
use crate::load::Outcome;
use crate::policies;
use crate::report::Report;
use crate::report::Target;
use crate::server::Endpoint;
use crate::server::Server;
use crate::server::free_port;

pub(crate) fn run(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let networks = policies::networks(setting.scaled(100_000));
    let rules = format!("{}\n{networks}", policies::readme()?);
    let without_limits = format!("{}\n{networks}", policies::without_limits(&policies::readme()?));
    let port = free_port()?;
    let quiet = "[log]\nlevel = \"error\"\n";
    let seen = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n\n[log]\nlevel = \"info\"\n");
    let start = |rules: &str, more: &str| {
        let endpoint = Endpoint::Tcp(([127, 0, 0, 1], free_port()?).into());
        Server::postward(setting.folder, &policies::serving(rules, &endpoint, more), endpoint)
    };
    let servers = [start(&rules, &seen)?, start(&rules, quiet)?, start(&without_limits, quiet)?];
    let load = Load::usual(setting.scaled(50));
    let contenders: Vec<_> = servers.iter().map(|server| Contender { server, load: load.clone() }).collect();
    let outcomes = scraped(port, || by_turns(&contenders, setting.turns))?;
    let [all, quiet, bare] = [0, 1, 2].map(|i| outcomes[i].iter().map(Outcome::cpu_per_message).collect::<Vec<_>>());

    let mut report = Report::new("overheads", "without");
    report.note("CPU per message, µs. The log goes to a pipe that is read; /metrics is scraped once a second.");
    report.ratio("metrics and log at `info`, against no HTTP and log at `error`", &all, &quiet, None);
    report.ratio("limits, against the rules without a limit", &quiet, &bare, None);
    report.ratio("all of them together", &all, &bare, Some(Target::AtMost(1.15)));
    Ok(vec![report])
}

/// Scrapes every second for as long as `run` takes.
fn scraped<T>(port: u16, run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                scrape(port)?;
                thread::park_timeout(Duration::from_secs(1));
            }
            Ok(())
        });
        let done = run();
        is_over.store(true, Ordering::Relaxed);
        scraper.thread().unpark();
        let scraped: Result<(), String> = scraper.join().map_err(|_| "the scraper panicked")?;
        scraped.and(done)
    })
}

fn scrape(port: u16) -> Result<(), String> {
    let mut answer = String::new();
    let mut ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    };
    ask().map_err(|error| format!("/metrics: {error}"))?;
    let is_whole = answer.starts_with("HTTP/1.1 200") && answer.contains("postward_messages_total");
    if is_whole { Ok(()) } else { Err(format!("/metrics does not answer as it should: {answer}")) }
}
