//! What is taken of the MTA's offer: only what the policy in force needs.

use bytes::BytesMut;

use crate::policy::Needs;
use crate::wire::Actions;
use crate::wire::MAX_VERSION;
use crate::wire::MacroStage;
use crate::wire::Offer;
use crate::wire::Response;
use crate::wire::Steps;

/// How the MTA is connected to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// TCP: DATA must be asked for and answered, or every message waits 40 ms for a delayed acknowledgement.
    Tcp,
    /// A unix socket.
    Unix,
}

/// The answer to the MTA's offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Negotiation {
    taken: Offer,
    /// Powers that the policy needs and the MTA does not grant.
    missing: Actions,
}

/// The macros that rules, logs and counters use. A list replaces the MTA's own for its stage; 5 and 6 go together, since
/// Sendmail looks at the first only if it got the second (`milter.c`).
const MACROS: [(MacroStage, &str); 7] = [
    (MacroStage::Connect, "{daemon_name} {daemon_port}"),
    (MacroStage::Helo, "{tls_version}"),
    (MacroStage::Mail, "i {auth_type} {auth_authen} {tls_version} {mail_addr}"),
    (MacroStage::Recipient, "i {rcpt_addr}"),
    (MacroStage::Data, "i"),
    (MacroStage::EndOfMessage, "i"),
    (MacroStage::EndOfHeaders, "i"),
];

impl Negotiation {
    /// Takes of `offer` what `needs` asks for. An MTA that offers less gets by with less: what it will not leave out is
    /// counted or answered with CONTINUE.
    #[must_use]
    pub fn new(offer: Offer, needs: &Needs, transport: Transport) -> Self {
        let actions = wanted_actions(needs);
        // Only {rcpt_mailer} tells that a recipient is refused, and an MTA that takes no list of macros may leave it out.
        let can_tell = offer.actions.contains(Actions::SET_MACRO_LIST);
        let is_wanted = needs.refused_recipients && can_tell;
        let refused = if is_wanted { Steps::REFUSED_RECIPIENTS } else { Steps::default() };
        let taken = Offer {
            version: offer.version.min(MAX_VERSION),
            actions: offer.actions & (actions | Actions::SET_MACRO_LIST),
            steps: offer.steps & (wanted_steps(needs, transport) | refused),
        };
        Self { taken, missing: Actions(actions.0 & !offer.actions.0) }
    }

    /// What both sides keep to from now on.
    #[must_use]
    pub const fn taken(&self) -> Offer {
        self.taken
    }

    /// What the policy needs and cannot have.
    #[must_use]
    pub const fn missing(&self) -> Actions {
        self.missing
    }

    /// Appends the answer.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut macros = MACROS;
        if self.taken.steps.contains(Steps::REFUSED_RECIPIENTS) {
            let of_recipient = macros.iter_mut().find(|(stage, _)| *stage == MacroStage::Recipient);
            of_recipient.into_iter().for_each(|(_, names)| *names = "i {rcpt_addr} {rcpt_mailer}");
        }
        let names_macros = self.taken.actions.contains(Actions::SET_MACRO_LIST);
        let macros: &[_] = if names_macros { &macros } else { &[] };
        Response::Negotiate { taken: self.taken, macros }.encode(out);
    }
}

fn wanted_actions(needs: &Needs) -> Actions {
    let mut actions = Actions::default();
    if needs.add_headers {
        actions |= Actions::ADD_HEADERS;
    }
    if needs.delete_recipients {
        actions |= Actions::DELETE_RECIPIENTS;
    }
    if needs.quarantine {
        actions |= Actions::QUARANTINE;
    }
    actions
}

