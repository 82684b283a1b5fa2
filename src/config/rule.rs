//! `[[rule]]`: a condition and what follows from it.

use std::collections::BTreeSet;

use super::condition;
use super::condition::Condition;
use super::contradiction;
use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::limit;
use super::limit::Limit;
use super::notice::Notice;
use super::step::StepAction;
use super::template::Template;
use crate::codes;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::reply;
use crate::reply::ReplyError;
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
    /// Who is told of keys that are over its limit.
    pub notify: Vec<At<String>>,
    /// Whether it is enforced.
    pub mode: Mode,
    /// When its refusal is spoken, if not as early as possible.
    pub at: Option<At<Stage>>,
    /// Whether a 421 or 521 may end the SMTP session.
    pub disconnect: bool,
    /// What is unusual in it, and meant.
    pub allow: Vec<At<Notice>>,
}

/// What can be checked of a rule with a mistake: that what it names is there.
#[derive(Clone, Debug, Default)]
pub struct Dropped {
    /// Its name, if it has one.
    pub name: Option<At<String>>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// The list of those who have bounds of their own under its limit.
    pub overrides: Option<At<String>>,
    /// Who is told of keys that are over its limit.
    pub notify: Vec<At<String>>,
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

/// The stages at which a rule may be told to answer.
const ANSWER_STAGES: [(&str, Stage); 5] = [
    ("connect", Stage::Connect),
    ("mail", Stage::Mail),
    ("rcpt", Stage::Rcpt),
    ("data", Stage::Data),
    ("end-of-message", Stage::EndOfMessage),
];

/// Reads one `[[rule]]`.
///
/// # Errors
///
/// Nothing is concluded from a rule with a mistake: without it, it may be another rule. But what it names can be looked for
/// all the same.
pub(super) fn read(node: Node, lists: &BTreeSet<String>, diagnostics: &mut Diagnostics) -> Result<Rule, Box<Dropped>> {
    let Some(mut fields) = Fields::of(node, "a table [[rule]]", diagnostics) else {
        return Err(Box::default());
    };
    let place = fields.place.clone();
    let name = name(&mut fields, diagnostics);
    let errors_before = diagnostics.errors();
    let says_nothing = !["when", "unless", "limit", "reply", "then", "add_header"].iter().any(|key| fields.has(key));
    let mut condition = |node| condition::read(node, lists, diagnostics);
    let when = fields.take("when").map_or_else(|| Some(Condition::always()), &mut condition);
    let unless = fields.take("unless").and_then(condition);
    let has_limit = fields.has("limit");
    let errors_before_limit = diagnostics.errors();
    let limit = fields.take("limit").and_then(|node| limit::read(node, diagnostics));
    let is_limit_read = diagnostics.errors() == errors_before_limit;
    let notify = notify(&mut fields, has_limit, diagnostics);
    let has_steps = limit.as_ref().is_some_and(|limit| !limit.steps.is_empty());
    if has_steps {
        report_beside_steps(&fields, diagnostics);
    }
    let action = action(&mut fields, diagnostics);
    let mode = fields.take("mode").and_then(|node| node.choice(&MODES, diagnostics));
    let at = fields.take("at").and_then(|node| answer_stage(node, &ANSWER_STAGES, diagnostics));
    let notices = Notice::ALL.map(|notice| (notice.name(), notice));
    let allow = fields.take("allow").map(Node::one_or_more).unwrap_or_default();
    let allow = allow.into_iter().filter_map(|node| node.choice(&notices, diagnostics)).collect();
    let disconnect =
        fields.take("disconnect").map(|node| (node.place.clone(), node.boolean(diagnostics).unwrap_or_default()));
    if let Some((place, true)) = &disconnect
        && is_limit_read
    {
        check_disconnect(place, &action, &limit, diagnostics);
    }
    report_misplaced(&mut fields, diagnostics);
    fields.finish(diagnostics);
    let (Some(name), Some(when), Some(action), true) =
        (name.clone(), when.clone(), action, diagnostics.errors() == errors_before)
    else {
        diagnostics.partial = true;
        let overrides = limit.and_then(|limit| limit.overrides);
        let conditions = when.into_iter().chain(unless).collect();
        return Err(Box::new(Dropped { name, conditions, overrides, notify }));
    };
    let rule = Rule {
        name,
        place,
        when,
        unless,
        limit,
        action,
        notify,
        mode: mode.map(|mode| mode.value).unwrap_or_default(),
        at,
        disconnect: disconnect.is_some_and(|(_, disconnect)| disconnect),
        allow,
    };
    if says_nothing && rule.mode == Mode::Enforce {
        let message = "this rule refuses everything that reaches it";
        let hint = "say so with a `reply`, or give it a `when`";
        diagnostics.push(Diagnostic::warning(rule.name.place.clone(), message).hint(hint));
    }
    contradiction::report(&rule, diagnostics);
    Ok(rule)
}

/// What steps leave no room for.
fn report_beside_steps(fields: &Fields, diagnostics: &mut Diagnostics) {
    for key in ["reply", "then", "add_header"] {
        if let Some(place) = fields.place_of(key) {
            let message = format!("the steps of the limit say what follows; there is no room for `{key}`");
            let hint = "a step takes a reply, too: steps = { \"100%\" = \"452 4.3.1 Slow down\" }";
            diagnostics.push(Diagnostic::error(place, message).hint(hint));
        }
    }
}

/// `client = …` where `when.client = …` was meant.
fn report_misplaced(fields: &mut Fields, diagnostics: &mut Diagnostics) {
    for fact in Fact::ALL {
        if let Some((place, _)) = fields.take_misplaced(fact.name()) {
            let message = format!("unknown key `{}`", fact.name());
            let hint = format!("conditions stand in `when` or `unless`: when.{}", fact.name());
            diagnostics.push(Diagnostic::error(place, message).hint(hint));
        }
    }
}

pub(super) const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];

