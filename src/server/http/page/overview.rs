//! The first page: whether all is well, what was answered, which rules hold, what was decided last.

use std::path::Path;

use maud::Markup;
use maud::html;

use super::Now;
use super::Said;
use super::charts;
use super::charts::Layer;
use super::decisions;
use super::decisions::Found;
use super::filter::Query;
use super::rules;
use super::words;
use crate::codes;
use crate::config::At;
use crate::config::Config;
use crate::config::Question;
use crate::facts::Answer;
use crate::metrics::Counted;
use crate::metrics::Picture;
use crate::metrics::Told;
use crate::reply::Class;

/// How many of the last decisions stand on the first page.
const LAST: usize = 10;

/// How many rules do.
const RULES: usize = 10;

pub(super) fn page(now: &Now<'_>) -> Said {
    let mut pictures = now.context.history.pictures(now.time);
    pictures.sort_by_key(|(counted, _)| (matches!(counted, Counted::Reply(_, Told::Would)), *counted));
    let found = Found::last(now, LAST);
    let rules = now.in_force.policy.rules().len();
    Said::ok(
        "Status",
        html! {
            h1 { "Status" }
            (health(now))
            section {
                h2 { "Answers" }
                (answers(&pictures))
            }
            section {
                h2 { "Last decisions" }
                (decisions::form(now, &Query::parse("")))
                @if found.is_empty() { p.empty { "Nothing was decided yet. As soon as mail comes, it is listed here." } }
                @else { (decisions::table(now, &found)) p { a href="decisions" { "All decisions" } } }
            }
            section {
                h2 { "Rules" }
                @if rules == 0 { p.empty { "The configuration has no rules: all mail passes." } } @else {
                    (rules::table(now, RULES))
                    @if rules > RULES { p { a href="rules" { "All " (rules) " rules" } " – these held most." } }
                }
            }
        },
    )
}

/// One thing that is well, or not.
struct Item {
    name: &'static str,
    value: Markup,
    more: Markup,
    state: &'static str,
}

const WELL: &str = "passed";
const LOOK: &str = "deferred";
const BAD: &str = "refused";

fn health(now: &Now<'_>) -> Markup {
    let items = [policy(now), sessions(now), limits(now), state(now), log(now), errors(now)];
    html! {
        ul.health {
            @for item in items.into_iter().chain(disks(now)) {
                li class=(item.state) {
                    span.name { (item.name) @if item.state != WELL { span.hidden { " (look at this)" } } }
                    strong { (item.value) }
                    span.sub { (item.more) }
                }
            }
        }
    }
}

fn policy(now: &Now<'_>) -> Item {
    let (config, health) = (&now.in_force.config, now.context.metrics.health());
    let more = match health.in_force_since {
        Some(since) if health.reloaded => {
            html! { a href="configuration" { (config.hash) } ", read " (words::ago(since, now.time)) }
        }
        _ => html! { "the last reload failed; " a href="configuration" { (config.hash) } " stays in force" },
    };
    let value = words::counted(now.in_force.policy.rules().len() as u64, "rule");
    Item { name: "Configuration", value: html! { (value) }, more, state: if health.reloaded { WELL } else { BAD } }
}

fn sessions(now: &Now<'_>) -> Item {
    let open = now.context.active.load(std::sync::atomic::Ordering::Relaxed);
    let most = now.in_force.config.server.max_sessions;
    let shed = now.context.metrics.health().shed;
    Item {
        name: "SMTP sessions",
        value: html! { (words::number(open as u64)) },
        more: html! {
            "of at most " (words::number(most as u64))
            @if shed > 0 { "; " (words::number(shed)) " found no room since the start" }
        },
        state: if open >= most {
            BAD
        } else if shed > 0 || open > most / 10 * 8 + most % 10 * 8 / 10 {
            LOOK
        } else {
            WELL
        },
    }
}

fn limits(now: &Now<'_>) -> Item {
    let (lookups, counters) = (&now.in_force.lookups, now.in_force.policy.counters().len());
    let stats: Vec<_> = (0..counters).map(|counter| lookups.limit_stats(counter)).collect();
    let limited: usize = stats.iter().map(|stats| stats.limited).sum();
    let blocked: usize = stats.iter().map(|stats| stats.blocked).sum();
    let keys: usize = stats.iter().map(|stats| stats.keys).sum();
    Item {
        name: "Limits",
        value: html! { @if counters == 0 { "none" } @else { (words::number(limited as u64)) " without room" } },
        more: html! {
            @if counters == 0 { "no rule has one" } @else {
                a href="limits" { (words::counted(keys as u64, "key")) } ", " (words::number(blocked as u64)) " blocked"
            }
        },
        state: WELL,
    }
}

fn state(now: &Now<'_>) -> Item {
    let health = now.context.metrics.health();
    let kept = now.in_force.config.state.path.is_some();
    let (value, more, state) = match health.state_saved {
        _ if !kept => (html! { "in memory" }, html! { "a restart forgets what limits counted" }, WELL),
        None => (html! { "nothing to save" }, html! { "yet" }, WELL),
        Some(saved) => {
            (html! { "saved" }, words::ago(saved, now.time), if health.saves_failed > 0 { LOOK } else { WELL })
        }
    };
    let more =
        html! { (more) @if health.saves_failed > 0 { "; " (words::counted(health.saves_failed, "save")) " failed" } };
    Item { name: "Counters", value, more, state }
}

