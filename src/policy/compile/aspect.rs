//! In how many ways a rule is judged: by the declared size and by the true one, for each thing that its limit counts.

use super::questions::Questions;
use crate::config;
use crate::config::Action;
use crate::config::KeyPart;
use crate::config::Size;
use crate::facts::Stage;
use crate::policy::limit::Measure;
use crate::policy::limit::key_stage;
use crate::policy::limit::noun;

/// One way in which a rule is judged, before it is put in a plan.
#[derive(Clone, Copy)]
pub(super) struct Aspect {
    pub(super) measure: Option<Measure>,
    pub(super) natural: Stage,
    /// Judged by the declared size, at or after MAIL.
    pub(super) declared: bool,
}

impl Aspect {
    /// Connections are counted when they come, whenever it is spoken.
    pub(super) fn is_counted_early(self, judged: Stage) -> bool {
        judged < Stage::Mail && self.measure.is_some_and(Measure::is_of_connection)
    }
}

/// How often and by what a rule is judged.
pub(super) fn aspects(rule: &config::Rule, questions: &Questions<'_>, barrier: Stage) -> Vec<Aspect> {
    let refuses = matches!(rule.action, Action::Refuse(_));
    let by_declared = refuses && questions.size_is_lower_bound() && barrier < Stage::EndOfMessage;
    let facts = questions.stage();
    let facts_but_size = questions.stage_without_size().max(Stage::Mail);
    let Some(limit) = &rule.limit else {
        let mut aspects = vec![Aspect { measure: None, natural: facts, declared: false }];
        if by_declared {
            aspects.push(Aspect { measure: None, natural: facts_but_size, declared: true });
        }
        return aspects;
    };
    let known = |parts: &[KeyPart]| parts.iter().map(|part| key_stage(*part)).max().unwrap_or(Stage::Connect);
    let (key, of) = (known(&limit.key), known(&limit.of));
    let mut aspects = Vec::new();
    for measure in measures(limit) {
        if measure == Measure::BadRecipients {
            aspects.extend(looks(rule, facts.max(key).max(barrier)));
            continue;
        }
        let counted = measure.stage().max(key).max(if measure == Measure::Distinct { of } else { key });
        aspects.push(Aspect { measure: Some(measure), natural: facts.max(counted), declared: false });
        let repeats = measure == Measure::Messages && by_declared;
        if repeats {
            aspects.push(Aspect { measure: Some(measure), natural: facts_but_size.max(counted), declared: true });
        }
        if measure == Measure::Bytes && facts < Stage::EndOfMessage {
            let natural = Stage::EndOfMessage;
            aspects.push(Aspect { measure: Some(measure), natural, declared: false });
        }
    }
    aspects
}

/// Whether too many recipients were refused is asked as soon as that can be, and again for each recipient; or once, where the
/// rule is to speak at another stage than RCPT.
fn looks(rule: &config::Rule, known: Stage) -> impl Iterator<Item = Aspect> {
    let at = rule.at.as_ref().map(|at| at.value);
    let first = Some(known).filter(|known| *known >= Stage::Rcpt || at != Some(Stage::Rcpt));
    let again = Some(Stage::Rcpt).filter(|stage| *stage > known && at.is_none_or(|at| at == Stage::Rcpt));
    let look = |natural| Aspect { measure: Some(Measure::BadRecipients), natural, declared: false };
    [first, again].into_iter().flatten().map(look)
}

/// What counts whole messages comes before what counts recipients: judged at the same stage, it speaks for all of them.
pub(super) fn measures(limit: &config::Limit) -> Vec<Measure> {
    let of_messages = [Measure::Messages, Measure::Bytes, Measure::Distinct, Measure::Recipients];
    let all = [Measure::Connections, Measure::Concurrent, Measure::BadRecipients].into_iter().chain(of_messages);
    all.filter(|measure| match measure {
        Measure::BadRecipients => !limit.bad_recipients.is_empty(),
        Measure::Concurrent => limit.concurrent.is_some(),
        Measure::Bytes | Measure::Connections | Measure::Distinct | Measure::Messages | Measure::Recipients => {
            !rates(limit, *measure).is_empty()
        }
    })
    .collect()
}

pub(super) fn rates(limit: &config::Limit, measure: Measure) -> &[config::Rate] {
    match measure {
        Measure::Bytes => &limit.bytes,
        Measure::BadRecipients | Measure::Concurrent => &[],
        Measure::Connections => &limit.connections,
        Measure::Distinct => &limit.distinct,
        Measure::Messages => &limit.messages,
        Measure::Recipients => &limit.recipients,
    }
}

