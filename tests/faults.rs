//! Faults outside of the daemon, made for real: full disks, file systems that become read-only, directories that vanish.
//! Mail goes on, the log says what and metrics that it is so, and what is mended heals. docs/operations.md promises it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use support::Daemon;
use support::Milter;
use support::TempDir;
use support::is_root;
use support::wait_for;

/// Refuses the third connection in an hour, so that the next start shows what was saved.
const CONFIG: &str = r#"
server.listen = "inet:127.0.0.1:0"
server.max_sessions = 100
http.listen = "127.0.0.1:0"
state.path = "{dir}/state"
state.interval = "1s"

[[rule]]
name = "rate"
limit = { key = "client", connections = "2/hour" }
"#;

const SAVES: &str = "postward_state_saves_total";

/// One connection of a client; whether its mail may go on.
fn connection(daemon: &Daemon, client: &str) -> bool {
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', format!("mx\x004\x00\x19{client}\0").as_bytes());
    milter.ask(b'M', b"<a@a.example>\0").0 == b'c'
}

fn saves(daemon: &Daemon, result: &str) -> f64 {
    daemon.metrics().get(SAVES, &[("result", result)])
}

/// Until so many more saves have come to this.
fn wait_for_saves(daemon: &Daemon, result: &str, more: f64) {
    let before = saves(daemon, result);
    wait_for(&format!("saves: {result}"), || (saves(daemon, result) >= before + more).then_some(()));
}

/// How often the log says this.
fn times(daemon: &Daemon, text: &str) -> usize {
    daemon.log().matches(text).count()
}

/// A small file system of its own; `None`, with a word why, where one may not be mounted.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(path).output().unwrap();
        if !output.status.success() {
            eprintln!("NOT CHECKED: nothing can be mounted here: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Self(path.to_owned()))
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the daemon has files there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn state_in(directory: &TempDir) -> PathBuf {
    directory.path().join("state")
}

#[test]
fn a_full_disk_costs_no_mail_and_what_was_saved_stays() {
    let directory = TempDir::new("f");
    let Some(disk) = Mounted::new(&state_in(&directory)) else {
        return;
    };
    let mut daemon = Daemon::start_in(directory, CONFIG, &[]);
    assert!(connection(&daemon, "192.0.2.1") && connection(&daemon, "192.0.2.1"));
    wait_for("a save", || (saves(&daemon, "ok") >= 1.0).then_some(()));
    // Page by page, until there is none.
    let filler = disk.0.join("filler");
    assert!(fs::write(&filler, vec![0; 1 << 20]).is_err(), "it is not full");
    assert!(connection(&daemon, "192.0.2.2"));
    wait_for_saves(&daemon, "failed", 2.0);
    assert_eq!(times(&daemon, "cannot save counters"), 1, "told once: {}", daemon.log());
    assert!(daemon.log().contains("No space left on device"));
    assert!(!connection(&daemon, "192.0.2.1"), "limits go on");
    // What a crash would leave is the last save.
    daemon.restart();
    assert!(!connection(&daemon, "192.0.2.1"), "{}", daemon.log());
    assert!(connection(&daemon, "192.0.2.2"));
    wait_for_saves(&daemon, "failed", 1.0);
    fs::remove_file(&filler).unwrap();
    daemon.wait_for_log("are saved in");
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// A file system that is mounted read-only under a daemon answers the same.
#[test]
fn a_directory_that_becomes_read_only_costs_no_mail_and_heals() {
    let directory = TempDir::new("f");
    let state = state_in(&directory);
    fs::create_dir(&state).unwrap();
    // For root nothing is read-only.
    let user = if is_root() { "server.user = \"daemon\"\n" } else { "" };
    if is_root() {
        assert!(Command::new("chown").arg("daemon").arg(&state).status().unwrap().success());
    }
    let mut daemon = Daemon::start_in(directory, &format!("{user}{CONFIG}"), &[]);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o555)).unwrap();
    assert!(connection(&daemon, "192.0.2.1"));
    let line = daemon.wait_for_log("cannot save counters");
    assert!(line.contains("Permission denied"), "{line}");
    assert!(connection(&daemon, "192.0.2.1") && !connection(&daemon, "192.0.2.1"));
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    daemon.wait_for_log("are saved in");
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// It is no place to keep anything: the daemon says so, and does not begin to forget.
#[test]
fn a_file_system_that_is_read_only_from_the_start_is_named() {
    let directory = TempDir::new("f");
    let Some(disk) = Mounted::new(&state_in(&directory)) else {
        return;
    };
    disk.remount("ro");
    let config = directory.write("postward.toml", &CONFIG.replace("{dir}", directory.path().to_str().unwrap()));
    let mut arguments = support::serving().to_vec();
    arguments.extend(["--config", config.to_str().unwrap()]);
    let output = support::postward(&arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("state.path: cannot keep counters in") && text.contains("Read-only file system"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_state_directory_that_vanishes_costs_no_mail_and_is_used_again_once_it_is_there() {
    let directory = TempDir::new("f");
    let state = state_in(&directory);
    fs::create_dir(&state).unwrap();
    let mut daemon = Daemon::start_in(directory, CONFIG, &[]);
    fs::remove_dir_all(&state).unwrap();
    assert!(connection(&daemon, "192.0.2.1") && connection(&daemon, "192.0.2.1"));
    daemon.wait_for_log("cannot save counters");
    assert!(!connection(&daemon, "192.0.2.1"), "limits go on");
    fs::create_dir(&state).unwrap();
    daemon.wait_for_log("are saved in");
    daemon.restart();
    assert!(!connection(&daemon, "192.0.2.1"), "{}", daemon.log());
    // Gone at the end: told, and no reason to hang or to call it a crash.
    fs::remove_dir_all(&state).unwrap();
    assert!(connection(&daemon, "192.0.2.3"));
    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(daemon.log().contains("cannot save counters"), "{}", daemon.log());
}
