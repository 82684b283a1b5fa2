//! The configuration in force: its rules as `postward check` tells them.

use maud::html;

use super::Now;
use super::Said;
use super::words;
use crate::config::PersonalData;
use crate::policy::Outline;
use crate::policy::Outlines;

pub(super) fn page(now: &Now<'_>) -> Said {
    let config = &now.in_force.config;
    let policy = &now.in_force.policy;
    let health = now.context.metrics.health();
    let outlines = policy.outlines();
    let judgements: Vec<&[Outline]> = outlines.chunk_by(|one, next| one.rule == next.rule).collect();
    let listen: Vec<String> = config.server.listen.iter().map(|listen| listen.value.endpoint.to_string()).collect();
    let personal = match config.http.personal_data {
        PersonalData::Full => "in full",
        PersonalData::None => "not shown here",
        PersonalData::Short => "shortened here",
    };
    Said::ok(
        "Configuration",
        html! {
            h1 { "Configuration" }
            @if !health.reloaded {
                p.banner.bad { strong { "The last reload failed. " } "What was read then is not in force; the log, and " code { "postward check" } ", say why." }
            }
            dl.facts {
                div { dt { "Hash" } dd { code { (config.hash) } } }
                @if let Some(since) = health.in_force_since { div { dt { "In force since" } dd { (words::moment(since)) ", " (words::ago(since, now.time)) } } }
                div { dt { "Rules" } dd { (words::number(policy.rules().len() as u64)) } }
                div { dt { "Mode" } dd { (policy.mode().name()) } }
                div { dt { "MTAs come to" } dd { (listen.join(", ")) } }
                div { dt { "Sessions at once" } dd { "at most " (words::number(config.server.max_sessions as u64)) } }
                div { dt { "Decisions kept" } dd { "at most " (words::number(config.decisions() as u64)) } }
                div { dt { "Addresses and names" } dd { (personal) } }
            }
            h2 { "How each rule is judged" }
            p.count { "As " code { "postward check" } " tells it: what a rule asks and says, and where in an SMTP session." }
            @if judgements.is_empty() { p.empty { "There are no rules: all mail passes." } }
            @for judgement in judgements { pre tabindex="0" role="region" aria-label={ "Rule " (judgement.first().map_or("", |first| &first.rule)) } { (Outlines(judgement)) } }
        },
    )
}
