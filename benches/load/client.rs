//! One session of the load, as Postfix would have it: it says what was negotiated, and waits for a reply only where one is
//! owed. Macros go before every command, whether it is sent or not; what wants no reply is kept back until something does,
//! or until DATA, where smtpd hands the connection over to cleanup. (Postfix `milter8.c`, and what it sends.)

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;

use crate::frames;
use crate::frames::Frame;
use crate::message::Random;
use crate::message::Script;
use crate::server::Offer;
use crate::values::NAME;
use crate::values::Values;

/// The commands that are timed, in the order of a session.
pub(crate) const COMMANDS: [(u8, &str); 10] = [
    (b'O', "OPTNEG"),
    (b'C', "CONNECT"),
    (b'H', "HELO"),
    (b'M', "MAIL"),
    (b'R', "RCPT"),
    (b'T', "DATA"),
    (b'L', "HEADER"),
    (b'N', "EOH"),
    (b'B', "BODY"),
    (b'E', "BODYEOB"),
];

/// What the server said to a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answered {
    Accepted,
    /// With a reply, at whatever command.
    Refused,
}

/// A connection to a milter.
pub(crate) struct Session<S> {
    stream: S,
    script: Arc<Script>,
    out: Vec<u8>,
    input: Vec<u8>,
    steps: u32,
    /// The macros that the server asked for, by stage.
    asked: [Option<Vec<String>>; 7],
    values: Values,
    /// How long each command waited for its reply, since this was last emptied.
    pub(crate) waited: Vec<(u8, Duration)>,
}

