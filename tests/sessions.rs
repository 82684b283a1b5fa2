//! Plays the conversations of `tests/sessions/*.session`: what the MTA says, what is asked, what we answer; no sockets.
//!
//! A file begins with comments that say what it shows, goes on with the policy as an operator writes it, and after a line
//! `--- session` (or `--- session over unix`) has the conversation:
//!
//! ```text
//! > mail <a@example.net> SIZE=100           the MTA, in the protocol's order; see `packet` for the words
//! ? hold rate/messages alice total 1 message -> within
//!                                           what is asked, and the answer; see `shown_query` and `parse_answer`
//! < 550 5.7.1 No                            what the MTA receives, see `shown_sent`; without such a line: nothing
//!                                           (the answer to `> negotiate`: not looked at)
//! = message rejected                        what is counted and logged, see `notes`; without such a line: not looked at
//! ```
//!
//! `# ` begins a comment; `\n`, `\r`, `\t`, `\0`, `\s` (a blank), `\\` and `\xNN` stand for bytes that a line cannot hold.
//! A conversation that does not begin with `> negotiate` has it done by the player, as Postfix 3.7 and Sendmail 8.17 do.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken file fails the test")]

#[path = "sessions/driver.rs"]
mod driver;

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use postward::config::Mode;
use postward::config::Size;
use postward::config::Span;
use postward::facts::Amount;
use postward::facts::Answer;
use postward::facts::Bound;
use postward::facts::Exceeded;
use postward::facts::Hold;
use postward::facts::Query;
use postward::facts::Scope;
use postward::policy::MatchedAction;
use postward::policy::Policy;
use postward::session::Action;
use postward::session::MessageEnd;
use postward::session::RecipientEnd;
use postward::session::Settlement;
use postward::session::Transport;
use postward::wire::Actions;
use postward::wire::Command;
use postward::wire::Frame;
use postward::wire::Steps;

use driver::Driver;
use driver::Sent;
use driver::Step;

/// What the clock says when a counter is asked: 2026-11-21T12:00:00Z.
const NOW: Duration = Duration::from_secs(1_795_262_400);

#[test]
fn every_conversation_goes_as_written() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sessions"));
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "session"));
    files.sort();
    assert!(files.len() > 60, "only {} conversations", files.len());
    let failures: Vec<String> = files
        .iter()
        .filter_map(|path| {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
            play(&name, &fs::read_to_string(path).unwrap()).err()
        })
        .collect();
    assert!(failures.is_empty(), "{} of {} fail:\n\n{}", failures.len(), files.len(), failures.join("\n\n"));
}

/// Were the player blind, it would say so here.
#[test]
fn a_wrong_conversation_is_reported_with_its_line() {
    let policy = "# Shows nothing.\n[[rule]]\nname = \"r\"\nlimit = { messages = \"1/hour\" }\n--- session\n";
    let hello =
        "> connect a.example 192.0.2.1\n> mail <a@example.net>\n? hold r/messages * total 1 message -> within\n";
    let fails = |conversation: &str| play("x.session", &format!("{policy}{conversation}")).unwrap_err();
    let starts = |conversation: String, expected: &str| {
        let failure = fails(&conversation);
        assert!(failure.starts_with(expected), "{failure}");
    };
    starts(hello.to_owned(), "x.session:7: > mail <a@example.net>\n  expected: nothing\n       got: < continue\n");
    starts(format!("{hello}< 550 5.7.1 No\n"), "x.session:9:");
    starts(format!("{hello}< continue\n< continue\n"), "x.session:10:");
    starts(format!("{hello}< continue\n= message accepted\n"), "x.session:10:");
    starts(hello.replace("total 1", "total 2") + "< continue\n", "x.session:8:");
    starts(hello.replace("? hold", "# hold") + "< continue\n", "x.session:7:");
    starts(format!("{hello}? disk /a -> failed\n< continue\n"), "x.session:9:");
    starts("> dance\n".to_owned(), "x.session:6: there is no command `dance`");
    starts("< continue\n".to_owned(), "x.session:6: expected a line with >");
    starts("continue\n".to_owned(), "x.session:6: expected a line that begins with");
    starts("> rcpt <b@example.test>\n".to_owned(), "x.session:6: > rcpt <b@example.test>\n  expected: nothing");
    assert!(fails("").starts_with("x.session:5: no conversation"));
    assert!(play("x.session", "[[rule]]\n").unwrap_err().starts_with("x.session:1: no comment"));
    assert!(play("x.session", "# A.\n[[rule]]\n--- session\n> quit\n").unwrap_err().contains("this rule has no name"));
    assert!(play("x.session", &format!("{policy}{hello}< continue\n= rule r\n")).is_err());
    assert_eq!(play("x.session", &format!("{policy}{hello}< continue\n= nothing\n> quit\n= closed\n")), Ok(()));
}

