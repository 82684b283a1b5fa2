//! The codes of a reply at a stage: errors for what no milter may say there, notices for what is not registered.

use super::Linter;
use super::Spoken;
use super::ends_session;
use crate::codes;
use crate::codes::Basic;
use crate::codes::Enhanced;
use crate::codes::EnhancedCode;
use crate::codes::Kind;
use crate::codes::MilterUse;
use crate::codes::Registration;
use crate::config::Notice;
use crate::config::Part;
use crate::config::Variable;
use crate::facts::Stage;
use crate::policy::defaults::Case;
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
            format!("say so with `disconnect = true`, or {}", without_hanging_up(spoken)),
        ),
        (521, false) => linter.error(
            place,
            "521 makes Postfix hang up on the client",
            "use 550 or 554; `disconnect = true` says that hanging up is meant (Sendmail does not)",
        ),
        (421 | 521, true) | (_, false) => {}
        (_, true) => linter.error(
            place,
            format!("`disconnect` goes with 421, not with {code}"),
            "MTAs hang up after 421 only, and Postfix after 521",
        ),
    }
}

/// What to say in place of 421 if the session shall go on.
fn without_hanging_up(spoken: &Spoken<'_>) -> String {
    match spoken.case {
        Case::Blocked(_) | Case::NotYourSender | Case::Rate(_) if spoken.known.stage < Stage::Rcpt => {
            "use 450 4.7.1 with at = \"rcpt\"".to_owned()
        }
        Case::Blocked(_) | Case::NotYourSender | Case::Rate(_) => "use 450 4.7.1".to_owned(),
        Case::DiskFull
        | Case::LoginMissing
        | Case::OverQuota
        | Case::TlsMissing
        | Case::TooLarge
        | Case::TooLargeForRecipient
        | Case::TooManyRecipients => spoken.advice(),
    }
}

/// The three digits.
fn check_code(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let place = linter.place_of_status(spoken.reply);
    let status = spoken.reply.value.status;
    let code = status.code();
    let stage = spoken.known.stage;
    let advice = spoken.advice();
    let Some(basic) = codes::basic(code) else {
        let message = format!("{code} is no reply code that anybody has defined");
        linter.error(place, message, advice);
        return;
    };
    if basic.milter.is_empty() && basic.milter_unusual.is_empty() {
        let hint = if linter.is_trial { String::new() } else { instead_of_never(basic, spoken) };
        linter.error(place, never_said(basic), hint);
        return;
    }
    if code == 551 && !names_address(spoken) {
        let hint = format!("name it, as in <new@example.com>, or {advice}");
        linter.error(place, "551 has to name the address to use instead (RFC 5321 §3.4)", hint);
    } else if basic.milter_unusual.contains(&stage.name()) {
        let message = format!("{code} is not usual at {stage}");
        let why = basic.milter_why.unwrap_or("RFC 5321 §4.3.2 does not list it there");
        let hint = if linter.is_trial {
            String::new()
        } else {
            format!("{}. {}", instead(spoken, basic), at_stage(why, stage))
        };
        linter.notice(Notice::UnusualStage, place, message, hint);
    } else if !basic.milter.contains(&stage.name()) {
        let message = format!("{code} cannot be said at {stage}");
        let elsewhere = said_at("it can be said", &[basic.milter, basic.milter_unusual].concat());
        linter.error(place, message, format!("{elsewhere}; here, {advice}"));
    }
}

/// A reason without what it says of CONNECT, unless that is the stage.
fn at_stage(why: &str, stage: Stage) -> String {
    let is_about = |sentence: &&str| stage == Stage::Connect || !sentence.starts_with("At connect");
    let sentences: Vec<&str> = why.trim_end_matches('.').split(". ").filter(is_about).collect();
    format!("{}.", sentences.join(". "))
}

/// Whether the text names an address, or a list does in its comments.
fn names_address(spoken: &Spoken<'_>) -> bool {
    spoken.reply.value.text.parts().iter().any(|part| match part {
        Part::Text(text) => text.split(' ').any(|word| {
            word.split_once('@').is_some_and(|(local, domain)| {
                local.ends_with(|c: char| c.is_ascii_alphanumeric())
                    && domain.starts_with(|c: char| c.is_ascii_alphanumeric())
            })
        }),
        Part::Variable(variable) => *variable == Variable::ListComment,
    })
}

