//! `limit`: whose count, and how much in how long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::units::Rate;
use super::units::Span;
use super::units::UnitError;

/// `limit`: the rule holds when there is no room left.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Where it stands.
    pub place: Place,
    /// Whose count; none: one for all.
    pub key: Vec<KeyPart>,
    /// Bounds on messages.
    pub messages: Vec<Rate>,
    /// Bounds on recipients.
    pub recipients: Vec<Rate>,
    /// Bounds on octets.
    pub bytes: Vec<Rate>,
    /// Bounds on connections.
    pub connections: Vec<Rate>,
    /// How many connections at once.
    pub concurrent: Option<u64>,
    /// The list of those who have bounds of their own.
    pub overrides: Option<At<String>>,
    /// How long who is over the limit is shut out.
    pub block_for: Option<Duration>,
    /// What is charged.
    pub charge: Charge,
    /// How many keys are remembered at most.
    pub max_keys: Option<u64>,
}

/// What counts against a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Charge {
    /// What passed.
    #[default]
    Accepted,
    /// What was tried, and for which there was room.
    Attempts,
    /// What was refused or given up.
    Refused,
}

impl Charge {
    /// The name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Attempts => "attempts",
            Self::Refused => "refused",
        }
    }
}

/// The bounds that somebody in particular has, in `[lists.NAME.limits]`. What is not said is as for all others.
#[derive(Clone, Debug)]
pub struct Override {
    /// Whose: a login, an address, a domain, everything below one, or a network.
    pub key: At<String>,
    /// For what is counted.
    pub allowances: Allowances,
}

/// What an override says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Allowances {
    /// On messages.
    pub messages: Option<Allowance>,
    /// On recipients.
    pub recipients: Option<Allowance>,
    /// On octets.
    pub bytes: Option<Allowance>,
    /// On connections.
    pub connections: Option<Allowance>,
    /// On connections at once.
    pub concurrent: Option<Allowance>,
}

/// How much somebody may.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Allowance {
    /// So many at once.
    AtOnce(u64),
    /// Nothing.
    Nothing,
    /// So much in so long, all of it.
    Rates(Vec<Rate>),
    /// As much as he likes.
    Unlimited,
}

/// A part of a limit's key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyPart {
    /// `client`, `client/24`, `client/24/56`: the network of the client's address.
    Client {
        /// Prefix length for IPv4.
        v4: u8,
        /// Prefix length for IPv6.
        v6: u8,
    },
    /// The HELO name.
    Helo,
    /// The MTA's name for the port.
    Listener,
    /// The login.
    Login,
    /// The recipient.
    Recipient,
    /// The recipient's domain.
    RecipientDomain,
    /// The sender.
    Sender,
    /// The sender's domain.
    SenderDomain,
}

/// A host usually has a whole /64 to choose addresses from (RFC 6177).
const DEFAULT_V6_PREFIX: u8 = 64;

impl FromStr for KeyPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = match text {
            "helo" => Self::Helo,
            "listener" => Self::Listener,
            "login" => Self::Login,
            "recipient" => Self::Recipient,
            "recipient_domain" => Self::RecipientDomain,
            "sender" => Self::Sender,
            "sender_domain" => Self::SenderDomain,
            _ => return client_key(text),
        };
        Ok(part)
    }
}

/// In full: two spellings of one key are the same.
impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { v4, v6 } => write!(f, "client/{v4}/{v6}"),
            Self::Helo => f.write_str("helo"),
            Self::Listener => f.write_str("listener"),
            Self::Login => f.write_str("login"),
            Self::Recipient => f.write_str("recipient"),
            Self::RecipientDomain => f.write_str("recipient_domain"),
            Self::Sender => f.write_str("sender"),
            Self::SenderDomain => f.write_str("sender_domain"),
        }
    }
}