// Reading a file

/// A `>` line and those that belong to it.
struct Exchange<'a> {
    line: usize,
    command: &'a str,
    /// The command meets a bug of ours.
    bug: bool,
    questions: Vec<(usize, &'a str)>,
    sent: Vec<(usize, &'a str)>,
    noted: Vec<(usize, &'a str)>,
}

fn play(name: &str, text: &str) -> Result<(), String> {
    let at = |line: usize, what: &str| format!("{name}:{line}: {what}");
    if !text.starts_with("# ") {
        return Err(at(1, "no comment that says what this shows"));
    }
    let mut lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let mut toml = String::new();
    let mut transport = None;
    let mut begins = 1;
    for (number, line) in lines.by_ref() {
        begins = number;
        match line {
            "--- session" => transport = Some(Transport::Tcp),
            "--- session over unix" => transport = Some(Transport::Unix),
            _ => toml = toml + line + "\n",
        }
        if transport.is_some() {
            break;
        }
    }
    let transport = transport.ok_or_else(|| at(begins, "no line `--- session`"))?;
    let policy =
        driver::try_policy(&toml).map_err(|diagnostics| at(1, &format!("the policy is wrong:\n{diagnostics}")))?;
    let exchanges = exchanges(lines).map_err(|(line, what)| at(line, &what))?;
    if exchanges.is_empty() {
        return Err(at(begins, "no conversation"));
    }
    let mut driver = Driver::new(policy, transport);
    if !exchanges[0].command.starts_with("negotiate") {
        exchange(&mut driver, &Exchange::quiet("negotiate")).map_err(|(_, what)| at(begins, &what))?;
    }
    for one in &exchanges {
        exchange(&mut driver, one).map_err(|(line, what)| at(line, &what))?;
    }
    Ok(())
}

impl<'a> Exchange<'a> {
    fn new(line: usize, command: &'a str, bug: bool) -> Self {
        Self { line, command, bug, questions: Vec::new(), sent: Vec::new(), noted: Vec::new() }
    }

    /// One whose outcome nobody looks at.
    fn quiet(command: &'a str) -> Self {
        Self::new(0, command, false)
    }
}

type Failure = (usize, String);

fn exchanges<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Vec<Exchange<'a>>, Failure> {
    let mut exchanges: Vec<Exchange<'_>> = Vec::new();
    let mut bug = false;
    for (line, text) in lines {
        let text = text.trim_end();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if text == "! bug" {
            bug = true;
            continue;
        }
        let (mark, rest) = text.split_at_checked(2).unwrap_or((text, ""));
        if mark == "> " {
            exchanges.push(Exchange::new(line, rest, std::mem::take(&mut bug)));
            continue;
        }
        if !["? ", "< ", "= "].contains(&mark) {
            return Err((line, "expected a line that begins with `> `, `? `, `< `, `= `, `! bug` or `#`".to_owned()));
        }
        let last = exchanges.last_mut().ok_or_else(|| (line, "expected a line with > first".to_owned()))?;
        match mark {
            "? " => last.questions.push((line, rest)),
            "< " => last.sent.push((line, rest)),
            _ => last.noted.push((line, rest)),
        }
    }
    Ok(exchanges)
}

// Playing it

fn exchange(driver: &mut Driver, exchange: &Exchange<'_>) -> Result<(), Failure> {
    if exchange.command == "lost" {
        let notes = driver.session.abandon().map(|end| format!("message {}", end.name()));
        return compare(exchange, &[], notes.as_slice());
    }
    let (letter, data) = packet(exchange.command).map_err(|what| (exchange.line, what))?;
    let frame = Frame { code: letter, data: &data };
    let command = match Command::decode(frame) {
        Ok(command) => command,
        Err(error) => return compare(exchange, &[], &[format!("error: {error}")]),
    };
    let policy = driver.session.policy().clone();
    let mut expected = exchange.questions.iter();
    let mut failure = None;
    let answer = |query: &Query| {
        let shown = shown_query(&policy, query);
        let (line, text) = expected.next().copied().unwrap_or((exchange.line, "no question"));
        let (question, answer) = text.split_once(" -> ").unwrap_or((text, ""));
        let answer = parse_answer(answer);
        if question != shown || answer.is_none() {
            let problem = if question == shown { "the answer is none" } else { "another question" };
            failure.get_or_insert_with(|| (line, format!("{problem}\n  expected: ? {text}\n       got: ? {shown}")));
        }
        answer.unwrap_or(Answer::Failed)
    };
    let step = if exchange.bug { Ok(driver.break_down(command)) } else { driver.handle(command, answer) };
    if let Some(failure) = failure {
        return Err(failure);
    }
    match step {
        Err(error) => compare(exchange, &[], &[format!("error: {error}")]),
        Ok(_) if exchange.line == 0 => Ok(()),
        Ok(step) => {
            if let Some((line, text)) = exchange.questions.get(step.asked.len()) {
                return Err((*line, format!("not asked\n  expected: ? {text}\n       got: no question")));
            }
            let mut sent: Vec<String> = step.sent.iter().flat_map(shown_sent).collect();
            if matches!(step.action, Action::Negotiated(_)) && exchange.sent.is_empty() {
                sent.clear();
            }
            compare(exchange, &sent, &notes(&policy, &step))
        }
    }
}

fn compare(exchange: &Exchange<'_>, sent: &[String], notes: &[String]) -> Result<(), Failure> {
    compare_lines(exchange, '<', &exchange.sent, sent)?;
    let error = notes.iter().any(|note| note.starts_with("error: "));
    match &exchange.noted[..] {
        [] if !error => Ok(()),
        [(_, "nothing")] if notes.is_empty() => Ok(()),
        noted => compare_lines(exchange, '=', noted, notes),
    }
}

fn compare_lines(
    exchange: &Exchange<'_>,
    mark: char,
    expected: &[(usize, &str)],
    got: &[String],
) -> Result<(), Failure> {
    let differs = (0..expected.len().max(got.len()))
        .find(|&at| expected.get(at).map(|(_, text)| *text) != got.get(at).map(String::as_str));
    let Some(differs) = differs else {
        return Ok(());
    };
    let line = expected.get(differs).map_or(exchange.line, |(line, _)| *line);
    let show = |text: Option<&str>| text.map_or_else(|| "nothing".to_owned(), |text| format!("{mark} {text}"));
    let mut message =
        format!("> {}\n  expected: {}", exchange.command, show(expected.get(differs).map(|(_, text)| *text)));
    _ = write!(message, "\n       got: {}\n  all that came:", show(got.get(differs).map(String::as_str)));
    for text in got {
        _ = write!(message, "\n       {mark} {text}");
    }
    Err((line, message))
}

// What the MTA says

/// Letter and data of the packet that the words of a `>` line stand for.
fn packet(line: &str) -> Result<(u8, Vec<u8>), String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut data = Vec::new();
    let letter = match word {
        // abort | data | end-of-headers | end-of-message | quit | quit-nc
        "abort" => b'A',
        "data" => b'T',
        "end-of-headers" => b'N',
        "end-of-message" => b'E',
        "quit" => b'Q',
        "quit-nc" => b'K',
        // body TEXT | body 1000 bytes
        "body" => {
            data = match rest.strip_suffix(" bytes").and_then(|count| count.parse().ok()) {
                Some(count) => vec![b'x'; count],
                None => unescaped(rest)?,
            };
            b'B'
        }
        // connect HOSTNAME ADDRESS [PORT] [FAMILY]
        "connect" => {
            let words: Vec<&str> = rest.split(' ').collect();
            let [name, address, ref more @ ..] = words[..] else {
                return Err("expected connect HOSTNAME ADDRESS [PORT] [FAMILY]".to_owned());
            };
            let port: u16 = more.first().map_or(Ok(40_000), |port| port.parse()).map_err(|_| "a port".to_owned())?;
            let usual = if address.contains(':') { "6" } else { "4" };
            let family = more.get(1).copied().unwrap_or(usual);
            data.extend(unescaped(name)?);
            data.push(0);
            data.extend_from_slice(family.as_bytes());
            if family != "U" {
                data.extend_from_slice(&port.to_be_bytes());
                data.extend(unescaped(address)?);
                data.push(0);
            }
            b'C'
        }
        // header NAME: VALUE, where a blank after the colon is part of the value
        "header" => {
            let (name, value) = rest.split_once(':').ok_or("expected header NAME: VALUE")?;
            strings(&mut data, [name, value])?;
            b'L'
        }
        // helo NAME | unknown COMMAND
        "helo" => {
            strings(&mut data, [rest])?;
            b'H'
        }
        "unknown" => {
            strings(&mut data, [rest])?;
            b'U'
        }
        // macros STAGE NAME=VALUE …
        "macros" => {
            let mut words = rest.split(' ');
            data.push(macro_letter(words.next().unwrap_or_default())?);
            for word in words {
                let (name, value) = word.split_once('=').ok_or("expected NAME=VALUE")?;
                strings(&mut data, [name, value])?;
            }
            b'D'
        }
        // mail ADDRESS ARGUMENT … | rcpt ADDRESS ARGUMENT …
        "mail" => {
            strings(&mut data, rest.split(' '))?;
            b'M'
        }
        "rcpt" => {
            strings(&mut data, rest.split(' '))?;
            b'R'
        }
        // negotiate [version=6] [actions=0x1ff] [steps=0x1fffff]
        "negotiate" => {
            let mut offer = [6, 0x1ff, 0x1f_ffff];
            for word in rest.split_whitespace() {
                let (name, value) = word.split_once('=').ok_or("expected NAME=VALUE")?;
                let index = ["version", "actions", "steps"].iter().position(|known| *known == name);
                let number = u32::from_str_radix(value.trim_start_matches("0x"), 16);
                offer[index.ok_or("expected version, actions or steps")?] = number.map_err(|_| "expected a number")?;
            }
            offer.iter().for_each(|word| data.extend_from_slice(&word.to_be_bytes()));
            b'O'
        }
        // packet LETTER DATA: anything else
        "packet" => {
            let (letter, rest) = rest.split_at_checked(1).ok_or("expected a letter")?;
            data = unescaped(rest.trim_start())?;
            letter.as_bytes()[0]
        }
        _ => return Err(format!("there is no command `{word}`")),
    };
    Ok((letter, data))
}

