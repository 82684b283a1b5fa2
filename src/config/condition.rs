//! `when` and `unless`: what a rule asks about the session.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::path::PathBuf;

use ipnet::IpNet;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::list;
use super::pattern::AddressPattern;
use super::pattern::DomainPattern;
use super::units::Comparison;
use super::units::Size;
use crate::facts::Fact;

/// A condition as written.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Every one of them holds; an empty one always does.
    All(Vec<Self>),
    /// At least one of them holds.
    Any(Vec<Self>),
    /// A fact and what is asked of it.
    Fact(Box<At<Question>>),
    /// It does not hold.
    Not(Box<Self>),
}

impl Condition {
    /// The condition that always holds.
    #[must_use]
    pub const fn always() -> Self {
        Self::All(Vec::new())
    }

    /// Whether it asks for one thing *or* another.
    #[must_use]
    pub fn has_alternatives(&self) -> bool {
        match self {
            Self::All(parts) => parts.iter().any(Self::has_alternatives),
            Self::Any(parts) => parts.len() > 1 || parts.iter().any(Self::has_alternatives),
            Self::Fact(_) => false,
            Self::Not(part) => part.has_alternatives(),
        }
    }

    /// Every question in it, each with whether it stands under no `not`.
    pub fn for_each<'a>(&'a self, positive: bool, visit: &mut impl FnMut(&'a At<Question>, bool)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.for_each(positive, visit)),
            Self::Fact(question) => visit(question, positive),
            Self::Not(part) => part.for_each(!positive, visit),
        }
    }
}

/// What is asked of one fact.
#[derive(Clone, Debug)]
pub enum Question {
    /// Authenticated or not.
    Authenticated(bool),
    /// In one of these networks.
    Client(Values<IpNet>),
    /// Called one of these.
    ClientName(Values<DomainPattern>),
    /// Less free than this.
    DiskFree {
        /// A file or directory of the file system.
        path: PathBuf,
        /// In octets.
        below: u64,
    },
    /// Calls itself one of these.
    Helo(Values<DomainPattern>),
    /// Came in at one of these.
    Listener(Vec<String>),
    /// Logged in as one of these.
    Login(Values<String>),
    /// The recipient stands in one of these lists.
    OverQuota(Values<AddressPattern>),
    /// Came in at one of these ports.
    Port(Vec<u16>),
    /// The recipient is one of these.
    Recipient(Values<AddressPattern>),
    /// So many recipients.
    Recipients(Comparison),
    /// The sender is one of these.
    Sender(Values<AddressPattern>),
    /// The sender's domain is one of these.
    SenderDomain(Values<DomainPattern>),
    /// The sender does not stand behind the login in this list.
    SenderLoginMismatch(Vec<At<String>>),
    /// So large.
    Size(Comparison),
    /// Encrypted or not.
    Tls(bool),
}

impl Question {
    /// What it asks about.
    #[must_use]
    pub const fn fact(&self) -> Fact {
        match self {
            Self::Authenticated(_) => Fact::Authenticated,
            Self::Client(_) => Fact::Client,
            Self::ClientName(_) => Fact::ClientName,
            Self::DiskFree { .. } => Fact::DiskFree,
            Self::Helo(_) => Fact::Helo,
            Self::Listener(_) => Fact::Listener,
            Self::Login(_) => Fact::Login,
            Self::OverQuota(_) => Fact::OverQuota,
            Self::Port(_) => Fact::Port,
            Self::Recipient(_) => Fact::Recipient,
            Self::Recipients(_) => Fact::Recipients,
            Self::Sender(_) => Fact::Sender,
            Self::SenderDomain(_) => Fact::SenderDomain,
            Self::SenderLoginMismatch(_) => Fact::SenderLoginMismatch,
            Self::Size(_) => Fact::Size,
            Self::Tls(_) => Fact::Tls,
        }
    }

