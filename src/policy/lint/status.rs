//! The codes of a reply at a stage: errors for what no milter may say there, notices for what is not registered.

use super::Linter;
use super::Spoken;
use crate::codes;
use crate::codes::Basic;
use crate::codes::Enhanced;
use crate::codes::EnhancedCode;
use crate::codes::Kind;
use crate::codes::MilterUse;
use crate::codes::Registration;
use crate::config::Notice;
use crate::config::Part;
use crate::facts::Stage;
use crate::reply::Status;

pub(super) fn check(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let errors = linter.diagnostics.errors();
    check_disconnect(spoken, linter);
    check_code(spoken, linter);
    // Of a code that cannot be said, nobody asks what goes with it.
    if linter.diagnostics.errors() == errors {
        check_enhanced(spoken, linter);
    }
}

/// Codes after which an MTA hangs up: 421, and with Postfix 521 (`smtpd_chat.c`).
fn check_disconnect(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let place = linter.place_of_status(spoken.reply);
    let code = spoken.reply.value.status.code();
    match (code, spoken.disconnect) {
        (421, false) => linter.error(
            place,
            "421 makes the MTA hang up on the client",
            "say so with `disconnect = true`, or use 450 or 451",
        ),
        (521, false) => linter.error(
            place,
            "521 makes Postfix hang up on the client",
            "use 550 or 554; `disconnect = true` says that hanging up is meant",
        ),
        (421 | 521, true) | (_, false) => {}
        (_, true) => linter.error(
            place,
            format!("`disconnect` goes with 421, not with {code}"),
            "MTAs hang up after 421 only, and Postfix after 521",
        ),
    }
}

/// The three digits.
fn check_code(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let place = linter.place_of_status(spoken.reply);
    let status = spoken.reply.value.status;
    let code = status.code();
    let stage = spoken.known.stage;
    let default = spoken.case.reply(stage).status;
    let Some(basic) = codes::basic(code) else {
        let message = format!("{code} is no reply code that anybody has defined");
        linter.error(place, message, format!("use {default}"));
        return;
    };
    if let Some((message, hint)) = never_said(basic) {
        linter.error(place, message, hint);
        return;
    }
    let names = spoken.reply.value.text.parts().iter();
    let names_address = names.into_iter().any(|part| matches!(part, Part::Text(text) if text.contains('@')));
    if code == 551 && !names_address {
        linter.error(place, "551 has to name the address to use instead (RFC 5321 §3.4)", "use 550 5.7.1");
    } else if basic.milter_unusual.contains(&stage.name()) {
        let message = format!("{code} is not usual at {stage}");
        let why = basic.milter_why.unwrap_or("RFC 5321 §4.3.2 does not list it there");
        linter.notice(Notice::UnusualStage, place, message, format!("{}. {why}", instead(spoken, basic)));
    } else if !basic.milter.contains(&stage.name()) {
        let message = format!("{code} cannot be said at {stage}");
        let elsewhere = said_at("it can be said", &[basic.milter, basic.milter_unusual].concat());
        linter.error(place, message, format!("{elsewhere}; here, use {default}"));
    }
}

/// Why a code is not for milters at any stage.
fn never_said(basic: &Basic) -> Option<(String, String)> {
    if !basic.milter.is_empty() || !basic.milter_unusual.is_empty() {
        return None;
    }
    let code = basic.code;
    let only = |stage: &str| basic.stages.iter().all(|of_code| [stage, "auth"].contains(of_code));
    let message = match basic.kind {
        Kind::Standard if !basic.stages.is_empty() && only("auth") => {
            format!("{code} is an answer to AUTH, which no milter gives")
        }
        Kind::Standard if only("starttls") => {
            format!("{code} is an answer to STARTTLS and AUTH, which no milter gives")
        }
        Kind::Standard => format!("{code} ({}) is for the MTA to say, not for a milter", basic.name),
        Kind::NonStandard => format!("{code} is in no standard ({})", basic.defined_by),
        Kind::Dotless => {
            format!("{code} is no reply code: it is {} without dots", basic.dotted.unwrap_or("an enhanced code"))
        }
        Kind::Local => format!("{code} is no reply code: sending programs make it up"),
    };
    let hint = match basic.instead {
        Some(instead) if only("auth") => {
            format!("530 5.7.0 asks for authentication, 550 5.7.1 refuses; {code} says {instead}")
        }
        Some(instead) => format!("use {instead}"),
        None if only("starttls") => "530 5.7.0 asks for authentication, 550 5.7.1 refuses".to_owned(),
        None => "use 451 4.3.0 for trouble that passes, 550 5.7.1 to refuse".to_owned(),
    };
    Some((message, hint))
}

/// What the rule would say by itself there, if that is as temporary or permanent, and better.
fn instead(spoken: &Spoken<'_>, basic: &Basic) -> String {
    let stage = spoken.known.stage.name();
    let default = spoken.case.reply(spoken.known.stage).status;
    let is_better = codes::basic(default.code()).is_some_and(|default| default.milter.contains(&stage));
    let is_alike = default.class() == spoken.reply.value.status.class();
    if is_better && is_alike { format!("use {default}") } else { said_at("it is usual", basic.milter) }
}

