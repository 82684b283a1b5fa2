//! The naive judge: it knows the whole session beforehand and reads the rules from top to bottom, for each recipient
//! anew.
//!
//! This is what the rules *mean*; `src/policy` and `src/session` are how the same comes about command by command. It is
//! written from the design and shares nothing with them. Slow, and on purpose without any cleverness.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::conditions::View;
use crate::conditions::address;
use crate::conditions::all;
use crate::conditions::bare;
use crate::conditions::has_malformed_key;
use crate::conditions::holds;
use crate::conditions::key;
use crate::model::Action;
use crate::model::Measure;
use crate::model::Message;
use crate::model::Moment;
use crate::model::Policy;
use crate::model::Script;
use crate::model::SmtpSession;
use crate::model::Stage;
use crate::schedule::AnswersTooEarly;
use crate::schedule::Judgement;
use crate::schedule::judgements;

/// All that comes of a script.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) sessions: Vec<SessionOutcome>,
    /// What was charged to each counter in the end.
    pub(crate) charged: Charges,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SessionOutcome {
    pub(crate) connect: Answer,
    pub(crate) messages: Vec<MessageOutcome>,
}

/// What the client hears of one message, and what becomes of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MessageOutcome {
    pub(crate) mail: Answer,
    pub(crate) recipients: Vec<Answer>,
    pub(crate) data: Answer,
    pub(crate) end: Answer,
    pub(crate) fate: Fate,
}

/// What is said to one command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// The rule that refuses, or would if the policy were not only watched.
    pub(crate) refused_by: Option<usize>,
    /// The rules that held, as metrics and logs will tell; at the end of the message once for each recipient where the
    /// rule is about recipients.
    pub(crate) matched: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Fate {
    /// The client gave up.
    #[default]
    Aborted,
    Discarded,
    Passed {
        headers: BTreeSet<(String, String)>,
        /// Recipients that do not get it.
        deleted: BTreeSet<String>,
        quarantined_by: Option<usize>,
    },
    Refused,
}

/// Amounts by rule, measure and key.
pub(crate) type Charges = BTreeMap<(usize, Measure, Vec<u8>), u64>;

/// What reading the rules from top to bottom comes to, for one recipient.
#[derive(Debug, Default)]
struct Reading {
    recipient: &'static str,
    /// Which of the accepted ones it is.
    number: Option<usize>,
    /// Every judgement that holds: the rule, and which of its judgements.
    held: Vec<(usize, usize)>,
    /// Every judgement that nobody can make, because an address is malformed: refused, be it to exempt or to refuse.
    failed: Vec<(usize, usize)>,
    headers: BTreeSet<(String, String)>,
    /// The rule at which reading ends.
    exempted_by: Option<usize>,
}

/// The rules in monitor mode that were told already for this message: for one of its recipients, or for all of it.
type Noted = BTreeSet<(usize, Option<usize>)>;

