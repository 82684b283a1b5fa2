//! From a command to its answer: through the session, its look-ups, and all that is told of what was decided.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::Burst;
use super::Connection;
use super::Ended;
use super::MAX_GREETING;
use crate::facts::Answer;
use crate::facts::Query;
use crate::lookup::Lookup;
use crate::server::buffers::Buffer;
use crate::server::context::time_of_day;
use crate::server::journal;
use crate::session::Action;
use crate::session::Decision;
use crate::session::MessageEnd;
use crate::session::ProtocolError;
use crate::session::Settlement;
use crate::wire::Command;
use crate::wire::Frame;
use crate::wire::Response;

/// How far it has come.
pub(super) enum Progress {
    /// This has to be looked up first.
    Asks(Query),
    /// It is done; false: so is the conversation.
    Done(bool),
}

impl<L: Lookup> Connection<'_, L> {
    /// Handles every whole frame, or those up to a question that takes its time.
    pub(super) fn handle_all(&mut self, burst: &mut Burst<'_>) -> Result<Progress, Ended> {
        while let Some((frame, length, output)) = self.next(burst)? {
            journal::received(&self.session, frame);
            let command = Command::decode(frame)?;
            let answered = output.len();
            let begun = catch_unwind(AssertUnwindSafe(|| self.begin(command, output)));
            let open = match begun {
                Ok(Ok(Progress::Asks(query))) => return Ok(Progress::Asks(query)),
                Ok(Ok(Progress::Done(open))) => open,
                Ok(Err(error)) => return Err(Ended::Protocol(error)),
                Err(_) => self.survive(command, answered, output)?,
            };
            burst.taken += length;
            if !open {
                return Ok(Progress::Done(false));
            }
        }
        Ok(Progress::Done(true))
    }

    /// Goes on with the command that asked this, and then with all others; false once the conversation is over.
    pub(super) async fn handle_slowly(&mut self, mut query: Query, burst: &mut Burst<'_>) -> Result<bool, Ended> {
        loop {
            let Some((frame, length, output)) = self.next(burst)? else {
                return Ok(true);
            };
            let command = Command::decode(frame)?;
            let answered = output.len();
            let looked_up = AssertUnwindSafe(self.look_up(query, output)).catch_unwind().await;
            let open = match looked_up {
                Ok(open) => open,
                Err(_) => self.survive(command, answered, output)?,
            };
            burst.taken += length;
            if !open {
                return Ok(false);
            }
            match self.handle_all(burst)? {
                Progress::Asks(next) => query = next,
                Progress::Done(open) => return Ok(open),
            }
        }
    }

    /// The next frame, how many bytes it takes, and where its answer goes; `None` if there is no whole one left.
    fn next<'b>(&mut self, burst: &'b mut Burst<'_>) -> Result<Option<(Frame<'b>, usize, &'b mut BytesMut)>, Ended> {
        let Buffer { input, output } = &mut burst.lent.buffer;
        let arrived = if burst.partial.is_empty() { input.get(..burst.length) } else { Some(&*burst.partial) };
        let rest = arrived.and_then(|arrived| arrived.get(burst.taken..)).unwrap_or_default();
        let found = if self.body_left > 0 { self.more_of_body(rest) } else { Frame::split(rest)? };
        let Some((frame, length)) = found.or_else(|| self.begin_body(rest)) else {
            self.check_greeting(rest)?;
            return Ok(None);
        };
        Ok(Some((frame, length, output)))
    }

    /// What there is of a piece of a body that has not come whole, where that is enough: it need not be kept, nor copied.
    fn begin_body<'b>(&mut self, rest: &'b [u8]) -> Option<(Frame<'b>, usize)> {
        let (frame, missing) = Frame::begun(rest).filter(|(frame, _)| frame.code == b'B')?;
        if self.body_left > 0 || !self.session.takes_any_piece_of_a_body() {
            return None;
        }
        self.body_left = missing;
        Some((frame, rest.len()))
    }

    fn more_of_body<'b>(&mut self, rest: &'b [u8]) -> Option<(Frame<'b>, usize)> {
        let data = rest.get(..self.body_left).unwrap_or(rest);
        self.body_left -= data.len();
        (!data.is_empty()).then_some((Frame { code: b'B', data }, data.len()))
    }

    /// Nobody makes us keep much before it is known to be an MTA.
    fn check_greeting(&self, incomplete: &[u8]) -> Result<(), Ended> {
        match incomplete.first_chunk::<4>().map(|prefix| u32::from_be_bytes(*prefix) as usize) {
            Some(length) if !self.negotiated && length > MAX_GREETING => Err(Ended::Stranger),
            _ => Ok(()),
        }
    }

    /// Does all that can be done without waiting.
    fn begin(&mut self, command: Command<'_>, output: &mut BytesMut) -> Result<Progress, ProtocolError> {
        if let Some(end) = self.session.supersede(&command) {
            self.lookup.settle(Settlement::Release);
            self.message_ended(end);
        }
        if command.may_be_judged() {
            self.lookup.begin();
        }
        let mut action = self.session.handle(command)?;
        while let Action::Ask(query) = action {
            match self.lookup.answer_now(&query) {
                Some(answer) => action = self.answered(query, answer),
                None => return Ok(Progress::Asks(query)),
            }
        }
        Ok(Progress::Done(self.finish(action, output)))
    }

    /// Goes on with a question that takes its time. The deadline is for this and all further ones of the command together.
    async fn look_up(&mut self, mut query: Query, output: &mut BytesMut) -> bool {
        let deadline = Instant::now() + self.in_force.config.server.deadline;
        let mut is_late = false;
        loop {
            let answer = match self.lookup.answer_now(&query) {
                Some(answer) => answer,
                None => {
                    let answer = timeout_at(deadline, self.lookup.answer(&query)).await;
                    is_late |= answer.is_err();
                    answer.unwrap_or(Answer::Failed)
                }
            };
            let action = self.answered(query, answer);
            if let Action::Ask(next) = action {
                query = next;
                continue;
            }
            if is_late && let Action::Decided(decision) = &action {
                self.context.metrics.deadline_exceeded(decision.stage);
            }
            return self.finish(action, output);
        }
    }

    fn answered(&mut self, query: Query, answer: Answer) -> Action {
        if let Query::Hold(hold) = &query {
            self.in_force.series.limit_checked(hold.counter, &answer);
        }
        self.session.answer(query, answer)
    }

    /// Does what was decided; false once the conversation is over.
    fn finish(&mut self, action: Action, output: &mut BytesMut) -> bool {
        match action {
            Action::Aborted(end) => {
                self.lookup.settle(Settlement::Release);
                self.message_ended(end);
            }
            Action::Close => return false,
            Action::Continue => Response::Continue.encode(output),
            Action::Decided(decision) => {
                self.decided(*decision, output);
                return !self.session.is_over();
            }
            Action::Negotiated(negotiation) => {
                self.negotiated = true;
                journal::negotiated(&self.session, &negotiation, &self.context.warnings);
                negotiation.encode(output);
            }
            Action::Ask(_) | Action::Read => {}
            Action::Restart => self.lookup.restart(),
        }
        true
    }

    /// Without a decision.
    fn message_ended(&self, end: MessageEnd) {
        if let Some(traffic) = self.traffic {
            traffic.message_ended(end);
        }
    }

    fn decided(&mut self, decision: Decision, output: &mut BytesMut) {
        self.lookup.settle(decision.settlement);
        let (came, took) = (self.woken.into_std(), self.woken.elapsed());
        self.context.metrics.record(&self.in_force.series, &decision, came, took);
        if let Some(traffic) = self.traffic {
            traffic.record(&decision, &self.session.subject());
        }
        journal::decided(&self.session, &decision);
        if decision.matches.iter().any(|matched| matched.excess.is_some()) {
            self.context.notifier().decided(&self.session, &decision, self.context);
        }
        decision.encode(output);
        if decision.is_told() {
            let at = time_of_day();
            if self.in_force.config.http.has_page() {
                self.context.history.record(&self.in_force.hits, &decision, at);
            }
            self.context.ring.keep(&self.session, decision, &self.in_force.book, at);
        }
        self.session.forget();
    }

    /// A bug panicked: the message is answered by `on_error`, and so is the rest of this session; the daemon lives.
    ///
    /// The connection is not closed, neither now nor between two messages: a milter that is gone is gone for the rest of the
    /// SMTP session, and what becomes of its mail would be for the MTA's default action to say, which may be to accept it.
    fn survive(&mut self, command: Command<'_>, answered: usize, output: &mut BytesMut) -> Result<bool, Ended> {
        // Half an answer may stand there: the MTA would hang up on it.
        output.truncate(answered);
        let survived = catch_unwind(AssertUnwindSafe(|| self.break_down(command, output)));
        survived.map_err(|_| {
            output.truncate(answered);
            Ended::Bug
        })
    }

    fn break_down(&mut self, command: Command<'_>, output: &mut BytesMut) -> bool {
        self.context.metrics.internal_error();
        if self.context.warnings.bug.admits() {
            tracing::error!(
                session = %self.session.id(), command = command.name(),
                "a bug was met; this session is answered by on_error from here on; please report this"
            );
        }
        let action = self.session.break_down(&command);
        self.finish(action, output)
    }
}
