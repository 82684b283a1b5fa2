//! The status page: HTML made on the server, with links and forms, no script, and nothing from elsewhere.
//!
//! Everything that came with mail is escaped by the templates. Links are relative, so that a proxy may put all of it below any
//! path.

mod charts;
mod configuration;
mod decision;
mod decisions;
mod filter;
mod frame;
mod limits;
mod overview;
mod rules;
mod shown;
mod words;

use std::time::SystemTime;

use hyper::StatusCode;
use maud::Markup;

use super::privacy::Privacy;
use crate::server::context::Context;
use crate::server::context::InForce;
use crate::server::context::time_of_day;
use filter::Query;

/// What there is to see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Page {
    Configuration,
    Decision,
    Decisions,
    Icon,
    Limits,
    Overview,
    Rules,
    Style,
}

/// What is sent.
pub(super) struct Shown {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// After how many seconds to ask again.
    pub(super) refresh: Option<u32>,
}

/// What all pages are made of: how things are at one moment.
struct Now<'a> {
    context: &'a Context,
    in_force: &'a InForce,
    privacy: Privacy,
    time: SystemTime,
    query: Query,
}

/// What a page says.
struct Said {
    status: StatusCode,
    title: String,
    main: Markup,
}

const HTML: &str = "text/html; charset=utf-8";

impl Page {
    /// The page at this path.
    pub(super) fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Overview,
            "/configuration" => Self::Configuration,
            "/decision" => Self::Decision,
            "/decisions" => Self::Decisions,
            "/icon.svg" => Self::Icon,
            "/limits" => Self::Limits,
            "/rules" => Self::Rules,
            "/status.css" => Self::Style,
            _ => return None,
        })
    }

    /// Makes it.
    pub(super) fn show(self, query: &str, context: &Context) -> Shown {
        let of = |content_type, body: &str| Shown {
            status: StatusCode::OK,
            content_type,
            body: body.to_owned(),
            refresh: None,
        };
        let in_force = context.in_force();
        let now = Now {
            context,
            in_force: &in_force,
            privacy: Privacy(in_force.config.http.personal_data),
            time: time_of_day(),
            query: Query::parse(query),
        };
        let said = match self {
            Self::Icon => return of("image/svg+xml", include_str!("icon.svg")),
            Self::Style => return of("text/css; charset=utf-8", include_str!("status.css")),
            Self::Configuration => configuration::page(&now),
            Self::Decision => decision::page(&now),
            Self::Decisions => decisions::page(&now),
            Self::Limits => limits::page(&now),
            Self::Overview => overview::page(&now),
            Self::Rules => rules::page(&now),
        };
        let refresh = now.query.refresh();
        let status = said.status;
        Shown { status, content_type: HTML, body: frame::page(self, &now, said, refresh).into_string(), refresh }
    }
}

impl Said {
    fn ok(title: &str, main: Markup) -> Self {
        Self { status: StatusCode::OK, title: title.to_owned(), main }
    }
}
