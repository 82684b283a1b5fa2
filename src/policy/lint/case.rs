//! Whether a reply fits what its rule is about: temporary for what passes, permanent for what does not, the code that tells
//! the sender what to do.

use super::Linter;
use super::Spoken;
use crate::config;
use crate::config::Action;
use crate::config::At;
use crate::config::Comparison;
use crate::config::Condition;
use crate::config::KeyPart;
use crate::config::Notice;
use crate::config::Operator;
use crate::config::Question;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::policy::defaults::Case;
use crate::reply::Class;

/// Fewer recipients than a server has to take (RFC 5321 §4.5.3.1.8).
const FEWEST_RECIPIENTS: u64 = 100;

/// What speaks against a reply.
struct Objection {
    notice: Notice,
    message: String,
    /// What to say, if not what the rule would say by itself.
    better: Option<String>,
}

pub(super) fn check(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let mut is_silent = true;
    for Objection { notice, message, better } in [against_case(spoken), against_code(spoken)].into_iter().flatten() {
        if is_silent {
            let place = linter.place_of_status(spoken.reply);
            linter.notice(notice, place, message, better.unwrap_or_else(|| spoken.advise(spoken.default())));
            is_silent = linter.allows(notice);
        } else {
            // Two pieces of advice would contradict each other; but that one is given.
            linter.given.insert(notice);
        }
    }
}

/// What speaks against the reply in this case.
fn against_case(spoken: &Spoken<'_>) -> Option<Objection> {
    let status = spoken.reply.value.status;
    let code = status.code();
    let is_temporary = status.class() == Class::Transient;
    let says_mailbox_full = (status.enhanced().subject, status.enhanced().detail) == (2, 2);
    let asks_530 = spoken.default().code() == 530;
    let objection = |notice, message: String| Some(Objection { notice, message, better: None });
    match spoken.case {
        Case::LoginMissing if code != 530 && asks_530 => {
            objection(Notice::Login, format!("{code} does not make a mail program ask for a login; 530 does"))
        }
        Case::TlsMissing if code != 530 && asks_530 => {
            objection(Notice::Login, format!("{code} does not tell the client to use STARTTLS; 530 does"))
        }
        Case::TooLarge | Case::TooLargeForRecipient if says_mailbox_full => {
            let message = format!("{status} says that the mailbox is full, not that the message is too large");
            objection(Notice::MailboxFull, message)
        }
        Case::TooLarge | Case::TooLargeForRecipient if is_temporary && !spoken.asks_disk => {
            let message = "a message that is too large stays so: the sender tries for days, then it bounces";
            objection(Notice::Temporary, message.to_owned())
        }
        Case::Rate(_) | Case::DiskFull if !is_temporary && !spoken.is_step => {
            objection(Notice::Permanent, format!("{status} bounces what waiting would cure"))
        }
        Case::TooManyRecipients if code == 552 => {
            let message =
                "552 for too many recipients is final for Postfix as a client; after 452 the rest is sent later";
            objection(Notice::At552, message.to_owned())
        }
        Case::Blocked(_)
        | Case::DiskFull
        | Case::LoginMissing
        | Case::NotYourSender
        | Case::OverQuota
        | Case::Rate(_)
        | Case::TlsMissing
        | Case::TooLarge
        | Case::TooLargeForRecipient
        | Case::TooManyRecipients => None,
    }
}

