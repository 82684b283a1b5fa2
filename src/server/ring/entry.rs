//! One decision as it is kept: all that was known of it, in as few pieces as can be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::facts::DecisionId;
use crate::facts::Stage;
use crate::policy::Match;
use crate::policy::Outline;
use crate::policy::Policy;
use crate::policy::Rule;
use crate::reply::Class;
use crate::reply::Reply;
use crate::session::Decision;
use crate::session::Session;
use crate::session::Subject;
use crate::session::Verdict;

/// The longest value that is kept, in octets: an address has at most 254 (RFC 5321 §4.5.3.1.3), a name 255.
const LONGEST: usize = 320;

/// Of the recipients of a message so many are kept by name.
const MOST_RECIPIENTS: usize = 8;

/// More matches than a policy has rules are those of many recipients.
const MOST_MATCHES: usize = 32;

/// What of a configuration is needed to tell of decisions that were made under it, long after it went.
#[derive(Debug)]
pub(in crate::server) struct Book {
    pub(in crate::server) hash: String,
    rules: Arc<[Rule]>,
    outlines: Arc<[Outline]>,
}

/// One decision.
#[derive(Debug)]
pub(in crate::server) struct Entry {
    pub(in crate::server) at: SystemTime,
    pub(in crate::server) id: DecisionId,
    pub(in crate::server) stage: Stage,
    pub(in crate::server) outcome: Outcome,
    pub(in crate::server) reply: Option<Reply>,
    rule: Option<usize>,
    pub(in crate::server) matches: Box<[Match]>,
    pub(in crate::server) client: Option<IpAddr>,
    pub(in crate::server) port: Option<u16>,
    pub(in crate::server) size: Option<u64>,
    pub(in crate::server) tls: bool,
    pub(in crate::server) authenticated: bool,
    /// How many recipients the message had then.
    pub(in crate::server) recipients: usize,
    pub(in crate::server) book: Arc<Book>,
    text: Box<str>,
    /// Where each of the values in the text ends; the recipients are the last.
    ends: [u16; VALUES + MOST_RECIPIENTS],
}

/// What came of it, in the words of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::server) enum Outcome {
    Accept,
    /// Rules held that decide nothing by themselves.
    Continue,
    Discard,
    /// Refused with 4yz.
    Defer,
    Quarantine,
    /// Refused with 5yz.
    Reject,
    /// A refusal that is spoken at the end of the message.
    Later,
    /// In monitor mode.
    Would,
}

impl Book {
    pub(in crate::server) fn new(policy: &Policy, hash: &str) -> Self {
        Self { hash: hash.to_owned(), rules: policy.rules().into(), outlines: policy.outlines().into() }
    }

    /// The same for a policy that follows on this one. What has not changed is shared: decisions of many reloads are kept
    /// together.
    pub(in crate::server) fn succeed(self: &Arc<Self>, policy: &Policy, hash: &str) -> Arc<Self> {
        let shared = |same: bool| same.then_some(self);
        let rules = shared(*self.rules == *policy.rules());
        let outlines = shared(*self.outlines == *policy.outlines());
        if rules.is_some() && outlines.is_some() && self.hash == hash {
            return Arc::clone(self);
        }
        Arc::new(Self {
            hash: hash.to_owned(),
            rules: rules.map_or_else(|| policy.rules().into(), |book| Arc::clone(&book.rules)),
            outlines: outlines.map_or_else(|| policy.outlines().into(), |book| Arc::clone(&book.outlines)),
        })
    }

    #[cfg(test)]
    pub(super) fn shares_all_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules) && Arc::ptr_eq(&self.outlines, &other.outlines)
    }

    /// The name of a rule.
    pub(in crate::server) fn rule_name(&self, rule: usize) -> &str {
        self.rules.get(rule).map_or("", |rule| &rule.name)
    }

    /// The judgement of a rule at a stage; a rule that is judged for what is missing later is found all the same.
    pub(in crate::server) fn outline(&self, rule: usize, stage: Stage) -> Option<&Outline> {
        let name = self.rule_name(rule);
        let of_rule = || self.outlines.iter().filter(|outline| outline.rule == name);
        of_rule().find(|outline| outline.judged == stage).or_else(|| of_rule().next())
    }
}

