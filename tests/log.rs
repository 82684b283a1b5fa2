//! What the real program writes to its log: nothing that a stranger could forge, in every format; and what happens when nobody
//! reads it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use support::Daemon;
use support::Metrics;
use support::Milter;
use support::PATIENCE;
use support::TempDir;
use support::wait_for;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postward");

/// Refuses everybody, at RCPT, with all that the client said.
const RULE: &str = r#"
[[rule]]
name = "nobody"
at = "rcpt"
reply = "550 5.7.1 {helo} {client_name} {sender} {recipient} {login} {listener}"
"#;

/// A daemon with a standard error of the test's choice, reached over `{dir}/s`.
struct Program {
    child: Child,
    http: u16,
    directory: TempDir,
}

impl Program {
    fn start(directory: TempDir, settings: &str, stderr: impl Into<Stdio>) -> Self {
        let http = support::free_port();
        let settings = settings.replace("{dir}", directory.path().to_str().unwrap());
        let config = format!(
            "server.listen = \"unix:{0}/s\"\nserver.max_sessions = 10\nhttp.listen = \"127.0.0.1:{http}\"\n{settings}\n{RULE}",
            directory.path().display()
        );
        let config = directory.write("postward.toml", &config);
        let mut command = Command::new(PROGRAM);
        command.args(support::serving()).arg("--config").arg(config).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        // It holds our copy of standard error.
        drop(command);
        let program = Self { child, http, directory };
        wait_for("the daemon to listen", || UnixStream::connect(program.directory.path().join("s")).ok());
        program
    }

    fn endpoint(&self) -> String {
        format!("unix:{}/s", self.directory.path().display())
    }

    /// A client that has been greeted.
    fn client(&self) -> Milter {
        let mut milter = Milter::connect(&self.endpoint());
        milter.negotiate();
        milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
        milter
    }

