//! `limit`: whose count, and how much in how long.

use std::time::Duration;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::key_part::KeyPart;
use super::share::MOST_APART;
use super::share::Share;
use super::step;
use super::step::Step;
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
    /// Bounds on how many different values there are of `of`.
    pub distinct: Vec<Rate>,
    /// Of what they are values: the parts of one.
    pub of: Vec<KeyPart>,
    /// Bounds on the share of recipients that are refused.
    pub bad_recipients: Vec<Share>,
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
    /// What follows from how far over it somebody is, the lowest first; none: the rule says it.
    pub steps: Vec<Step>,
}

impl Limit {
    /// Whether it counts what one message has much of: a step may be passed in one leap.
    const fn leaps(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether it counts anything besides connections, of which tries can be charged.
    const fn has_tries(&self) -> bool {
        self.leaps() || !self.messages.is_empty() || !self.recipients.is_empty()
    }
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
    /// What is said by name, and where; nothing where one word is said for all.
    pub named: Vec<At<&'static str>>,
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
    /// On different values.
    pub distinct: Option<Allowance>,
    /// On the share of recipients that are refused.
    pub bad_recipients: Option<Allowance>,
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
    /// Such shares of so many in so long, all of it.
    Shares(Vec<Share>),
    /// As much as he likes.
    Unlimited,
}

/// Reads the table of a limit.
pub(super) fn read(node: Node, diagnostics: &mut Diagnostics) -> Option<Limit> {
    let mut fields = Fields::of(node, "a table such as { key = \"login\", messages = \"100/hour\" }", diagnostics)?;
    let place = fields.place.clone();
    let errors_before = diagnostics.errors();
    let key = key_parts(fields.take("key"), diagnostics);
    let errors_of_key = diagnostics.errors() - errors_before;
    let overrides = fields.take("overrides").and_then(|node| list_name(node, diagnostics));
    let of = fields.take("of");
    let place_of_of = of.as_ref().map(|node| node.place.clone());
    let of = key_parts(of, diagnostics);
    let errors_of_names = diagnostics.errors() - errors_before;
    let limit = Limit {
        key: key.into_iter().map(|part| part.value).collect(),
        messages: rates(fields.take("messages"), "\"100/hour\"", Rate::parse_count, diagnostics),
        recipients: rates(fields.take("recipients"), "\"100/hour\"", Rate::parse_count, diagnostics),
        bytes: rates(fields.take("bytes"), "\"1 GiB/day\"", Rate::parse_size, diagnostics),
        connections: rates(fields.take("connections"), "\"100/hour\"", Rate::parse_count, diagnostics),
        distinct: rates(fields.take("distinct"), "\"5/hour\"", parse_distinct, diagnostics),
        of: of.into_iter().map(|part| part.value).collect(),
        bad_recipients: shares(fields.take("bad_recipients"), diagnostics),
        concurrent: fields.take("concurrent").and_then(|node| node.count(diagnostics)),
        overrides,
        block_for: fields.take("block_for").and_then(|node| block(node, diagnostics)),
        max_keys: fields.take("max_keys").and_then(|node| node.count(diagnostics)),
        charge: fields.take("charge").and_then(|node| charge(node, diagnostics)).unwrap_or_default(),
        steps: fields.take("steps").map(|node| step::read(node, diagnostics)).unwrap_or_default(),
        place: place.clone(),
    };
    // What is unknown here may have been meant for whatever is missed below.
    let errors_read = diagnostics.errors();
    fields.finish(diagnostics);
    let all_known = diagnostics.errors() == errors_read;
    if all_known && errors_read - errors_before == errors_of_names {
        check_steps(&limit, diagnostics);
    }
    if limit.key.is_empty()
        && all_known
        && errors_of_key == 0
        && let Some(overrides) = &limit.overrides
    {
        let message = "a limit without a key is one for all: nobody can have bounds of his own";
        diagnostics.push(Diagnostic::error(overrides.place.clone(), message).hint("add key = \"login\""));
    }
    if diagnostics.errors() == errors_before {
        check_distinct(&limit, place_of_of, diagnostics);
        check_charge(&limit, diagnostics);
        check_shares(&limit, diagnostics);
    }
    let counts_nothing = limit.messages.is_empty()
        && limit.recipients.is_empty()
        && limit.bytes.is_empty()
        && limit.connections.is_empty()
        && limit.distinct.is_empty()
        && limit.bad_recipients.is_empty()
        && limit.concurrent.is_none();
    if counts_nothing && diagnostics.errors() == errors_before {
        let hint = "add messages, recipients or connections = \"100/hour\", bytes = \"1 GiB/day\", or concurrent = 10";
        diagnostics.push(Diagnostic::error(place, "this limit limits nothing").hint(hint));
    }
    Some(limit)
}

fn key_parts(node: Option<Node>, diagnostics: &mut Diagnostics) -> Vec<At<KeyPart>> {
    let nodes = node.into_iter().flat_map(Node::one_or_more);
    let part = |node: Node| node.parse("a part of the key such as \"client\" or \"login\"", diagnostics);
    nodes.filter_map(part).collect()
}

/// Every recipient that was tried counts, and those refused once more.
fn check_charge(limit: &Limit, diagnostics: &mut Diagnostics) {
    if !limit.bad_recipients.is_empty() && limit.charge != Charge::Accepted {
        let message = "`bad_recipients` counts every recipient that is tried, whatever becomes of the message";
        let hint = format!("leave out charge = \"{}\", or give what it is for a rule of its own", limit.charge.name());
        diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
    }
}

/// All shares are judged from one log.
fn check_shares(limit: &Limit, diagnostics: &mut Diagnostics) {
    let spans = || limit.bad_recipients.iter().map(|share| share.per);
    let (Some(shortest), Some(longest)) = (spans().min(), spans().max()) else {
        return;
    };
    if longest.as_nanos() > shortest.as_nanos() * u128::from(MOST_APART) {
        let message = format!(
            "of `bad_recipients` no span may be more than {MOST_APART} times another: {} and {}",
            Span(shortest),
            Span(longest)
        );
        let hint = "give one of them a rule of its own";
        diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
    }
}

fn check_steps(limit: &Limit, diagnostics: &mut Diagnostics) {
    let counts_others = !limit.distinct.is_empty() || !limit.bad_recipients.is_empty();
    if counts_others && !limit.steps.is_empty() {
        let message = "steps are parts of an amount; `distinct` and `bad_recipients` count none";
        let hint = "give those a rule of their own";
        diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
    }
    let blocks = limit.block_for.is_some();
    let (leaps, has_tries) = (limit.leaps(), limit.has_tries());
    let counts_refused = has_tries && limit.charge == Charge::Attempts;
    let reach = step::Reach { leaps, counts_refused, blocks, has_tries };
    step::check(&limit.steps, &reach, diagnostics);
    if blocks && !limit.steps.is_empty() && limit.steps.iter().all(|step| step.then.passes()) {
        let message = "with these steps nobody is ever blocked: all of them let pass";
        let hint = "`block_for` begins with the first step that lets nothing through; add one, or leave it out";
        diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
    }
}

/// Each value is remembered by itself, so there cannot be any number of them.
fn parse_distinct(text: &str) -> Result<Rate, UnitError> {
    let rate = Rate::parse_count(text)?;
    if rate.amount > MOST_DISTINCT {
        let expected = "a rate of at most 10000 different values, each of which has to be remembered";
        return Err(UnitError::new(expected, text, []));
    }
    Ok(rate)
}

/// `distinct` says how many, `of` what; and there must be more than one of it for a key.
fn check_distinct(limit: &Limit, of: Option<Place>, diagnostics: &mut Diagnostics) {
    let Some(of) = of else {
        if !limit.distinct.is_empty() {
            let hint = "add of = \"client/24\" for different networks, or another part that a key can have";
            let message = "`distinct` counts different values, and nobody says of what";
            diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
        }
        return;
    };
    if limit.distinct.is_empty() {
        let message = "`of` says of what different values are counted, and nothing counts them";
        diagnostics.push(Diagnostic::error(of, message).hint("add distinct = \"5/hour\""));
    } else if limit.of.iter().all(|part| limit.key.iter().any(|known| known.settles(*part))) {
        let message = "each key has one value of this only: there are never more";
        let hint = "count something that is not in the `key`, or leave it out of the key";
        diagnostics.push(Diagnostic::error(of, message).hint(hint));
    } else if limit.charge == Charge::Refused {
        let message = "different values are counted of what passes, or of what is tried; not of what is refused";
        let hint = "leave out charge = \"refused\", or give `distinct` a rule of its own";
        diagnostics.push(Diagnostic::error(of, message).hint(hint));
    }
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
        allowances(node, diagnostics).map(|(allowances, named)| Override { key, allowances, named })
    };
    fields.rest().into_iter().filter_map(read).collect()
}

