//! `postward limits` and the control socket, with the real daemon.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use support::Daemon;
use support::Milter;
use support::TempDir;
use support::wait_for;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postward");

const CONFIG: &str = r#"
server.listen = "inet:127.0.0.1:0"
server.max_sessions = 100
server.control = "{dir}/control.sock"
http.listen = "127.0.0.1:0"

[[rule]]
name = "logins"
limit = { key = "login", messages = ["2/hour", "9/day"] }
reply = "452 4.3.1 Limit {limit} used {used} again {retry_at} in {retry_after}"

[[rule]]
name = "hosts"
limit = { key = ["client", "login"], bytes = "1 MiB/hour" }
"#;

fn socket(daemon: &Daemon) -> PathBuf {
    daemon.directory().join("control.sock")
}

/// Runs `postward limits` on this daemon.
fn limits(daemon: &Daemon, arguments: &[&str]) -> Output {
    let control = ["--control", socket(daemon).to_str().unwrap()].map(str::to_owned);
    Command::new(PROGRAM).arg("limits").args(arguments).args(control).stdin(Stdio::null()).output().unwrap()
}

/// What `postward limits` shows, without errors.
#[track_caller]
fn shown(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = limits(daemon, arguments);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && err.is_empty(), "{out}{err}");
    out
}

/// The one line that `postward limits` complains with; it exits with 1 and shows nothing.
#[track_caller]
fn complaint(daemon: &Daemon, arguments: &[&str]) -> String {
    complaint_of(limits(daemon, arguments), 1)
}

#[track_caller]
fn complaint_of(output: Output, code: i32) -> String {
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!((output.status.code(), &*out), (Some(code), ""), "{err}");
    err.strip_prefix("postward: ").unwrap().trim_end().to_owned()
}

/// A message of alice from 192.0.2.7: the letter and data of the refusal at MAIL, or `None` once it was accepted.
fn message(daemon: &Daemon) -> Option<String> {
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx\x004\x00\x19192.0.2.7\0");
    milter.macros(b'M', &[(b"{auth_authen}", b"alice@example.com")]);
    let (letter, data) = milter.ask(b'M', b"<a@example.net>\0SIZE=1000\0");
    if letter != b'c' {
        return Some(String::from_utf8_lossy(&data).into_owned());
    }
    assert_eq!(milter.ask(b'R', b"<b@example.net>\0").0, b'c');
    assert_ne!(milter.ask(b'E', b"").0, b'y');
    None
}

/// Uses up the limit of alice.
fn exhausted() -> Daemon {
    let daemon = Daemon::start(CONFIG);
    assert_eq!((message(&daemon), message(&daemon)), (None, None));
    let refusal = message(&daemon).unwrap();
    assert!(refusal.starts_with("452 4.3.1 Limit 2/hour used 2 again 2"), "{refusal}");
    daemon
}

/// The line of the log about this change.
fn logged(daemon: &Daemon, change: &str) -> String {
    daemon.wait_for_log(&format!("limit changed by an administrator change=\"{change}\""))
}

fn our_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn a_reset_frees_who_is_limited() {
    let daemon = exhausted();
    let table = shown(&daemon, &["show", "alice@example.com"]);
    let row = table.lines().nth(1).unwrap();
    assert!(
        row.starts_with("logins  messages  alice@example.com  2 of 2/hour, 2 of 9/day  limited until 2"),
        "{table}"
    );
    assert!(row.ends_with(" minutes") || row.ends_with(" hour"), "{table}");
    assert_eq!(daemon.metrics().get("postward_limit_keys_limited", &[("rule", "logins")]), 1.0);

    let table = shown(&daemon, &["reset", "alice@example.com"]);
    assert!(table.lines().nth(1).unwrap().ends_with("  0 of 2/hour, 0 of 9/day  reset"), "{table}");
    let line = logged(&daemon, "reset");
    let who = format!("rule=\"logins\" measure=\"messages\" key=\"alice@example.com\" uid={}", our_uid());
    assert!(line.contains(" INFO ") && line.contains(&who), "{line}");
    if our_uid() == 0 {
        assert!(line.ends_with("user=\"root\""), "{line}");
    }
    assert_eq!(daemon.metrics().get("postward_limit_changes_total", &[("change", "reset")]), 1.0);
    assert_eq!(daemon.metrics().get("postward_limit_keys_limited", &[]), 0.0);
    assert_eq!(message(&daemon), None);
}

