//! Configuration to policy: which rule is judged at which stage, and whether everything fits together.
//!
//! A rule's *natural stage* is the first at which all its facts are known. Reading top to bottom stays true because a rule
//! below one that may exempt (accept, discard, quarantine) is judged no earlier than that one; a refusal needs no such
//! delay, since any refusal refuses. Past this module nothing about a rule can fail.

mod aspect;
mod notifiers;
mod questions;
mod references;
mod steps;
mod tries;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Policy;
use super::Rule;
use super::condition::Condition;
use super::defaults::Case;
use super::limit::Counter;
use super::limit::Limit;
use super::limit::Measure;
use super::limit::Row;
use super::lint;
use super::lint::Known;
use super::lint::Linter;
use super::lint::Spoken;
use super::needs::Needs;
use super::outline::Outline;
use super::plan::Outcome;
use super::plan::Plan;
use super::plan::Purpose;
use super::plan::Refuse;
use super::plan::Test;
use super::step::Levels;
use crate::config;
use crate::config::Action;
use crate::config::Allowance;
use crate::config::Allowances;
use crate::config::At;
use crate::config::Charge;
use crate::config::Config;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::Mode;
use crate::config::Notice;
use crate::config::Rate;
use crate::config::Template;
use crate::facts::Fact;
use crate::facts::Stage;
use aspect::Aspect;
use aspect::aspects;
use aspect::counted;
use aspect::counts_recipients;
use aspect::rates;
use notifiers::Notifiers;
use questions::Questions;
use references::References;

impl Policy {
    /// Builds the policy that `config` describes, or says all that is wrong with it.
    ///
    /// `None` exactly when the diagnostics have an error, be it one found earlier.
    #[must_use]
    pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut compiler = Compiler::new(config, diagnostics);
        for (index, rule) in config.rules.iter().enumerate() {
            compiler.rule(index, rule);
        }
        for dropped in &config.dropped {
            compiler.dropped(dropped);
        }
        compiler.references.report_unused_lists(compiler.diagnostics);
        compiler.references.report_useless_overrides(compiler.diagnostics);
        compiler.notifiers.report_unused(compiler.diagnostics);
        let policy = compiler.finish();
        (!diagnostics.has_errors()).then_some(policy)
    }
}

/// A policy in the making.
struct Compiler<'a> {
    config: &'a Config,
    diagnostics: &'a mut Diagnostics,
    references: References<'a>,
    notifiers: Notifiers<'a>,
    counters: Vec<Counter>,
    /// The tests of each stage.
    plans: Vec<Vec<Test>>,
    outlines: Vec<Outline>,
    /// No rule from here on is judged earlier: the latest stage of the exempting rules so far, and the rule that set it.
    barrier: (Stage, String),
    /// Exempting tests that are known at CONNECT or HELO: needed there if something is counted or answered there.
    early_exemptions: Vec<(Stage, Test)>,
    /// The rule that always decides, so that nothing below it is ever reached.
    unconditional: Option<String>,
    asks_true_size: bool,
    /// The notices that the rule being compiled gives, or would give.
    given: BTreeSet<Notice>,
}

impl<'a> Compiler<'a> {
    fn new(config: &'a Config, diagnostics: &'a mut Diagnostics) -> Self {
        Self {
            config,
            references: References::new(config),
            notifiers: Notifiers::new(config),
            diagnostics,
            counters: Vec::new(),
            plans: Stage::ALL.iter().map(|_| Vec::new()).collect(),
            outlines: Vec::new(),
            barrier: (Stage::Connect, String::new()),
            early_exemptions: Vec::new(),
            unconditional: None,
            asks_true_size: false,
            given: BTreeSet::new(),
        }
    }

    /// Looks for what a rule names that is of no other use.
    fn dropped(&mut self, rule: &'a config::Dropped) {
        for condition in &rule.conditions {
            self.references.look_for_lists(condition, self.diagnostics);
        }
        if let Some(name) = &rule.overrides {
            self.references.look_for_overrides(name, self.diagnostics);
        }
        self.notifiers.look_for(&rule.notify, self.diagnostics);
    }