    fn http(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn lost(&self) -> f64 {
        Metrics::parse(&self.http("/metrics")).get("postward_log_dropped_total", &[])
    }

    /// Told to end it does, and soon, whoever reads its log.
    #[expect(clippy::disallowed_methods, reason = "how long a real process takes is measured")]
    fn ends(&mut self) {
        let told = std::time::Instant::now();
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let status = wait_for("the daemon to end", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        assert!(told.elapsed().as_secs() < 10);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Forging

/// Everything that would start a line, colour it, hide it, turn it around, end a string or begin another field: every control
/// character that the wire can carry, separators, marks of direction, blanks that are none, quotes, backslashes.
fn hostile() -> String {
    let mut text =
        "x\n2026-01-01T00:00:00.000000Z  INFO accept rule=\"y\"\n{\"forged\":true}\nPRIORITY=0\nPRIORITY\n".to_owned();
    text += "\u{1b}[31m\u{1b}]0;t\u{7}\"} ' \\\" forged=1 \\u0041 <6>";
    text.extend('\u{1}'..='\u{1f}');
    text.extend('\u{7f}'..='\u{a0}');
    text.extend('\u{200b}'..='\u{200f}');
    text.extend('\u{2028}'..='\u{202e}');
    text.extend('\u{2060}'..='\u{206f}');
    text + "\u{61c}\u{ad}\u{feff}\u{e0041}\u{3000}"
}

/// As it arrives: with bytes that are no text.
fn wire(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\xff\xfe\xc3"].concat()
}

/// As it is told.
fn read() -> String {
    hostile() + "\u{fffd}\u{fffd}\u{fffd}"
}

/// One message in which every text that a stranger or an MTA can choose is hostile, refused once, at RCPT; then addresses that
/// are none, and MTAs that make no sense.
fn hostile_session(endpoint: &str) {
    let text = &wire(&hostile())[..];
    let mut milter = Milter::connect(endpoint);
    milter.negotiate();
    milter.macros(b'C', &[(b"{daemon_name}", text), (b"{daemon_port}", text), (b"v", text), (text, text)]);
    milter.ask(b'C', &[text, b"\0", b"4\x00\x19192.0.2.1\0"].concat());
    milter.macros(b'H', &[(b"{tls_version}", text), (b"{cipher}", text), (b"{cert_subject}", text)]);
    milter.ask(b'H', &[text, b"\0"].concat());
    milter.macros(b'M', &[(b"i", text), (b"{auth_type}", text), (b"{auth_authen}", text), (b"{mail_addr}", text)]);
    milter.ask(b'M', &[b"<", text, b"@a.example>\0SIZE=", text, b"\0", text, b"\0"].concat());
    let (code, reply) = milter.ask(b'R', &[b"<", text, b"@b.example>\0", text, b"\0"].concat());
    assert_eq!(code, b'y');
    let reply = String::from_utf8(reply).unwrap();
    for line in reply.strip_suffix('\0').unwrap().split("\r\n") {
        let is_ours = line.starts_with("550-5.7.1 ") || line.starts_with("550 5.7.1 ");
        assert!(is_ours && line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{reply:?}");
    }
    milter.send(b'A', b"");
    for sender in [text, b"<>", b"<a@b.example"] {
        milter.ask(b'M', &[sender, b"\0"].concat());
        milter.ask(b'R', &[text, b"\0"].concat());
        milter.send(b'A', b"");
    }
    for bytes in [&[0, 0, 0, 0][..], text, &[0, 0, 0, 2, 0x1b, b'\n'], b"\0\0\0\x07O\0\0\0\x06\n\n"] {
        let mut bad = Milter::connect(endpoint);
        bad.stream.write_all(bytes).unwrap();
        assert!(bad.is_closed());
    }
    let mut bad = Milter::connect(endpoint);
    bad.negotiate();
    bad.send(b'\n', text);
    assert!(bad.is_closed());
}

/// What the refusal at RCPT must say, however it is written.
fn expected() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("client", "192.0.2.1".to_owned()),
        ("client_name", read()),
        ("helo", read()),
        ("login", read().to_lowercase()),
        ("queue_id", read()),
        ("recipient", format!("{}@b.example", read())),
        ("rule", "nobody".to_owned()),
        ("sender", format!("{}@a.example", read())),
        ("stage", "rcpt".to_owned()),
    ])
}

/// The log of a daemon that tells everything, after a hostile session; each line is one.
fn log_of_hostile_session(format: &str) -> Vec<String> {
    let config = format!(
        "server.listen = \"unix:{{dir}}/s\"\nserver.max_sessions = 10\nlog = {{ format = \"{format}\", level = \"trace\" }}\n{RULE}"
    );
    let mut daemon = Daemon::start(&config);
    hostile_session(daemon.milter());
    assert!(daemon.terminate().success());
    let log = daemon.log();
    let prints = |c: char| matches!(c, ' '..='~' | '\n' | '\u{fffd}');
    assert_eq!(log.chars().find(|c| !prints(*c)), None);
    let lines: Vec<_> = log.lines().map(str::to_owned).collect();
    assert!(lines.len() > 30 && lines.iter().all(|line| !line.is_empty()), "{log}");
    lines
}

/// Message and fields of a line as any reader of `key=value` sees it.
fn parsed(line: &str) -> (String, BTreeMap<String, String>) {
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == 27 && time.ends_with('Z'), "{line}");
    let (level, mut rest) = rest.trim_start().split_once(' ').unwrap();
    assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line}");
    let is_name = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let mut message = Vec::new();
    while let Some((word, after)) = rest.split_once(' ').or_else(|| (!rest.is_empty()).then_some((rest, ""))) {
        if word.split_once('=').is_some_and(|(name, _)| is_name(name)) {
            break;
        }
        message.push(word);
        rest = after;
    }
    let mut fields = BTreeMap::new();
    while let Some((name, after)) = rest.split_once('=') {
        assert!(is_name(name), "`{name}` in {line}");
        let value;
        if after.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(after).into_iter::<String>();
            value = strings.next().unwrap().unwrap_or_else(|error| panic!("{error}: {after}"));
            rest = &after[strings.byte_offset()..];
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            assert!(!after[..end].contains(['"', '=']), "{line}");
            value = after[..end].to_owned();
            rest = &after[end..];
        }
        assert!(fields.insert(name.to_owned(), value).is_none(), "{name} twice in {line}");
        rest = rest.strip_prefix(' ').unwrap_or(rest);
    }
    assert_eq!(rest, "", "{line}");
    (message.join(" "), fields)
}