fn macro_letter(stage: &str) -> Result<u8, String> {
    let letters = [
        ("connect", b'C'),
        ("helo", b'H'),
        ("mail", b'M'),
        ("rcpt", b'R'),
        ("data", b'T'),
        ("header", b'L'),
        ("end-of-headers", b'N'),
        ("body", b'B'),
        ("end-of-message", b'E'),
    ];
    let letter = letters.iter().find(|(name, _)| *name == stage).map(|(_, letter)| *letter);
    letter.ok_or_else(|| format!("there is no stage `{stage}`"))
}

fn strings<'a>(data: &mut Vec<u8>, strings: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    for string in strings {
        data.extend(unescaped(string)?);
        data.push(0);
    }
    Ok(())
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first().ok_or("a backslash at the end")?;
        rest = after;
        bytes.push(match escape {
            b'\\' => b'\\',
            b'0' => 0,
            b'n' => b'\n',
            b'r' => b'\r',
            b's' => b' ',
            b't' => b'\t',
            b'x' => {
                let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                rest = rest.get(2..).unwrap_or_default();
                byte.ok_or("expected two digits after \\x")?
            }
            other => return Err(format!("there is no \\{}", other.escape_ascii())),
        });
    }
    Ok(bytes)
}

// What is asked

/// `hold RULE/MEASURE KEY add|total N|value V|nothing|try message|connection|instant|attempt|refused [row N]`, `disk PATH`.
fn shown_query(policy: &Policy, query: &Query) -> String {
    match query {
        Query::DiskFree(number) => format!("disk {}", policy.path(*number).unwrap().display()),
        Query::Hold(Hold { counter, row, key, amount, scope }) => {
            let counter = &policy.counters()[*counter];
            let amount = match amount {
                Amount::Add(amount) => format!("add {amount}"),
                Amount::Nothing => "nothing".to_owned(),
                Amount::Total(amount) => format!("total {amount}"),
                Amount::Try => "try".to_owned(),
                Amount::Value(value) => format!("value {}", shown_key(value)),
            };
            let scope = match scope {
                Scope::Attempt => "attempt",
                Scope::Connection => "connection",
                Scope::Instant => "instant",
                Scope::Message => "message",
                Scope::Refused => "refused",
            };
            let row = if *row == 0 { String::new() } else { format!(" row {row}") };
            format!("hold {}/{} {} {amount} {scope}{row}", counter.rule, counter.measure.name(), shown_key(key))
        }
    }
}

