//! `[http]`: metrics, probes and the status page, and who may see it.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::list::network;
use super::notify::CREDENTIAL;

/// `[http]`.
#[derive(Clone, Debug)]
pub struct Http {
    /// `HOST:PORT`; `None`: no HTTP at all.
    pub listen: Option<At<String>>,
    /// The most series of metrics that a policy may have where they are served.
    pub max_series: usize,
    /// Whether there is a status page.
    pub status_page: bool,
    /// How many of the last decisions are kept to be looked at.
    pub decisions: usize,
    /// How much of people's addresses the status page shows.
    pub personal_data: PersonalData,
    /// The file with the token that opens the status page.
    pub token_file: Option<At<PathBuf>>,
    /// The header field in which a proxy says who has logged in.
    pub trusted_header: Option<At<String>>,
    /// The proxies that are believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: None,
            max_series: 2000,
            status_page: true,
            decisions: 10_000,
            personal_data: PersonalData::Full,
            token_file: None,
            trusted_header: None,
            trusted_proxies: vec![
                IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ],
        }
    }
}

/// How much of addresses, names and logins is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PersonalData {
    /// Everything.
    #[default]
    Full,
    /// Nothing.
    None,
    /// Networks for clients, the first letter and the domain of addresses.
    Short,
}

impl PersonalData {
    const ALL: [(&str, Self); 3] = [("full", Self::Full), ("short", Self::Short), ("none", Self::None)];
}

/// Each takes a kilobyte.
const MOST_DECISIONS: i64 = 1_000_000;

impl Http {
    /// Whether anybody can ask for the status page.
    #[must_use]
    pub const fn has_page(&self) -> bool {
        self.listen.is_some() && self.status_page
    }
}

pub(super) fn http(node: Node, diagnostics: &mut Diagnostics) -> Http {
    let mut http = Http::default();
    let Some(mut fields) = Fields::of(node, "a table [http]", diagnostics) else {
        return http;
    };
    http.listen = fields.take("listen").and_then(|node| listen(node, diagnostics));
    if let Some(count) = fields.take("max_series").and_then(|node| node.count(diagnostics)) {
        http.max_series = usize::try_from(count).unwrap_or(usize::MAX);
    }
    if let Some(wanted) = fields.take("status_page").and_then(|node| node.boolean(diagnostics)) {
        http.status_page = wanted;
    }
    if let Some(node) = fields.take("decisions") {
        http.decisions = decisions(&node, diagnostics).unwrap_or(http.decisions);
    }
    if let Some(choice) = fields.take("personal_data").and_then(|node| node.choice(&PersonalData::ALL, diagnostics)) {
        http.personal_data = choice.value;
    }
    let (has_header, has_token) = (fields.has("trusted_header"), fields.has("token_file"));
    http.token_file = fields.take("token_file").and_then(|node| token_file(node, diagnostics));
    http.trusted_header = fields.take("trusted_header").and_then(|node| trusted_header(node, diagnostics));
    if let Some((place, node)) = fields.take_with_key("trusted_proxies") {
        http.trusted_proxies = trusted_proxies(node, diagnostics);
        if !has_header {
            let message = "`trusted_proxies` is only used with `trusted_header`";
            diagnostics.push(Diagnostic::warning(place, message));
        }
    }
    fields.finish(diagnostics);
    if !has_header && !has_token {
        http.warn_if_open(diagnostics);
    }
    http
}

impl Http {
    /// A page that everybody could see is not served.
    fn warn_if_open(&self, diagnostics: &mut Diagnostics) {
        if let Some(listen) = &self.listen
            && self.status_page
            && !is_loopback(&listen.value)
        {
            let message = "the status page is not served here: whoever reaches this address would see it";
            let hint = "token_file = \"/etc/postward/status.token\" or trusted_header = \"X-Remote-User\" opens it; \
                        status_page = false says that it is not wanted";
            diagnostics.push(Diagnostic::warning(listen.place.clone(), message).hint(hint));
        }
    }
}

fn listen(node: Node, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    let listen = node.string("HOST:PORT such as \"127.0.0.1:9891\"", diagnostics)?;
    let is_host_and_port =
        |text: &str| text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !is_host_and_port(&listen.value) {
        let message = format!("expected HOST:PORT such as \"127.0.0.1:9891\", found \"{}\"", listen.value);
        diagnostics.push(Diagnostic::error(listen.place, message));
        return None;
    }
    Some(listen)
}

/// Zero keeps none.
fn decisions(node: &Node, diagnostics: &mut Diagnostics) -> Option<usize> {
    if let Value::Integer(count @ 0..=MOST_DECISIONS) = node.value {
        return usize::try_from(count).ok();
    }
    diagnostics.push(node.expected_unquoted::<u32>("a number from 0 to 1000000"));
    None
}

fn token_file(node: Node, diagnostics: &mut Diagnostics) -> Option<At<PathBuf>> {
    let At { value, place } = node.string("a path such as \"/etc/postward/status.token\"", diagnostics)?;
    let credential = value.strip_prefix(CREDENTIAL);
    let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '\0']) && ![".", ".."].contains(&name);
    if !value.starts_with('/') && !credential.is_some_and(is_name) {
        // It is not quoted: it may be the token itself, and this may be told to the log.
        let message = "expected a path that starts with /, or credential:NAME for systemd's LoadCredential=";
        diagnostics.push(Diagnostic::error(place, message).hint("the token stands in the file, never here"));
        return None;
    }
    Some(At { value: value.into(), place })
}

/// A name of RFC 9110 §5.1, in lower case; not one that browsers send of themselves.
fn trusted_header(node: Node, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    let At { value, place } = node.string("the name of a header field such as \"X-Remote-User\"", diagnostics)?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if value.is_empty() || !value.chars().all(is_token) {
        let message = format!("expected the name of a header field such as \"X-Remote-User\", found \"{value}\"");
        diagnostics.push(Diagnostic::error(place, message));
        return None;
    }
    let value = value.to_ascii_lowercase();
    if ANYBODYS.contains(&value.as_str()) {
        let message = format!("every browser sends `{value}`, so it tells nobody apart");
        diagnostics.push(Diagnostic::error(place, message).hint("a name of its own, such as \"X-Remote-User\""));
        return None;
    }
    Some(At { value, place })
}

fn trusted_proxies(node: Node, diagnostics: &mut Diagnostics) -> Vec<IpNet> {
    let mut proxies = Vec::new();
    for node in node.one_or_more() {
        let Some(text) = node.string("an address or a network such as \"192.0.2.1\"", diagnostics) else {
            continue;
        };
        match network(&text.value) {
            Ok(network) if network.prefix_len() == 0 => {
                let message = "every address is in this network, so anybody could send the header field";
                diagnostics.push(Diagnostic::error(text.place, message));
            }
            Ok(network) => proxies.push(network),
            Err(message) => diagnostics.push(Diagnostic::error(text.place, message)),
        }
    }
    proxies
}

/// A name may stand for anything, but for this one.
fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or("", |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// What comes with requests of strangers, too.
const ANYBODYS: [&str; 9] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "connection",
    "cookie",
    "host",
    "referer",
    "user-agent",
];