/// `"unlimited"` or 0 for all that is counted, or a table, with the names in it.
fn allowances(node: Node, diagnostics: &mut Diagnostics) -> Option<(Allowances, Vec<At<&'static str>>)> {
    let all = |allowance: Allowance| Allowances {
        messages: Some(allowance.clone()),
        recipients: Some(allowance.clone()),
        bytes: Some(allowance.clone()),
        connections: Some(allowance.clone()),
        distinct: Some(allowance.clone()),
        bad_recipients: Some(allowance.clone()),
        concurrent: Some(allowance),
    };
    if let Some(allowance) = whole(&node) {
        return Some((all(allowance), Vec::new()));
    }
    let errors_before = diagnostics.errors();
    let mut fields = Fields::of(node, "\"unlimited\", 0 or a table such as { messages = \"1000/day\" }", diagnostics)?;
    let named = |value| fields.place_of(value).map(|place| At { value, place });
    let named = COUNTED.into_iter().filter_map(named).collect();
    let mut rates_of = |key, example, parse: fn(&str) -> Result<Rate, UnitError>| {
        let node = fields.take(key)?;
        Some(whole(&node).unwrap_or_else(|| Allowance::Rates(rates(Some(node), example, parse, diagnostics))))
    };
    let mut allowances = Allowances {
        messages: rates_of("messages", "\"100/hour\"", Rate::parse_count),
        recipients: rates_of("recipients", "\"100/hour\"", Rate::parse_count),
        bytes: rates_of("bytes", "\"1 GiB/day\"", Rate::parse_size),
        connections: rates_of("connections", "\"100/hour\"", Rate::parse_count),
        distinct: rates_of("distinct", "\"5/hour\"", parse_distinct),
        bad_recipients: None,
        concurrent: None,
    };
    if let Some(node) = fields.take("bad_recipients") {
        let allowance = whole(&node).unwrap_or_else(|| Allowance::Shares(shares(Some(node), diagnostics)));
        allowances.bad_recipients = Some(allowance);
    }
    if let Some(node) = fields.take("concurrent") {
        allowances.concurrent = whole(&node).or_else(|| node.count(diagnostics).map(Allowance::AtOnce));
    }
    let place = fields.place.clone();
    fields.finish(diagnostics);
    if allowances == Allowances::default() && diagnostics.errors() == errors_before {
        let hint = "write \"unlimited\", 0, or { messages = \"1000/day\" }";
        diagnostics.push(Diagnostic::error(place, "this says nothing").hint(hint));
    }
    Some((allowances, named))
}

/// What an override can say something of.
const COUNTED: [&str; 7] =
    ["messages", "recipients", "bytes", "connections", "distinct", "bad_recipients", "concurrent"];

/// `"unlimited"`, `0` or `"0"`.
fn whole(node: &Node) -> Option<Allowance> {
    let is_text = |word: &str| matches!(&node.value, Value::String(text) if text == word);
    let is_zero = is_text("0") || matches!(node.value, Value::Integer(0));
    is_zero.then_some(Allowance::Nothing).or_else(|| is_text("unlimited").then_some(Allowance::Unlimited))
}

fn shares(node: Option<Node>, diagnostics: &mut Diagnostics) -> Vec<Share> {
    let nodes = node.into_iter().flat_map(Node::one_or_more);
    let share = |node: Node| node.parse("a share such as \"30% of 20/hour\"", diagnostics);
    nodes.filter_map(share).map(|share: At<Share>| share.value).collect()
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

/// So many different values may be allowed in one window.
const MOST_DISTINCT: u64 = 10_000;
