//! Variables of a text that stand for nothing where it is spoken.

use super::Known;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::Place;
use crate::config::Template;
use crate::config::Variable;
use crate::facts::Stage;

/// Reports variables that stand for nothing at that stage.
pub(super) fn check(text: &Template, place: &Place, known: Known, diagnostics: &mut Diagnostics) {
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