#[test]
fn a_stranger_cannot_forge_a_line_of_text() {
    let lines: Vec<_> = log_of_hostile_session("text").iter().map(|line| parsed(line)).collect();
    let refusals: Vec<_> = lines.iter().filter(|(message, _)| message == "refuse").collect();
    for (name, value) in expected() {
        assert_eq!(refusals[0].1.get(name), Some(&value), "{name}");
    }
    assert!(lines.iter().all(|(message, fields)| message != "accept" && !fields.contains_key("forged")));
    assert!(lines.iter().filter(|(message, _)| message.starts_with("closing: ")).count() >= 5, "{lines:?}");
    assert!(lines.iter().any(|(message, _)| message == "received"));
}

#[test]
fn a_stranger_cannot_forge_a_line_of_json() {
    let lines = log_of_hostile_session("json");
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(objects.iter().all(|object| object["message"].is_string() && object["forged"].is_null()));
    let refusal = objects.iter().find(|object| object["message"] == "refuse").unwrap();
    assert_eq!(refusal["level"], "INFO");
    for (name, value) in expected() {
        assert_eq!(refusal[name], value, "{name}");
    }
}

/// A journal: keeps what is sent to it.
struct Journal {
    heard: Arc<Mutex<Vec<Entry>>>,
}

type Entry = BTreeMap<String, Vec<u8>>;

impl Journal {
    fn open(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keeper = Arc::clone(&heard);
        thread::spawn(move || {
            let mut datagram = vec![0; 1 << 20];
            while let Ok(length) = socket.recv(&mut datagram) {
                keeper.lock().unwrap().push(entry(&datagram[..length]));
            }
        });
        Self { heard }
    }

    /// Waits for an entry that has this.
    fn wait_for(&self, field: &str, value: &str) -> Entry {
        let has = |entry: &&Entry| entry.get(field).is_some_and(|found| found == value.as_bytes());
        wait_for(&format!("{field}={value} in the journal"), || self.heard.lock().unwrap().iter().find(has).cloned())
    }
}

/// The fields of a datagram, as systemd's "Native Journal Protocol" reads it.
fn entry(mut datagram: &[u8]) -> Entry {
    let mut fields = BTreeMap::new();
    while !datagram.is_empty() {
        let end = datagram.iter().position(|&b| b == b'\n').unwrap();
        let name = String::from_utf8(datagram[..end].to_vec()).unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') && !name.starts_with('_'), "{name}");
        let (length, rest) = datagram[end + 1..].split_first_chunk::<8>().unwrap();
        let (value, rest) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
        datagram = rest.strip_prefix(b"\n").unwrap();
        assert!(fields.insert(name.clone(), value.to_vec()).is_none(), "{name} twice");
    }
    fields
}

#[test]
fn a_stranger_cannot_forge_a_field_of_the_journal() {
    let directory = TempDir::new("l");
    let journal = Journal::open(&directory.path().join("journal"));
    let stderr = File::create(directory.path().join("err")).unwrap();
    let settings = "log = { format = \"journald\", level = \"trace\", socket = \"{dir}/journal\" }";
    let mut program = Program::start(directory, settings, stderr);
    hostile_session(&program.endpoint());
    program.ends();
    journal.wait_for("POSTWARD_EVENT", "stopped");
    let refusal = journal.wait_for("POSTWARD_EVENT", "refuse");
    for (name, value) in expected() {
        let name = format!("POSTWARD_{}", name.to_uppercase());
        assert_eq!(refusal[&name], value.as_bytes(), "{name}");
    }
    assert_eq!(refusal["PRIORITY"], b"6");
    let own = BTreeSet::from(["MESSAGE", "PRIORITY", "SYSLOG_FACILITY", "SYSLOG_IDENTIFIER"]);
    for entry in journal.heard.lock().unwrap().iter() {
        assert!(entry.keys().all(|name| own.contains(&**name) || name.starts_with("POSTWARD_")), "{entry:?}");
        assert_eq!(entry["SYSLOG_IDENTIFIER"], b"postward");
        let message = std::str::from_utf8(&entry["MESSAGE"]).unwrap();
        assert!(message.chars().all(|c| matches!(c, ' '..='~' | '\u{fffd}')), "{message:?}");
        // The same line that standard error would have had.
        parsed(&format!("2026-01-01T00:00:00.000000Z INFO {message}"));
    }
    let warning = journal.heard.lock().unwrap().iter().find(|entry| entry["PRIORITY"] == b"4").cloned();
    assert!(warning.unwrap()["MESSAGE"].starts_with(b"closing: "));
    assert_eq!(fs::read_to_string(program.directory.path().join("err")).unwrap(), "");
}

