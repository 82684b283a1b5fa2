//! Walking a plan: test by test, for the session, the message, or each recipient.
//!
//! A walk stops where the world outside has to be asked, and goes on with the answer. What a message has come to so far is
//! its *standing*: which rule, if any, has exempted it or one of its recipients from all rules below.

use std::collections::HashSet;

use smallvec::SmallVec;

use super::MAX_SESSION_KEYS;
use super::Policy;
use super::condition::Evidence;
use super::condition::Failure;
use super::condition::Truth;
use super::list::Hit;
use super::plan::Outcome;
use super::plan::Purpose;
use super::plan::Test;
use super::text::Subject;
use crate::config::Mode;
use crate::facts::Answer;
use crate::facts::Connection;
use crate::facts::DecisionId;
use crate::facts::Exceeded;
use crate::facts::Facts;
use crate::facts::Hold;
use crate::facts::Message;
use crate::facts::Query;
use crate::facts::Recipient;
use crate::facts::Stage;
use crate::reply::Reply;
use crate::reply::Status;
use crate::reply::printable;

/// The longest value of an added header field, in characters: one line of RFC 5322 §2.1.1, with room for its name.
const MAX_HEADER_VALUE: usize = 900;

/// The most header fields that are added to one message; where `{recipient}` in one makes more, the rest is left out.
const MAX_ADDED_HEADERS: usize = 100;

/// What of the policy's judgement lasts as long as the SMTP session.
#[derive(Debug, Default)]
pub struct SessionStanding {
    /// What was counted for this connection, so that it is counted once.
    counted: Vec<(Hold, Answer)>,
    /// In monitor mode: the client would have been sent away, so nothing more is judged.
    settled: bool,
}

/// What a message has come to.
#[derive(Debug, Default)]
pub struct MessageStanding {
    exempt: Exemption,
    recipients: Vec<RecipientStanding>,
    headers: Vec<AddedHeader>,
    /// The rules that are only watched and have held for all of it.
    watched: Vec<usize>,
}

/// An accepted recipient.
#[derive(Debug)]
struct RecipientStanding {
    recipient: Recipient,
    exempt: Exemption,
    /// The rules that are only watched and have held for it.
    watched: Vec<usize>,
}

/// The rule that exempts from all rules below it.
#[derive(Clone, Copy, Debug, Default)]
struct Exemption {
    by: Option<(usize, Exempting)>,
}

/// How.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exempting {
    Accept,
    Discard,
    Quarantine,
}

/// A header field that a rule adds.
#[derive(Clone, Debug, Eq, PartialEq)]
struct AddedHeader {
    name: String,
    value: String,
}

impl Exemption {
    /// Whether `rule` need not be judged any more.
    fn covers(self, rule: usize) -> bool {
        self.by.is_some_and(|(by, _)| by <= rule)
    }

    /// The one that stands higher: it was reached first.
    fn or_above(self, other: Self) -> Self {
        match (self.by, other.by) {
            (Some((mine, _)), Some((others, _))) if others < mine => other,
            (None, _) => other,
            (Some(_), _) => self,
        }
    }
}

/// What becomes of a message that no rule refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// Every recipient discards it.
    Discard {
        /// The rule, if it is the same for all.
        rule: Option<usize>,
    },
    /// It passes.
    Pass {
        /// The rule that exempted it, if it is the same for all recipients.
        rule: Option<usize>,
        /// Header fields to add.
        headers: Vec<(String, String)>,
        /// Recipients, by number, that discard it.
        without: Vec<usize>,
        /// The rule that puts it on hold.
        quarantine: Option<usize>,
    },
}

impl SessionStanding {
    /// In monitor mode: the client would have been sent away.
    pub const fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether nothing more is to be judged in this session.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Of more than [`MAX_SESSION_KEYS`] keys of one counter the oldest is forgotten: it would be counted again. That is
    /// for each counter, so that a client that goes on changing one key (its EHLO name) drives out no other.
    fn remember(&mut self, hold: Hold, answer: Answer) {
        let same = |(before, _): &(Hold, Answer)| before.counter == hold.counter;
        if self.counted.iter().filter(|before| same(before)).count() >= MAX_SESSION_KEYS
            && let Some(oldest) = self.counted.iter().position(same)
        {
            self.counted.remove(oldest);
        }
        self.counted.push((hold, answer));
    }
}