fn log(now: &Now<'_>) -> Item {
    let lost = now.context.lost_lines.load(std::sync::atomic::Ordering::Relaxed);
    Item {
        name: "Log",
        value: html! { @if lost == 0 { "complete" } @else { (words::counted(lost, "line")) " lost" } },
        more: html! { "since the start" },
        state: if lost == 0 { WELL } else { LOOK },
    }
}

fn errors(now: &Now<'_>) -> Item {
    let health = now.context.metrics.health();
    let all = health.internal_errors + health.protocol_errors;
    Item {
        name: "Errors",
        value: html! { @if all == 0 { "none" } @else { (words::number(all)) } },
        more: html! {
            @if all == 0 { "since the start" }
            @else { (words::number(health.internal_errors)) " of ours, " (words::number(health.protocol_errors)) " of MTAs" }
        },
        state: if health.internal_errors > 0 {
            BAD
        } else if all > 0 {
            LOOK
        } else {
            WELL
        },
    }
}

/// Paths whose free space rules ask about.
fn disks<'a>(now: &'a Now<'_>) -> impl Iterator<Item = Item> + 'a {
    now.in_force.policy.paths().iter().enumerate().map(|(number, path)| {
        let least = least_free(&now.in_force.config, path);
        let (value, state) = match now.in_force.lookups.last_disk_space(number) {
            Some(Answer::Bytes(free)) => (html! { (words::size(free)) " free" }, if free < least { BAD } else { WELL }),
            None => (html! { "not asked yet" }, WELL),
            Some(_) => (html! { "cannot be asked" }, BAD),
        };
        Item { name: "Disk", value, more: html! { (path.display()) }, state }
    })
}

/// Below how much free space a rule holds; of several rules the first that will.
fn least_free(config: &Config, path: &Path) -> u64 {
    let mut least = 0;
    let mut look = |question: &At<Question>, _| {
        if let Question::DiskFree { path: asked, below } = &question.value
            && asked == path
        {
            least = least.max(*below);
        }
    };
    for rule in &config.rules {
        rule.when.for_each(true, &mut look);
    }
    least
}

fn answers(pictures: &[(Counted, Picture)]) -> Markup {
    let hour = layers(pictures, 60, |picture| &picture.hour);
    let day = layers(pictures, 96, |picture| &picture.day);
    html! {
        (charts::legend(&hour))
        div.charts {
            (charts::bars(&hour, "Last hour, by minute", "60 min", |ago| format!("{ago} min ago")))
            (charts::bars(&day, "Last day, by quarter of an hour", "24 h", |ago| format!("{} h {:02} min ago", ago / 4, ago % 4 * 15)))
        }
        @if pictures.is_empty() { p.empty { "No answer was given yet that ends a message or refuses it." } } @else {
            table.answers role="table" {
                caption.hidden { "Answers by code" }
                thead role="rowgroup" {
                    tr role="row" {
                        th role="columnheader" scope="col" { "Answer" } th.number role="columnheader" scope="col" { "Minute" } th.number role="columnheader" scope="col" { "Hour" }
                        th.number role="columnheader" scope="col" { "Day" } th.number role="columnheader" scope="col" { "All" } th.wide role="columnheader" scope="col" { "Last hour" }
                    }
                }
                tbody role="rowgroup" { @for (counted, picture) in pictures { (answer(*counted, picture)) } }
            }
        }
    }
}

/// What stands on one another in the charts.
/// What would have been refused was not, and is among the others.
fn layers(pictures: &[(Counted, Picture)], slots: usize, counts: impl Fn(&Picture) -> &Vec<u32>) -> [Layer; 3] {
    [("passed", "Passed"), ("deferred", "Deferred"), ("refused", "Refused")].map(|(class, name)| {
        let mut sums = vec![0; slots];
        for (_, picture) in pictures.iter().filter(|(counted, _)| self::class(*counted) == class) {
            for (sum, count) in sums.iter_mut().zip(counts(picture)) {
                *sum += u64::from(*count);
            }
        }
        Layer { class, name, counts: sums }
    })
}

const fn class(counted: Counted) -> &'static str {
    match counted {
        Counted::Passed => "passed",
        Counted::Reply(_, Told::Would) => "would",
        Counted::Reply(status, Told::Really) => match status.class() {
            Class::Permanent => "refused",
            Class::Transient => "deferred",
        },
    }
}

fn answer(counted: Counted, picture: &Picture) -> Markup {
    let sum = |counts: &[u32]| words::number(counts.iter().copied().map(u64::from).sum());
    html! {
        tr role="row" {
            td role="cell" data-label="Answer" {
                @match counted {
                    Counted::Passed => { span.tag.passed { "Passed" } div.sub { "messages that were not refused" } },
                    Counted::Reply(status, told) => {
                        a class={ "tag " (class(counted)) } href={ "decisions?code=" (status.code()) "+" (status.enhanced()) } { (status) }
                        @if told == Told::Would { " " span.sub { "would have been said" } }
                        div.sub { (codes::registered(status.enhanced().into()).map_or("", |enhanced| enhanced.name)) }
                    }
                }
            }
            td.number role="cell" data-label="Minute" { (words::number(picture.minute)) }
            td.number role="cell" data-label="Hour" { (sum(&picture.hour)) }
            td.number role="cell" data-label="Day" { (sum(&picture.day)) }
            td.number role="cell" data-label="All" { (words::number(picture.total)) }
            td.wide role="cell" { (charts::spark(&picture.hour, class(counted))) }
        }
    }
}
