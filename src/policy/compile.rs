//! Configuration to policy: which rule is judged at which stage, and whether everything fits together.
//!
//! A rule's *natural stage* is the first at which all its facts are known. Reading top to bottom stays true because a rule
//! below one that may exempt (accept, discard, quarantine) is judged no earlier than that one; a refusal needs no such
//! delay, since any refusal refuses. Past this module nothing about a rule can fail.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Policy;
use super::Rule;
use super::condition::Condition;
use super::condition::Question;
use super::defaults;
use super::defaults::Topic;
use super::limit::Counter;
use super::limit::Limit;
use super::limit::Measure;
use super::limit::key_stage;
use super::list::List;
use super::needs::Needs;
use super::outline::Outline;
use super::plan::Outcome;
use super::plan::Plan;
use super::plan::Purpose;
use super::plan::Refuse;
use super::plan::Test;
use super::replies;
use crate::config;
use crate::config::Action;
use crate::config::At;
use crate::config::Config;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::KeyPart;
use crate::config::Mode;
use crate::config::Size;
use crate::config::Template;
use crate::facts::Fact;
use crate::facts::Stage;

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
        compiler.report_unused_lists();
        let policy = compiler.finish();
        (!diagnostics.has_errors()).then_some(policy)
    }
}

/// A policy in the making.
struct Compiler<'a> {
    config: &'a Config,
    diagnostics: &'a mut Diagnostics,
    lists: Vec<List>,
    /// Index and use of each named list.
    named: HashMap<&'a str, (usize, bool)>,
    counters: Vec<Counter>,
    paths: Vec<PathBuf>,
    plans: Vec<Plan>,
    outlines: Vec<Outline>,
    /// No rule from here on is judged earlier: the latest stage of the exempting rules so far, and the rule that set it.
    barrier: (Stage, String),
    /// Exempting tests that are known at CONNECT or HELO: needed there if something is counted or answered there.
    early_exemptions: Vec<(Stage, Test)>,
    /// The rule that always decides, so that nothing below it is ever reached.
    unconditional: Option<String>,
    asks_true_size: bool,
}

/// One way in which a rule is judged, before it is put in a plan.
#[derive(Clone, Copy)]
struct Aspect {
    measure: Option<Measure>,
    natural: Stage,
    /// Judged by the declared size, at or after MAIL.
    declared: bool,
}

impl<'a> Compiler<'a> {
    fn new(config: &'a Config, diagnostics: &'a mut Diagnostics) -> Self {
        let mut named: HashMap<&str, (usize, bool)> = HashMap::new();
        for (index, list) in config.lists.iter().enumerate() {
            if named.insert(&list.name.value, (index, false)).is_some() {
                let message = format!("list `{}` stands in another file already", list.name.value);
                diagnostics.push(Diagnostic::error(list.name.place.clone(), message));
            }
        }
        Self {
            config,
            diagnostics,
            lists: config.lists.iter().map(List::new).collect(),
            named,
            counters: Vec::new(),
            paths: Vec::new(),
            plans: Stage::ALL.iter().map(|_| Plan::new()).collect(),
            outlines: Vec::new(),
            barrier: (Stage::Connect, String::new()),
            early_exemptions: Vec::new(),
            unconditional: None,
            asks_true_size: false,
        }
    }

    fn rule(&mut self, index: usize, rule: &'a config::Rule) {
        self.check_rule(index, rule);
        let condition = Arc::new(self.condition(rule));
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
        if exempts && rule.mode == Mode::Enforce && latest > self.barrier.0 {
            self.barrier = (latest, rule.name.value.clone());
        }
        let always = questions.list.is_empty() && rule.unless.is_none() && rule.limit.is_none();
        let decides = !matches!(rule.action, Action::AddHeader(_)) && rule.mode == Mode::Enforce;
        if always && decides && self.unconditional.is_none() {
            self.unconditional = Some(rule.name.value.clone());
        }
    }

