//! How much of people is shown: all of it, as much as tells them apart for who knows them, or nothing.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::PersonalData;

/// What stands for what is not shown.
pub(super) const HIDDEN: &str = "…";

/// Shows what is personal, as far as the configuration wants it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Privacy(pub(super) PersonalData);

impl Privacy {
    /// Whether all is shown.
    pub(super) fn is_full(self) -> bool {
        self.0 == PersonalData::Full
    }

    /// A client's address: of a short one the network, which is a whole site's.
    pub(super) fn client(self, client: IpAddr) -> String {
        match self.0 {
            PersonalData::Full => client.to_string(),
            PersonalData::None => HIDDEN.to_owned(),
            PersonalData::Short => {
                let length = if client.is_ipv4() { 24 } else { 64 };
                IpNet::new(client, length).map_or_else(|_| HIDDEN.to_owned(), |network| network.trunc().to_string())
            }
        }
    }

    /// An address, or a login, which often is one: `a…@example.com`. The null sender is nobody's.
    pub(super) fn address(self, address: &str) -> String {
        match (self.0, address) {
            (_, "" | "<>") | (PersonalData::Full, _) => address.to_owned(),
            (PersonalData::None, _) => HIDDEN.to_owned(),
            (PersonalData::Short, _) => {
                let (local, domain) = match address.rsplit_once('@') {
                    Some((local, domain)) => (local, format!("@{domain}")),
                    None => (address, String::new()),
                };
                let first: String = local.chars().take(1).collect();
                format!("{first}{HIDDEN}{domain}")
            }
        }
    }

    /// The name of a host: of a short one what belongs to its provider.
    pub(super) fn host(self, name: &str) -> String {
        match (self.0, name) {
            (_, "" | "unknown") | (PersonalData::Full, _) => name.to_owned(),
            (PersonalData::None, _) => HIDDEN.to_owned(),
            (PersonalData::Short, _) => {
                let labels: Vec<&str> = name.rsplitn(3, '.').collect();
                match labels.as_slice() {
                    [top, second, _] if is_name(top) && is_name(second) => {
                        format!("{HIDDEN}{second}.{top}")
                    }
                    _ => HIDDEN.to_owned(),
                }
            }
        }
    }

    /// Why a rule held, in the words of the log: `@list entry # comment`, or a limit, which names nobody.
    pub(super) fn detail(self, detail: &str) -> String {
        if self.is_full() {
            return detail.to_owned();
        }
        let written = detail.split(" # ").next().unwrap_or_default();
        match written.strip_prefix('@').and_then(|list| list.split_once(' ')) {
            Some((list, entry)) => format!("@{list} {}", self.word(entry)),
            None => written.split(' ').map(|word| self.unless_harmless(word)).collect::<Vec<_>>().join(" "),
        }
    }

    /// The key of a limit, which may have several parts.
    pub(super) fn key(self, key: &str) -> String {
        if self.is_full() {
            return key.to_owned();
        }
        key.split(' ').map(|part| self.word(part)).collect::<Vec<_>>().join(" ")
    }

    /// A word of which it is not known what it is.
    fn word(self, word: &str) -> String {
        let network = word.parse::<IpAddr>().ok().or_else(|| word.parse::<IpNet>().ok().map(|network| network.addr()));
        match network {
            _ if word == "-" => word.to_owned(),
            Some(address) => self.client(address),
            // Also what looks like a host: a login may have dots, too.
            None => self.address(word),
        }
    }

    fn unless_harmless(self, word: &str) -> String {
        let is_somebody = word.contains('@') || word.parse::<IpAddr>().is_ok() || word.parse::<IpNet>().is_ok();
        if is_somebody { self.word(word) } else { word.to_owned() }
    }
}

/// Whether it may be a part of a host's name, and not of an address.
fn is_name(label: &str) -> bool {
    let is_allowed = |c: char| c.is_alphanumeric() || "-_".contains(c);
    label.chars().all(is_allowed) && label.contains(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_tells_nobody_by_name() {
        let short = Privacy(PersonalData::Short);
        assert_eq!(short.client("192.0.2.77".parse().unwrap()), "192.0.2.0/24");
        assert_eq!(short.client("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::/64");
        for (address, shown) in [
            ("alice@example.com", "a…@example.com"),
            ("bob", "b…"),
            ("<>", "<>"),
            ("", ""),
            ("\"a@b\"@x.example", "\"…@x.example"),
        ] {
            assert_eq!(short.address(address), shown);
        }
        for (host, shown) in [
            ("dsl-192-0-2-7.isp.example", "…isp.example"),
            ("example.com", "…"),
            ("unknown", "unknown"),
            ("[192.0.2.7]", "…"),
            ("192.0.2.7", "…"),
            ("laptop", "…"),
            ("x.alice@example.com", "…"),
            ("192.0.2.7.", "…"),
        ] {
            assert_eq!(short.host(host), shown, "{host}");
        }
        for (detail, shown) in [
            ("@drop 192.0.2.7 # Mr Smith", "@drop 192.0.2.0/24"),
            ("@vips alice@example.com", "@vips a…@example.com"),
            ("@logins alice", "@logins a…"),
            ("messages 20/minute used 21", "messages 20/minute used 21"),
            ("192.0.2.7", "192.0.2.0/24"),
        ] {
            assert_eq!(short.detail(detail), shown, "{detail}");
        }
        assert_eq!(short.key("192.0.2.7 alice -"), "192.0.2.0/24 a… -");
        assert_eq!(short.key("anna.maria.smith"), "a…", "a login");
        assert_eq!(short.detail("@vips anna.maria.smith"), "@vips a…");
    }

    #[test]
    fn nothing_is_nothing_and_all_is_all() {
        let none = Privacy(PersonalData::None);
        assert_eq!(none.client("192.0.2.77".parse().unwrap()), HIDDEN);
        assert_eq!([none.address("a@b.example"), none.host("a.b.example"), none.key("a@b.example")], [HIDDEN; 3]);
        assert_eq!(none.detail("@drop 192.0.2.7 # x"), "@drop …");
        let full = Privacy(PersonalData::Full);
        assert_eq!(full.client("192.0.2.77".parse().unwrap()), "192.0.2.77");
        assert_eq!(full.detail("@drop 192.0.2.7 # x"), "@drop 192.0.2.7 # x");
    }
}