    /// Whether it holds by matching an entry, written in place or in a list.
    #[must_use]
    pub const fn names_values(&self) -> bool {
        match self {
            Self::Client(_)
            | Self::ClientName(_)
            | Self::Helo(_)
            | Self::Login(_)
            | Self::OverQuota(_)
            | Self::Recipient(_)
            | Self::Sender(_)
            | Self::SenderDomain(_) => true,
            Self::Authenticated(_)
            | Self::DiskFree { .. }
            | Self::Listener(_)
            | Self::Port(_)
            | Self::Recipients(_)
            | Self::SenderLoginMismatch(_)
            | Self::Size(_)
            | Self::Tls(_) => false,
        }
    }
}

/// Values that stand for themselves, and names of lists.
#[derive(Clone, Debug)]
pub struct Values<T> {
    /// Written in place.
    pub inline: Vec<T>,
    /// Written as `@name`; without the `@`.
    pub lists: Vec<At<String>>,
}

/// Reads a `when`, an `unless` or a part of one; `lists` are the names that may have lost their `@`.
pub(super) fn read(node: Node, lists: &BTreeSet<String>, diagnostics: &mut Diagnostics) -> Option<Condition> {
    let mut fields = Fields::of(node, "conditions such as { client = \"192.0.2.0/24\" }", diagnostics)?;
    if fields.is_empty() {
        let hint = "name a fact, such as client = \"192.0.2.0/24\", or leave the whole condition out";
        diagnostics.push(Diagnostic::error(fields.place.clone(), "an empty condition always holds").hint(hint));
    }
    let mut parts = Vec::new();
    for fact in Fact::ALL {
        let Some(node) = fields.take(fact.name()) else {
            continue;
        };
        let place = node.place.clone();
        if let Some(value) = question(fact, node, lists, diagnostics) {
            parts.push(Condition::Fact(Box::new(At { value, place })));
        }
    }
    if let Some(node) = fields.take("any") {
        report_empty(&node, diagnostics);
        let any: Vec<_> = node.one_or_more().into_iter().filter_map(|node| read(node, lists, diagnostics)).collect();
        parts.push(Condition::Any(any));
    }
    if let Some(part) = fields.take("not").and_then(|node| read(node, lists, diagnostics)) {
        parts.push(Condition::Not(Box::new(part)));
    }
    fields.finish(diagnostics);
    Some(Condition::All(parts))
}

fn question(fact: Fact, node: Node, lists: &BTreeSet<String>, diagnostics: &mut Diagnostics) -> Option<Question> {
    let asked = |what| Asked { fact, what, lists };
    let question = match fact {
        Fact::Authenticated => Question::Authenticated(node.boolean(diagnostics)?),
        Fact::Client => Question::Client(values(node, asked("a network or \"@list\""), list::network, diagnostics)),
        Fact::ClientName => Question::ClientName(values(node, asked(DOMAIN), str::parse, diagnostics)),
        Fact::DiskFree => disk_free(node, diagnostics)?,
        Fact::Helo => Question::Helo(values(node, asked(DOMAIN), str::parse, diagnostics)),
        Fact::Listener => Question::Listener(listeners(node, diagnostics)),
        Fact::Login => Question::Login(values(node, asked("a login or \"@list\""), list::login, diagnostics)),
        Fact::OverQuota => Question::OverQuota(values(node, asked(ADDRESS), str::parse, diagnostics)),
        Fact::Port => Question::Port(ports(node, diagnostics)),
        Fact::Recipient => Question::Recipient(values(node, asked(ADDRESS), not_null, diagnostics)),
        Fact::Recipients => Question::Recipients(comparison(
            node,
            "a comparison such as \"> 100\"",
            |text| text.parse().ok(),
            (1, "the first recipient is number 1"),
            diagnostics,
        )?),
        Fact::Sender => Question::Sender(values(node, asked(ADDRESS), str::parse, diagnostics)),
        Fact::SenderDomain => Question::SenderDomain(values(node, asked(DOMAIN), str::parse, diagnostics)),
        Fact::SenderLoginMismatch => {
            Question::SenderLoginMismatch(only_lists(node, asked("\"@list\", a list with `senders`"), diagnostics))
        }
        Fact::Size => Question::Size(comparison(
            node,
            "a comparison such as \"> 25 MiB\"",
            |text| text.parse::<Size>().ok().map(|size| size.0),
            (0, "no size is below 0"),
            diagnostics,
        )?),
        Fact::Tls => Question::Tls(node.boolean(diagnostics)?),
    };
    Some(question)
}

