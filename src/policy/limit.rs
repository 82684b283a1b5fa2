//! What a limit counts, for whom, and when.

use std::sync::Arc;
use std::time::Duration;

use super::condition::Failure;
use super::condition::malformed_recipient;
use super::condition::malformed_sender;
use super::key::push_network;
use super::overrides::Overrides;
use super::step::Levels;
use crate::config::Charge;
use crate::config::KeyPart;
use crate::config::Rate;
use crate::config::Share;
use crate::config::Size;
use crate::config::scaled;
use crate::facts::Amount;
use crate::facts::Bound;
use crate::facts::Exceeded;
use crate::facts::Facts;
use crate::facts::Hold;
use crate::facts::Key;
use crate::facts::Message;
use crate::facts::Scope;
use crate::facts::Stage;

/// One count with its bounds; a rule has one for each thing that it limits.
#[derive(Clone, Debug)]
pub struct Counter {
    /// What is counted.
    pub measure: Measure,
    /// The bounds: first those of all, then one row for each override of the limit.
    pub rows: Vec<Row>,
    /// How long who is over one of them is shut out.
    pub block_for: Option<Duration>,
    /// Whose count: the parts of its keys; none: one for all.
    pub key: Vec<KeyPart>,
    /// Of what different values are counted, if they are: the parts of one.
    pub of: Vec<KeyPart>,
    /// What is charged.
    pub charge: Charge,
    /// How many keys are remembered at most, if less than all together.
    pub max_keys: Option<u64>,
    /// The name of the rule it belongs to.
    pub rule: String,
    /// What part of the bounds is another step.
    pub levels: Levels,
}

/// Bounds that hold together; without any, there is no limit.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Whose they are, as the override says it; `None`: those of all.
    pub whose: Option<Arc<str>>,
    /// The bounds for spans of time. An amount of 0 forbids.
    pub rates: Vec<Rate>,
    /// The bounds on the share of recipients that are refused.
    pub shares: Vec<Share>,
    /// The bound on what is held at once.
    pub concurrent: Option<u64>,
}

impl Counter {
    /// The bound that was passed, for people: `100/hour`, `1 GiB/day`, `10 at once`, `blocked until 2026-11-21T10:20:00Z`.
    #[must_use]
    pub fn bound(&self, exceeded: &Exceeded) -> String {
        let (row, percent) = (self.rows.get(exceeded.row), self.levels.bound(exceeded.step));
        match exceeded.bound {
            Bound::Block => match exceeded.retry_at {
                Some(end) => format!("blocked until {}", humantime::format_rfc3339_seconds(end)),
                None => "blocked".to_owned(),
            },
            Bound::Concurrent => {
                format!("{} at once", scaled(row.and_then(|row| row.concurrent).unwrap_or_default(), percent))
            }
            Bound::Rate(index) => row
                .and_then(|row| row.rates.get(index))
                .map(|rate| self.rate(&rate.scaled(percent)))
                .unwrap_or_default(),
            Bound::Share(index) => {
                let share = row.and_then(|row| row.shares.get(index));
                share.map(|share| format!("{}% bad recipients/{}", share.percent, share.span())).unwrap_or_default()
            }
        }
    }

    /// One of its rates, for people.
    #[must_use]
    pub fn rate(&self, rate: &Rate) -> String {
        let count = rate.to_string();
        if rate.amount == 0 {
            return "nothing at all".to_owned();
        }
        let per = count.trim_start_matches(|c: char| c.is_ascii_digit());
        match self.measure {
            Measure::Bytes => format!("{}{per}", Size(rate.amount)),
            Measure::Distinct => format!("{} {}{per}", rate.amount, noun(&self.of, rate.amount)),
            Measure::BadRecipients
            | Measure::Concurrent
            | Measure::Connections
            | Measure::Messages
            | Measure::Recipients => count,
        }
    }
}

