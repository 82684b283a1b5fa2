//! The daemon as root starts it and another user runs it, behind a Postfix whose smtpd is chrooted: Debian's layout.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::support::Daemon;
use crate::support::Mta;
use crate::support::Smtp;
use crate::support::TempDir;

/// A user of every Debian system who may write nowhere here.
const USER: &str = "daemon";

fn rules(code: &str) -> String {
    format!("[[rule]]\nname = \"all\"\nwhen.sender = \"a@a.example\"\nreply = \"{code} Not you\"\n")
}

fn number(database: &str, name: &str) -> u32 {
    let output = Command::new("getent").args([database, name]).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

/// The lines of /proc/PID/task/*/status that begin with one of these words, of all threads.
fn status_lines(id: u32, words: &[&str]) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let texts = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|line| words.iter().any(|word| line.starts_with(word))).collect()
}

#[test]
fn root_opens_the_socket_in_the_chroot_and_another_user_serves() {
    let postfix = Mta::Postfix.start("unix:postward/postward.sock", &["--chroot"]);
    let place = postfix.queue_directory().join("postward");
    fs::create_dir(&place).unwrap();
    // Only root may make a socket there.
    chown(&place, Some(0), Some(number("group", "postfix"))).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o750)).unwrap();
    let directory = TempDir::new("d");
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    chown(&state, Some(number("passwd", USER)), None).unwrap();
    let settings = format!(
        "server.user = \"{USER}\"\nserver.socket_group = \"postfix\"\nserver.control = \"{{dir}}/control\"\n\
         http.listen = \"127.0.0.1:0\"\nstate.path = \"{{dir}}/state\"\nserver.max_sessions = 100\n"
    );
    let socket = place.join("postward.sock");
    let listen = format!("server.listen = [\"unix:{}\"]\n", socket.display());
    let mut daemon = Daemon::start_in(directory, &format!("{settings}{listen}{}", rules("550 5.7.1")), &[]);
    is_only(&daemon, USER);
    let found = fs::metadata(&socket).unwrap();
    let expected = (number("passwd", USER), number("group", "postfix"), 0o660);
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), expected);
    assert!(daemon.metrics().get("process_open_fds", &[]) > 0.0, "/proc/self is not its own");

    let refused = |code: &str| {
        let reply = Smtp::session(postfix.port()).send("MAIL FROM:<a@a.example>");
        assert!(reply.text().starts_with(code), "{}", reply.text());
    };
    refused("550 5.7.1 Not you");

    // A reload: rules, with a socket that its group made no more than root could give it.
    daemon.rewrite(&format!("{settings}{listen}{}", rules("554 5.7.1")));
    reload(&mut daemon);
    daemon.wait_for_log("configuration reloaded");
    refused("554 5.7.1 Not you");
    // What only root could do is refused, with the way out, and nothing has changed.
    let two = format!("server.listen = [\"unix:{0}\", \"unix:{0}2\"]\n", socket.display());
    daemon.rewrite(&format!("{settings}{two}{}", rules("550 5.7.1")));
    reload(&mut daemon);
    let line = daemon.wait_for_log("not reloaded");
    assert!(line.contains("postward.sock2: Permission denied") && line.contains("restart the daemon"), "{line}");
    refused("554 5.7.1 Not you");

    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(!daemon.log().contains("cannot save"), "{}", daemon.log());
    let lock = fs::metadata(state.join("lock")).unwrap();
    assert_eq!(lock.uid(), number("passwd", USER));
}

/// No thread has another user, a group of root's, or a capability.
fn is_only(daemon: &Daemon, user: &str) {
    let (uid, gid) = (number("passwd", user), number("group", user));
    let lines = status_lines(daemon.id(), &["Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:", "CapAmb:"]);
    assert!(lines.len() >= 6 * 4, "{lines:?}");
    for line in lines {
        let (name, values) = line.split_once(':').unwrap();
        let expected = match name {
            "Uid" => uid.to_string(),
            "Gid" | "Groups" => gid.to_string(),
            _ => "0000000000000000".to_owned(),
        };
        assert!(values.split_whitespace().all(|value| value == expected), "{line}");
    }
}

fn reload(daemon: &mut Daemon) {
    daemon.signal("HUP");
    daemon.wait_for_notification("RELOADING=1");
    daemon.wait_for_notification("READY=1");
}

/// A configuration that the user cannot read is told at the start, not at the first reload.
#[test]
fn a_configuration_that_only_root_can_read_is_told() {
    let directory = TempDir::new("d");
    let secret = directory.path().join("conf.d");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("rules.toml"), rules("550 5.7.1")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    let config = format!("server.listen = \"unix:{{dir}}/s\"\nserver.user = \"{USER}\"\nserver.max_sessions = 10\n");
    let daemon = Daemon::start_in(directory, &config, &[]);
    let line = daemon.wait_for_log("every reload will fail");
    assert!(line.contains(&format!("user {USER} cannot read")) && line.contains("conf.d: Permission denied"), "{line}");
    assert!(Path::new(&daemon.directory().join("s")).exists());
}