    fn rule(&mut self, index: usize, rule: &'a config::Rule) {
        self.check_rule(rule);
        let condition = Arc::new(self.references.condition(rule, self.diagnostics));
        let questions = Questions::of(rule);
        let exempts = matches!(rule.action, Action::Accept | Action::Discard | Action::Quarantine);
        let mut aspects = aspects(rule, &questions, self.barrier.0);
        let mut latest = self.barrier.0;
        aspects.sort_by_key(|aspect| aspect.natural);
        for aspect in aspects {
            let judged = aspect.natural.max(self.barrier.0);
            latest = latest.max(judged);
            self.aspect(index, rule, &condition, &questions, aspect, judged);
        }
        self.count_tries(index, rule, &condition, &questions);
        self.linter(rule).demands(rule);
        self.linter(rule).finish();
        self.given.clear();
        if exempts && rule.mode == Mode::Enforce && latest > self.barrier.0 {
            self.barrier = (latest, rule.name.value.clone());
        }
        let always = questions.list.is_empty() && rule.unless.is_none() && rule.limit.is_none();
        let decides = !matches!(rule.action, Action::AddHeader(_)) && rule.mode == Mode::Enforce;
        if always && decides && self.unconditional.is_none() {
            self.unconditional = Some(rule.name.value.clone());
        }
    }

    fn check_rule(&mut self, rule: &'a config::Rule) {
        let name = &rule.name;
        if let Some(above) = &self.unconditional {
            let message = format!("this rule can never be reached: `{above}` above it always decides");
            self.diagnostics.push(Diagnostic::error(name.place.clone(), message));
        }
        if let (Some(limit), Action::Accept) = (&rule.limit, &rule.action) {
            let message = "a limit that accepts what exceeds it is none";
            let hint = "give it a `reply`, or leave the action out for the default one";
            self.diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
        }
        if let Some(limit) = &rule.limit {
            self.references.check_overrides(limit, self.diagnostics);
        }
        self.notifiers.look_for(&rule.notify, self.diagnostics);
        if let (Some(at), false) = (&rule.at, matches!(rule.action, Action::Refuse(_))) {
            let message = "`at` says when a refusal is spoken; this rule refuses nothing";
            self.diagnostics.push(Diagnostic::error(at.place.clone(), message));
        }
        if let Some(at) = rule.at.as_ref().filter(|at| at.value < Stage::Mail && !steps::steps(rule).is_empty()) {
            let message = "steps cannot speak at CONNECT: what they let pass is a message";
            self.diagnostics
                .push(Diagnostic::error(at.place.clone(), message).hint("use at = \"mail\", or leave it out"));
        }
    }

    /// Puts one judgement of a rule into the plans.
    fn aspect(
        &mut self,
        index: usize,
        rule: &'a config::Rule,
        condition: &Arc<Condition>,
        questions: &Questions<'a>,
        aspect: Aspect,
        judged: Stage,
    ) {
        let mut notes = Vec::new();
        if judged > aspect.natural {
            notes.push(format!(
                "judged later than known: `{}` above may exempt, and is judged at {judged}",
                self.barrier.1
            ));
        }
        if aspect.declared {
            notes.push("by the declared size (SIZE= of MAIL); the true size is judged at the end again".to_owned());
        }
        let is_first = aspect.measure.is_none_or(|measure| self.known_counter(rule, measure).is_none());
        if is_first && aspect.measure == Some(Measure::BadRecipients) {
            notes.push(
                "every recipient is counted at rcpt, also those that the MTA shows because it refuses them".to_owned(),
            );
        }
        let of_recipient =
            questions.of_recipient() || rule.limit.as_ref().is_some_and(|limit| counts_recipients(limit, aspect));
        let answered = match &rule.action {
            Action::Refuse(reply) => {
                let reply = reply.as_ref().or_else(|| steps::first_reply(rule));
                let stage = self.answer_stage(rule, reply, aspect, judged, &mut notes);
                Self::not_before_mail(rule, stage, &mut notes)
            }
            Action::Accept | Action::AddHeader(_) | Action::Discard | Action::Quarantine => judged.max(Stage::Mail),
        };
        let known = Known {
            stage: answered,
            recipient: of_recipient || answered == Stage::Rcpt,
            limit: rule.limit.is_some(),
            size_bound: questions.size_bound().is_some(),
            list: questions.names_values(),
        };
        let outcome = self.outcome(rule, questions, aspect, known);
        let steps = self.step_outcomes(rule, questions, aspect, known, &mut notes);
        if let Outcome::Refuse(refuse) = &outcome
            && steps.is_empty()
        {
            notes.extend(lint::rewriting(refuse.status, answered).map(str::to_owned));
        }
        self.outline(rule, questions, aspect, (judged, answered), (&outcome, &steps), notes);
        self.asks_true_size |= answered == Stage::EndOfMessage && questions.asks(Fact::Size);
        let steps: Arc<[Outcome]> = steps.into();
        let limit = aspect.measure.zip(rule.limit.as_ref());
        let limit = limit.map(|(measure, limit)| self.limit(rule, limit, measure));
        let test = |purpose, limit| Test {
            rule: index,
            condition: Arc::clone(condition),
            limit,
            of_recipient,
            outcome: outcome.clone(),
            steps: Arc::clone(&steps),
            purpose,
            size_bound: questions.size_bound(),
        };
        let copy = || limit.clone();
        let is_early = judged < Stage::Mail && answered >= Stage::Mail;
        if is_early && aspect.measure.is_some_and(Measure::is_of_connection) {
            self.early(judged, test(Purpose::Count, copy()));
        }
        if is_early && matches!(outcome, Outcome::Accept | Outcome::Discard | Outcome::Quarantine) {
            self.early_exemptions.push((judged, test(Purpose::Exempt, copy())));
        }
        let decide = test(Purpose::Decide, limit);
        if self.is_judged_there_already(&decide, answered) {
            return;
        }
        if answered < Stage::Mail { self.early(answered, decide) } else { self.put(answered, decide) }
    }

