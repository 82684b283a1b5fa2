//! Asks the running daemon over its control socket. The protocol stands in `server/control`.

use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use postward::server;
use postward::server::CONTROL_VERSION;
use serde_json::Value;

use super::BAD_CONFIGURATION;
use super::DEFAULT_PATH;
use super::configuration_path;
use super::object_to;
use super::read;
use super::source_name;

/// The control socket of the configuration.
pub(super) fn configured(config: Option<PathBuf>) -> Result<PathBuf, ExitCode> {
    let path = configuration_path(config, Path::new(DEFAULT_PATH));
    let loaded = server::load(path.as_deref());
    // What is wrong elsewhere is for `check`, and for the daemon that is asked to reload.
    let control = match loaded {
        Ok(loaded) if loaded.policy.is_some() || loaded.config.server.control.is_some() => loaded.config.server.control,
        loaded => read(loaded, path.as_deref(), "; --control PATH does without it")?.0.server.control,
    };
    control.map(|control| control.value).ok_or_else(|| {
        object_to(&format!(
            "{} has no control socket: add `control = \"/run/postward/control.sock\"` below [server] and restart the daemon",
            source_name(path.as_deref())
        ));
        ExitCode::from(BAD_CONFIGURATION)
    })
}

/// Asks, and hands over every line of the answer but the last.
pub(super) fn ask(
    path: &Path,
    mut request: Value,
    mut tell: impl FnMut(&Value) -> Result<(), String>,
) -> Result<(), String> {
    let lost = |error: io::Error| format!("the daemon at {} does not answer: {error}", path.display());
    let mut stream = UnixStream::connect(path).map_err(|error| unreachable(path, &error))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
    if let Some(fields) = request.as_object_mut() {
        fields.insert("version".to_owned(), CONTROL_VERSION.into());
    }
    // A daemon that is busy says so and closes, whether it was asked or not.
    let asked = stream.write_all(format!("{request}\n").as_bytes());
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(lost)?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| lost(error.into()))?;
        if answer.get("version").and_then(Value::as_u64) != Some(CONTROL_VERSION) {
            return Err("the daemon is of another version than this program; restart it".to_owned());
        }
        if let Some(error) = answer.get("error") {
            return Err(error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned());
        }
        if answer.get("done").is_some() {
            return Ok(());
        }
        tell(&answer)?;
    }
    asked.map_err(lost)?;
    Err(lost(io::ErrorKind::UnexpectedEof.into()))
}

fn unreachable(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        format!("there is no control socket {path}: the daemon does not run, or was started without `control`")
    } else if kind == io::ErrorKind::ConnectionRefused {
        format!("nobody listens on {path}: the daemon does not run")
    } else if kind == io::ErrorKind::PermissionDenied {
        format!("may not connect to {path}: its owner, root and the group `control_group` may")
    } else {
        format!("cannot connect to {path}: {error}")
    }
}

/// A reload of long lists, or a walk over ten million keys, takes a while.
const PATIENCE: Duration = Duration::from_secs(60);
