//! Notifications, with the real daemon: programs that are run, web servers that are sent to.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use support::Daemon;
use support::Milter;
use support::PATIENCE;
use support::TempDir;
use support::wait_for;

const CONFIG: &str = r#"
server.listen = "inet:127.0.0.1:0"
server.max_sessions = 100
http.listen = "127.0.0.1:0"

[lists.own.limits]
"nothing.example" = 0

[[rule]]
name = "senders"
limit = { key = ["client", "sender"], messages = "100/hour", overrides = "@own" }
notify = "admin"
allow = "forged-sender"
"#;

/// A directory with a program `tell` in it.
fn with_script(lines: &str) -> TempDir {
    let directory = TempDir::new("n");
    let script = format!("#!/bin/sh\ncd {}\n{lines}\n", directory.path().display());
    let path = directory.write("tell", &script);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn start(directory: TempDir, settings: &str) -> Daemon {
    Daemon::start_in(directory, &format!("{CONFIG}\n{settings}\n"), &[])
}

const TELL: &str = "[notify.admin]\ncommand = [\"{dir}/tell\", \"one two\"]";

/// Says MAIL with this sender and gives the answer.
fn send(daemon: &Daemon, helo: &[u8], sender: &str) -> String {
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx.example\x004\0\x19192.0.2.1\0");
    milter.ask(b'H', &[helo, b"\0"].concat());
    milter.macros(b'M', &[(b"i", b"4XYZ"), (b"{auth_authen}", b"Alice")]);
    let (code, data) = milter.ask(b'M', format!("<{sender}>\0").as_bytes());
    format!("{}{}", char::from(code), String::from_utf8_lossy(&data).trim_end_matches('\0'))
}

fn is_refused(daemon: &Daemon, sender: &str) -> bool {
    send(daemon, b"h.example", sender).starts_with("y452 4.3.1 ")
}

fn counted(daemon: &Daemon, result: &str) -> f64 {
    daemon.metrics().get("postward_notifications_total", &[("notify", "admin"), ("result", result)])
}

/// A file that a script writes under another name first, so that it is whole.
fn written(daemon: &Daemon, name: &str) -> String {
    let path = daemon.directory().join(name);
    wait_for(&format!("the script to write {name}"), || fs::read_to_string(&path).ok())
}

// Programs

#[test]
fn a_program_is_told_once_and_finds_everything_in_its_environment() {
    let script = "env -0 >env.new; printf '%s' \"$# $1\" >arguments; pwd -P >>arguments; mv env.new env.$$";
    let daemon = start(with_script(script), TELL);
    assert_eq!(["dropped", "failed", "sent"].map(|result| counted(&daemon, result)), [0.0; 3]);
    assert_eq!(send(&daemon, b"h.example", "a@other.example"), "c");
    let helo = b"x\nPOSTWARD_RULE=evil\x1b[2J $(touch pwned) `id`";
    let reply = send(&daemon, helo, "A@Nothing.example");
    assert!(reply.starts_with("y452 4.3.1 Message rate limit of nothing at all reached"), "{reply}");
    for _ in 0..5 {
        assert!(is_refused(&daemon, "a@nothing.example"));
    }
    daemon.wait_for_metric("postward_notifications_total", &[("notify", "admin"), ("result", "sent")], 1.0);
    let files = fs::read_dir(daemon.directory()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.file_stem().is_some_and(|stem| stem == "env")).collect();
    let [file] = &files[..] else { panic!("told {} times", files.len()) };
    let text = fs::read_to_string(file).unwrap();
    let environment: BTreeMap<_, _> = text.split_terminator('\0').map(|line| line.split_once('=').unwrap()).collect();
    for (name, value) in [
        ("NOTIFY", "admin"),
        ("RULE", "senders"),
        ("MODE", "enforce"),
        ("ACTION", "refuse"),
        ("STAGE", "mail"),
        ("KEY", "192.0.2.1 a@nothing.example"),
        ("MEASURE", "messages"),
        ("LIMIT", "nothing at all"),
        ("USED", "0"),
        ("RETRY_AT", ""),
        ("CLIENT", "192.0.2.1"),
        ("CLIENT_NAME", "mx.example"),
        ("HELO", r"x\nPOSTWARD_RULE=evil\u{1b}[2J $(touch pwned) `id`"),
        ("LOGIN", "alice"),
        ("SENDER", "A@Nothing.example"),
        ("RECIPIENT", ""),
        ("REPLY", reply.trim_start_matches('y')),
        ("QUEUE_ID", "4XYZ"),
    ] {
        assert_eq!(environment.get(&*format!("POSTWARD_{name}")), Some(&value), "{name}");
    }
    daemon.wait_for_log(&format!("id={} ", environment["POSTWARD_DECISION_ID"]));
    assert!(!environment.contains_key("NOTIFY_SOCKET") && environment.contains_key("PATH"), "{environment:?}");
    let arguments = fs::read_to_string(daemon.directory().join("arguments")).unwrap();
    assert!(arguments.starts_with("1 one two/"), "{arguments}");
    assert!(!daemon.directory().join("pwned").exists());
    // Somebody else's episode is one of its own.
    assert!(is_refused(&daemon, "b@nothing.example"));
    daemon.wait_for_metric("postward_notifications_total", &[("notify", "admin"), ("result", "sent")], 2.0);
}

/// Sockets are bound under a mask that takes the right to enter directories, from their owner, too.
#[test]
fn a_program_can_use_the_directories_that_it_makes() {
    let daemon = start(with_script("umask >mask.new; mv mask.new mask"), TELL);
    assert!(is_refused(&daemon, "a@nothing.example"));
    assert_eq!(written(&daemon, "mask").trim(), "0077");
}

#[test]
fn what_a_program_says_is_logged_when_it_fails() {
    let daemon = start(with_script("echo out of luck; head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3"), TELL);
    assert!(is_refused(&daemon, "a@nothing.example"));
    let line = daemon.wait_for_log("nobody was told");
    assert!(line.contains("WARN") && line.contains("/tell: exit status: 3"), "{line}");
    assert!(line.contains("out of luck\\nxxx") && line.len() < 3000, "{line}");
    daemon.wait_for_metric("postward_notifications_total", &[("notify", "admin"), ("result", "failed")], 1.0);
    assert!(is_refused(&daemon, "a@nothing.example"));
    assert_eq!(counted(&daemon, "dropped") + counted(&daemon, "sent"), 0.0);
}

#[test]
fn a_program_that_is_not_there_is_told_of_at_the_start_and_stops_no_mail() {
    let daemon = start(TempDir::new("n"), TELL);
    let line = daemon.wait_for_log("nobody can be told that way");
    assert!(line.contains("notify.admin.command: cannot run "), "{line}");
    assert!(is_refused(&daemon, "a@nothing.example"));
    assert!(daemon.wait_for_log("nobody was told").contains("No such file or directory"));
}

/// Whether a process runs: one that has ended and that nobody has asked about does not.
fn runs(process: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(process.trim()).join("stat")).unwrap_or_default();
    status.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_that_it_started() {
    let script = "sleep 1000 & echo \"$$ $!\" >pids.new; mv pids.new pids; echo still here; wait";
    let daemon = start(with_script(script), &format!("{TELL}\ntimeout = \"1s\""));
    assert!(is_refused(&daemon, "a@nothing.example"));
    let pids = written(&daemon, "pids");
    let line = daemon.wait_for_log("took more than 1 s and was killed");
    assert!(line.contains("still here"), "{line}");
    for process in pids.split_whitespace() {
        wait_for("the processes to end", || (!runs(process)).then_some(()));
    }
    assert_eq!(counted(&daemon, "failed"), 1.0);
}

#[test]
fn what_is_under_way_at_a_stop_is_waited_for() {
    let script = "mv tell begun; while ! test -e go; do sleep 0.01; done; echo done >end.new; mv end.new end";
    let mut daemon = start(with_script(script), TELL);
    assert!(is_refused(&daemon, "a@nothing.example"));
    written(&daemon, "begun");
    daemon.signal("TERM");
    daemon.wait_for_notification("STOPPING=1");
    daemon.write("go", "");
    assert!(daemon.wait_for_exit().success());
    assert_eq!(written(&daemon, "end"), "done\n");
    assert!(!daemon.log().contains("before all notifications"));
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let script = "sleep 1000 & echo $! >pid.new; mv pid.new pid; wait";
    let mut daemon = start(with_script(script), &format!("{TELL}\ntimeout = \"60s\""));
    assert!(is_refused(&daemon, "a@nothing.example"));
    let pid = written(&daemon, "pid");
    assert!(daemon.terminate().success());
    assert!(daemon.log().contains("stopping before all notifications were sent"));
    wait_for("what was started to end", || (!runs(&pid)).then_some(()));
}

/// Episodes go on, and what is told of from now on goes the new way, also for connections that were there before.
#[test]
fn a_reload_changes_who_is_told_and_begins_no_episode_anew() {
    let daemon = start(with_script("echo \"$POSTWARD_KEY by $1\" >>told"), TELL);
    let told = || fs::read_to_string(daemon.directory().join("told")).unwrap_or_default();
    let wait_for_told = |lines: &str| wait_for(lines, || (told() == lines).then_some(()));
    assert!(is_refused(&daemon, "a@nothing.example"));
    wait_for_told("192.0.2.1 a@nothing.example by one two\n");
    daemon.rewrite(&format!("{CONFIG}\n{}\n", TELL.replace("one two", "another")));
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded");
    assert!(is_refused(&daemon, "a@nothing.example") && is_refused(&daemon, "b@nothing.example"));
    wait_for_told("192.0.2.1 a@nothing.example by one two\n192.0.2.1 b@nothing.example by another\n");
    daemon.wait_for_metric("postward_notifications_total", &[("notify", "admin"), ("result", "sent")], 2.0);
    daemon.rewrite(&CONFIG.replace("notify = \"admin\"", ""));
    daemon.signal("HUP");
    wait_for("the series of what is gone", || (!daemon.http("/metrics").1.contains("notify=\"admin\"")).then_some(()));
    assert!(is_refused(&daemon, "c@nothing.example"));
}

// Web servers

/// One request: its first line, headers in lower case, body.
type Received = (String, BTreeMap<String, String>, Value);

/// Reads a request and answers it.
fn answer(stream: impl Read + Write, status: &str) -> Received {
    let mut stream = BufReader::new(stream);
    let line = |stream: &mut BufReader<_>| {
        let mut line = String::new();
        BufRead::read_line(stream, &mut line).unwrap();
        line.trim_end().to_owned()
    };
    let first = line(&mut stream);
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line(&mut stream).split_once(": ") {
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let said = "what the server says\n";
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", said.len());
    let _ = stream.get_mut().write_all(format!("{head}{said}").as_bytes());
    (first, headers, serde_json::from_slice(&body).unwrap())
}

/// A web server that gives these answers one after the other; where it is, and what it hears.
fn web_server(answers: &'static [&'static str]) -> (String, mpsc::Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for status in answers {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if sender.send(answer(stream, status)).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

#[test]
fn a_web_server_gets_json_and_is_tried_again() {
    let (address, heard) = web_server(&["503 Service Unavailable", "204 No Content"]);
    let directory = TempDir::new("n");
    directory.write("secret", "Bearer 0123456789abcdef\n");
    let settings = r#"
        [lists.none.limits]
        alice = 0
        [[rule]]
        name = "watched"
        mode = "monitor"
        limit = { key = "login", messages = "1/hour", overrides = "@none" }
        notify = ["admin"]
        [notify.admin]
        url = "http://ADDRESS/hook?x=1"
        authorization_file = "{dir}/secret"
    "#;
    let settings = settings.replace("ADDRESS", &address);
    let daemon = start(directory, &settings);
    assert_eq!(send(&daemon, b"h.example", "a@other.example"), "c");
    let first = heard.recv_timeout(PATIENCE).unwrap();
    let second = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&first.0, &first.2), (&second.0, &second.2));
    let (line, headers, body) = second;
    assert_eq!(line, "POST /hook?x=1 HTTP/1.1");
    assert_eq!(headers["authorization"], "Bearer 0123456789abcdef");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["host"], address);
    for (name, value) in [
        ("rule", Value::from("watched")),
        ("mode", Value::from("monitor")),
        ("action", Value::from("refuse")),
        ("key", Value::from("alice")),
        ("used", Value::from(0)),
        ("retry_at", Value::Null),
        ("recipient", Value::Null),
    ] {
        assert_eq!(body[name], value, "{name}: {body}");
    }
    assert!(body["reply"].as_str().unwrap().starts_with("452 4.3.1 "), "{body}");
    daemon.wait_for_metric("postward_notifications_total", &[("notify", "admin"), ("result", "sent")], 1.0);
    assert_eq!(counted(&daemon, "failed"), 0.0);
    assert!(!daemon.log().contains("0123456789abcdef"));
}

