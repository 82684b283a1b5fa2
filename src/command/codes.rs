//! `postward codes`: the catalogue, or a part of it.

use std::fmt::Write as _;
use std::process::ExitCode;

use postward::codes;
use postward::codes::Matches;
use postward::codes::MilterUse;
use serde_json::Value;
use serde_json::json;

use super::FAILED;
use super::object_to;
use super::print;
use super::print_json;
use crate::args::Format;

pub(crate) fn codes(pattern: &str, format: Format) -> ExitCode {
    let matches = codes::search(pattern);
    let is_empty = matches.basic.is_empty() && matches.enhanced.is_empty();
    let code = if is_empty { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
    match format {
        Format::Json => print_json(&as_json(&matches), code),
        Format::Text => {
            if is_empty {
                object_to(&format!("no code fits \"{pattern}\"; `postward codes` lists all"));
            }
            print(&table(&matches), code)
        }
    }
}

fn as_json(matches: &Matches) -> Value {
    let basic: Vec<_> = matches.basic.iter().map(|basic| basic.to_json()).collect();
    let enhanced: Vec<_> = matches.enhanced.iter().map(|enhanced| enhanced.to_json()).collect();
    json!({"basic": basic, "enhanced": enhanced})
}

/// A line for each code; what a milter may do with it in the middle.
fn table(matches: &Matches) -> String {
    let mut text = String::new();
    for basic in &matches.basic {
        let milter = if basic.milter.is_empty() && basic.milter_unusual.is_empty() { "" } else { "milter" };
        _ = writeln!(text, "{:<15}  {:60}  {milter:6}  {}", basic.code, basic.name, basic.defined_by);
    }
    if !matches.basic.is_empty() && !matches.enhanced.is_empty() {
        text.push('\n');
    }
    for enhanced in &matches.enhanced {
        let milter = if enhanced.milter == MilterUse::No { "" } else { "milter" };
        let source = enhanced.vendor.unwrap_or(enhanced.defined_by);
        _ = writeln!(text, "{:15}  {:60}  {milter:6}  {source}", enhanced.code, enhanced.name);
    }
    text
}