/// Bodies and header fields are people's letters, and what is no command may be a password.
#[test]
fn what_is_in_a_message_is_in_no_log() {
    let config = "server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\nlog.level = \"trace\"\n";
    let mut daemon = Daemon::start(config);
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
    milter.ask(b'M', b"<a@a.example>\0");
    milter.ask(b'R', b"<b@b.example>\0");
    milter.ask(b'T', b"");
    milter.ask(b'L', b"Subject\0between-us\0");
    milter.ask(b'N', b"");
    milter.ask(b'B', b"between-us\r\n");
    milter.ask(b'E', b"between-us\r\n");
    milter.ask(b'U', b"between-us\0");
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert!(log.contains("a@a.example") && log.contains("command=L length=19\n"), "{log}");
    assert!(!log.contains("between-us"), "{log}");
}

// Levels

#[test]
fn the_option_goes_before_the_environment_and_that_before_the_configuration() {
    let config = "server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\nlog.level = \"warn\"\n";
    let levels = |environment: &str, option: &[&str]| {
        let directory = TempDir::new("l");
        let notify = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let config = config.replace("{dir}", directory.path().to_str().unwrap());
        let config = directory.write("postward.toml", &config);
        let log = File::create(directory.path().join("err")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(support::serving()).arg("--config").arg(config).args(option).env("RUST_LOG", environment);
        command.env("NOTIFY_SOCKET", directory.path().join("notify")).stdin(Stdio::null()).stdout(Stdio::null());
        let mut program = Program { child: command.stderr(log).spawn().unwrap(), http: 0, directory };
        notify.recv(&mut [0; 1000]).unwrap();
        let mut milter = Milter::connect(&program.endpoint());
        milter.negotiate();
        milter.send(0x1b, b"");
        assert!(milter.is_closed());
        program.ends();
        let log = fs::read_to_string(program.directory.path().join("err")).unwrap();
        [" WARN ", " INFO ", "DEBUG ", "TRACE "].map(|level| log.contains(level))
    };
    assert_eq!(levels("", &[]), [true, false, false, false]);
    assert_eq!(levels("info", &[]), [true, true, false, false]);
    assert_eq!(levels("info", &["--log-level", "debug"]), [true, true, true, false]);
    assert_eq!(levels("trace", &["--log-level=error"]), [false; 4]);
    assert_eq!(levels("loud", &[]), [true, false, false, false], "what makes no sense is not used");
    let output = support::postward(&["serve", "--log-level", "loud"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("`loud` is not a level"), "{error}");
}

/// The variable alone, which children inherit, does not make a journal of a file.
#[test]
fn only_a_standard_error_that_is_the_journal_is_taken_for_it() {
    let config = "server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\n";
    let mut daemon = Daemon::start_with(config, &[("JOURNAL_STREAM", "1:1")]);
    assert!(daemon.terminate().success() && daemon.log().ends_with("Z  INFO stopped\n"), "{}", daemon.log());
    let directory = TempDir::new("d");
    let script =
        "d=$0; exec 2>\"$0/err\"; JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\" --config \"$d/c\"";
    directory.write("c", &config.replace("{dir}", directory.path().to_str().unwrap()));
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(directory.path())
        .arg(PROGRAM)
        .args(support::serving())
        .env_remove("RUST_LOG")
        .env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut program = Program { child: command.spawn().unwrap(), http: 0, directory };
    let log = program.directory.path().join("err");
    let is_ready = || fs::read_to_string(&log).is_ok_and(|log| log.contains("listening on"));
    wait_for("the daemon to listen", || is_ready().then_some(()));
    program.ends();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.starts_with("<6> INFO postward version=") && log.ends_with("\n<6> INFO stopped\n"), "{log}");
}

/// A hundred MTAs that make no sense: thirty are told of, the others are summed up.
#[test]
fn a_flood_of_warnings_is_summed_up() {
    let mut daemon = Daemon::start("server.listen = \"unix:{dir}/s\"\nserver.max_sessions = 10\n");
    for _ in 0..100 {
        let mut bad = Milter::connect(daemon.milter());
        bad.stream.write_all(&[0, 0, 0, 0]).unwrap();
        assert!(bad.is_closed());
    }
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert_eq!(log.matches(" WARN ").count(), 31, "{log}");
    let sum = "more of the same within a minute: closing: the MTA's side makes no sense more=70\n";
    assert!(log.contains(sum), "{log}");
}

// Nobody reads it

/// With this standard error the daemon answers thousands of refusals and its probe, and ends when told to.
#[track_caller]
fn mail_does_not_wait_for_the_log(stderr: impl Into<Stdio>) -> f64 {
    let mut program = Program::start(TempDir::new("l"), "", stderr);
    // One that makes no sense is warned of by another task.
    let mut bad = Milter::connect(&program.endpoint());
    bad.stream.write_all(&[0, 0, 0, 0]).unwrap();
    assert!(bad.is_closed());
    let mut milter = program.client();
    milter.ask(b'M', b"<a@a.example>\0");
    for _ in 0..5000 {
        assert_eq!(milter.ask(b'R', b"<b@b.example>\0").0, b'y');
    }
    drop(milter);
    assert_eq!(program.http("/healthz"), "ok\n");
    let lost = program.lost();
    program.ends();
    lost
}

#[test]
fn mail_does_not_wait_for_a_full_disk() {
    assert!(mail_does_not_wait_for_the_log(File::options().write(true).open("/dev/full").unwrap()) > 0.0);
}

#[test]
fn mail_does_not_wait_for_a_closed_log() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(mail_does_not_wait_for_the_log(writer) > 0.0);
}