/// Why a code is not for milters at any stage.
fn never_said(basic: &Basic) -> String {
    let code = basic.code;
    match basic.kind {
        Kind::Standard if is_answer_to(basic, &["auth"]) => {
            format!("{code} is an answer to AUTH, which no milter gives")
        }
        Kind::Standard if is_answer_to(basic, &["auth", "starttls"]) => {
            format!("{code} is an answer to STARTTLS and AUTH, which no milter gives")
        }
        Kind::Standard => format!("{code} ({}) is for the MTA to say, not for a milter", basic.name),
        Kind::NonStandard => format!("{code} is in no standard ({})", basic.defined_by),
        Kind::Dotless => {
            format!("{code} is no reply code: it is {} without dots", basic.dotted.unwrap_or("an enhanced code"))
        }
        Kind::Local => format!("{code} is no reply code: sending programs make it up"),
    }
}

/// What to say in place of a code that is not for milters: what the catalogue names, if it fits there.
fn instead_of_never(basic: &Basic, spoken: &Spoken<'_>) -> String {
    let named = basic.instead.and_then(|instead| instead.parse().ok()).filter(|named| spoken.would_pass(*named));
    // One that is also read as an enhanced code without dots was hardly meant as an answer to AUTH.
    let named = named.filter(|_| basic.dotted.is_some() || !is_answer_to(basic, &["auth", "starttls"]));
    named.map_or_else(|| spoken.advice(), |named| spoken.advise(named))
}

fn is_answer_to(basic: &Basic, commands: &[&str]) -> bool {
    !basic.stages.is_empty() && basic.stages.iter().all(|stage| commands.contains(stage))
}

/// What the rule would say by itself there, if that is as temporary or permanent, and better.
fn instead(spoken: &Spoken<'_>, basic: &Basic) -> String {
    let default = spoken.default();
    let is_alike = default.class() == spoken.reply.value.status.class();
    // A limit that speaks at MAIL and at RCPT can say the same at both then.
    let waits = spoken.can_wait_for_rcpt() && basic.milter.contains(&Stage::Rcpt.name());
    match (is_alike && spoken.would_pass(default), waits) {
        (true, true) => format!("{}, or at = \"rcpt\"", spoken.advise(default)),
        (true, false) => spoken.advise(default),
        (false, true) => "it is usual from RCPT on: at = \"rcpt\"".to_owned(),
        (false, false) if basic.milter.is_empty() => spoken.advice(),
        (false, false) => said_at("it is usual", basic.milter),
    }
}

/// `use 5.7.1` where only the enhanced code has to be another, else a whole reply.
fn better(spoken: &Spoken<'_>) -> String {
    let said = spoken.reply.value.status;
    let enhanced = better_enhanced(spoken);
    let whole = Status::new(said.class(), said.code() % 100, enhanced.subject, enhanced.detail);
    let is_enough = whole.is_some_and(|whole| enhanced.class == said.code() / 100 && spoken.would_pass(whole));
    if is_enough { format!("use {enhanced}") } else { spoken.advice() }
}

/// An enhanced code of the class that is said: what the rule would say by itself, or else the first that goes with the code.
fn better_enhanced(spoken: &Spoken<'_>) -> EnhancedCode {
    let said = spoken.reply.value.status;
    let default = spoken.default().enhanced();
    let rest = said.code() % 100;
    let details = [(default.subject, default.detail), (7, 1), (7, 0), (3, 1), (3, 0), (3, 2), (5, 4), (0, 0)];
    let mut details = details.into_iter().skip(usize::from(spoken.default().class() != said.class()));
    let fits = |status: &Status| {
        let notices = spoken.notices_of(*status);
        notices.is_some_and(|notices| !notices.iter().any(|notice| OF_ENHANCED.contains(notice)))
    };
    let fitting = details.find_map(|(subject, detail)| Status::new(said.class(), rest, subject, detail).filter(fits));
    fitting.unwrap_or_else(|| spoken.default()).enhanced().into()
}