    fn check_rule(&mut self, index: usize, rule: &config::Rule) {
        let name = &rule.name;
        if self.config.rules.iter().take(index).any(|above| above.name.value == name.value) {
            let message = format!("there is another rule `{}` above", name.value);
            self.diagnostics.push(Diagnostic::error(name.place.clone(), message));
        }
        if let Some(above) = &self.unconditional {
            let message = format!("this rule can never be reached: `{above}` above it always decides");
            self.diagnostics.push(Diagnostic::error(name.place.clone(), message));
        }
        if let (Some(limit), Action::Accept) = (&rule.limit, &rule.action) {
            let message = "a limit that accepts what exceeds it is none";
            let hint = "give it a `reply`, or leave the action out for the default one";
            self.diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
        }
        if let (Some(at), false) = (&rule.at, matches!(rule.action, Action::Refuse(_))) {
            let message = "`at` says when a refusal is spoken; this rule refuses nothing";
            self.diagnostics.push(Diagnostic::error(at.place.clone(), message));
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
        let of_recipient =
            questions.of_recipient() || rule.limit.as_ref().is_some_and(|limit| counts_recipients(limit, aspect));
        let answered = match &rule.action {
            Action::Refuse(reply) => self.answer_stage(rule, reply.as_ref(), aspect, judged, &mut notes),
            Action::Accept | Action::AddHeader(_) | Action::Discard | Action::Quarantine => judged.max(Stage::Mail),
        };
        let outcome = self.outcome(rule, questions, aspect, answered, of_recipient);
        self.outline(rule, questions, aspect, (judged, answered), &outcome, notes);
        self.asks_true_size |= answered == Stage::EndOfMessage && questions.asks(Fact::Size);
        let limit = aspect.measure.zip(rule.limit.as_ref()).map(|(measure, limit)| Limit {
            counter: self.counter(rule, limit, measure),
            measure,
            key: limit.key.clone(),
        });
        let test = |purpose, limit| Test {
            rule: index,
            condition: Arc::clone(condition),
            limit,
            of_recipient,
            outcome: outcome.clone(),
            purpose,
            size_bound: questions.size_bound(),
        };
        let copy = || limit.as_ref().map(|limit| Limit { key: limit.key.clone(), ..*limit });
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
        let mut before = self.plans.get(stage as usize).into_iter().flatten();
        before.any(|before| {
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
        let default = defaults::refusal(&Questions::of(rule).topic(), aspect.measure, judged).status;
        let status = reply.map_or(default, |reply| reply.value.status);
        let survives = replies::survives_connect(status);
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
                if at.value == Stage::Connect {
                    notes.push("at CONNECT the MTA keeps the code, but may put its own text".to_owned());
                } else if at.value > judged {
                    notes.push(format!("spoken later than judged: at = \"{}\"", at.value));
                }
                at.value
            }
            None => {
                let earliest = self.config.policy.answer_at;
                let earliest = if earliest == Stage::Connect && !survives { Stage::Mail } else { earliest };
                let stage = if judged <= Stage::Connect { earliest } else { judged.max(earliest).max(Stage::Mail) };
                if stage > judged {
                    notes.push(format!("spoken later than judged: no refusal is spoken before {stage}"));
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

    fn outcome(
        &mut self,
        rule: &config::Rule,
        questions: &Questions<'_>,
        aspect: Aspect,
        answered: Stage,
        of_recipient: bool,
    ) -> Outcome {
        let known = replies::Known {
            stage: answered,
            recipient: of_recipient || answered == Stage::Rcpt,
            limit: rule.limit.is_some(),
            size_bound: questions.size_bound().is_some(),
            list: questions.names_values(),
        };
        match &rule.action {
            Action::Accept => Outcome::Accept,
            Action::Discard => Outcome::Discard,
            Action::Quarantine => Outcome::Quarantine,
            Action::AddHeader(field) => {
                replies::check_text(&field.value.value, &field.place, known, self.diagnostics);
                Outcome::AddHeader(field.value.clone())
            }
            Action::Refuse(reply) => {
                let default = defaults::refusal(&questions.topic(), aspect.measure, answered);
                let text: Template = default.text.parse().unwrap_or_default();
                let Some(reply) = reply else {
                    return Outcome::Refuse(Refuse { status: default.status, text });
                };
                replies::check_status(reply, rule.disconnect, known, self.diagnostics);
                replies::check_text(&reply.value.text, &reply.place, known, self.diagnostics);
                let written = &reply.value.text;
                let text = if written.is_empty() { text } else { written.clone() };
                Outcome::Refuse(Refuse { status: reply.value.status, text })
            }
        }
    }

    fn outline(
        &mut self,
        rule: &config::Rule,
        questions: &Questions<'_>,
        aspect: Aspect,
        (judged, answered): (Stage, Stage),
        outcome: &Outcome,
        notes: Vec<String>,
    ) {
        let shown = |template: &Template| replies::show(template);
        let reply = match outcome {
            Outcome::Refuse(refuse) => Some((refuse.status, shown(&refuse.text))),
            Outcome::Accept | Outcome::AddHeader(_) | Outcome::Discard | Outcome::Quarantine => None,
        };
        let has_effect_at_end = matches!(outcome, Outcome::AddHeader(_) | Outcome::Discard | Outcome::Quarantine);
        self.outlines.push(Outline {
            rule: rule.name.value.clone(),
            action: action_name(&rule.action),
            mode: rule.mode,
            facts: questions.facts(),
            counts: aspect.measure.zip(rule.limit.as_ref()).map(|(measure, limit)| counted(limit, measure)),
            natural: aspect.natural,
            judged: if is_counted_early(aspect, judged) { judged } else { answered.max(judged) },
            answered: if has_effect_at_end { Stage::EndOfMessage } else { answered },
            reply,
            notes,
        });
    }

    fn counter(&mut self, rule: &config::Rule, limit: &config::Limit, measure: Measure) -> usize {
        let before = self.counters.iter().position(|c| c.rule == rule.name.value && c.measure == measure);
        before.unwrap_or_else(|| {
            let concurrent = limit.concurrent.filter(|_| measure == Measure::Concurrent);
            let rates = rates(limit, measure).to_vec();
            self.counters.push(Counter { measure, rates, concurrent, rule: rule.name.value.clone() });
            self.counters.len() - 1
        })
    }

    /// `when` and not `unless`, what is cheap first.
    fn condition(&mut self, rule: &'a config::Rule) -> Condition {
        let mut parts = vec![self.compile(&rule.when)];
        if let Some(unless) = &rule.unless {
            parts.push(Condition::Not(Box::new(self.compile(unless))));
        }
        sorted(parts)
    }

    fn compile(&mut self, condition: &'a config::Condition) -> Condition {
        match condition {
            config::Condition::All(parts) => sorted(parts.iter().map(|part| self.compile(part)).collect()),
            config::Condition::Any(parts) => {
                let mut parts: Vec<_> = parts.iter().map(|part| self.compile(part)).collect();
                parts.sort_by_key(Condition::cost);
                Condition::Any(parts)
            }
            config::Condition::Not(part) => Condition::Not(Box::new(self.compile(part))),
            config::Condition::Fact(question) => Condition::Question(self.question(&question.value)),
        }
    }

    fn question(&mut self, question: &'a config::Question) -> Question {
        let fact = question.fact();
        match question {
            config::Question::Authenticated(wanted) => Question::Authenticated(*wanted),
            config::Question::Client(values) => {
                let inline = values.inline.iter().map(|network| (*network, ""));
                Question::Client(self.indices(fact, values, |list| list.add_networks(inline)))
            }
            config::Question::ClientName(values) => Question::ClientName(self.domains(fact, values)),
            config::Question::DiskFree { path, below } => {
                let known = self.paths.iter().position(|known| known == path);
                let path = known.unwrap_or_else(|| {
                    self.paths.push(path.clone());
                    self.paths.len() - 1
                });
                Question::DiskFree { path, below: *below }
            }
            config::Question::Helo(values) => Question::Helo(self.domains(fact, values)),
            config::Question::Listener(names) => Question::Listener(names.clone()),
            config::Question::Login(values) => Question::Login(self.indices(fact, values, |list| {
                values.inline.iter().for_each(|login| list.add_login(login, ""));
            })),
            config::Question::OverQuota(values) => Question::OverQuota(self.addresses(fact, values)),
            config::Question::Port(ports) => Question::Port(ports.clone()),
            config::Question::Recipient(values) => Question::Recipient(self.addresses(fact, values)),
            config::Question::Recipients(comparison) => Question::Recipients(*comparison),
            config::Question::Sender(values) => Question::Sender(self.addresses(fact, values)),
            config::Question::SenderDomain(values) => Question::SenderDomain(self.domains(fact, values)),
            config::Question::SenderLoginMismatch(lists) => {
                let index = lists.iter().filter_map(|name| self.named_list(fact, name)).next();
                Question::SenderLoginMismatch(index.unwrap_or_default())
            }
            config::Question::Size(comparison) => Question::Size(*comparison),
            config::Question::Tls(wanted) => Question::Tls(*wanted),
        }
    }

    fn domains(&mut self, fact: Fact, values: &'a config::Values<config::DomainPattern>) -> Vec<usize> {
        self.indices(fact, values, |list| values.inline.iter().for_each(|pattern| list.add_domain(pattern, "")))
    }

    fn addresses(&mut self, fact: Fact, values: &'a config::Values<config::AddressPattern>) -> Vec<usize> {
        self.indices(fact, values, |list| values.inline.iter().for_each(|pattern| list.add_address(pattern, "")))
    }

    /// The lists named, and one without a name for what is written in place.
    fn indices<T>(&mut self, fact: Fact, values: &'a config::Values<T>, add: impl FnOnce(&mut List)) -> Vec<usize> {
        let mut indices: Vec<usize> = values.lists.iter().filter_map(|name| self.named_list(fact, name)).collect();
        if !values.inline.is_empty() {
            let mut list = List::default();
            add(&mut list);
            self.lists.push(list);
            indices.push(self.lists.len() - 1);
        }
        indices
    }

    fn named_list(&mut self, fact: Fact, name: &At<String>) -> Option<usize> {
        let Some((index, used)) = self.named.get_mut(name.value.as_str()) else {
            let mut names: Vec<&str> = self.named.keys().copied().collect();
            names.sort_unstable();
            let hint = if names.is_empty() {
                "define it: [lists.NAME]".to_owned()
            } else {
                format!("lists: {}", names.join(", "))
            };
            let message = format!("there is no list `{}`", name.value);
            self.diagnostics.push(Diagnostic::error(name.place.clone(), message).hint(hint));
            return None;
        };
        *used = true;
        let list = self.config.lists.get(*index)?;
        let (kind, fits) = match fact {
            Fact::Client => ("networks", !list.networks.is_empty()),
            Fact::ClientName | Fact::Helo | Fact::SenderDomain => ("domains", !list.domains.is_empty()),
            Fact::Login => ("logins", !list.logins.is_empty()),
            Fact::SenderLoginMismatch => ("senders", !list.senders.is_empty()),
            Fact::OverQuota | Fact::Recipient | Fact::Sender => {
                ("addresses or domains", !list.addresses.is_empty() || !list.domains.is_empty())
            }
            Fact::Authenticated
            | Fact::DiskFree
            | Fact::Listener
            | Fact::Port
            | Fact::Recipients
            | Fact::Size
            | Fact::Tls => ("", true),
        };
        if !fits {
            let message = format!("list `{}` has no {kind}, which `{}` needs", name.value, fact.name());
            self.diagnostics.push(Diagnostic::error(name.place.clone(), message));
        }
        Some(*index)
    }

    fn report_unused_lists(&mut self) {
        for list in &self.config.lists {
            if self.named.get(list.name.value.as_str()).is_some_and(|(_, used)| !used) {
                let message = format!("list `{}` is not used by any rule", list.name.value);
                self.diagnostics.push(Diagnostic::warning(list.name.place.clone(), message));
            }
        }
    }

    fn finish(self) -> Policy {
        let rules: Vec<Rule> = self
            .config
            .rules
            .iter()
            .map(|rule| Rule { name: rule.name.value.clone(), action: action_name(&rule.action), mode: rule.mode })
            .collect();
        let mode = self.config.policy.mode;
        let monitored = |rule: usize| rules.get(rule).is_some_and(|rule| rule.mode == Mode::Monitor);
        let needs = Needs::of(&self.plans, self.asks_true_size, mode, monitored);
        Policy {
            plans: self.plans,
            lists: self.lists,
            counters: self.counters,
            paths: self.paths,
            outlines: self.outlines,
            needs,
            mode,
            on_error: self.config.server.on_error,
            rules,
        }
    }
}

/// Connections are counted when they come, whenever it is spoken.
fn is_counted_early(aspect: Aspect, judged: Stage) -> bool {
    judged < Stage::Mail && aspect.measure.is_some_and(Measure::is_of_connection)
}

/// How often and by what a rule is judged.
fn aspects(rule: &config::Rule, questions: &Questions<'_>, barrier: Stage) -> Vec<Aspect> {
    let refuses = matches!(rule.action, Action::Refuse(_));
    let by_declared = refuses && questions.size_is_lower_bound() && barrier < Stage::EndOfMessage;
    let facts = questions.stage();
    let facts_but_size = questions.stage_without_size().max(Stage::Mail);
    let Some(limit) = &rule.limit else {
        let mut aspects = vec![Aspect { measure: None, natural: facts, declared: false }];
        if by_declared {
            aspects.push(Aspect { measure: None, natural: facts_but_size, declared: true });
        }
        return aspects;
    };
    let key = limit.key.iter().map(|part| key_stage(*part)).max().unwrap_or(Stage::Connect);
    let mut aspects = Vec::new();
    for measure in measures(limit) {
        let counted = measure.stage().max(key);
        aspects.push(Aspect { measure: Some(measure), natural: facts.max(counted), declared: false });
        let repeats = measure == Measure::Messages && by_declared;
        if repeats {
            aspects.push(Aspect { measure: Some(measure), natural: facts_but_size.max(counted), declared: true });
        }
        if measure == Measure::Bytes && facts < Stage::EndOfMessage {
            let natural = Stage::EndOfMessage;
            aspects.push(Aspect { measure: Some(measure), natural, declared: false });
        }
    }
    aspects
}

fn measures(limit: &config::Limit) -> Vec<Measure> {
    let all = [Measure::Connections, Measure::Concurrent, Measure::Messages, Measure::Recipients, Measure::Bytes];
    all.into_iter()
        .filter(|measure| match measure {
            Measure::Concurrent => limit.concurrent.is_some(),
            Measure::Bytes | Measure::Connections | Measure::Messages | Measure::Recipients => {
                !rates(limit, *measure).is_empty()
            }
        })
        .collect()
}

fn rates(limit: &config::Limit, measure: Measure) -> &[config::Rate] {
    match measure {
        Measure::Bytes => &limit.bytes,
        Measure::Concurrent => &[],
        Measure::Connections => &limit.connections,
        Measure::Messages => &limit.messages,
        Measure::Recipients => &limit.recipients,
    }
}

/// Whether what is counted differs between recipients.
fn counts_recipients(limit: &config::Limit, aspect: Aspect) -> bool {
    let in_key = limit.key.iter().any(|part| matches!(part, KeyPart::Recipient | KeyPart::RecipientDomain));
    in_key || aspect.measure == Some(Measure::Recipients)
}

/// A limit as a sentence.
fn counted(limit: &config::Limit, measure: Measure) -> String {
    let bounds: Vec<String> = match measure {
        Measure::Concurrent => vec![format!("at most {} connections at once", limit.concurrent.unwrap_or_default())],
        Measure::Bytes => {
            let shown =
                |rate: &config::Rate| format!("at most {} in any {}", Size(rate.amount), config::Span(rate.per));
            limit.bytes.iter().map(shown).collect()
        }
        Measure::Connections | Measure::Messages | Measure::Recipients => {
            let name = measure.name();
            let shown =
                |rate: &config::Rate| format!("at most {} {name} in any {}", rate.amount, config::Span(rate.per));
            rates(limit, measure).iter().map(shown).collect()
        }
    };
    let parts: Vec<String> = limit.key.iter().map(|part| key_name(*part)).collect();
    let key = if parts.is_empty() { "in all".to_owned() } else { format!("for each {}", parts.join(" and ")) };
    format!("{} {key}", bounds.join(" and "))
}

fn key_name(part: KeyPart) -> String {
    let name = match part {
        KeyPart::Client { v4: 32, v6: 128 } => "client",
        KeyPart::Client { v4, v6 } => return format!("client network (/{v4} for IPv4, /{v6} for IPv6)"),
        KeyPart::Helo => "HELO name",
        KeyPart::Listener => "listener",
        KeyPart::Login => "login",
        KeyPart::Recipient => "recipient",
        KeyPart::RecipientDomain => "recipient domain",
        KeyPart::Sender => "sender",
        KeyPart::SenderDomain => "sender domain",
    };
    name.to_owned()
}

const fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::AddHeader(_) => "add_header",
        Action::Discard => "discard",
        Action::Quarantine => "quarantine",
        Action::Refuse(_) => "refuse",
    }
}

fn sorted(mut parts: Vec<Condition>) -> Condition {
    parts.sort_by_key(Condition::cost);
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            Condition::All(parts)
        }
    }
}

/// What a rule asks: each question, and whether it stands under no `not` or `unless`.
struct Questions<'a> {
    list: Vec<(&'a config::Question, bool)>,
}

impl<'a> Questions<'a> {
    fn of(rule: &'a config::Rule) -> Self {
        let mut list = Vec::new();
        let mut add = |question: &'a At<config::Question>, positive| list.push((&question.value, positive));
        rule.when.for_each(true, &mut add);
        if let Some(unless) = &rule.unless {
            unless.for_each(false, &mut add);
        }
        Self { list }
    }