const ADDRESS: &str = "an address, a domain or \"@list\"";
const DOMAIN: &str = "a domain or \"@list\"";

/// What values are read for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    fact: Fact,
    /// What is expected.
    what: &'static str,
    /// The names of all lists.
    lists: &'a BTreeSet<String>,
}

fn values<T, E: ToString>(
    node: Node,
    asked: Asked<'_>,
    parse: impl Fn(&str) -> Result<T, E>,
    diagnostics: &mut Diagnostics,
) -> Values<T> {
    let mut values = Values { inline: Vec::new(), lists: Vec::new() };
    report_empty(&node, diagnostics);
    for node in node.one_or_more() {
        let Some(text) = node.string(asked.what, diagnostics) else {
            continue;
        };
        if let Some(diagnostic) = asked.mistaken(&text, &parse) {
            diagnostics.push(diagnostic);
            continue;
        }
        if let Some(name) = text.value.strip_prefix('@') {
            values.lists.push(At { value: name.to_owned(), place: text.place });
            continue;
        }
        let written = text.value.trim();
        let list = asked.lists.get(written).map(|name| format!("did you mean \"@{name}\"?"));
        match parse(written) {
            Ok(value) => {
                values.inline.push(value);
                if let Some(hint) = list {
                    let message = format!("without @, \"{written}\" is not the list of that name");
                    diagnostics.push(Diagnostic::warning(text.place, message).hint(hint));
                }
            }
            Err(error) => {
                let hint = list.or_else(|| list::several(written, &parse));
                diagnostics.push(Diagnostic { hint, ..Diagnostic::error(text.place, error.to_string()) });
            }
        }
    }
    values
}

impl Asked<'_> {
    /// What is written as other programs have it: a negation, a comment, several values in one.
    fn mistaken<T, E>(&self, text: &At<String>, parse: impl Fn(&str) -> Result<T, E>) -> Option<Diagnostic> {
        let written = text.value.trim();
        let expected = || {
            let message = format!("expected {}, found \"{written}\"", self.what);
            Diagnostic::error(text.place.clone(), message)
        };
        if let Some(value) = written.strip_prefix('!') {
            return Some(expected().hint(format!(
                "what must not match stands in `unless`: unless.{} = \"{}\"",
                self.fact.name(),
                value.trim()
            )));
        }
        if let Some((value, _)) = list::comment_start(written).and_then(|start| written.split_at_checked(start))
            && (value.ends_with(char::is_whitespace) || (parse(written).is_err() && parse(value).is_ok()))
        {
            let error = Diagnostic::error(text.place.clone(), "a text has comments in [lists] only");
            return Some(error.hint("put the comment behind the quotes, or the value into a list"));
        }
        let several = list::several(written, parse).filter(|_| written.starts_with('@'));
        several.map(|hint| expected().hint(hint))
    }
}

/// A recipient is never `<>`.
fn not_null(text: &str) -> Result<AddressPattern, String> {
    match text.parse() {
        Ok(AddressPattern::Null) => Err("this can never hold: no recipient is `<>`".to_owned()),
        Ok(pattern) => Ok(pattern),
        Err(error) => Err(format!("{error}")),
    }
}

fn only_lists(node: Node, asked: Asked<'_>, diagnostics: &mut Diagnostics) -> Vec<At<String>> {
    let place = node.place.clone();
    let literal = |text: &str| Err::<(), _>(format!("expected {}, found \"{text}\"", asked.what));
    let values = values(node, asked, literal, diagnostics);
    if values.lists.len() > 1 {
        let hint = "a login may use what stands behind it in that list; put all logins into one";
        diagnostics.push(Diagnostic::error(place, "expected one list only").hint(hint));
    }
    values.lists
}

