//! `[server]`, `[policy]` and `[state]`; the keys of these, of `[http]` and of `[log]`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::endpoint::Endpoint;
use super::endpoint::LONGEST_PATH;
use super::rule;
use super::rule::MODES;
use super::rule::Mode;
use super::units::Size;
use super::units::Span;
use crate::facts::Stage;

/// `[server]`: how MTAs reach us.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where to listen; at least one.
    pub listen: Vec<At<Listen>>,
    /// Permissions of unix sockets.
    pub socket_mode: u32,
    /// Group of unix sockets.
    pub socket_group: Option<At<String>>,
    /// Whom root makes way for once all sockets are open.
    pub user: Option<At<String>>,
    /// That user's group, if not the one that the system has for him.
    pub group: Option<At<String>>,
    /// The unix socket on which administrators see and operate the limits.
    pub control: Option<At<PathBuf>>,
    /// Group of the control socket.
    pub control_group: Option<At<String>>,
    /// How many MTA connections at once.
    pub max_sessions: usize,
    /// How long one command may take, look-ups included.
    pub deadline: Duration,
    /// What an error of ours does to the message.
    pub on_error: OnError,
    /// How many octets all sessions together may keep of what MTAs send.
    pub max_memory: usize,
    /// What becomes of a connection for which there is no room.
    pub on_overload: OnError,
    /// How long open transactions may take to end when the daemon stops.
    pub drain: Duration,
    /// How many threads serve MTAs; `None`: as many as suit the machine.
    pub workers: Option<At<usize>>,
}

/// One of the endpoints to listen on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    /// Where.
    pub endpoint: Endpoint,
    /// How many MTA connections at once, if less than all together.
    pub max_sessions: Option<usize>,
}

impl Default for Server {
    fn default() -> Self {
        let endpoint = Endpoint::Inet { host: "127.0.0.1".to_owned(), port: 8891 };
        let value = Listen { endpoint, max_sessions: None };
        Self {
            listen: vec![At { value, place: Place::default() }],
            socket_mode: 0o660,
            socket_group: None,
            user: None,
            group: None,
            control: None,
            control_group: None,
            max_sessions: 10_000,
            deadline: Duration::from_secs(5),
            on_error: OnError::Defer,
            max_memory: 1 << 30,
            on_overload: OnError::Defer,
            drain: Duration::from_secs(30),
            workers: None,
        }
    }
}

/// What happens to mail that we fail to judge, or have no room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnError {
    /// It passes.
    Accept,
    /// It waits: 451 4.3.0, or 421 4.3.2.
    Defer,
}

/// `[policy]`: what holds for all rules.
#[derive(Clone, Copy, Debug)]
pub struct PolicySettings {
    /// Whether the rules are enforced at all.
    pub mode: Mode,
    /// The earliest stage at which refusals are spoken.
    pub answer_at: Stage,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self { mode: Mode::Enforce, answer_at: Stage::Mail }
    }
}

/// `[state]`: what outlives a restart.
#[derive(Clone, Debug)]
pub struct State {
    /// The directory that counters are kept in; `None`: they are kept in memory only.
    pub path: Option<At<PathBuf>>,
    /// How often they are saved.
    pub interval: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(5) }
    }
}

/// Each key, and the section that it stands in.
pub(super) const KEYS: [(&str, &str); 28] = [
    ("answer_at", "[policy]"),
    ("control", "[server]"),
    ("control_group", "[server]"),
    ("deadline", "[server]"),
    ("decisions", "[http]"),
    ("drain", "[server]"),
    ("format", "[log]"),
    ("group", "[server]"),
    ("interval", "[state]"),
    ("level", "[log]"),
    ("listen", "[server] or [http]"),
    ("max_memory", "[server]"),
    ("max_series", "[http]"),
    ("max_sessions", "[server]"),
    ("mode", "[policy] or [[rule]]"),
    ("on_error", "[server]"),
    ("on_overload", "[server]"),
    ("path", "[state]"),
    ("personal_data", "[http]"),
    ("socket", "[log]"),
    ("socket_group", "[server]"),
    ("socket_mode", "[server]"),
    ("status_page", "[http]"),
    ("token_file", "[http]"),
    ("trusted_header", "[http]"),
    ("trusted_proxies", "[http]"),
    ("user", "[server]"),
    ("workers", "[server]"),
];

/// Sendmail waits 10 seconds for a reply (`milter.c`, T=R).
const LONGEST_DEADLINE: Duration = Duration::from_secs(9);

const LEAST_MEMORY: u64 = 16 << 20;

/// RFC 5321 §4.5.3.2.6 gives the end of the data 10 minutes; a service manager that waits longer thinks it hangs.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// More than any machine has use for.
const MOST_WORKERS: usize = 1024;

const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

