//! The real program over sockets, without an MTA: start, refusal to start, stop, its pages.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::process::Stdio;

use support::Daemon;
use support::Milter;
use support::PATIENCE;
use support::TempDir;
use support::is_root;
use support::serving;
use support::wait_for;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postward");

const CONFIG: &str = r#"
server.listen = "inet:127.0.0.1:0"
server.max_sessions = 100
http.listen = "127.0.0.1:0"
"#;

// Refusing to start

/// Runs `serve` with this configuration until it ends; the code and what it wrote to standard error. `{dir}` stands for
/// the directory. Standard output must be empty.
fn serve(directory: &TempDir, config: &str) -> (Option<i32>, String) {
    serve_as(Command::new(PROGRAM), directory, config)
}

fn serve_as(mut program: Command, directory: &TempDir, config: &str) -> (Option<i32>, String) {
    let path = directory.write("postward.toml", &config.replace("{dir}", directory.path().to_str().unwrap()));
    let [out, err] = ["out", "err"].map(|name| File::create(directory.path().join(name)).unwrap());
    if program.get_program() == PROGRAM {
        program.args(serving());
    } else {
        program.arg("serve");
    }
    let mut child = program
        .arg("--config")
        .arg(path)
        .env_remove("RUST_LOG")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    let status = wait_for("the daemon to refuse to start", || child.try_wait().unwrap());
    assert_eq!(fs::read_to_string(directory.path().join("out")).unwrap(), "");
    (status.code(), fs::read_to_string(directory.path().join("err")).unwrap())
}

/// The program as a user who may write nowhere.
fn as_nobody() -> Command {
    if !is_root() {
        return Command::new(PROGRAM);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", PROGRAM]);
    command
}

/// The daemon ends with 1 and exactly this line.
#[track_caller]
fn refuses_to_start(directory: &TempDir, listen: &str, complaint: &str) {
    let config = format!("server.listen = {listen}\nserver.max_sessions = 10\n");
    let complaint = complaint.replace("{dir}", directory.path().to_str().unwrap());
    assert_eq!(serve(directory, &config), (Some(1), format!("postward: {complaint}\n")));
}

#[test]
fn a_taken_port_is_named() {
    let directory = TempDir::new("n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    refuses_to_start(
        &directory,
        &format!("\"inet:127.0.0.1:{port}\""),
        &format!("server.listen: cannot listen on inet:127.0.0.1:{port}: Address already in use (os error 98)"),
    );
    let http = format!("\"inet:127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:{port}\"");
    let complaint = format!("http.listen: cannot listen on 127.0.0.1:{port}: Address already in use (os error 98)");
    refuses_to_start(&directory, &http, &complaint);
}

/// A start that fails half-way leaves no socket behind that leads nowhere.
#[test]
fn all_sockets_are_opened_or_none() {
    let directory = TempDir::new("n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    refuses_to_start(
        &directory,
        &format!("[\"unix:{{dir}}/s\", \"inet:127.0.0.1:{port}\"]"),
        &format!("server.listen: cannot listen on inet:127.0.0.1:{port}: Address already in use (os error 98)"),
    );
    assert!(!directory.path().join("s").exists());
}

#[test]
fn a_path_where_no_socket_can_be_is_named() {
    let directory = TempDir::new("n");
    refuses_to_start(
        &directory,
        "\"unix:{dir}/missing/s\"",
        "server.listen: cannot listen on unix:{dir}/missing/s: No such file or directory (os error 2)",
    );
    directory.write("file", "precious");
    refuses_to_start(
        &directory,
        "\"unix:{dir}/file/s\"",
        "server.listen: cannot listen on unix:{dir}/file/s: Not a directory (os error 20)",
    );
    for path in ["file", "directory"] {
        let _ = fs::create_dir(directory.path().join("directory"));
        let complaint = "exists and is not a socket; remove it or choose another path";
        let complaint = format!("server.listen: {{dir}}/{path} {complaint}");
        refuses_to_start(&directory, &format!("\"unix:{{dir}}/{path}\""), &complaint);
    }
    assert_eq!(fs::read_to_string(directory.path().join("file")).unwrap(), "precious");
}

#[test]
fn a_directory_that_may_not_be_written_is_named() {
    let directory = TempDir::new("n");
    fs::create_dir(directory.path().join("closed")).unwrap();
    fs::set_permissions(directory.path().join("closed"), Permissions::from_mode(0o555)).unwrap();
    let config = "server.listen = \"unix:{dir}/closed/s\"\nserver.max_sessions = 10\n";
    let path = directory.path().join("closed/s").display().to_string();
    let expected = format!("postward: server.listen: cannot listen on unix:{path}: Permission denied (os error 13)\n");
    assert_eq!(serve_as(as_nobody(), &directory, config), (Some(1), expected));
}

#[test]
fn a_configuration_that_may_not_be_read_is_named() {
    let directory = TempDir::new("n");
    let path = directory.write("postward.toml", "");
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let output = as_nobody().args(["serve", "--config"]).arg(&path).stdin(Stdio::null()).output().unwrap();
    let expected = format!("postward: cannot read {}: Permission denied (os error 13)\n", path.display());
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(2), expected));
}