fn listeners(node: Node, diagnostics: &mut Diagnostics) -> Vec<String> {
    report_empty(&node, diagnostics);
    let strings = node.one_or_more().into_iter().filter_map(|node| node.string("the name of a listener", diagnostics));
    strings.map(|name| name.value).collect()
}

fn ports(node: Node, diagnostics: &mut Diagnostics) -> Vec<u16> {
    report_empty(&node, diagnostics);
    let mut ports = Vec::new();
    for node in node.one_or_more() {
        if let Value::Integer(port @ 1..=65535) = node.value {
            ports.extend(u16::try_from(port));
        } else {
            diagnostics.push(node.expected_unquoted::<NonZeroU16>("a port number from 1 to 65535"));
        }
    }
    ports
}

fn disk_free(node: Node, diagnostics: &mut Diagnostics) -> Option<Question> {
    const EXPECTED: &str = "{ path = \"/var/spool/postfix\", below = \"1 GiB\" }";
    let mut fields = Fields::of(node, EXPECTED, diagnostics)?;
    let (path, below) = (fields.take("path"), fields.take("below"));
    if path.is_none() || below.is_none() {
        let missing = if path.is_none() { "path" } else { "below" };
        let message = format!("`{missing}` is missing");
        diagnostics.push(Diagnostic::error(fields.place.clone(), message).hint(format!("write {EXPECTED}")));
    }
    fields.finish(diagnostics);
    let path = path.and_then(|node| node.string("a path such as \"/var/spool/postfix\"", diagnostics));
    let below = below.and_then(|node| node.parse::<Size>("a size such as \"1 GiB\"", diagnostics));
    if let Some(path) = path.as_ref().filter(|path| !path.value.starts_with('/')) {
        let message = format!("expected a path that starts with /, found \"{}\"", path.value);
        diagnostics.push(Diagnostic::error(path.place.clone(), message));
    }
    if let Some(below) = below.as_ref().filter(|below| below.value.0 == 0) {
        diagnostics.push(never(below.place.clone()).hint("less than nothing is never free"));
    }
    Some(Question::DiskFree { path: path?.value.into(), below: below?.value.0 })
}

/// A comparison with numbers of at least `least`, for the reason that stands beside it; one that never or always holds is
/// an error.
fn comparison(
    node: Node,
    expected: &'static str,
    bound: impl Fn(&str) -> Option<u64>,
    (least, reason): (u64, &str),
    diagnostics: &mut Diagnostics,
) -> Option<Comparison> {
    if let Value::Integer(number @ 0..) = node.value {
        diagnostics.push(node.expected(expected).hint(format!("did you mean \"> {number}\"?")));
        return None;
    }
    let text = node.string(expected, diagnostics)?;
    let comparison = match Comparison::parse(&text.value, expected, bound) {
        Ok(comparison) => comparison,
        Err(error) => {
            diagnostics.push(Diagnostic::error(text.place, error.to_string()));
            return None;
        }
    };
    let holds = (comparison.holds(least), comparison.holds(u64::MAX), comparison.holds(comparison.bound.max(least)));
    match holds {
        (false, false, false) => diagnostics.push(never(text.place).hint(reason)),
        (true, true, true) if comparison.bound <= least => {
            let hint = format!("{reason}; leave it out");
            diagnostics.push(Diagnostic::error(text.place, "this always holds").hint(hint));
        }
        _ => {}
    }
    Some(comparison)
}

fn never(place: Place) -> Diagnostic {
    Diagnostic::error(place, "this can never hold")
}

fn report_empty(node: &Node, diagnostics: &mut Diagnostics) {
    if matches!(&node.value, Value::Array(values) if values.is_empty()) {
        diagnostics.push(never(node.place.clone()).hint("an empty list of values matches nothing"));
    }
}
