//! The unit files: systemd accepts them, they are hardened, and sockets from systemd are served.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper that fails fails the test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use support::PATIENCE;
use support::TempDir;
use support::free_port;
use support::serving;
use support::wait_for;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postward");

/// 0 is the safest, 10 the least safe.
const HIGHEST_EXPOSURE: f64 = 1.5;

#[test]
fn the_service_can_do_little_harm() {
    let unit = units().join("postward.service");
    let output = systemd("systemd-analyze", &["security", "--offline=yes", "--no-pager"], &[&unit]);
    let text = text_of(&output);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{text}"));
    let exposure: f64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    assert!(exposure < HIGHEST_EXPOSURE, "{text}");
}

/// The unit names the place where the program is installed; here it is the one under test.
#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let directory = TempDir::new("u");
    let service = fs::read_to_string(units().join("postward.service")).unwrap();
    assert!(service.contains("\nExecStart=/usr/local/bin/postward serve --config /etc/postward/postward.toml\n"));
    let service = directory.write("postward.service", &service.replace("/usr/local/bin/postward", PROGRAM));
    let socket = fs::read_to_string(units().join("postward.socket")).unwrap();
    let socket = directory.write("postward.socket", &socket);
    // The manual page is not installed here.
    let output = systemd("systemd-analyze", &["verify", "--man=no"], &[&service, &socket]);
    let text = text_of(&output);
    assert!(output.status.success() && !text.contains("postward"), "{text}");
}

/// The filter of the unit and what the daemon calls from its start through load, reload and saves to its stop, and what
/// `systemctl reload` runs. There is no systemd here to enforce the filter; strace tells of every call.
#[test]
fn no_call_of_the_daemon_is_kept_from_it() {
    let allowed = allowed_calls();
    assert!(allowed.contains("read") && allowed.contains("kill") && allowed.contains("chown"));
    assert!(!allowed.contains("setuid") && !allowed.contains("ptrace") && !allowed.contains("mount"));
    let directory = TempDir::new("c");
    let path = directory.path().display();
    fs::create_dir(directory.path().join("state")).unwrap();
    let config = format!(
        "server.listen = [\"unix:{path}/s\", \"inet:127.0.0.1:0\"]\nserver.max_sessions = 10\nserver.control = \"{path}/c\"\n\
         server.socket_group = \"{}\"\nhttp.listen = \"127.0.0.1:0\"\nstate = {{ path = \"{path}/state\", interval = \"1s\" }}\n\
         [[rule]]\nname = \"full\"\nwhen.disk_free = {{ path = \"/\", below = \"1 B\" }}\n\
         [[rule]]\nname = \"rate\"\nlimit.connections = \"1000/hour\"\n",
        own_group(),
    );
    let config = directory.write("postward.toml", &config);
    // Twice: the second time there is something to restore.
    for start in ["first", "second"] {
        let mut traced = Traced::start(directory.path(), start, &config);
        let mut mta = wait_for("the daemon to listen", || UnixStream::connect(directory.path().join("s")).ok());
        mta.set_read_timeout(Some(PATIENCE)).unwrap();
        negotiate(&mut mta);
        mta.write_all(b"\0\0\0\x11Cmx\x004\0\x19192.0.2.1\0\0\0\0\x0fM<a@a.example>\0\0\0\0\x01A\0\0\0\x01Q").unwrap();
        let mut rest = Vec::new();
        mta.read_to_end(&mut rest).unwrap();
        wait_for("a save", || directory.path().join("state/counters").exists().then_some(()));
        let pid = traced.daemon();
        let kill = strace(directory.path(), "kill", &["/bin/kill", "-HUP", &pid]);
        assert!(kill.status.success(), "{}", text_of(&kill));
        wait_for("a reload", || traced.log().contains("configuration reloaded").then_some(()));
        traced.terminate();
    }
    let check = strace(directory.path(), "check", &[PROGRAM, "check", "--config", config.to_str().unwrap()]);
    assert!(check.status.success(), "{}", text_of(&check));
    for (trace, typical) in [("first", "listen"), ("second", "clone3"), ("kill", "kill"), ("check", "openat")] {
        let text = fs::read_to_string(directory.path().join(format!("{trace}.trace"))).unwrap();
        let called: BTreeSet<_> = text.lines().filter_map(call).collect();
        assert!(called.contains(typical), "{trace}: {called:?}");
        let denied: Vec<_> = called.iter().filter(|call| !allowed.contains(**call)).collect();
        assert!(denied.is_empty(), "{trace}: the unit does not allow {denied:?}");
    }
}

/// The call of a line of strace's; none if it is about a signal, or goes on with one that was interrupted.
fn call(line: &str) -> Option<&str> {
    let (name, _) = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').split_once('(')?;
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some(name)
}

/// What `SystemCallFilter=` comes to: the first line says what is allowed, those with a tilde take away, others add.
fn allowed_calls() -> BTreeSet<String> {
    let sets = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]).output();
    let sets = text_of(&sets.unwrap_or_else(|error| panic!("systemd-analyze: {}", missing(&error))));
    let service = fs::read_to_string(units().join("postward.service")).unwrap();
    let mut allowed = members("@default", &sets);
    for line in service.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (names, takes_away) = line.strip_prefix('~').map_or((line, false), |names| (names, true));
        for name in names.split_whitespace() {
            let members = members(name, &sets);
            assert!(!members.is_empty(), "{name}");
            if takes_away {
                allowed = &allowed - &members;
            } else {
                allowed.extend(members);
            }
        }
    }
    allowed
}

/// The calls of a set, and of the sets in it; a call is itself.
fn members(name: &str, sets: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let lines = sets.lines().skip_while(|line| *line != name).skip(1);
    let lines = lines.take_while(|line| line.starts_with(' ')).map(str::trim).filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| members(line, sets)).collect()
}