pub(super) fn server(node: Node, diagnostics: &mut Diagnostics) -> Server {
    let mut server = Server::default();
    let Some(mut fields) = Fields::of(node, "a table [server]", diagnostics) else {
        return server;
    };
    if let Some(node) = fields.take("listen") {
        server.listen = endpoints(node, diagnostics);
    }
    if let Some(mode) = fields.take("socket_mode").and_then(|node| node.string("a mode such as \"0660\"", diagnostics))
    {
        server.socket_mode = socket_mode(&mode, diagnostics).unwrap_or(server.socket_mode);
    }
    server.socket_group = fields.take("socket_group").and_then(|node| node.string("the name of a group", diagnostics));
    server.user = fields.take("user").and_then(|node| name(node, "the name of a user", diagnostics));
    server.group = fields.take("group").and_then(|node| name(node, "the name of a group", diagnostics));
    server.control = fields.take("control").and_then(|node| control(node, &server.listen, diagnostics));
    server.control_group =
        fields.take("control_group").and_then(|node| node.string("the name of a group", diagnostics));
    if let Some(count) = fields.take("max_sessions").and_then(|node| node.count(diagnostics)) {
        server.max_sessions = usize::try_from(count).unwrap_or(usize::MAX);
    }
    let deadline =
        fields.take("deadline").and_then(|node| node.parse::<Span>("a duration such as \"5s\"", diagnostics));
    if let Some(deadline) = deadline {
        if deadline.value.0.is_zero() || deadline.value.0 > LONGEST_DEADLINE {
            let message = format!("expected a deadline from 1 ms to 9 seconds, found {}", deadline.value);
            let hint = "Sendmail waits 10 seconds for a milter's reply";
            diagnostics.push(Diagnostic::error(deadline.place, message).hint(hint));
        }
        server.deadline = deadline.value.0;
    }
    let choices = [("defer", OnError::Defer), ("accept", OnError::Accept)];
    if let Some(on_error) = fields.take("on_error").and_then(|node| node.choice(&choices, diagnostics)) {
        server.on_error = on_error.value;
    }
    if let Some(size) =
        fields.take("max_memory").and_then(|node| node.parse::<Size>("a size such as \"1 GiB\"", diagnostics))
    {
        if size.value.0 < LEAST_MEMORY {
            let message = format!("expected at least {}, found {}", Size(LEAST_MEMORY), size.value);
            diagnostics.push(Diagnostic::error(size.place, message).hint("one message may take 10 MiB"));
        }
        server.max_memory = usize::try_from(size.value.0).unwrap_or(usize::MAX);
    }
    if let Some(on_overload) = fields.take("on_overload").and_then(|node| node.choice(&choices, diagnostics)) {
        server.on_overload = on_overload.value;
    }
    if let Some(drain) =
        fields.take("drain").and_then(|node| node.parse::<Span>("a duration such as \"30s\"", diagnostics))
    {
        if drain.value.0 > LONGEST_DRAIN {
            let message = format!("expected at most {}, found {}", Span(LONGEST_DRAIN), drain.value);
            let hint = "an MTA waits that long for the content of a message at most";
            diagnostics.push(Diagnostic::error(drain.place, message).hint(hint));
        }
        server.drain = drain.value.0;
    }
    server.workers = fields.take("workers").and_then(|node| workers(node, diagnostics));
    fields.finish(diagnostics);
    server
}

fn endpoints(node: Node, diagnostics: &mut Diagnostics) -> Vec<At<Listen>> {
    if matches!(&node.value, Value::Array(nodes) if nodes.is_empty()) {
        diagnostics.push(node.expected(EXPECTED));
    }
    let mut endpoints: Vec<At<Listen>> = Vec::new();
    for node in node.one_or_more() {
        let Some(listen) = listen(node, diagnostics) else {
            continue;
        };
        let endpoint = &listen.value.endpoint;
        let is_any_port = matches!(endpoint, Endpoint::Inet { port: 0, .. });
        if !is_any_port && endpoints.iter().any(|before| before.value.endpoint == *endpoint) {
            let message = format!("{endpoint} stands in this list twice");
            diagnostics.push(Diagnostic::error(listen.place.clone(), message));
        }
        endpoints.push(listen);
    }
    endpoints
}

/// `"inet:127.0.0.1:8891"`, or `{ endpoint = "inet:127.0.0.1:8891", max_sessions = 100 }`.
fn listen(node: Node, diagnostics: &mut Diagnostics) -> Option<At<Listen>> {
    if !matches!(node.value, Value::Table(_)) {
        let At { value: endpoint, place } = node.parse(EXPECTED, diagnostics)?;
        return Some(At { value: Listen { endpoint, max_sessions: None }, place });
    }
    let mut fields = Fields::of(node, EXPECTED, diagnostics)?;
    let Some(endpoint) = fields.take("endpoint") else {
        let hint = "{ endpoint = \"inet:127.0.0.1:8891\", max_sessions = 100 }";
        diagnostics.push(Diagnostic::error(fields.place.clone(), "`endpoint` is missing").hint(hint));
        return None;
    };
    let endpoint = endpoint.parse(EXPECTED, diagnostics);
    let max_sessions = fields.take("max_sessions").and_then(|node| node.count(diagnostics));
    let max_sessions = max_sessions.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    fields.finish(diagnostics);
    let At { value: endpoint, place } = endpoint?;
    Some(At { value: Listen { endpoint, max_sessions }, place })
}

