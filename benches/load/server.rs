//! The servers that are measured: processes of their own, so that the operating system tells what they use.

use std::fmt;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStderr;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::time::clock_getcpuclockid;
use nix::time::clock_gettime;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::getppid;

use crate::frames;

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Endpoint {
    /// A port that the kernel chooses.
    pub(crate) fn any_port() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// As Postfix spells it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("inet", address)) => address.parse().map(Self::Tcp).map_err(|error| format!("`{text}`: {error}")),
            Some(("unix", path)) => Ok(Self::Unix(PathBuf::from(path))),
            _ => Err(format!("`{text}`: expected inet:ADDRESS:PORT or unix:PATH")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "inet:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What an MTA offers: version, actions, steps.
pub(crate) type Offer = [u32; 3];

/// As Postfix 3.7 and Sendmail 8.17 do.
pub(crate) const FULL_OFFER: Offer = [6, 0x1ff, 0x1f_ffff];

/// An MTA that leaves nothing out, and waits for a reply to everything.
pub(crate) const STRICT_OFFER: Offer = [6, 0x1ff, 0];

/// As the first, but CONNECT and HELO are answered: once a session is open, the server has seen them.
pub(crate) const GREETING_OFFER: Offer = [6, 0x1ff, 0x1f_cfff];

/// A running server; killed when it is dropped, or when this program ends in whatever way.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) endpoint: Endpoint,
    child: Child,
}

impl Server {
    pub(crate) fn postward(folder: &Path, config: &str, endpoint: Endpoint) -> Result<Self, String> {
        let name = (0_u32..).map(|number| folder.join(format!("{number}.toml"))).find(|path| !path.exists());
        let path = name.unwrap_or_else(|| folder.join("postward.toml"));
        fs::write(&path, config).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let path = path.display().to_string();
        let mut arguments = vec!["serve", "--config", &path];
        if Uid::effective().is_root() {
            // With another user it would change its credentials, and so not be killed with its parent any more.
            arguments.extend(["--user", "root"]);
        }
        Self::start("postward", env!("CARGO_BIN_EXE_postward"), &arguments, endpoint)
    }

    /// A floor that negotiates what `other` does with an MTA that offers this.
    pub(crate) fn floor_beside(other: &Self, offer: Offer, endpoint: Endpoint) -> Result<Self, String> {
        let answer = negotiate(&other.endpoint, offer)?;
        Self::floor(&answer, endpoint)
    }

    /// A floor with this answer to the offer.
    pub(crate) fn floor(answer: &[u8], endpoint: Endpoint) -> Result<Self, String> {
        Self::start_floor(answer, endpoint, &[])
    }

    /// As `floor_beside`, over TCP, and it acknowledges at once what it does not answer.
    pub(crate) fn prompt_floor_beside(other: &Self, offer: Offer) -> Result<Self, String> {
        Self::prompt_floor(&negotiate(&other.endpoint, offer)?)
    }

    /// A floor that acknowledges at once what it does not answer.
    pub(crate) fn prompt_floor(answer: &[u8]) -> Result<Self, String> {
        Self::start_floor(answer, Endpoint::any_port(), &[PROMPT])
    }

    fn start_floor(answer: &[u8], endpoint: Endpoint, more: &[&str]) -> Result<Self, String> {
        let answer: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
        let place = endpoint.to_string();
        let arguments: Vec<&str> = [FLOOR, &place, &answer].iter().chain(more).copied().collect();
        Self::start("floor", &myself()?, &arguments, endpoint)
    }

    /// Starts a program that says on standard error where it is `listening on`, which may not be the port it was told.
    pub(crate) fn start(
        name: &'static str,
        program: &str,
        arguments: &[&str],
        endpoint: Endpoint,
    ) -> Result<Self, String> {
        let mut child = Command::new(myself()?)
            .args([CHILD, &std::process::id().to_string(), program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let stderr = child.stderr.take().ok_or_else(|| format!("{name} has no standard error"))?;
        let (says, said) = mpsc::channel();
        thread::spawn(move || listen(stderr, &says));
        // Killed on the way out, if it does not start.
        let mut server = Self { name, endpoint, child };
        server.wait(&said).map_err(|error| format!("{name} did not start:\n{error}"))?;
        Ok(server)
    }

    /// Waits until it serves.
    fn wait(&mut self, said: &Receiver<Result<String, String>>) -> Result<(), String> {
        if matches!(self.endpoint, Endpoint::Tcp(address) if address.port() == 0) {
            let place = said.recv_timeout(PATIENCE).map_err(|error| error.to_string())??;
            self.endpoint = Endpoint::parse(place.split_whitespace().next().unwrap_or_default())?;
            return Ok(());
        }
        // With a log that has errors only, it does not tell.
        let end = Instant::now() + PATIENCE;
        while let Err(error) = negotiate(&self.endpoint, FULL_OFFER) {
            if let Ok(Err(said)) = said.try_recv() {
                return Err(said);
            }
            if Instant::now() > end {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The time of the processor that all its threads took so far.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id().cast_signed()));
        let time = clock.and_then(clock_gettime).map_err(|error| format!("{} is gone: {error}", self.name))?;
        Ok(Duration::from(time))
    }

    /// Bytes of memory that are resident, and its share of those by the number of processes that have them.
    pub(crate) fn memory(&self) -> Result<Memory, String> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {path}: {error}", self.name))?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| format!("{path} has no {name}"))
        };
        Ok(Memory { resident: bytes("Rss:")?, proportional: bytes("Pss:")? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) proportional: u64,
}

/// The whole frame that the server there answers to the offer.
pub(crate) fn negotiate(endpoint: &Endpoint, offer: Offer) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("negotiation on {endpoint}: {error}");
    let mut question = Vec::new();
    frames::put(&mut question, b'O', |out| offer.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes())));
    let mut answer = vec![0; 4];
    match endpoint {
        Endpoint::Tcp(address) => TcpStream::connect(address).and_then(|s| exchange(s, &question, &mut answer)),
        Endpoint::Unix(path) => UnixStream::connect(path).and_then(|s| exchange(s, &question, &mut answer)),
    }
    .map_err(failed)?;
    match frames::first(&answer)? {
        Some(frame) if frame.letter == b'O' => Ok(answer),
        _ => Err(format!("negotiation on {endpoint}: the answer is no OPTNEG")),
    }
}

