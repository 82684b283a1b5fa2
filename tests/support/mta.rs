//! Private Postfix and Sendmail instances, run by the scripts in `tests/mta`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use super::TempDir;
use super::free_port;
use super::wait_for;

/// The MTAs that tests run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mta {
    Postfix,
    Sendmail,
}

impl Mta {
    pub(crate) const BOTH: [Self; 2] = [Self::Postfix, Self::Sendmail];

    /// Starts an instance on a free port of 127.0.0.1 that asks this milter. The options are those of the scripts:
    /// `--auth`, `--tls`, `--default-action A`, `--set NAME=VALUE`, a second `--milter EP`, …
    pub(crate) fn start(self, milter: &str, options: &[&str]) -> Instance {
        let directory = TempDir::new(self.short_name());
        for _ in 0..10 {
            let port = free_port();
            let output = self.run_script("start", directory.path(), |command| {
                command.args(["--port", &port.to_string(), "--milter", milter]).args(options);
            });
            match output.status.code() {
                Some(0) => return Instance { mta: self, port, directory },
                Some(PORT_TAKEN) => {}
                Some(NOT_INSTALLED) => panic!("{}Run ./tests/run: it installs what the tests need", text_of(&output)),
                _ => panic!("{self:?} did not start: {}", text_of(&output)),
            }
        }
        panic!("{self:?}: every port that was tried was taken by somebody else meanwhile");
    }

    fn short_name(self) -> &'static str {
        match self {
            Self::Postfix => "p",
            Self::Sendmail => "s",
        }
    }

    fn run_script(self, verb: &str, directory: &Path, arguments: impl FnOnce(&mut Command)) -> Output {
        let script = match self {
            Self::Postfix => "tests/mta/postfix-instance",
            Self::Sendmail => "tests/mta/sendmail-instance",
        };
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
        command.arg(verb).arg(directory).stdin(Stdio::null());
        arguments(&mut command);
        command.output().unwrap()
    }
}

/// A running MTA; stopped when dropped. If the test fails, its log is shown.
pub(crate) struct Instance {
    mta: Mta,
    port: u16,
    directory: TempDir,
}

impl Instance {
    pub(crate) fn mta(&self) -> Mta {
        self.mta
    }

    /// The SMTP port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// With `--tls`: holds `ca.crt`, and `client.crt` and `client.key` for a client.
    pub(crate) fn tls_directory(&self) -> PathBuf {
        self.directory.path().join("tls")
    }

    /// The configuration directory, for Postfix's own programs (`sendmail -C`, `postqueue -c`).
    pub(crate) fn config_directory(&self) -> PathBuf {
        self.directory.path().join("etc")
    }

    /// Where Postfix keeps its mail, and where its chroot is.
    pub(crate) fn queue_directory(&self) -> PathBuf {
        self.directory.path().join("queue")
    }

    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.directory.path().join("maillog")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Stops the instance; its log is complete then.
    pub(crate) fn stop(&self) {
        let output = self.mta.run_script("stop", self.directory.path(), |_| {});
        assert!(output.status.success(), "{}", text_of(&output));
    }

    /// Waits until the mail log contains `needle`; gives the last line that does.
    pub(crate) fn wait_for_log(&self, needle: &str) -> String {
        wait_for(&format!("`{needle}` in the log of {:?}", self.mta), || {
            self.log().lines().rev().find(|line| line.contains(needle)).map(str::to_owned)
        })
    }

    /// Waits until a message is in the queue and reads the first. Sendmail keeps all mail there; Postfix only what is
    /// held, and everything if started with `--set defer_transports=discard`.
    pub(crate) fn queued(&self) -> Queued {
        wait_for("a message in the queue", || self.all_queued().into_iter().next())
    }

    /// The messages that are in the queue now.
    pub(crate) fn all_queued(&self) -> Vec<Queued> {
        let queue = self.directory.path().join("queue");
        match self.mta {
            Mta::Postfix => {
                // Not `incoming` and `active`, where the queue manager still works on them.
                let held = files(&queue.join("hold")).into_iter().map(|file| (file, true));
                let deferred = files(&queue.join("deferred")).into_iter().map(|file| (file, false));
                held.chain(deferred).filter_map(|(file, held)| self.postcat(&file, held)).collect()
            }
            Mta::Sendmail => {
                files(&queue).iter().filter_map(|file| read_sendmail_queue(&queue, file_name(file))).collect()
            }
        }
    }

    fn postcat(&self, file: &Path, held: bool) -> Option<Queued> {
        let output =
            Command::new("/usr/sbin/postcat").arg("-c").arg(self.config_directory()).arg(file).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (envelope, rest) = text.split_once("*** MESSAGE CONTENTS ")?;
        let (_, rest) = rest.split_once('\n')?;
        let (message, _) = rest.split_once("*** HEADER EXTRACTED ")?;
        Some(Queued { held, envelope: envelope.to_owned(), message: message.to_owned() })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of {:?}\n{}", self.mta, self.log());
        }
        let output = self.mta.run_script("stop", self.directory.path(), |_| {});
        if !output.status.success() {
            eprintln!("{}", text_of(&output));
        }
    }
}

/// A message in an MTA's queue.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Is it held (Postfix) or quarantined (Sendmail)?
    pub(crate) held: bool,
    /// Sender and recipients, in the MTA's own format.
    pub(crate) envelope: String,
    /// Header and body. Sendmail's own additions to the header (`Received:`, …) still hold its macros.
    pub(crate) message: String,
}

/// Reads a queue file if `name` is that of one: `qf…` or, quarantined, `hf…`; its body is in `df…`.
fn read_sendmail_queue(queue: &Path, name: &str) -> Option<Queued> {
    let id = name.strip_prefix("qf").or_else(|| name.strip_prefix("hf"))?;
    let control = fs::read(queue.join(name)).ok()?;
    let body = fs::read(queue.join(format!("df{id}"))).ok()?;
    let mut envelope = String::new();
    let mut message = String::new();
    let mut in_header = false;
    for line in String::from_utf8_lossy(&control).lines() {
        // `H?flags?Name: value`, and lines that go on start with white space.
        if let Some(header) = line.strip_prefix("H?") {
            in_header = true;
            message += header.split_once('?').map_or(header, |(_, field)| field);
            message.push('\n');
        } else if in_header && line.starts_with([' ', '\t']) {
            message += line;
            message.push('\n');
        } else {
            in_header = false;
            envelope += line;
            envelope.push('\n');
        }
    }
    message.push('\n');
    message += &String::from_utf8_lossy(&body);
    Some(Queued { held: name.starts_with("hf"), envelope, message })
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Exit codes of the scripts.
const NOT_INSTALLED: i32 = 3;
const PORT_TAKEN: i32 = 4;
