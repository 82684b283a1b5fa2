//! The reply of a rule that has none, by what the rule is about.
//!
//! Basic codes by RFC 5321 §4.3.2, enhanced codes by RFC 3463 and the IANA registry: the most specific registered one.

use super::limit::Measure;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::reply::Class;
use crate::reply::Status;

/// A code, an enhanced code and a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Default {
    pub(crate) status: Status,
    pub(crate) text: &'static str,
}

/// What a rule is about: the questions it asks (those under `not` and `unless` left out), and what it counts.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    pub(crate) facts: Vec<Fact>,
    pub(crate) must_authenticate: bool,
    pub(crate) must_encrypt: bool,
    /// Whether it asks for one thing *or* another: then no text can say which it was.
    pub(crate) has_alternatives: bool,
}

impl Topic {
    fn asks(&self, fact: Fact) -> bool {
        self.facts.contains(&fact)
    }
}

/// A message that we failed to judge.
pub(crate) const INTERNAL_ERROR: Default =
    default(Class::Transient, 51, 3, 0, "Temporary local problem, try again later");

/// More recipients in one message than a rule, or we, allow.
pub(crate) const TOO_MANY_RECIPIENTS: Default =
    default(Class::Transient, 52, 5, 3, "Too many recipients in one message");

/// A sender that two programs may read differently, where a rule asks who it is.
pub(crate) const MALFORMED_SENDER: Default = default(Class::Permanent, 1, 1, 7, "Bad sender address syntax");

/// A recipient that two programs may read differently, where a rule asks who it is.
pub(crate) const MALFORMED_RECIPIENT: Default = default(Class::Permanent, 1, 1, 3, "Bad recipient address syntax");

const AUTHENTICATION_REQUIRED: Default = default(Class::Permanent, 30, 7, 0, "Authentication required");
const TLS_REQUIRED: Default = default(Class::Permanent, 30, 7, 0, "Must issue a STARTTLS command first");
const DISK_FULL: Default = default(Class::Transient, 52, 3, 1, "Insufficient system storage, try again later");
const OVER_QUOTA: Default = default(Class::Permanent, 52, 2, 2, "Mailbox is full");
const TOO_LARGE: Default = default(Class::Permanent, 52, 3, 4, "Message of {size} exceeds the size limit");
const TOO_LARGE_FOR_RECIPIENT: Default =
    default(Class::Permanent, 52, 2, 3, "Message of {size} is too large for this recipient");
const NOT_YOUR_SENDER: Default = default(Class::Permanent, 50, 7, 1, "Sender {sender} not allowed for login {login}");
const BLOCKED: Default = default(Class::Permanent, 50, 7, 1, "Refused by local policy");
const TOO_MANY_CONNECTIONS: Default =
    default(Class::Transient, 21, 7, 0, "Connection rate limit of {limit} reached, try again later");
const TOO_MANY_AT_ONCE: Default =
    default(Class::Transient, 21, 7, 0, "Too many simultaneous connections, try again later");

/// For what is counted, first at RCPT, then at MAIL and at the end. At RCPT not 452, which makes Exim open the next
/// transaction at once; and not 451 4.7.1, which is what Postfix says when a milter is down.
const MESSAGE_RATE: [Default; 2] = rate("Message rate limit of {limit} reached, try again later");
const RECIPIENT_RATE: [Default; 2] = rate("Recipient rate limit of {limit} reached, try again later");
const VOLUME_RATE: [Default; 2] = rate("Volume rate limit of {limit} reached, try again later");

/// Whom a rule names, and what it then says; the first that it asks about counts.
const BLOCKED_BY: [(Fact, &str); 6] = [
    (Fact::Recipient, "Not permitted to send to {recipient}"),
    (Fact::Sender, "Sender {sender} is blocked by local policy"),
    (Fact::SenderDomain, "Sender domain {sender_domain} is blocked by local policy"),
    (Fact::Helo, "HELO name {helo} is blocked by local policy"),
    (Fact::Client, "Client {client} is blocked by local policy"),
    (Fact::ClientName, "Client host {client_name} is blocked by local policy"),
];

/// The default reply of a rule about `topic`, or about what it counts, that answers at `stage`.
pub(crate) fn refusal(topic: &Topic, measure: Option<Measure>, stage: Stage) -> Default {
    if let Some(measure) = measure {
        return limit(measure, stage);
    }
    let by_fact = [
        (Fact::OverQuota, OVER_QUOTA),
        (Fact::Size, if topic.asks(Fact::Recipient) { TOO_LARGE_FOR_RECIPIENT } else { TOO_LARGE }),
        (Fact::DiskFree, DISK_FULL),
        (Fact::Recipients, TOO_MANY_RECIPIENTS),
        (Fact::SenderLoginMismatch, NOT_YOUR_SENDER),
    ];
    let named = by_fact.into_iter().find(|(fact, _)| topic.asks(*fact)).map(|(_, default)| default);
    named.unwrap_or_else(|| blocked(topic))
}

/// Where a rule names a stranger, the stranger is the point; else the missing login or encryption is.
fn blocked(topic: &Topic) -> Default {
    let mut named = BLOCKED_BY.iter().filter(|(fact, _)| topic.asks(*fact));
    if let Some((_, text)) = named.next() {
        if topic.has_alternatives && named.next().is_some() {
            return BLOCKED;
        }
        return Default { text, ..BLOCKED };
    }
    match (topic.must_authenticate, topic.must_encrypt) {
        (true, _) => AUTHENTICATION_REQUIRED,
        (false, true) => TLS_REQUIRED,
        (false, false) => BLOCKED,
    }
}

fn limit(measure: Measure, stage: Stage) -> Default {
    let [at_rcpt, elsewhere] = match measure {
        Measure::Connections => return TOO_MANY_CONNECTIONS,
        Measure::Concurrent => return TOO_MANY_AT_ONCE,
        Measure::Bytes => VOLUME_RATE,
        Measure::Messages => MESSAGE_RATE,
        Measure::Recipients => RECIPIENT_RATE,
    };
    if stage == Stage::Rcpt { at_rcpt } else { elsewhere }
}

const fn rate(text: &'static str) -> [Default; 2] {
    [default(Class::Transient, 50, 7, 1, text), default(Class::Transient, 52, 3, 1, text)]
}

/// For constants only: a status out of range does not compile.
const fn default(class: Class, rest: u16, subject: u16, detail: u16, text: &'static str) -> Default {
    match Status::new(class, rest, subject, detail) {
        Some(status) => Default { status, text },
        #[expect(clippy::panic, reason = "only ever evaluated while compiling")]
        None => panic!("a default status is out of range"),
    }
}
