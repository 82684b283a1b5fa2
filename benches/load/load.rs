//! Many sessions at once against one server, and what it took.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::Answered;
use crate::client::COMMANDS;
use crate::client::Session;
use crate::message::Random;
use crate::message::Script;
use crate::server::Endpoint;
use crate::server::FULL_OFFER;
use crate::server::Offer;
use crate::server::Server;

/// What is asked of a server.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) messages_a_session: usize,
    pub(crate) offer: Offer,
    pub(crate) script: Arc<Script>,
}

impl Load {
    /// One message a session, one recipient, 4 KiB.
    pub(crate) fn usual(connections: usize) -> Self {
        Self::of(connections, 1, 4096)
    }

    pub(crate) fn of(connections: usize, recipients: usize, body: usize) -> Self {
        let script = Arc::new(Script::new(recipients, body));
        Self { connections, messages_a_session: 1, offer: FULL_OFFER, script }
    }
}

/// When a load ends: whatever comes first.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    pub(crate) time: Duration,
    pub(crate) messages: Option<u64>,
}

/// What a load took.
pub(crate) struct Outcome {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    pub(crate) resident: u64,
    pub(crate) latencies: Latencies,
}

impl Outcome {
    pub(crate) fn cpu_per_message(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }

    pub(crate) fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }
}

/// How long commands waited for their replies, in ns; one histogram for each, and one for whole messages.
pub(crate) struct Latencies {
    commands: Vec<Histogram<u64>>,
    message: Histogram<u64>,
}

impl Latencies {
    fn new() -> Result<Self, String> {
        let new = || Histogram::new_with_max(60_000_000_000, 3).map_err(|error| error.to_string());
        let commands = COMMANDS.iter().map(|_| new()).collect::<Result<_, _>>()?;
        Ok(Self { commands, message: new()? })
    }

    fn record(&mut self, waited: &mut Vec<(u8, Duration)>) {
        for (letter, took) in waited.drain(..) {
            let place = COMMANDS.iter().position(|(command, _)| *command == letter);
            if let Some(histogram) = place.and_then(|place| self.commands.get_mut(place)) {
                histogram.saturating_record(took.as_nanos() as u64);
            }
        }
    }

    /// Name and histogram of each command that was answered.
    pub(crate) fn answered(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        let all = COMMANDS.iter().zip(&self.commands);
        all.filter(|(_, histogram)| !histogram.is_empty()).map(|((_, name), histogram)| (*name, histogram))
    }

    /// From MAIL to the answer at the end.
    pub(crate) const fn message(&self) -> &Histogram<u64> {
        &self.message
    }
}

/// What all sessions of a load share.
struct Shared {
    load: Load,
    endpoint: Endpoint,
    end: Instant,
    left: AtomicI64,
    counted: Mutex<Counted>,
}

struct Counted {
    accepted: u64,
    refused: u64,
    latencies: Latencies,
}

/// Runs the load, and sees that mail is accepted.
pub(crate) fn run(server: &Server, load: &Load, until: Until, seed: u64) -> Result<Outcome, String> {
    let runtime = runtime()?;
    let shared = Arc::new(Shared::new(server, load, until)?);
    let before = server.cpu()?;
    let start = Instant::now();
    let most = until.time + Duration::from_secs(60);
    runtime
        .block_on(async {
            let mut clients = JoinSet::new();
            for number in 0..load.connections {
                clients.spawn(client(Arc::clone(&shared), Random::new(seed + number as u64)));
            }
            let all = timeout(most, async {
                while let Some(ended) = clients.join_next().await {
                    ended.map_err(|error| error.to_string())??;
                }
                Ok(())
            });
            all.await.unwrap_or_else(|_| Err("a reply did not come within a minute".to_owned()))
        })
        .map_err(|error| format!("{} on {}: {error}", server.name, server.endpoint))?;
    let elapsed = start.elapsed();
    drop(runtime);
    let shared = Arc::into_inner(shared).ok_or("a session did not end")?;
    let counted = shared.counted.into_inner().unwrap_or_else(PoisonError::into_inner);
    counted.check(server)?;
    Ok(Outcome {
        messages: counted.accepted + counted.refused,
        elapsed,
        cpu: server.cpu()?.saturating_sub(before),
        resident: server.memory()?.resident,
        latencies: counted.latencies,
    })
}

impl Shared {
    fn new(server: &Server, load: &Load, until: Until) -> Result<Self, String> {
        let counted = Counted { accepted: 0, refused: 0, latencies: Latencies::new()? };
        Ok(Self {
            load: load.clone(),
            endpoint: server.endpoint.clone(),
            end: Instant::now() + until.time,
            left: AtomicI64::new(until.messages.map_or(i64::MAX, |messages| messages as i64)),
            counted: Mutex::new(counted),
        })
    }

    /// Whether there is time and need for another session.
    fn goes_on(&self) -> bool {
        let wanted = self.load.messages_a_session as i64;
        Instant::now() < self.end && self.left.fetch_sub(wanted, Ordering::Relaxed) > 0
    }

    fn count(&self, answered: Answered, took: Duration, waited: &mut Vec<(u8, Duration)>) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match answered {
            Answered::Accepted => counted.accepted += 1,
            Answered::Refused => counted.refused += 1,
        }
        counted.latencies.record(waited);
        counted.latencies.message.saturating_record(took.as_nanos() as u64);
    }
}

impl Counted {
    /// To refuse is less work: figures of a load that is refused say nothing.
    fn check(&self, server: &Server) -> Result<(), String> {
        let all = self.accepted + self.refused;
        if all == 0 {
            return Err(format!("{}: no message was sent; give it more --seconds", server.name));
        }
        if self.refused * 100 > all {
            return Err(format!("{} refused {} of {all} messages that it should accept", server.name, self.refused));
        }
        Ok(())
    }
}

async fn client(shared: Arc<Shared>, mut random: Random) -> Result<(), String> {
    while shared.goes_on() {
        match &shared.endpoint {
            Endpoint::Tcp(address) => {
                session(&shared, connect(|| TcpStream::connect(address)).await?, &mut random).await?
            }
            Endpoint::Unix(path) => session(&shared, connect(|| UnixStream::connect(path)).await?, &mut random).await?,
        }
    }
    Ok(())
}

async fn session<S>(shared: &Shared, stream: S, random: &mut Random) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let load = &shared.load;
    let mut session = Session::open(stream, Arc::clone(&load.script), load.offer, random).await?;
    for _ in 0..load.messages_a_session {
        let start = Instant::now();
        let answered = session.message(random).await?;
        shared.count(answered, start.elapsed(), &mut session.waited);
        session.forget();
    }
    session.quit().await
}

/// Tries again while all ports wait for packets of connections that are over, or the server's queue is full.
pub(crate) async fn connect<S, F: Future<Output = io::Result<S>>>(mut connect: impl FnMut() -> F) -> Result<S, String> {
    let mut failed = io::Error::from(io::ErrorKind::WouldBlock);
    for _ in 0..1000 {
        match connect().await {
            Ok(stream) => return Ok(stream),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::AddrNotAvailable) => {
                failed = error;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => return Err(format!("cannot connect: {error}")),
        }
    }
    Err(format!("cannot connect for ten seconds: {failed}"))
}

/// As many threads as this one may use processors: one, where it is pinned to one.
pub(crate) fn runtime() -> Result<Runtime, String> {
    Builder::new_multi_thread().enable_all().build().map_err(|error| format!("cannot start the clients: {error}"))
}
