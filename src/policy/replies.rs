//! Which replies are fit to be spoken at which stage, and what their texts may name there.

use crate::config::At;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::Part;
use crate::config::Place;
use crate::config::ReplyTemplate;
use crate::config::Template;
use crate::config::Variable;
use crate::facts::Stage;
use crate::reply::Status;

/// What is known when a text is spoken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) stage: Stage,
    pub(crate) recipient: bool,
    pub(crate) limit: bool,
    pub(crate) size_bound: bool,
    pub(crate) list: bool,
}

/// Codes that only AUTH may be answered with (RFC 4954 §6, RFC 5248).
const AUTH_ONLY: [u16; 7] = [432, 454, 524, 525, 534, 535, 538];

/// Whether the code at least reaches the client at CONNECT. Both MTAs turn 5yz into a 554 greeting, hang up with 421, and
/// greet with 220 for any other 4yz (Postfix `smtpd.c`, Sendmail `srvrsmtp.c`).
pub(crate) const fn survives_connect(status: Status) -> bool {
    matches!(status.code(), 421 | 554)
}

/// Reports codes that would do harm at that stage.
pub(crate) fn check_status(reply: &At<ReplyTemplate>, disconnect: bool, known: Known, diagnostics: &mut Diagnostics) {
    let status = reply.value.status;
    let code = status.code();
    let enhanced = status.enhanced();
    let mut error = |message: String, hint: &str| {
        diagnostics.push(Diagnostic::error(diagnostics.narrow(&reply.place, &status.to_string()), message).hint(hint));
    };
    if code == 421 && !disconnect {
        error(
            "421 makes the MTA hang up on the client".to_owned(),
            "say so with `disconnect = true`, or use 450 or 451",
        );
    }
    if code != 421 && disconnect {
        error(format!("`disconnect` goes with 421, not with {code}"), "MTAs hang up after 421 only");
    }
    if code == 521 {
        error("521 makes Postfix hang up on the client".to_owned(), "use 550 or 554, or 421 with `disconnect = true`");
    }
    if AUTH_ONLY.contains(&code) {
        error(
            format!("{code} is an answer to AUTH, which no milter gives"),
            "530 5.7.0 asks for authentication, 550 5.7.1 refuses",
        );
    }
    if code == 551
        && !reply.value.text.parts().iter().any(|part| matches!(part, Part::Text(text) if text.contains('@')))
    {
        error("551 has to name the address to use instead (RFC 5321 §3.4)".to_owned(), "use 550 5.7.1");
    }
    let about_mailbox = enhanced.subject == 2 || (enhanced.subject == 1 && matches!(enhanced.detail, 1 | 10));
    if code == 556 && known.stage != Stage::Rcpt {
        error(
            format!("556 is about a recipient's domain (RFC 7504 §4); it cannot be said at {}", known.stage),
            "use at = \"rcpt\", or 550 5.7.1",
        );
    } else if about_mailbox && known.stage < Stage::Rcpt {
        let message = format!("{enhanced} is about a recipient; none is known at {}", known.stage);
        error(message, "use at = \"rcpt\", or another enhanced code (5.3.4 for a size, 5.7.1 for policy)");
    }
}

/// Reports variables that stand for nothing at that stage.
pub(crate) fn check_text(text: &Template, place: &Place, known: Known, diagnostics: &mut Diagnostics) {
    for variable in text.variables() {
        let Some((why, hint)) = missing(variable, known) else {
            continue;
        };
        let written = format!("{{{}}}", variable.name());
        let place = diagnostics.narrow(place, &written);
        diagnostics.push(Diagnostic::error(place, format!("{written} {why}")).hint(hint));
    }
}

/// Why a variable stands for nothing, and what to do about it.
fn missing(variable: Variable, known: Known) -> Option<(&'static str, &'static str)> {
    match variable {
        Variable::Client
        | Variable::ClientName
        | Variable::Id
        | Variable::Listener
        | Variable::Port
        | Variable::Rule => None,
        Variable::Helo | Variable::Login | Variable::Sender | Variable::SenderDomain | Variable::Size => {
            (known.stage < Stage::Mail).then_some(("is not known before MAIL", "use at = \"mail\", or leave it out"))
        }
        Variable::Recipient | Variable::RecipientDomain | Variable::Recipients => (!known.recipient).then_some((
            "stands for one recipient; this rule speaks of the whole message",
            "use at = \"rcpt\", or leave it out",
        )),
        Variable::QueueId => (known.stage < Stage::Data)
            .then_some(("is not known before DATA", "{id} names the decision in every log line")),
        Variable::Limit => (!known.limit && !known.size_bound)
            .then_some(("needs a `limit` or a condition on `size`", "this rule has neither")),
        Variable::RetryAfter | Variable::RetryAt | Variable::Used => {
            (!known.limit).then_some(("needs a `limit`", "this rule has none"))
        }
        Variable::List | Variable::ListComment | Variable::ListEntry => {
            let hint =
                "a fact in `when` that is compared with values or with \"@list\"; what `unless` names never matched";
            (!known.list).then_some(("needs a condition that matches an entry", hint))
        }
    }
}

/// A template as it was written.
pub(crate) fn show(template: &Template) -> String {
    let parts = template.parts().iter().map(|part| match part {
        Part::Text(text) => text.replace('{', "{{").replace('}', "}}"),
        Part::Variable(variable) => format!("{{{}}}", variable.name()),
    });
    parts.collect()
}