pub(crate) struct Judge<'a> {
    policy: &'a Policy,
    script: &'a Script,
    judgements: Vec<Vec<Judgement>>,
    charged: Charges,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(policy: &'a Policy, script: &'a Script) -> Result<Self, AnswersTooEarly> {
        Ok(Self { policy, script, judgements: judgements(policy)?, charged: Charges::new() })
    }

    pub(crate) fn judge(mut self) -> Outcome {
        let sessions = self.script.sessions.iter().map(|session| self.session(session)).collect();
        Outcome { sessions, charged: self.charged }
    }

    fn session(&mut self, session: &'a SmtpSession) -> SessionOutcome {
        let mut view = View { session, free: self.script.free, helo: session.helo, message: None, recipient: None };
        let connect = self.answer(Stage::Connect, &[&self.read(view, &mut Charges::new())], &mut Noted::new());
        if connect.refused_by.is_some() && !self.policy.monitor {
            return SessionOutcome { connect, messages: Vec::new() };
        }
        let over = connect.refused_by.is_some();
        let messages = session.messages.iter().map(|message| {
            view.helo = message.helo.or(view.helo);
            self.message(View { message: Some(message), ..view }, message, over)
        });
        SessionOutcome { connect, messages: messages.collect() }
    }

    /// A client stops where it gives up or is refused. In a policy that is only watched it is never refused: then
    /// nothing is judged after what would have been the end, and the message passes without having been charged.
    /// `over` says that this is so from the start: the client was to be sent away when it connected.
    fn message(&mut self, view: View<'_>, message: &Message, mut over: bool) -> MessageOutcome {
        let gives_up_at = |moment| message.gives_up.is_some_and(|gives_up| gives_up.after == moment);
        let watched = self.policy.monitor;
        let is_local = self.script.mta.local_submission && address(view.session).is_some_and(|ip| ip.is_loopback());
        let mut told = MessageOutcome::default();
        let mut noted = Noted::new();

        if !over {
            told.mail = self.answer(Stage::Mail, &[&self.read(view, &mut Charges::new())], &mut noted);
        }
        if told.mail.refused_by.is_some() {
            if !watched {
                return MessageOutcome { fate: Fate::Refused, ..told };
            }
            over = true;
        }
        if gives_up_at(Moment::Mail) {
            return told;
        }

        let mut accepted: Vec<Reading> = Vec::new();
        let mut held = Charges::new();
        for recipient in &message.recipients {
            let position = accepted.len() as u64 + 1;
            let mut held_with_this_one = held.clone();
            let view = View { recipient: Some((*recipient, position)), ..view };
            let reading = Reading { number: Some(accepted.len()), ..self.read(view, &mut held_with_this_one) };
            let mut noted_with_this_one = noted.clone();
            let answer =
                if over { Answer::default() } else { self.answer(Stage::Rcpt, &[&reading], &mut noted_with_this_one) };
            if answer.refused_by.is_none() {
                noted = noted_with_this_one;
                accepted.push(reading);
                held = held_with_this_one;
            }
            told.recipients.push(answer);
            if gives_up_at(Moment::Recipient) {
                break;
            }
        }
        let refused_recipient = told.recipients.iter().find_map(|answer| answer.refused_by);
        if accepted.is_empty() {
            // Nobody is left. The client hears so, unless nothing can be said at RCPT.
            if !watched && !is_local {
                return MessageOutcome { fate: Fate::Refused, ..told };
            }
            over = true;
        }
        if gives_up_at(Moment::Recipient) || gives_up_at(Moment::Recipients) {
            return told;
        }

        let readings: Vec<&Reading> = accepted.iter().collect();
        if !over && self.script.mta.has_data() {
            told.data = self.answer(Stage::Data, &readings, &mut noted);
        }
        if told.data.refused_by.is_some() {
            if !watched {
                return MessageOutcome { fate: Fate::Refused, ..told };
            }
            over = true;
        }
        if gives_up_at(Moment::Data) || gives_up_at(Moment::Content) {
            return told;
        }

        // Mail that did not come by SMTP is not refused at RCPT: one recipient refused is all of them, at the end.
        if !watched && is_local && refused_recipient.is_some() {
            let end = Answer { refused_by: refused_recipient, matched: Vec::new() };
            return MessageOutcome { end, fate: Fate::Refused, ..told };
        }
        if !over && !self.script.mta.has_data() {
            told.end = self.answer(Stage::Data, &readings, &mut noted);
        }
        if !over && told.end.refused_by.is_none() {
            let end = self.answer(Stage::End, &readings, &mut noted);
            told.end.matched.extend(end.matched);
            told.end.refused_by = end.refused_by;
        }
        if told.end.refused_by.is_some() {
            if !watched {
                return MessageOutcome { fate: Fate::Refused, ..told };
            }
            over = true;
        }
        if !over {
            for (counter, amount) in held {
                *self.charged.entry(counter).or_default() += amount;
            }
        }
        told.fate = if watched { Fate::passed() } else { self.fate(&readings) };
        told
    }

    /// Reads the rules from top to bottom. `held` is what the message holds of the counters so far.
    fn read(&self, view: View<'_>, held: &mut Charges) -> Reading {
        let mut reading =
            Reading { recipient: view.recipient.map_or("", |(recipient, _)| recipient), ..Reading::default() };
        for (number, rule) in self.policy.rules.iter().enumerate() {
            let mut holds = false;
            for (index, judgement) in self.judgements[number].iter().enumerate() {
                match self.holds(number, judgement, view, held) {
                    None => reading.failed.push((number, index)),
                    Some(false) => {}
                    Some(true) => {
                        reading.held.push((number, index));
                        holds = true;
                        if rule.exempts() {
                            break;
                        }
                    }
                }
            }
            if !holds || rule.monitor {
                continue;
            }
            match rule.action {
                Action::Accept | Action::Discard | Action::Quarantine => {
                    reading.exempted_by = Some(number);
                    break;
                }
                Action::AddHeader(name, value) => {
                    let recipient = bare(reading.recipient);
                    reading.headers.insert((name.to_owned(), value.replace("{recipient}", recipient)));
                }
                // Reading goes on: an earlier word may come from further below.
                Action::Refuse(_) => {}
            }
        }
        reading
    }

    /// What is said at `stage`: of the rules that refuse there the topmost. `readings` are those of the recipients that
    /// it concerns, one of which is enough. A rule in monitor mode is told once for the message, or for each recipient:
    /// enforced, it would have refused, and not have been judged again.
    fn answer(&self, stage: Stage, readings: &[&Reading], noted: &mut Noted) -> Answer {
        let mut answer = Answer::default();
        for (number, rule) in self.policy.rules.iter().enumerate() {
            for (index, judgement) in self.judgements[number].iter().enumerate().filter(|(_, j)| j.stage == stage) {
                let is_told = |reading: &Reading| {
                    rule.monitor && (noted.contains(&(number, None)) || noted.contains(&(number, reading.number)))
                };
                // Where it cannot be judged for one, it is not judged for those after him.
                let failed = readings.iter().position(|reading| reading.failed.contains(&(number, index)));
                let readings = &readings[..failed.unwrap_or(readings.len())];
                let holds = |reading: &Reading| reading.held.contains(&(number, index)) && !is_told(reading);
                let holders: Vec<Option<usize>> =
                    readings.iter().filter(|reading| holds(reading)).map(|reading| reading.number).collect();
                let matches = if judgement.of_recipient { holders.len() } else { holders.len().min(1) };
                if judgement.of_recipient || stage == Stage::Rcpt {
                    noted.extend(holders.iter().map(|recipient| (number, *recipient)));
                } else if matches > 0 {
                    noted.insert((number, None));
                }
                if matches > 0 && !rule.monitor && matches!(rule.action, Action::Refuse(_)) {
                    answer.matched.push(number);
                    answer.refused_by = Some(number);
                    return answer;
                }
                answer.matched.extend(std::iter::repeat_n(number, matches));
                let is_on_trial = rule.monitor && !self.policy.monitor;
                if failed.is_some() && !is_on_trial {
                    answer.refused_by = Some(number);
                    return answer;
                }
            }
        }
        answer
    }

    /// What becomes of a message that nobody refused.
    fn fate(&self, readings: &[&Reading]) -> Fate {
        let how = |reading: &&&Reading| reading.exempted_by.map(|rule| self.policy.rules[rule].action);
        if readings.iter().all(|reading| how(&reading) == Some(Action::Discard)) {
            return Fate::Discarded;
        }
        let (gone, kept): (Vec<&&Reading>, Vec<_>) =
            readings.iter().partition(|reading| how(reading) == Some(Action::Discard));
        let quarantined = kept.iter().find(|reading| how(reading) == Some(Action::Quarantine));
        // Of one address written twice one copy may be kept; deleting the other would take both away.
        let is_kept =
            |recipient: &str| kept.iter().any(|reading| bare(reading.recipient).eq_ignore_ascii_case(bare(recipient)));
        let gone = gone.iter().map(|reading| reading.recipient).filter(|&recipient| !is_kept(recipient));
        Fate::Passed {
            headers: readings.iter().flat_map(|reading| reading.headers.clone()).collect(),
            deleted: gone.map(str::to_owned).collect(),
            quarantined_by: quarantined.and_then(|reading| reading.exempted_by),
        }
    }

    /// `None`: nobody can say.
    fn holds(&self, number: usize, judgement: &Judgement, view: View<'_>, held: &mut Charges) -> Option<bool> {
        let rule = &self.policy.rules[number];
        let size = view.size_at(judgement.stage);
        let unless = rule.unless.as_ref().map(|unless| holds(unless, view, size).map(|holds| !holds));
        let applies = all([holds(&rule.when, view, size)].into_iter().chain(unless))?;
        let (Some((measure, bound)), Some(limit)) = (judgement.counts, &rule.limit) else {
            return Some(applies);
        };
        if applies && has_malformed_key(limit, view) {
            return None;
        }
        let Some(key) = key(limit, view).filter(|_| applies) else {
            return Some(false);
        };
        let counter = (number, measure, key);
        let so_far = held.get(&counter).copied().unwrap_or_default();
        let wanted = match measure {
            // Without a size there is nothing to count yet.
            Measure::Bytes => match size {
                None | Some(0) => return Some(false),
                Some(size) => size,
            },
            Measure::Messages => 1,
            Measure::Recipients => so_far + 1,
        };
        let charged = self.charged.get(&counter).copied().unwrap_or_default();
        if charged + wanted > bound {
            return Some(true);
        }
        held.insert(counter, wanted);
        Some(false)
    }
}

impl Fate {
    fn passed() -> Self {
        Self::Passed { headers: BTreeSet::new(), deleted: BTreeSet::new(), quarantined_by: None }
    }
}