#[test]
fn an_unknown_group_is_named_and_nothing_is_opened() {
    let directory = TempDir::new("n");
    refuses_to_start(
        &directory,
        "\"unix:{dir}/s\"\nserver.socket_group = \"no-such-group\"",
        "server.socket_group: there is no group `no-such-group` on this system",
    );
    assert!(!directory.path().join("s").exists());
}

#[test]
fn a_socket_in_use_is_not_stolen() {
    let directory = TempDir::new("n");
    let path = directory.path().join("s");
    let other = UnixListener::bind(&path).unwrap();
    refuses_to_start(
        &directory,
        "\"unix:{dir}/s\"",
        "server.listen: another program listens on unix:{dir}/s; stop it first",
    );
    // The daemon's own question whether somebody listens, then ours.
    other.accept().unwrap();
    UnixStream::connect(&path).unwrap();
    other.accept().unwrap();
}

#[test]
fn root_does_not_serve_unless_told_to() {
    if !is_root() {
        return eprintln!("not checked: only root can be refused");
    }
    let directory = TempDir::new("n");
    let path = directory.write("postward.toml", "server.listen = \"inet:127.0.0.1:0\"\nserver.max_sessions = 10\n");
    let output = support::postward(&["serve", "--config", path.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("postward: does not serve as root; add user = "), "{text}");
    assert_eq!(output.status.code(), Some(2));
    let output = support::postward(&["serve", "--user", "no-such-user", "--config", path.to_str().unwrap()]);
    let complaint = "postward: server.user: there is no user `no-such-user` on this system\n";
    assert_eq!((String::from_utf8(output.stderr).unwrap().as_str(), output.status.code()), (complaint, Some(1)));
}

/// As other daemons have it: a user is for root to become.
#[test]
fn who_is_not_root_is_told_that_he_stays_who_he_is() {
    if !is_root() {
        return eprintln!("not checked: somebody else must be there to be started as");
    }
    let directory = TempDir::new("n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = |user: &str, program| {
        let config = format!("server.listen = \"inet:127.0.0.1:{port}\"\nserver.max_sessions = 10\n{user}");
        serve_as(program, &directory, &config)
    };
    let taken = format!("server.listen: cannot listen on inet:127.0.0.1:{port}: Address already in use (os error 98)");
    for user in ["", "server.user = \"nobody\"\n", "server.user = \"daemon\"\n"] {
        let (code, text) = run(user, as_nobody());
        assert_eq!((code, text.as_str()), (Some(1), format!("postward: {taken}\n").as_str()), "{user}");
    }
}

/// What others could change is told by who serves, and by `check`.
#[test]
fn a_state_directory_that_others_may_write_is_told() {
    let directory = TempDir::new("d");
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    let config = "server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\nstate.path = \"{dir}/state\"\n";
    let daemon = Daemon::start_in(directory, config, &[]);
    daemon.wait_for_log("with mode 0777 others can change what limits have counted; chmod 0700");
    let path = daemon.directory().join("postward.toml");
    let output = support::postward(&["check", "--config", path.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("with mode 0777 others can change"), "{text}");
}

#[test]
fn bad_usage_and_a_bad_configuration_end_with_2() {
    let directory = TempDir::new("n");
    let (code, error) = serve(&directory, "server.listen = \"nowhere\"\n");
    assert!(code == Some(2) && error.ends_with("postward.toml; nothing was started\n"), "{error}");
    for arguments in [&["--config"][..], &["serve", "--nonsense"], &["nonsense"], &[]] {
        assert_eq!(support::postward(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_state_directory_that_is_missing_or_closed_or_taken_is_named() {
    let directory = TempDir::new("n");
    let config = "\"unix:{dir}/s\"\nstate.path = \"{dir}/state\"";
    let complaint = |why: &str| format!("state.path: cannot keep counters in {{dir}}/state: {why}");
    refuses_to_start(&directory, config, &complaint("No such file or directory (os error 2)"));
    let state = directory.write("state", "precious");
    refuses_to_start(&directory, config, &complaint("Not a directory (os error 20)"));
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    let other = Daemon::start(&format!("{CONFIG}state.path = \"{}\"\n", state.display()));
    refuses_to_start(&directory, config, &complaint("another postward uses it"));
    drop(other);
    fs::set_permissions(&state, Permissions::from_mode(0o555)).unwrap();
    let config = "server.listen = \"inet:127.0.0.1:0\"\nserver.max_sessions = 10\nstate.path = \"{dir}/state\"\n";
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let user = if root { "nobody".to_owned() } else { command("id", &["-un"]) };
    let closed =
        format!("lock: Permission denied (os error 13); it must belong to user {user}, as whom the daemon runs");
    let complaint = complaint(&closed).replace("{dir}", directory.path().to_str().unwrap());
    assert_eq!(serve_as(as_nobody(), &directory, config), (Some(1), format!("postward: {complaint}\n")));
    assert!(!directory.path().join("s").exists());
}

// Starting

#[test]
fn a_stale_socket_is_replaced() {
    let directory = TempDir::new("d");
    drop(UnixListener::bind(directory.path().join("s")).unwrap());
    let daemon = Daemon::start_in(directory, "server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\n", &[]);
    Milter::connect(daemon.milter()).negotiate();
}

#[test]
fn a_socket_has_its_mode_and_group_and_never_more() {
    let group = if is_root() { "daemon".to_owned() } else { command("id", &["-gn"]) };
    let config = format!(
        "server.listen = [\"unix:{{dir}}/s\", \"local:{{dir}}/t\"]\nserver.max_sessions = 10\n\
         server.socket_mode = \"0626\"\nserver.socket_group = \"{group}\"\n"
    );
    let daemon = Daemon::start(&config);
    for name in ["s", "t"] {
        let socket = fs::metadata(daemon.directory().join(name)).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.permissions().mode() & 0o7777, 0o626);
        let numbers = command("getent", &["group", &group]);
        assert_eq!(numbers.split(':').nth(2), Some(&*socket.gid().to_string()));
    }
    // What the mode was before it was set: nobody else's.
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    assert!(status.contains("\nUmask:\t0077\n"), "{status}");
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// systemd starts what depends on us at READY=1: from then on nobody is turned away.
#[test]
fn it_is_ready_only_when_it_listens() {
    let directory = TempDir::new("d");
    let path = directory.path().join("s");
    let config = format!("server.listen = \"unix:{}\"\nserver.max_sessions = 10\n", path.display());
    let config = directory.write("postward.toml", &config);
    let notify = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let child = Command::new(PROGRAM)
        .args(serving())
        .arg("--config")
        .arg(config)
        .env("NOTIFY_SOCKET", directory.path().join("notify"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _child = Killed(child);
    let mut message = [0; 1000];
    let length = notify.recv(&mut message).unwrap();
    assert!(message[..length].starts_with(b"READY=1"));
    Milter::connect(&format!("unix:{}", path.display())).negotiate();
}

/// A process that does not outlive the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_listener_serves() {
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let ipv6 = if has_ipv6 { "\"inet6:0@::1\", " } else { "" };
    let listen = format!("[\"inet:127.0.0.1:0\", {ipv6}\"inet:0@localhost\", \"unix:{{dir}}/s\", \"local:{{dir}}/t\"]");
    let daemon = Daemon::start(&format!("server.listen = {listen}\nserver.max_sessions = 10\n"));
    assert_eq!(daemon.endpoints().len(), 4 + usize::from(has_ipv6));
    let mut milters: Vec<_> = daemon.endpoints().iter().map(|endpoint| Milter::connect(endpoint)).collect();
    milters.iter_mut().rev().for_each(Milter::negotiate);
}

/// The names of all threads.
fn threads(daemon: &Daemon) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(|task| name(task.unwrap()).trim_end().to_owned()).collect()
}

#[test]
fn so_many_threads_serve_as_the_configuration_says() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    for (line, workers) in [(format!("server.workers = {}", cpus + 1), cpus + 1), (String::new(), (cpus / 4).max(1))] {
        // Which the library that serves would go by.
        let daemon = Daemon::start_with(&format!("{CONFIG}\n{line}\n"), &[("TOKIO_WORKER_THREADS", "7")]);
        let named = |name: &str| threads(&daemon).iter().filter(|thread| *thread == name).count();
        // A thread that has just begun has the name of the one that began it.
        let are_there = || (named("postward") == 1 && named("worker") == workers).then_some(());
        wait_for("threads to serve", are_there);
        assert!(daemon.log().contains(&format!(" workers={workers}\n")), "{}", daemon.log());
        let warning = format!("server.workers: {workers} threads would take turns on the CPUs");
        assert_eq!(daemon.log().contains(&warning), workers > cpus, "{}", daemon.log());
        // Whatever waits for files has threads that are not counted among them.
        let metrics = daemon.metrics();
        let series = "postward_worker_busy_seconds_total";
        let counted = (0..cpus + 2).filter(|worker| metrics.has(series, &[("worker", &worker.to_string())])).count();
        assert_eq!(counted, workers);
        assert!(metrics.get(series, &[]) > 0.0);
        wait_for("the others to have their own names", are_there);
    }
}

// Stopping

#[test]
fn both_signals_end_it_well() {
    for signal in ["TERM", "INT"] {
        let mut daemon = Daemon::start("server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\n");
        let mut milter = Milter::connect(daemon.milter());
        milter.negotiate();
        milter.send(b'Q', b"");
        daemon.signal(signal);
        assert_eq!(daemon.wait_for_exit().code(), Some(0), "{signal}");
        daemon.wait_for_notification("STOPPING=1");
        assert!(milter.is_closed() && !daemon.directory().join("s").exists());
        assert!(daemon.log().ends_with(" INFO stopped\n"), "{}", daemon.log());
    }
}

/// As systemd has it for `WatchdogSec=`; a process that was started by another is not meant.
#[test]
fn the_watchdog_is_fed_if_it_is_ours() {
    let config = "server.listen = [\"unix:{dir}/s\", \"inet:127.0.0.1:0\"]\nserver.max_sessions = 10\n";
    let mut daemon = Daemon::start_with(config, &[("WATCHDOG_USEC", "100000")]);
    for _ in 0..3 {
        daemon.wait_for_notification("WATCHDOG=1");
    }
    // Also where nobody else is let in: being full is no reason to be restarted.
    let _milters: Vec<_> = (0..10).map(|_| Milter::connect(daemon.milter())).collect();
    daemon.wait_for_notification("WATCHDOG=1");
    assert!(!daemon.log().contains("watchdog:"), "{}", daemon.log());
    let mut other = Daemon::start_with(config, &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")]);
    other.signal("TERM");
    assert_eq!(other.wait_for_exit().code(), Some(0));
    other.wait_for_notification("STOPPING=1");
    assert!(!other.was_notified("WATCHDOG=1"));
}

/// The client is between EHLO and MAIL: what it says now is still answered by the rules.
#[test]
fn who_is_about_to_begin_a_message_when_it_stops_is_served() {
    let mut daemon = Daemon::start("server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\n");
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
    daemon.signal("TERM");
    daemon.wait_for_notification("STOPPING=1");
    assert_eq!(milter.ask(b'M', b"<a@a.example>\0").0, b'c');
    drop(milter);
    assert_eq!(daemon.wait_for_exit().code(), Some(0));
}

/// Whoever does not end in the time that `drain` gives is closed, and told of; without it that would be half a minute.
#[test]
#[expect(clippy::disallowed_methods, reason = "how long a real process takes is measured")]
fn a_transaction_has_as_long_as_drain_says() {
    let mut daemon = Daemon::start(&CONFIG.replace("max_sessions", "drain = \"100ms\"\nserver.max_sessions"));
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
    assert_eq!(milter.ask(b'M', b"<a@a.example>\0").0, b'c');
    let began = std::time::Instant::now();
    assert!(daemon.terminate().success());
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(milter.is_closed());
    daemon.wait_for_log("closing sessions whose transactions did not end in time");
}

/// A socket that another daemon has put in the place of ours is not ours to remove.
#[test]
fn a_socket_that_was_replaced_is_left_alone() {
    let mut daemon = Daemon::start("server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\n");
    let path = daemon.directory().join("s");
    let other = path.with_file_name("t");
    let _listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(daemon.terminate().code(), Some(0));
    UnixStream::connect(&path).unwrap();
}

// What outlives it

const KEEPING: &str = r#"
server.listen = "unix:{dir}/s"
server.max_sessions = 10
http.listen = "127.0.0.1:0"
state = { path = "{dir}/state", interval = "1s" }

[[rule]]
name = "rate"
limit = { key = "helo", connections = "2/hour" }
reply = "421 4.7.0 Too many"
disconnect = true
"#;

fn keeping() -> Daemon {
    let directory = TempDir::new("d");
    fs::create_dir(directory.path().join("state")).unwrap();
    Daemon::start_in(directory, KEEPING, &[])
}

/// Whether somebody who says this HELO is let in; that is charged.
fn is_let_in(daemon: &Daemon, helo: &str) -> bool {
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
    milter.ask(b'H', format!("{helo}\0").as_bytes());
    milter.ask(b'M', b"<a@a.example>\0").0 == b'c'
}

#[test]
fn a_damaged_state_file_is_set_aside_and_the_next_one_is_whole() {
    let mut daemon = keeping();
    assert!(is_let_in(&daemon, "one") && is_let_in(&daemon, "one") && !is_let_in(&daemon, "one"));
    assert!(daemon.terminate().success());
    let file = daemon.directory().join("state/counters");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    daemon.restart();
    let line = daemon.wait_for_log("cannot be used; starting with empty ones");
    assert!(line.contains("ERROR") && line.contains("problem=\"checksum: it ends too early\""), "{line}");
    let aside = line.split("aside=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(aside.contains("/state/counters.damaged-") && fs::read(aside).unwrap() == whole[..whole.len() - 1]);
    assert!(is_let_in(&daemon, "one") && !file.exists());
    assert!(daemon.terminate().success());
    daemon.restart();
    daemon.wait_for_log("took over the counters");
    assert!(is_let_in(&daemon, "one") && !is_let_in(&daemon, "one"));
}

#[test]
fn what_cannot_be_saved_is_told_once_and_mail_goes_on() {
    let mut daemon = keeping();
    let obstacle = daemon.directory().join("state/counters.new");
    fs::create_dir(&obstacle).unwrap();
    let saves =
        |daemon: &Daemon, result: &str| daemon.metrics().get("postward_state_saves_total", &[("result", result)]);
    assert!(is_let_in(&daemon, "one"));
    wait_for("two failures", || (saves(&daemon, "failed") >= 2.0).then_some(()));
    assert_eq!(daemon.log().matches("cannot save counters").count(), 1, "{}", daemon.log());
    fs::remove_dir(&obstacle).unwrap();
    daemon.wait_for_log("counters are saved in");
    let metrics = daemon.metrics();
    let bytes = fs::metadata(daemon.directory().join("state/counters")).unwrap().len();
    assert_eq!(metrics.get("postward_state_bytes", &[]), bytes as f64);
    assert!(metrics.get("postward_state_last_save_timestamp_seconds", &[]) > 1.7e9);
    assert!(metrics.get("postward_state_save_duration_seconds", &[]) > 0.0);
    assert!(daemon.terminate().success());
}

/// Whether anybody asks for them again or not.
#[test]
fn keys_whose_time_is_over_are_forgotten() {
    let daemon = Daemon::start(&KEEPING.replace("2/hour", "100/1s").replace("state = {", "# {"));
    assert!(is_let_in(&daemon, "one") && is_let_in(&daemon, "two"));
    daemon.wait_for_metric("postward_limit_keys", &[], 0.0);
}

// Connections

#[test]
fn whoever_says_nothing_blocks_nobody() {
    let daemon = Daemon::start(CONFIG);
    let silent: Vec<_> = (0..20).map(|_| Milter::connect(daemon.milter())).collect();
    let mut half = Milter::connect(daemon.milter());
    half.stream.write_all(&[0, 0, 0, 13, b'O', 0]).unwrap();
    let silent_http: Vec<_> = (0..5).map(|_| TcpStream::connect(daemon.http_address()).unwrap()).collect();
    Milter::connect(daemon.milter()).negotiate();
    assert_eq!(daemon.http("/readyz"), (200, "ready\n".to_owned()));
    drop((silent, half, silent_http));
}

#[test]
fn what_makes_no_sense_closes_that_connection_only() {
    let daemon = Daemon::start(CONFIG);
    let mut good = Milter::connect(daemon.milter());
    for bytes in [&[0, 0, 0, 0][..], &[255, 255, 255, 255], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 1, 0x1b]] {
        let mut bad = Milter::connect(daemon.milter());
        bad.stream.write_all(bytes).unwrap();
        assert!(bad.is_closed(), "{bytes:?}");
    }
    assert_eq!(daemon.metrics().get("postward_protocol_errors_total", &[]), 4.0);
    good.negotiate();
    wait_for("four warnings", || (daemon.log().matches(" WARN ").count() == 4).then_some(()));
}

// Pages

#[test]
fn pages_answer_as_a_prober_expects() {
    let daemon = Daemon::start(CONFIG);
    let answer =
        |request: &str| daemon.http_raw(&format!("{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
    for (request, status) in [
        ("GET /healthz", 200),
        ("GET /readyz", 200),
        ("GET /metrics?x=y", 200),
        ("HEAD /metrics", 200),
        ("HEAD /healthz", 200),
        // Nobody whom it knows: a page of another site may have led the browser there.
        ("GET /", 421),
        ("GET /metrics/", 404),
        ("GET /../etc/passwd", 404),
        ("HEAD /nowhere", 404),
        ("POST /metrics", 405),
        ("DELETE /healthz", 405),
        ("PUT /nowhere", 405),
    ] {
        let answer = answer(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request}: {answer}");
        let is_metrics = request.contains(" /metrics") && status == 200;
        let content_type = if is_metrics { "text/plain; version=0.0.4" } else { "text/plain; charset=utf-8" };
        assert!(head.to_lowercase().contains(&format!("content-type: {content_type}")), "{request}: {head}");
    }
}

#[test]
fn a_method_refused_names_those_allowed() {
    let daemon = Daemon::start(CONFIG);
    let answer = daemon.http_raw("POST /metrics HTTP/1.0\r\n\r\n").to_lowercase();
    assert!(answer.contains("\r\nallow: get, head\r\n"), "{answer}");
}

/// Alerts on a rate need the zero before the first event.
#[test]
fn every_series_is_there_at_zero_from_the_start() {
    let rules = r#"
[[rule]]
name = "first"
when.client = "192.0.2.1"
then = "accept"

[[rule]]
name = "second"
limit = { key = "client", messages = "10/hour" }

[[rule]]
name = "third"
when.size = "> 1 MiB"
mode = "monitor"
"#;
    let daemon = Daemon::start(&format!("{CONFIG}{rules}"));
    let metrics = daemon.metrics();
    let zero = |name: &str, labels: &[(&str, &str)]| {
        assert!(metrics.has(name, labels), "{name} {labels:?}: {}", metrics.text());
        assert_eq!(metrics.get(name, labels), 0.0, "{name} {labels:?}");
    };
    for (rule, action, mode) in
        [("first", "accept", "enforce"), ("second", "refuse", "enforce"), ("third", "refuse", "monitor")]
    {
        zero("postward_rule_matches_total", &[("rule", rule), ("action", action), ("mode", mode)]);
    }
    for (stage, code, enhanced, mode) in [
        ("mail", "452", "4.3.1", "enforce"),
        ("mail", "552", "5.3.4", "monitor"),
        ("end-of-message", "552", "5.3.4", "monitor"),
        ("mail", "451", "4.3.0", "enforce"),
        ("rcpt", "452", "4.5.3", "enforce"),
    ] {
        let labels = [("stage", stage), ("code", code), ("enhanced_code", enhanced), ("mode", mode)];
        zero("postward_replies_total", &labels);
    }
    for check in ["within", "over", "blocked", "failed"] {
        zero("postward_limit_checks_total", &[("rule", "second"), ("measure", "messages"), ("result", check)]);
    }
    for (cause, outcome) in [("bug", "accepted"), ("lookup", "deferred"), ("not-granted", "deferred")] {
        zero("postward_on_error_total", &[("cause", cause), ("outcome", outcome)]);
    }
    zero("postward_limit_fullness_ratio_count", &[("rule", "second"), ("measure", "messages")]);
    let listen = daemon.milter();
    for name in ["postward_message_size_bytes_count", "postward_message_recipients_count"] {
        zero(name, &[("listen", listen)]);
    }
    for name in [
        "postward_deadline_exceeded_total",
        "postward_connections_total",
        "postward_connections_active",
        "postward_connections_shed_total",
        "postward_protocol_errors_total",
        "postward_internal_errors_total",
        "postward_limit_keys",
        "postward_limit_evictions_total",
        "postward_messages_total",
        "postward_recipients_total",
        "postward_state_last_save_timestamp_seconds",
        "postward_state_save_duration_seconds",
        "postward_state_bytes",
    ] {
        zero(name, &[]);
    }
    for result in ["ok", "failed"] {
        zero("postward_state_saves_total", &[("result", result)]);
    }
    for stage in ["connect", "mail", "rcpt", "data", "end-of-message"] {
        zero("postward_stage_duration_seconds_count", &[("stage", stage)]);
    }
    assert_eq!(metrics.get("postward_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(metrics.get("postward_policy_info", &[("rules", "3"), ("mode", "enforce")]), 1.0);
    assert!(metrics.has("process_start_time_seconds", &[]));
}

/// The exemplar of a counter is the decision that the log tells of.
#[test]
fn who_asks_for_openmetrics_has_it_with_the_id_of_the_last_decision() {
    let rule = "[[rule]]\nname = \"closed\"\nwhen.client = \"192.0.2.1\"\nreply = \"550 5.7.1 No\"\n";
    let daemon = Daemon::start(&format!("{CONFIG}{rule}"));
    let ask = |accept: &str| {
        let request = format!("GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
        let answer = daemon.http_raw(&request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap().to_owned();
        (kind, body.to_owned())
    };
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    assert_eq!(milter.ask(b'C', b"mx\x004\0\x19192.0.2.1\0").0, b'c');
    assert_eq!(milter.ask(b'M', b"<a@b.example>\0").0, b'y');
    let line = daemon.wait_for_log("refuse");
    let (_, id) = line.split_once(" id=").unwrap();
    let id = id.split(' ').next().unwrap().trim_matches('"');

    let (kind, body) = ask("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(body.ends_with("\n# EOF\n"), "{body}");
    for series in [
        "postward_replies_total{code=\"550\",enhanced_code=\"5.7.1\",mode=\"enforce\",stage=\"mail\"} 1",
        "postward_rule_matches_total{action=\"refuse\",mode=\"enforce\",rule=\"closed\"} 1",
    ] {
        assert!(body.contains(&format!("{series} # {{decision_id=\"{id}\"}} 1 ")), "{id}\n{body}");
    }
    let slowest = body.lines().filter(|line| line.contains("_bucket{stage=\"mail\"") && line.contains(id));
    assert_eq!(slowest.count(), 1, "one bucket has it\n{body}");

    let (kind, body) = ask("text/plain");
    assert_eq!(kind, "text/plain; version=0.0.4");
    assert!(!body.contains("decision_id") && !body.contains("# EOF"), "{body}");
}
