//! Whether a reply is fit to be spoken where a rule speaks it.
//!
//! What is illegal or does harm is an error; what is unusual is a notice, with the better code and why, and a rule may say
//! that it is meant (`allow`). What the codes are and where they may stand is known to [`crate::codes`]; here is what follows
//! from it for a rule.

mod case;
mod status;
mod text;
mod variables;

use std::collections::BTreeSet;

use super::defaults::Case;
use crate::codes;
use crate::config;
use crate::config::At;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::Notice;
use crate::config::Place;
use crate::config::ReplyTemplate;
use crate::config::Template;
use crate::facts::Stage;
use crate::reply::Status;

/// The stages at which a client can be answered.
const ANSWERED: [Stage; 5] = [Stage::Connect, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfMessage];

/// What is known when a text is spoken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) stage: Stage,
    pub(super) recipient: bool,
    pub(super) limit: bool,
    pub(super) size_bound: bool,
    pub(super) list: bool,
}

/// A reply at one of the places where a rule speaks it.
#[derive(Clone, Copy)]
pub(super) struct Spoken<'a> {
    pub(super) reply: &'a At<ReplyTemplate>,
    pub(super) disconnect: bool,
    /// What the rule refuses.
    pub(super) case: Case,
    /// Whether the rule asks about the recipient, be it in `unless`.
    pub(super) asks_recipient: bool,
    /// Whether the rule asks how much room there is.
    pub(super) asks_disk: bool,
    pub(super) known: Known,
}

/// Finds what is wrong and what is unusual in the replies of one rule.
pub(super) struct Linter<'a> {
    diagnostics: &'a mut Diagnostics,
    allowed: &'a [At<Notice>],
    /// What is said, or would be if it were not allowed.
    given: &'a mut BTreeSet<Notice>,
}

impl<'a> Linter<'a> {
    /// Adds to what is `given` by this rule.
    pub(super) fn new(
        rule: &'a config::Rule,
        given: &'a mut BTreeSet<Notice>,
        diagnostics: &'a mut Diagnostics,
    ) -> Self {
        Self { diagnostics, allowed: &rule.allow, given }
    }

    /// A reply that a rule has of its own.
    pub(super) fn reply(&mut self, spoken: &Spoken<'_>) {
        if !ANSWERED.contains(&spoken.known.stage) {
            // That nothing is answered there is reported already.
            return;
        }
        let errors = self.diagnostics.errors();
        status::check(spoken, self);
        // What cannot be said there needs no advice on how to say it.
        if self.diagnostics.errors() == errors {
            case::check(spoken, self);
        }
        text::check(spoken, self);
        self.text(&spoken.reply.value.text, &spoken.reply.place, spoken.known);
    }

    /// A text with variables, of a reply or a header field.
    pub(super) fn text(&mut self, text: &Template, place: &Place, known: Known) {
        variables::check(text, place, known, self.diagnostics);
    }

    /// What the rule as a whole demands, whatever it says.
    pub(super) fn demands(&mut self, rule: &config::Rule) {
        case::check_demands(rule, self);
    }

    /// Reports what is allowed and never happens.
    pub(super) fn finish(self) {
        for allowed in self.allowed {
            if !self.given.contains(&allowed.value) {
                let message = format!("nothing here gives the notice \"{}\"", allowed.value.name());
                self.diagnostics
                    .push(Diagnostic::warning(allowed.place.clone(), message).hint("leave it out of `allow`"));
            }
        }
    }

    fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(place, message).hint(hint));
    }

    fn notice(&mut self, notice: Notice, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.given.insert(notice);
        if !self.allowed.iter().any(|allowed| allowed.value == notice) {
            self.diagnostics.push(Diagnostic::notice(notice, place, message).hint(hint));
        }
    }

    /// Where the codes of a reply stand.
    fn place_of_status(&self, reply: &At<ReplyTemplate>) -> Place {
        self.diagnostics.narrow(&reply.place, &reply.value.status.to_string())
    }
}

/// Whether the code at least reaches the client at CONNECT. Both MTAs turn 5yz into a 554 greeting, hang up with 421, and
/// greet with 220 for any other 4yz (Postfix `smtpd.c`, Sendmail `srvrsmtp.c`).
pub(super) fn survives_connect(status: Status) -> bool {
    codes::basic(status.code()).is_some_and(|basic| basic.milter.contains(&Stage::Connect.name()))
}

/// What an MTA makes of a reply on its way to the client, where that is not what was said.
pub(super) fn rewriting(status: Status, stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Connect => Some("at CONNECT the MTA keeps the code, but may put its own text"),
        // Sendmail's `fmtmsg` (err.c).
        Stage::Mail | Stage::Rcpt if matches!(status.code(), 450 | 550 | 553) => {
            Some("Sendmail puts `<address>... ` before the text")
        }
        Stage::Helo
        | Stage::Mail
        | Stage::Rcpt
        | Stage::Data
        | Stage::Header
        | Stage::EndOfHeaders
        | Stage::Body
        | Stage::EndOfMessage => None,
    }
}