    fn facts(&self) -> Vec<Fact> {
        let mut facts: Vec<Fact> = self.list.iter().map(|(question, _)| question.fact()).collect();
        facts.sort_unstable();
        facts.dedup();
        facts
    }

    fn asks(&self, fact: Fact) -> bool {
        self.list.iter().any(|(question, _)| question.fact() == fact)
    }

    fn stage(&self) -> Stage {
        self.list.iter().map(|(question, _)| question.fact().stage()).max().unwrap_or(Stage::Connect)
    }

    fn stage_without_size(&self) -> Stage {
        let facts = self.list.iter().map(|(question, _)| question.fact());
        facts.filter(|fact| *fact != Fact::Size).map(Fact::stage).max().unwrap_or(Stage::Connect)
    }

    fn of_recipient(&self) -> bool {
        self.list.iter().any(|(question, _)| question.fact().is_of_recipient())
    }

    /// Whether a size too large for the rule stays so however it grows: then the declared size settles it.
    fn size_is_lower_bound(&self) -> bool {
        self.asks(Fact::Size) && self.sizes().all(|(comparison, positive)| positive && comparison.is_lower_bound())
    }

    fn size_bound(&self) -> Option<u64> {
        self.sizes().next().map(|(comparison, _)| comparison.bound)
    }

    fn sizes(&self) -> impl Iterator<Item = (config::Comparison, bool)> {
        self.list.iter().filter_map(|(question, positive)| {
            if let config::Question::Size(comparison) = question { Some((*comparison, *positive)) } else { None }
        })
    }

    /// Whether it names values or lists, one of which then has matched.
    fn names_values(&self) -> bool {
        self.list.iter().any(|(question, positive)| *positive && question.names_values())
    }

    fn topic(&self) -> Topic {
        let positive = || self.list.iter().filter(|(_, positive)| *positive).map(|(question, _)| *question);
        Topic {
            facts: positive().map(config::Question::fact).collect(),
            must_authenticate: positive().any(|question| matches!(question, config::Question::Authenticated(false))),
            must_encrypt: positive().any(|question| matches!(question, config::Question::Tls(false))),
        }
    }
}
