//! Lists as they are searched: one look-up each, however long they are.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config;
use crate::config::AddressPattern;
use crate::config::DomainPattern;
use crate::facts::Address;

/// A list made ready.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// What `@name` calls it; empty for values written into a condition.
    pub(crate) name: String,
    networks: NetworkSet,
    domains: DomainSet,
    addresses: HashMap<String, usize>,
    null: Option<usize>,
    logins: HashMap<String, usize>,
    senders: HashMap<String, Self>,
    /// What was written, for texts and logs: entry and comment.
    entries: Vec<(String, String)>,
}

/// Which entry of which list matched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hit {
    pub(crate) list: usize,
    pub(crate) entry: usize,
}

impl List {
    /// Makes a written list ready.
    pub(crate) fn new(written: &config::List) -> Self {
        let mut list = Self { name: written.name.value.clone(), ..Self::default() };
        list.add_networks(written.networks.iter().map(|entry| (entry.value, entry.comment.as_str())));
        for entry in &written.domains {
            list.add_domain(&entry.value, &entry.comment);
        }
        for entry in &written.addresses {
            list.add_address(&entry.value, &entry.comment);
        }
        for entry in &written.logins {
            list.add_login(&entry.value, &entry.comment);
        }
        for (login, allowed) in &written.senders {
            let senders = list.senders.entry(login.clone()).or_default();
            allowed.iter().for_each(|pattern| senders.add_address(pattern, ""));
        }
        list
    }

    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.senders.len()
    }

    /// Adds networks, all at once; of several that hold an address the longest prefix is found.
    pub(crate) fn add_networks<'a>(&mut self, networks: impl IntoIterator<Item = (IpNet, &'a str)>) {
        let numbered: Vec<(IpNet, usize)> =
            networks.into_iter().map(|(network, comment)| (network, self.note(shown(network), comment))).collect();
        self.networks = NetworkSet::new(numbered);
    }

    pub(crate) fn add_domain(&mut self, pattern: &DomainPattern, comment: &str) {
        let entry = self.note(pattern.to_string(), comment);
        self.domains.add(pattern, entry);
    }

    pub(crate) fn add_address(&mut self, pattern: &AddressPattern, comment: &str) {
        let entry = self.note(pattern.to_string(), comment);
        match pattern {
            AddressPattern::Address(address) => _ = self.addresses.entry(address.clone()).or_insert(entry),
            AddressPattern::Domain(pattern) => self.domains.add(pattern, entry),
            AddressPattern::Null => self.null = Some(entry),
        }
    }

    pub(crate) fn add_login(&mut self, login: &str, comment: &str) {
        let entry = self.note(login.to_owned(), comment);
        self.logins.entry(login.to_owned()).or_insert(entry);
    }

    /// The entry with the longest prefix that holds `address`.
    pub(crate) fn network(&self, address: IpAddr) -> Option<usize> {
        self.networks.find(address)
    }

    /// The entry for `name`, in lower case, or for a domain above it.
    pub(crate) fn domain(&self, name: &str) -> Option<usize> {
        self.domains.find(name)
    }

    /// The entry for the address itself, or for its domain.
    pub(crate) fn address(&self, address: &Address) -> Option<usize> {
        if address.is_null() {
            return self.null;
        }
        let exact = self.addresses.get(address.folded()).copied();
        exact.or_else(|| address.domain().and_then(|domain| self.domains.find(domain)))
    }

    /// The entry for the login, in lower case.
    pub(crate) fn login(&self, login: &str) -> Option<usize> {
        self.logins.get(login).copied()
    }

    /// Whether `login` may use `sender`; a login that is not in the list may use none, the null sender is everybody's.
    pub(crate) fn may_use(&self, login: &str, sender: &Address) -> bool {
        sender.is_null() || self.senders.get(login).is_some_and(|allowed| allowed.address(sender).is_some())
    }

    /// An entry as written, and its comment.
    pub(crate) fn entry(&self, index: usize) -> (&str, &str) {
        self.entries.get(index).map_or(("", ""), |(entry, comment)| (entry, comment))
    }

    fn note(&mut self, entry: String, comment: &str) -> usize {
        self.entries.push((entry, comment.to_owned()));
        self.entries.len() - 1
    }
}