/// Envelope commands are always asked for, since logs and counters tell of them; but without a reply where no rule can
/// have one. MAIL is always answered: Postfix keeps a command without a reply to itself until one that has a reply, so a
/// message would be open in the MTA and not here, and a shutdown could not wait for it.
fn wanted_steps(needs: &Needs, transport: Transport) -> Steps {
    let mut steps = Steps::NO_UNKNOWN | Steps::NO_REPLY_HELO;
    steps |= if needs.content {
        Steps::NO_REPLY_HEADER | Steps::NO_REPLY_END_OF_HEADERS | Steps::NO_REPLY_BODY | Steps::HEADER_LEADING_SPACE
    } else {
        Steps::NO_HEADERS | Steps::NO_END_OF_HEADERS | Steps::NO_BODY
    };
    let silent = [
        (needs.answers_connect, Steps::NO_REPLY_CONNECT),
        (needs.answers_rcpt, Steps::NO_REPLY_RECIPIENT),
        (needs.answers_data || transport == Transport::Tcp, Steps::NO_DATA),
    ];
    for (_, bit) in silent.into_iter().filter(|(answers, _)| !answers) {
        steps |= bit;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTFIX: Offer = Offer { version: 6, actions: Actions(0x1ff), steps: Steps(0x1f_ffff) };

    fn taken(offer: Offer, needs: Needs, transport: Transport) -> Offer {
        Negotiation::new(offer, &needs, transport).taken()
    }

    /// Requirement 12: a policy without a size rule wants neither headers nor body.
    #[test]
    fn what_nobody_looks_at_is_not_sent() {
        let steps = taken(POSTFIX, Needs { answers_rcpt: true, ..Needs::default() }, Transport::Unix).steps;
        assert!(steps.contains(Steps::NO_HEADERS | Steps::NO_END_OF_HEADERS | Steps::NO_BODY | Steps::NO_DATA));
        assert!(steps.contains(Steps::NO_REPLY_CONNECT | Steps::NO_REPLY_HELO));
        assert!(!steps.contains(Steps::NO_REPLY_MAIL) && !steps.contains(Steps::NO_REPLY_RECIPIENT));
        assert_eq!(taken(POSTFIX, Needs::default(), Transport::Unix).actions, Actions::SET_MACRO_LIST);
    }

    /// Requirement 12: on TCP DATA stays, with its reply.
    #[test]
    fn data_is_answered_over_tcp() {
        let steps = taken(POSTFIX, Needs::default(), Transport::Tcp).steps;
        assert!(!steps.contains(Steps::NO_DATA) && !steps.contains(Steps::NO_REPLY_DATA));
    }

    /// Requirement 6: what is counted is not answered, and keeps its blanks.
    #[test]
    fn content_that_is_counted_needs_no_reply() {
        let steps = taken(POSTFIX, Needs { content: true, ..Needs::default() }, Transport::Tcp).steps;
        let silent = Steps::NO_REPLY_HEADER | Steps::NO_REPLY_END_OF_HEADERS | Steps::NO_REPLY_BODY;
        assert!(steps.contains(silent | Steps::HEADER_LEADING_SPACE));
        assert!(!steps.contains(Steps::NO_BODY));
    }

    /// Requirement 2: without NOUNKNOWN an answer there could kill Postfix's smtpd.
    #[test]
    fn unknown_commands_are_never_asked_for() {
        assert!(taken(POSTFIX, Needs::default(), Transport::Tcp).steps.contains(Steps::NO_UNKNOWN));
    }

    /// Requirement 12: nothing is answered that was not offered; Sendmail breaks off otherwise.
    #[test]
    fn the_answer_is_within_every_offer() {
        let all = Needs {
            answers_connect: false,
            answers_rcpt: true,
            answers_data: false,
            content: true,
            add_headers: true,
            quarantine: true,
            delete_recipients: true,
            refused_recipients: true,
        };
        for (version, steps) in [(2, 0x7f), (3, 0x17f), (4, 0x37f), (6, 0x1f_ffff), (7, 0x3f_ffff)] {
            let offer = Offer { version, actions: Actions(0x03f), steps: Steps(steps) };
            for needs in [all, Needs::default()] {
                let taken = taken(offer, needs, Transport::Tcp);
                assert_eq!(taken.version, version.min(6));
                assert!(offer.actions.contains(taken.actions) && offer.steps.contains(taken.steps), "{taken:?}");
            }
        }
    }

    /// Who is shown what the MTA refuses must be able to tell it from what it takes.
    #[test]
    fn refused_recipients_are_asked_for_only_where_they_are_counted_and_can_be_told() {
        let needs = Needs { refused_recipients: true, ..Needs::default() };
        let shown = |offer, needs| taken(offer, needs, Transport::Unix).steps.contains(Steps::REFUSED_RECIPIENTS);
        assert!(shown(POSTFIX, needs) && !shown(POSTFIX, Needs::default()));
        assert!(!shown(Offer { actions: Actions(0x0ff), ..POSTFIX }, needs), "no list of macros");
        assert!(!shown(Offer { steps: Steps(0x3ff), ..POSTFIX }, needs), "not offered");
        let macros = |needs| {
            let mut out = BytesMut::new();
            Negotiation::new(POSTFIX, &needs, Transport::Unix).encode(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert!(macros(needs).contains("i {rcpt_addr} {rcpt_mailer}\0"));
        assert!(!macros(Needs::default()).contains("{rcpt_mailer}"));
    }

    #[test]
    fn macros_are_named_only_where_the_mta_can_be_told() {
        let encoded = |offer| {
            let mut out = BytesMut::new();
            Negotiation::new(offer, &Needs::default(), Transport::Tcp).encode(&mut out);
            out
        };
        let old = Offer { version: 2, actions: Actions(0x3f), steps: Steps(0x7f) };
        assert_eq!(encoded(old).len(), 17);
        let text = String::from_utf8_lossy(&encoded(POSTFIX)).into_owned();
        assert!(text.contains("i {auth_type} {auth_authen} {tls_version} {mail_addr}\0"), "{text}");
        assert!(text.ends_with("\0\0\0\x05i\0\0\0\0\x06i\0"), "{text}");
    }
}