impl Entry {
    /// `None` if nothing held and nothing ended: most decisions.
    pub(super) fn of(session: &Session, mut decision: Decision, book: &Arc<Book>, at: SystemTime) -> Option<Self> {
        let outcome = Outcome::of(&decision)?;
        let Subject { connection, message, recipient, recipients } = session.subject();
        let reply = match decision.verdict {
            Verdict::Refuse(reply) => Some(reply),
            Verdict::Accept | Verdict::Continue | Verdict::Discard | Verdict::Quarantine(_) => decision.watched,
        };
        decision.matches.truncate(MOST_MATCHES);
        // Of how a limit was passed the detail tells what there is to tell.
        decision.matches.iter_mut().for_each(|matched| matched.excess = None);
        let all = session.recipients().map(|recipient| recipient.address.as_written());
        let judged = (decision.stage == Stage::Rcpt).then(|| recipient.map(|r| r.address.as_written())).flatten();
        let values = [
            connection.client_name.as_written(),
            connection.helo.as_ref().map_or("", |helo| helo.as_written()),
            connection.listener.as_deref().unwrap_or_default(),
            message.and_then(|message| message.login.as_deref()).unwrap_or_default(),
            message.map_or("", |message| message.sender.or_null()),
            message.and_then(|message| message.queue_id.as_deref()).unwrap_or_default(),
        ];
        let (text, ends) = match judged {
            Some(recipient) => packed(values, std::iter::once(recipient)),
            None => packed(values, all),
        };
        Some(Self {
            at,
            id: decision.id,
            stage: decision.stage,
            outcome,
            reply,
            rule: decision.rule.or_else(|| decision.matches.last().map(|matched| matched.rule)),
            matches: decision.matches.into_boxed_slice(),
            client: connection.client,
            port: connection.port,
            size: message.and_then(|message| message.true_size.or(message.declared_size)),
            tls: message.map_or(connection.tls, |message| message.tls),
            authenticated: message.is_some_and(|message| message.authenticated),
            recipients,
            book: Arc::clone(book),
            text,
            ends,
        })
    }

    /// What it takes.
    pub(super) fn octets(&self) -> usize {
        let of_match = |matched: &Match| {
            let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
            let watched = matched.watched.as_ref().map_or(0, |reply| reply.text().len());
            text(&matched.detail) + text(&matched.recipient) + watched
        };
        size_of::<Self>()
            + self.text.len()
            + self.reply.as_ref().map_or(0, |reply| reply.text().len())
            + self.matches.len() * size_of::<Match>()
            + self.matches.iter().map(of_match).sum::<usize>()
    }

    /// The rule that decided, or the last one that held.
    pub(in crate::server) fn rule(&self) -> Option<&str> {
        self.rule.map(|rule| self.book.rule_name(rule))
    }

    pub(in crate::server) fn client_name(&self) -> &str {
        self.value(0)
    }

    pub(in crate::server) fn helo(&self) -> &str {
        self.value(1)
    }

    pub(in crate::server) fn listener(&self) -> &str {
        self.value(2)
    }

    pub(in crate::server) fn login(&self) -> &str {
        self.value(3)
    }

    /// `<>` for the null sender, empty before MAIL.
    pub(in crate::server) fn sender(&self) -> &str {
        self.value(4)
    }

    pub(in crate::server) fn queue_id(&self) -> &str {
        self.value(5)
    }

    /// At RCPT the one that was judged, else the first of those that were accepted.
    pub(in crate::server) fn recipients(&self) -> impl Iterator<Item = &str> {
        (VALUES..self.ends.len()).map(|number| self.value(number)).filter(|recipient| !recipient.is_empty())
    }

    fn value(&self, number: usize) -> &str {
        let end = |number: usize| self.ends.get(number).map_or(0, |end| usize::from(*end));
        let start = number.checked_sub(1).map_or(0, end);
        self.text.get(start..end(number)).unwrap_or_default()
    }
}

impl Outcome {
    fn of(decision: &Decision) -> Option<Self> {
        Some(match (&decision.verdict, &decision.watched) {
            (Verdict::Refuse(reply), _) => match reply.status().class() {
                Class::Permanent => Self::Reject,
                Class::Transient => Self::Defer,
            },
            (_, Some(_)) => Self::Would,
            (Verdict::Accept, None) => Self::Accept,
            (Verdict::Discard, None) => Self::Discard,
            (Verdict::Quarantine(_), None) => Self::Quarantine,
            (Verdict::Continue, None) if decision.held_back => Self::Later,
            (Verdict::Continue, None) if decision.matches.iter().any(|matched| matched.watched.is_some()) => {
                Self::Would
            }
            (Verdict::Continue, None) if decision.matches.is_empty() => return None,
            (Verdict::Continue, None) => Self::Continue,
        })
    }

    /// As the log and programs have it.
    pub(in crate::server) const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Continue => "continue",
            Self::Discard => "discard",
            Self::Defer | Self::Reject => "refuse",
            Self::Quarantine => "quarantine",
            Self::Later => "refuse at end of message",
            Self::Would => "would refuse",
        }
    }
}

/// All values in one text, each cut where it is too long, and where they end.
fn packed<'a>(
    values: [&'a str; VALUES],
    recipients: impl Iterator<Item = &'a str>,
) -> (Box<str>, [u16; VALUES + MOST_RECIPIENTS]) {
    let mut all = [""; VALUES + MOST_RECIPIENTS];
    for (place, value) in all.iter_mut().zip(values.into_iter().chain(recipients)) {
        *place = cut(value);
    }
    let mut text = String::with_capacity(all.iter().map(|value| value.len()).sum());
    let mut ends = [0; VALUES + MOST_RECIPIENTS];
    for (end, value) in ends.iter_mut().zip(all) {
        text.push_str(value);
        *end = u16::try_from(text.len()).unwrap_or(u16::MAX);
    }
    (text.into_boxed_str(), ends)
}

fn cut(value: &str) -> &str {
    let end = (0..=LONGEST.min(value.len())).rev().find(|end| value.is_char_boundary(*end));
    end.and_then(|end| value.get(..end)).unwrap_or_default()
}

/// How many values there are besides the recipients.
const VALUES: usize = 6;
