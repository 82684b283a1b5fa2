//! What follows at each step of a limit, and how `check` says it.

use crate::config;
use crate::config::Diagnostic;
use crate::config::StepAction;
use crate::config::Template;
use crate::config::scaled;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::policy::compile::Compiler;
use crate::policy::compile::aspect::Aspect;
use crate::policy::compile::questions::Questions;
use crate::policy::defaults;
use crate::policy::defaults::Case;
use crate::policy::limit::Row;
use crate::policy::lint;
use crate::policy::lint::Known;
use crate::policy::lint::Spoken;
use crate::policy::outline::StepOutline;
use crate::policy::plan::Outcome;
use crate::policy::plan::Refuse;
use crate::policy::step::Passing;
use crate::reply::Class;

/// The steps of a rule's limit, the lowest first.
pub(super) fn steps(rule: &config::Rule) -> &[config::Step] {
    rule.limit.as_ref().map_or(&[], |limit| &limit.steps)
}

/// What the steps of a rule do, each once, for metrics.
pub(super) fn actions(rule: &config::Rule) -> Vec<&'static str> {
    let mut actions: Vec<_> = steps(rule).iter().map(|step| action(&step.then)).collect();
    actions.sort_unstable();
    actions.dedup();
    actions
}

/// The reply of the first step that has one of its own.
pub(super) fn first_reply(rule: &config::Rule) -> Option<&config::At<config::ReplyTemplate>> {
    steps(rule).iter().find_map(|step| match &step.then {
        StepAction::Reply(reply) => Some(reply),
        StepAction::Defer | StepAction::Monitor | StepAction::Quarantine | StepAction::Refuse => None,
    })
}

const fn action(then: &StepAction) -> &'static str {
    match then {
        StepAction::Defer => "defer",
        StepAction::Monitor => "monitor",
        StepAction::Quarantine => "quarantine",
        StepAction::Refuse => "refuse",
        StepAction::Reply(reply) => match reply.value.status.class() {
            Class::Permanent => "refuse",
            Class::Transient => "defer",
        },
    }
}

/// What `check` says of them.
pub(super) fn outlines(rule: &config::Rule, outcomes: &[Outcome]) -> Vec<StepOutline> {
    let outline = |(step, outcome): (&config::Step, &Outcome)| {
        let reply = match outcome {
            Outcome::Refuse(refuse) => Some((refuse.status, refuse.text.to_string())),
            Outcome::Accept | Outcome::AddHeader(_) | Outcome::Discard | Outcome::Pass(_) | Outcome::Quarantine => None,
        };
        StepOutline { percent: step.percent.value, action: action(&step.then), reply }
    };
    steps(rule).iter().zip(outcomes).map(outline).collect()
}

impl Compiler<'_> {
    /// What follows at each step, where the rule speaks.
    pub(super) fn step_outcomes(
        &mut self,
        rule: &config::Rule,
        questions: &Questions<'_>,
        aspect: Aspect,
        known: Known,
        notes: &mut Vec<String>,
    ) -> Vec<Outcome> {
        let case = Case::of(&questions.topic(), aspect.measure);
        let mut outcomes = Vec::new();
        for step in steps(rule) {
            if let Some(passing) = Passing::of(&step.then) {
                outcomes.push(Outcome::Pass(passing));
                continue;
            }
            let default =
                if matches!(step.then, StepAction::Refuse) { defaults::FAR_OVER } else { case.reply(known.stage) };
            let text: Template = default.text.parse().unwrap_or_default();
            let mut refuse = Refuse { status: default.status, text, is_default: true };
            if let StepAction::Reply(reply) = &step.then {
                let asks_recipient = questions.asks(Fact::Recipient) || questions.asks(Fact::OverQuota);
                let (disconnect, asks_disk) = (rule.disconnect, questions.asks(Fact::DiskFree));
                let is_step = true;
                self.linter(rule).reply(&Spoken { reply, disconnect, case, asks_recipient, asks_disk, is_step, known });
                refuse.status = reply.value.status;
                refuse.is_default = reply.value.text.is_empty();
                if !refuse.is_default {
                    refuse.text = reply.value.text.clone();
                }
            }
            let note = lint::rewriting(refuse.status, known.stage).map(str::to_owned);
            if let Some(note) = note.filter(|note| !notes.contains(note)) {
                notes.push(note);
            }
            outcomes.push(Outcome::Refuse(refuse));
        }
        outcomes
    }

    /// A part of a bound is rounded down, and may be nothing: then everything is above the step.
    pub(super) fn report_empty_steps(&mut self, limit: &config::Limit, rows: &[Row]) {
        for step in &limit.steps {
            let percent = step.percent.value;
            let bounds = rows.iter().flat_map(|row| row.rates.iter().map(|rate| rate.amount).chain(row.concurrent));
            let mut too_small = bounds.filter(|bound| *bound > 0 && scaled(*bound, percent) == 0);
            if let Some(bound) = too_small.next() {
                let message = format!("{percent}% of {bound} is 0: everything is above this step");
                let hint = format!("take at least {}%, or a larger bound", 100_u64.div_ceil(bound));
                self.diagnostics.push(Diagnostic::error(step.percent.place.clone(), message).hint(hint));
            }
        }
    }

    /// Before MAIL there is no message that could be put on hold, and nothing to go on with.
    pub(super) fn not_before_mail(rule: &config::Rule, answered: Stage, notes: &mut Vec<String>) -> Stage {
        if steps(rule).is_empty() || answered >= Stage::Mail {
            return answered;
        }
        notes.push(format!("waits until {}: a step may let pass", Stage::Mail));
        Stage::Mail
    }
}
