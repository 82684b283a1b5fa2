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

/// No room for one more session: RFC 3463 §3.4, "the system is not accepting network messages".
pub(crate) const OVERLOADED: Default = default(Class::Transient, 21, 3, 2, "Too many sessions, try again later");

/// More recipients in one message than a rule, or we, allow.
pub(crate) const TOO_MANY_RECIPIENTS: Default =
    default(Class::Transient, 52, 5, 3, "Too many recipients in one message");

/// A sender that two programs may read differently, where a rule asks who it is.
pub(crate) const MALFORMED_SENDER: Default = default(Class::Permanent, 1, 1, 7, "Bad sender address syntax");

/// A recipient that two programs may read differently, where a rule asks who it is.
pub(crate) const MALFORMED_RECIPIENT: Default = default(Class::Permanent, 1, 1, 3, "Bad recipient address syntax");

/// So far over a limit that waiting is not meant to help.
pub(crate) const FAR_OVER: Default = default(Class::Permanent, 50, 7, 1, "Limit of {limit} exceeded");

const AUTHENTICATION_REQUIRED: Default = default(Class::Permanent, 30, 7, 0, "Authentication required");
const TLS_REQUIRED: Default = default(Class::Permanent, 30, 7, 0, "Must issue a STARTTLS command first");
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

/// Said at MAIL and at RCPT, so it has to suit both.
const TOO_MANY_BAD: Default = default(Class::Transient, 51, 7, 28, "Limit of {limit} reached, try again later");

/// First at RCPT, then at MAIL and at the end. At RCPT not 452, which makes Exim open the next transaction at once; and not
/// 451 4.7.1, which is what Postfix says when a milter is down.
const DISK_FULL: [Default; 2] = [
    default(Class::Transient, 51, 3, 0, "Insufficient system storage, try again later"),
    default(Class::Transient, 52, 3, 1, "Insufficient system storage, try again later"),
];
const MESSAGE_RATE: [Default; 2] = rate("Message rate limit of {limit} reached, try again later");
const RECIPIENT_RATE: [Default; 2] = rate("Recipient rate limit of {limit} reached, try again later");
const ANY_LIMIT: [Default; 2] = rate("Limit of {limit} reached, try again later");
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

/// What a rule's refusal is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Case {
    /// Somebody or something that is named, by the text to say; or nothing in particular.
    Blocked(&'static str),
    DiskFull,
    LoginMissing,
    NotYourSender,
    OverQuota,
    /// A limit, by what it counts.
    Rate(Measure),
    TlsMissing,
    TooLarge,
    TooLargeForRecipient,
    TooManyRecipients,
}

impl Case {
    /// The case of a rule about `topic`, or about what it counts.
    pub(crate) fn of(topic: &Topic, measure: Option<Measure>) -> Self {
        if let Some(measure) = measure {
            return Self::Rate(measure);
        }
        let by_fact = [
            (Fact::OverQuota, Self::OverQuota),
            (Fact::Size, if topic.asks(Fact::Recipient) { Self::TooLargeForRecipient } else { Self::TooLarge }),
            (Fact::DiskFree, Self::DiskFull),
            (Fact::Recipients, Self::TooManyRecipients),
            (Fact::SenderLoginMismatch, Self::NotYourSender),
        ];
        let named = by_fact.into_iter().find(|(fact, _)| topic.asks(*fact)).map(|(_, case)| case);
        named.unwrap_or_else(|| Self::blocked(topic))
    }

    /// Where a rule names a stranger, the stranger is the point; else the missing login or encryption is.
    fn blocked(topic: &Topic) -> Self {
        let mut named = BLOCKED_BY.iter().filter(|(fact, _)| topic.asks(*fact));
        if let Some((_, text)) = named.next() {
            let is_uncertain = topic.has_alternatives && named.next().is_some();
            return Self::Blocked(if is_uncertain { BLOCKED.text } else { text });
        }
        match (topic.must_authenticate, topic.must_encrypt) {
            (true, _) => Self::LoginMissing,
            (false, true) => Self::TlsMissing,
            (false, false) => Self::Blocked(BLOCKED.text),
        }
    }

    /// What is said in this case at `stage`.
    pub(crate) fn reply(self, stage: Stage) -> Default {
        let [at_rcpt, elsewhere] = match self {
            Self::Blocked(text) => return Default { text, ..BLOCKED },
            // 530 is an answer to commands (RFC 4954 §6, RFC 3207 §4); after the data nobody would log in.
            Self::LoginMissing | Self::TlsMissing if stage == Stage::EndOfMessage => {
                return Default { text: self.reply(Stage::Mail).text, ..BLOCKED };
            }
            Self::LoginMissing => return AUTHENTICATION_REQUIRED,
            Self::NotYourSender => return NOT_YOUR_SENDER,
            Self::OverQuota => return OVER_QUOTA,
            Self::TlsMissing => return TLS_REQUIRED,
            Self::TooLarge => return TOO_LARGE,
            Self::TooLargeForRecipient => return TOO_LARGE_FOR_RECIPIENT,
            Self::TooManyRecipients => return TOO_MANY_RECIPIENTS,
            Self::Rate(Measure::Connections) => return TOO_MANY_CONNECTIONS,
            Self::Rate(Measure::Concurrent) => return TOO_MANY_AT_ONCE,
            Self::DiskFull => DISK_FULL,
            Self::Rate(Measure::Bytes) => VOLUME_RATE,
            Self::Rate(Measure::BadRecipients) => return TOO_MANY_BAD,
            Self::Rate(Measure::Distinct) => ANY_LIMIT,
            Self::Rate(Measure::Messages) => MESSAGE_RATE,
            Self::Rate(Measure::Recipients) => RECIPIENT_RATE,
        };
        if stage == Stage::Rcpt { at_rcpt } else { elsewhere }
    }
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
