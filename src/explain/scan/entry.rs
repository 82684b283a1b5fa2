//! Entries of logs: whose they are, and what they say.

/// An entry of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) program: Program,
    /// Tells processes apart.
    pub(super) key: u64,
    pub(super) message: &'a str,
}

/// Who wrote an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    Exim,
    Other,
    Postfix(Service),
    Postward,
    Sendmail,
}

/// Which side of a session a program of Postfix is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Service {
    Client,
    Neither,
    Server,
}

impl<'a> Entry<'a> {
    /// The entry in a line; also where `grep` has put the file's name, or a number, before it.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        if let Some(entry) = Self::parse_whole(line) {
            return Some(entry);
        }
        let mut rest = line;
        for _ in 0..2 {
            let (before, after) = rest.split_once(':')?;
            if before.contains(char::is_whitespace) {
                return None;
            }
            rest = after;
            if let Some(entry) = Self::parse_dated(rest) {
                return Some(entry);
            }
        }
        None
    }

    fn parse_whole(line: &'a str) -> Option<Self> {
        if line.starts_with("{\"") && line.contains("\"timestamp\"") {
            return Some(Self { program: Program::Postward, key: 0, message: line });
        }
        Self::parse_dated(line).or_else(|| Self::parse_tag(line).filter(|entry| entry.program != Program::Other))
    }

    fn parse_dated(line: &'a str) -> Option<Self> {
        let line = without_priority(line);
        if let Some(rest) = without_iso_time(line) {
            return Some(Self::after_iso_time(rest));
        }
        let rest = without_syslog_time(line)?;
        Some(Self::after_host(rest).unwrap_or_else(|| Self::other(rest)))
    }

    fn after_iso_time(rest: &'a str) -> Self {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        if LEVELS.contains(&word) {
            return Self { program: Program::Postward, key: 0, message: after };
        }
        if is_exims(word) {
            return Self { program: Program::Exim, key: hash(0, word), message: rest };
        }
        Self::after_host(rest).or_else(|| Self::after_structured_host(rest)).unwrap_or_else(|| Self::other(rest))
    }

    /// `host tag[pid]: message`, or without the host.
    fn after_host(rest: &'a str) -> Option<Self> {
        let (_, after) = rest.split_once(' ')?;
        Self::parse_tag(rest).or_else(|| Self::parse_tag_or_name(after.trim_start()))
    }

    /// `host program pid id data message` (RFC 5424 §6).
    fn after_structured_host(rest: &'a str) -> Option<Self> {
        let mut parts = rest.splitn(6, ' ');
        let (_, name, pid) = (parts.next()?, parts.next()?, parts.next()?);
        let (_, _, message) = (parts.next()?, parts.next()?, parts.next()?);
        let is_pid = pid == "-" || pid.bytes().all(|byte| byte.is_ascii_digit());
        is_pid.then(|| Self { program: program(name), key: hash(hash(0, name), pid), message })
    }

    /// `tag[pid]: message`
    fn parse_tag(line: &'a str) -> Option<Self> {
        let (tag, message) = line.split_once(": ")?;
        let (name, pid) = tag.strip_suffix(']')?.split_once('[')?;
        let is_tag = is_name(name) && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        is_tag.then(|| Self { program: program(name), key: hash(0, tag), message })
    }

    /// As `parse_tag`, or `tag: message`
    fn parse_tag_or_name(line: &'a str) -> Option<Self> {
        if let Some(entry) = Self::parse_tag(line) {
            return Some(entry);
        }
        let (name, message) = line.split_once(": ")?;
        is_name(name).then(|| Self { program: program(name), key: hash(0, name), message })
    }

    const fn other(message: &'a str) -> Self {
        Self { program: Program::Other, key: 0, message }
    }
}