    /// By the declared size and by the true one at the same stage is once.
    fn is_judged_there_already(&self, test: &Test, stage: Stage) -> bool {
        let measure = |test: &Test| test.limit.as_ref().map(|limit| limit.measure);
        let before = self.plans.get(stage as usize).into_iter().flatten().rev();
        // What exempts from it may stand between.
        let mut of_rule = before.take_while(|before| before.rule == test.rule || before.purpose == Purpose::Exempt);
        of_rule.any(|before| {
            before.rule == test.rule && before.purpose == test.purpose && measure(before) == measure(test)
        })
    }

    /// Something is counted or answered before MAIL: now the exemptions above it are needed there, too.
    fn early(&mut self, stage: Stage, test: Test) {
        let needed = self.early_exemptions.extract_if(.., |(known, _)| *known <= stage);
        let needed: Vec<Test> = needed.map(|(_, test)| test).collect();
        needed.into_iter().for_each(|exemption| self.put(stage, exemption));
        self.put(stage, test);
    }

    fn put(&mut self, stage: Stage, test: Test) {
        if let Some(plan) = self.plans.get_mut(stage as usize) {
            plan.push(test);
        }
    }

    /// When a refusal is spoken: not before it is judged, not before `answer_at` or the rule's own `at`; and never at HELO,
    /// which Postfix answers 250 whatever a milter says.
    fn answer_stage(
        &mut self,
        rule: &config::Rule,
        reply: Option<&At<config::ReplyTemplate>>,
        aspect: Aspect,
        judged: Stage,
        notes: &mut Vec<String>,
    ) -> Stage {
        let default = Case::of(&Questions::of(rule).topic(), aspect.measure).reply(judged).status;
        let status = reply.map_or(default, |reply| reply.value.status);
        let survives = lint::survives_connect(status);
        match &rule.at {
            Some(at) if at.value < judged => {
                self.answers_too_early(rule, at, aspect, judged);
                judged
            }
            Some(at) if at.value == Stage::Connect && !survives => {
                let message =
                    format!("the client would not see {status} at CONNECT: MTAs greet with a text of their own");
                let hint = "only 421 (with `disconnect = true`) and 554 mean there what they say; or use at = \"mail\"";
                self.diagnostics.push(Diagnostic::error(at.place.clone(), message).hint(hint));
                Stage::Mail
            }
            Some(at) => {
                if at.value > judged {
                    notes.push(format!("waits until {0}: at = \"{0}\"", at.value));
                }
                at.value
            }
            None => {
                let earliest = self.config.policy.answer_at;
                let earliest = if earliest == Stage::Connect && !survives { Stage::Mail } else { earliest };
                let stage = if judged <= Stage::Connect { earliest } else { judged.max(earliest).max(Stage::Mail) };
                if stage > judged {
                    notes.push(format!("waits until {stage}: no refusal is spoken earlier"));
                }
                stage
            }
        }
    }