/// `*` for all, else its parts with a bar between: networks by their first address.
fn shown_key(mut key: &[u8]) -> String {
    let mut parts = Vec::new();
    while !key.is_empty() {
        let (part, rest) = match key {
            [4, a, b, c, d, rest @ ..] => (Ipv4Addr::new(*a, *b, *c, *d).to_string(), rest),
            [6, rest @ ..] if rest.len() >= 16 => {
                let address: [u8; 16] = rest[..16].try_into().unwrap();
                (Ipv6Addr::from(address).to_string(), &rest[16..])
            }
            _ => {
                let end = key.iter().position(|&byte| byte == 0).unwrap_or(key.len());
                (key[..end].escape_ascii().to_string(), &key[end..])
            }
        };
        parts.push(part);
        key = rest.strip_prefix(b"\0").unwrap_or(rest);
    }
    if parts.is_empty() { "*".to_owned() } else { parts.join("|") }
}

/// `within`, `failed`, `free SIZE`, `exceeded rate|share N used N [retry SPAN]`, `exceeded at-once used N`; with `step N` behind
/// the last two, of a limit with steps.
fn parse_answer(text: &str) -> Option<Answer> {
    if let Some(size) = text.strip_prefix("free ") {
        return Some(Answer::Bytes(size.parse::<Size>().ok()?.0));
    }
    let words: Vec<&str> = text.split(' ').collect();
    let (words, step) = match words.split_last_chunk::<2>() {
        Some((rest, ["step", step])) => (rest, step.parse().ok()?),
        _ => (&words[..], 0),
    };
    match *words {
        ["within"] => Some(Answer::Within),
        ["failed"] => Some(Answer::Failed),
        ["exceeded", "at-once", "used", used] => {
            let used = used.parse().ok()?;
            Some(Answer::Exceeded(Exceeded {
                row: 0,
                step,
                bound: Bound::Concurrent,
                used,
                retry_after: None,
                retry_at: None,
            }))
        }
        ["exceeded", kind @ ("rate" | "share"), number, "used", used, ref retry @ ..] => {
            let retry_after = match retry {
                [] => None,
                ["retry", span] => Some(span.parse::<Span>().ok()?.0),
                _ => return None,
            };
            let retry_at = retry_after.map(|after| SystemTime::UNIX_EPOCH + NOW + after);
            let (number, used) = (number.parse().ok()?, used.parse().ok()?);
            let bound = if kind == "rate" { Bound::Rate(number) } else { Bound::Share(number) };
            Some(Answer::Exceeded(Exceeded { row: 0, step, bound, used, retry_after, retry_at }))
        }
        _ => None,
    }
}

