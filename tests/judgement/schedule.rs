//! When a rule is judged, and when the client hears of it: as early as what it asks is known, and not before the rules
//! above it that may exempt.

use crate::model::Action;
use crate::model::Ask;
use crate::model::Measure;
use crate::model::Policy;
use crate::model::Rule;
use crate::model::Stage;

/// `at` asks for more than can be: the policy must not compile.
#[derive(Debug)]
pub(crate) struct AnswersTooEarly;

/// One way in which a rule is judged. Most have one; a rule about the size is judged by the declared one, too, and a
/// limit for each thing that it counts.
#[derive(Debug, PartialEq)]
pub(crate) struct Judgement {
    /// When its effect is seen. By then all that it asks is known.
    pub(crate) stage: Stage,
    pub(crate) counts: Option<(Measure, u64)>,
    /// Whether it may differ between the recipients of one message.
    pub(crate) of_recipient: bool,
}

/// When each rule is judged.
pub(crate) fn judgements(policy: &Policy) -> Result<Vec<Vec<Judgement>>, AnswersTooEarly> {
    // Nothing below a rule that may exempt is judged before it.
    let mut barrier = Stage::Connect;
    let mut all = Vec::new();
    for rule in &policy.rules {
        let mut judgements: Vec<Judgement> = Vec::new();
        let mut latest = barrier;
        for (known, counts) in known_at(rule, barrier) {
            let judged = known.max(barrier);
            latest = latest.max(judged);
            let stage = said_at(policy, rule, judged)?;
            let of_recipient = rule.is_about_recipients() || matches!(counts, Some((Measure::Recipients, _)));
            let judgement = Judgement { stage, counts, of_recipient };
            if !judgements.contains(&judgement) {
                judgements.push(judgement);
            }
        }
        // What speaks for the whole message comes before what speaks for each recipient.
        judgements.sort_by_key(|judgement| (judgement.stage, judgement.of_recipient));
        if rule.exempts() {
            barrier = latest;
        }
        all.push(judgements);
    }
    Ok(all)
}

/// From when on all that a rule asks is known, for each thing that it counts.
fn known_at(rule: &Rule, barrier: Stage) -> Vec<(Stage, Option<(Measure, u64)>)> {
    let known = rule.asks().map(|(ask, _)| ask.known_at()).max().unwrap_or(Stage::Connect);
    // By the declared size, if that can only err in one way: more was declared than may be, so more must not come.
    let sizes: Vec<(&Ask, bool)> = rule.asks().filter(|(ask, _)| matches!(ask, Ask::Size(..))).collect();
    let only_too_large = sizes.iter().all(|(ask, positive)| *positive && matches!(ask, Ask::Size(">" | ">=", _)));
    let by_declared = matches!(rule.action, Action::Refuse(_)) && !sizes.is_empty() && only_too_large;
    let others = rule.asks().filter(|(ask, _)| !matches!(ask, Ask::Size(..)));
    let early = others.map(|(ask, _)| ask.known_at()).max().unwrap_or(Stage::Connect).max(Stage::Mail);
    let by_declared = by_declared && early.max(barrier) < Stage::End;
    let Some(limit) = &rule.limit else {
        return std::iter::once((known, None)).chain(by_declared.then_some((early, None))).collect();
    };
    let mut all = Vec::new();
    for (measure, bound) in limit.bounds() {
        let starts = limit.key.iter().map(|part| key_known_at(part)).max().unwrap_or(Stage::Connect);
        let starts = starts.max(if measure == Measure::Recipients { Stage::Rcpt } else { Stage::Mail });
        let counts = Some((measure, bound));
        all.push((known.max(starts), counts));
        match measure {
            Measure::Bytes => all.push((Stage::End, counts)),
            Measure::Messages => all.extend(by_declared.then_some((early.max(starts), counts))),
            Measure::Recipients => {}
        }
    }
    all
}

/// When a rule that is judged at `judged` has its effect.
fn said_at(policy: &Policy, rule: &Rule, judged: Stage) -> Result<Stage, AnswersTooEarly> {
    let Action::Refuse(codes) = rule.action else {
        return Ok(judged.max(Stage::Mail));
    };
    // MTAs greet with 554 whatever the code was.
    let can_greet = codes.is_some_and(|codes| codes.starts_with("554"));
    match rule.at {
        Some(at) if at < judged || (at == Stage::Connect && !can_greet) => Err(AnswersTooEarly),
        Some(at) => Ok(at),
        None if policy.answer_at == Stage::Connect && judged == Stage::Connect && can_greet => Ok(Stage::Connect),
        None => Ok(judged.max(policy.answer_at).max(Stage::Mail)),
    }
}

impl Rule {
    /// Everything that it asks, and whether it asks it under no `not` and no `unless`.
    fn asks(&self) -> impl Iterator<Item = (&Ask, bool)> {
        let mut asks = Vec::new();
        self.when.for_each(true, &mut |ask, positive| asks.push((ask, positive)));
        self.unless.iter().for_each(|unless| unless.for_each(false, &mut |ask, positive| asks.push((ask, positive))));
        asks.into_iter()
    }

    pub(crate) fn exempts(&self) -> bool {
        !self.monitor && matches!(self.action, Action::Accept | Action::Discard | Action::Quarantine)
    }

    fn is_about_recipients(&self) -> bool {
        let in_key = self.limit.iter().flat_map(|limit| &limit.key).any(|part| key_known_at(part) == Stage::Rcpt);
        in_key || self.asks().any(|(ask, _)| ask.known_at() == Stage::Rcpt)
    }
}

impl Ask {
    const fn known_at(&self) -> Stage {
        match self {
            Self::Client(_) | Self::ClientName(_) | Self::Listener(_) | Self::Port(_) => Stage::Connect,
            Self::Helo(_) => Stage::Helo,
            Self::Authenticated(_)
            | Self::DiskFree(..)
            | Self::Login(_)
            | Self::Sender(_)
            | Self::SenderDomain(_)
            | Self::SenderLoginMismatch(_)
            | Self::Tls(_) => Stage::Mail,
            Self::OverQuota(_) | Self::Recipient(_) | Self::Recipients(..) => Stage::Rcpt,
            Self::Size(..) => Stage::End,
        }
    }
}

fn key_known_at(part: &str) -> Stage {
    match part {
        "client" | "client/24/32" | "listener" => Stage::Connect,
        "helo" => Stage::Helo,
        "login" | "sender" | "sender_domain" => Stage::Mail,
        "recipient" | "recipient_domain" => Stage::Rcpt,
        _ => unreachable!("{part}"),
    }
}