#[test]
fn what_a_web_server_says_no_to_is_not_repeated() {
    let (address, heard) = web_server(&["403 Forbidden", "204 No Content"]);
    let daemon = start(TempDir::new("n"), &format!("[notify.admin]\nurl = \"http://{address}/sesame\""));
    assert!(is_refused(&daemon, "a@nothing.example"));
    heard.recv_timeout(PATIENCE).unwrap();
    let line = daemon.wait_for_log("nobody was told");
    assert!(line.contains("answered 403 Forbidden") && line.contains("what the server says"), "{line}");
    assert!(heard.try_recv().is_err());
    // The path of a URL is often a secret.
    assert!(!daemon.log().contains("sesame"), "{line}");
    assert_eq!(counted(&daemon, "failed"), 1.0);
}

/// Certificates are those that the host trusts, which `SSL_CERT_FILE` names.
#[test]
fn https_needs_a_certificate_that_the_host_trusts() {
    let directory = TempDir::new("n");
    let path = |name: &str| directory.path().join(name);
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(path("key"))
        .arg("-out")
        .arg(path("certificate"))
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    let certificate = CertificateDer::from_pem_file(path("certificate")).unwrap();
    let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
    let config = ServerConfig::builder_with_provider(ring::default_provider().into());
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heard) = mpsc::channel();
    std::thread::spawn(move || {
        // Who does not trust us breaks the handshake off, three times.
        for is_trusted in [true, false, false, false] {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            if is_trusted {
                sender.send(answer(stream, "200 OK")).unwrap();
            } else {
                assert!(stream.read(&mut [0; 1]).is_err());
            }
        }
    });
    let trusted = path("certificate").to_str().unwrap().to_owned();
    let config = format!("{CONFIG}\n[notify.admin]\nurl = \"https://localhost:{port}/hook\"\n");
    let daemon = Daemon::start_with(&config, &[("SSL_CERT_FILE", &trusted), ("SSL_CERT_DIR", "")]);
    assert!(is_refused(&daemon, "a@nothing.example"));
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap().0, "POST /hook HTTP/1.1");
    daemon.wait_for_metric("postward_notifications_total", &[("notify", "admin"), ("result", "sent")], 1.0);
    drop(daemon);
    let daemon = Daemon::start_with(&config, &[]);
    assert!(is_refused(&daemon, "a@nothing.example"));
    let line = daemon.wait_for_log("nobody was told");
    assert!(line.contains("certificate"), "{line}");
}

