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

/// Where the daemon is asked.
pub(super) struct Address {
    socket: PathBuf,
    /// The daemon that runs may have been started with another configuration.
    is_guessed: bool,
}

/// The control socket that is named, else that of the configuration.
pub(super) fn address(named: Option<PathBuf>, config: Option<PathBuf>) -> Result<Address, ExitCode> {
    match named {
        Some(socket) => Ok(Address { socket, is_guessed: false }),
        None => configured(config).map(|socket| Address { socket, is_guessed: true }),
    }
}

fn configured(config: Option<PathBuf>) -> Result<PathBuf, ExitCode> {
    let path = configuration_path(config, Path::new(DEFAULT_PATH));
    let loaded = server::load(path.as_deref());
    // What is wrong elsewhere is for `check`, and for the daemon that is asked to reload.
    let control = match loaded {
        Ok(loaded) if loaded.policy.is_some() || loaded.config.server.control.is_some() => loaded.config.server.control,
        loaded => read(loaded, path.as_deref(), UNREAD)?.0.server.control,
    };
    control.map(|control| control.value).ok_or_else(|| {
        object_to(&no_socket(path.as_deref()));
        ExitCode::from(BAD_CONFIGURATION)
    })
}

/// The configuration has no control socket; what to do.
fn no_socket(path: Option<&Path>) -> String {
    const KEY: &str = "`control = \"/run/postward/control.sock\"` below [server] and restart the daemon";
    let todo = match path {
        Some(_) => format!("add {KEY}"),
        None => format!("write {DEFAULT_PATH} with {KEY}; or name a file of your own: --config FILE"),
    };
    format!("{} has no control socket: {todo}", source_name(path))
}

/// What follows where the configuration does not tell the socket.
const UNREAD: &str =
    "; the daemon was not asked, and what is in force stays; with --control PATH it is asked without reading this file";

/// Asks, and hands over every line of the answer but the last.
pub(super) fn ask(
    address: &Address,
    mut request: Value,
    mut tell: impl FnMut(&Value) -> Result<(), String>,
) -> Result<(), String> {
    let path = &address.socket;
    let lost = |error: io::Error| format!("the daemon at {} does not answer: {error}", path.display());
    let mut stream = UnixStream::connect(path).map_err(|error| unreachable(address, &error))?;
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

fn unreachable(address: &Address, error: &io::Error) -> String {
    let path = address.socket.display();
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        let other = if address.is_guessed { "; if it has another one, name that: --control PATH" } else { "" };
        format!("there is no control socket {path}: the daemon does not run, or was started without `control`{other}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_it_is_said_which_one_to_write() {
        let built_in = no_socket(None);
        assert!(built_in.contains(": write /etc/postward/postward.toml with `control = "), "{built_in}");
        let file = no_socket(Some(Path::new("/a.toml")));
        assert!(file.starts_with("/a.toml has no control socket: add `control = "), "{file}");
    }
}