/// Mixes a word into a key (FNV-1a).
pub(super) fn hash(key: u64, word: &str) -> u64 {
    let start = if key == 0 { 0xcbf2_9ce4_8422_2325 } else { key };
    word.bytes().fold(start, |key, byte| (key ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn program(name: &str) -> Program {
    let (instance, service) = name.rsplit_once('/').unwrap_or(("", name));
    if service == "postward" {
        return Program::Postward;
    }
    if instance.is_empty() && (service.starts_with("sendmail") || service.starts_with("sm-")) {
        return Program::Sendmail;
    }
    if service.starts_with("exim") {
        return Program::Exim;
    }
    if instance.is_empty() || instance.starts_with("dovecot") {
        return Program::Other;
    }
    match service {
        "smtp" | "lmtp" => Program::Postfix(Service::Client),
        "smtpd" | "postscreen" => Program::Postfix(Service::Server),
        _ if POSTFIX.contains(&service) => Program::Postfix(Service::Neither),
        _ => Program::Other,
    }
}

/// The first word of an entry of Exim's: a message's id, or a process's.
fn is_exims(word: &str) -> bool {
    let is_id = || {
        let mut parts = word.split('-').map(str::len);
        let lengths = [parts.next(), parts.next(), parts.next(), parts.next()];
        let known = lengths == [Some(6), Some(6), Some(2), None] || lengths == [Some(6), Some(11), Some(4), None];
        known && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let pid = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())) || is_id()
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(known)
}

/// Without `<22>` or `<22>1 `.
fn without_priority(line: &str) -> &str {
    let after = line.strip_prefix('<').and_then(|line| line.split_once('>'));
    let Some((_, rest)) = after.filter(|(number, _)| number.parse::<u16>().is_ok()) else { return line };
    rest.strip_prefix("1 ").unwrap_or(rest)
}

/// Behind `Nov 21 13:33:58 `, with or without a year or fractions of a second.
fn without_syslog_time(line: &str) -> Option<&str> {
    let (month, rest) = line.split_at_checked(4)?;
    if !MONTHS.contains(&month) {
        return None;
    }
    let (day, rest) = rest.trim_start().split_once(' ')?;
    let number = |word: &str, length: usize| word.len() <= length && word.parse::<u16>().is_ok();
    if !number(day, 2) {
        return None;
    }
    let (word, after) = rest.split_once(' ')?;
    if is_time(word) {
        return Some(after);
    }
    let (time, after) = after.split_once(' ').filter(|_| number(word, 4))?;
    is_time(time).then_some(after)
}

/// Behind `2026-11-21T13:33:58.123+00:00 `, or a blank for the T, or `Sat ` before it and ` UTC` behind it.
fn without_iso_time(line: &str) -> Option<&str> {
    let line = match line.split_at_checked(4) {
        Some((day, rest)) if DAYS.contains(&day) => rest,
        _ => line,
    };
    let (date, rest) = line.split_at_checked(10)?;
    let is_date = date.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let rest = rest.strip_prefix(['T', 't', ' ']).filter(|_| is_date)?;
    let (time, rest) = rest.split_once(' ')?;
    if !is_time(time) {
        return None;
    }
    let rest = rest.trim_start();
    Some(rest.strip_prefix("UTC ").unwrap_or(rest))
}

/// `13:33:58`, with or without a fraction and a zone.
fn is_time(word: &str) -> bool {
    let Some((time, rest)) = word.split_at_checked(8) else { return false };
    let is_time = time.bytes().enumerate().all(|(at, byte)| match at {
        2 | 5 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    is_time && rest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'+' | b'-' | b':' | b'Z'))
}

const DAYS: [&str; 7] = ["Mon ", "Tue ", "Wed ", "Thu ", "Fri ", "Sat ", "Sun "];

const LEVELS: [&str; 5] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];

/// The longest name of a program.
const MAX_NAME: usize = 64;

const MONTHS: [&str; 12] =
    ["Jan ", "Feb ", "Mar ", "Apr ", "May ", "Jun ", "Jul ", "Aug ", "Sep ", "Oct ", "Nov ", "Dec "];

/// Programs of Postfix that are neither side of a session.
const POSTFIX: &[&str] = &[
    "anvil",
    "bounce",
    "cleanup",
    "defer",
    "discard",
    "dnsblog",
    "error",
    "flush",
    "local",
    "master",
    "oqmgr",
    "pickup",
    "pipe",
    "postdrop",
    "postlogd",
    "postqueue",
    "postsuper",
    "proxymap",
    "qmgr",
    "qmqpd",
    "retry",
    "scache",
    "sendmail",
    "showq",
    "tlsmgr",
    "tlsproxy",
    "trace",
    "trivial-rewrite",
    "verify",
    "virtual",
];
