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
use super::limit::Measure;
use crate::codes;
use crate::config;
use crate::config::Action;
use crate::config::At;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::Notice;
use crate::config::Place;
use crate::config::ReplyTemplate;
use crate::config::Severity;
use crate::config::Template;
use crate::facts::Stage;
use crate::reply::Class;
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
    /// Whether it is a step of a limit, of which a higher one may be final.
    pub(super) is_step: bool,
    pub(super) known: Known,
}

impl Spoken<'_> {
    /// What the rule would say by itself there; at CONNECT with a code that the client gets to see.
    fn default(&self) -> Status {
        let default = self.case.reply(self.known.stage).status;
        if self.known.stage != Stage::Connect || survives_connect(default) {
            return default;
        }
        let rest = match default.class() {
            Class::Permanent => 54,
            Class::Transient => 21,
        };
        let enhanced = default.enhanced();
        Status::new(default.class(), rest, enhanced.subject, enhanced.detail).unwrap_or(default)
    }

    /// What to say in place of a reply that is not fit: as temporary or permanent as it, if the rule can be either.
    fn advice(&self) -> String {
        let default = self.default();
        let may_wait = matches!(self.case, Case::Blocked(_) | Case::NotYourSender);
        match (self.reply.value.status.class(), self.known.stage) {
            (Class::Transient, Stage::Connect) if may_wait => "use 421 4.7.0 with `disconnect = true`".to_owned(),
            // At MAIL, 450 is not usual.
            (Class::Transient, Stage::Mail) if may_wait => "use 450 4.7.1 with at = \"rcpt\"".to_owned(),
            (Class::Transient, _) if may_wait => "use 450 4.7.1".to_owned(),
            (Class::Permanent | Class::Transient, _) => self.advise(default),
        }
    }

    /// Whether `at = "rcpt"` is possible, where it is not so already: not if sizes have to be known.
    fn can_wait_for_rcpt(&self) -> bool {
        let by_size = matches!(self.case, Case::TooLarge | Case::TooLargeForRecipient | Case::Rate(Measure::Bytes));
        self.known.stage < Stage::Rcpt && !by_size
    }

    /// `use 550 5.7.1`, and what has to be said beside it.
    fn advise(&self, status: Status) -> String {
        match (ends_session(status), self.disconnect) {
            (true, false) => format!("use {status} with `disconnect = true`"),
            (false, true) => format!("use {status} without `disconnect`"),
            (true, true) | (false, false) => format!("use {status}"),
        }
    }

    /// What would be said of another status in its place; nothing if that is an error.
    fn notices_of(&self, status: Status) -> Option<BTreeSet<Notice>> {
        let value = ReplyTemplate { status, text: self.reply.value.text.clone() };
        let reply = At { value, place: Place::default() };
        let (mut diagnostics, mut given) = (Diagnostics::default(), BTreeSet::new());
        let mut linter =
            Linter { diagnostics: &mut diagnostics, allowed: &[], reply: None, given: &mut given, is_trial: true };
        let spoken = Spoken { reply: &reply, disconnect: ends_session(status), ..*self };
        status::check(&spoken, &mut linter);
        case::check(&spoken, &mut linter);
        (!diagnostics.has_errors()).then_some(given)
    }

    /// Whether another status in its place would pass in silence.
    fn would_pass(&self, status: Status) -> bool {
        self.notices_of(status).is_some_and(|notices| notices.is_empty())
    }
}

/// Finds what is wrong and what is unusual in the replies of one rule.
pub(super) struct Linter<'a> {
    diagnostics: &'a mut Diagnostics,
    allowed: &'a [At<Notice>],
    /// Where the rule's reply stands, if it has one.
    reply: Option<&'a Place>,
    /// What is said, or would be if it were not allowed.
    given: &'a mut BTreeSet<Notice>,
    /// Whether a reply is only tried out, to see if it can be advised: then nobody reads the hints.
    is_trial: bool,
}

