//! Rules that can never hold, since parts of their conditions exclude each other.
//!
//! Tries every combination of the values at which conditions change; what is not tried (addresses, names, lists) may be
//! either way. So whatever is reported here really cannot hold; not everything that cannot is found. These are warnings: a
//! rule that never holds is surely a mistake, but does no harm.

use std::ptr;

use super::condition::Condition;
use super::condition::Question;
use super::condition::Values;
use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::key_part::KeyPart;
use super::limit::Limit;
use super::pattern::AddressPattern;
use super::rule::Rule;
use super::units::Comparison;
use crate::facts::Fact;

/// More combinations than a condition that people can read has; past it, nothing is said.
const MOST_CASES: usize = 20_000;

/// Reports a rule, an `unless` or a value that nothing can meet.
pub(super) fn report(rule: &Rule, diagnostics: &mut Diagnostics) {
    let mut questions = Vec::new();
    for condition in [Some(&rule.when), rule.unless.as_ref()].into_iter().flatten() {
        condition.for_each(true, &mut |question, _| questions.push(question));
    }
    let Some(cases) = cases(&questions) else {
        return;
    };
    let found_before = diagnostics.list.len();
    report_unless(rule, &cases, diagnostics);
    if diagnostics.list.len() == found_before {
        report_rule(rule, &questions, &cases, diagnostics);
    }
    if diagnostics.list.len() == found_before {
        report_taken_away(rule, diagnostics);
    }
}

/// An `unless` that never holds takes nothing away.
fn report_unless(rule: &Rule, cases: &[Case<'_>], diagnostics: &mut Diagnostics) {
    let Some(unless) = &rule.unless else {
        return;
    };
    if cases.iter().any(|case| case.judge(unless, None).may_hold) {
        return;
    }
    let mut questions = Vec::new();
    unless.for_each(true, &mut |question, _| questions.push(question));
    let holds = |ignored| cases.iter().any(|case| case.judge(unless, ignored).may_hold);
    let culprits = questions.into_iter().filter(|question| holds(Some(&question.value)));
    explain("this `unless` can never hold, so it takes nothing away", culprits, (rule, None), diagnostics);
}

/// A rule that never holds, whatever the client does.
fn report_rule(rule: &Rule, questions: &[&At<Question>], cases: &[Case<'_>], diagnostics: &mut Diagnostics) {
    let holds = |ignored, limit| cases.iter().any(|case| case.may_meet(rule, ignored, limit));
    if holds(None, rule.limit.as_ref()) {
        return;
    }
    let culprits = questions.iter().copied().filter(|question| holds(Some(&question.value), rule.limit.as_ref()));
    let limit = rule.limit.as_ref().filter(|_| holds(None, None));
    explain("this rule can never hold", culprits, (rule, limit), diagnostics);
}

/// Names the questions, and the limit, without any one of which it could hold; there may be none if several things are wrong.
fn explain<'a>(
    message: &str,
    culprits: impl Iterator<Item = &'a At<Question>>,
    (rule, limit): (&Rule, Option<&Limit>),
    diagnostics: &mut Diagnostics,
) {
    let mut culprits: Vec<_> = culprits.collect();
    culprits.sort_by_key(|question| question.place.span.start);
    let Some(last) = culprits.last() else {
        let message = format!("{message}: several of its conditions exclude each other");
        diagnostics.push(Diagnostic::warning(rule.name.place.clone(), message));
        return;
    };
    let mut facts: Vec<Fact> = Vec::new();
    for fact in culprits.iter().map(|question| question.value.fact()) {
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }
    let mut names: Vec<String> = facts.iter().map(|fact| format!("`{}`", fact.name())).collect();
    names.extend(limit.map(|_| "the `key` of its limit".to_owned()));
    let place = limit.map_or(&last.place, |limit| &limit.place);
    let (last_name, others) = names.split_last().map_or(("", [].as_slice()), |(last, others)| (last.as_str(), others));
    let reason = if others.is_empty() {
        format!("its conditions on {last_name} exclude each other")
    } else {
        format!("{} and {last_name} exclude each other", others.join(", "))
    };
    let hint = hint(culprits.iter().map(|question| &question.value), limit);
    diagnostics.push(Diagnostic { hint, ..Diagnostic::warning(place.clone(), format!("{message}: {reason}")) });
}

fn hint<'a>(culprits: impl Iterator<Item = &'a Question> + Clone, limit: Option<&Limit>) -> Option<String> {
    let asks = |fact| culprits.clone().any(|question| question.fact() == fact);
    let hint = if asks(Fact::Authenticated) && (limit.is_some() || asks(Fact::Login) || asks(Fact::SenderLoginMismatch))
    {
        "only a client that has authenticated has a login"
    } else if asks(Fact::Sender) && (limit.is_some() || asks(Fact::SenderDomain)) {
        "the null sender `<>` has no domain, and no limit counts it"
    } else if asks(Fact::Sender) && asks(Fact::SenderLoginMismatch) {
        "everybody may use the null sender `<>`"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// A value that `when` names and `unless` takes away again.
fn report_taken_away(rule: &Rule, diagnostics: &mut Diagnostics) {
    let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
    required(&rule.when, &mut wanted, &mut unwanted);
    if let Some(unless) = &rule.unless {
        excluded(unless, &mut unwanted);
    }
    for unwanted in unwanted {
        for wanted in &wanted {
            if let Some(value) = taken_away(&wanted.value, &unwanted.value) {
                let fact = unwanted.value.fact().name();
                let message = format!("`{fact}` {value} is both wanted and excluded by this rule");
                let hint = "an exclusion wins: leave the value out in one of the two places";
                diagnostics.push(Diagnostic::warning(unwanted.place.clone(), message).hint(hint));
            }
        }
    }
}

/// The questions that must hold, and those that must not, for the condition to hold.
fn required<'a>(condition: &'a Condition, wanted: &mut Vec<&'a At<Question>>, unwanted: &mut Vec<&'a At<Question>>) {
    match condition {
        Condition::All(parts) => parts.iter().for_each(|part| required(part, wanted, unwanted)),
        Condition::Any(_) => {}
        Condition::Fact(question) => wanted.push(question),
        Condition::Not(part) => excluded(part, unwanted),
    }
}

/// The questions each of which makes the condition hold.
fn excluded<'a>(condition: &'a Condition, unwanted: &mut Vec<&'a At<Question>>) {
    match condition {
        Condition::All(parts) => {
            if let [only] = parts.as_slice() {
                excluded(only, unwanted);
            }
        }
        Condition::Any(parts) => parts.iter().for_each(|part| excluded(part, unwanted)),
        Condition::Fact(question) => unwanted.push(question),
        Condition::Not(_) => {}
    }
}

