//! What a session and a message have come to so far: which rule, if any, exempts from all rules below it.

use std::collections::HashSet;

use super::MAX_SESSION_KEYS;
use super::step::HeldBy;
use super::step::Mark;
use super::walk::Walk;
use crate::facts::Answer;
use crate::facts::Hold;
use crate::facts::Recipient;

/// The most header fields that are added to one message; where `{recipient}` in one makes more, the rest is left out.
const MAX_ADDED_HEADERS: usize = 100;

/// What of the policy's judgement lasts as long as the SMTP session.
#[derive(Debug, Default)]
pub struct SessionStanding {
    /// What was counted for this connection, so that it is counted once.
    pub(super) counted: Vec<(Hold, Answer)>,
    /// In monitor mode: the client would have been sent away, so nothing more is judged.
    pub(super) settled: bool,
}

/// What a message has come to.
#[derive(Debug, Default)]
pub struct MessageStanding {
    pub(super) exempt: Exemption,
    pub(super) recipients: Vec<RecipientStanding>,
    pub(super) headers: Vec<AddedHeader>,
    /// The rules that are only watched, or let pass, and have held for all of it.
    pub(super) watched: Vec<Mark>,
    /// The step that puts it on hold.
    held_by: Option<HeldBy>,
}

/// An accepted recipient.
#[derive(Debug)]
pub(super) struct RecipientStanding {
    pub(super) recipient: Recipient,
    pub(super) exempt: Exemption,
    /// The rules that are only watched, or let pass, and have held for it.
    pub(super) watched: Vec<Mark>,
}

/// The rule that exempts from all rules below it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exemption {
    pub(super) by: Option<(usize, Exempting)>,
}

/// How.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Exempting {
    Accept,
    Discard,
    Quarantine,
}

/// A header field that a rule adds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct AddedHeader {
    pub(super) name: String,
    pub(super) value: String,
}

impl Exemption {
    /// Whether `rule` need not be judged any more.
    pub(super) fn covers(self, rule: usize) -> bool {
        self.by.is_some_and(|(by, _)| by <= rule)
    }

    /// The one that stands higher: it was reached first.
    pub(super) fn or_above(self, other: Self) -> Self {
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
        /// Recipients that discard it, by number, in order.
        without: Vec<usize>,
        /// The rule that puts it on hold, and the step of its limit, in percent, if that does.
        quarantine: Option<(usize, Option<u32>)>,
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

    /// How much the keys take that were counted for this connection.
    pub(crate) fn octets(&self) -> usize {
        self.counted.iter().map(|(hold, _)| hold.key.len()).sum()
    }

    /// Of more than [`MAX_SESSION_KEYS`] keys of one counter the oldest is forgotten: it would be counted again. That is
    /// for each counter, so that a client that goes on changing one key (its EHLO name) drives out no other.
    pub(super) fn remember(&mut self, hold: Hold, answer: Answer) {
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
        self.held_by = HeldBy::or_above(self.held_by, walk.held_by);
        self.recipients.push(RecipientStanding { recipient, exempt: walk.exempt, watched });
        self.keep_headers(walk);
    }

    /// Keeps what a walk found out about the whole message.
    pub fn keep(&mut self, walk: &mut Walk) {
        self.exempt = self.exempt.or_above(walk.exempt);
        self.held_by = HeldBy::or_above(self.held_by, walk.held_by);
        self.watched.append(&mut walk.watched);
        self.keep_headers(walk);
    }

    /// How many recipients were accepted.
    #[must_use]
    pub fn recipients(&self) -> usize {
        self.recipients.len()
    }

    /// The accepted recipients, in order.
    pub fn accepted(&self) -> impl Iterator<Item = &Recipient> + Clone {
        self.recipients.iter().map(|standing| &standing.recipient)
    }

    /// What becomes of the message when nothing refused it at its end.
    #[must_use]
    pub fn conclude(&mut self) -> Judgement {
        let exempt = self.exempt;
        let verdicts = || {
            let of_recipients = self.recipients.iter().map(move |standing| standing.exempt.or_above(exempt));
            of_recipients.chain(Some(exempt).filter(|_| self.recipients.is_empty()))
        };
        let mut rules = verdicts().map(|verdict| verdict.by.map(|(rule, _)| rule));
        let rule = rules.next().flatten().filter(|first| rules.all(|rule| rule == Some(*first)));
        let by = |exempting| move |exemption: &Exemption| exemption.by.is_some_and(|(_, how)| how == exempting);
        let discards = by(Exempting::Discard);
        if verdicts().all(|verdict| discards(&verdict)) {
            return Judgement::Discard { rule };
        }
        let discarded = verdicts().enumerate().filter(|(_, verdict)| discards(verdict)).map(|(number, _)| number);
        let without = self.without_copies(discarded.collect());
        let by_rule =
            verdicts().find(by(Exempting::Quarantine)).and_then(|verdict| verdict.by).map(|(rule, _)| (rule, None));
        let by_step = self.held_by.map(|held| (held.rule, Some(held.percent)));
        Judgement::Pass {
            rule,
            without,
            quarantine: by_rule.into_iter().chain(by_step).min_by_key(|(rule, _)| *rule),
            headers: self.headers.drain(..).map(|header| (header.name, header.value)).collect(),
        }
    }

    /// Of one address written twice a copy may be kept. MTAs remove every copy of an address, so then none is.
    fn without_copies(&self, mut discarded: Vec<usize>) -> Vec<usize> {
        if discarded.is_empty() {
            return discarded;
        }
        let kept = self.recipients.iter().enumerate().filter(|(number, _)| discarded.binary_search(number).is_err());
        let kept: HashSet<&str> = kept.map(|(_, standing)| standing.recipient.address.folded()).collect();
        let is_kept = |standing: &RecipientStanding| kept.contains(standing.recipient.address.folded());
        discarded.retain(|number| !self.recipients.get(*number).is_some_and(is_kept));
        discarded
    }

    pub(super) fn keep_headers(&mut self, walk: &mut Walk) {
        walk.headers.drain(..).for_each(|header| keep_header(&mut self.headers, header));
    }
}

/// A header field that several recipients ask for is added once, and what is above [`MAX_ADDED_HEADERS`] is left out.
pub(super) fn keep_header(headers: &mut Vec<AddedHeader>, header: AddedHeader) {
    if headers.len() < MAX_ADDED_HEADERS && !headers.contains(&header) {
        headers.push(header);
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
            row: 0,
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