/// What speaks against the code in any case but one.
fn against_code(spoken: &Spoken<'_>) -> Option<Objection> {
    let status = spoken.reply.value.status;
    let detail = (status.enhanced().subject, status.enhanced().detail);
    let stage = spoken.known.stage;
    let counts_recipients = spoken.case == Case::TooManyRecipients;
    let default = spoken.default();
    match status.code() {
        452 if stage == Stage::Rcpt && !counts_recipients => Some(Objection {
            notice: Notice::At452,
            message: "452 at RCPT says that a message has too many recipients: Exim opens the next one at once"
                .to_owned(),
            better: match (spoken.case, default.class()) {
                (Case::OverQuota, _) => Some("use 450 4.2.2 to have it tried again, 552 5.2.2 if not".to_owned()),
                (_, Class::Permanent) => Some(format!("{} to have it tried again, {default} if not", spoken.advice())),
                (_, Class::Transient) => None,
            },
        }),
        503 if !(counts_recipients && stage == Stage::Data) => Some(Objection {
            notice: Notice::At503,
            message: "503 tells the client that it sent its commands in the wrong order".to_owned(),
            better: None,
        }),
        451 if detail == (7, 1) => Some(Objection {
            notice: Notice::MilterDown,
            message: "451 4.7.1 is what Postfix says when a milter is down".to_owned(),
            better: (default.class() == Class::Permanent)
                .then(|| format!("{}, and the two can be told apart", spoken.advice())),
        }),
        550..=559 if matches!(detail, (1, 1 | 6) | (2, 1)) && !spoken.asks_recipient => Some(Objection {
            notice: Notice::DeadAddress,
            message: format!("{status} has senders drop the recipient's address, and this rule does not look at it"),
            better: None,
        }),
        _ => None,
    }
}

/// What a rule demands of strangers, whatever it says.
pub(super) fn check_demands(rule: &config::Rule, linter: &mut Linter<'_>) {
    if !matches!(rule.action, Action::Refuse(_)) {
        return;
    }
    let mut questions: Vec<Asked<'_>> = Vec::new();
    let mut ask = |question, positive| questions.push((question, positive));
    rule.when.for_each(true, &mut ask);
    if let Some(unless) = &rule.unless {
        unless.for_each(false, &mut ask);
    }
    let mut needed = Vec::new();
    collect_needed(&rule.when, true, &mut needed);
    if let Some(unless) = &rule.unless {
        collect_needed(unless, false, &mut needed);
    }
    check_forged_sender(rule, &needed, linter);
    // Somebody in particular: then it was agreed upon, or is about him.
    if needed.iter().any(|(question, positive)| *positive && names_somebody(&question.value)) {
        return;
    }
    check_recipient_limit(&questions, &needed, linter);
    check_tls(&questions, &needed, linter);
}

/// A question, and whether it has to hold or must not.
type Asked<'a> = (&'a At<Question>, bool);

/// The questions without whose answer the rule cannot hold: not those of which another may do.
fn collect_needed<'a>(condition: &'a Condition, positive: bool, needed: &mut Vec<Asked<'a>>) {
    match condition {
        Condition::Fact(question) => needed.push((question, positive)),
        Condition::Not(part) => collect_needed(part, !positive, needed),
        Condition::All(parts) if positive || parts.len() == 1 => {
            parts.iter().for_each(|part| collect_needed(part, positive, needed));
        }
        Condition::Any(parts) if !positive || parts.len() == 1 => {
            parts.iter().for_each(|part| collect_needed(part, positive, needed));
        }
        Condition::All(_) | Condition::Any(_) => {}
    }
}

const fn names_somebody(question: &Question) -> bool {
    match question {
        Question::Client(_)
        | Question::ClientName(_)
        | Question::Helo(_)
        | Question::Listener(_)
        | Question::Login(_)
        | Question::OverQuota(_)
        | Question::Recipient(_)
        | Question::Sender(_)
        | Question::SenderDomain(_)
        | Question::SenderLoginMismatch(_) => true,
        Question::Authenticated(_)
        | Question::DiskFree { .. }
        | Question::Port(_)
        | Question::Recipients(_)
        | Question::Size(_)
        | Question::Tls(_) => false,
    }
}