    fn answers_too_early(&mut self, rule: &config::Rule, at: &At<Stage>, aspect: Aspect, judged: Stage) {
        let name = &rule.name.value;
        let diagnostic = if aspect.natural > at.value {
            let natural = aspect.natural;
            let message = format!("`{name}` cannot answer at {}: what it asks is known at {natural}", at.value);
            Diagnostic::error(at.place.clone(), message)
        } else {
            let above = &self.barrier.1;
            let message = format!(
                "`{name}` cannot answer at {}: `{above}` above it may exempt, and is judged at {judged}",
                at.value
            );
            Diagnostic::error(at.place.clone(), message)
                .hint(format!("put `{name}` above `{above}`, or leave `at` out"))
        };
        self.diagnostics.push(diagnostic);
    }

    fn outcome(&mut self, rule: &config::Rule, questions: &Questions<'_>, aspect: Aspect, known: Known) -> Outcome {
        match &rule.action {
            Action::Accept => Outcome::Accept,
            Action::Discard => Outcome::Discard,
            Action::Quarantine => Outcome::Quarantine,
            Action::AddHeader(field) => {
                self.linter(rule).text(&field.value.value, &field.place, known);
                Outcome::AddHeader(field.value.clone())
            }
            Action::Refuse(reply) => {
                let case = Case::of(&questions.topic(), aspect.measure);
                let default = case.reply(known.stage);
                let text: Template = default.text.parse().unwrap_or_default();
                let Some(reply) = reply else {
                    return Outcome::Refuse(Refuse { status: default.status, text, is_default: true });
                };
                self.linter(rule).reply(&Spoken {
                    reply,
                    disconnect: rule.disconnect,
                    case,
                    asks_recipient: questions.asks(Fact::Recipient) || questions.asks(Fact::OverQuota),
                    asks_disk: questions.asks(Fact::DiskFree),
                    is_step: false,
                    known,
                });
                let written = &reply.value.text;
                let is_default = written.is_empty();
                let text = if is_default { text } else { written.clone() };
                Outcome::Refuse(Refuse { status: reply.value.status, text, is_default })
            }
        }
    }

    fn linter<'b>(&'b mut self, rule: &'b config::Rule) -> Linter<'b> {
        Linter::new(rule, &mut self.given, self.diagnostics)
    }

    fn outline(
        &mut self,
        rule: &config::Rule,
        questions: &Questions<'_>,
        aspect: Aspect,
        (judged, answered): (Stage, Stage),
        (outcome, steps): (&Outcome, &[Outcome]),
        notes: Vec<String>,
    ) {
        let reply = match outcome {
            Outcome::Refuse(refuse) if steps.is_empty() => Some((refuse.status, refuse.text.to_string())),
            Outcome::Accept | Outcome::AddHeader(_) | Outcome::Discard | Outcome::Pass(_) | Outcome::Quarantine => None,
            Outcome::Refuse(_) => None,
        };
        let has_effect_at_end = matches!(outcome, Outcome::AddHeader(_) | Outcome::Discard | Outcome::Quarantine);
        self.outlines.push(Outline {
            rule: rule.name.value.clone(),
            action: action_name(rule),
            mode: rule.mode,
            facts: questions.facts(),
            counts: aspect.measure.zip(rule.limit.as_ref()).map(|(measure, limit)| counted(limit, measure)),
            natural: aspect.natural,
            judged: if aspect.is_counted_early(judged) { judged } else { answered.max(judged) },
            answered: if has_effect_at_end { Stage::EndOfMessage } else { answered },
            reply,
            steps: steps::outlines(rule, steps),
            notes,
        });
    }

    fn limit(&mut self, rule: &config::Rule, limit: &config::Limit, measure: Measure) -> Limit {
        Limit {
            counter: self.counter(rule, limit, measure),
            measure,
            key: limit.key.clone(),
            of: limit.of.clone(),
            overrides: limit.overrides.as_ref().and_then(|name| self.references.overrides(name)),
            charge: limit.charge,
            tries: false,
        }
    }

