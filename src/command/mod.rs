//! The commands: each reads what it needs, asks the library, and prints.

mod check;
mod codes;
mod control;
mod decision;
mod explain;
mod limits;
mod notify;
mod reload;
mod serve;

use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use postward::config::Config;
use postward::explain::is_hidden;
use postward::explain::visible;
use postward::policy::Policy;
use postward::server::Loaded;
use serde_json::Value;

pub(crate) use check::check;
pub(crate) use codes::codes;
pub(crate) use explain::Inquiry;
pub(crate) use explain::explain;
pub(crate) use limits::Operation;
pub(crate) use limits::limits;
pub(crate) use reload::reload;
pub(crate) use serve::serve;

/// Read when no other file is named.
const DEFAULT_PATH: &str = "/etc/postward/postward.toml";

/// The answer is no, or the daemon could not start or go on.
const FAILED: u8 = 1;

/// Bad usage or configuration.
const BAD_CONFIGURATION: u8 = 2;

/// The file named, else the default one; `None`, the built-in configuration, only if there surely is no such file: one that
/// may not be seen must not be passed over.
fn configuration_path(named: Option<PathBuf>, default: &Path) -> Option<PathBuf> {
    let is_missing = || default.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if named.is_none() && is_missing() { None } else { Some(named.unwrap_or_else(|| default.to_owned())) }
}

fn source_name(path: Option<&Path>) -> String {
    path.map_or_else(|| "the built-in configuration".to_owned(), |path| path.display().to_string())
}

/// Shows what is wrong with the configuration that was read; an error ends the program, and the `consequence` is told.
fn read(
    loaded: Result<Loaded, (PathBuf, io::Error)>,
    path: Option<&Path>,
    consequence: &str,
) -> Result<(Config, Policy), ExitCode> {
    let Loaded { config, policy, diagnostics } = loaded.map_err(|(path, error)| {
        object_to(&format!("cannot read {}: {error}", path.display()));
        ExitCode::from(BAD_CONFIGURATION)
    })?;
    complain(&diagnostics.render(io::stderr().is_terminal()));
    match policy {
        Some(policy) => Ok((config, policy)),
        None => {
            let counted = diagnostics.counted();
            complain(&format!("postward: {counted} in {}{consequence}\n", source_name(path)));
            Err(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

/// Writes an object to standard output. What a terminal would obey is escaped, though JSON does not ask for it.
fn print_json(object: &Value, code: ExitCode) -> ExitCode {
    print(&escaped(&format!("{object:#}\n")), code)
}

/// JSON in which a terminal finds nothing to obey.
fn escaped(json: &str) -> String {
    let mut text = String::new();
    for c in json.chars() {
        if c != '\n' && is_hidden(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

/// Writes to standard output. Where that is closed, or full, the command has failed.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn failed(message: &str) -> ExitCode {
    complain(&format!("postward: {message}\n"));
    ExitCode::from(FAILED)
}

/// Writes to standard error; where that is closed, nobody can be told.
fn complain(text: &str) {
    _ = io::stderr().write_all(text.as_bytes());
}

/// `postward: ` and what is wrong with what was asked, in which words of strangers may stand.
fn object_to(message: &str) {
    complain(&format!("postward: {}\n", visible(message)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_default_is_replaced_by_the_built_in_one() {
        let directory = std::env::temp_dir().join(format!("postward-main-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let default = directory.join("postward.toml");
        assert_eq!(configuration_path(None, &default), None);
        assert_eq!(configuration_path(Some("x".into()), &default), Some("x".into()));
        std::os::unix::fs::symlink("nowhere", &default).unwrap();
        assert_eq!(configuration_path(None, &default), Some(default.clone()));
        assert_eq!(configuration_path(None, &default.join("below")), None);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