/// As systemd hands it over for `LoadCredential=`. What every user may read is no secret; what is one is not in the log.
#[test]
fn a_secret_can_be_a_credential_and_is_told_of_if_all_may_read_it() {
    let (address, heard) = web_server(&["204 No Content"]);
    let directory = TempDir::new("n");
    let secret = directory.write("alerts", "Bearer 0123456789abcdef\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o604)).unwrap();
    let settings = format!(
        "[lists.none.limits]\nalice = 0\n[[rule]]\nname = \"watched\"\n\
         limit = {{ key = \"login\", messages = \"1/hour\", overrides = \"@none\" }}\nnotify = \"admin\"\n\
         [notify.admin]\nurl = \"http://{address}/\"\nauthorization_file = \"credential:alerts\"\n"
    );
    let credentials = directory.path().to_str().unwrap().to_owned();
    let environment = [("CREDENTIALS_DIRECTORY", credentials.as_str()), ("RUST_LOG", "trace")];
    let daemon = Daemon::start_in(directory, &format!("{CONFIG}{settings}"), &environment);
    assert!(is_refused(&daemon, "a@other.example"));
    let (_, headers, _) = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(headers["authorization"], "Bearer 0123456789abcdef");
    daemon.wait_for_log("every user may read credential:alerts; chmod 0640, or 0600");
    assert!(!daemon.log().contains("0123456789abcdef"), "{}", daemon.log());
    let config = daemon.directory().join("postward.toml");
    let output = support::postward(&["check", "--config", config.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("there is no $CREDENTIALS_DIRECTORY here"), "{text}");
}

/// Whoever waits for a writer that never comes would keep its worker, and a thread, for ever.
#[test]
fn a_secret_that_is_no_file_is_not_waited_for() {
    let directory = TempDir::new("n");
    assert!(Command::new("mkfifo").arg(directory.path().join("secret")).status().unwrap().success());
    let daemon =
        start(directory, "[notify.admin]\nurl = \"http://127.0.0.1:1/\"\nauthorization_file = \"{dir}/secret\"");
    assert!(daemon.wait_for_log("nobody can be told that way").contains("authorization_file"));
    assert!(is_refused(&daemon, "a@nothing.example"));
    assert!(daemon.wait_for_log("nobody was told").contains("is no regular file"));
    daemon.wait_for_metric("postward_notifications_total", &[("notify", "admin"), ("result", "failed")], 1.0);
}
