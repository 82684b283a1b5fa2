//! The shell without sockets, as tests need it: a [`Session`] that is fed with commands, questions that the test answers,
//! and the bytes that would leave. Whatever is played, each command is held to what the protocol owes the MTA.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken rule fails the test")]

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use postward::config::Config;
use postward::config::Source;
use postward::facts::Answer;
use postward::facts::Query;
use postward::policy::Policy;
use postward::session::Action;
use postward::session::Decision;
use postward::session::MessageEnd;
use postward::session::ProtocolError;
use postward::session::Session;
use postward::session::Transport;
use postward::wire::Actions;
use postward::wire::Command;
use postward::wire::Frame;
use postward::wire::Response;
use postward::wire::Steps;

/// More questions for one command than any policy of a test has.
const MOST_QUESTIONS: usize = 100_000;

/// Compiles a policy; what is wrong with it fails the test.
pub(crate) fn policy(text: &str) -> Arc<Policy> {
    match try_policy(text) {
        Ok(policy) => policy,
        Err(diagnostics) => panic!("the policy is wrong:\n{diagnostics}"),
    }
}

/// Compiles a policy, or says what is wrong with it.
pub(crate) fn try_policy(text: &str) -> Result<Arc<Policy>, String> {
    let source = Source { path: Path::new("policy.toml").to_owned(), text: text.to_owned() };
    let (config, mut diagnostics) = Config::read(vec![source]);
    let policy = Policy::compile(&config, &mut diagnostics);
    policy.map(Arc::new).ok_or_else(|| diagnostics.to_string())
}

/// A frame that we sent: its letter and what follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Sent {
    pub(crate) letter: u8,
    pub(crate) data: Vec<u8>,
}

/// What one command led to.
#[derive(Debug)]
pub(crate) struct Step {
    /// What was asked for it.
    pub(crate) asked: Vec<Query>,
    /// How the message ended that this command silently replaced.
    pub(crate) superseded: Option<MessageEnd>,
    /// What came of it in the end; never a question.
    pub(crate) action: Action,
    /// What the MTA receives.
    pub(crate) sent: Vec<Sent>,
}

impl Step {
    pub(crate) fn decision(&self) -> Option<&Decision> {
        if let Action::Decided(decision) = &self.action { Some(decision) } else { None }
    }

    /// How a message ended with this command, if one did.
    pub(crate) fn ended(&self) -> Option<MessageEnd> {
        if let Action::Aborted(end) = self.action { Some(end) } else { self.decision()?.message }
    }

    /// The text of the refusal that was sent, without its NUL.
    pub(crate) fn refusal(&self) -> Option<String> {
        let sent = self.sent.iter().find(|sent| sent.letter == b'y')?;
        Some(String::from_utf8(sent.data.strip_suffix(b"\0")?.to_vec()).unwrap())
    }
}

/// A session and what was negotiated, read from the bytes we sent.
pub(crate) struct Driver {
    pub(crate) session: Session,
    taken: Option<(Actions, Steps)>,
}

impl Driver {
    pub(crate) fn new(policy: Arc<Policy>, transport: Transport) -> Self {
        // 33 is `11` in base 32: easy to find in texts.
        Self { session: Session::new(policy, 33, transport), taken: None }
    }

    /// The steps that were negotiated.
    pub(crate) fn steps(&self) -> Steps {
        self.taken.map(|(_, steps)| steps).unwrap_or_default()
    }

    /// Plays one command to its end.
    pub(crate) fn handle(
        &mut self,
        command: Command<'_>,
        mut answer: impl FnMut(&Query) -> Answer,
    ) -> Result<Step, ProtocolError> {
        let superseded = self.session.supersede(&command);
        let mut asked = Vec::new();
        let mut action = self.session.handle(command)?;
        while let Action::Ask(query) = action {
            assert!(asked.len() < MOST_QUESTIONS, "{}: asks without end: {query:?}", command.name());
            let answer = answer(&query);
            asked.push(query.clone());
            action = self.session.answer(query, answer);
        }
        Ok(self.finish(command, asked, superseded, action))
    }

    /// The command meets a bug: what the shell does after a panic.
    pub(crate) fn break_down(&mut self, command: Command<'_>) -> Step {
        let superseded = self.session.supersede(&command);
        let action = self.session.break_down(&command);
        self.finish(command, Vec::new(), superseded, action)
    }

    fn finish(
        &mut self,
        command: Command<'_>,
        asked: Vec<Query>,
        superseded: Option<MessageEnd>,
        action: Action,
    ) -> Step {
        let mut output = BytesMut::new();
        match &action {
            Action::Continue => Response::Continue.encode(&mut output),
            Action::Decided(decision) => decision.encode(&mut output),
            Action::Negotiated(negotiation) => negotiation.encode(&mut output),
            Action::Aborted(_) | Action::Ask(_) | Action::Close | Action::Read | Action::Restart => {}
        }
        let sent = frames(&output);
        if let (Action::Negotiated(_), [negotiation]) = (&action, &sent[..]) {
            self.taken = Some((Actions(word(&negotiation.data, 4)), Steps(word(&negotiation.data, 8))));
        }
        let step = Step { asked, superseded, action, sent };
        self.check(command, &step);
        step
    }