impl MessageStanding {
    /// Keeps a recipient that nothing refused, with what the walk found out about it.
    pub fn add_recipient(&mut self, recipient: Recipient, walk: &mut Walk) {
        let watched = std::mem::take(&mut walk.watched);
        self.recipients.push(RecipientStanding { recipient, exempt: walk.exempt, watched });
        self.keep_headers(walk);
    }

    /// Keeps what a walk found out about the whole message.
    pub fn keep(&mut self, walk: &mut Walk) {
        self.exempt = self.exempt.or_above(walk.exempt);
        self.watched.append(&mut walk.watched);
        self.keep_headers(walk);
    }

    /// How many recipients were accepted.
    #[must_use]
    pub fn recipients(&self) -> usize {
        self.recipients.len()
    }

    /// The accepted recipients, in order.
    pub fn accepted(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients.iter().map(|standing| &standing.recipient)
    }

    /// What becomes of the message when nothing refused it at its end.
    #[must_use]
    pub fn conclude(&mut self) -> Judgement {
        let exempt = self.exempt;
        let verdicts: Vec<Exemption> = if self.recipients.is_empty() {
            vec![exempt]
        } else {
            self.recipients.iter().map(|standing| standing.exempt.or_above(exempt)).collect()
        };
        let rules = || verdicts.iter().map(|verdict| verdict.by.map(|(rule, _)| rule));
        let rule = rules().next().flatten().filter(|first| rules().all(|rule| rule == Some(*first)));
        let by = |exempting| move |exemption: &Exemption| exemption.by.is_some_and(|(_, how)| how == exempting);
        if verdicts.iter().all(by(Exempting::Discard)) {
            return Judgement::Discard { rule };
        }
        let (discarded, kept): (Vec<usize>, Vec<usize>) =
            (0..verdicts.len()).partition(|number| verdicts.get(*number).is_some_and(by(Exempting::Discard)));
        let quarantine = verdicts.iter().find(|verdict| by(Exempting::Quarantine)(verdict));
        Judgement::Pass {
            rule,
            without: self.without_copies(discarded, &kept),
            quarantine: quarantine.and_then(|verdict| verdict.by).map(|(rule, _)| rule),
            headers: self.headers.drain(..).map(|header| (header.name, header.value)).collect(),
        }
    }

    /// Of one address written twice a copy may be kept. MTAs remove every copy of an address, so then none is.
    fn without_copies(&self, mut discarded: Vec<usize>, kept: &[usize]) -> Vec<usize> {
        if discarded.is_empty() {
            return discarded;
        }
        let address = |number: &usize| self.recipients.get(*number).map(|standing| standing.recipient.address.folded());
        let kept: HashSet<Option<&str>> = kept.iter().map(address).collect();
        discarded.retain(|number| !kept.contains(&address(number)));
        discarded
    }

    fn keep_headers(&mut self, walk: &mut Walk) {
        walk.headers.drain(..).for_each(|header| keep_header(&mut self.headers, header));
    }
}

/// Where a walk through a plan is.
#[derive(Debug)]
pub struct Walk {
    /// The stage at which what is found is spoken.
    stage: Stage,
    /// The plan that is walked; an earlier one than the stage's where that stage never came.
    plan: Stage,
    id: DecisionId,
    /// The next test.
    test: usize,
    /// The next recipient, where each is judged for itself.
    recipient: usize,
    /// What was asked and answered for this test.
    answers: SmallVec<[(Query, Answer); 1]>,
    /// What the tests of this walk have exempted; at the end of the message it is with the recipients.
    exempt: Exemption,
    headers: Vec<AddedHeader>,
    /// Up to RCPT, the rules that are only watched and held; later they are with the message and its recipients.
    watched: Vec<usize>,
    /// The rules that held.
    matches: Vec<Match>,
}

impl Walk {
    /// A walk through the plan of `stage`.
    #[must_use]
    pub const fn new(stage: Stage, id: DecisionId) -> Self {
        Self {
            stage,
            plan: stage,
            id,
            test: 0,
            recipient: 0,
            answers: SmallVec::new_const(),
            exempt: Exemption { by: None },
            headers: Vec::new(),
            watched: Vec::new(),
            matches: Vec::new(),
        }
    }