/// What so many different values are called.
pub(super) fn noun(of: &[KeyPart], amount: u64) -> &'static str {
    let [one, more] = match of {
        [KeyPart::Client { v4: 32, .. }] => ["address", "addresses"],
        [KeyPart::Client { .. }] => ["network", "networks"],
        [KeyPart::Helo] => ["HELO name", "HELO names"],
        [KeyPart::Listener] => ["listener", "listeners"],
        [KeyPart::Login] => ["login", "logins"],
        [KeyPart::Recipient] => ["recipient", "recipients"],
        [KeyPart::RecipientDomain] => ["recipient domain", "recipient domains"],
        [KeyPart::Sender] => ["sender", "senders"],
        [KeyPart::SenderDomain] => ["sender domain", "sender domains"],
        [] | [_, _, ..] => ["combination", "combinations"],
    };
    if amount == 1 { one } else { more }
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Measure {
    /// The share of recipients that are refused.
    BadRecipients,
    /// Octets of messages.
    Bytes,
    /// Connections open at once.
    Concurrent,
    /// Connections.
    Connections,
    /// Different values.
    Distinct,
    /// Messages.
    Messages,
    /// Recipients.
    Recipients,
}

impl Measure {
    /// The key in `limit`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRecipients => "bad_recipients",
            Self::Bytes => "bytes",
            Self::Concurrent => "concurrent",
            Self::Connections => "connections",
            Self::Distinct => "distinct",
            Self::Messages => "messages",
            Self::Recipients => "recipients",
        }
    }

    /// The first stage at which there is something to count. Octets are counted again at the end.
    pub(crate) const fn stage(self) -> Stage {
        match self {
            Self::Bytes | Self::Distinct | Self::Messages => Stage::Mail,
            Self::BadRecipients | Self::Concurrent | Self::Connections => Stage::Connect,
            Self::Recipients => Stage::Rcpt,
        }
    }

    /// Whether it is counted once for a connection and not for each message.
    pub(crate) const fn is_of_connection(self) -> bool {
        matches!(self, Self::Concurrent | Self::Connections)
    }

    const fn scope(self) -> Scope {
        match self {
            Self::BadRecipients | Self::Bytes | Self::Distinct | Self::Messages | Self::Recipients => Scope::Message,
            Self::Concurrent => Scope::Connection,
            Self::Connections => Scope::Instant,
        }
    }
}

/// The part of a test that asks a counter.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) counter: usize,
    pub(crate) measure: Measure,
    pub(crate) key: Vec<KeyPart>,
    /// Of what different values are counted.
    pub(crate) of: Vec<KeyPart>,
    pub(crate) overrides: Option<Arc<Overrides>>,
    pub(crate) charge: Charge,
    /// Of bad recipients: whether one is tried now; else it is only judged.
    pub(crate) tries: bool,
}

impl Limit {
    /// What to reserve now; `None` when the limit does not apply, because a part of its key is missing (no login, the
    /// null sender) or there is nothing to count (no size declared). A shared bucket for all those without a login would
    /// let strangers lock each other out.
    pub(crate) fn hold(&self, facts: &Facts<'_>) -> Option<Hold> {
        let amount = match self.measure {
            Measure::Bytes => Amount::Total(facts.size().filter(|&size| size > 0)?),
            Measure::Messages => Amount::Total(1),
            Measure::BadRecipients if self.tries => Amount::Try,
            Measure::BadRecipients => Amount::Nothing,
            Measure::Concurrent | Measure::Connections | Measure::Recipients => Amount::Add(1),
            Measure::Distinct => Amount::Value(key(&self.of, facts)?),
        };
        let scope = match (self.measure.scope(), self.charge) {
            (Scope::Message, Charge::Attempts) => Scope::Attempt,
            (Scope::Message, Charge::Refused) => Scope::Refused,
            (scope, Charge::Accepted | Charge::Attempts | Charge::Refused) => scope,
        };
        let row = self.overrides.as_ref().map_or(0, |overrides| overrides.row(&self.key, facts));
        Some(Hold { counter: self.counter, row, key: key(&self.key, facts)?, amount, scope })
    }

    /// Whether its key has an address that is malformed: each way to write it would have a budget of its own.
    pub(crate) fn malformed(&self, facts: &Facts<'_>) -> Option<Failure> {
        let of = self.of.iter().filter(|_| self.measure == Measure::Distinct);
        self.key.iter().chain(of).find_map(|part| match part {
            KeyPart::Recipient | KeyPart::RecipientDomain => malformed_recipient(facts),
            KeyPart::Sender | KeyPart::SenderDomain => malformed_sender(facts),
            KeyPart::Client { .. } | KeyPart::Helo | KeyPart::Listener | KeyPart::Login => None,
        })
    }
}