    /// Requirements 1, 2 and 3, for whatever is played: exactly one reply where one is owed and none elsewhere, no
    /// letter where it does harm, no reply text that an MTA would mangle, no power used that was not granted.
    fn check(&self, command: Command<'_>, step: &Step) {
        let name = command.name();
        let letters: String = step.sent.iter().map(|sent| char::from(sent.letter)).collect();
        let (changes, last) = letters.split_at(letters.len().saturating_sub(1));
        let at_end = matches!(command, Command::EndOfMessage(_));
        let expected = match self.owes(command) {
            _ if matches!(command, Command::Negotiate(_)) => "O",
            true if at_end => "cyd",
            true => "cy",
            false => "",
        };
        let fits = if expected.is_empty() { last.is_empty() } else { last.len() == 1 && expected.contains(last) };
        assert!(fits, "{name}: sent `{letters}`, expected one of `{expected}`: {step:?}");
        assert!(changes.is_empty() || at_end, "{name}: sent `{letters}`");
        assert!(changes.chars().all(|change| "hq-".contains(change)), "{name}: sent `{letters}`");
        assert!(changes.is_empty() || last == "c", "{name}: changes, and then `{last}`");
        let actions = self.taken.map(|(actions, _)| actions).unwrap_or_default();
        for (letter, needed) in
            [('h', Actions::ADD_HEADERS), ('q', Actions::QUARANTINE), ('-', Actions::DELETE_RECIPIENTS)]
        {
            assert!(!changes.contains(letter) || actions.contains(needed), "{name}: `{letter}` was not granted");
        }
        for sent in &step.sent {
            check_frame(sent);
        }
    }

    /// By the protocol's own table, not by what the session believes.
    fn owes(&self, command: Command<'_>) -> bool {
        let no_reply = match command {
            Command::Abort | Command::Macros(_) | Command::Quit | Command::QuitNewConnection => return false,
            Command::EndOfMessage(_) | Command::Negotiate(_) => return true,
            Command::Body(_) => Steps::NO_REPLY_BODY,
            Command::Connect(_) => Steps::NO_REPLY_CONNECT,
            Command::Data => Steps::NO_REPLY_DATA,
            Command::EndOfHeaders => Steps::NO_REPLY_END_OF_HEADERS,
            Command::Header { .. } => Steps::NO_REPLY_HEADER,
            Command::Helo(_) => Steps::NO_REPLY_HELO,
            Command::Mail(_) => Steps::NO_REPLY_MAIL,
            Command::Recipient(_) => Steps::NO_REPLY_RECIPIENT,
            Command::Unknown(_) => Steps::NO_REPLY_UNKNOWN,
        };
        !self.steps().contains(no_reply)
    }
}

/// Cuts what we sent into frames; a broken one fails the test.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Sent> {
    let mut frames = Vec::new();
    while let Some((frame, length)) = Frame::split(bytes).unwrap() {
        frames.push(Sent { letter: frame.code, data: frame.data.to_vec() });
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "half a frame was sent: {bytes:?}");
    frames
}

fn word(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap())
}

fn check_frame(sent: &Sent) {
    let nuls = sent.data.iter().filter(|&&byte| byte == 0).count();
    let text = String::from_utf8_lossy(&sent.data);
    match sent.letter {
        b'y' => check_reply(&sent.data),
        b'c' | b'd' => assert!(sent.data.is_empty(), "data after `{}`: {text}", char::from(sent.letter)),
        b'q' => assert!(nuls == 1 && sent.data.ends_with(b"\0"), "{text:?}"),
        b'h' => {
            assert!(nuls == 2 && sent.data.ends_with(b"\0"), "{text:?}");
            assert!(sent.data.iter().all(|&byte| byte == 0 || (b' '..=b'~').contains(&byte)), "{text:?}");
        }
        _ => {}
    }
}

/// The safe form of milter-protocol.md §7.
fn check_reply(data: &[u8]) {
    let shown = data.escape_ascii();
    let text = data.strip_suffix(b"\0").unwrap_or_else(|| panic!("no NUL at the end: {shown}"));
    let text = std::str::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(lines.len() <= 32, "{} lines: {shown}", lines.len());
    let code = &lines[0][..3];
    let class = &code[..1];
    assert!(class == "4" || class == "5", "{shown}");
    let enhanced = lines[0][4..].split(' ').next().unwrap();
    assert!(enhanced.split('.').count() == 3 && enhanced.starts_with(class), "{shown}");
    for (number, line) in lines.iter().enumerate() {
        let mark = if number + 1 == lines.len() { ' ' } else { '-' };
        let text = line.strip_prefix(&format!("{code}{mark}{enhanced} "));
        let text = text.unwrap_or_else(|| panic!("line {number} does not begin as it must: {shown}"));
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "not printable: {shown}");
        assert!(!text.replace("%%", "").contains('%'), "a single %: {shown}");
        let on_the_wire = line.replace("%%", "%").len() + "\r\n".len();
        assert!(on_the_wire <= 512 - 260, "no room for Sendmail's address: {shown}");
    }
}
