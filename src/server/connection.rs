//! One MTA connection: bytes in, commands through the session, bytes out.
//!
//! All commands that have arrived are handled in one go, and their answers leave in one write.

use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use std::time::Instant;

use bytes::Buf as _;
use bytes::BytesMut;
use futures_util::FutureExt as _;

use super::Context;
use super::journal;
use super::socket::Socket;
use crate::facts::Answer;
use crate::lookup::Lookup;
use crate::session::Action;
use crate::session::Decision;
use crate::session::ProtocolError;
use crate::session::Session;
use crate::session::Settlement;
use crate::wire::Command;
use crate::wire::Frame;
use crate::wire::Response;

/// How long an MTA may say nothing after connecting.
const GREETING_TIME: Duration = Duration::from_secs(60);

/// How long it may be silent later: an SMTP client may sit for Postfix's `smtpd_timeout` (300 s), and libmilter waits two
/// hours.
const IDLE_TIME: Duration = Duration::from_secs(7210);

/// How long it may leave our answer unread.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// The receive buffer of a connection that has nothing to say.
const SMALL_BUFFER: usize = 4096;

/// Talks with the MTA until either side ends it.
pub(super) async fn drive<L: Lookup>(socket: Socket, peer: &str, session: Session, lookup: L, context: &Context) {
    let id = session.id();
    let mut connection = Connection {
        socket,
        session,
        lookup,
        context,
        input: BytesMut::with_capacity(SMALL_BUFFER),
        output: BytesMut::new(),
    };
    let ended = connection.run().await;
    if let Some(end) = connection.session.abandon() {
        context.metrics.message_ended(end);
    }
    match ended {
        Ok(()) => tracing::debug!(session = %id, peer, "closed"),
        Err(Ended::Protocol(error)) => {
            context.metrics.protocol_error();
            tracing::warn!(session = %id, peer, %error, "closing: the MTA's side makes no sense");
        }
        Err(Ended::Io(error)) => tracing::debug!(session = %id, peer, %error, "lost"),
        Err(Ended::Silent) => tracing::warn!(session = %id, peer, "closing: silent for too long"),
    }
}

struct Connection<'a, L> {
    socket: Socket,
    session: Session,
    lookup: L,
    context: &'a Context,
    input: BytesMut,
    output: BytesMut,
}

/// Why a connection ended, if not by QUIT or end of file.
enum Ended {
    Io(io::Error),
    Protocol(ProtocolError),
    Silent,
}

impl<L: Lookup> Connection<'_, L> {
    async fn run(&mut self) -> Result<(), Ended> {
        let mut stopping = self.context.stopping.subscribe();
        let mut patience = GREETING_TIME;
        loop {
            let open = self.handle_all().await?;
            self.flush().await?;
            if !open {
                return Ok(());
            }
            self.make_room();
            let at_rest = !self.session.has_message() && self.input.is_empty();
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(patience, self.socket.read(&mut self.input)) => read,
                _ = stopping.wait_for(|stopping| *stopping), if at_rest => return Ok(()),
            };
            match read {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(_)) => patience = IDLE_TIME,
                Ok(Err(error)) => return Err(Ended::Io(error)),
                Err(_elapsed) => return Err(Ended::Silent),
            }
        }
    }

    /// Handles every whole frame; false once the conversation is over.
    async fn handle_all(&mut self) -> Result<bool, Ended> {
        let mut input = std::mem::take(&mut self.input);
        let mut open = true;
        while open {
            let Some((frame, length)) = Frame::split(&input)? else {
                break;
            };
            let command = Command::decode(frame)?;
            open = self.handle(command).await?;
            input.advance(length);
        }
        self.input = input;
        Ok(open)
    }

    async fn handle(&mut self, command: Command<'_>) -> Result<bool, Ended> {
        let handled = AssertUnwindSafe(self.handle_soundly(command)).catch_unwind().await;
        let Ok(handled) = handled else {
            return Ok(self.survive(command));
        };
        handled.map_err(Ended::Protocol)
    }

    async fn handle_soundly(&mut self, command: Command<'_>) -> Result<bool, ProtocolError> {
        let started = now();
        if let Some(end) = self.session.supersede(&command) {
            self.lookup.settle(Settlement::Release);
            self.context.metrics.message_ended(end);
        }
        self.lookup.begin();
        let mut action = self.session.handle(command)?;
        while let Action::Ask(query) = action {
            let answer = tokio::time::timeout(self.context.deadline, self.lookup.answer(&query)).await;
            action = self.session.answer(query, answer.unwrap_or(Answer::Failed));
        }
        Ok(self.finish(action, started))
    }

    /// Does what was decided; false once the conversation is over.
    fn finish(&mut self, action: Action, started: Instant) -> bool {
        match action {
            Action::Aborted(end) => {
                self.lookup.settle(Settlement::Release);
                self.context.metrics.message_ended(end);
            }
            Action::Close => return false,
            Action::Continue => Response::Continue.encode(&mut self.output),
            Action::Decided(decision) => self.decided(&decision, started),
            Action::Negotiated(negotiation) => {
                journal::negotiated(&self.session, &negotiation);
                negotiation.encode(&mut self.output);
            }
            Action::Ask(_) | Action::Read => {}
            Action::Restart => self.lookup.restart(),
        }
        true
    }

    fn decided(&mut self, decision: &Decision, started: Instant) {
        self.lookup.settle(decision.settlement);
        self.context.metrics.record(decision, started.elapsed());
        journal::decided(&self.session, decision);
        decision.encode(&mut self.output);
    }

    /// A bug panicked: the message is answered by `on_error`, and so is the rest of this session; the daemon lives.
    fn survive(&mut self, command: Command<'_>) -> bool {
        self.context.metrics.internal_error();
        tracing::error!(
            session = %self.session.id(), command = command.name(),
            "a bug was met; this session is answered by on_error from here on; please report this"
        );
        let action = self.session.break_down(&command);
        self.finish(action, now())
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            return Ok(());
        }
        match tokio::time::timeout(WRITE_TIME, self.socket.write_all(&self.output)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Ended::Io(error)),
            Err(_elapsed) => return Err(Ended::Silent),
        }
        self.output.clear();
        Ok(())
    }

    /// A buffer that grew for a body is not kept while nothing comes.
    fn make_room(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 16 * SMALL_BUFFER {
            self.input = BytesMut::new();
        }
        self.input.reserve(SMALL_BUFFER);
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Protocol(error) => write!(f, "{error}"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

impl<E: Into<ProtocolError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Protocol(error.into())
    }
}

#[expect(clippy::disallowed_methods, reason = "the server reads the clock, so that the core need not")]
fn now() -> Instant {
    Instant::now()
}