    /// A walk at the end of the message that begins with the plan of an earlier stage, which the MTA did not show.
    #[must_use]
    pub const fn catching_up(plan: Stage, id: DecisionId) -> Self {
        let mut walk = Self::new(Stage::EndOfMessage, id);
        walk.plan = plan;
        walk
    }

    /// Goes on with the plan of the stage itself; false when that was it.
    fn next_plan(&mut self) -> bool {
        let catches_up = self.plan < self.stage;
        self.plan = self.stage;
        self.test = 0;
        catches_up
    }

    /// The stage that is judged.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// What the decision will be called.
    #[must_use]
    pub const fn id(&self) -> DecisionId {
        self.id
    }

    /// The rules that held, in order.
    #[must_use]
    pub fn into_matches(self) -> Vec<Match> {
        self.matches
    }

    /// Takes the answer to what was asked.
    pub fn answer(&mut self, query: Query, answer: Answer, session: &mut SessionStanding) {
        if let Query::Hold(hold) = &query
            && hold.scope != crate::facts::Scope::Message
        {
            session.remember(hold.clone(), answer);
        }
        self.answers.push((query, answer));
    }

    /// Passes over a test that could not be judged.
    pub fn skip(&mut self) {
        self.next_test();
    }

    fn next_test(&mut self) {
        self.test += 1;
        self.recipient = 0;
        self.answers.clear();
    }

    fn next_recipient(&mut self) {
        self.recipient += 1;
        self.answers.clear();
    }
}

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

/// A rule that held, for metrics and logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Which.
    pub rule: usize,
    /// What follows from it, or would.
    pub action: MatchedAction,
    /// What it would say, if it is only watched.
    pub watched: Option<Reply>,
    /// Whether it does.
    pub mode: Mode,
    /// The list and the entry that matched, or the limit that was passed.
    pub detail: Option<String>,
    /// The recipient it held for, where it is about one.
    pub recipient: Option<String>,
}

