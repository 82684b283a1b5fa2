//! `postward reload`: the running daemon takes over the configuration as it is now.

use std::path::PathBuf;
use std::process::ExitCode;

use postward::explain::visible;
use serde_json::Value;
use serde_json::json;

use super::BAD_CONFIGURATION;
use super::FAILED;
use super::complain;
use super::control;
use super::object_to;
use super::print;
use super::print_json;
use crate::args::Format;

/// Asks for it, and shows what is wrong with the configuration.
pub(crate) fn reload(control: Option<PathBuf>, config: Option<PathBuf>, format: Format) -> ExitCode {
    let address = match control::address(control, config) {
        Ok(address) => address,
        Err(code) => return code,
    };
    let mut told = None;
    let asked = control::ask(&address, json!({"command": "reload"}), |answer| {
        told = answer.get("reload").cloned();
        Ok(())
    });
    match (asked, told) {
        (Ok(()), Some(told)) => show(&told, format),
        (Ok(()), None) => {
            object_to("the daemon does not say what became of it; see its log");
            ExitCode::from(FAILED)
        }
        (Err(problem), _) => {
            object_to(&problem);
            ExitCode::from(FAILED)
        }
    }
}

fn show(told: &Value, format: Format) -> ExitCode {
    let text = |key: &str| told.get(key).and_then(Value::as_str).unwrap_or_default();
    let problem = told.get("problem").and_then(Value::as_str);
    let code = if problem.is_none() { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIGURATION) };
    if let Format::Json = format {
        return print_json(told, code);
    }
    for line in text("text").lines() {
        complain(&format!("{}\n", visible(line)));
    }
    for note in told.get("notes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        complain(&format!("postward: {}\n", visible(note)));
    }
    let (hash, rules) = (text("hash"), told.get("rules").and_then(Value::as_u64).unwrap_or_default());
    let rules = if rules == 1 { "1 rule".to_owned() } else { format!("{rules} rules") };
    match problem {
        None => print(&format!("reloaded: configuration {hash}, {rules}\n"), code),
        Some(problem) => {
            object_to(&format!("not reloaded: {problem}; configuration {hash} with {rules} stays in force"));
            code
        }
    }
}
