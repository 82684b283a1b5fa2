//! The program under test as a process: started as systemd would, stopped in every way there is.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;

use command_fds::CommandFdExt as _;
use command_fds::FdMapping;

use super::Metrics;
use super::PATIENCE;
use super::TempDir;
use super::wait_for;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postward");

/// In the environment of a daemon: how many files it may open.
const OPEN_FILES: &str = "TEST_OPEN_FILES";

/// Runs the program with these arguments to its end.
pub(crate) fn postward(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A running daemon with a directory of its own; killed when dropped. If the test fails, its log is shown.
pub(crate) struct Daemon {
    child: Child,
    /// A socket that every start is handed, as systemd's socket units do.
    inherited: Option<TcpListener>,
    environment: Vec<(String, String)>,
    notify: UnixDatagram,
    notified: String,
    /// As `notified`, but nothing is taken from it.
    told: String,
    endpoints: Vec<String>,
    http: Option<String>,
    directory: TempDir,
}

impl Daemon {
    /// Starts the daemon with this configuration and waits until it says that it is ready.
    /// In the text `{dir}` stands for the daemon's own directory; port 0 means any port.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// As `start`, with environment variables.
    pub(crate) fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_in(TempDir::new("d"), config, environment)
    }

    /// As `start`, with so many open files at most.
    pub(crate) fn start_limited(config: &str, files: usize) -> Self {
        Self::start_with(config, &[(OPEN_FILES, &files.to_string())])
    }

    /// As `start`, listening on a socket that is there before it and after it, as behind systemd's socket unit.
    pub(crate) fn start_activated(config: &str, environment: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_on(Some(listener), TempDir::new("d"), config, environment)
    }

    /// As `start_with`, in a directory that the test has put files into.
    pub(crate) fn start_in(directory: TempDir, config: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_on(None, directory, config, environment)
    }

    fn start_on(
        inherited: Option<TcpListener>,
        directory: TempDir,
        config: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        // Not the directory of the configuration, so that a path which only works from there shows.
        fs::create_dir(directory.path().join("cwd")).unwrap();
        File::create(directory.path().join("log")).unwrap();
        let notify = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        notify.set_nonblocking(true).unwrap();
        // As systemd's own: whoever the daemon becomes may tell.
        fs::set_permissions(directory.path().join("notify"), Permissions::from_mode(0o777)).unwrap();
        let environment: Vec<_> = environment.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        write_config(directory.path(), config);
        let mut daemon = Self {
            child: spawn(directory.path(), &environment, inherited.as_ref()),
            inherited,
            environment,
            notify,
            notified: String::new(),
            told: String::new(),
            endpoints: Vec::new(),
            http: None,
            directory,
        };
        daemon.wait_until_ready(0);
        daemon
    }

    /// The first milter endpoint as Postfix writes it: `inet:127.0.0.1:PORT` or `unix:/PATH`.
    pub(crate) fn milter(&self) -> &str {
        &self.endpoints[0]
    }

    /// All milter endpoints, in the order in which the daemon named them.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    // Metrics and other pages

    /// `HOST:PORT` of the metrics listener.
    pub(crate) fn http_address(&self) -> &str {
        self.http.as_deref().expect("the configuration has a metrics listener")
    }

    /// The counters as they are now.
    pub(crate) fn metrics(&self) -> Metrics {
        let (status, body) = self.http("/metrics");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Waits until the matching series add up to `value`.
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let what = format!("{name} {labels:?} to be {value}");
        wait_for(&what, || (self.metrics().get(name, labels) == value).then_some(()));
    }

    /// GETs a page: status and body.
    pub(crate) fn http(&self, path: &str) -> (u16, String) {
        let answer = self.http_raw(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("an HTTP answer has a status"), body.to_owned())
    }

    /// Sends these bytes to the metrics listener and gives all that comes back until it closes.
    pub(crate) fn http_raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.http_address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    // Log and notifications

    /// All that the daemon wrote to standard error, over all its starts.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("log")).unwrap()).into_owned()
    }

    /// Waits until the log contains `needle`; gives the last line that does.
    pub(crate) fn wait_for_log(&self, needle: &str) -> String {
        wait_for(&format!("`{needle}` in the log of the daemon"), || {
            self.log().lines().rev().find(|line| line.contains(needle)).map(str::to_owned)
        })
    }

    /// Waits until the daemon has told systemd this; everything up to it counts only once.
    pub(crate) fn wait_for_notification(&mut self, state: &str) {
        wait_for(&format!("the notification {state}"), || {
            self.receive_notifications();
            let end = self.notified.find(state)? + state.len();
            self.notified.drain(..end);
            Some(())
        });
    }

    /// Whether it ever told systemd this since it was started.
    pub(crate) fn was_notified(&mut self, state: &str) -> bool {
        self.receive_notifications();
        self.told.contains(state)
    }

    // Configuration and signals

    /// Replaces the configuration file, with the ports that the daemon has; tell it with `signal("HUP")`.
    pub(crate) fn rewrite(&self, config: &str) {
        write_config(self.directory.path(), &self.with_ports(config));
    }

    /// Writes a file in the daemon's directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        self.directory.write(name, text);
    }

    /// Sends a signal: `HUP`, `USR1`, …
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }

    /// Ends the daemon as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the daemon to end and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_exit()
    }

    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        wait_for("the daemon to end", || self.child.try_wait().unwrap())
    }

    /// Starts the daemon again on the same endpoints, with the configuration file as it is now; kills it first if need
    /// be.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let config = fs::read_to_string(self.directory.path().join("postward.toml")).unwrap();
        self.rewrite(&config);
        self.receive_notifications();
        self.notified.clear();
        self.told.clear();
        let log_before = self.log().len();
        self.child = spawn(self.directory.path(), &self.environment, self.inherited.as_ref());
        self.wait_until_ready(log_before);
    }

    fn wait_until_ready(&mut self, log_before: usize) {
        wait_for("the daemon to be ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended at start: {status}\n{}", self.log());
            }
            self.receive_notifications();
            let end = self.notified.find("READY=1")? + "READY=1".len();
            self.notified.drain(..end);
            Some(())
        });
        (self.endpoints, self.http) = wait_for("the daemon to name its endpoints", || {
            let log = &self.log()[log_before..];
            let endpoints: Vec<_> = words_after("listening on ", log).collect();
            let http = words_after("metrics on http://", log).next();
            (!endpoints.is_empty()).then(|| (endpoints, http.map(|url| url.trim_end_matches("/metrics").to_owned())))
        });
    }

    fn receive_notifications(&mut self) {
        let mut datagram = [0; 4096];
        loop {
            match self.notify.recv(&mut datagram) {
                Ok(length) => {
                    self.notified.push_str(&String::from_utf8_lossy(&datagram[..length]));
                    self.notified.push('\n');
                    self.told.push_str(&String::from_utf8_lossy(&datagram[..length]));
                    self.told.push('\n');
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("notification socket: {error}"),
            }
        }
    }

    /// Puts the ports that the daemon has where the text says port 0, in order.
    fn with_ports(&self, config: &str) -> String {
        let mut tcp = self.endpoints.iter().filter(|endpoint| endpoint.starts_with("inet:"));
        let mut parts = config.split(":0\"");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let string = &text[text.rfind('"').map_or(0, |quote| quote + 1)..];
            let address = if string.starts_with("inet:") { tcp.next() } else { self.http.as_ref() };
            let port = address.and_then(|address| address.rsplit(':').next()).unwrap_or("0").to_owned();
            text += &format!(":{port}\"{part}");
        }
        text
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the daemon\n{}", self.log());
        }
    }
}

