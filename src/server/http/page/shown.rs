//! A decision as it is shown: with as much of people as the configuration wants. What is looked for is looked for in this, so
//! that a search finds out nothing that is not shown.

use std::time::SystemTime;

use ipnet::IpNet;

use super::filter::Query;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::policy::Match;
use crate::reply::Reply;
use crate::server::http::privacy::Privacy;
use crate::server::ring::Entry;
use crate::server::ring::Outcome;

/// One decision.
pub(super) struct ShownDecision<'a> {
    pub(super) entry: &'a Entry,
    privacy: Privacy,
    pub(super) id: String,
    pub(super) client: String,
    pub(super) client_name: String,
    pub(super) helo: String,
    pub(super) login: String,
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
    pub(super) reply: Option<String>,
}

impl<'a> ShownDecision<'a> {
    pub(super) fn new(entry: &'a Entry, privacy: Privacy) -> Self {
        Self {
            entry,
            privacy,
            id: entry.id.to_string(),
            client: entry.client.map(|client| privacy.client(client)).unwrap_or_default(),
            client_name: privacy.host(entry.client_name()),
            helo: privacy.host(entry.helo()),
            login: privacy.address(entry.login()),
            sender: privacy.address(entry.sender()),
            recipients: entry.recipients().map(|recipient| privacy.address(recipient)).collect(),
            reply: replies(entry).next().map(|reply| said(reply, entry, privacy)),
        }
    }

    pub(super) fn time(&self) -> SystemTime {
        self.entry.at
    }

    /// How many recipients there were besides those that are named.
    pub(super) fn more_recipients(&self) -> usize {
        // There only the one that was judged is named.
        let is_one = self.entry.stage == Stage::Rcpt;
        if is_one { 0 } else { self.entry.recipients.saturating_sub(self.recipients.len()) }
    }

    /// Why a rule held.
    pub(super) fn detail(&self, matched: &Match) -> Option<String> {
        matched.detail.as_deref().map(|detail| self.privacy.detail(detail))
    }

    /// For whom it held.
    pub(super) fn recipient(&self, matched: &Match) -> Option<String> {
        matched.recipient.as_deref().map(|recipient| self.privacy.address(recipient))
    }

    /// What a rule that is only watched would have said.
    pub(super) fn would_say(&self, matched: &Match) -> Option<String> {
        matched.watched.as_ref().map(|reply| said(reply, self.entry, self.privacy))
    }

    /// What a fact was, where that was kept.
    pub(super) fn value(&self, fact: Fact) -> Option<String> {
        let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let domain = |address: &str| address.rsplit_once('@').map(|(_, domain)| domain.to_owned());
        let yes = |yes: bool| Some(if yes { "yes" } else { "no" }.to_owned());
        match fact.name() {
            "client" => known(&self.client),
            "client_name" => known(&self.client_name),
            "helo" => known(&self.helo),
            "port" => self.entry.port.map(|port| port.to_string()),
            "listener" => known(self.entry.listener()),
            "tls" => yes(self.entry.tls),
            "authenticated" => yes(self.entry.authenticated),
            "login" => known(&self.login),
            "sender" => known(&self.sender),
            "sender_domain" => domain(&self.sender),
            "recipient" => known(&self.recipients.join(", ")),
            "recipients" => Some(self.entry.recipients.to_string()),
            "size" => self.entry.size.map(|size| crate::config::Size(size).to_string()),
            _ => None,
        }
    }

    /// Whether it is what the address of the page asks for.
    pub(super) fn is_meant(&self, query: &Query) -> bool {
        let is_code =
            |code: String| code.starts_with(&query.code) || code.split(' ').any(|part| part.starts_with(&query.code));
        let has_code = || replies(self.entry).any(|reply| is_code(reply.status().to_string()));
        let mut rules = self.entry.matches.iter().map(|matched| self.entry.book.rule_name(matched.rule));
        let outcome = Group::of(self.entry.outcome);
        (query.outcome.is_empty() && (outcome != Group::Noted || query.is_filter()) || query.outcome == outcome.name())
            && (query.code.is_empty() || has_code())
            && (query.rule.is_empty()
                || self.entry.rule() == Some(&*query.rule)
                || rules.any(|rule| rule == query.rule))
            && query.words.split_whitespace().all(|word| self.has(word))
    }

    /// Whether a word stands anywhere in it; of a network, whether the client is in it.
    fn has(&self, word: &str) -> bool {
        if let (Ok(network), Some(client), true) = (word.parse::<IpNet>(), self.entry.client, self.privacy.is_full()) {
            return network.contains(&client);
        }
        let word = word.trim_start_matches('<').trim_end_matches('>').to_lowercase();
        let texts = [&self.id, &self.client, &self.client_name, &self.helo, &self.login, &self.sender];
        let others =
            [self.entry.queue_id(), self.entry.rule().unwrap_or_default(), self.reply.as_deref().unwrap_or_default()];
        let has = |text: &str| contains(text, &word);
        texts.iter().any(|text| has(text))
            || self.recipients.iter().any(|text| has(text))
            || others.into_iter().any(has)
    }
}

/// What was said, and what rules that are only watched would have said.
fn replies(entry: &Entry) -> impl Iterator<Item = &Reply> {
    entry.reply.iter().chain(entry.matches.iter().filter_map(|matched| matched.watched.as_ref()))
}

/// Without case; without an allocation where both are ASCII, as nearly always.
fn contains(text: &str, word: &str) -> bool {
    if text.is_ascii() && word.is_ascii() {
        word.is_empty() || text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    } else {
        text.to_lowercase().contains(word)
    }
}

/// A reply; where not all is shown, without what stands for people in its text.
fn said(reply: &Reply, entry: &Entry, privacy: Privacy) -> String {
    if privacy.is_full() {
        return reply.to_string().replace('\n', " ");
    }
    let status = reply.status();
    let mut rules = entry.matches.iter().map(|matched| matched.rule);
    let template = rules.find_map(|rule| {
        let written = entry.book.outline(rule, entry.stage).and_then(|outline| outline.reply.as_ref());
        written.filter(|(code, _)| *code == status).map(|(_, text)| text.replace('\n', " "))
    });
    template.map_or_else(|| status.to_string(), |text| format!("{status} {text}"))
}

/// Outcomes as people tell them apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Group {
    Deferred,
    Held,
    Noted,
    Passed,
    Refused,
    Would,
}

impl Group {
    pub(super) const ALL: [Self; 6] =
        [Self::Refused, Self::Deferred, Self::Would, Self::Passed, Self::Held, Self::Noted];

    pub(super) const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Accept => Self::Passed,
            Outcome::Continue => Self::Noted,
            Outcome::Defer => Self::Deferred,
            Outcome::Discard | Outcome::Quarantine => Self::Held,
            Outcome::Later | Outcome::Reject => Self::Refused,
            Outcome::Would => Self::Would,
        }
    }

    /// In addresses of pages, and as the class of its colour.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Noted => "noted",
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Would => "would",
        }
    }

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Deferred => "Deferred",
            Self::Held => "On hold or dropped",
            Self::Noted => "Noted",
            Self::Passed => "Passed",
            Self::Refused => "Refused",
            Self::Would => "Would be refused",
        }
    }
}

/// What came of one decision, for people.
pub(super) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accept => "Passed",
        Outcome::Continue => "Noted",
        Outcome::Defer => "Deferred",
        Outcome::Discard => "Dropped",
        Outcome::Later => "Refused at the end",
        Outcome::Quarantine => "On hold",
        Outcome::Reject => "Refused",
        Outcome::Would => "Would be refused",
    }
}
