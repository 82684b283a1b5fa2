//! The rules in force: how often each held, and when it last did.

use maud::Markup;
use maud::html;

use super::Now;
use super::Said;
use super::decision::encoded;
use super::words;
use crate::config::Mode;
use crate::metrics::Hits;
use crate::policy::Outline;
use crate::policy::Rule;

pub(super) fn page(now: &Now<'_>) -> Said {
    let rules = now.in_force.policy.rules();
    let dead = now.in_force.hits.iter().filter(|hits| hits.count() == 0).count() as u64;
    Said::ok(
        "Rules",
        html! {
            h1 { "Rules" }
            @if rules.is_empty() {
                p.empty { "The configuration has no rules: all mail passes." }
            } @else {
                p.count {
                    (words::counted(rules.len() as u64, "rule")) " in force, in the order in which they are read. Counted since the start, "
                    (words::ago(now.context.running_since, now.time)) "."
                    @if dead > 0 { " " (words::counted(dead, "rule")) " never held." }
                }
                (table(now, usize::MAX))
            }
        },
    )
}

/// The rules that held most, or all of them in order.
pub(super) fn table(now: &Now<'_>, most: usize) -> Markup {
    let policy = &now.in_force.policy;
    let mut rules: Vec<_> = policy.rules().iter().enumerate().zip(&now.in_force.hits).collect();
    if rules.len() > most {
        rules.sort_by_key(|(_, hits)| std::cmp::Reverse(hits.count()));
        rules.truncate(most);
    }
    html! {
        table.rules role="table" {
            caption.hidden { "Rules and how often they held" }
            thead role="rowgroup" { tr role="row" { th role="columnheader" scope="col" { "Rule" } th role="columnheader" scope="col" { "Does" } th.number role="columnheader" scope="col" { "Held" } th role="columnheader" scope="col" { "Last" } } }
            tbody role="rowgroup" {
                @for ((number, rule), hits) in rules { (row(now, number, rule, hits)) }
            }
        }
    }
}

fn row(now: &Now<'_>, number: usize, rule: &Rule, hits: &Hits) -> Markup {
    let policy = &now.in_force.policy;
    let says = policy.outlines().iter().filter(|outline| outline.rule == rule.name).find_map(Outline::reply_text);
    html! {
        tr role="row" {
            td role="cell" data-label="Rule" {
                span.position { (number + 1) } " "
                a.rule href={ "decisions?rule=" (encoded(&rule.name)) } { (rule.name) }
                @if policy.mode_of(number) == Mode::Monitor { " " span.tag.would { "only watched" } }
            }
            td role="cell" data-label="Does" {
                (rule.action.replace('_', " "))
                @if let Some(says) = says { div.sub { (says) } }
            }
            td.number role="cell" data-label="Held" { (words::number(hits.count())) }
            td role="cell" data-label="Last" {
                @match hits.last() {
                    Some(last) => (words::ago(last, now.time)),
                    None => span.tag.noted { "never" },
                }
            }
        }
    }
}
