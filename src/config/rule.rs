//! `[[rule]]`: a condition and what follows from it.

use super::condition;
use super::condition::Condition;
use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::template::Template;
use super::units::Rate;
use super::units::UnitError;
use crate::facts::Stage;
use crate::reply;
use crate::reply::Status;

/// A rule as written.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name; unique, and a label in metrics.
    pub name: At<String>,
    /// Where `[[rule]]` stands.
    pub place: Place,
    /// What must hold.
    pub when: Condition,
    /// What must not hold.
    pub unless: Option<Condition>,
    /// The condition with a count.
    pub limit: Option<Limit>,
    /// What follows.
    pub action: Action,
    /// Whether it is enforced.
    pub mode: Mode,
    /// When its refusal is spoken, if not as early as possible.
    pub at: Option<At<Stage>>,
    /// Whether a 421 may end the SMTP session.
    pub disconnect: bool,
}

/// What follows when a rule holds.
#[derive(Clone, Debug)]
pub enum Action {
    /// Everything below the rule is skipped.
    Accept,
    /// A header field is added, and reading goes on.
    AddHeader(At<HeaderField>),
    /// The client sees 250 and the message is dropped.
    Discard,
    /// The message is put on hold.
    Quarantine,
    /// The client sees a 4xx or 5xx.
    Refuse(Option<At<ReplyTemplate>>),
}

/// A reply with a text that may have variables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplyTemplate {
    /// The codes.
    pub status: Status,
    /// The text; empty: the default for the case.
    pub text: Template,
}

/// A header field to add.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderField {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Template,
}

/// Whether what a rule says is done or only noted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Mode {
    /// Done.
    #[default]
    Enforce,
    /// Judged, counted and logged, but never answered.
    Monitor,
}

impl Mode {
    /// The name used in configurations, labels and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

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

impl std::str::FromStr for KeyPart {
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

/// The stages at which a rule may be told to answer.
const ANSWER_STAGES: [(&str, Stage); 5] = [
    ("connect", Stage::Connect),
    ("mail", Stage::Mail),
    ("rcpt", Stage::Rcpt),
    ("data", Stage::Data),
    ("end-of-message", Stage::EndOfMessage),
];

/// Reads one `[[rule]]`.
pub(super) fn read(node: Node, diagnostics: &mut Diagnostics) -> Option<Rule> {
    let mut fields = Fields::of(node, diagnostics)?;
    let place = fields.place.clone();
    let name = name(&mut fields, diagnostics);
    let when = fields.take("when").map_or_else(|| Some(Condition::always()), |node| condition::read(node, diagnostics));
    let unless = fields.take("unless").and_then(|node| condition::read(node, diagnostics));
    let limit = fields.take("limit").and_then(|node| read_limit(node, diagnostics));
    let action = action(&mut fields, diagnostics);
    let mode = fields.take("mode").and_then(|node| node.choice(&MODES, diagnostics));
    let at = fields.take("at").and_then(|node| at(node, diagnostics));
    let disconnect = fields.take("disconnect").and_then(|node| node.boolean(diagnostics));
    fields.finish(diagnostics);
    Some(Rule {
        name: name?,
        place,
        when: when?,
        unless,
        limit,
        action: action?,
        mode: mode.map(|mode| mode.value).unwrap_or_default(),
        at,
        disconnect: disconnect.unwrap_or_default(),
    })
}

pub(super) const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];

fn name(fields: &mut Fields, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    let Some(node) = fields.take("name") else {
        let place = Place { span: fields.place.span.start..fields.place.span.start + 8, ..fields.place };
        let hint = "add name = \"...\": it is what metrics, logs and `check` call the rule";
        diagnostics.push(Diagnostic::error(place, "this rule has no name").hint(hint));
        return None;
    };
    let name = node.string("a name", diagnostics)?;
    let fits = !name.value.is_empty()
        && name.value.len() <= 64
        && name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !fits {
        let message = "expected a name of 1 to 64 letters, digits, hyphens, dots and underscores";
        diagnostics.push(Diagnostic::error(name.place.clone(), message));
    }
    Some(name)
}

fn at(node: Node, diagnostics: &mut Diagnostics) -> Option<At<Stage>> {
    let place = node.place.clone();
    if node.clone().string("a stage", &mut Diagnostics::default()).is_some_and(|text| text.value == "helo") {
        let hint = "Postfix answers 250 to HELO whatever a milter says, and repeats the refusal for the whole session; \
                    use \"mail\"";
        diagnostics.push(Diagnostic::error(place, "nothing can be answered at HELO").hint(hint));
        return None;
    }
    node.choice(&ANSWER_STAGES, diagnostics)
}

/// `reply`, `then` or `add_header`; with none of them the rule refuses with the default reply for its case.
fn action(fields: &mut Fields, diagnostics: &mut Diagnostics) -> Option<Action> {
    let reply = fields.take_with_key("reply");
    let then = fields.take_with_key("then");
    let add_header = fields.take_with_key("add_header");
    if [&reply, &then, &add_header].into_iter().flatten().count() > 1 {
        for (place, _) in [reply, then, add_header].into_iter().flatten() {
            let message = "a rule does one of `reply`, `then` and `add_header`";
            diagnostics.push(Diagnostic::error(place, message).hint("make two rules of it"));
        }
        return None;
    }
    if let Some((_, node)) = reply {
        return reply_template(node, diagnostics).map(|reply| Action::Refuse(Some(reply)));
    }
    if let Some((_, node)) = add_header {
        return header_field(node, diagnostics).map(Action::AddHeader);
    }
    match then {
        None => Some(Action::Refuse(None)),
        Some((_, node)) => {
            let choices = [("accept", Then::Accept), ("discard", Then::Discard), ("quarantine", Then::Quarantine)];
            Some(match node.choice(&choices, diagnostics)?.value {
                Then::Accept => Action::Accept,
                Then::Discard => Action::Discard,
                Then::Quarantine => Action::Quarantine,
            })
        }
    }
}

#[derive(Clone, Copy)]
enum Then {
    Accept,
    Discard,
    Quarantine,
}

fn reply_template(node: Node, diagnostics: &mut Diagnostics) -> Option<At<ReplyTemplate>> {
    let text = node.string("a reply such as \"550 5.7.1 Go away\"", diagnostics)?;
    let (status, rest) = match reply::split_status(&text.value) {
        Ok(parts) => parts,
        Err(error) => {
            let hint = "a reply is a code, an enhanced status code of the same class and a text: \"550 5.7.1 Go away\"";
            diagnostics.push(Diagnostic::error(text.place, error.to_string()).hint(hint));
            return None;
        }
    };
    match rest.trim().parse() {
        Ok(template) => Some(At { value: ReplyTemplate { status, text: template }, place: text.place }),
        Err(error) => {
            diagnostics.push(Diagnostic::error(text.place, format!("{error}")));
            None
        }
    }
}

fn header_field(node: Node, diagnostics: &mut Diagnostics) -> Option<At<HeaderField>> {
    let text = node.string("a header field such as \"X-Policy: {rule}\"", diagnostics)?;
    let parts = text.value.split_once(':').map(|(name, value)| (name.trim_end(), value.trim()));
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| matches!(b, 33..=126));
    let Some((name, value)) = parts.filter(|(name, value)| is_name(name) && !value.is_empty()) else {
        let message = "expected a header field such as \"X-Policy: {rule}\"";
        diagnostics.push(Diagnostic::error(text.place, message));
        return None;
    };
    if value.contains('\n') {
        diagnostics.push(Diagnostic::error(text.place, "a header field is one line"));
        return None;
    }
    match value.parse() {
        Ok(value) => Some(At { value: HeaderField { name: name.to_owned(), value }, place: text.place }),
        Err(error) => {
            diagnostics.push(Diagnostic::error(text.place, format!("{error}")));
            None
        }
    }
}