/// The arguments to serve as whoever runs the test; a configuration that names a user means him.
pub(crate) fn serving() -> &'static [&'static str] {
    if is_root() { &["serve", "--user", "root"] } else { &["serve"] }
}

/// Whether root runs the test.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn write_config(directory: &Path, config: &str) {
    let text = config.replace("{dir}", directory.to_str().unwrap());
    fs::write(directory.join("postward.toml"), text).unwrap();
}

fn spawn(directory: &Path, environment: &[(String, String)], inherited: Option<&TcpListener>) -> Child {
    let log = File::options().append(true).open(directory.join("log")).unwrap();
    let files = environment.iter().find(|(name, _)| name == OPEN_FILES).map(|(_, files)| files);
    let mut command = match (inherited, files) {
        (None, None) => Command::new(PROGRAM),
        (None, Some(files)) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), PROGRAM]);
            command
        }
        (Some(listener), _) => {
            let mut command = Command::new("sh");
            // LISTEN_PID must be the daemon's own.
            command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"", PROGRAM]);
            let parent_fd = listener.try_clone().unwrap().into();
            command.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }]).unwrap();
            command
        }
    };
    let names_user = fs::read_to_string(directory.join("postward.toml")).unwrap().contains("user = ");
    command
        .args(if names_user { &["serve"] } else { serving() })
        .arg("--config")
        .arg(directory.join("postward.toml"))
        .current_dir(directory.join("cwd"))
        .env_remove("RUST_LOG")
        .env("NOTIFY_SOCKET", directory.join("notify"))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The words that follow each occurrence of `text`; a word ends where a log line may go on.
fn words_after<'a>(text: &'a str, log: &'a str) -> impl Iterator<Item = String> + 'a {
    let whole_lines = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
    whole_lines.split(text).skip(1).filter_map(|rest| {
        let word = rest.split([' ', '\n', '"', ',', '\x1b']).next()?;
        Some(word.to_owned())
    })
}
