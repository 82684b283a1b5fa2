//! Who has bounds of his own under a limit.

use super::index::Hit;
use super::index::Index;
use super::index::Matching;
use super::index::Pattern;
use super::limit::message_of;
use crate::config;
use crate::config::DomainPattern;
use crate::config::KeyPart;
use crate::facts::Facts;

/// The keyed list of a limit, made ready. An entry for the login, or where the key has none for its first part but the
/// client, goes before one for the domain of that, this before one for a network, and of networks the longest prefix wins.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// One list, whose entries are numbered as the overrides are.
    index: Index,
}

impl Overrides {
    pub(crate) fn new(written: &[config::Override]) -> Self {
        let keys = || written.iter().map(|written| written.key.value.as_str()).enumerate();
        let network = |key| config::parse_network(key).ok();
        let names = || keys().filter(|(_, key)| network(key).is_none());
        let networks = keys().filter_map(|(entry, key)| Some((Pattern::Network(network(key)?), entry)));
        let is_domain = |key: &str| !key.contains('@') && key.contains('.');
        let domains: Vec<(usize, DomainPattern)> = names()
            .filter(|(_, key)| is_domain(key))
            .filter_map(|(entry, key)| Some((entry, key.parse().ok()?)))
            .collect();
        // `john.doe` may be a login as well.
        let logins = names().filter(|(_, key)| !key.starts_with('.')).map(|(entry, key)| (Pattern::Login(key), entry));
        let domains = domains.iter().map(|(entry, pattern)| (Pattern::Domain(pattern), *entry));
        let entries = networks.chain(domains).chain(logins);
        Self { index: Index::new(entries.map(|(pattern, entry)| (pattern, Hit { list: 0, entry }))) }
    }

    /// The row of bounds for this key: 0 for those of all others, else one more than the number of the override.
    pub(crate) fn row(&self, key: &[KeyPart], facts: &Facts<'_>) -> usize {
        // Only one part says who it is: else a client could call itself after somebody in a part that it chooses.
        let login = key.iter().find(|part| matches!(part, KeyPart::Login));
        let other = key.iter().find(|part| !matches!(part, KeyPart::Client { .. }));
        let name = login.or(other).and_then(|part| text(*part, facts));
        let exact = name.and_then(|(text, _)| self.entry(|index, matching| index.logins(text, matching)));
        let domain = || {
            let domain = name.and_then(|(_, domain)| domain)?;
            self.entry(|index, matching| index.domains(domain, matching))
        };
        let network = || {
            let is_client = key.iter().any(|part| matches!(part, KeyPart::Client { .. }));
            let client = facts.connection.client.filter(|_| is_client)?;
            self.entry(|index, matching| index.networks(client, matching))
        };
        exact.or_else(domain).or_else(network).map_or(0, |entry| entry + 1)
    }

    fn entry(&self, look_up: impl FnOnce(&Index, &mut Matching)) -> Option<usize> {
        let mut matching = Matching::new();
        look_up(&self.index, &mut matching);
        self.index.hit(&matching, 0).map(|hit| hit.entry)
    }
}

/// A part of a key as text, and its domain.
fn text<'a>(part: KeyPart, facts: &Facts<'a>) -> Option<(&'a str, Option<&'a str>)> {
    let message = message_of(facts);
    match part {
        KeyPart::Client { .. } => None,
        KeyPart::Helo => facts.connection.helo.as_ref().map(|helo| (helo.folded(), Some(helo.folded()))),
        KeyPart::Listener => facts.connection.listener.as_deref().map(|listener| (listener, None)),
        KeyPart::Login => {
            let login = message?.login.as_deref()?;
            Some((login, login.rsplit_once('@').map(|(_, domain)| domain)))
        }
        KeyPart::Recipient => {
            let recipient = facts.recipient?;
            Some((recipient.address.folded(), recipient.address.domain()))
        }
        KeyPart::RecipientDomain => facts.recipient?.address.domain().map(|domain| (domain, Some(domain))),
        KeyPart::Sender => message.map(|message| (message.sender.folded(), message.sender.domain())),
        KeyPart::SenderDomain => message?.sender.domain().map(|domain| (domain, Some(domain))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Source;
    use crate::facts::Address;
    use crate::facts::Connection;
    use crate::facts::Message;

    const LIST: &str = r#"
        [lists.own.limits]
        "alice@example.com" = "unlimited"
        "example.com" = 0
        ".example.net" = { messages = "9/hour" }
        "john.doe" = "unlimited"
        "192.0.2.0/24" = { messages = "5/hour" }
        "192.0.2.7" = 0
        "2001:db8::/32" = 0
    "#;

    /// The key of the list whose row it is.
    fn row(key: &[KeyPart], client: &str, login: &str) -> String {
        let source = Source { path: "test.toml".into(), text: LIST.to_owned() };
        let (config, diagnostics) = Config::read(vec![source]);
        assert!(!diagnostics.has_errors(), "{diagnostics}");
        let written = &config.lists[0].limits;
        let connection = Connection { client: client.parse().ok(), ..Connection::default() };
        let message =
            Message { login: Some(login.into()), sender: Address::parse(b"<a@example.com>"), ..Message::default() };
        let facts = Facts { connection: &connection, message: Some(&message), recipient: None };
        match Overrides::new(written).row(key, &facts) {
            0 => "all".to_owned(),
            row => written[row - 1].key.value.clone(),
        }
    }

    #[test]
    fn the_key_itself_goes_before_its_domain_and_that_before_its_network() {
        let both = [KeyPart::Client { v4: 32, v6: 64 }, KeyPart::Login];
        assert_eq!(row(&both, "192.0.2.7", "alice@example.com"), "alice@example.com");
        assert_eq!(row(&both, "192.0.2.7", "bob@example.com"), "example.com");
        assert_eq!(row(&both, "192.0.2.7", "eve@sub.example.net"), ".example.net");
        assert_eq!(row(&both, "192.0.2.7", "eve@example.net"), "192.0.2.7");
        assert_eq!(row(&both, "192.0.2.8", "eve"), "192.0.2.0/24");
        assert_eq!(row(&both, "2001:db8::1", "eve"), "2001:db8::/32");
        assert_eq!(row(&both, "198.51.100.1", "eve"), "all");
        assert_eq!(row(&both, "198.51.100.1", "john.doe"), "john.doe");
    }

    /// Who may choose a part of the key must not choose the bounds of somebody else by it.
    #[test]
    fn only_the_login_says_who_it_is() {
        let key = [KeyPart::SenderDomain, KeyPart::Login];
        assert_eq!(row(&key, "192.0.2.7", "eve"), "all");
        assert_eq!(row(&key, "192.0.2.7", "alice@example.com"), "alice@example.com");
    }

    #[test]
    fn only_what_is_in_the_key_counts() {
        assert_eq!(row(&[KeyPart::Login], "192.0.2.7", "eve"), "all");
        assert_eq!(row(&[KeyPart::Client { v4: 32, v6: 64 }], "198.51.100.1", "alice@example.com"), "all");
        assert_eq!(row(&[KeyPart::SenderDomain], "192.0.2.7", "john.doe"), "example.com");
    }
}