#[test]
fn who_is_blocked_is_told_until_when() {
    let daemon = Daemon::start(CONFIG);
    let table = shown(&daemon, &["block", "alice@example.com", "--rule", "logins", "--for", "1h"]);
    let row = table.lines().nth(1).unwrap();
    assert!(
        row.starts_with("logins  messages  alice@example.com  0 of 2/hour, 0 of 9/day  blocked until 2"),
        "{table}"
    );
    let (_, until) = row.split_once("blocked until ").unwrap();
    let until = until.split(',').next().unwrap();
    let refusal = message(&daemon).unwrap();
    let start = "452 4.3.1 Limit blocked until 2";
    assert!(refusal.starts_with(start) && refusal.contains(" used 0 again 2"), "{refusal}");
    assert!(refusal.contains("in 1 hour") || refusal.contains("in 60 minutes"), "{refusal}");
    assert!(refusal.contains(&until[..16]), "not {until}: {refusal}");
    let line = daemon.wait_for_log("matched=\"messages blocked until 2");
    assert!(line.contains("rule=\"logins\""), "{line}");
    assert!(logged(&daemon, "block").contains(" seconds=3600 "));
    assert_eq!(daemon.metrics().get("postward_limit_keys_blocked", &[("rule", "logins")]), 1.0);

    let table = shown(&daemon, &["unblock", "alice@example.com"]);
    assert!(table.lines().nth(1).unwrap().ends_with("  unblocked"), "{table}");
    logged(&daemon, "unblock");
    assert_eq!(message(&daemon), None);
    assert_eq!(daemon.metrics().get("postward_limit_changes_total", &[]), 2.0);
    assert_eq!(daemon.metrics().get("postward_limit_keys_blocked", &[]), 0.0);
}

#[test]
fn a_block_without_an_end_lasts() {
    let daemon = Daemon::start(CONFIG);
    let table = shown(&daemon, &["block", "alice@example.com", "--rule", "logins"]);
    assert!(table.lines().nth(1).unwrap().ends_with("  blocked until unblocked"), "{table}");
    let refusal = message(&daemon).unwrap();
    assert!(refusal.starts_with("452 4.3.1 Limit blocked used 0 again unknown in unknown"), "{refusal}");
}

#[test]
fn keys_are_listed_ranked_and_exported() {
    let daemon = exhausted();
    let list = shown(&daemon, &["list"]);
    let columns = |line: &str| line.split("  ").map(|cell| cell.trim().to_owned()).filter(|c| !c.is_empty()).collect();
    let rows: Vec<Vec<String>> = list.lines().map(columns).collect();
    assert_eq!(rows[0], ["RULE", "MEASURE", "KEY", "USED", "STATE"], "{list}");
    assert_eq!(rows[2][..3], ["hosts", "bytes", "192.0.2.7 alice@example.com"], "{list}");
    assert_eq!(rows.len(), 3, "{list}");
    assert_eq!(shown(&daemon, &["list", "--limited"]).lines().count(), 2);
    assert_eq!(
        shown(&daemon, &["list", "--limited", "--rule", "hosts"]),
        "No key of this limit is limited or blocked.\n"
    );
    assert_eq!(shown(&daemon, &["top", "-n", "1"]).lines().count(), 3);
    assert!(shown(&daemon, &["show", "192.0.2.7 alice@example.com"]).contains("hosts"));

    let exported = shown(&daemon, &["export"]);
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.len(), 2);
    for command in ["list", "top"] {
        let object: Value = serde_json::from_str(&shown(&daemon, &[command, "--format", "json"])).unwrap();
        assert_eq!(object["limits"].as_array().unwrap().len(), 2, "{object}");
    }
    let shown = shown(&daemon, &["show", "alice@example.com", "--format", "json"]);
    let object: Value = serde_json::from_str(&shown).unwrap();
    let limit = &object["limits"][0];
    assert_eq!((&limit["key"], &limit["limited"]), (&"alice@example.com".into(), &true.into()), "{limit}");
    assert_eq!(limit["bounds"][1]["used"], 2, "{limit}");
}

