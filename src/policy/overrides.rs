//! Who has bounds of his own under a limit.

use super::limit::message_of;
use super::list::List;
use crate::config;
use crate::config::KeyPart;
use crate::facts::Facts;

/// The keyed list of a limit, made ready. An entry for the login, or where the key has none for its first part but the
/// client, goes before one for the domain of that, this before one for a network, and of networks the longest prefix wins.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    list: List,
    /// The override of each entry of the list.
    numbers: Vec<usize>,
}

impl Overrides {
    pub(crate) fn new(written: &[config::Override]) -> Self {
        let mut overrides = Self::default();
        let mut networks = Vec::new();
        for (number, written) in written.iter().enumerate() {
            let key = written.key.value.as_str();
            if let Ok(network) = config::parse_network(key) {
                networks.push((network, number));
                continue;
            }
            let is_domain = !key.contains('@') && key.contains('.');
            if let (true, Ok(pattern)) = (is_domain, key.parse()) {
                overrides.list.add_domain(&pattern, "");
                overrides.numbers.push(number);
            }
            // `john.doe` may be a login as well.
            if !key.starts_with('.') {
                overrides.list.add_login(key, "");
                overrides.numbers.push(number);
            }
        }
        overrides.list.add_networks(networks.iter().map(|(network, _)| (*network, "")));
        overrides.numbers.extend(networks.iter().map(|(_, number)| *number));
        overrides
    }

    /// The row of bounds for this key: 0 for those of all others, else one more than the number of the override.
    pub(crate) fn row(&self, key: &[KeyPart], facts: &Facts<'_>) -> usize {
        // Only one part says who it is: else a client could call itself after somebody in a part that it chooses.
        let login = key.iter().find(|part| matches!(part, KeyPart::Login));
        let other = key.iter().find(|part| !matches!(part, KeyPart::Client { .. }));
        let name = login.or(other).and_then(|part| text(*part, facts));
        let exact = name.and_then(|(text, _)| self.list.login(text));
        let domain = || name.and_then(|(_, domain)| self.list.domain(domain?));
        let network = || {
            let is_client = key.iter().any(|part| matches!(part, KeyPart::Client { .. }));
            facts.connection.client.filter(|_| is_client).and_then(|client| self.list.network(client))
        };
        let entry = exact.or_else(domain).or_else(network);
        entry.and_then(|entry| self.numbers.get(entry)).map_or(0, |number| number + 1)
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