// What we answer

/// The bytes of a reply as they are, `%%` included, one line for each of its own; the rest in words.
fn shown_sent(sent: &Sent) -> Vec<String> {
    let text = |bytes: &[u8]| match bytes.strip_suffix(b" ") {
        Some(bytes) => format!("{}\\s", bytes.escape_ascii()),
        None => bytes.escape_ascii().to_string(),
    };
    let strings: Vec<String> = sent.data.split(|&byte| byte == 0).map(text).collect();
    match sent.letter {
        b'c' => vec!["continue".to_owned()],
        b'd' => vec!["discard".to_owned()],
        b'h' => vec![format!("add header {}: {}", strings[0], strings[1])],
        b'q' => vec![format!("quarantine {}", strings[0])],
        b'-' => vec![format!("delete recipient {}", strings[0])],
        b'y' => {
            let lines = sent.data.strip_suffix(b"\0").unwrap_or(&sent.data);
            String::from_utf8_lossy(lines).split("\r\n").map(|line| text(line.as_bytes())).collect()
        }
        b'O' => shown_negotiation(&sent.data),
        letter => vec![format!("{} {}", char::from(letter), text(&sent.data))],
    }
}

fn shown_negotiation(data: &[u8]) -> Vec<String> {
    let word = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
    let mut lines = vec![
        format!("version {}", word(0)),
        format!("actions {:?}", Actions(word(4))),
        format!("steps {:?}", Steps(word(8))),
    ];
    let mut rest = &data[12..];
    let stages = ["connect", "helo", "mail", "rcpt", "data", "end-of-message", "end-of-headers"];
    while let Some((stage, names)) = rest.split_first_chunk::<4>() {
        let end = names.iter().position(|&byte| byte == 0).unwrap();
        let stage = stages[u32::from_be_bytes(*stage) as usize];
        lines.push(format!("macros {stage}: {}", names[..end].escape_ascii()));
        rest = &names[end + 1..];
    }
    lines
}