/// A single address without its prefix length, as people write it.
fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

/// Networks as disjoint sorted ranges: a look-up is one binary search.
#[derive(Debug, Default)]
struct NetworkSet {
    v4: Vec<Range<u32>>,
    v6: Vec<Range<u128>>,
}

/// First and last address, and the entry they belong to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range<T> {
    first: T,
    last: T,
    entry: usize,
}

impl NetworkSet {
    fn new(networks: Vec<(IpNet, usize)>) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (network, entry) in networks {
            match network {
                IpNet::V4(net) => {
                    v4.push(Range { first: net.network().into(), last: net.broadcast().into(), entry });
                }
                IpNet::V6(net) => {
                    v6.push(Range { first: net.network().into(), last: net.broadcast().into(), entry });
                }
            }
        }
        Self { v4: disjoint(v4), v6: disjoint(v6) }
    }

    fn find(&self, address: IpAddr) -> Option<usize> {
        match address.to_canonical() {
            IpAddr::V4(address) => find(&self.v4, address.into()),
            IpAddr::V6(address) => find(&self.v6, address.into()),
        }
    }
}

fn find<T: Copy + Ord>(ranges: &[Range<T>], address: T) -> Option<usize> {
    let after = ranges.partition_point(|range| range.first <= address);
    let range = ranges.get(after.checked_sub(1)?)?;
    (address <= range.last).then_some(range.entry)
}

/// An unsigned integer that has a neighbour.
trait Step: Copy + Ord {
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

impl Step for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Step for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// Cuts nested networks so that no two ranges overlap and the innermost wins; networks either nest or are apart.
fn disjoint<T: Step>(mut ranges: Vec<Range<T>>) -> Vec<Range<T>> {
    ranges.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    ranges.dedup_by(|later, earlier| later.first == earlier.first && later.last == earlier.last);
    let mut sweep = Sweep { cut: Vec::with_capacity(ranges.len()), open: Vec::new(), cursor: None };
    for range in ranges {
        sweep.close(Some(range.first));
        sweep.open(range);
    }
    sweep.close(None);
    sweep.cut
}

/// A walk over all addresses, in order.
struct Sweep<T> {
    /// What is finished.
    cut: Vec<Range<T>>,
    /// The networks around the cursor, the innermost last.
    open: Vec<Range<T>>,
    /// The first address not covered yet; `None` before the first network and past the last address.
    cursor: Option<T>,
}

impl<T: Step> Sweep<T> {
    fn open(&mut self, range: Range<T>) {
        if let Some(outer) = self.open.last()
            && let Some(last) = range.first.previous()
            && let Some(first) = self.cursor.filter(|first| *first <= last)
        {
            self.cut.push(Range { first, last, entry: outer.entry });
        }
        self.cursor = Some(range.first);
        self.open.push(range);
    }

