//! What stands around every page: title, navigation, foot.

use maud::DOCTYPE;
use maud::Markup;
use maud::html;

use super::Now;
use super::Page;
use super::Said;
use super::words;
use crate::config::Mode;

/// The pages that are named at the top.
const PAGES: [(Page, &str, &str); 5] = [
    (Page::Overview, "./", "Overview"),
    (Page::Decisions, "decisions", "Decisions"),
    (Page::Rules, "rules", "Rules"),
    (Page::Limits, "limits", "Limits"),
    (Page::Configuration, "configuration", "Configuration"),
];

/// How often a page that is left open asks again, in seconds.
const REFRESH: u32 = 30;

pub(super) fn page(page: Page, now: &Now<'_>, said: Said, refresh: Option<u32>) -> Markup {
    let Said { title, main, .. } = said;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " – Postward" }
                link rel="stylesheet" href="status.css";
                link rel="icon" href="icon.svg" type="image/svg+xml";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    div.inner {
                        a.brand href="./" { img src="icon.svg" alt="" width="24" height="24"; "Postward" }
                        nav aria-label="Pages" { ul { @for (link, href, name) in PAGES { li { (entry(link, href, name, page)) } } } }
                    }
                }
                main #main tabindex="-1" {
                    @if now.in_force.policy.mode() == Mode::Monitor {
                        p.banner { strong { "Monitor mode. " } "Rules are judged and counted; nothing is refused." }
                    }
                    (main)
                }
                footer { (foot(now, refresh)) }
            }
        }
    }
}

fn entry(link: Page, href: &str, name: &str, page: Page) -> Markup {
    let is_current = link == page || (link == Page::Decisions && page == Page::Decision);
    html! {
        @if is_current { a href=(href) aria-current="page" { (name) } } @else { a href=(href) { (name) } }
    }
}

fn foot(now: &Now<'_>, refresh: Option<u32>) -> Markup {
    let query = &now.query;
    html! {
        p {
            "Postward " (env!("CARGO_PKG_VERSION")) ", started " (words::ago(now.context.running_since, now.time))
            ". Times are UTC; this page is of " (words::moment(now.time)) "."
        }
        p {
            @match refresh {
                Some(seconds) => {
                    "It is loaded again every " (seconds) " seconds. "
                    a href=(query.refreshed(None).to_address()) { "Stop that" }
                }
                None => {
                    a href=(query.refreshed(None).to_address()) { "Load again" } " · "
                    a href=(query.refreshed(Some(REFRESH)).to_address()) { "every " (REFRESH) " seconds" }
                }
            }
            " · " a href="metrics" { "Metrics for Prometheus" }
        }
    }
}
