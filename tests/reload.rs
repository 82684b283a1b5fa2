//! A configuration in place of another, in the running program: what changes, what stays, and what refuses to.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::Value;

use support::Daemon;
use support::Milter;
use support::PATIENCE;
use support::postward;
use support::wait_for;

const SERVER: &str = r#"
http.listen = "127.0.0.1:0"

[server]
listen = ["inet:127.0.0.1:0", "unix:{dir}/s"]
control = "{dir}/control"
max_sessions = 100
"#;

const REFUSE_A: &str = "[[rule]]\nname = \"a\"\nwhen.sender = \"a@a.example\"\nreply = \"550 5.7.1 Not a\"\n";
const REFUSE_B: &str = "[[rule]]\nname = \"b\"\nwhen.sender = \"b@b.example\"\nreply = \"553 5.1.8 Not b\"\n";
const LIMIT: &str = "[[rule]]\nname = \"rate\"\nlimit = { key = \"helo\", connections = \"5/hour\" }\nreply = \"421 4.7.0 Too many\"\ndisconnect = true\n";

fn with(rules: &str) -> String {
    format!("{SERVER}\n{rules}")
}

/// The answer to MAIL, after a negotiation and CONNECT.
fn mail(milter: &mut Milter, sender: &str) -> String {
    let (code, data) = milter.ask(b'M', format!("<{sender}>\0").as_bytes());
    format!("{}{}", char::from(code), String::from_utf8_lossy(&data).trim_end_matches('\0'))
}

fn session(endpoint: &str) -> Milter {
    let mut milter = Milter::connect(endpoint);
    milter.negotiate();
    milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
    milter
}

fn reload(daemon: &Daemon, arguments: &[&str]) -> Output {
    let control = daemon.directory().join("control");
    postward(&[&["reload", "--control", control.to_str().unwrap()], arguments].concat())
}