fn read_limit(node: Node, diagnostics: &mut Diagnostics) -> Option<Limit> {
    let mut fields = Fields::of(node, diagnostics)?;
    let place = fields.place.clone();
    let mut key = Vec::new();
    for node in fields.take("key").into_iter().flat_map(Node::one_or_more) {
        key.extend(node.parse::<KeyPart>("a part of the key", diagnostics).map(|part| part.value));
    }
    let limit = Limit {
        key,
        messages: rates(fields.take("messages"), Rate::parse_count, diagnostics),
        recipients: rates(fields.take("recipients"), Rate::parse_count, diagnostics),
        bytes: rates(fields.take("bytes"), Rate::parse_size, diagnostics),
        connections: rates(fields.take("connections"), Rate::parse_count, diagnostics),
        concurrent: fields.take("concurrent").and_then(|node| node.count(diagnostics)),
        place: place.clone(),
    };
    fields.finish(diagnostics);
    let counts_nothing = limit.messages.is_empty()
        && limit.recipients.is_empty()
        && limit.bytes.is_empty()
        && limit.connections.is_empty()
        && limit.concurrent.is_none();
    if counts_nothing && !diagnostics.list.iter().any(|diagnostic| within(&diagnostic.place, &place)) {
        let hint = "add messages, recipients, bytes or connections = \"100/hour\", or concurrent = 10";
        diagnostics.push(Diagnostic::error(place, "this limit limits nothing").hint(hint));
        return None;
    }
    Some(limit)
}

fn within(inner: &Place, outer: &Place) -> bool {
    inner.source == outer.source && outer.span.contains(&inner.span.start)
}

fn rates(
    node: Option<Node>,
    parse: impl Fn(&str) -> Result<Rate, UnitError>,
    diagnostics: &mut Diagnostics,
) -> Vec<Rate> {
    let mut rates = Vec::new();
    for node in node.into_iter().flat_map(Node::one_or_more) {
        let Some(text) = node.string("a rate such as \"100/hour\"", diagnostics) else {
            continue;
        };
        match parse(&text.value) {
            Ok(rate) => rates.push(rate),
            Err(error) => diagnostics.push(Diagnostic::error(text.place, error.to_string())),
        }
    }
    rates
}
