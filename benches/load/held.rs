//! Sessions that are held open, and woken all at once.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::Answered;
use crate::client::Session;
use crate::load::connect;
use crate::load::runtime;
use crate::message::Random;
use crate::message::Script;
use crate::server::Endpoint;
use crate::server::GREETING_OFFER;
use crate::server::Server;

/// Sessions over TCP that got as far as HELO.
pub(crate) struct Held<'a> {
    server: &'a Server,
    runtime: Runtime,
    sessions: Vec<(Session<TcpStream>, Random)>,
}

/// What came of it when all of them sent mail.
pub(crate) struct Woken {
    messages: u64,
    elapsed: Duration,
    /// Of whole messages, in ns.
    pub(crate) latencies: Histogram<u64>,
}

impl Woken {
    pub(crate) fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }
}

impl<'a> Held<'a> {
    pub(crate) fn open(server: &'a Server, sessions: usize, seed: u64) -> Result<Self, String> {
        let Endpoint::Tcp(address) = server.endpoint else {
            return Err("sessions are held over TCP only".to_owned());
        };
        let runtime = runtime()?;
        let script = Arc::new(Script::new(1, 4096));
        let opening = async {
            let mut open = Vec::with_capacity(sessions);
            for number in 0..sessions {
                let mut random = Random::new(seed + number as u64);
                let stream = connect(|| TcpStream::connect(address)).await?;
                open.push((Session::open(stream, Arc::clone(&script), GREETING_OFFER, &mut random).await?, random));
            }
            Ok(open)
        };
        let opened = runtime.block_on(async { timeout(MOST, opening).await });
        let all = opened.unwrap_or_else(|_| Err("it took too long".to_owned()));
        let sessions = all.map_err(|error| format!("{}: opening sessions: {error}", server.name))?;
        Ok(Self { server, runtime, sessions })
    }

    /// One message in each session at once, so many times; ends the sessions.
    pub(crate) fn wake(self, times: usize) -> Result<Woken, String> {
        let start = Instant::now();
        let mut latencies = Histogram::new_with_max(60_000_000_000, 3).map_err(|error| error.to_string())?;
        let name = self.server.name;
        let sending = async {
            let mut clients = JoinSet::new();
            for (session, random) in self.sessions {
                clients.spawn(speak(session, random, times));
            }
            while let Some(ended) = clients.join_next().await {
                for took in ended.map_err(|error| error.to_string())?? {
                    latencies.saturating_record(took.as_nanos() as u64);
                }
            }
            Ok::<_, String>(())
        };
        let sent = self.runtime.block_on(async { timeout(MOST, sending).await });
        sent.unwrap_or_else(|_| Err("it took too long".to_owned())).map_err(|error| format!("{name}: {error}"))?;
        Ok(Woken { messages: latencies.len(), elapsed: start.elapsed(), latencies })
    }
}

async fn speak<S>(mut session: Session<S>, mut random: Random, times: usize) -> Result<Vec<Duration>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        if session.message(&mut random).await? == Answered::Refused {
            return Err("a message was refused that it should accept".to_owned());
        }
        took.push(start.elapsed());
        session.forget();
    }
    session.quit().await?;
    Ok(took)
}

const MOST: Duration = Duration::from_secs(120);