/// All of it waits, for whoever may still read it.
#[test]
fn mail_does_not_wait_for_a_log_that_nobody_reads() {
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(mail_does_not_wait_for_the_log(writer), 0.0);
    drop(reader);
}

/// Refuses ten thousand messages with long lines: more than may wait.
fn ten_thousand_messages(program: &Program) {
    let mut milter = program.client();
    let long = "x".repeat(1000);
    milter.ask(b'H', format!("{long}\0").as_bytes());
    for number in 0..10_000 {
        milter.ask(b'M', format!("<{number}.{long}@a.example>\0").as_bytes());
        assert_eq!(milter.ask(b'R', format!("<{long}@b.example>\0").as_bytes()).0, b'y');
        milter.send(b'A', b"");
    }
}

/// How many lines the log says were lost, each time that it says so.
fn told_lost(log: &str) -> Vec<f64> {
    let lines = log.lines().filter(|line| line.contains(" WARN lines of the log were lost: "));
    lines.map(|line| line.rsplit_once("lost=").unwrap().1.parse().unwrap()).collect()
}

#[test]
fn what_nobody_read_is_counted_and_told_once_when_it_flows_again() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut program = Program::start(TempDir::new("l"), "", writer);
    ten_thousand_messages(&program);
    let lost = program.lost();
    assert!((1000.0..10_000.0).contains(&lost), "{lost}");
    let reading = thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    program.ends();
    let log = reading.join().unwrap();
    assert_eq!(told_lost(&log), [lost]);
    let refusals = log.lines().map(parsed).filter(|(message, _)| message == "refuse").count();
    assert_eq!(refusals as f64, 10_000.0 - lost);
}

// The journal

