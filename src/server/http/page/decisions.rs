//! The last decisions, and the search among them.

use maud::Markup;
use maud::html;

use super::Now;
use super::Said;
use super::filter::Query;
use super::shown::Group;
use super::shown::ShownDecision;
use super::shown::outcome;
use super::words;
use crate::server::ring::Before;

/// How many decisions stand on one page.
const ON_A_PAGE: usize = 50;

pub(super) fn page(now: &Now<'_>) -> Said {
    let query = &now.query;
    let stock = now.context.ring.stock();
    let first = (query.page - 1).saturating_mul(ON_A_PAGE);
    let found = Found::new(now, query, first, ON_A_PAGE);
    let title = if query.is_filter() { "Decisions that were looked for" } else { "Decisions" };
    Said::ok(
        title,
        html! {
            h1 { "Decisions" }
            (form(now, query))
            @if stock.most == 0 {
                p.empty { "No decisions are kept: " code { "http.decisions" } " is 0. The log has each of them." }
            } @else if found.rows.is_empty() {
                p.empty {
                    @if query.page > 1 { "There are no more." }
                    @else if query.is_filter() {
                        "Nothing fits. " (words::counted(stock.decisions as u64, "decision")) " were searched; older ones are in the log only."
                    } @else { "Nothing was decided yet. As soon as mail comes, it is listed here." }
                }
                @if query.is_filter() { p { a href="decisions" { "Show all" } } }
            } @else {
                p.count {
                    (words::number(first as u64 + 1)) " to " (words::number((first + found.rows.len()) as u64)) " of "
                    (words::number(found.all as u64)) ", the newest first. "
                    (words::number(stock.decisions as u64)) " are kept"
                    @if let Some(since) = stock.since { ", since " (words::moment(since)) }
                    "."
                }
                (table(now, &found))
                (pages(query, found.all))
            }
        },
    )
}

/// What was found: so many rows from one on, and how many there are.
pub(super) struct Found {
    rows: Vec<Markup>,
    all: usize,
}

impl Found {
    fn new(now: &Now<'_>, query: &Query, first: usize, most: usize) -> Self {
        Self::search(now, query, first, most, false)
    }

    /// The last ones, however many there are: no others are looked at.
    pub(super) fn last(now: &Now<'_>, most: usize) -> Self {
        Self::search(now, &Query::parse(""), 0, most, true)
    }

    fn search(now: &Now<'_>, query: &Query, first: usize, most: usize, only_rows: bool) -> Self {
        let (mut before, mut found) = (Before::default(), Self { rows: Vec::new(), all: 0 });
        loop {
            let entries = now.context.ring.next(&mut before);
            if entries.is_empty() {
                return found;
            }
            for entry in &entries {
                if only_rows && found.rows.len() == most {
                    return found;
                }
                let shown = ShownDecision::new(entry, now.privacy);
                if !shown.is_meant(query) {
                    continue;
                }
                if (first..first.saturating_add(most)).contains(&found.all) {
                    found.rows.push(row(now, &shown));
                }
                found.all += 1;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

pub(super) fn table(now: &Now<'_>, found: &Found) -> Markup {
    let who = if now.privacy.is_full() { "Client" } else { "Client (shortened)" };
    html! {
        table.decisions role="table" {
            caption.hidden { "Decisions, the newest first" }
            thead role="rowgroup" { tr role="row" { th role="columnheader" scope="col" { "Decision" } th role="columnheader" scope="col" { "Answer" } th role="columnheader" scope="col" { (who) } th role="columnheader" scope="col" { "From and to" } } }
            tbody role="rowgroup" { @for row in &found.rows { (row) } }
        }
    }
}

fn row(now: &Now<'_>, shown: &ShownDecision<'_>) -> Markup {
    let entry = shown.entry;
    let group = Group::of(entry.outcome).name();
    html! {
        tr role="row" {
            td role="cell" data-label="Decision" {
                a.id href={ "decision?id=" (shown.id) } { (shown.id) }
                div.sub { (words::ago(shown.time(), now.time)) " at " (entry.stage.name()) }
            }
            td role="cell" data-label="Answer" {
                span class={ "tag " (group) } { (outcome(entry.outcome)) }
                @if let Some(rule) = entry.rule().filter(|rule| !rule.is_empty()) { " " span.rule { (rule) } }
                @if let Some(reply) = &shown.reply { div.sub { (reply) } }
            }
            td role="cell" data-label="Client" {
                div { (or_unknown(&shown.client)) }
                @if !shown.login.is_empty() { div.sub { "as " (shown.login) } }
                @else if !matches!(&*shown.client_name, "" | "unknown") { div.sub { (shown.client_name) } }
            }
            td role="cell" data-label="From and to" {
                @if shown.sender.is_empty() { span.sub { "before MAIL" } } @else {
                    div { (shown.sender) }
                    @if let Some(first) = shown.recipients.first() {
                        div.sub {
                            "to " (first)
                            @let more = shown.recipients.len() - 1 + shown.more_recipients();
                            @if more > 0 { " and " (more) " more" }
                        }
                    }
                }
            }
        }
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// What to look for. `GET`, so that the result has an address.
pub(super) fn form(now: &Now<'_>, query: &Query) -> Markup {
    let rules = now.in_force.policy.rules();
    let is_gone = !query.rule.is_empty() && rules.iter().all(|rule| rule.name != query.rule);
    html! {
        form.search action="decisions" method="get" role="search" {
            div.field.wide {
                label for="q" { "Address, client, queue id, rule or decision" }
                input #q type="search" name="q" value=(query.words) placeholder="alice@example.com, 192.0.2.0/24, 4bKx…" autocomplete="off" spellcheck="false";
            }
            div.field {
                label for="outcome" { "Outcome" }
                select #outcome name="outcome" {
                    option value="" { "All" }
                    @for group in Group::ALL { option value=(group.name()) selected[query.outcome == group.name()] { (group.title()) } }
                }
            }
            div.field {
                label for="code" { "Code" }
                input #code type="text" name="code" value=(query.code) placeholder="550, 5.7" size="7" autocomplete="off";
            }
            div.field {
                label for="rule" { "Rule" }
                select #rule name="rule" {
                    option value="" { "All" }
                    @if is_gone { option value=(query.rule) selected { (query.rule) } }
                    @for rule in rules { option value=(rule.name) selected[rule.name == query.rule] { (rule.name) } }
                }
            }
            button type="submit" { "Search" }
        }
    }
}

/// Links to the pages around this one.
fn pages(query: &Query, all: usize) -> Markup {
    let last = all.div_ceil(ON_A_PAGE).max(1);
    let link = |page: usize, name: &str| html! { a href=(query.at_page(page).to_address()) { (name) } };
    html! {
        @if last > 1 {
            nav.pages aria-label="Pages of decisions" {
                @if query.page > 1 { (link(1, "Newest")) " " (link(query.page - 1, "Newer")) }
                span { "Page " (query.page) " of " (words::number(last as u64)) }
                @if query.page < last { (link(query.page + 1, "Older")) " " (link(last, "Oldest")) }
            }
        }
    }
}