fn own_group() -> String {
    let output = Command::new("id").arg("-gn").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs a program to its end, with its calls in NAME.trace.
fn strace(directory: &Path, name: &str, program: &[&str]) -> Output {
    let trace = directory.join(format!("{name}.trace"));
    let output = Command::new("strace").args(["-f", "-qq", "-o"]).arg(trace).args(program).output();
    output.unwrap_or_else(|error| panic!("strace: {}", missing(&error)))
}

/// The daemon under strace.
struct Traced {
    child: Child,
    log: PathBuf,
}

impl Traced {
    fn start(directory: &Path, name: &str, config: &Path) -> Self {
        let log = directory.join(format!("{name}.log"));
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(directory.join(format!("{name}.trace")))
            .arg(PROGRAM)
            .args(serving())
            .arg("--config")
            .arg(config)
            .env_remove("RUST_LOG")
            .env("NOTIFY_SOCKET", directory.join("nobody"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("strace: {}", missing(&error)));
        Self { child, log }
    }

    /// The process that is traced.
    fn daemon(&self) -> String {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().next().unwrap().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn terminate(&mut self) {
        let command = format!("kill -TERM {}", self.daemon());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        let status = wait_for("the daemon to end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}\n{}", self.log());
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Without strace the daemon would go on by itself.
            let command = format!("kill -KILL {}", self.daemon());
            let _ = Command::new("sh").args(["-c", &command]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the daemon\n{}", self.log());
        }
    }
}

#[test]
fn the_watchdog_is_on_and_what_it_ends_is_started_again() {
    let service = fs::read_to_string(units().join("postward.service")).unwrap();
    assert!(service.contains("\nWatchdogSec=60s\n") && service.contains("\nRestart=on-failure\n"));
}

#[test]
fn open_transactions_have_time_to_end_when_it_is_stopped() {
    let service = fs::read_to_string(units().join("postward.service")).unwrap();
    let seconds = service.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s'));
    assert!(seconds.unwrap().parse::<u32>().unwrap() > 30);
}

/// `ProtectSystem=strict` leaves nothing else to write.
#[test]
fn the_directory_that_the_examples_keep_state_in_may_be_written() {
    let service = fs::read_to_string(units().join("postward.service")).unwrap();
    assert!(service.contains("\nProtectSystem=strict\n") && service.contains("\nStateDirectory=postward\n"));
    let configuration = fs::read_to_string(units().join("../conf/postward.toml")).unwrap();
    assert!(configuration.contains("\n# path     = \"/var/lib/postward\"\n"));
}

#[test]
fn systemd_makes_the_user() {
    let root = TempDir::new("r");
    fs::create_dir(root.path().join("etc")).unwrap();
    let root_option = format!("--root={}", root.path().display());
    let output = systemd("systemd-sysusers", &[&root_option], &[&units().join("postward.sysusers")]);
    assert!(output.status.success(), "{}", text_of(&output));
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.starts_with("postward:x:") && users.trim_end().ends_with("/nologin"), "{users}");
}

/// `postward.socket`: systemd listens, and starts the daemon with the sockets when the first MTA comes.
#[test]
fn sockets_from_systemd_are_served_and_replace_listen() {
    let directory = TempDir::new("a");
    let own = directory.path().join("own.sock");
    let config = format!("[server]\nlisten = \"unix:{}\"\n[[rule]]\nname = \"r\"\nwhen.port = 25\n", own.display());
    let config = directory.write("postward.toml", &config);
    let given = directory.path().join("given.sock");
    let mut daemon = Activated::start(directory.path(), &config, &given);

    let mut first = wait_for("systemd to listen", || UnixStream::connect(&given).ok());
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    negotiate(&mut first);
    let mut second = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    negotiate(&mut second);

    let log = daemon.log();
    assert!(log.contains(&format!("listening on unix:{}", given.display())), "{log}");
    assert!(log.contains(&format!("listening on inet:127.0.0.1:{}", daemon.port)), "{log}");
    assert!(!own.exists(), "it opened its own socket, too");

    daemon.terminate();
    assert!(given.exists(), "it removed a socket that is systemd's");
}

/// The daemon behind `systemd-socket-activate`, which becomes the daemon when the first connection comes.
struct Activated {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Activated {
    fn start(directory: &Path, config: &Path, unix: &Path) -> Self {
        let log = directory.join("log");
        let port = free_port();
        let child = Command::new("systemd-socket-activate")
            .arg("-l")
            .arg(unix)
            .args(["-l", &format!("127.0.0.1:{port}"), PROGRAM])
            .args(serving())
            .arg("--config")
            .arg(config)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("systemd-socket-activate: {}", missing(&error)));
        Self { child, port, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn terminate(&mut self) {
        let command = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        let status = wait_for("the daemon to end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the daemon\n{}", self.log());
        }
    }
}

/// Offers what Postfix offers, and is answered with the same protocol version.
fn negotiate(stream: &mut (impl Read + Write)) {
    let mut offer = vec![0, 0, 0, 13, b'O'];
    for number in [6_u32, 0x1ff, 0x1f_ffff] {
        offer.extend(number.to_be_bytes());
    }
    stream.write_all(&offer).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[4], &head[5..]), (b'O', [0, 0, 0, 6].as_slice()));
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// Runs one of systemd's tools, none of which needs systemd to run.
fn systemd(tool: &str, options: &[&str], files: &[&Path]) -> Output {
    let output = Command::new(tool).args(options).args(files).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{tool}: {}", missing(&error)))
}

fn missing(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::NotFound {
        "not installed; ./tests/run installs what the tests need".to_owned()
    } else {
        error.to_string()
    }
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