fn name(fields: &mut Fields, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    let Some(node) = fields.take("name") else {
        let hint = "add name = \"...\": it is what metrics, logs and `check` call the rule";
        diagnostics.push(Diagnostic::error(fields.place.clone(), "this rule has no name").hint(hint));
        return None;
    };
    let name = node.string("a name", diagnostics)?;
    if !is_name(&name.value) {
        diagnostics.push(Diagnostic::error(name.place.clone(), EXPECTED_NAME));
    }
    Some(name)
}

/// Whether it can be a label in metrics, and be written in any log.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

pub(super) const EXPECTED_NAME: &str =
    "expected a name of 1 to 64 letters (a to z), digits, hyphens, dots and underscores";

/// `notify`: names of `[notify.NAME]`, each once. Only of keys of limits is there an episode to tell of once.
fn notify(fields: &mut Fields, has_limit: bool, diagnostics: &mut Diagnostics) -> Vec<At<String>> {
    let Some((place, node)) = fields.take_with_key("notify") else {
        return Vec::new();
    };
    if !has_limit {
        let message = "`notify` tells who is over a limit, and this rule has none";
        diagnostics.push(Diagnostic::error(place, message));
    }
    let mut names: Vec<At<String>> = Vec::new();
    for node in node.one_or_more() {
        let name = node.string("the name of a [notify.NAME] such as \"admin\"", diagnostics);
        let is_new = |name: &At<String>| names.iter().all(|before| before.value != name.value);
        if let Some(name) = name.filter(is_new) {
            names.push(name);
        }
    }
    names
}