/// What the rule would say by itself, as an enhanced code of the class that is said.
fn better_enhanced(spoken: &Spoken<'_>) -> EnhancedCode {
    let said: EnhancedCode = spoken.reply.value.status.enhanced().into();
    let default: EnhancedCode = spoken.case.reply(spoken.known.stage).status.enhanced().into();
    if default.class == said.class { default } else { EnhancedCode { class: said.class, subject: 7, detail: 1 } }
}

/// `it can be said at mail, rcpt and data`
fn said_at(what: &str, stages: &[&str]) -> String {
    match stages.split_last() {
        Some((last, [])) => format!("{what} at {last}"),
        Some((last, others)) => format!("{what} at {} and {last}", others.join(", ")),
        None => "use another".to_owned(),
    }
}

/// The enhanced code.
fn check_enhanced(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let place = linter.place_of_status(spoken.reply);
    let status = spoken.reply.value.status;
    let code: EnhancedCode = status.enhanced().into();
    let stage = spoken.known.stage;
    let default = better_enhanced(spoken);
    if is_about_mailbox(code) && stage < Stage::Rcpt {
        let message = format!("{code} is about a recipient; none is known at {stage}");
        let hint = format!("use at = \"rcpt\", or another enhanced code ({default})");
        linter.error(place, message, hint);
        return;
    }
    let Some(entry) = codes::registered(code) else {
        let message = match codes::enhanced(code).find_map(|vendors| vendors.vendor) {
            Some(vendor) => format!("{code} is {vendor}'s own"),
            None => format!("{code} is not registered"),
        };
        let hint = format!("use {default}: no other program knows what {code} means");
        linter.notice(Notice::UnregisteredCode, place, message, hint);
        return;
    };
    if entry.status == Registration::Deprecated {
        let message = format!("{code} is not used any more");
        linter.notice(Notice::UnregisteredCode, place, message, format!("use {default}"));
    } else if is_about_recipient(code) && stage < Stage::Rcpt {
        let message = format!("{code} is about a recipient; none is known at {stage}");
        let hint = format!("use at = \"rcpt\", or another enhanced code ({default})");
        linter.notice(Notice::RecipientUnknown, place, message, hint);
    } else if entry.milter == MilterUse::No {
        let why = entry.milter_why.unwrap_or("no policy gives it");
        let message = format!("{code} ({}) is not for policies", entry.name);
        linter.notice(Notice::NotForPolicy, place, message, format!("use {default}. {why}"));
    } else if !is_usual(status, entry) {
        check_pair(status, entry, linter, spoken);
    }
}

/// What the registry says of a pair that is not in common use.
fn check_pair(status: Status, entry: &Enhanced, linter: &mut Linter<'_>, spoken: &Spoken<'_>) {
    let place = linter.place_of_status(spoken.reply);
    let code: EnhancedCode = status.enhanced().into();
    let default = spoken.case.reply(spoken.known.stage).status;
    let default = (default.class() == status.class()).then(|| default.to_string());
    if !entry.classes.contains(&code.class) {
        let message = format!("{code} is not registered; {} is", in_its_class(entry, code));
        let known = entry.usual.iter().map(|pair| (*pair).to_owned());
        let known = known.filter(|pair| pair.ends_with(&code.to_string()));
        linter.notice(Notice::UnregisteredClass, place, message, choice(default, known));
    } else if !entry.basic.is_empty() && !entry.basic.contains(&status.code()) {
        let registered = entry.basic.iter().filter(|basic| **basic / 100 == code.class);
        let registered = registered.map(|basic| format!("{basic} {code}"));
        let usual = entry.usual.iter().map(|pair| (*pair).to_owned()).filter(|pair| pair.ends_with(&code.to_string()));
        let message = format!("{} and {code} ({}) do not go together", status.code(), entry.name);
        linter.notice(Notice::UnregisteredPair, place, message, choice(default, registered.chain(usual)));
    }
}

/// `use 550 5.7.1; known are 554 5.7.1 and 553 5.7.1`
fn choice(default: Option<String>, known: impl Iterator<Item = String>) -> String {
    let mut known: Vec<String> = known.filter(|pair| default.as_ref() != Some(pair)).collect();
    known.dedup();
    match (default, known.as_slice()) {
        (Some(default), []) => format!("use {default}"),
        (Some(default), known) => format!("use {default}; known are {}", known.join(", ")),
        (None, []) => "use an enhanced code that says what the matter is, such as 4.7.1 or 5.7.1".to_owned(),
        (None, known) => format!("known are {}", known.join(", ")),
    }
}

/// The same code in a class in which it is registered.
fn in_its_class(entry: &Enhanced, code: EnhancedCode) -> String {
    let class = entry.classes.iter().copied().find(|class| *class != 2).unwrap_or(code.class);
    EnhancedCode { class, ..code }.to_string()
}

/// Whether servers say just that, whatever is registered.
fn is_usual(status: Status, entry: &Enhanced) -> bool {
    let text = status.to_string();
    let of_basic = codes::basic(status.code()).is_some_and(|basic| basic.usual.contains(&text.as_str()));
    of_basic || entry.usual.contains(&text.as_str())
}

/// Codes about one mailbox, which senders may take for dead.
const fn is_about_mailbox(code: EnhancedCode) -> bool {
    code.subject == 2 || (code.subject == 1 && matches!(code.detail, 1 | 10))
}

/// Other codes about a recipient's address.
const fn is_about_recipient(code: EnhancedCode) -> bool {
    code.subject == 1 && matches!(code.detail, 2 | 4 | 6)
}
