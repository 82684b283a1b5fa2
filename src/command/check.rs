//! `postward check`: what is wrong with a configuration, and how each rule of it is judged.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use postward::config::Config;
use postward::policy::Outline;
use postward::policy::Outlines;
use postward::policy::Policy;
use postward::server;
use postward::server::Loaded;
use serde_json::Value;
use serde_json::json;

use super::BAD_CONFIGURATION;
use super::DEFAULT_PATH;
use super::configuration_path;
use super::print;
use super::read;
use super::source_name;
use crate::args::Format;

/// Prints what is wrong, then how each rule is judged.
pub(crate) fn check(config: Option<PathBuf>, format: Format, strict: bool) -> ExitCode {
    let path = configuration_path(config, Path::new(DEFAULT_PATH));
    let mut loaded = server::check(path.as_deref());
    if let (Ok(loaded), true) = (&mut loaded, strict) {
        loaded.be_strict();
    }
    let (text, valid) = match format {
        Format::Json => as_json(loaded, path.as_deref()),
        Format::Text => {
            let counted = loaded.as_ref().map(|loaded| loaded.diagnostics.counted()).unwrap_or_default();
            match read(loaded, path.as_deref(), "") {
                Ok((config, policy)) => {
                    let plan = plan(&source_name(path.as_deref()), &counted, &policy);
                    (format!("{plan}{}", metrics(&config, Arc::new(policy))), true)
                }
                Err(code) => return code,
            }
        }
    };
    print(&text, if valid { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIGURATION) })
}

/// How each rule is judged, for people.
fn plan(name: &str, counted: &str, policy: &Policy) -> String {
    let fine = if counted.is_empty() { "is fine".to_owned() } else { format!("can be used, with {counted}") };
    if policy.outlines().is_empty() {
        return format!("{name} {fine}. It has no rules: everything is accepted.\n");
    }
    let rules = policy.outlines().chunk_by(|a, b| a.rule == b.rule);
    let rules: String = rules.map(|outlines| format!("\n{}", Outlines(outlines))).collect();
    format!("{name} {fine}. Its rules, from top to bottom:\n{rules}")
}

/// What Prometheus will have to keep.
fn metrics(config: &Config, policy: Arc<Policy>) -> String {
    match config.http.listen {
        None => String::new(),
        Some(_) => {
            let (series, most) = (server::series(config, policy), config.http.max_series);
            format!("\nIts metrics are {series} series; max_series in [http] allows {most}.\n")
        }
    }
}

/// Everything for programs, as `args.rs` describes it, and whether the configuration is fit for use.
fn as_json(loaded: Result<Loaded, (PathBuf, io::Error)>, path: Option<&Path>) -> (String, bool) {
    let (diagnostics, policy, series) = match loaded {
        Ok(Loaded { config, policy, diagnostics }) => {
            let policy = policy.map(Arc::new);
            let series = policy.as_ref().map(|policy| server::series(&config, Arc::clone(policy)));
            (diagnostics.to_json(), policy, series)
        }
        Err((path, error)) => {
            let (file, message) = (path.to_string_lossy(), format!("cannot read it: {error}"));
            let unreadable = json!({
                "severity": "error", "notice": null, "file": file, "line": null, "column": null, "message": message,
                "hint": null,
            });
            (json!([unreadable]), None, None)
        }
    };
    let plan: Value = policy.iter().flat_map(|policy| policy.outlines()).map(Outline::to_json).collect();
    let valid = policy.is_some();
    let object = json!({
        "configuration": source_name(path), "valid": valid, "diagnostics": diagnostics, "plan": plan,
        "series": series,
    });
    (format!("{object:#}\n"), valid)
}