/// What follows from a match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MatchedAction {
    /// Everything below is skipped.
    Accept,
    /// A header field is added.
    AddHeader,
    /// The message is dropped.
    Discard,
    /// The message is put on hold.
    Quarantine,
    /// This reply is spoken.
    Refuse(Status),
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
        !self.plan(stage).is_empty()
    }

    /// Walks on until something is decided or has to be asked.
    pub(crate) fn judge(
        &self,
        walk: &mut Walk,
        case: &Case<'_>,
        session: &SessionStanding,
        message: &mut MessageStanding,
    ) -> Step {
        while let Some(test) = self.plan(walk.plan).get(walk.test) {
            let Some(recipient) = next_subject(test, walk, case, message) else {
                walk.next_test();
                continue;
            };
            let facts = Facts { connection: case.connection, message: case.message, recipient };
            let mut hit = None;
            match self.hold(test, walk, facts, session, &mut hit) {
                Held::Ask(query) => return Step::Ask(query),
                Held::Failed(failure) => return Step::Failed { rule: test.rule, failure },
                Held::No => {}
                Held::Yes(exceeded) => {
                    let subject = self.subject(test, walk.id, facts, hit, exceeded);
                    let matched = (test.purpose == Purpose::Decide).then(|| self.matched(test, &subject));
                    let effect = self.effect(test, &subject);
                    if let Some(matched) = matched
                        && (!self.is_watched(test.rule) || holds_first(test, walk, message))
                    {
                        walk.matches.push(matched);
                    }
                    match effect {
                        Effect::Exempt(exemption) => exempt(exemption, test, walk, message),
                        Effect::Header(header) => keep_header(&mut walk.headers, header),
                        Effect::None => {}
                        Effect::Refuse(refusal) => return Step::Refused(refusal),
                    }
                }
            }
            if judged_for_each(test, walk.stage) { walk.next_recipient() } else { walk.next_test() }
        }
        if walk.next_plan() { self.judge(walk, case, session, message) } else { Step::Passed }
    }

    /// Whether the test holds.
    fn hold(
        &self,
        test: &Test,
        walk: &Walk,
        facts: Facts<'_>,
        session: &SessionStanding,
        hit: &mut Option<Hit>,
    ) -> Held {
        let evidence = Evidence { facts, lists: &self.lists, answers: &walk.answers };
        match test.condition.evaluate(&evidence, hit) {
            Truth::No => return Held::No,
            Truth::Depends(query) => return Held::Ask(query),
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
        let query = Query::Hold(hold);
        let answered = walk.answers.iter().find(|(asked, _)| *asked == query).map(|(_, answer)| *answer);
        match answered.or(counted) {
            None => Held::Ask(query),
            Some(Answer::Exceeded(exceeded)) => Held::Yes(Some(exceeded)),
            Some(Answer::Within) => Held::No,
            Some(Answer::Bytes(_) | Answer::Failed) => Held::Failed(Failure::LookUp),
        }
    }

    /// What follows from a test that holds: nothing where it only prepares, or is only watched.
    fn effect(&self, test: &Test, subject: &Subject<'_>) -> Effect {
        if self.is_watched(test.rule) || test.purpose == Purpose::Count {
            return Effect::None;
        }
        let how = match &test.outcome {
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
    fn matched(&self, test: &Test, subject: &Subject<'_>) -> Match {
        let (action, refuse) = match &test.outcome {
            Outcome::Accept => (MatchedAction::Accept, None),
            Outcome::AddHeader(_) => (MatchedAction::AddHeader, None),
            Outcome::Discard => (MatchedAction::Discard, None),
            Outcome::Quarantine => (MatchedAction::Quarantine, None),
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
    None,
    Refuse(Refusal),
}

/// Whether a test holds.
enum Held {
    Ask(Query),
    Failed(Failure),
    No,
    /// It holds; for a limit, how it was passed.
    Yes(Option<Exceeded>),
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
/// recipient, and never have been judged for it again: by the true size, say, after the declared one.
fn holds_first(test: &Test, walk: &mut Walk, message: &mut MessageStanding) -> bool {
    let rule = test.rule;
    if message.watched.contains(&rule) {
        return false;
    }
    if walk.stage <= Stage::Rcpt {
        return note(&mut walk.watched, rule);
    }
    if judged_for_each(test, walk.stage) {
        return message.recipients.get_mut(walk.recipient).is_some_and(|standing| note(&mut standing.watched, rule));
    }
    let is_told = |standing: &RecipientStanding| standing.exempt.covers(rule) || standing.watched.contains(&rule);
    let all_told = !message.recipients.is_empty() && message.recipients.iter().all(is_told);
    message.watched.push(rule);
    !all_told
}

/// Notes a rule; false when it was.
fn note(rules: &mut Vec<usize>, rule: usize) -> bool {
    let is_new = !rules.contains(&rule);
    if is_new {
        rules.push(rule);
    }
    is_new
}

/// A header field that several recipients ask for is added once, and what is above [`MAX_ADDED_HEADERS`] is left out.
fn keep_header(headers: &mut Vec<AddedHeader>, header: AddedHeader) {
    if headers.len() < MAX_ADDED_HEADERS && !headers.contains(&header) {
        headers.push(header);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Amount;
    use crate::facts::Key;
    use crate::facts::Scope;

    #[test]
    fn of_many_keys_in_one_session_the_oldest_of_the_same_counter_is_forgotten() {
        let mut session = SessionStanding::default();
        let hold = |counter, name: usize| Hold {
            counter,
            key: Key::from_slice(&name.to_be_bytes()),
            amount: Amount::Add(1),
            scope: Scope::Connection,
        };
        session.remember(hold(0, 0), Answer::Within);
        for name in 0..10 * MAX_SESSION_KEYS {
            session.remember(hold(1, name), Answer::Within);
        }
        assert_eq!(session.counted.len(), 1 + MAX_SESSION_KEYS);
        assert!(session.counted.contains(&(hold(0, 0), Answer::Within)), "another counter's");
        assert!(!session.counted.contains(&(hold(1, 0), Answer::Within)), "the oldest");
        assert!(session.counted.contains(&(hold(1, 10 * MAX_SESSION_KEYS - 1), Answer::Within)), "the latest");
    }

    #[test]
    fn no_more_header_fields_are_added_than_fit() {
        let mut headers = Vec::new();
        for number in 0..10_000 {
            let header = AddedHeader { name: "X-For".to_owned(), value: (number / 2).to_string() };
            keep_header(&mut headers, header);
        }
        assert_eq!(headers.len(), MAX_ADDED_HEADERS);
        assert_eq!(headers.last().map(|header| header.value.as_str()), Some("99"));
    }
}