/// A value of the first that the second names, too.
fn taken_away(wanted: &Question, unwanted: &Question) -> Option<String> {
    match (wanted, unwanted) {
        (Question::Client(a), Question::Client(b)) => common(a, b, |outer, inner| outer.contains(inner)),
        (Question::ClientName(a), Question::ClientName(b))
        | (Question::Helo(a), Question::Helo(b))
        | (Question::SenderDomain(a), Question::SenderDomain(b)) => common(a, b, PartialEq::eq),
        (Question::Login(a), Question::Login(b)) => common(a, b, PartialEq::eq),
        (Question::OverQuota(a), Question::OverQuota(b))
        | (Question::Recipient(a), Question::Recipient(b))
        | (Question::Sender(a), Question::Sender(b)) => common(a, b, PartialEq::eq),
        (Question::Listener(a), Question::Listener(b)) => a.iter().find(|name| b.contains(name)).cloned(),
        (Question::Port(a), Question::Port(b)) => a.iter().find(|port| b.contains(port)).map(ToString::to_string),
        _ => None,
    }
}

fn common<T: ToString>(wanted: &Values<T>, unwanted: &Values<T>, covers: impl Fn(&T, &T) -> bool) -> Option<String> {
    let is_covered = |value: &&T| unwanted.inline.iter().any(|other| covers(other, value));
    let is_named = |list: &&At<String>| unwanted.lists.iter().any(|other| other.value == list.value);
    let value = wanted.inline.iter().find(is_covered).map(ToString::to_string);
    value.or_else(|| wanted.lists.iter().find(is_named).map(|list| format!("@{}", list.value)))
}

/// One combination of values.
#[derive(Clone, Copy)]
struct Case<'a> {
    authenticated: bool,
    listener: Option<&'a str>,
    null_sender: bool,
    port: Option<u16>,
    recipients: u64,
    size: u64,
    tls: bool,
}

/// What a condition may come to in one case.
#[derive(Clone, Copy)]
struct Possible {
    may_hold: bool,
    may_fail: bool,
}

impl Possible {
    const EITHER: Self = Self { may_hold: true, may_fail: true };

    const fn surely(holds: bool) -> Self {
        Self { may_hold: holds, may_fail: !holds }
    }
}

