//! More connections than there is room for, or than there are files: each gets an answer, and the daemon lives.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::io::Write as _;

use support::Daemon;
use support::Milter;
use support::wait_for;

const SERVER: &str = r#"
http.listen = "127.0.0.1:0"

[server]
listen = ["inet:127.0.0.1:0", { endpoint = "unix:{dir}/s", max_sessions = 1 }]
max_sessions = 3
"#;

const RULE: &str = "[[rule]]\nname = \"a\"\nwhen.sender = \"a@a.example\"\n";

fn config(settings: &str) -> String {
    format!("{SERVER}{settings}\n{RULE}")
}

/// The answer to CONNECT, and whether the connection is closed after it.
fn connect(endpoint: &str) -> (String, bool) {
    let mut milter = Milter::connect(endpoint);
    milter.negotiate();
    let (code, data) = milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
    let answer = format!("{}{}", char::from(code), String::from_utf8_lossy(&data).trim_end_matches('\0'));
    let is_over = answer != "c" && milter.is_closed();
    (answer, is_over)
}

fn served(endpoint: &str) -> Milter {
    let mut milter = Milter::connect(endpoint);
    milter.negotiate();
    assert_eq!(milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0").0, b'c');
    milter
}

const BUSY: &str = "y421 4.3.2 Too many sessions, try again later";

#[test]
fn who_finds_no_room_is_told_to_come_again() {
    let daemon = Daemon::start(&config(""));
    let tcp = daemon.milter();
    let mut open: Vec<_> = (0..3).map(|_| served(tcp)).collect();
    assert_eq!(connect(tcp), (BUSY.to_owned(), true));
    assert_eq!(connect(tcp), (BUSY.to_owned(), true));
    let line = daemon.wait_for_log("refuse id=");
    assert!(line.contains("stage=\"connect\"") && line.contains("client=192.0.2.1"), "{line}");
    daemon.wait_for_log("raise max_sessions");
    open.pop();
    daemon.wait_for_metric("postward_connections_active", &[], 2.0);
    open.push(served(tcp));
    let metrics = daemon.metrics();
    assert_eq!(metrics.get("postward_connections_shed_total", &[("result", "deferred")]), 2.0);
    assert_eq!(metrics.get("postward_replies_total", &[("code", "421"), ("enhanced_code", "4.3.2")]), 2.0);
    assert_eq!(metrics.get("postward_connections_total", &[]), 4.0, "only those that were served");
}

#[test]
fn or_passes_unseen() {
    for settings in ["on_overload = \"accept\"", "[policy]\nmode = \"monitor\""] {
        let daemon = Daemon::start(&config(settings));
        let _open: Vec<_> = (0..3).map(|_| served(daemon.milter())).collect();
        assert_eq!(connect(daemon.milter()), ("a".to_owned(), true), "{settings}");
        let metrics = daemon.metrics();
        assert_eq!(metrics.get("postward_connections_shed_total", &[("result", "accepted")]), 1.0);
        assert_eq!(metrics.get("postward_replies_total", &[]), 0.0);
    }
}

#[test]
fn a_listener_with_little_room_leaves_the_others_theirs() {
    let daemon = Daemon::start(&config(""));
    let [tcp, unix] = daemon.endpoints() else { panic!("{:?}", daemon.endpoints()) };
    let _open = served(unix);
    assert_eq!(connect(unix).0, BUSY);
    let _others = [served(tcp), served(tcp)];
    assert_eq!(connect(tcp).0, BUSY);
    // With more room for it, and for all.
    daemon.rewrite(
        &config("").replace("max_sessions = 1", "max_sessions = 2").replace("max_sessions = 3", "max_sessions = 4"),
    );
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded");
    let _one_more = served(unix);
    assert_eq!(connect(unix).0, BUSY);
}

/// Who only connects cannot keep others from being told.
#[test]
fn silence_above_the_most_does_not_last() {
    const SILENT: usize = 256;
    let daemon = Daemon::start(&config(""));
    let tcp = daemon.milter();
    let _open: Vec<_> = (0..3).map(|_| served(tcp)).collect();
    let silent: Vec<_> = (0..SILENT).map(|_| Milter::connect(tcp)).collect();
    // They are taken one after the other; above their most, connections are closed at once.
    assert!(Milter::connect(tcp).is_closed());
    daemon.wait_for_metric("postward_connections_shed_total", &[("result", "closed")], 1.0);
    daemon.wait_for_metric("postward_connections_shed_total", &[("result", "closed")], SILENT as f64 + 1.0);
    drop(silent);
    assert_eq!(connect(tcp).0, BUSY);
}

/// Thousands of sessions within their bounds are more than a host has memory for.
#[test]
fn who_keeps_much_when_all_keep_too_much_is_closed() {
    const HALF: usize = 900 << 10;
    let config = config("max_memory = \"16 MiB\"").replace("max_sessions = 3", "max_sessions = 100");
    let daemon = Daemon::start(&config);
    let half_a_frame = || {
        let mut milter = Milter::connect(daemon.milter());
        milter.negotiate();
        let frame = [&(1_u32 << 20).to_be_bytes()[..], b"B", &vec![b'x'; HALF]].concat();
        // Whoever is closed may not take all of it.
        let is_written = milter.stream.write_all(&frame).is_ok();
        (milter, is_written)
    };
    let mut open: Vec<_> = (0..12).map(|_| half_a_frame().0).collect();
    let bytes = || daemon.metrics().get("postward_session_memory_bytes", &[]);
    wait_for("their frames to arrive", || (bytes() > (12 * HALF) as f64).then_some(()));
    assert_eq!(daemon.metrics().get("postward_connections_shed_total", &[("result", "closed")]), 0.0);
    open.extend((0..20).map(|_| half_a_frame().0));
    daemon.wait_for_log("sessions keep more than server.max_memory together");
    let closed = || daemon.metrics().get("postward_connections_shed_total", &[("result", "closed")]);
    wait_for("some to be closed", || (closed() >= 10.0).then_some(()));
    // Who keeps little is served all the while.
    assert_eq!(connect(daemon.milter()).0, "c");
    assert!(bytes() < f64::from(20 << 20), "{}", bytes());
    drop(open);
    wait_for("the memory to be given back", || (bytes() == 0.0).then_some(()));
}

#[test]
fn without_files_connections_are_closed_and_the_daemon_lives() {
    const MOST: usize = 64;
    let config = config("").replace("max_sessions = 3", "max_sessions = 1000");
    let daemon = Daemon::start_limited(&config, MOST);
    let tcp = daemon.milter();
    daemon.wait_for_log("too few open files");
    let mut open = Vec::new();
    let mut closed = 0;
    for _ in 0..2 * MOST {
        let mut milter = Milter::connect(tcp);
        let mut offer = vec![0, 0, 0, 13, b'O'];
        offer.extend([0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0, 0, 0]);
        if milter.stream.write_all(&offer).is_err() || milter.is_closed() {
            closed += 1;
        } else {
            open.push(milter);
        }
    }
    assert!(closed >= MOST && open.len() > MOST / 3, "{closed} closed, {} open", open.len());
    daemon.wait_for_log("cannot accept a connection");
    let served = open.len();
    open.clear();
    daemon.wait_for_metric("postward_connections_active", &[], 0.0);
    assert_eq!(connect(tcp).0, "c");
    let metrics = daemon.metrics();
    assert!(metrics.get("postward_accept_errors_total", &[]) >= closed as f64);
    assert!(metrics.get("postward_connections_shed_total", &[("result", "closed")]) >= closed as f64);
    println!("{MOST} files: {served} connections served, {closed} closed at once");
}