    fn counter(&mut self, rule: &config::Rule, limit: &config::Limit, measure: Measure) -> usize {
        self.known_counter(rule, measure).unwrap_or_else(|| {
            let default = Row {
                whose: None,
                rates: rates(limit, measure).to_vec(),
                shares: if measure == Measure::BadRecipients { limit.bad_recipients.clone() } else { Vec::new() },
                concurrent: limit.concurrent.filter(|_| measure == Measure::Concurrent),
            };
            let own = limit.overrides.as_ref().map(|name| self.references.allowances(name)).unwrap_or_default();
            let own = own.iter().map(|written| Row {
                whose: Some(written.key.value.as_str().into()),
                ..row(&default, &written.allowances, measure)
            });
            let rows: Vec<_> = [default.clone()].into_iter().chain(own).collect();
            self.report_empty_steps(limit, &rows);
            let (key, rule) = (limit.key.clone(), rule.name.value.clone());
            let (block_for, max_keys) = (limit.block_for, limit.max_keys);
            let (of, charge) = (limit.of.clone(), limit.charge);
            let levels = Levels::new(limit, charge == Charge::Attempts && !measure.is_of_connection());
            self.counters.push(Counter { measure, rows, block_for, max_keys, of, charge, key, rule, levels });
            self.counters.len() - 1
        })
    }

    /// The counter that the rule being compiled has got already; what it has stands at the end.
    fn known_counter(&self, rule: &config::Rule, measure: Measure) -> Option<usize> {
        let counters = self.counters.iter().enumerate().rev();
        let mut of_rule = counters.take_while(|(_, counter)| counter.rule == rule.name.value);
        of_rule.find(|(_, counter)| counter.measure == measure).map(|(number, _)| number)
    }

    fn finish(self) -> Policy {
        let rules: Vec<Rule> = self
            .config
            .rules
            .iter()
            .map(|rule| Rule {
                name: rule.name.value.clone(),
                action: action_name(rule),
                mode: rule.mode,
                steps: steps::actions(rule),
                notify: rule.notify.iter().map(|name| name.value.clone()).collect(),
            })
            .collect();
        let mode = self.config.policy.mode;
        let monitored = |rule: usize| rules.get(rule).is_some_and(|rule| rule.mode == Mode::Monitor);
        let needs = Needs::of(&self.plans, self.asks_true_size, mode, monitored);
        let (lists, index) = self.references.lists.finish();
        Policy {
            plans: self.plans.into_iter().map(Plan::new).collect(),
            lists,
            index,
            counters: self.counters,
            paths: self.references.paths,
            outlines: self.outlines,
            needs,
            mode,
            on_error: self.config.server.on_error,
            rules,
            notifiers: self.config.notify.iter().map(|notify| notify.name.value.clone()).collect(),
        }
    }
}

/// The bounds of an override for one measure; where it says nothing of it, those of all.
fn row(default: &Row, own: &Allowances, measure: Measure) -> Row {
    let allowance = match measure {
        Measure::BadRecipients => &own.bad_recipients,
        Measure::Bytes => &own.bytes,
        Measure::Concurrent => &own.concurrent,
        Measure::Connections => &own.connections,
        Measure::Distinct => &own.distinct,
        Measure::Messages => &own.messages,
        Measure::Recipients => &own.recipients,
    };
    match allowance {
        None => default.clone(),
        Some(Allowance::Unlimited) => Row::default(),
        Some(Allowance::AtOnce(most)) => Row { concurrent: Some(*most), ..Row::default() },
        Some(Allowance::Nothing) if measure == Measure::Concurrent => Row { concurrent: Some(0), ..Row::default() },
        Some(Allowance::Nothing) => Row { rates: vec![Rate { amount: 0, per: A_DAY }], ..Row::default() },
        Some(Allowance::Shares(shares)) => Row { shares: shares.clone(), ..Row::default() },
        Some(Allowance::Rates(rates)) => Row { rates: rates.clone(), ..Row::default() },
    }
}

/// For how long nothing is allowed to those who may do nothing: it begins anew with every try.
const A_DAY: Duration = Duration::from_secs(86_400);

fn action_name(rule: &config::Rule) -> &'static str {
    match rule.action {
        Action::Refuse(_) if !steps::steps(rule).is_empty() => "steps",
        Action::Accept => "accept",
        Action::AddHeader(_) => "add_header",
        Action::Discard => "discard",
        Action::Quarantine => "quarantine",
        Action::Refuse(_) => "refuse",
    }
}