/// Before anybody asks for it again.
#[test]
fn whose_bounds_a_key_has_is_known_after_a_restart() {
    let own = "[lists.own.limits]\n\"example.com\" = { messages = \"5/day\" }\n[state]\npath = \"{dir}\"\n";
    let mut daemon = Daemon::start(&(CONFIG.replace("\"9/day\"]", "\"9/day\"], overrides = \"@own\"") + own));
    assert_eq!(message(&daemon), None);
    assert!(daemon.terminate().success());
    daemon.restart();
    assert!(shown(&daemon, &["list"]).contains("  1 of 5/day (override example.com)"));
}

/// Who has bounds of his own is shown with them, also once nothing is known of him any more.
#[test]
fn overrides_are_shown() {
    let own = "[lists.own.limits]\n\"alice@example.com\" = { messages = \"5/day\" }\n";
    let config = CONFIG.replace("\"9/day\"]", "\"9/day\"], overrides = \"@own\"") + own;
    let daemon = Daemon::start(&config);
    assert_eq!(message(&daemon), None);
    assert!(shown(&daemon, &["show", "alice@example.com"]).contains("  1 of 5/day (override alice@example.com)"));
    assert!(shown(&daemon, &["reset", "alice@example.com"]).contains("  0 of 5/day (override alice@example.com)"));
}

#[test]
fn different_values_are_shown_reset_and_blocked() {
    let rule = "[[rule]]\nname = \"abroad\"\nlimit = { key = \"login\", distinct = [\"1/hour\", \"2/day\"], of = \"client/24\" }\n";
    let daemon =
        Daemon::start(&(CONFIG.replace("\"2/hour\"", "\"20/hour\"").replace("\"9/day\"", "\"90/day\"") + rule));
    let row = |command: &str| {
        let table = shown(&daemon, &[command, "alice@example.com", "--rule", "abroad"]);
        table.lines().nth(1).unwrap().to_owned()
    };
    assert_eq!((message(&daemon), message(&daemon)), (None, None), "one network, twice");
    let shown = row("show");
    assert!(
        shown.starts_with("abroad  distinct  alice@example.com  1 of 1 network/hour, 1 of 2 networks/day"),
        "{shown}"
    );
    assert_eq!(daemon.metrics().get("postward_limit_keys_limited", &[("measure", "distinct")]), 1.0);
    let shown = row("reset");
    assert!(shown.contains("  0 of 1 network/hour, 0 of 2 networks/day  reset"), "{shown}");
    row("block");
    assert_eq!(message(&daemon), Some("452 4.3.1 Blocked by the administrator\0".to_owned()));
    row("unblock");
    assert_eq!(message(&daemon), None);
}

#[test]
fn a_share_is_shown_with_how_many_were_tried() {
    let rule = "[[rule]]\nname = \"dictionary\"\nlimit = { key = \"login\", bad_recipients = \"30% of 1/hour\" }\n";
    let daemon = Daemon::start(&format!("{CONFIG}{rule}"));
    assert_eq!(message(&daemon), None);
    let limits = shown(&daemon, &["show", "alice@example.com", "--rule", "dictionary", "--format", "json"]);
    let object: Value = serde_json::from_str(&limits).unwrap();
    let bound = &object["limits"][0]["bounds"][0];
    assert_eq!((&bound["bound"], &bound["amount"]), (&"30% of 1/hour".into(), &30.into()), "{limits}");
    assert_eq!((&bound["used"], &bound["tried"], &bound["refused"]), (&0.into(), &1.into(), &0.into()), "{limits}");
    let table = shown(&daemon, &["reset", "alice@example.com", "--rule", "dictionary"]);
    assert!(table.contains("  bad_recipients  alice@example.com  0% of 0 (30% of 1/hour)  reset"), "{table}");
}

