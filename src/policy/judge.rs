//! Walking a plan: test by test, for the session, the message, or each recipient.
//!
//! A walk stops where the world outside has to be asked, and goes on with the answer. What a message has come to so far is
//! its *standing*: which rule, if any, has exempted it or one of its recipients from all rules below.

use super::Policy;
use super::condition::Evidence;
use super::condition::Failure;
use super::condition::Truth;
use super::index::Hit;
use super::matched::Excess;
use super::matched::Match;
use super::matched::MatchedAction;
use super::plan::Outcome;
use super::plan::Plan;
use super::plan::Purpose;
use super::plan::Test;
use super::standing::AddedHeader;
use super::standing::Exempting;
use super::standing::Exemption;
use super::standing::MessageStanding;
use super::standing::RecipientStanding;
use super::standing::SessionStanding;
use super::standing::keep_header;
use super::step::HeldBy;
use super::step::Mark;
use super::step::Passing;
use super::text::Subject;
use super::walk::Lookups;
use super::walk::Walk;
use crate::facts::Answer;
use crate::facts::Connection;
use crate::facts::DecisionId;
use crate::facts::Exceeded;
use crate::facts::Facts;
use crate::facts::Message;
use crate::facts::Query;
use crate::facts::Recipient;
use crate::facts::Stage;
use crate::reply::Reply;
use crate::reply::printable;

/// The longest value of an added header field, in characters: one line of RFC 5322 §2.1.1, with room for its name.
const MAX_HEADER_VALUE: usize = 900;

/// Where a walk stopped.
#[derive(Debug)]
pub enum Step {
    /// This has to be answered first.
    Ask(Query),
    /// A rule could not be judged.
    Failed {
        /// Which.
        rule: usize,
        /// Why.
        failure: Failure,
    },
    /// Nothing refuses.
    Passed,
    /// A rule refuses.
    Refused(Refusal),
}

/// A refusal ready to be spoken.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The rule; `None` where we ourselves cannot do otherwise.
    pub rule: Option<usize>,
    /// What it says.
    pub reply: Reply,
}

/// The session as the judge sees it.
pub(crate) struct Case<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) message: Option<&'a Message>,
    /// At RCPT, the recipient being judged.
    pub(crate) candidate: Option<&'a Recipient>,
}

impl Policy {
    /// Whether anything is judged at `stage`.
    pub(crate) fn judges(&self, stage: Stage) -> bool {
        self.plan(stage).is_some_and(|plan| !plan.tests.is_empty())
    }

    /// Walks on until something is decided or has to be asked.
    pub(crate) fn judge(
        &self,
        walk: &mut Walk,
        case: &Case<'_>,
        session: &SessionStanding,
        message: &mut MessageStanding,
        lookups: &mut Lookups,
    ) -> Step {
        let Some(plan) = self.plan(walk.plan) else {
            return Step::Passed;
        };
        if !walk.has_begun || !lookups.is_made {
            walk.has_begun = true;
            self.look_up(plan, walk.stage, case, message, lookups);
        }
        while let Some((number, test)) = plan.next(walk.test, &lookups.admitted) {
            walk.test = number;
            if walk.is_refused && !concerns_refused(test) {
                walk.next_test();
                continue;
            }
            let Some(recipient) = next_subject(test, walk, case, message) else {
                walk.next_test();
                continue;
            };
            let facts = Facts { connection: case.connection, message: case.message, recipient };
            let mut hit = None;
            match self.hold(test, walk, facts, (session, lookups), &mut hit) {
                Held::Ask(query) => return Step::Ask(query),
                Held::Failed(failure) => return Step::Failed { rule: test.rule, failure },
                Held::No => {}
                Held::Yes(excess) => {
                    let exceeded = excess.as_ref().map(|excess| excess.exceeded);
                    let subject = self.subject(test, walk.id, facts, hit, exceeded);
                    let is_told = test.purpose == Purpose::Decide && !walk.is_refused;
                    let matched = is_told.then(|| self.matched(test, &subject, excess));
                    let effect = self.effect(test, &subject);
                    let passes = matches!(test.outcome(exceeded.as_ref()), Outcome::Pass(_));
                    let step = exceeded.map(|exceeded| exceeded.step).filter(|_| passes);
                    let mark = Mark { rule: test.rule, step };
                    if let Some(matched) = matched
                        && (!(passes || self.is_watched(test.rule)) || holds_first(test, mark, walk, message))
                    {
                        walk.matches.push(matched);
                    }
                    match effect {
                        Effect::Exempt(exemption) => exempt(exemption, test, walk, message),
                        Effect::Header(header) => keep_header(&mut walk.headers, header),
                        Effect::Hold(held) => walk.held_by = HeldBy::or_above(walk.held_by, Some(held)),
                        Effect::None => {}
                        Effect::Refuse(refusal) => return Step::Refused(refusal),
                    }
                }
            }
            if judged_for_each(test, walk.stage) { walk.next_recipient() } else { walk.next_test() }
        }
        if walk.next_plan() { self.judge(walk, case, session, message, lookups) } else { Step::Passed }
    }