// What is counted and logged

/// In this order: `superseded END`, `rule NAME DOES [above N%] [(monitor)] [matched "…"] [for RECIPIENT]`, `would say REPLY`, `held back`,
/// `recipient END`, `limits charged|given back|rolled back`, `message END`, `closed`, `restarted`.
fn notes(policy: &Policy, step: &Step) -> Vec<String> {
    let mut notes: Vec<String> = step.superseded.iter().map(|end| format!("superseded {}", end.name())).collect();
    match &step.action {
        Action::Aborted(end) => notes.push(format!("message {}", end.name())),
        Action::Close => notes.push("closed".to_owned()),
        Action::Restart => notes.push("restarted".to_owned()),
        Action::Ask(_) | Action::Continue | Action::Negotiated(_) | Action::Read | Action::Decided(_) => {}
    }
    let Some(decision) = step.decision() else {
        return notes;
    };
    for matched in &decision.matches {
        let mode = if matched.mode == Mode::Monitor { " (monitor)" } else { "" };
        let detail = matched.detail.as_ref().map(|detail| format!(" matched \"{detail}\"")).unwrap_or_default();
        let recipient = matched.recipient.as_ref().map(|recipient| format!(" for {recipient}")).unwrap_or_default();
        let action = match matched.action {
            MatchedAction::Accept => "accepts",
            MatchedAction::AddHeader => "adds a header",
            MatchedAction::Discard => "discards",
            MatchedAction::Monitor => "lets pass",
            MatchedAction::Quarantine => "quarantines",
            MatchedAction::Refuse(_) => "refuses",
        };
        let step = matched.step.map(|percent| format!(" above {percent}%")).unwrap_or_default();
        notes.push(format!("rule {} {action}{step}{mode}{detail}{recipient}", policy.rule_name(matched.rule)));
    }
    notes.extend(decision.watched.as_ref().map(|reply| format!("would say {reply}")));
    notes.extend(decision.held_back.then(|| "held back".to_owned()));
    notes.extend(decision.recipient.map(RecipientEnd::name).map(|end| format!("recipient {end}")));
    notes.extend(match decision.settlement {
        Settlement::Commit => Some("limits charged".to_owned()),
        Settlement::Keep => None,
        Settlement::Release => Some("limits given back".to_owned()),
        Settlement::ReleaseUnjudged => Some("limits given back, nothing charged".to_owned()),
        Settlement::RollBack => Some("limits rolled back".to_owned()),
        Settlement::RollBackUnjudged => Some("limits rolled back, nothing charged".to_owned()),
    });
    notes.extend(decision.message.map(MessageEnd::name).map(|end| format!("message {end}")));
    notes
}