/// A budget of senders that everybody can spend.
fn check_forged_sender(rule: &config::Rule, needed: &[Asked<'_>], linter: &mut Linter<'_>) {
    let Some(limit) = &rule.limit else {
        return;
    };
    let by_sender = limit.key.iter().any(|part| matches!(part, KeyPart::Sender | KeyPart::SenderDomain));
    let by_login = limit.key.iter().any(|part| matches!(part, KeyPart::Login));
    let by_client = limit.key.iter().any(|part| matches!(part, KeyPart::Client { .. }));
    // With overrides a stranger may take the bounds of somebody else, too.
    let by_client = by_login || (by_client && limit.overrides.is_none());
    let is_known = |(question, positive): &Asked<'_>| match &question.value {
        Question::Authenticated(authenticated) => authenticated == positive,
        Question::Client(_) | Question::ClientName(_) | Question::Login(_) => *positive,
        Question::DiskFree { .. }
        | Question::Helo(_)
        | Question::Listener(_)
        | Question::OverQuota(_)
        | Question::Port(_)
        | Question::Recipient(_)
        | Question::Recipients(_)
        | Question::Sender(_)
        | Question::SenderDomain(_)
        | Question::SenderLoginMismatch(_)
        | Question::Size(_)
        | Question::Tls(_) => false,
    };
    if by_sender && !by_client && !needed.iter().any(is_known) {
        let message = "strangers can use up what is meant for a sender: without a login anybody may write any address";
        let hint = "add when.authenticated = true, or key the limit by client and sender";
        linter.notice(Notice::ForgedSender, limit.place.clone(), message, hint);
    }
}

fn check_recipient_limit(questions: &[Asked<'_>], needed: &[Asked<'_>], linter: &mut Linter<'_>) {
    let counts: Vec<&Asked<'_>> =
        needed.iter().filter(|(question, _)| question.value.fact() == Fact::Recipients).collect();
    for (question, positive) in questions {
        let Question::Recipients(comparison) = &question.value else {
            continue;
        };
        let most = most_allowed(*comparison, *positive).filter(|most| *most < FEWEST_RECIPIENTS && counts.len() < 2);
        if let Some(most) = most {
            let plural = if most == 1 { "recipient is" } else { "recipients are" };
            let message = format!("only {most} {plural} let through; RFC 5321 §4.5.3.1.8 has servers take 100");
            let hint = "with 452 4.5.3 a server sends the rest in another message; a mail program gives up";
            linter.notice(Notice::RecipientLimit, question.place.clone(), message, hint);
        }
    }
}

/// How many a comparison lets through, if it, or its contrary, refuses what is more.
const fn most_allowed(comparison: Comparison, positive: bool) -> Option<u64> {
    match (comparison.operator, positive) {
        (Operator::Greater, true) | (Operator::LessOrEqual, false) => Some(comparison.bound),
        (Operator::GreaterOrEqual, true) | (Operator::Less, false) => Some(comparison.bound.saturating_sub(1)),
        (Operator::Equal, _) | (Operator::Greater | Operator::GreaterOrEqual, false) => None,
        (Operator::Less | Operator::LessOrEqual, true) => None,
    }
}

/// Encryption demanded of everybody who comes in at port 25, or of everybody whatever the port.
fn check_tls(questions: &[Asked<'_>], needed: &[Asked<'_>], linter: &mut Linter<'_>) {
    let demands = |(question, positive): &&Asked<'_>| matches!(question.value, Question::Tls(encrypted) if encrypted != *positive);
    let Some((tls, _)) = questions.iter().find(demands) else {
        return;
    };
    let spares_port_25 = |(question, positive): &Asked<'_>| {
        matches!(&question.value, Question::Port(ports) if ports.contains(&25) != *positive)
            || matches!(&question.value, Question::Authenticated(authenticated) if authenticated == positive)
            || matches!(&question.value, Question::Listener(_))
    };
    if needed.iter().any(spares_port_25) {
        return;
    }
    let message = "a server that takes mail from the Internet must not demand TLS (RFC 3207 §4)";
    let hint = "ask for it on ports 465 and 587 only (when.port), or name those with whom it is agreed";
    linter.notice(Notice::TlsOnPort25, tls.place.clone(), message, hint);
}