/// `None` if one of the parts is missing.
fn key(parts: &[KeyPart], facts: &Facts<'_>) -> Option<Key> {
    let mut key = Key::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            key.push(0);
        }
        push(&mut key, *part, facts)?;
    }
    Some(key)
}

/// The message, if there is one already.
pub(super) const fn message_of<'a>(facts: &Facts<'a>) -> Option<&'a Message> {
    facts.message
}

/// The first stage at which a part of a key is known.
pub(crate) const fn key_stage(part: KeyPart) -> Stage {
    match part {
        KeyPart::Client { .. } | KeyPart::Listener => Stage::Connect,
        KeyPart::Helo => Stage::Helo,
        KeyPart::Login | KeyPart::Sender | KeyPart::SenderDomain => Stage::Mail,
        KeyPart::Recipient | KeyPart::RecipientDomain => Stage::Rcpt,
    }
}

/// An address is written with its family before it, so its length is known and NUL in it separates nothing.
fn push(key: &mut Key, part: KeyPart, facts: &Facts<'_>) -> Option<()> {
    let message = || facts.message;
    let text = match part {
        KeyPart::Client { v4, v6 } => {
            push_network(key, facts.connection.client?, v4, v6);
            return Some(());
        }
        KeyPart::Helo => facts.connection.helo.as_ref()?.folded(),
        KeyPart::Listener => facts.connection.listener.as_deref()?,
        KeyPart::Login => message()?.login.as_deref()?,
        KeyPart::Recipient => facts.recipient?.address.folded(),
        KeyPart::RecipientDomain => facts.recipient?.address.domain()?,
        KeyPart::Sender => Some(message()?.sender.folded()).filter(|sender| !sender.is_empty())?,
        KeyPart::SenderDomain => message()?.sender.domain()?,
    };
    key.extend_from_slice(text.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Connection;
    use crate::facts::Name;

    fn limit(measure: Measure, key: Vec<KeyPart>) -> Limit {
        Limit { counter: 0, measure, key, of: Vec::new(), overrides: None, charge: Charge::Accepted, tries: false }
    }

    fn key(address: &str, v4: u8, v6: u8) -> Key {
        let connection = Connection { client: Some(address.parse().unwrap()), ..Connection::default() };
        let limit = limit(Measure::Connections, vec![KeyPart::Client { v4, v6 }]);
        limit.hold(&Facts { connection: &connection, message: None, recipient: None }).unwrap().key
    }

    #[test]
    fn addresses_of_one_network_share_a_key() {
        assert_eq!(key("192.0.2.1", 24, 64), key("192.0.2.255", 24, 64));
        assert_ne!(key("192.0.2.1", 32, 64), key("192.0.2.2", 32, 64));
        assert_eq!(key("2001:db8::1", 32, 64), key("2001:db8::ffff:1", 32, 64));
        assert_ne!(key("2001:db8:0:1::1", 32, 64), key("2001:db8:0:2::1", 32, 64));
        assert_ne!(key("2001:db8::1", 32, 128), key("2001:db8::2", 32, 128));
    }

    /// A part may be empty, and must not give its place to the next one.
    #[test]
    fn an_empty_part_keeps_its_place() {
        let key = |listener: &str, helo: &[u8]| {
            let connection = Connection {
                listener: Some(listener.into()),
                helo: Some(Name::of_host(helo)),
                ..Connection::default()
            };
            let key = vec![KeyPart::Listener, KeyPart::Helo];
            let limit = limit(Measure::Connections, key);
            limit.hold(&Facts { connection: &connection, message: None, recipient: None }).unwrap().key
        };
        assert_ne!(key("", b"x"), key("x", b""));
    }

    /// cbpolicyd's trap: everybody without a login in one bucket.
    #[test]
    fn a_limit_whose_key_is_missing_does_not_apply() {
        let connection = Connection::default();
        let facts = Facts { connection: &connection, message: None, recipient: None };
        let limit = limit(Measure::Messages, vec![KeyPart::Login]);
        assert_eq!(limit.hold(&facts), None);
    }
}
