//! One decision with its whole explanation: all that was decided about the same message.

use hyper::StatusCode;
use maud::Markup;
use maud::html;

use super::Now;
use super::Said;
use super::shown::Group;
use super::shown::ShownDecision;
use super::shown::outcome;
use super::words;
use crate::codes;
use crate::config::Mode;
use crate::config::Size;
use crate::facts::DecisionId;
use crate::policy::Match;
use crate::reply::Status;
use crate::server::ring::story::action;

pub(super) fn page(now: &Now<'_>) -> Said {
    let Ok(id) = now.query.id.parse::<DecisionId>() else {
        return missing(
            &now.query.id,
            "An id looks like 7zj14jt00.1; it stands in replies with {id}, in the log, and in the list.",
        );
    };
    let entries = now.context.ring.find(id);
    let Some(last) = entries.last() else {
        return missing(
            &id.to_string(),
            "It was made before those that are kept, or not by this daemon. The log may have it.",
        );
    };
    let last = ShownDecision::new(last, now.privacy);
    Said::ok(
        &format!("Decision {id}"),
        html! {
            p.crumbs { a href="decisions" { "Decisions" } }
            h1 { "Decision " span.id { (id) } }
            (about(&last))
            @for entry in &entries { (step(now, &ShownDecision::new(entry, now.privacy))) }
            @if now.context.started.server.control.is_some() {
                p.sub {
                    "The same on the command line: " code { "postward explain " (id) } "."
                    @if !now.privacy.is_full() { " That shows addresses in full, which are shortened here." }
                }
            }
        },
    )
}

fn missing(id: &str, why: &str) -> Said {
    Said {
        status: StatusCode::NOT_FOUND,
        title: "No such decision".to_owned(),
        main: html! {
            p.crumbs { a href="decisions" { "Decisions" } }
            h1 { "No such decision" }
            p.empty { "Nothing is known of “" (id) "”. " (why) }
        },
    }
}

/// Who it was about.
fn about(shown: &ShownDecision<'_>) -> Markup {
    let entry = shown.entry;
    let term = |name: &str, value: &str| html! { @if !value.is_empty() { div { dt { (name) } dd { (value) } } } };
    let port = match (entry.port, entry.listener()) {
        (Some(port), "") => port.to_string(),
        (Some(port), listener) => format!("{port} ({listener})"),
        (None, listener) => listener.to_owned(),
    };
    let login = if shown.login.is_empty() && entry.authenticated { "yes, without a name" } else { &shown.login };
    let more = shown.more_recipients();
    let recipients = shown.recipients.join(", ");
    let recipients = if more > 0 { format!("{recipients} and {more} more") } else { recipients };
    html! {
        dl.facts {
            (term("Client", if shown.client.is_empty() { "unknown" } else { &shown.client }))
            (term("Name", &shown.client_name))
            (term("HELO", &shown.helo))
            (term("Port", &port))
            (term("TLS", if entry.tls { "yes" } else { "no" }))
            (term("Login", if login.is_empty() { "none" } else { login }))
            (term("Sender", &shown.sender))
            (term(if entry.recipients == 1 { "Recipient" } else { "Recipients" }, &recipients))
            (term("Size", &entry.size.map(|size| Size(size).to_string()).unwrap_or_default()))
            (term("Queue id", entry.queue_id()))
            (term("Configuration", &entry.book.hash))
        }
    }
}

/// One moment of its story.
fn step(now: &Now<'_>, shown: &ShownDecision<'_>) -> Markup {
    let entry = shown.entry;
    html! {
        section.step {
            h2 {
                span class={ "tag " (Group::of(entry.outcome).name()) } { (outcome(entry.outcome)) }
                " at " (entry.stage.name())
            }
            p.sub { (words::moment(shown.time())) ", " (words::ago(shown.time(), now.time)) }
            @if entry.stage == crate::facts::Stage::Rcpt && !shown.recipients.is_empty() {
                p { "For the recipient " (shown.recipients.join(", ")) "." }
            }
            @if let (Some(reply), Some(text)) = (&entry.reply, &shown.reply) {
                p.reply { (text) }
                (meaning(reply.status()))
            }
            @if entry.matches.is_empty() {
                p { @if entry.reply.is_some() { "No rule says this: Postward itself could not do otherwise." } @else { "No rule held." } }
            } @else {
                ol.matches { @for matched in &entry.matches { (held(shown, matched)) } }
            }
        }
    }
}

/// What a code means, by the catalogue.
fn meaning(status: Status) -> Markup {
    let basic = codes::basic(status.code()).map(|basic| basic.name);
    let enhanced = codes::registered(status.enhanced().into()).map(|enhanced| enhanced.name);
    html! {
        p.sub {
            (status.code()) @if let Some(name) = basic { ": " (name) } ". "
            (status.enhanced()) @if let Some(name) = enhanced { ": " (name) } "."
        }
    }
}

/// A rule that held: why, what it asks and what that was, what follows.
fn held(shown: &ShownDecision<'_>, matched: &Match) -> Markup {
    let book = &shown.entry.book;
    let name = book.rule_name(matched.rule);
    let outline = book.outline(matched.rule, shown.entry.stage);
    html! {
        li {
            p {
                "Rule " a.rule href={ "decisions?rule=" (encoded(name)) } { (name) } " held: " (action(matched.action)) "."
                @if matched.mode == Mode::Monitor { " " span.tag.would { "only watched" } }
            }
            dl.facts {
                @if let Some(detail) = shown.detail(matched) { div { dt { "Because of" } dd { (detail) } } }
                @if let Some(step) = matched.step { div { dt { "Step of its limit" } dd { (step) " %" } } }
                @if let Some(recipient) = shown.recipient(matched) { div { dt { "For" } dd { (recipient) } } }
                @if let Some(would) = shown.would_say(matched) { div { dt { "Would have said" } dd { (would) } } }
                @if let Some(outline) = outline {
                    @for fact in &outline.facts {
                        div { dt { "It asks " code { (fact.name()) } } dd { (shown.value(*fact).unwrap_or_else(|| "not kept".to_owned())) } }
                    }
                    @if let Some(counts) = &outline.counts { div { dt { "It counts" } dd { (counts) } } }
                    @if let Some((status, text)) = &outline.reply { div { dt { "Its reply" } dd { (status) " " (text) } } }
                }
            }
        }
    }
}

pub(super) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
