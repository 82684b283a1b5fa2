//! What `cargo test` runs: every scenario once, with a few messages, so that it works when it is needed; and that mail which is
//! refused, or answered wrongly, is no figure but an error. No time is judged.

use std::time::Duration;
use std::time::Instant;

use crate::compare::Turns;
use crate::folder::Folder;
use crate::load;
use crate::load::Load;
use crate::load::Until;
use crate::policies;
use crate::report::Report;
use crate::scenario::ALL;
use crate::scenario::Setting;
use crate::server::Endpoint;
use crate::server::Server;
use crate::server::answer;

/// Takes the arguments of a test program, as far as people give them to all test programs at once.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let tests: Vec<(String, Test)> = tests().filter(|(name, _)| is_wanted(name, arguments)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return Ok(());
    }
    crate::raise_file_limit()?;
    let folder = Folder::new()?;
    let turns = Turns { rounds: 1, until: UNTIL, is_silent: true };
    let setting = Setting { folder: folder.path(), turns, is_smoke: true };
    println!("\nrunning {} tests", tests.len());
    for (name, test) in &tests {
        let start = Instant::now();
        test(&setting).map_err(|error| format!("{name}: {error}"))?;
        println!("test {name} ... ok ({:.1} s)", start.elapsed().as_secs_f64());
    }
    println!("\ntest result: ok. {} passed; 0 failed\n", tests.len());
    Ok(())
}

type Test = Box<dyn Fn(&Setting<'_>) -> Result<(), String>>;

fn tests() -> impl Iterator<Item = (String, Test)> {
    let scenarios = ALL.iter().map(|scenario| {
        let test: Test = Box::new(|setting| judge(&(scenario.run)(setting)?));
        (format!("load::{}", scenario.name), test)
    });
    let refused: Test = Box::new(refused_mail_is_an_error);
    let wrong: Test = Box::new(wrong_answers_are_errors);
    let own = [("load::refused_mail_is_an_error", refused), ("load::wrong_answers_are_errors", wrong)];
    scenarios.chain(own.map(|(name, test)| (name.to_owned(), test)))
}

/// Words choose by parts of names; there is nothing that is ignored unless asked for.
fn is_wanted(name: &str, arguments: &[String]) -> bool {
    let mut words = Vec::new();
    let mut all = arguments.iter().skip(1);
    while let Some(argument) = all.next() {
        match argument.as_str() {
            "--ignored" => return false,
            "--test-threads" | "--color" | "--format" | "--skip" | "-Z" => drop(all.next()),
            option if option.starts_with('-') => {}
            word => words.push(word),
        }
    }
    words.is_empty() || words.iter().any(|word| name.contains(word))
}

/// It has a table with figures that are numbers, or says why not.
fn judge(reports: &[Report]) -> Result<(), String> {
    for report in reports {
        let json = report.to_json();
        let has_figures = json["figures"].as_array().is_some_and(|figures| !figures.is_empty());
        let was_left_out = json["notes"].to_string().contains("Left out");
        if has_figures == was_left_out || report.to_string().contains("NaN") {
            return Err(format!("a report without figures: {report}"));
        }
    }
    Ok(())
}

fn refused_mail_is_an_error(setting: &Setting<'_>) -> Result<(), String> {
    let rules = "[[rule]]\nname = \"all\"\nwhen.sender = \".example.org\"\nreply = \"550 5.7.1 Nobody\"\n";
    let config = policies::serving(rules, &Endpoint::any_port(), "");
    let server = Server::postward(setting.folder, &config, Endpoint::any_port())?;
    expect(load::run(&server, &Load::usual(2), UNTIL, 0), "that it should accept")
}

fn wrong_answers_are_errors(_: &Setting<'_>) -> Result<(), String> {
    let server = Server::floor(&answer(1 << 30), Endpoint::any_port())?;
    expect(load::run(&server, &Load::usual(2), UNTIL, 0), "what was not offered")?;
    let server = Server::floor(&answer(0), Endpoint::any_port())?;
    let no_time = Until { time: Duration::ZERO, ..UNTIL };
    expect(load::run(&server, &Load::usual(2), no_time, 0), "no message was sent")
}

fn expect<T>(result: Result<T, String>, error: &str) -> Result<(), String> {
    match result {
        Err(found) if found.contains(error) => Ok(()),
        Err(found) => Err(format!("another error than `{error}`: {found}")),
        Ok(_) => Err(format!("no error like `{error}`")),
    }
}

const UNTIL: Until = Until { time: Duration::from_secs(60), messages: Some(30) };