    /// Ends the networks that end before `next`; all of them for `None`.
    fn close(&mut self, next: Option<T>) {
        while let Some(range) = self.open.pop_if(|range| next.is_none_or(|next| range.last < next)) {
            if let Some(first) = self.cursor.filter(|first| *first <= range.last) {
                self.cut.push(Range { first, ..range });
                self.cursor = range.last.next();
            }
        }
    }
}

/// Domains, and everything below domains: one hash look-up for each label of the name.
#[derive(Debug, Default)]
struct DomainSet {
    exact: HashMap<String, usize>,
    below: HashMap<String, usize>,
}

impl DomainSet {
    fn add(&mut self, pattern: &DomainPattern, entry: usize) {
        match pattern {
            DomainPattern::Below(domain) => _ = self.below.entry(domain.clone()).or_insert(entry),
            DomainPattern::Exact(domain) => _ = self.exact.entry(domain.clone()).or_insert(entry),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        if let Some(&entry) = self.exact.get(name) {
            return Some(entry);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((head, above)) = rest.split_once('.') {
            let label_above = !head.is_empty() || rest.len() < name.len();
            if label_above && let Some(&entry) = self.below.get(above) {
                return Some(entry);
            }
            rest = above;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> List {
        let mut list = List::default();
        list.add_networks(texts.iter().map(|text| (parsed(text), "")));
        list
    }

    fn found<'a>(list: &'a List, address: &str) -> Option<&'a str> {
        list.network(address.parse().unwrap()).map(|entry| list.entry(entry).0)
    }

    #[test]
    fn the_longest_prefix_is_found() {
        let list = networks(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.255.255.255/32", "0.0.0.0/0"]);
        assert_eq!(found(&list, "10.1.2.3"), Some("10.1.2.3"));
        assert_eq!(found(&list, "10.1.2.4"), Some("10.1.0.0/16"));
        assert_eq!(found(&list, "10.2.0.0"), Some("10.0.0.0/8"));
        assert_eq!(found(&list, "10.255.255.255"), Some("10.255.255.255"));
        assert_eq!(found(&list, "11.0.0.0"), Some("0.0.0.0/0"));
        assert_eq!(found(&list, "::ffff:10.1.2.3"), Some("10.1.2.3"));
        assert_eq!(found(&list, "2001:db8::1"), None);
    }

    fn parsed(text: &str) -> IpNet {
        text.parse().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few address bits, so that networks nest and touch.
        (0u32..16, 26u8..=32).prop_map(|(low, length)| {
            let net = ipnet::Ipv4Net::new((0xC000_0200 | (low * 5)).into(), length).unwrap();
            IpNet::V4(net.trunc())
        })
    }

    proptest! {
        /// Against asking each network in turn.
        #[test]
        fn a_search_equals_asking_every_network(
            nets in prop::collection::vec(network(), 0..12),
            low in 0u32..256,
        ) {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0xC000_0200 | low));
            let mut list = List::default();
            list.add_networks(nets.iter().map(|net| (*net, "")));
            let longest = nets.iter().filter(|net| net.contains(&address)).map(IpNet::prefix_len).max();
            let found = list.network(address).map(|entry| parsed(list.entry(entry).0));
            prop_assert_eq!(found.map(|net| net.prefix_len()), longest);
            prop_assert!(found.is_none_or(|net| net.contains(&address)));
        }

        /// Against the pattern's own definition.
        #[test]
        fn a_domain_search_equals_asking_every_pattern(
            patterns in prop::collection::vec("\\.?[ab](\\.[ab]){0,2}", 0..6),
            name in "\\.?[ab](\\.[ab]){0,3}",
        ) {
            let patterns: Vec<DomainPattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
            let mut list = List::default();
            patterns.iter().for_each(|pattern| list.add_domain(pattern, ""));
            let expected = patterns.iter().any(|pattern| pattern.matches(&name));
            prop_assert_eq!(list.domain(&name).is_some(), expected);
        }
    }

    #[test]
    fn a_login_may_use_what_stands_behind_it() {
        let mut list = List::default();
        let mut allowed = List::default();
        allowed.add_address(&"alice@example.test".parse().unwrap(), "");
        allowed.add_address(&".example.org".parse().unwrap(), "");
        list.senders.insert("alice".to_owned(), allowed);
        let may = |login, sender: &str| list.may_use(login, &Address::parse(sender.as_bytes()));
        assert!(may("alice", "<Alice@Example.test>"));
        assert!(may("alice", "<x@sub.example.org>"));
        assert!(!may("alice", "<bob@example.test>"));
        assert!(!may("bob", "<bob@example.test>"));
        assert!(may("bob", "<>"));
    }
}