/// Reloads; the configuration must be taken.
#[track_caller]
fn reloads(daemon: &Daemon, config: &str) -> String {
    daemon.rewrite(config);
    let output = reload(daemon, &[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.starts_with("reloaded: configuration "), "{told}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn sessions_that_begin_have_the_new_rules_and_those_that_are_open_the_old() {
    let mut daemon = Daemon::start(&with(REFUSE_A));
    let mut open = session(daemon.milter());
    assert_eq!(mail(&mut open, "a@a.example"), "y550 5.7.1 Not a");
    daemon.rewrite(&with(REFUSE_B));
    daemon.signal("HUP");
    daemon.wait_for_notification("RELOADING=1");
    daemon.wait_for_notification("MONOTONIC_USEC=");
    daemon.wait_for_notification("READY=1");
    let mut new = session(daemon.milter());
    assert_eq!(mail(&mut new, "a@a.example"), "c");
    new.send(b'A', &[]);
    assert_eq!(mail(&mut new, "b@b.example"), "y553 5.1.8 Not b");
    open.send(b'A', &[]);
    assert_eq!(mail(&mut open, "a@a.example"), "y550 5.7.1 Not a");
    open.send(b'A', &[]);
    assert_eq!(mail(&mut open, "b@b.example"), "c");

    // Both have counted, each under its own rules; what was counted for rules that are no more is gone with their sessions.
    let metrics = daemon.metrics();
    let replies = |code: &str| metrics.get("postward_replies_total", &[("code", code)]);
    assert_eq!((replies("550"), replies("553")), (2.0, 1.0));
    assert_eq!(metrics.get("postward_rule_matches_total", &[("rule", "a")]), 2.0);
    drop(open);
    wait_for("the old rule's series to go", || {
        (!daemon.metrics().has("postward_rule_matches_total", &[("rule", "a")])).then_some(())
    });
    let metrics = daemon.metrics();
    assert_eq!(metrics.get("postward_rule_matches_total", &[("rule", "b")]), 1.0);
    assert_eq!(metrics.get("postward_replies_total", &[]), 3.0, "no reply is forgotten");
    assert_eq!(metrics.get("postward_config_reloads_total", &[("result", "ok")]), 1.0);
    assert_eq!(metrics.get("postward_policy_info", &[]), 1.0);
    daemon.wait_for_log("configuration reloaded");
}

#[test]
fn a_configuration_with_an_error_changes_nothing_and_says_why_everywhere() {
    let daemon = Daemon::start(&with(REFUSE_A));
    let info = |daemon: &Daemon| daemon.metrics().by("postward_policy_info", &["hash", "rules", "mode"]);
    let before = info(&daemon);
    daemon.rewrite(&with("[[rule]]\nname = \"a\"\nwhen.sendr = \"a@a.example\"\n"));
    let refused = reload(&daemon, &[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("unknown key `sendr`") && said.contains("postward.toml:"), "{said}");
    assert!(
        said.contains("\npostward: not reloaded: 1 error; configuration ") && said.contains("stays in force"),
        "{said}"
    );
    let line = daemon.wait_for_log("not reloaded, the configuration before stays in force: 1 error");
    assert!(line.contains("ERROR"), "{line}");
    daemon.wait_for_log("configuration: unknown key");
    let metrics = daemon.metrics();
    assert_eq!(metrics.get("postward_config_last_reload_successful", &[]), 0.0);
    assert_eq!(metrics.get("postward_config_reloads_total", &[("result", "failed")]), 1.0);
    assert_eq!(info(&daemon), before);
    assert_eq!(mail(&mut session(daemon.milter()), "a@a.example"), "y550 5.7.1 Not a");

    // The same for programs.
    let refused = reload(&daemon, &["--format", "json"]);
    let told: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &told["in_force"]), (Some(2), &Value::Bool(false)));
    assert_eq!(told["diagnostics"][0]["message"], "unknown key `sendr`", "{told}");
    assert_eq!(vec![told["hash"].as_str().unwrap(), "1", "enforce"], *before.keys().next().unwrap());

    reloads(&daemon, &with(REFUSE_B));
    assert_eq!(daemon.metrics().get("postward_config_last_reload_successful", &[]), 1.0);
    assert_eq!(mail(&mut session(daemon.milter()), "a@a.example"), "c");
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let daemon = Daemon::start(&with(REFUSE_A));
    fs::remove_file(daemon.directory().join("postward.toml")).unwrap();
    let refused = reload(&daemon, &[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("not reloaded: cannot read ") && said.contains("No such file"), "{said}");
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(mail(&mut session(daemon.milter()), "a@a.example"), "y550 5.7.1 Not a");
}

#[test]
fn only_listeners_that_changed_are_touched() {
    let daemon = Daemon::start(&with(REFUSE_A));
    let socket = daemon.directory().join("s");
    let inode = fs::metadata(&socket).unwrap().ino();
    let tcp = daemon.milter().to_owned();
    let mut on_tcp = session(&tcp);
    let config = with(REFUSE_A).replace("\"inet:127.0.0.1:0\"", "\"unix:{dir}/t\"");
    reloads(&daemon, &config.replace("max_sessions", "socket_mode = \"0666\"\nmax_sessions"));
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
    assert_eq!(mail(&mut session(&format!("unix:{}", socket.display())), "a@a.example"), "y550 5.7.1 Not a");
    let new = format!("unix:{}/t", daemon.directory().display());
    assert_eq!(mail(&mut session(&new), "a@a.example"), "y550 5.7.1 Not a");
    // Nobody listens there any more, but who is connected is served to the end.
    let address = tcp.strip_prefix("inet:").unwrap();
    let connect = || std::net::TcpStream::connect(address).map_err(|error| error.kind());
    wait_for("the listener to close", || connect().is_err().then_some(()));
    assert_eq!(mail(&mut on_tcp, "a@a.example"), "y550 5.7.1 Not a");
    // The file of a unix socket goes with it.
    reloads(&daemon, &with(REFUSE_A));
    wait_for("the socket to go", || (!daemon.directory().join("t").exists()).then_some(()));
    assert_eq!(mail(&mut session(&tcp), "a@a.example"), "y550 5.7.1 Not a");
}

#[test]
fn a_listener_that_cannot_be_had_refuses_all() {
    let daemon = Daemon::start(&with(REFUSE_A));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[\"unix:{{dir}}/t\", \"inet:{}\"]", taken.local_addr().unwrap());
    daemon.rewrite(&with(REFUSE_B).replace("[\"inet:127.0.0.1:0\", \"unix:{dir}/s\"]", &listen));
    let refused = reload(&daemon, &[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("not reloaded: server.listen: cannot listen on inet:") && said.contains("in use"), "{said}");
    assert!(!daemon.directory().join("t").exists());
    assert_eq!(mail(&mut session(daemon.milter()), "a@a.example"), "y550 5.7.1 Not a");
}

#[test]
fn what_takes_a_restart_is_said() {
    let daemon = Daemon::start(&with(REFUSE_A));
    let changed = with(REFUSE_A).replace("{dir}/control", "{dir}/other");
    let changed = changed.replace("max_sessions", "workers = 2\nmax_sessions") + "\n[log]\nformat = \"json\"\n";
    let said = reloads(&daemon, &changed);
    assert!(said.contains("postward: server.control has changed, which takes a restart\n"), "{said}");
    assert!(said.contains("postward: server.workers has changed, which takes a restart\n"), "{said}");
    assert!(said.contains("postward: log.format has changed, which takes a restart\n"), "{said}");
    // Until it is restarted, whatever is reloaded meanwhile.
    let control = daemon.directory().join("control");
    let again = postward(&["reload", "--control", control.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&again.stderr), said);
    assert_eq!(reloads(&daemon, &with(REFUSE_A)), "");
}

/// Whoever may write where the socket is must not have the daemon open other files of its own to the group.
#[test]
fn only_a_socket_gets_the_mode_of_sockets() {
    let daemon = Daemon::start(&with(REFUSE_A));
    daemon.write("secret", "x");
    let [socket, secret] = ["s", "secret"].map(|name| daemon.directory().join(name));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink(&secret, &socket).unwrap();
    daemon.rewrite(&with(REFUSE_B).replace("max_sessions", "socket_mode = \"0666\"\nmax_sessions"));
    let refused = reload(&daemon, &[]);
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("is not a socket"), "{said}");
    assert_eq!(mail(&mut session(daemon.milter()), "a@a.example"), "y550 5.7.1 Not a");
}

/// One try, as a client that says this HELO; whether it was let in. That is charged.
fn is_let_in(daemon: &Daemon, helo: &str) -> bool {
    let mut milter = session(daemon.milter());
    milter.ask(b'H', format!("{helo}\0").as_bytes());
    mail(&mut milter, "x@x.example") == "c"
}

#[test]
fn counts_and_blocks_stay_whatever_else_changes() {
    let daemon = Daemon::start(&with(&format!("{REFUSE_A}{LIMIT}")));
    assert!((0..3).all(|_| is_let_in(&daemon, "one")));
    let control = daemon.directory().join("control");
    let limits = |arguments: &[&str]| {
        let output = postward(&[&["limits"], arguments, &["--control", control.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    limits(&["block", "two", "--for", "1h"]);
    // Another place, and more room.
    let said = reloads(&daemon, &with(&format!("{LIMIT}{REFUSE_B}").replace("5/hour", "6/hour")));
    assert_eq!(said, "");
    assert!((0..3).all(|_| is_let_in(&daemon, "one")) && !is_let_in(&daemon, "one"));
    assert!(!is_let_in(&daemon, "two"));
    let listed = limits(&["list", "--limited"]);
    assert!(listed.contains("one") && listed.contains("two"), "{listed}");
    // Less room, than more: who is limited is found out anew.
    reloads(&daemon, &with(&LIMIT.replace("5/hour", "4/hour")));
    assert!(!is_let_in(&daemon, "one"));
    reloads(&daemon, &with(&LIMIT.replace("5/hour", "7/hour")));
    assert!(!limits(&["list", "--limited"]).contains("one"));
    assert!(is_let_in(&daemon, "one") && !is_let_in(&daemon, "one"));
    // A rule of another name is another limit, and that is said.
    let said = reloads(&daemon, &with(&LIMIT.replace("\"rate\"", "\"renamed\"")));
    assert!(
        said.contains("counters of rule `rate`, connections by helo: not in this configuration; dropped, keys: 2"),
        "{said}"
    );
    assert!(is_let_in(&daemon, "one") && is_let_in(&daemon, "two"));
    daemon.wait_for_metric("postward_limit_keys", &[], 2.0);
}

/// Asks for one reload after the other, and gives how many were done.
fn keep_reloading(daemon: &Daemon, times: u64, policies: &[String]) -> u64 {
    let mut stream = UnixStream::connect(daemon.directory().join("control")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for time in 0..times {
        daemon.rewrite(&policies[usize::try_from(time).unwrap() % policies.len()]);
        stream.write_all(b"{\"version\":1,\"command\":\"reload\"}\n").unwrap();
        let told: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(told["reload"]["in_force"], true, "{told}");
        lines.next().unwrap().unwrap();
    }
    times
}

/// A field of /proc/PID/status, in KiB or as a count.
fn status(daemon: &Daemon, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files(daemon: &Daemon) -> usize {
    fs::read_dir(Path::new("/proc").join(daemon.id().to_string()).join("fd")).unwrap().count()
}

#[test]
fn a_thousand_reloads_under_load_drop_nothing_and_leak_nothing() {
    const RELOADS: u64 = 1000;
    const WARM_UP: u64 = 200;
    let limit =
        "[[rule]]\nname = \"tries\"\nlimit = { key = \"sender\", messages = \"1000000/hour\", overrides = \"@own\" }\n";
    let policies: Vec<String> = (1..=7)
        .map(|amount| {
            let own = format!("[lists.own.limits]\n\"x@x.example\" = {{ messages = \"{amount}00000/hour\" }}\n");
            let rules = format!("{own}{REFUSE_A}{limit}{}", REFUSE_B.replace("\"b\"", &format!("\"b{amount}\"")));
            // Decisions are kept up to a number that is not reached here.
            with(&rules).replace("http.listen", "http.decisions = 0\nhttp.listen")
        })
        .collect();
    // Every thread that frees a policy has an arena of its own, whose size would hide what is lost.
    let daemon = Daemon::start_with(&policies[0], &[("MALLOC_ARENA_MAX", "1")]);
    let (stop, sessions, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let play = |endpoint: &str| {
        while !stop.load(Ordering::Relaxed) {
            let mut milter = session(endpoint);
            assert_eq!(mail(&mut milter, "a@a.example"), "y550 5.7.1 Not a");
            milter.send(b'A', &[]);
            assert_eq!(mail(&mut milter, "x@x.example"), "c");
            assert_eq!(milter.ask(b'R', b"<r@r.example>\0").0, b'c');
            assert_eq!(milter.ask(b'E', b"").0, b'c');
            milter.send(b'Q', &[]);
            sessions.fetch_add(1, Ordering::Relaxed);
            refused.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (reloads, before, after) = thread::scope(|scope| {
        let clients: Vec<_> = daemon.endpoints().iter().flat_map(|endpoint| [endpoint; 2]).collect();
        let clients: Vec<_> = clients.into_iter().map(|endpoint| scope.spawn(|| play(endpoint))).collect();
        let warm = keep_reloading(&daemon, WARM_UP, &policies);
        let before = status(&daemon, "VmRSS");
        let reloads = warm + keep_reloading(&daemon, RELOADS - WARM_UP, &policies);
        let after = status(&daemon, "VmRSS");
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        (reloads, before, after)
    });
    daemon.wait_for_metric("postward_connections_active", &[], 0.0);
    let sessions = sessions.into_inner() as f64;
    let metrics = daemon.metrics();
    assert!(sessions > 1000.0, "{sessions}");
    assert_eq!(metrics.get("postward_config_reloads_total", &[("result", "ok")]), reloads as f64);
    assert_eq!(metrics.get("postward_connections_total", &[]), sessions);
    assert_eq!(metrics.get("postward_replies_total", &[("code", "550")]), refused.into_inner() as f64);
    assert_eq!(metrics.get("postward_messages_total", &[("result", "accepted")]), sessions);
    // Every message counts, under whichever policy it came; the last one comes under the policy in force, and so has its row.
    let mut last = session(daemon.milter());
    assert_eq!(mail(&mut last, "x@x.example"), "c");
    last.send(b'A', &[]);
    assert_eq!(mail(&mut last, "y@y.example"), "c");
    let control = daemon.directory().join("control");
    let shown =
        postward(&["limits", "show", "x@x.example", "--format", "json", "--control", control.to_str().unwrap()]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["limits"][0]["bounds"][0]["used"], sessions, "{shown}");
    assert_eq!(shown["limits"][0]["override"], "x@x.example", "{shown}");
    // Only the rules of the policy in force have series, and no file is left open.
    assert_eq!(metrics.text().matches("postward_rule_matches_total{").count(), 3, "{}", metrics.text());
    assert!(open_files(&daemon) < 40, "{} open files", open_files(&daemon));
    assert!(after < before + 2 * 1024, "it grew from {before} to {after} KiB in {} reloads", RELOADS - WARM_UP);
    println!("{reloads} reloads beside {sessions} sessions; {before} KiB after {WARM_UP}, {after} KiB in the end");
}

/// Nobody can be asked who stands in a file that cannot be read.
#[test]
fn a_file_that_does_not_tell_the_socket_is_told_apart_from_a_reload_that_failed() {
    let daemon = Daemon::start(&with(REFUSE_A));
    let path = daemon.directory().join("postward.toml");
    fs::write(&path, "[server]\ncontrol = \"\n").unwrap();
    let output = postward(&["reload", "--config", path.to_str().unwrap()]);
    let errors = String::from_utf8(output.stderr).unwrap();
    let last = format!(
        "\npostward: 1 error in {}; the daemon was not asked, and what is in force stays; \
         with --control PATH it is asked without reading this file\n",
        path.display()
    );
    assert!(errors.ends_with(&last), "{errors}");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(mail(&mut session(daemon.milter()), "a@a.example"), "y550 5.7.1 Not a");
}
