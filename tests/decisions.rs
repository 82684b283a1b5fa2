//! `postward explain ID`, with the real daemon: the id from a reply or the log finds what was decided.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::process::Output;

use serde_json::Value;

use support::Daemon;
use support::Milter;
use support::postward;

const CONFIG: &str = r#"
server.listen = "inet:127.0.0.1:0"
server.control = "{dir}/control.sock"

[lists.drop]
networks = ["192.0.2.0/24"]

[[rule]]
name = "seen"
when.port = 25
add_header = "X-Policy: seen"

[[rule]]
name = "blocked"
when.client = "@drop"
reply = "550 5.7.1 Client {client} is blocked ({id})"
"#;

fn explain(daemon: &Daemon, arguments: &[&str]) -> Output {
    let control = daemon.directory().join("control.sock");
    postward(&[&["explain", "--control", control.to_str().unwrap()], arguments].concat())
}

fn json(daemon: &Daemon, id: &str) -> Vec<Value> {
    let output = explain(daemon, &[id, "--format", "json"]);
    assert!(output.status.success(), "{output:?}");
    let mut object: Value = serde_json::from_slice(&output.stdout).unwrap();
    object["decisions"].as_array_mut().unwrap().drain(..).collect()
}

/// What a client hears at MAIL.
fn mail(daemon: &Daemon, client: &str, helo: &str) -> (Milter, String) {
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.macros(b'C', &[(b"{daemon_port}", b"25")]);
    milter.ask(b'C', format!("mx.example.net\x004\x00\x19{client}\0").as_bytes());
    milter.ask(b'H', format!("{helo}\0").as_bytes());
    let (letter, data) = milter.ask(b'M', b"<eve@example.net>\0SIZE=2048\0");
    let text = String::from_utf8_lossy(&data).into_owned();
    (milter, format!("{}{text}", char::from(letter)))
}

/// The id in the brackets.
fn id_in(reply: &str) -> &str {
    reply.split_once('(').unwrap().1.split_once(')').unwrap().0
}

#[test]
fn the_id_of_a_reply_explains_it() {
    let daemon = Daemon::start(CONFIG);
    let (_milter, reply) = mail(&daemon, "192.0.2.7", "bad\x1b[2Jname");
    let id = id_in(&reply);
    let output = explain(&daemon, &[&id.to_uppercase()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in [
        "at mail: refuse",
        &format!("reply       550 5.7.1 Client 192.0.2.7 is blocked ({id})"),
        "rule        blocked",
        "blocked (refuse, enforce): @drop 192.0.2.0/24; it asks about client",
        "client      192.0.2.7 (mx.example.net), HELO bad\\u{1b}[2Jname, port 25",
        "sender      eve@example.net",
        "size        2 KiB",
        "550 5.7.1: not authorised",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    let [decision] = &json(&daemon, id)[..] else { panic!("not one decision") };
    assert_eq!((decision["outcome"].as_str(), decision["rule"].as_str()), (Some("refuse"), Some("blocked")));
}

#[test]
fn the_id_of_the_log_finds_a_message_that_passed() {
    let daemon = Daemon::start(CONFIG);
    let (mut milter, _) = mail(&daemon, "198.51.100.1", "mx.example.net");
    milter.ask(b'R', b"<bob@example.org>\0");
    milter.macros(b'E', &[(b"i", b"4XyZ12")]);
    milter.ask(b'E', b"");
    let line = daemon.wait_for_log("queue_id=");
    let id = line.split(" id=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{line}"));
    let decisions = json(&daemon, id);
    let last = decisions.last().unwrap();
    assert_eq!(last["outcome"], "accept", "{last:#}");
    assert_eq!(last["queue_id"], "4XyZ12", "{last:#}");
    assert_eq!(last["recipients"][0], "bob@example.org", "{last:#}");
    assert!(decisions.iter().any(|decision| decision["matches"][0]["rule"] == "seen"), "{decisions:#?}");
}

#[test]
fn what_is_not_kept_is_told() {
    let daemon = Daemon::start(CONFIG);
    let complaint = |id: &str| String::from_utf8(explain(&daemon, &[id]).stderr).unwrap();
    assert!(
        complaint("5pjg000.1").contains("nothing is known of 5pjg000.1: since the daemon started nothing was decided")
    );
    let (_milter, reply) = mail(&daemon, "192.0.2.7", "h");
    let id = id_in(&reply).to_owned();
    assert!(complaint("5pjg000.1").contains("the last 1 decisions are kept, since 20"));
    daemon.rewrite(&format!("{CONFIG}\n[http]\ndecisions = 0\n"));
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded");
    assert!(complaint(&id).contains("no decisions are kept (http.decisions = 0)"));
    // A word that is no id is looked through for codes, as ever.
    let output = postward(&["explain", "5pjg000.x1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
