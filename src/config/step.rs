//! `steps` of a limit: what follows depends on how far over it somebody is.

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::rule;
use super::rule::ReplyTemplate;

/// What follows above a part of the limit.
#[derive(Clone, Debug)]
pub struct Step {
    /// In percent of the limit.
    pub percent: At<u32>,
    /// What follows.
    pub then: StepAction,
}

/// What follows at a step.
#[derive(Clone, Debug)]
pub enum StepAction {
    /// The client sees the default 4xx for what is counted.
    Defer,
    /// It passes, counted and logged.
    Monitor,
    /// It passes, and the message is put on hold.
    Quarantine,
    /// The client sees 550 5.7.1.
    Refuse,
    /// The client sees this.
    Reply(At<ReplyTemplate>),
}

impl StepAction {
    /// Whether what is above the step passes all the same.
    #[must_use]
    pub const fn passes(&self) -> bool {
        match self {
            Self::Monitor | Self::Quarantine => true,
            Self::Defer | Self::Refuse | Self::Reply(_) => false,
        }
    }
}

/// The most percent that make sense to anybody.
const MOST: u32 = 10_000;

/// Reads the table, lowest step first.
pub(super) fn read(node: Node, diagnostics: &mut Diagnostics) -> Vec<Step> {
    let expected = "a table such as { \"100%\" = \"monitor\", \"200%\" = \"defer\" }";
    let Some(fields) = Fields::of(node, expected, diagnostics) else {
        return Vec::new();
    };
    if fields.is_empty() {
        let message = "no steps: leave them out, and what is above the limit is refused";
        diagnostics.push(Diagnostic::error(fields.place.clone(), message));
    }
    let mut steps: Vec<Step> = Vec::new();
    for (key, node) in fields.rest() {
        let then = then(node, diagnostics);
        let Some(value) = percent(&key.value) else {
            let message = format!("expected a part of the limit such as \"150%\", found \"{}\"", key.value);
            let hint = format!("whole percents from 1% to {MOST}%");
            diagnostics.push(Diagnostic::error(key.place, message).hint(hint));
            continue;
        };
        if steps.iter().any(|before| before.percent.value == value) {
            diagnostics.push(Diagnostic::error(key.place, format!("there is a step at {value}% already")));
            continue;
        }
        steps.extend(then.map(|then| Step { percent: At { value, place: key.place }, then }));
    }
    steps.sort_by_key(|step| step.percent.value);
    steps
}

fn percent(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%')?.trim_end();
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|percent| is_number && (1..=MOST).contains(percent))
}

/// One of the words, or a reply.
fn then(node: Node, diagnostics: &mut Diagnostics) -> Option<StepAction> {
    if matches!(&node.value, Value::String(text) if text.starts_with(|c: char| c.is_ascii_digit())) {
        return rule::reply_template(node, diagnostics).map(StepAction::Reply);
    }
    let choices = [("monitor", Word::Monitor), ("quarantine", Word::Quarantine), ("defer", Word::Defer)];
    let choices = choices.into_iter().chain([("refuse", Word::Refuse)]).collect::<Vec<_>>();
    if !matches!(node.value, Value::String(_)) {
        let expected = "\"monitor\", \"quarantine\", \"defer\", \"refuse\" or a reply such as \"452 4.3.1 Slow down\"";
        diagnostics.push(node.expected(expected));
        return None;
    }
    Some(match node.choice(&choices, diagnostics)?.value {
        Word::Defer => StepAction::Defer,
        Word::Monitor => StepAction::Monitor,
        Word::Quarantine => StepAction::Quarantine,
        Word::Refuse => StepAction::Refuse,
    })
}

#[derive(Clone, Copy)]
enum Word {
    Defer,
    Monitor,
    Quarantine,
    Refuse,
}

/// What of the limit can make that a step is never reached.
pub(super) struct Reach {
    /// One message may be of any size, and so pass several steps at once.
    pub(super) leaps: bool,
    /// What is refused is counted on.
    pub(super) counts_refused: bool,
    /// Who is refused is blocked, and then nothing is counted.
    pub(super) blocks: bool,
    /// Something is counted of which tries could be.
    pub(super) has_tries: bool,
}

/// Reports steps that are never reached, because one below lets nothing through, and those that would let pass what that
/// one does not.
pub(super) fn check(steps: &[Step], reach: &Reach, diagnostics: &mut Diagnostics) {
    let Some(first) = steps.iter().position(|step| !step.then.passes()) else {
        return;
    };
    let Some((blocking, above)) = steps.get(first..).and_then(<[Step]>::split_first) else {
        return;
    };
    let below = blocking.percent.value;
    for step in above {
        let percent = step.percent.value;
        let (message, hint) = if step.then.passes() {
            let message = format!("the step at {percent}% would let pass what the one at {below}% does not");
            (message, "steps that let pass stand below those that do not")
        } else if let Some(hint) = reach.hint() {
            (format!("the step at {percent}% is never reached: the one at {below}% lets nothing through"), hint)
        } else {
            continue;
        };
        diagnostics.push(Diagnostic::error(step.percent.place.clone(), message).hint(hint));
    }
}

impl Reach {
    /// What to do, so that a step above one that lets nothing through is reached; `None` if it is.
    const fn hint(&self) -> Option<&'static str> {
        match (self.leaps || (self.counts_refused && !self.blocks), self.counts_refused, self.has_tries) {
            (true, _, _) => None,
            (false, true, _) => Some("leave one of them out, or `block_for`: while a block lasts nothing is counted"),
            (false, false, true) => Some("leave one of them out, or count what is refused, too: charge = \"attempts\""),
            (false, false, false) => Some("leave one of them out: connections that are refused are not counted on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_limit_is_whole_percents() {
        assert_eq!(["1%", "150%", "150 %", "10000%"].map(percent), [Some(1), Some(150), Some(150), Some(10_000)]);
        for bad in ["", "%", "0%", "150", "1.5%", "-5%", "+5%", "10001%", "99999999999%", "x%", " 5%"] {
            assert_eq!(percent(bad), None, "{bad}");
        }
    }
}