fn exchange<S: std::io::Read + std::io::Write>(
    mut stream: S,
    sent: &[u8],
    answer: &mut Vec<u8>,
) -> std::io::Result<()> {
    stream.write_all(sent)?;
    stream.read_exact(answer)?;
    let length = answer.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let start = answer.len();
    answer.resize(start + length.min(4096), 0);
    stream.read_exact(&mut answer[start..])?;
    stream.write_all(&[0, 0, 0, 1, b'Q'])
}

/// In the child: becomes the program, and dies with the benchmark. Comes back only if that fails.
pub(crate) fn become_child(parent: &str, program: &str, arguments: &[String]) -> String {
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return format!("cannot ask for the end with the parent: {error}");
    }
    if getppid().to_string() != parent {
        return "the benchmark has ended meanwhile".to_owned();
    }
    format!("cannot run {program}: {}", Command::new(program).args(arguments).exec())
}

/// What a floor says that takes these steps and no action.
pub(crate) fn answer(steps: u32) -> Vec<u8> {
    let mut answer = Vec::new();
    frames::put(&mut answer, b'O', |out| [6, 0, steps].iter().for_each(|w| out.extend_from_slice(&w.to_be_bytes())));
    answer
}

/// A port that nobody had a moment ago, for programs that cannot be told to take any.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

pub(crate) fn myself() -> Result<String, String> {
    let path = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    Ok(path.display().to_string())
}

/// Reads what a server says, as a service manager would, so that writing it costs what it costs. Tells where it is
/// `listening on`, or else all that it said until it ended.
fn listen(stderr: ChildStderr, says: &Sender<Result<String, String>>) {
    let mut reader = BufReader::with_capacity(64 * 1024, stderr);
    let mut all = String::new();
    let mut is_told = false;
    let mut line = String::new();
    while let Ok(1..) = reader.read_line(&mut line) {
        if line.contains(" ERROR ") {
            // Whoever reads the figures must know.
            eprint!("{line}");
        }
        if !is_told {
            all.push_str(&line);
            if let Some((_, place)) = line.split_once("listening on ") {
                is_told = says.send(Ok(place.to_owned())).is_ok();
            }
        }
        line.clear();
    }
    if !is_told {
        // Nobody waits for it any more, if it could start without a word.
        let _ = says.send(Err(all));
    }
}

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The hidden arguments with which this program runs itself.
pub(crate) const CHILD: &str = "--as-child";
pub(crate) const FLOOR: &str = "--floor";
pub(crate) const PROMPT: &str = "--prompt";
