//! `[lists.NAME]`: networks, domains, addresses, logins, and the senders each login may use.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::document::Fields;
use super::document::Node;
use super::limit;
use super::limit::Allowances;
use super::limit::Override;
use super::pattern::AddressPattern;
use super::pattern::DomainPattern;

/// A list as written. One list may hold several kinds of entries.
#[derive(Clone, Debug)]
pub struct List {
    /// What `@name` calls it.
    pub name: At<String>,
    /// For `client`.
    pub networks: Vec<Entry<IpNet>>,
    /// For `client_name`, `helo`, `sender_domain`, and for addresses.
    pub domains: Vec<Entry<DomainPattern>>,
    /// For `sender`, `recipient`, `over_quota`.
    pub addresses: Vec<Entry<AddressPattern>>,
    /// For `login`, in lower case.
    pub logins: Vec<Entry<String>>,
    /// For `sender_login_mismatch`: a login in lower case, and what it may send as.
    pub senders: Vec<(String, Vec<AddressPattern>)>,
    /// For `overrides` of limits.
    pub limits: Vec<Override>,
    /// The keys that were written, be it with nothing in them: an empty kind of entry is no missing one.
    pub keys: Vec<&'static str>,
}

impl List {
    const fn new(name: At<String>) -> Self {
        Self {
            name,
            networks: Vec::new(),
            domains: Vec::new(),
            addresses: Vec::new(),
            logins: Vec::new(),
            senders: Vec::new(),
            limits: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Whether there is no entry of any kind.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.networks.is_empty()
            && self.domains.is_empty()
            && self.addresses.is_empty()
            && self.logins.is_empty()
            && self.senders.is_empty()
            && self.limits.is_empty()
    }

    /// Leaves no kind of entry empty: of a list with errors nobody needs to hear that it lacks something, too.
    fn fill(&mut self) {
        self.networks.push(Entry { value: IpNet::default(), comment: String::new() });
        self.domains.push(Entry { value: DomainPattern::Exact(String::new()), comment: String::new() });
        self.addresses.push(Entry { value: AddressPattern::Null, comment: String::new() });
        self.logins.push(Entry { value: String::new(), comment: String::new() });
        self.senders.push((String::new(), Vec::new()));
        let key = At { value: String::new(), place: self.name.place.clone() };
        self.limits.push(Override { key, allowances: Allowances::default(), named: Vec::new() });
    }
}

/// An entry, and what stands behind `#` in its line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry<T> {
    /// What is matched.
    pub value: T,
    /// The comment; may be empty.
    pub comment: String,
}

/// What it means that no login stands in `senders`.
const NO_SENDERS: &str = "with it, every login may send only as `<>`";

pub(super) fn read(name: At<String>, node: Node, diagnostics: &mut Diagnostics) -> List {
    let Some(mut fields) = Fields::of(node, "a table such as { networks = [\"192.0.2.0/24\"] }", diagnostics) else {
        let mut list = List::new(name);
        list.fill();
        return list;
    };
    let errors_before = diagnostics.errors();
    let keys = ["networks", "domains", "addresses", "logins", "senders", "limits"];
    let mut list = List {
        keys: keys.into_iter().filter(|key| fields.has(key)).collect(),
        networks: entries(fields.take("networks"), "a network such as \"192.0.2.0/24\"", network, diagnostics),
        domains: entries(fields.take("domains"), "a domain", str::parse, diagnostics),
        addresses: entries(fields.take("addresses"), "an address", str::parse, diagnostics),
        logins: entries(fields.take("logins"), "a login", login, diagnostics),
        senders: fields.take("senders").map(|node| senders(node, diagnostics)).unwrap_or_default(),
        limits: fields.take("limits").map(|node| limit::overrides(node, diagnostics)).unwrap_or_default(),
        name,
    };
    let place = list.name.place.clone();
    fields.finish(diagnostics);
    if diagnostics.errors() > errors_before {
        list.fill();
        return list;
    }
    if list.is_empty() {
        let consequence = if list.keys == ["senders"] { NO_SENDERS } else { "no condition on it can hold" };
        let message = format!("list `{}` is empty: {consequence}", list.name.value);
        diagnostics.push(Diagnostic::warning(place, message).hint("give it entries, or leave it and its rules out"));
    }
    list
}