/// Whether what is counted differs between recipients.
pub(super) fn counts_recipients(limit: &config::Limit, aspect: Aspect) -> bool {
    let is_of_recipient = |part: &KeyPart| matches!(part, KeyPart::Recipient | KeyPart::RecipientDomain);
    let values = limit.of.iter().filter(|_| aspect.measure == Some(Measure::Distinct));
    let counts_each = match aspect.measure {
        Some(Measure::Recipients) => true,
        Some(Measure::BadRecipients) => aspect.natural >= Stage::Rcpt,
        Some(Measure::Bytes | Measure::Concurrent | Measure::Connections | Measure::Distinct | Measure::Messages)
        | None => false,
    };
    counts_each || limit.key.iter().chain(values).any(is_of_recipient)
}

/// A limit as a sentence.
pub(super) fn counted(limit: &config::Limit, measure: Measure) -> String {
    let bounds: Vec<String> = match measure {
        Measure::BadRecipients => {
            let shown = |share: &config::Share| {
                let (percent, least, per) = (share.percent, share.least, config::Span(share.per));
                format!("at most {percent}% of recipients refused, of at least {least} in any {per}")
            };
            limit.bad_recipients.iter().map(shown).collect()
        }
        Measure::Concurrent => {
            let most = limit.concurrent.unwrap_or_default();
            vec![format!("at most {most} {} at once", so_many("connections", most))]
        }
        Measure::Bytes => {
            let shown =
                |rate: &config::Rate| format!("at most {} in any {}", Size(rate.amount), config::Span(rate.per));
            limit.bytes.iter().map(shown).collect()
        }
        Measure::Distinct => {
            let shown = |rate: &config::Rate| {
                let noun = different(&limit.of, rate.amount);
                format!("at most {} different {noun} in any {}", rate.amount, config::Span(rate.per))
            };
            limit.distinct.iter().map(shown).collect()
        }
        Measure::Connections | Measure::Messages | Measure::Recipients => {
            let name = measure.name();
            let shown = |rate: &config::Rate| {
                let noun = so_many(name, rate.amount);
                format!("at most {} {noun} in any {}", rate.amount, config::Span(rate.per))
            };
            rates(limit, measure).iter().map(shown).collect()
        }
    };
    let parts: Vec<String> = limit.key.iter().map(|part| key_name(*part)).collect();
    let key = if parts.is_empty() { "in all".to_owned() } else { format!("for each {}", parts.join(" and ")) };
    let own = limit.overrides.as_ref().map(|name| format!(", but for @{}", name.value)).unwrap_or_default();
    let tries = match limit.charge {
        config::Charge::Accepted => "",
        config::Charge::Attempts => ", tries counted",
        config::Charge::Refused => ", refused ones counted",
    };
    let blocking = limit.steps.iter().find(|step| !step.then.passes()).map(|step| step.percent.value);
    let then = blocking.map_or_else(|| "then".to_owned(), |percent| format!("above {percent}%"));
    let block = limit.block_for.map(|time| format!(", {then} none for {}", config::Span(time))).unwrap_or_default();
    let bounds = bounds.join(" and ");
    // What is above may pass.
    let bounds = if limit.steps.is_empty() { bounds } else { bounds.replace("at most ", "") };
    format!("{bounds} {key}{own}{tries}{block}")
}

/// The plural, or what it is of one.
fn so_many(plural: &'static str, amount: u64) -> &'static str {
    if amount == 1 { plural.trim_end_matches('s') } else { plural }
}

/// What different values are called, in full.
fn different(of: &[KeyPart], amount: u64) -> String {
    let noun = noun(of, amount);
    match of {
        [KeyPart::Client { v4: 32, v6: 128 }] => noun.to_owned(),
        [KeyPart::Client { v4, v6 }] => format!("{noun} (/{v4} for IPv4, /{v6} for IPv6)"),
        [_] => noun.to_owned(),
        parts => {
            let parts: Vec<String> = parts.iter().map(|part| key_name(*part)).collect();
            format!("{noun} of {}", parts.join(" and "))
        }
    }
}

fn key_name(part: KeyPart) -> String {
    let name = match part {
        KeyPart::Client { v4: 32, v6: 128 } => "client",
        KeyPart::Client { v4, v6 } => return format!("client network (/{v4} for IPv4, /{v6} for IPv6)"),
        KeyPart::Helo => "HELO name",
        KeyPart::Listener => "listener",
        KeyPart::Login => "login",
        KeyPart::Recipient => "recipient",
        KeyPart::RecipientDomain => "recipient domain",
        KeyPart::Sender => "sender",
        KeyPart::SenderDomain => "sender domain",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_the_noun_is_singular() {
        for (plural, one) in [("connections", "connection"), ("messages", "message"), ("recipients", "recipient")] {
            assert_eq!([0, 1, 2].map(|amount| so_many(plural, amount)), [plural, one, plural]);
        }
    }
}