/// One of `stages`, or an error that knows why others are not among them.
pub(super) fn answer_stage(
    node: Node,
    stages: &[(&'static str, Stage)],
    diagnostics: &mut Diagnostics,
) -> Option<At<Stage>> {
    if matches!(&node.value, Value::String(text) if text == "helo") {
        let hint = "Postfix answers 250 to HELO whatever a milter says, and repeats the refusal for the whole session; \
                    use \"mail\"";
        diagnostics.push(Diagnostic::error(node.place, "nothing can be answered at HELO").hint(hint));
        return None;
    }
    node.choice(stages, diagnostics)
}

/// `disconnect`, which a rule without a reply of its own can only say if the default one is a 421.
fn check_disconnect(place: &Place, action: &Option<Action>, limit: &Option<Limit>, diagnostics: &mut Diagnostics) {
    let of_connections = |limit: &Limit| !limit.connections.is_empty() || limit.concurrent.is_some();
    let replies = |limit: &Limit| limit.steps.iter().any(|step| matches!(step.then, StepAction::Reply(_)));
    let speaks = match action {
        None | Some(Action::Refuse(Some(_))) => true,
        Some(Action::Refuse(None)) => limit.as_ref().is_some_and(|limit| of_connections(limit) || replies(limit)),
        Some(Action::Accept | Action::AddHeader(_) | Action::Discard | Action::Quarantine) => false,
    };
    if !speaks {
        let message = "`disconnect` goes with a reply of 421, and this rule has none";
        diagnostics.push(Diagnostic::error(place.clone(), message).hint("reply = \"421 4.7.0 Try again later\""));
    }
}

/// `reply`, `then` or `add_header`; with none of them the rule refuses with the default reply for its case.
fn action(fields: &mut Fields, diagnostics: &mut Diagnostics) -> Option<Action> {
    let reply = fields.take_with_key("reply");
    let then = fields.take_with_key("then");
    let add_header = fields.take_with_key("add_header");
    if [&reply, &then, &add_header].into_iter().flatten().count() > 1 {
        let hint = match (&reply, &then, &add_header) {
            (Some(_), Some((_, At { value: Value::String(word), .. })), None) => needless(word),
            _ => "make two rules of it",
        };
        let mut actions: Vec<Place> = [reply, then, add_header].into_iter().flatten().map(|(place, _)| place).collect();
        actions.sort_by_key(|place| place.span.start);
        let message = "a rule does one of `reply`, `then` and `add_header`";
        if let Some(last) = actions.pop() {
            diagnostics.push(Diagnostic::error(last, message).hint(hint));
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
        Some((_, node)) => exemption(node, diagnostics),
    }
}

/// Which of `reply` and `then` to leave out.
fn needless(then: &str) -> &'static str {
    match then {
        "accept" | "discard" | "quarantine" => "the client sees 250; leave `reply` out",
        _ => "a `reply` refuses; leave `then` out",
    }
}

/// `then`, whose three words all end the judgement of a message or recipient.
fn exemption(node: Node, diagnostics: &mut Diagnostics) -> Option<Action> {
    if matches!(&node.value, Value::String(text) if ["defer", "refuse", "reject", "tempfail"].contains(&text.as_str()))
    {
        let message = format!("expected \"accept\", \"discard\" or \"quarantine\", found {}", node.value);
        let hint = "a rule without `then` refuses; `reply` says how: reply = \"550 5.7.1 Go away\"";
        diagnostics.push(Diagnostic::error(node.place, message).hint(hint));
        return None;
    }
    let choices = [("accept", Then::Accept), ("discard", Then::Discard), ("quarantine", Then::Quarantine)];
    Some(match node.choice(&choices, diagnostics)?.value {
        Then::Accept => Action::Accept,
        Then::Discard => Action::Discard,
        Then::Quarantine => Action::Quarantine,
    })
}

#[derive(Clone, Copy)]
enum Then {
    Accept,
    Discard,
    Quarantine,
}

pub(super) fn reply_template(node: Node, diagnostics: &mut Diagnostics) -> Option<At<ReplyTemplate>> {
    let text = node.string("a reply such as \"550 5.7.1 Go away\"", diagnostics)?;
    let (status, rest) = match reply::split_status(&text.value) {
        Ok(parts) => parts,
        Err(error) => {
            let hint = reply_hint(&text.value, &error);
            diagnostics.push(Diagnostic::error(text.place, error.to_string()).hint(hint));
            return None;
        }
    };
    let rest = rest.trim();
    let template = template(rest, &text.place, diagnostics)?;
    Some(At { value: ReplyTemplate { status, text: template }, place: text.place })
}

/// What to write in place of a text that is no reply.
fn reply_hint(text: &str, error: &ReplyError) -> String {
    const FORM: &str = "a reply is a code, an enhanced status code of the same class and a text: \"550 5.7.1 Go away\"";
    let blank = text.replacen('-', " ", 1);
    if reply::split_status(&blank).is_ok() {
        return format!("a blank stands behind the code, not a hyphen: \"{}\"", blank.escape_debug());
    }
    let words = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if reply::split_status(&words).is_ok() {
        return format!("one blank stands between them: \"{}\"", words.escape_debug());
    }
    match error {
        ReplyError::ClassMismatch { code, enhanced } => same_class(code, enhanced),
        ReplyError::Code { found } => {
            let instead = found.parse().ok().and_then(codes::basic).and_then(|basic| basic.instead);
            instead.map_or_else(|| FORM.to_owned(), |instead| format!("use {instead}"))
        }
        ReplyError::Enhanced { .. } => {
            let code = words.split(' ').next().and_then(|code| code.parse().ok());
            let usual = code.and_then(codes::basic).map(|basic| basic.usual).unwrap_or_default();
            let usual = usual.get(..usual.len().min(4)).unwrap_or_default();
            if usual.is_empty() { FORM.to_owned() } else { format!("write one of {}, then the text", usual.join(", ")) }
        }
    }
}

/// The two replies that `450` and `5.7.1` may have been meant for.
fn same_class(code: &str, enhanced: &str) -> String {
    let (Some(digit), Some((class, rest))) = (code.get(..1), enhanced.split_once('.')) else {
        return String::new();
    };
    let kept = format!("use {code} {digit}.{rest}");
    let other = code.get(1..).map(|digits| format!("{class}{digits}"));
    match other.filter(|other| other.parse().ok().and_then(codes::basic).is_some_and(|basic| !basic.milter.is_empty()))
    {
        Some(other) => format!("{kept}, or {other} {enhanced}"),
        None => kept,
    }
}

fn header_field(node: Node, diagnostics: &mut Diagnostics) -> Option<At<HeaderField>> {
    const EXPECTED: &str = "a header field such as \"X-Policy: {rule}\"";
    let text = node.string(EXPECTED, diagnostics)?;
    let parts = text.value.split_once(':').map(|(name, value)| (name.trim_end(), value.trim()));
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| matches!(b, 33..=126) && !b"{}".contains(&b));
    let Some((name, value)) = parts.filter(|(name, value)| is_name(name) && !value.is_empty()) else {
        let found = Value::String(text.value);
        diagnostics.push(Diagnostic::error(text.place, format!("expected {EXPECTED}, found {found}")));
        return None;
    };
    if value.contains('\n') {
        diagnostics.push(Diagnostic::error(text.place, "a header field to add is one line"));
        return None;
    }
    let template = template(value, &text.place, diagnostics)?;
    Some(At { value: HeaderField { name: name.to_owned(), value: template }, place: text.place })
}

/// The text of a reply or header field that is written at `place`.
fn template(text: &str, place: &Place, diagnostics: &mut Diagnostics) -> Option<Template> {
    match text.parse::<Template>() {
        Ok(template) => Some(template),
        Err(error) => {
            let place = diagnostics.narrow(place, &error.part());
            diagnostics.push(Diagnostic::error(place, error.to_string()).hint(error.hint()));
            None
        }
    }
}
