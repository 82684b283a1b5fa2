//! Runs a program that tells somebody. What happened is in its environment, never in an argument or a shell's line.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;
use tokio::process::Command;

use super::event::Event;
use super::worker::Failure;

/// How much of what it says is kept, of each of its two outputs.
const MAX_OUTPUT: usize = 1000;

/// How long its outputs are listened to after it has ended: something that it started may hold them open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What it has of our environment; all else is ours alone.
const KEPT: [&str; 6] = ["HOME", "LANG", "LC_ALL", "PATH", "TZ", "USER"];

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it to its end, which must be with 0 and in time; else it is killed, with all that it started.
pub(super) async fn run(program: &Path, arguments: &[String], event: &Event, timeout: Duration) -> Result<(), Failure> {
    let mut command = command(program, arguments, event);
    // Where a disk that sleeps, or a process with much memory, keeps no session waiting.
    let started = tokio::task::spawn_blocking(move || command.spawn()).await;
    let mut child = started
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(|error| Failure::lasting(format!("cannot run {}: {error}", program.display())))?;
    let mut group = Group::of(&child);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut heard = Box::pin(async { tokio::join!(listen(stdout, &mut out), listen(stderr, &mut err)) });
    let mut heard_all = false;
    let ended = tokio::time::timeout(timeout, async {
        loop {
            tokio::select! {
                _ = &mut heard, if !heard_all => heard_all = true,
                status = child.wait() => break status,
            }
        }
    });
    let ended = ended.await;
    match &ended {
        Ok(_) => group.spare(),
        Err(_) => {
            group.kill();
            // Nothing survives that, so this is short; it leaves no zombie.
            _ = child.wait().await;
        }
    }
    if !heard_all {
        _ = tokio::time::timeout(LAST_WORDS, &mut heard).await;
    }
    drop(heard);
    let said = [out, err].map(|output| String::from_utf8_lossy(&output).trim().to_owned()).join("\n");
    let said = said.trim();
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::lasting(format!("{}: {status}", program.display())).saying(said)),
        Ok(Err(error)) => Err(Failure::lasting(format!("cannot wait for {}: {error}", program.display()))),
        Err(_) => {
            let seconds = timeout.as_secs();
            Err(Failure::lasting(format!("{} took more than {seconds} s and was killed", program.display()))
                .saying(said))
        }
    }
}

fn command(program: &Path, arguments: &[String], event: &Event) -> Command {
    let kept = KEPT.iter().filter_map(|name| Some((OsString::from(name), env::var_os(name)?)));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .envs(kept)
        .envs(event.environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Reads to the end and keeps the beginning: a pipe that nobody empties would stop the program.
async fn listen(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else {
        return;
    };
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}

/// The processes that it started, as long as it runs itself: until then nobody else has its number. Dropped before, as when
/// the daemon ends, they are killed.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { leader: child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) }
    }

    const fn spare(&mut self) {
        self.leader = None;
    }

    fn kill(&mut self) {
        if let Some(leader) = self.leader.take() {
            // There may be nobody left.
            _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
