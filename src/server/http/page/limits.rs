//! The limits: how many keys each remembers, and those of them that use most.

use maud::Markup;
use maud::html;

use super::Now;
use super::Said;
use super::words;
use crate::lookup::View;
use crate::lookup::ends_after;
use crate::policy::Counter;

/// How many keys of a limit are shown.
const MOST: usize = 20;

pub(super) fn page(now: &Now<'_>) -> Said {
    let counters = now.in_force.policy.counters();
    Said::ok(
        "Limits",
        html! {
            h1 { "Limits" }
            @if counters.is_empty() { p.empty { "No rule has a limit." } } @else {
                p.count { "Of each limit, the keys that use most of it. To free or to block one: " code { "postward limits" } "." }
            }
            @for (number, counter) in counters.iter().enumerate() { (limit(now, number, counter)) }
        },
    )
}

fn limit(now: &Now<'_>, number: usize, counter: &Counter) -> Markup {
    let lookups = &now.in_force.lookups;
    let (stats, views) = (lookups.limit_stats(number), lookups.top_limits(number, MOST));
    html! {
        section {
            h2 { (counter.rule) " " span.sub { (counter.measure.name()) } }
            p.count {
                (words::counted(stats.keys as u64, "key")) " remembered, " (words::number(stats.limited as u64)) " without room, "
                (words::number(stats.blocked as u64)) " blocked."
                @if stats.evictions > 0 { " " strong { (words::counted(stats.evictions, "key")) " forgotten early, for want of room." } }
            }
            @if views.is_empty() { p.empty { "No key is remembered now." } } @else {
                table.limits role="table" {
                    caption.hidden { "Keys of " (counter.rule) " that use most" }
                    thead role="rowgroup" { tr role="row" { th role="columnheader" scope="col" { "Key" } th role="columnheader" scope="col" { "Used" } th role="columnheader" scope="col" { "State" } } }
                    tbody role="rowgroup" { @for view in &views { (key(now, counter, view)) } }
                }
            }
        }
    }
}

fn key(now: &Now<'_>, counter: &Counter, view: &View) -> Markup {
    html! {
        tr role="row" {
            td role="cell" data-label="Key" {
                (now.privacy.key(&counter.written(&view.key)))
                @if let Some(whose) = &view.row.whose { div.sub { "bounds of " (now.privacy.key(whose)) } }
            }
            td role="cell" data-label="Used" {
                @for (rate, used) in view.row.rates.iter().zip(&view.used) {
                    (bar(used.saturating_add(view.held), rate.amount, &counter.rate(rate)))
                }
                @if let Some(most) = view.row.concurrent { (bar(view.held, most, &format!("{most} at once"))) }
            }
            td role="cell" data-label="State" {
                @if let Some(block) = view.blocked {
                    span.tag.refused { "blocked" }
                    div.sub { @match ends_after(block) { Some(left) => { "for " (words::span(left)) }, None => "until it is unblocked" } }
                } @else if let Some(left) = view.retry_after {
                    span.tag.deferred { "no room" } div.sub { "for " (words::span(left)) }
                } @else { span.tag.passed { "room" } }
            }
        }
    }
}

/// How much of a bound is used.
fn bar(used: u64, amount: u64, bound: &str) -> Markup {
    let share = used.min(amount).saturating_mul(100).checked_div(amount).unwrap_or(100);
    let class = if used >= amount {
        "refused"
    } else if share >= 80 {
        "deferred"
    } else {
        "passed"
    };
    html! {
        div.used {
            span { (words::number(used)) " of " (bound) }
            svg.bar viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                rect.rest x="0" y="0" width="100" height="4" {}
                rect class=(class) x="0" y="0" width=(share) height="4" {}
            }
        }
    }
}