fn client_key(text: &str) -> Result<KeyPart, String> {
    let mut parts = text.split('/');
    let name = parts.next();
    let mut prefix = |default: u8, longest: u8| match parts.next() {
        None => Some(default),
        Some(digits) => digits.parse().ok().filter(|length| (1..=longest).contains(length)),
    };
    let (v4, v6) = (prefix(32, 32), prefix(DEFAULT_V6_PREFIX, 128));
    match (name, v4, v6, parts.next()) {
        (Some("client"), Some(v4), Some(v6), None) => Ok(KeyPart::Client { v4, v6 }),
        _ => Err(format!(
            "expected client, client/24 or client/24/56 (prefix lengths for IPv4 and IPv6), login, sender, \
             sender_domain, recipient, recipient_domain, helo or listener, found \"{text}\""
        )),
    }
}

/// Reads the table of a limit.
pub(super) fn read(node: Node, diagnostics: &mut Diagnostics) -> Option<Limit> {
    let mut fields = Fields::of(node, "a table such as { key = \"login\", messages = \"100/hour\" }", diagnostics)?;
    let place = fields.place.clone();
    let errors_before = diagnostics.errors();
    let mut key = Vec::new();
    for node in fields.take("key").into_iter().flat_map(Node::one_or_more) {
        let part = node.parse::<KeyPart>("a part of the key such as \"client\" or \"login\"", diagnostics);
        key.extend(part.map(|part| part.value));
    }
    let limit = Limit {
        key,
        messages: rates(fields.take("messages"), "\"100/hour\"", Rate::parse_count, diagnostics),
        recipients: rates(fields.take("recipients"), "\"100/hour\"", Rate::parse_count, diagnostics),
        bytes: rates(fields.take("bytes"), "\"1 GiB/day\"", Rate::parse_size, diagnostics),
        connections: rates(fields.take("connections"), "\"100/hour\"", Rate::parse_count, diagnostics),
        concurrent: fields.take("concurrent").and_then(|node| node.count(diagnostics)),
        overrides: fields.take("overrides").and_then(|node| list_name(node, diagnostics)),
        block_for: fields.take("block_for").and_then(|node| block(node, diagnostics)),
        max_keys: fields.take("max_keys").and_then(|node| node.count(diagnostics)),
        charge: fields.take("charge").and_then(|node| charge(node, diagnostics)).unwrap_or_default(),
        place: place.clone(),
    };
    fields.finish(diagnostics);
    if limit.key.is_empty()
        && let Some(overrides) = &limit.overrides
    {
        let message = "a limit without a key is one for all: nobody can have bounds of his own";
        diagnostics.push(Diagnostic::error(overrides.place.clone(), message).hint("add key = \"login\""));
    }
    let counts_nothing = limit.messages.is_empty()
        && limit.recipients.is_empty()
        && limit.bytes.is_empty()
        && limit.connections.is_empty()
        && limit.concurrent.is_none();
    if counts_nothing && diagnostics.errors() == errors_before {
        let hint = "add messages, recipients or connections = \"100/hour\", bytes = \"1 GiB/day\", or concurrent = 10";
        diagnostics.push(Diagnostic::error(place, "this limit limits nothing").hint(hint));
    }
    Some(limit)
}

fn list_name(node: Node, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    let text = node.string("the name of a list such as \"@bulk\"", diagnostics)?;
    match text.value.strip_prefix('@') {
        Some(name) => Some(At { value: name.to_owned(), place: text.place }),
        None => {
            let message = format!("expected the name of a list such as \"@bulk\", found \"{}\"", text.value);
            let hint = format!("did you mean \"@{}\"?", text.value);
            diagnostics.push(Diagnostic::error(text.place, message).hint(hint));
            None
        }
    }
}

fn block(node: Node, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let span = node.parse::<Span>("a time such as \"1h\"", diagnostics)?;
    if span.value.0.is_zero() {
        let hint = "leave it out: whoever is over the limit is refused until there is room again";
        diagnostics.push(Diagnostic::error(span.place, "a block of no time is none").hint(hint));
        return None;
    }
    Some(span.value.0)
}

fn charge(node: Node, diagnostics: &mut Diagnostics) -> Option<Charge> {
    let choices = [Charge::Accepted, Charge::Attempts, Charge::Refused].map(|charge| (charge.name(), charge));
    node.choice(&choices, diagnostics).map(|charge| charge.value)
}