#[test]
fn that_there_is_nothing_to_show_is_told() {
    let daemon = Daemon::start(CONFIG);
    for (arguments, nothing) in [
        (&["list"][..], "No limit has any keys yet.\n"),
        (&["top"], "No limit has any keys yet.\n"),
        (&["list", "--limited"], "No key is limited or blocked.\n"),
        (&["list", "--rule", "hosts"], "This limit has no keys yet.\n"),
    ] {
        assert_eq!(shown(&daemon, arguments), nothing, "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_found_is_told() {
    let daemon = Daemon::start(CONFIG);
    assert_eq!(complaint(&daemon, &["show", "bob"]), "no limit knows bob");
    assert_eq!(complaint(&daemon, &["reset", "bob"]), "nothing is counted for bob");
    assert_eq!(complaint(&daemon, &["unblock", "bob"]), "bob is not blocked");
    let rules = "no limit is called `login`; there are: logins, hosts";
    assert_eq!(complaint(&daemon, &["list", "--rule", "login"]), rules);
    let parts = "no limit has such keys; hosts: expected client and login, found one part";
    assert_eq!(complaint(&daemon, &["block", "bob", "--rule", "hosts"]), parts);
}

#[test]
fn a_daemon_that_cannot_be_asked_is_told() {
    let mut daemon = Daemon::start(CONFIG);
    let path = socket(&daemon);
    daemon.kill();
    let problem = format!("nobody listens on {}: the daemon does not run", path.display());
    assert_eq!(complaint(&daemon, &["list"]), problem);
    daemon.restart();
    assert!(daemon.terminate().success());
    assert!(!path.exists(), "it is removed at shutdown");
    let missing = format!(
        "there is no control socket {}: the daemon does not run, or was started without `control`",
        path.display()
    );
    assert_eq!(complaint(&daemon, &["list"]), missing);
    let config = daemon.directory().join("postward.toml");
    let by_file = Command::new(PROGRAM).args(["limits", "list", "--config"]).arg(config).output().unwrap();
    assert_eq!(complaint_of(by_file, 1), format!("{missing}; if it has another one, name that: --control PATH"));
}

#[test]
fn the_configuration_tells_where_the_daemon_is_asked() {
    let daemon = Daemon::start(CONFIG);
    let config = daemon.directory().join("postward.toml");
    let list = |config: &Path| Command::new(PROGRAM).args(["limits", "list", "--config"]).arg(config).output().unwrap();
    assert!(list(&config).status.success());
    let directory = TempDir::new("c");
    let without = directory.write("postward.toml", "[server]\n");
    let problem = format!(
        "{} has no control socket: add `control = \"/run/postward/control.sock\"` below [server] and restart the daemon",
        without.display()
    );
    assert_eq!(complaint_of(list(&without), 2), problem);
}

#[test]
fn nobody_else_may_connect() {
    let daemon = Daemon::start(CONFIG);
    let found = fs::metadata(socket(&daemon)).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    if our_uid() != 0 {
        return;
    }
    // The way to it is open; the socket is not.
    fs::set_permissions(daemon.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", PROGRAM, "limits", "list", "--control"])
        .arg(socket(&daemon))
        .output()
        .unwrap();
    assert!(complaint_of(output, 1).starts_with("may not connect to "));
}

#[test]
fn a_group_of_administrators_may_be_let_in() {
    let group = if our_uid() == 0 { "daemon" } else { return };
    let config = CONFIG.replace("http.listen", &format!("server.control_group = \"{group}\"\nhttp.listen"));
    let daemon = Daemon::start(&config);
    let found = fs::metadata(socket(&daemon)).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o660);
    let entry = Command::new("getent").args(["group", group]).output().unwrap().stdout;
    let entry = String::from_utf8(entry).unwrap();
    assert_eq!(entry.split(':').nth(2), Some(&*found.gid().to_string()));
}

/// Whoever asks nothing, or garbage, keeps neither mail nor other administrators waiting.
#[test]
fn hostile_clients_stop_nobody() {
    let daemon = Daemon::start(CONFIG);
    let mut stream = UnixStream::connect(socket(&daemon)).unwrap();
    stream.write_all(&[b'x'; 100_000][..20_000]).unwrap();
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("a request has at most 16384 octets"), "{answer}");
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(socket(&daemon)).unwrap()).collect();
    assert_eq!(message(&daemon), None);
    assert!(complaint(&daemon, &["list"]).starts_with("too many connections to the control socket"));
    drop(silent);
    wait_for("room on the control socket", || limits(&daemon, &["list"]).status.success().then_some(()));
    let mut stream = UnixStream::connect(socket(&daemon)).unwrap();
    stream.write_all(b"not json\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("the request is no JSON object"), "{answer}");
}