const EXPECTED: &str = "an endpoint such as \"inet:127.0.0.1:8891\"";

/// A name that the system can be asked for.
fn name(node: Node, expected: &str, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    let name = node.string(expected, diagnostics)?;
    if name.value.is_empty() || name.value.contains('\0') {
        diagnostics.push(Diagnostic::error(name.place.clone(), format!("expected {expected}, found {:?}", name.value)));
        return None;
    }
    Some(name)
}

fn workers(node: Node, diagnostics: &mut Diagnostics) -> Option<At<usize>> {
    let error = node.expected_unquoted::<usize>("a number of threads from 1 to 1024");
    let Value::Integer(count) = node.value else {
        diagnostics.push(error);
        return None;
    };
    let count = usize::try_from(count).ok().filter(|count| (1..=MOST_WORKERS).contains(count));
    if count.is_none() {
        diagnostics.push(error.hint("left out, there is one for every four CPUs, which is enough for most"));
    }
    Some(At { value: count?, place: node.place })
}

/// The path of a socket that is none of those for MTAs.
fn control(node: Node, listen: &[At<Listen>], diagnostics: &mut Diagnostics) -> Option<At<PathBuf>> {
    let At { value, place } = node.string("a path such as \"/run/postward/control.sock\"", diagnostics)?;
    match format!("unix:{value}").parse::<Endpoint>() {
        Ok(endpoint) if listen.iter().all(|listen| listen.value.endpoint != endpoint) => {
            return Some(At { value: value.into(), place });
        }
        Ok(_) => {
            let message = "the control socket cannot be one that MTAs connect to";
            diagnostics.push(Diagnostic::error(place, message.to_owned()));
        }
        Err(_) => {
            let message = format!("expected a path that starts with / and has at most {LONGEST_PATH} characters");
            diagnostics.push(Diagnostic::error(place, format!("{message}, found \"{value}\"")));
        }
    }
    None
}

fn socket_mode(mode: &At<String>, diagnostics: &mut Diagnostics) -> Option<u32> {
    let is_octal = mode.value.bytes().all(|b| b.is_ascii_digit());
    let bits = u32::from_str_radix(&mode.value, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
    match bits {
        None => {
            let message = format!("expected a mode such as \"0660\", found \"{}\"", mode.value);
            diagnostics.push(Diagnostic::error(mode.place.clone(), message));
        }
        Some(bits) if bits & 0o222 == 0 => {
            let message = format!("with mode \"{}\" no MTA can connect", mode.value);
            let hint = "connecting takes the right to write: \"0660\" allows it to user and group";
            diagnostics.push(Diagnostic::error(mode.place.clone(), message).hint(hint));
        }
        Some(_) => {}
    }
    bits
}

pub(super) fn policy(node: Node, diagnostics: &mut Diagnostics) -> PolicySettings {
    let mut policy = PolicySettings::default();
    let Some(mut fields) = Fields::of(node, "a table [policy]", diagnostics) else {
        return policy;
    };
    if let Some(mode) = fields.take("mode").and_then(|node| node.choice(&MODES, diagnostics)) {
        policy.mode = mode.value;
    }
    let stages = [("connect", Stage::Connect), ("mail", Stage::Mail), ("rcpt", Stage::Rcpt)];
    if let Some(stage) = fields.take("answer_at").and_then(|node| rule::answer_stage(node, &stages, diagnostics)) {
        policy.answer_at = stage.value;
    }
    fields.finish(diagnostics);
    policy
}

pub(super) fn state(node: Node, diagnostics: &mut Diagnostics) -> State {
    let mut state = State::default();
    let Some(mut fields) = Fields::of(node, "a table [state]", diagnostics) else {
        return state;
    };
    let place = fields.place.clone();
    let path = fields.take("path");
    if path.is_none() {
        let message = "[state] without a `path` keeps nothing";
        let hint = "add path = \"/var/lib/postward\"";
        diagnostics.push(Diagnostic::warning(place, message).hint(hint));
    }
    let path = path.and_then(|node| node.string("a directory such as \"/var/lib/postward\"", diagnostics));
    if let Some(path) = path.as_ref().filter(|path| !path.value.starts_with('/')) {
        let message = format!("expected a path that starts with /, found \"{}\"", path.value);
        diagnostics.push(Diagnostic::error(path.place.clone(), message));
    }
    let path = path.filter(|path| path.value.starts_with('/'));
    state.path = path.map(|path| At { value: path.value.into(), place: path.place });
    let interval =
        fields.take("interval").and_then(|node| node.parse::<Span>("a duration such as \"5s\"", diagnostics));
    if let Some(interval) = interval {
        if !INTERVALS.contains(&interval.value.0) {
            let message = format!("expected an interval from 1 second to 10 minutes, found {}", interval.value);
            diagnostics.push(Diagnostic::error(interval.place, message));
        }
        state.interval = interval.value.0;
    }
    fields.finish(diagnostics);
    state
}