/// An address or a network; bits below the prefix are an error, since one of the two numbers is then a typing mistake.
///
/// # Errors
///
/// What was expected and what was found.
pub fn network(text: &str) -> Result<IpNet, String> {
    let error = || {
        let names = if text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
            "; `client_name` is for names"
        } else {
            ""
        };
        format!("expected an address or a network such as \"192.0.2.0/24\", found \"{text}\"{names}")
    };
    if let Ok(address) = IpAddr::from_str(text) {
        return Ok(address.to_canonical().into());
    }
    let network = IpNet::from_str(text).map_err(|_| error())?;
    if network.addr() != network.network() {
        return Err(format!("\"{text}\" has bits below its prefix; did you mean \"{}\"?", network.trunc()));
    }
    Ok(unmapped(network))
}

/// IPv4-mapped IPv6 is IPv4.
fn unmapped(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let (IpAddr::V4(address), Some(length)) = (network.addr().to_canonical(), v6.prefix_len().checked_sub(96))
        && let Ok(v4) = IpNet::new(address.into(), length)
    {
        return v4;
    }
    network
}

/// Logins are compared without case, so that `Alice` has no second budget.
pub(super) fn login(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err(format!("expected a login, found \"{}\"", text.escape_default()));
    }
    if text == "*" {
        return Err("expected a login, found \"*\"; `authenticated = true` asks for any login".to_owned());
    }
    if text.contains('*') {
        return Err(format!("expected a login, found \"{text}\"; there are no wildcards"));
    }
    Ok(text.to_lowercase())
}

/// Where a comment seems to start: at a `#`, but not at one that the local part of an address may hold.
pub(super) fn comment_start(text: &str) -> Option<usize> {
    let at = if text.starts_with('"') { text.rfind('@') } else { text.find('@') };
    let domain = at.unwrap_or_default();
    text.get(domain..)?.find('#').map(|offset| domain + offset)
}

fn entries<T, E: ToString>(
    node: Option<Node>,
    what: &str,
    parse: impl Fn(&str) -> Result<T, E>,
    diagnostics: &mut Diagnostics,
) -> Vec<Entry<T>> {
    let mut entries = Vec::new();
    for node in node.into_iter().flat_map(Node::one_or_more) {
        let Some(text) = node.string(what, diagnostics) else {
            continue;
        };
        let (value, comment) = text.value.split_once(" #").unwrap_or((&text.value, ""));
        if let Some((value, comment)) = comment_start(value).and_then(|start| value.split_at_checked(start)) {
            let hint = format!("did you mean \"{} {}\"?", value.trim_end(), comment);
            diagnostics.push(Diagnostic::error(text.place, "a comment needs a blank before #").hint(hint));
            continue;
        }
        match parse(value.trim()) {
            Ok(value) => entries.push(Entry { value, comment: comment.trim().to_owned() }),
            Err(error) => {
                let hint = several(value, &parse);
                diagnostics.push(Diagnostic { hint, ..Diagnostic::error(text.place, error.to_string()) });
            }
        }
    }
    entries
}

/// How to write what seems to be several values in one text.
pub(super) fn several<T, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<String> {
    let has_commas = text.contains([',', ';']);
    let values: Vec<&str> = text.split([',', ';', ' ']).map(str::trim).filter(|value| !value.is_empty()).collect();
    // Two words may as well be a slip; two names with dots are two names.
    let is_value = |value: &str| {
        (has_commas || value.contains(['.', ':', '@'])) && (value.starts_with('@') || parse(value).is_ok())
    };
    if values.len() < 2 || !values.iter().all(|value| is_value(value)) {
        return None;
    }
    let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    Some(format!("did you mean [{}]?", quoted.join(", ")))
}

fn senders(node: Node, diagnostics: &mut Diagnostics) -> Vec<(String, Vec<AddressPattern>)> {
    let expected = "a table such as { alice = [\"alice@example.com\"] }";
    let Some(fields) = Fields::of(node, expected, diagnostics) else {
        return Vec::new();
    };
    let mut senders = Vec::new();
    for (name, node) in fields.rest() {
        let allowed = entries(Some(node), "an address or a domain", str::parse, diagnostics);
        match login(&name.value) {
            Ok(login) => senders.push((login, allowed.into_iter().map(|entry| entry.value).collect())),
            Err(error) => diagnostics.push(Diagnostic::error(name.place, error)),
        }
    }
    senders
}