#[test]
fn without_a_journal_the_log_is_text_and_says_so_once() {
    let daemon = Daemon::start(&format!(
        "server.listen = \"unix:{{dir}}/s\"\nserver.max_sessions = 10\nlog = {{ format = \"journald\", socket = \"{{dir}}/none\" }}\n{RULE}"
    ));
    let mut milter = Milter::connect(daemon.milter());
    milter.negotiate();
    milter.ask(b'C', b"mx\x004\x00\x19192.0.2.1\0");
    milter.ask(b'M', b"<a@a.example>\0");
    assert_eq!(milter.ask(b'R', b"<b@b.example>\0").0, b'y');
    daemon.wait_for_log(" INFO refuse id=");
    let log = daemon.log();
    assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
    let warning = " WARN cannot reach the journal; logging text to standard error until the next start socket=";
    assert!(log.contains(warning) && log.contains("/none error=\"No such file or directory (os error 2)\"\n"), "{log}");
}

#[test]
fn a_journal_that_does_not_read_or_is_gone_holds_up_no_mail() {
    let directory = TempDir::new("l");
    let path = directory.path().join("journal");
    let deaf = UnixDatagram::bind(&path).unwrap();
    let settings = "log = { format = \"journald\", socket = \"{dir}/journal\" }";
    let mut program = Program::start(directory, settings, Stdio::null());
    ten_thousand_messages(&program);
    assert!(program.lost() >= 1000.0, "what waits has a bound");
    // What waits is lost now, but for what its socket held.
    drop(deaf);
    fs::remove_file(&path).unwrap();
    wait_for("the lines to be lost", || (program.lost() >= 9000.0).then_some(()));
    let journal = Journal::open(&path);
    let mut milter = program.client();
    milter.ask(b'M', b"<back@a.example>\0");
    milter.ask(b'R', b"<b@b.example>\0");
    journal.wait_for("POSTWARD_SENDER", "back@a.example");
    let number =
        |entry: &Entry| -> Option<f64> { String::from_utf8(entry.get("POSTWARD_LOST")?.clone()).unwrap().parse().ok() };
    wait_for("all that was lost to be told", || {
        let told: f64 = journal.heard.lock().unwrap().iter().filter_map(number).sum();
        (told == program.lost()).then_some(())
    });
    drop(milter);
    program.ends();
}

// What is documented

/// The fields of every event in the code, as the macros name them.
fn fields_in(text: &str, fields: &mut BTreeSet<String>) {
    for (at, _) in text.match_indices("tracing::") {
        let Some((level, rest)) = text[at + 9..].split_once("!(") else { continue };
        if !["error", "warn", "info", "debug", "trace"].contains(&level) {
            continue;
        }
        let mut depth = 0_usize;
        let mut is_string = false;
        let mut argument = String::new();
        for (at, c) in rest.char_indices() {
            let is_escaped = rest[..at].ends_with('\\');
            match c {
                '"' if !is_escaped => is_string = !is_string,
                _ if is_string => continue,
                '(' | '{' | '[' => depth += 1,
                ')' if depth == 0 => break,
                ')' | '}' | ']' => depth -= 1,
                _ => {}
            }
            if c == ',' && depth == 0 {
                fields.extend(field(&std::mem::take(&mut argument)));
            } else {
                argument.push(c);
            }
        }
        fields.extend(field(&argument));
    }
}

/// `name = value`, `%name`, `?name`, `name`; the message is a string.
fn field(argument: &str) -> Option<String> {
    let argument = argument.trim();
    let name = argument.split_once('=').map_or(argument, |(name, _)| name).trim().trim_start_matches(['%', '?']);
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_name.then(|| name.to_owned())
}

fn sources(directory: &Path, fields: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, fields);
        } else {
            fields_in(&fs::read_to_string(path).unwrap(), fields);
        }
    }
}

#[test]
fn every_field_is_documented_and_no_other() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut fields = BTreeSet::new();
    sources(&project.join("src"), &mut fields);
    for known in ["aside", "client_name", "error", "matched", "more", "reply", "session", "uid"] {
        assert!(fields.contains(known), "{known}: {fields:?}");
    }
    let page = fs::read_to_string(project.join("docs/logging.md")).unwrap();
    let (_, table) = page.split_once("\n## Fields\n").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let documented = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = documented.map(str::to_owned).collect();
    assert_eq!(documented, fields, "left: docs/logging.md, right: the code");
}