/// Reads `[lists.NAME.limits]`.
pub(super) fn overrides(node: Node, diagnostics: &mut Diagnostics) -> Vec<Override> {
    let expected = "a table such as { \"alice@example.com\" = { messages = \"1000/day\" } }";
    let Some(fields) = Fields::of(node, expected, diagnostics) else {
        return Vec::new();
    };
    let read = |(key, node): (At<String>, Node)| {
        let key = At { value: key.value.to_lowercase(), place: key.place };
        allowances(node, diagnostics).map(|allowances| Override { key, allowances })
    };
    fields.rest().into_iter().filter_map(read).collect()
}

/// `"unlimited"` or 0 for all that is counted, or a table.
fn allowances(node: Node, diagnostics: &mut Diagnostics) -> Option<Allowances> {
    let all = |allowance: Allowance| Allowances {
        messages: Some(allowance.clone()),
        recipients: Some(allowance.clone()),
        bytes: Some(allowance.clone()),
        connections: Some(allowance.clone()),
        concurrent: Some(allowance),
    };
    if let Some(allowance) = whole(&node) {
        return Some(all(allowance));
    }
    let mut fields = Fields::of(node, "\"unlimited\", 0 or a table such as { messages = \"1000/day\" }", diagnostics)?;
    let mut rates_of = |key, example, parse: fn(&str) -> Result<Rate, UnitError>| {
        let node = fields.take(key)?;
        Some(whole(&node).unwrap_or_else(|| Allowance::Rates(rates(Some(node), example, parse, diagnostics))))
    };
    let mut allowances = Allowances {
        messages: rates_of("messages", "\"100/hour\"", Rate::parse_count),
        recipients: rates_of("recipients", "\"100/hour\"", Rate::parse_count),
        bytes: rates_of("bytes", "\"1 GiB/day\"", Rate::parse_size),
        connections: rates_of("connections", "\"100/hour\"", Rate::parse_count),
        concurrent: None,
    };
    if let Some(node) = fields.take("concurrent") {
        allowances.concurrent = whole(&node).or_else(|| node.count(diagnostics).map(Allowance::AtOnce));
    }
    let place = fields.place.clone();
    fields.finish(diagnostics);
    if allowances == Allowances::default() {
        let hint = "write \"unlimited\", 0, or { messages = \"1000/day\" }";
        diagnostics.push(Diagnostic::error(place, "this says nothing").hint(hint));
    }
    Some(allowances)
}

/// `"unlimited"`, `0` or `"0"`.
fn whole(node: &Node) -> Option<Allowance> {
    let is_text = |word: &str| matches!(&node.value, Value::String(text) if text == word);
    let is_zero = is_text("0") || matches!(node.value, Value::Integer(0));
    is_zero.then_some(Allowance::Nothing).or_else(|| is_text("unlimited").then_some(Allowance::Unlimited))
}

fn rates(
    node: Option<Node>,
    example: &str,
    parse: impl Fn(&str) -> Result<Rate, UnitError>,
    diagnostics: &mut Diagnostics,
) -> Vec<Rate> {
    let mut rates: Vec<At<Rate>> = Vec::new();
    for node in node.into_iter().flat_map(Node::one_or_more) {
        let Some(text) = node.string(&format!("a rate such as {example}"), diagnostics) else {
            continue;
        };
        match parse(&text.value) {
            Ok(value) => rates.push(At { value, place: text.place }),
            Err(error) => diagnostics.push(Diagnostic::error(text.place, error.to_string())),
        }
    }
    for (index, rate) in rates.iter().enumerate() {
        let mut others = rates.iter().enumerate().filter(|(other, _)| *other != index);
        let stricter = |(other, At { value: than, .. }): &(usize, &At<Rate>)| {
            let is_twin = *than == rate.value && *other > index;
            than.per >= rate.value.per && than.amount <= rate.value.amount && !is_twin
        };
        if let Some((_, stricter)) = others.find(stricter) {
            let message = format!("this rate is never reached: {} allows no more", stricter.value);
            diagnostics.push(Diagnostic::warning(rate.place.clone(), message).hint("leave it out"));
        }
    }
    rates.into_iter().map(|rate| rate.value).collect()
}
