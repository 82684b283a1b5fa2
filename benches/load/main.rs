//! What Postward costs, on whatever machine this runs: `cargo bench --bench load [-- SCENARIO...]`.
//!
//! Postward and a floor, a server that parses frames and answers CONTINUE and does nothing else, get the same load by turns,
//! from a client that behaves as Postfix does. What counts is the time of the processor that the server takes for each
//! message, and the ratio within each pair: rates and latencies are those of the machine, which the client shares.
//! docs/performance.md tells how to read it.
//!
//! [`server`] has the processes, [`client`] one session, [`load`] many, [`compare`] the turns, [`scenario`] what is asked,
//! [`report`] what comes out. Every answer is checked: mail that is not accepted as it should be is an error.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::cast_possible_truncation, reason = "figures that are rounded anyway")]
#![allow(clippy::indexing_slicing, reason = "lengths are checked where they are read; it ends with what goes wrong")]

mod client;
mod compare;
mod floor;
mod folder;
mod frames;
mod held;
mod load;
mod message;
mod policies;
mod report;
mod scenario;
mod server;
mod smoke;
mod values;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use compare::Turns;
use folder::Folder;
use load::Until;
use scenario::Scenario;
use scenario::Setting;
use server::Endpoint;

/// Measures Postward against a server that does nothing.
#[derive(Parser)]
#[command(name = "load", bin_name = "cargo bench --bench load --")]
struct Arguments {
    /// Which scenarios; all of them, if none is named.
    scenarios: Vec<String>,
    /// Says which there are.
    #[arg(long)]
    list: bool,
    /// How often each server has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each turn is.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How many messages a turn has at most.
    #[arg(long)]
    messages: Option<u64>,
    /// Prints JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let done = match arguments.get(1).map(String::as_str) {
        Some(server::CHILD) => become_child(&arguments),
        Some(server::FLOOR) => run_floor(&arguments),
        _ if !arguments.iter().any(|argument| argument == "--bench") => smoke::run(&arguments),
        _ => measure(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn become_child(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [_, _, parent, program, rest @ ..] => Err(server::become_child(parent, program, rest)),
        _ => Err("a program is missing".to_owned()),
    }
}

fn run_floor(arguments: &[String]) -> Result<(), String> {
    let [_, _, endpoint, answer, rest @ ..] = arguments else {
        return Err("the floor takes an endpoint and an answer".to_owned());
    };
    let digits: Vec<u8> = answer.bytes().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).map_err(|error| error.to_string());
    let answer = digits.chunks(2).map(byte).collect::<Result<_, _>>()?;
    floor::run(&Endpoint::parse(endpoint)?, answer, rest.iter().any(|argument| argument == server::PROMPT))
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    if arguments.list {
        let line = |scenario: &Scenario| format!("{:<12} {}\n", scenario.name, scenario.about);
        print!("{}", scenario::ALL.iter().map(line).collect::<String>());
        return Ok(());
    }
    let chosen = choose(&arguments.scenarios)?;
    let time = Duration::try_from_secs_f64(arguments.seconds).map_err(|error| format!("--seconds: {error}"))?;
    let until = Until { time, messages: arguments.messages };
    let turns = Turns { rounds: arguments.rounds.into(), until, is_silent: false };
    run(&chosen, turns, arguments.json)
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>, String> {
    if names.is_empty() {
        return Ok(scenario::ALL.iter().collect());
    }
    if let Some(name) = names.iter().enumerate().find_map(|(at, name)| names.iter().take(at).find(|same| *same == name))
    {
        return Err(format!("`{name}` is named twice"));
    }
    let find = |name: &String| {
        let found = scenario::ALL.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| format!("there is no scenario `{name}`; --list says which there are"))
    };
    names.iter().map(find).collect()
}

fn run(chosen: &[&Scenario], turns: Turns, is_json: bool) -> Result<(), String> {
    raise_file_limit()?;
    let folder = Folder::new()?;
    let setting = Setting { folder: folder.path(), turns, is_smoke: false };
    let mut all = Vec::new();
    for scenario in chosen {
        eprintln!("{}: {}", scenario.name, scenario.about);
        for report in (scenario.run)(&setting).map_err(|error| format!("{}: {error}", scenario.name))? {
            if is_json {
                all.push(report.to_json());
            } else {
                print!("{report}");
            }
        }
    }
    if is_json {
        println!("{}", serde_json::Value::Array(all));
    }
    Ok(())
}

/// Each connection is a file, here and in the server, which inherits this.
fn raise_file_limit() -> Result<(), String> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536).max(soft), hard));
    raised.map_err(|error| format!("cannot raise the limit of open files: {error}"))
}