impl<'a> Linter<'a> {
    /// Adds to what is `given` by this rule.
    pub(super) fn new(
        rule: &'a config::Rule,
        given: &'a mut BTreeSet<Notice>,
        diagnostics: &'a mut Diagnostics,
    ) -> Self {
        let reply = match &rule.action {
            Action::Refuse(reply) => reply.as_ref().map(|reply| &reply.place),
            Action::Accept | Action::AddHeader(_) | Action::Discard | Action::Quarantine => None,
        };
        Self { diagnostics, allowed: &rule.allow, reply, given, is_trial: false }
    }

    /// A reply that a rule has of its own.
    pub(super) fn reply(&mut self, spoken: &Spoken<'_>) {
        if !ANSWERED.contains(&spoken.known.stage) {
            // That nothing is answered there is reported already.
            return;
        }
        let (before, errors) = (self.diagnostics.list.len(), self.diagnostics.errors());
        status::check(spoken, self);
        // What cannot be said there needs no advice on how to say it; and one piece of advice is enough.
        if self.diagnostics.errors() == errors {
            let of_status = self.diagnostics.list.split_off(before);
            case::check(spoken, self);
            if self.diagnostics.list.len() == before {
                self.diagnostics.list.extend(of_status);
            }
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
        if self.reply.is_some_and(|reply| self.diagnostics.list.iter().any(|found| is_error_in(reply, found))) {
            // An error leaves notices unsaid.
            return;
        }
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
        if !self.allows(notice) {
            self.diagnostics.push(Diagnostic::notice(notice, place, message).hint(hint));
        }
    }

    fn allows(&self, notice: Notice) -> bool {
        self.allowed.iter().any(|allowed| allowed.value == notice)
    }

    /// Where the codes of a reply stand.
    fn place_of_status(&self, reply: &At<ReplyTemplate>) -> Place {
        self.diagnostics.narrow(&reply.place, &reply.value.status.to_string())
    }
}

fn is_error_in(place: &Place, found: &Diagnostic) -> bool {
    found.severity == Severity::Error
        && found.place.source == place.source
        && place.span.contains(&found.place.span.start)
}

/// Whether an MTA hangs up after it: after 421, and Postfix also after 521 (`smtpd_chat.c`).
fn ends_session(status: Status) -> bool {
    matches!(status.code(), 421 | 521)
}

/// Whether the code at least reaches the client at CONNECT. Both MTAs turn 5yz into a 554 greeting, hang up with 421, and
/// greet with 220 for any other 4yz (Postfix `smtpd.c`, Sendmail `srvrsmtp.c`).
pub(super) fn survives_connect(status: Status) -> bool {
    codes::basic(status.code()).is_some_and(|basic| basic.milter.contains(&Stage::Connect.name()))
}

/// What an MTA makes of a reply on its way to the client, where that is not what was said.
pub(super) fn rewriting(status: Status, stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Connect if status.code() == 421 => Some("at CONNECT the MTA keeps the code, but may put its own text"),
        // Postfix's `smtpd_proto` (smtpd.c) keeps the reply for the commands that follow. Sendmail's `milter_connect` (milter.c)
        // drops all but its class, and `smtp` (srvrsmtp.c) then says `Command rejected` to them.
        Stage::Connect => {
            Some("at CONNECT the MTA greets with its own text; at MAIL Postfix says this reply, Sendmail 550 5.0.0")
        }
        // Sendmail's `fmtmsg` (err.c).
        Stage::Mail | Stage::Rcpt if matches!(status.code(), 450 | 550 | 553) => {
            Some("Sendmail puts `<address>... ` before the text")
        }
        // Postfix `vsmtpd_chat_reply` (smtpd_chat.c) hangs up after 421 and 521; Sendmail's `MILTER_REPLY` (srvrsmtp.c) and
        // `smtp_data` look for 421 only.
        Stage::Mail | Stage::Rcpt if status.code() == 521 => Some("Postfix hangs up after 521, Sendmail does not"),
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
