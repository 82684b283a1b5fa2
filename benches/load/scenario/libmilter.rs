//! The C library that most milters are made with, doing next to nothing, against Postward with the README's rules.

use std::process::Command;
use std::process::Stdio;

use super::Setting;
use crate::compare::pairs;
use crate::load::Load;
use crate::policies;
use crate::report::Report;
use crate::report::Target;
use crate::report::Targets;
use crate::server::Endpoint;
use crate::server::Server;
use crate::server::free_port;

pub(crate) fn run(setting: &Setting<'_>) -> Result<Vec<Report>, String> {
    let mut report = Report::new("libmilter", "libmilter");
    if !has_library() {
        report
            .note("Left out: it needs a C compiler and libmilter (Debian: `apt install gcc libc6-dev libmilter-dev`).");
        return Ok(vec![report]);
    }
    let program = setting.folder.join("noop").display().to_string();
    let built = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-o", &program, SOURCE, "-lmilter", "-lpthread"])
        .output()
        .map_err(|error| format!("cannot run cc: {error}"))?;
    if !built.status.success() {
        return Err(format!("{SOURCE} does not build:\n{}", String::from_utf8_lossy(&built.stderr)));
    }
    let port = free_port()?;
    let endpoint = Endpoint::Tcp(([127, 0, 0, 1], port).into());
    let libmilter = Server::start("libmilter", &program, &[&port.to_string()], endpoint)?;
    let rules = policies::readme_with_networks(setting.scaled(100_000))?;
    let endpoint = Endpoint::any_port();
    let postward = Server::postward(setting.folder, &policies::serving(&rules, &endpoint, ""), endpoint)?;
    let load = Load::usual(setting.scaled(50));
    let targets = Targets { latency: Some((0.99, Target::AtMost(0.5))), ..Targets::cpu(0.2) };
    report.loads(&pairs(&postward, &libmilter, &load, setting.turns)?, &targets);
    Ok(vec![report])
}

fn has_library() -> bool {
    let mut asked = Command::new("cc");
    asked.args(["-fsyntax-only", "-include", "libmilter/mfapi.h", "-x", "c", "/dev/null"]);
    asked.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/load/noop.c");