/// What a reply to a command means for the session.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    GoOn,
    Refused,
    SkipBody,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Negotiates, and goes as far as HELO.
    pub(crate) async fn open(
        stream: S,
        script: Arc<Script>,
        offer: Offer,
        random: &mut Random,
    ) -> Result<Self, String> {
        let values = Values::new(random);
        let (out, input) = (Vec::with_capacity(512), Vec::new());
        let mut session =
            Self { stream, script, out, input, steps: 0, asked: Default::default(), values, waited: Vec::new() };
        session.negotiate(offer).await?;
        let (port, address) = (40_000_u16, session.values.client());
        session.put_macros(b'C');
        let first = session.command(b'C', |out| {
            frames::put_string(out, NAME);
            out.push(b'4');
            out.extend_from_slice(&port.to_be_bytes());
            frames::put_string(out, &address);
        });
        first.await?;
        session.put_macros(b'H');
        session.command(b'H', |out| frames::put_string(out, NAME)).await?;
        Ok(session)
    }

    /// One message, from MAIL to the answer at its end.
    pub(crate) async fn message(&mut self, random: &mut Random) -> Result<Answered, String> {
        self.values.begin(random);
        let script = Arc::clone(&self.script);
        self.put_macros(b'M');
        let sender = format!("<{}>", self.values.sender);
        let size = script.size;
        let said = self.command(b'M', |out| {
            frames::put_string(out, &sender);
            let _ = write!(out, "SIZE={size}\0BODY=8BITMIME\0");
        });
        if said.await? == Next::Refused {
            return Ok(Answered::Refused);
        }
        let mut taken = 0;
        for number in 0..script.recipients {
            self.values.next_recipient(number, random);
            self.put_macros(b'R');
            let recipient = format!("<{}>", self.values.recipient);
            if self.command(b'R', |out| frames::put_string(out, &recipient)).await? != Next::Refused {
                taken += 1;
            }
        }
        if taken < script.recipients {
            return Ok(Answered::Refused);
        }
        self.values.has_queue_id = true;
        self.put_macros(b'T');
        if self.command(b'T', |_| {}).await? == Next::Refused {
            return Ok(Answered::Refused);
        }
        self.flush().await?;
        self.content(&script).await
    }

    async fn content(&mut self, script: &Script) -> Result<Answered, String> {
        for header in &script.headers {
            if self.prepared(b'L', header).await? == Next::Refused {
                return Ok(Answered::Refused);
            }
        }
        if self.prepared(b'N', &[0, 0, 0, 1, b'N']).await? == Next::Refused {
            return Ok(Answered::Refused);
        }
        for piece in &script.body {
            match self.prepared(b'B', piece).await? {
                Next::GoOn => {}
                Next::Refused => return Ok(Answered::Refused),
                Next::SkipBody => break,
            }
        }
        self.put_macros(b'E');
        let said = self.command(b'E', |_| {}).await?;
        Ok(if said == Next::Refused { Answered::Refused } else { Answered::Accepted })
    }

    /// Postfix says so after each message, whatever became of it; what comes next takes it along.
    pub(crate) fn forget(&mut self) {
        frames::put(&mut self.out, b'A', |_| {});
        self.values.has_queue_id = false;
    }

    /// Says goodbye, as Postfix does; waits for nothing.
    pub(crate) async fn quit(mut self) -> Result<(), String> {
        frames::put(&mut self.out, b'A', |_| {});
        frames::put(&mut self.out, b'Q', |_| {});
        self.flush().await
    }

    async fn negotiate(&mut self, offer: Offer) -> Result<(), String> {
        frames::put(&mut self.out, b'O', |out| offer.iter().for_each(|w| out.extend_from_slice(&w.to_be_bytes())));
        let start = Instant::now();
        self.flush().await?;
        self.wait_for_frame().await?;
        self.waited.push((b'O', start.elapsed()));
        let Some(Frame { letter: b'O', data, length }) = frames::first(&self.input)? else {
            return Err("the answer to OPTNEG is none".to_owned());
        };
        self.steps = frames::word(data, 2)?;
        if self.steps & !offer[2] != 0 || frames::word(data, 1)? & !offer[1] != 0 {
            return Err(format!("OPTNEG takes what was not offered: {data:02x?}"));
        }
        let mut lists = data.get(12..).unwrap_or_default();
        while let Some((stage, rest)) = lists.split_first_chunk::<4>() {
            let end = rest.iter().position(|&byte| byte == 0).ok_or("OPTNEG: a list of macros without its end")?;
            let names = String::from_utf8_lossy(&rest[..end]).split_whitespace().map(str::to_owned).collect();
            let stage = u32::from_be_bytes(*stage) as usize;
            *self.asked.get_mut(stage).ok_or_else(|| format!("OPTNEG: macros for stage {stage}"))? = Some(names);
            lists = &rest[end + 1..];
        }
        self.input.drain(..length);
        Ok(())
    }

    /// A frame that was made before, with the macros that go before it; nothing at all if the step is left out.
    async fn prepared(&mut self, letter: u8, frame: &[u8]) -> Result<Next, String> {
        if self.steps & frames::skip_bit(letter) != 0 {
            return Ok(Next::GoOn);
        }
        self.put_macros(letter);
        self.out.extend_from_slice(frame);
        if self.out.len() >= FULL {
            self.flush().await?;
        }
        self.reply(letter).await
    }

    async fn command(&mut self, letter: u8, data: impl FnOnce(&mut Vec<u8>)) -> Result<Next, String> {
        if self.steps & frames::skip_bit(letter) != 0 {
            return Ok(Next::GoOn);
        }
        frames::put(&mut self.out, letter, data);
        self.reply(letter).await
    }

    /// Sends what was kept back and waits, if a reply is owed.
    async fn reply(&mut self, letter: u8) -> Result<Next, String> {
        if !frames::is_answered(letter, self.steps) {
            return Ok(Next::GoOn);
        }
        let start = Instant::now();
        self.flush().await?;
        let next = loop {
            let Frame { letter: said, length, .. } = self.wait_for_frame().await?;
            self.input.drain(..length);
            match said {
                b'c' | b'a' => break Next::GoOn,
                b'r' | b't' | b'y' | b'd' | b'4' => break Next::Refused,
                b's' if letter == b'B' => break Next::SkipBody,
                // What is done to the message, and that it takes longer.
                b'h' | b'i' | b'm' | b'+' | b'-' | b'q' | b'p' if letter == b'E' => {}
                other => {
                    return Err(format!("`{}` is no answer to `{}`", other.escape_ascii(), letter.escape_ascii()));
                }
            }
        };
        self.waited.push((letter, start.elapsed()));
        if !self.input.is_empty() {
            return Err(format!("more than one answer to `{}`", letter.escape_ascii()));
        }
        Ok(next)
    }

    async fn flush(&mut self) -> Result<(), String> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await.map_err(|error| format!("the server is gone: {error}"))?;
            self.out.clear();
        }
        Ok(())
    }

    /// Reads until a whole frame is there.
    async fn wait_for_frame(&mut self) -> Result<Frame<'_>, String> {
        while frames::first(&self.input)?.is_none() {
            match self.stream.read_buf(&mut self.input).await {
                Ok(1..) => {}
                Ok(0) => return Err("the server closed the connection before its answer".to_owned()),
                Err(error) => return Err(format!("the server is gone: {error}")),
            }
        }
        frames::first(&self.input)?.ok_or_else(|| "half a frame".to_owned())
    }

    fn put_macros(&mut self, letter: u8) {
        let (stage, usual): (usize, &[&str]) = match letter {
            b'C' => (0, &["j", "{daemon_name}", "{daemon_addr}", "v", "_"]),
            b'H' => (1, &["{tls_version}", "{cipher}", "{cipher_bits}"]),
            b'M' => (2, &["i", "{auth_type}", "{auth_authen}", "{mail_addr}", "{mail_host}", "{mail_mailer}"]),
            b'R' => (3, &["i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"]),
            b'T' => (4, &["i"]),
            // Postfix has no lists of their own for these two.
            b'B' | b'E' => (5, &["i"]),
            _ => (6, &["i"]),
        };
        let (asked, values) = (&self.asked[stage], &self.values);
        frames::put(&mut self.out, b'D', |out| {
            out.push(letter);
            match asked {
                Some(names) => names.iter().for_each(|name| values.put(name, out)),
                None => usual.iter().for_each(|name| values.put(name, out)),
            }
        });
    }
}

/// What is kept back at most.
const FULL: usize = 60 * 1024;