    /// Finds the tests that can hold for these facts; nothing of them changes while the plan is walked.
    fn look_up(
        &self,
        plan: &Plan,
        stage: Stage,
        case: &Case<'_>,
        message: &MessageStanding,
        Lookups { is_made, found, admitted }: &mut Lookups,
    ) {
        *is_made = true;
        found.clear();
        let facts = Facts { connection: case.connection, message: case.message, recipient: None };
        if stage <= Stage::Rcpt {
            plan.gates.admit(&facts, case.candidate.into_iter(), &self.index, found, admitted);
        } else {
            plan.gates.admit(&facts, message.accepted(), &self.index, found, admitted);
        }
    }

    /// Whether the test holds.
    fn hold(
        &self,
        test: &Test,
        walk: &Walk,
        facts: Facts<'_>,
        (session, lookups): (&SessionStanding, &mut Lookups),
        hit: &mut Option<Hit>,
    ) -> Held {
        let found = &mut lookups.found;
        let mut evidence = Evidence { facts, lists: &self.lists, index: &self.index, found, answers: &walk.answers };
        match test.condition.evaluate(&mut evidence, hit) {
            Truth::No => return Held::No,
            Truth::Depends(path) => return Held::Ask(Query::DiskFree(path)),
            Truth::Failed(failure) => return Held::Failed(failure),
            Truth::Yes => {}
        }
        let Some(limit) = &test.limit else {
            return Held::Yes(None);
        };
        if let Some(failure) = limit.malformed(&facts) {
            return Held::Failed(failure);
        }
        let Some(hold) = limit.hold(&facts) else {
            return Held::No;
        };
        let counted = session.counted.iter().find(|(before, _)| *before == hold).map(|(_, answer)| *answer);
        let is_this = |asked: &Query| matches!(asked, Query::Hold(asked) if *asked == hold);
        let answered = walk.answers.iter().find(|(asked, _)| is_this(asked)).map(|(_, answer)| *answer);
        match answered.or(counted) {
            None => Held::Ask(Query::Hold(hold)),
            Some(Answer::Exceeded(exceeded)) => {
                Held::Yes(Some(Box::new(Excess { counter: hold.counter, key: hold.key, exceeded })))
            }
            Some(Answer::Within) => Held::No,
            Some(Answer::Bytes(_) | Answer::Failed) => Held::Failed(Failure::LookUp),
        }
    }

    /// What follows from a test that holds: nothing where it only prepares, or is only watched.
    fn effect(&self, test: &Test, subject: &Subject<'_>) -> Effect {
        if self.is_watched(test.rule) || test.purpose == Purpose::Count {
            return Effect::None;
        }
        let how = match test.outcome(subject.exceeded()) {
            Outcome::Pass(Passing::Monitor) => return Effect::None,
            Outcome::Pass(Passing::Quarantine) => {
                let percent = subject.step().unwrap_or_default();
                return Effect::Hold(HeldBy { rule: test.rule, percent });
            }
            Outcome::Refuse(refuse) => {
                return Effect::Refuse(Refusal { rule: Some(test.rule), reply: subject.reply(refuse) });
            }
            Outcome::AddHeader(field) => {
                let value = printable(&subject.render(&field.value), MAX_HEADER_VALUE);
                return Effect::Header(AddedHeader { name: field.name.clone(), value });
            }
            Outcome::Accept => Exempting::Accept,
            Outcome::Discard => Exempting::Discard,
            Outcome::Quarantine => Exempting::Quarantine,
        };
        Effect::Exempt(Exemption { by: Some((test.rule, how)) })
    }

    /// The match, for metrics and logs.
    fn matched(&self, test: &Test, subject: &Subject<'_>, excess: Option<Box<Excess>>) -> Match {
        let (action, refuse) = match test.outcome(subject.exceeded()) {
            Outcome::Accept => (MatchedAction::Accept, None),
            Outcome::AddHeader(_) => (MatchedAction::AddHeader, None),
            Outcome::Discard => (MatchedAction::Discard, None),
            Outcome::Pass(Passing::Monitor) => (MatchedAction::Monitor, None),
            Outcome::Pass(Passing::Quarantine) | Outcome::Quarantine => (MatchedAction::Quarantine, None),
            Outcome::Refuse(refuse) => (MatchedAction::Refuse(refuse.status), Some(refuse)),
        };
        let recipient = subject.facts.recipient.filter(|_| test.of_recipient);
        Match {
            rule: test.rule,
            action,
            watched: refuse.filter(|_| self.is_watched(test.rule)).map(|refuse| subject.reply(refuse)),
            mode: self.mode_of(test.rule),
            detail: subject.detail(),
            recipient: recipient.map(|recipient| recipient.address.as_written().to_owned()),
            step: subject.step(),
            excess,
        }
    }