impl Case<'_> {
    /// Whether the rule may hold; `ignored` may go either way, and `limit` is the limit to heed.
    fn may_meet(&self, rule: &Rule, ignored: Option<&Question>, limit: Option<&Limit>) -> bool {
        let has_part = |part: &KeyPart| match part {
            KeyPart::Login => self.authenticated,
            KeyPart::Sender | KeyPart::SenderDomain => !self.null_sender,
            KeyPart::Client { .. }
            | KeyPart::Helo
            | KeyPart::Listener
            | KeyPart::Recipient
            | KeyPart::RecipientDomain => true,
        };
        let is_free = rule.unless.as_ref().is_none_or(|unless| self.judge(unless, ignored).may_fail);
        is_free && self.judge(&rule.when, ignored).may_hold && limit.is_none_or(|limit| limit.key.iter().all(has_part))
    }

    fn judge(&self, condition: &Condition, ignored: Option<&Question>) -> Possible {
        match condition {
            Condition::All(parts) => {
                parts.iter().map(|part| self.judge(part, ignored)).fold(Possible::surely(true), |all, part| Possible {
                    may_hold: all.may_hold && part.may_hold,
                    may_fail: all.may_fail || part.may_fail,
                })
            }
            Condition::Any(parts) => {
                parts.iter().map(|part| self.judge(part, ignored)).fold(Possible::surely(false), |any, part| Possible {
                    may_hold: any.may_hold || part.may_hold,
                    may_fail: any.may_fail && part.may_fail,
                })
            }
            Condition::Fact(question) if ignored.is_some_and(|ignored| ptr::eq(ignored, &question.value)) => {
                Possible::EITHER
            }
            Condition::Fact(question) => self.ask(&question.value),
            Condition::Not(part) => {
                let Possible { may_hold, may_fail } = self.judge(part, ignored);
                Possible { may_hold: may_fail, may_fail: may_hold }
            }
        }
    }

    fn ask(&self, question: &Question) -> Possible {
        match question {
            Question::Authenticated(wanted) => Possible::surely(self.authenticated == *wanted),
            Question::Listener(names) => {
                Possible::surely(self.listener.is_some_and(|listener| names.iter().any(|name| name == listener)))
            }
            Question::Port(ports) => Possible::surely(self.port.is_some_and(|port| ports.contains(&port))),
            Question::Recipients(comparison) => Possible::surely(comparison.holds(self.recipients)),
            Question::Size(comparison) => Possible::surely(comparison.holds(self.size)),
            Question::Tls(wanted) => Possible::surely(self.tls == *wanted),
            Question::Login(_) if !self.authenticated => Possible::surely(false),
            Question::SenderLoginMismatch(_) if !self.authenticated || self.null_sender => Possible::surely(false),
            Question::SenderDomain(_) if self.null_sender => Possible::surely(false),
            Question::Sender(values) if self.null_sender && values.inline.contains(&AddressPattern::Null) => {
                Possible::surely(true)
            }
            Question::Sender(values) if values.lists.is_empty() => {
                let others = values.inline.iter().any(|pattern| *pattern != AddressPattern::Null);
                if !self.null_sender && others { Possible::EITHER } else { Possible::surely(false) }
            }
            Question::Client(_)
            | Question::ClientName(_)
            | Question::DiskFree { .. }
            | Question::Helo(_)
            | Question::Login(_)
            | Question::OverQuota(_)
            | Question::Recipient(_)
            | Question::Sender(_)
            | Question::SenderDomain(_)
            | Question::SenderLoginMismatch(_) => Possible::EITHER,
        }
    }
}

/// Every combination of the values at which one of the questions changes its answer; `None` if they are too many.
fn cases<'a>(questions: &[&'a At<Question>]) -> Option<Vec<Case<'a>>> {
    let (mut ports, mut listeners, mut sizes, mut recipients) = (vec![None], vec![None], vec![], vec![]);
    for question in questions {
        if let Question::Listener(names) = &question.value {
            listeners.extend(names.iter().map(|name| Some(name.as_str())));
        } else if let Question::Port(named) = &question.value {
            ports.extend(named.iter().map(|port| Some(*port)));
        } else if let Question::Recipients(comparison) = &question.value {
            recipients.extend(around(*comparison, 1));
        } else if let Question::Size(comparison) = &question.value {
            sizes.extend(around(*comparison, 0));
        }
    }
    sizes.push(0);
    recipients.push(1);
    let case = Case {
        authenticated: false,
        listener: None,
        null_sender: false,
        port: None,
        recipients: 1,
        size: 0,
        tls: false,
    };
    let cases = vec![case];
    let cases = varied(cases, &[false, true], |case, authenticated| Case { authenticated, ..case })?;
    let cases = varied(cases, &[false, true], |case, null_sender| Case { null_sender, ..case })?;
    let cases = varied(cases, &[false, true], |case, tls| Case { tls, ..case })?;
    let cases = varied(cases, &listeners, |case, listener| Case { listener, ..case })?;
    let cases = varied(cases, &ports, |case, port| Case { port, ..case })?;
    let cases = varied(cases, &recipients, |case, recipients| Case { recipients, ..case })?;
    varied(cases, &sizes, |case, size| Case { size, ..case })
}

/// The bound and its neighbours, none below `least`.
fn around(comparison: Comparison, least: u64) -> [u64; 3] {
    let bound = comparison.bound;
    [bound.saturating_sub(1), bound, bound.saturating_add(1)].map(|number| number.max(least))
}

fn varied<'a, T: Copy>(
    cases: Vec<Case<'a>>,
    values: &[T],
    with: impl Fn(Case<'a>, T) -> Case<'a>,
) -> Option<Vec<Case<'a>>> {
    if cases.len() * values.len() > MOST_CASES {
        return None;
    }
    Some(cases.into_iter().flat_map(|case| values.iter().map(|value| with(case, *value)).collect::<Vec<_>>()).collect())
}