/// `it can be said at mail, rcpt and data`
fn said_at(what: &str, stages: &[&str]) -> String {
    match stages.split_last() {
        Some((last, [])) => format!("{what} at {last}"),
        Some((last, others)) => format!("{what} at {} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The enhanced code.
fn check_enhanced(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let place = linter.place_of_status(spoken.reply);
    let status = spoken.reply.value.status;
    let code: EnhancedCode = status.enhanced().into();
    let stage = spoken.known.stage;
    let better = if linter.is_trial { String::new() } else { better(spoken) };
    if is_about_mailbox(code) && stage < Stage::Rcpt {
        let message = format!("{code} is about a recipient; none is known at {stage}");
        linter.error(place, message, with_recipient(spoken, better));
        return;
    }
    let Some(entry) = codes::registered(code) else {
        let message = match codes::enhanced(code).find_map(|vendors| vendors.vendor) {
            Some(vendor) => format!("{code} is {vendor}'s own"),
            None => format!("{code} is not registered"),
        };
        let hint = format!("{better}: no other program knows what {code} means");
        linter.notice(Notice::UnregisteredCode, place, message, hint);
        return;
    };
    if entry.status == Registration::Deprecated {
        let message = format!("{code} is not used any more");
        linter.notice(Notice::UnregisteredCode, place, message, better);
    } else if is_about_recipient(code) && stage < Stage::Rcpt {
        let message = format!("{code} is about a recipient; none is known at {stage}");
        linter.notice(Notice::RecipientUnknown, place, message, with_recipient(spoken, better));
    } else if entry.milter == MilterUse::No {
        let why = entry.milter_why.unwrap_or("no policy gives it");
        let message = format!("{code} ({}) is not for policies", entry.name);
        linter.notice(Notice::NotForPolicy, place, message, format!("{better}. {why}"));
    } else if !is_usual(status, entry) {
        check_pair(status, entry, linter, spoken);
    }
}

/// What to do about a code about a recipient where none is known.
fn with_recipient(spoken: &Spoken<'_>, better: String) -> String {
    if spoken.can_wait_for_rcpt() && spoken.asks_recipient { format!("{better}, or at = \"rcpt\"") } else { better }
}

/// What the registry says of a pair that is not in common use.
fn check_pair(status: Status, entry: &Enhanced, linter: &mut Linter<'_>, spoken: &Spoken<'_>) {
    let place = linter.place_of_status(spoken.reply);
    let code: EnhancedCode = status.enhanced().into();
    let of_class = entry.classes.contains(&code.class);
    if of_class && (entry.basic.is_empty() || entry.basic.contains(&status.code())) {
        return;
    }
    let is_known = entry.usual.iter().any(|pair| pair.ends_with(&format!(" {code}")));
    let (notice, message) = if of_class || is_known {
        let message = format!("{} and {code} ({}) do not go together", status.code(), entry.name);
        (Notice::UnregisteredPair, message)
    } else {
        let message = format!("{code} is not registered; {} is", in_its_class(entry, code));
        (Notice::UnregisteredClass, message)
    };
    let hint = if linter.is_trial { String::new() } else { choice(entry, spoken) };
    linter.notice(notice, place, message, hint);
}

/// `use 550 5.7.1; known are 554 5.7.1, 553 5.7.1`, as far as they can be said there.
fn choice(entry: &Enhanced, spoken: &Spoken<'_>) -> String {
    let said = spoken.reply.value.status;
    let default = Some(spoken.default()).filter(|default| default.class() == said.class());
    let known = registered_pairs(entry, said).chain(entry.usual.iter().filter_map(|pair| pair.parse().ok()));
    let known = known.filter(|pair: &Status| pair.enhanced() == said.enhanced() && Some(*pair) != default);
    let mut known: Vec<String> = known
        .filter(|pair| fits_session(pair, spoken) && spoken.would_pass(*pair))
        .map(|pair| pair.to_string())
        .collect();
    known.dedup();
    let known = match known.as_slice() {
        [] => None,
        [only] => Some(format!("known is {only}")),
        several => Some(format!("known are {}", several.join(", "))),
    };
    match (default.map(|default| spoken.advise(default)), known) {
        (Some(advice), Some(known)) => format!("{advice}; {known}"),
        (Some(advice), None) => advice,
        (None, Some(known)) => known,
        (None, None) => better(spoken),
    }
}

/// Whether it hangs up if the rule does, and does not if not.
fn fits_session(status: &Status, spoken: &Spoken<'_>) -> bool {
    ends_session(*status) == spoken.disconnect
}

/// The enhanced code that is said with the codes it is registered with, if it is registered in that class.
fn registered_pairs(entry: &Enhanced, said: Status) -> impl Iterator<Item = Status> {
    let enhanced = said.enhanced();
    let digit = EnhancedCode::from(enhanced).class;
    let codes = entry.basic.iter().filter(move |code| **code / 100 == digit && entry.classes.contains(&digit));
    codes.filter_map(move |code| Status::new(said.class(), code % 100, enhanced.subject, enhanced.detail))
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
    code.subject == 1 && matches!(code.detail, 2 | 3 | 4 | 6)
}

/// What is said of enhanced codes, whatever stands before them.
const OF_ENHANCED: [Notice; 8] = [
    Notice::DeadAddress,
    Notice::MailboxFull,
    Notice::MilterDown,
    Notice::NotForPolicy,
    Notice::RecipientUnknown,
    Notice::UnregisteredClass,
    Notice::UnregisteredCode,
    Notice::UnregisteredPair,
];