    fn subject<'a>(
        &'a self,
        test: &'a Test,
        id: DecisionId,
        facts: Facts<'a>,
        hit: Option<Hit>,
        exceeded: Option<Exceeded>,
    ) -> Subject<'a> {
        let counter = test.limit.as_ref().and_then(|limit| self.counters.get(limit.counter));
        Subject {
            facts,
            id,
            rule: self.rule_name(test.rule),
            lists: &self.lists,
            hit,
            exceeded: counter.zip(exceeded),
            size_bound: test.size_bound,
        }
    }
}

/// What follows from a test that holds.
enum Effect {
    Exempt(Exemption),
    Header(AddedHeader),
    /// At its end the message is put on hold.
    Hold(HeldBy),
    None,
    Refuse(Refusal),
}

/// Whether a test holds.
enum Held {
    Ask(Query),
    Failed(Failure),
    No,
    /// It holds; for a limit, how it was passed.
    Yes(Option<Box<Excess>>),
}

/// Whether a test has to do with a recipient that the MTA refuses: it counts such, or exempts from what does.
fn concerns_refused(test: &Test) -> bool {
    match (&test.limit, &test.outcome) {
        (Some(limit), _) => limit.tries,
        (None, Outcome::Accept | Outcome::Discard | Outcome::Quarantine) => true,
        (None, Outcome::AddHeader(_) | Outcome::Pass(_) | Outcome::Refuse(_)) => false,
    }
}

/// Whether the accepted recipients are judged one by one: past RCPT, where the rule is about recipients.
fn judged_for_each(test: &Test, stage: Stage) -> bool {
    stage > Stage::Rcpt && test.of_recipient
}

/// For whom the test is judged next: `None` when for nobody any more, `Some(None)` for the message as a whole.
fn next_subject<'a>(
    test: &Test,
    walk: &mut Walk,
    case: &Case<'a>,
    message: &'a MessageStanding,
) -> Option<Option<&'a Recipient>> {
    let exempt = message.exempt.or_above(walk.exempt);
    if exempt.covers(test.rule) {
        return None;
    }
    if walk.stage <= Stage::Rcpt {
        return Some(case.candidate);
    }
    if judged_for_each(test, walk.stage) {
        let skipped = message.recipients.iter().skip(walk.recipient).take_while(|r| r.exempt.covers(test.rule)).count();
        walk.recipient += skipped;
        return message.recipients.get(walk.recipient).map(|standing| Some(&standing.recipient));
    }
    let nobody_left = !message.recipients.is_empty() && message.recipients.iter().all(|r| r.exempt.covers(test.rule));
    if nobody_left { None } else { Some(None) }
}

/// Whether a rule that is only watched holds for the first time. Enforced, it would have refused the message, or the
/// recipient, and never have been judged for it again: by the true size, say, after the declared one. The same for each
/// step that lets pass.
fn holds_first(test: &Test, mark: Mark, walk: &mut Walk, message: &mut MessageStanding) -> bool {
    let rule = test.rule;
    if mark.is_among(&message.watched) {
        return false;
    }
    if walk.stage <= Stage::Rcpt {
        return note(&mut walk.watched, mark);
    }
    if judged_for_each(test, walk.stage) {
        return message.recipients.get_mut(walk.recipient).is_some_and(|standing| note(&mut standing.watched, mark));
    }
    let is_told = |standing: &RecipientStanding| standing.exempt.covers(rule) || mark.is_among(&standing.watched);
    let all_told = !message.recipients.is_empty() && message.recipients.iter().all(is_told);
    message.watched.push(mark);
    !all_told
}

/// Notes a match; false when it was.
fn note(marks: &mut Vec<Mark>, mark: Mark) -> bool {
    let is_new = !mark.is_among(marks);
    if is_new {
        marks.push(mark);
    }
    is_new
}

fn exempt(exemption: Exemption, test: &Test, walk: &mut Walk, message: &mut MessageStanding) {
    if walk.stage <= Stage::Rcpt {
        walk.exempt = exemption.or_above(walk.exempt);
    } else if judged_for_each(test, walk.stage) {
        if let Some(standing) = message.recipients.get_mut(walk.recipient) {
            standing.exempt = standing.exempt.or_above(exemption);
        }
    } else {
        message.exempt = message.exempt.or_above(exemption);
    }
}
