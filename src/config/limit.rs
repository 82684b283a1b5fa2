//! `limit`: whose count, and how much in how long.

use std::str::FromStr;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::units::Rate;
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
        place: place.clone(),
    };
    fields.finish(diagnostics);
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
