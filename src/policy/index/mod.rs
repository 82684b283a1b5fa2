//! What stands in lists, all lists together: one look-up of a value finds the patterns that match it, and of each pattern it is
//! known in which lists it stands. So a thousand lists are searched as fast as one, and what stands in all is kept once.

mod networks;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::config::AddressPattern;
use crate::config::DomainPattern;
use crate::facts::Address;
use networks::Networks;

/// What an entry of a list matches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern<'a> {
    Address(&'a AddressPattern),
    Domain(&'a DomainPattern),
    Login(&'a str),
    Network(IpNet),
}

/// Which entry of which list matched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hit {
    pub(crate) list: usize,
    pub(crate) entry: usize,
}

/// The patterns that match a value, by number. The closest is the first: a longer prefix, the address before its domain. More
/// than fit in place are rare: they nest.
pub(crate) type Matching = SmallVec<[u32; 6]>;

/// Where a pattern stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    pub(crate) list: u32,
    entry: u32,
}

/// The patterns of all lists. Names are in lower case.
#[derive(Debug, Default)]
pub(crate) struct Index {
    networks: Networks,
    addresses: HashMap<Box<str>, u32>,
    domains: HashMap<Box<str>, u32>,
    /// Everything below a domain, without the dot.
    below: HashMap<Box<str>, u32>,
    logins: HashMap<Box<str>, u32>,
    /// The null sender.
    null: Option<u32>,
    /// Those of the first pattern, then those of the second …, each in the order of the lists.
    places: Vec<Place>,
    /// Where the places of each pattern end.
    ends: Vec<u32>,
}

impl Index {
    /// Of several entries of one list with the same pattern the first is found.
    pub(crate) fn new<'a>(entries: impl IntoIterator<Item = (Pattern<'a>, Hit)>) -> Self {
        let mut index = Self::default();
        let mut networks = HashMap::new();
        let mut placed: Vec<(u32, Place)> = Vec::new();
        let mut count = 0;
        for (pattern, hit) in entries {
            let number = match pattern {
                Pattern::Address(AddressPattern::Null) => *index.null.get_or_insert(count),
                Pattern::Address(AddressPattern::Address(address)) => number(&mut index.addresses, address, count),
                Pattern::Address(AddressPattern::Domain(pattern)) | Pattern::Domain(pattern) => match pattern {
                    DomainPattern::Below(domain) => number(&mut index.below, domain, count),
                    DomainPattern::Exact(domain) => number(&mut index.domains, domain, count),
                },
                Pattern::Login(login) => number(&mut index.logins, login, count),
                Pattern::Network(network) => *networks.entry(network.trunc()).or_insert(count),
            };
            count = count.max(number.saturating_add(1));
            placed.push((number, Place { list: small(hit.list), entry: small(hit.entry) }));
        }
        index.networks = Networks::new(networks);
        index.place(placed);
        index
    }

    fn place(&mut self, mut placed: Vec<(u32, Place)>) {
        placed.sort_unstable();
        placed.dedup_by_key(|(pattern, place)| (*pattern, place.list));
        let mut end = 0;
        for places in placed.chunk_by(|(one, _), (other, _)| one == other) {
            end += small(places.len());
            self.ends.push(end);
        }
        self.places = placed.into_iter().map(|(_, place)| place).collect();
    }

    /// The networks that hold `address`, the longest prefix first.
    pub(crate) fn networks(&self, address: IpAddr, matching: &mut Matching) {
        matching.extend(self.networks.around(address));
    }

    /// The patterns for `name`, in lower case, and for the domains above it.
    pub(crate) fn domains(&self, name: &str, matching: &mut Matching) {
        matching.extend(self.domains.get(name).copied());
        if self.below.is_empty() {
            return;
        }
        let mut rest = name;
        while let Some((head, above)) = rest.split_once('.') {
            let label_above = !head.is_empty() || rest.len() < name.len();
            matching.extend(self.below.get(above).copied().filter(|_| label_above));
            rest = above;
        }
    }

    /// The patterns for the address itself, and for its domain.
    pub(crate) fn addresses(&self, address: &Address, matching: &mut Matching) {
        if address.is_null() {
            matching.extend(self.null);
            return;
        }
        matching.extend(self.addresses.get(address.folded()).copied());
        if let Some(domain) = address.domain() {
            self.domains(domain, matching);
        }
    }

    /// The pattern for the login, in lower case.
    pub(crate) fn logins(&self, login: &str, matching: &mut Matching) {
        matching.extend(self.logins.get(login).copied());
    }

    /// Where a pattern stands, in the order of the lists.
    pub(crate) fn places(&self, pattern: u32) -> &[Place] {
        let end = |pattern: usize| self.ends.get(pattern).map_or(0, |end| *end as usize);
        let pattern = pattern as usize;
        let first = pattern.checked_sub(1).map_or(0, end);
        self.places.get(first..end(pattern)).unwrap_or_default()
    }

    /// The entry of `list` that matches closest.
    pub(crate) fn hit(&self, matching: &[u32], list: usize) -> Option<Hit> {
        let in_list = |places: &[Place]| {
            let found = places.binary_search_by_key(&list, |place| place.list as usize).ok()?;
            places.get(found).map(|place| Hit { list, entry: place.entry as usize })
        };
        matching.iter().find_map(|pattern| in_list(self.places(*pattern)))
    }
}

fn number(patterns: &mut HashMap<Box<str>, u32>, text: &str, next: u32) -> u32 {
    match patterns.get(text) {
        Some(number) => *number,
        None => *patterns.entry(text.into()).or_insert(next),
    }
}

/// Four thousand million entries fit into no memory.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lists of networks as an index.
    fn networks(lists: &[Vec<IpNet>]) -> Index {
        let entries = lists.iter().enumerate().flat_map(|(list, networks)| {
            let hit = move |(entry, network): (usize, &IpNet)| (Pattern::Network(*network), Hit { list, entry });
            networks.iter().enumerate().map(hit)
        });
        Index::new(entries)
    }

    fn found(index: &Index, list: usize, address: IpAddr) -> Option<usize> {
        let mut matching = Matching::new();
        index.networks(address, &mut matching);
        index.hit(&matching, list).map(|hit| hit.entry)
    }

    fn parsed(text: &str) -> IpNet {
        text.parse().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn the_longest_prefix_of_each_list_is_found() {
        let inner = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.255.255.255/32", "0.0.0.0/0"].map(parsed);
        let outer = ["10.0.0.0/9", "2001:db8::/32", "10.1.0.0/16"].map(parsed);
        let index = networks(&[inner.to_vec(), outer.to_vec()]);
        let found = |address: &str| [0, 1].map(|list| found(&index, list, address.parse().unwrap()));
        assert_eq!(found("10.1.2.3"), [Some(2), Some(2)]);
        assert_eq!(found("10.1.2.4"), [Some(1), Some(2)]);
        assert_eq!(found("10.2.0.0"), [Some(0), Some(0)]);
        assert_eq!(found("10.255.255.255"), [Some(3), None]);
        assert_eq!(found("11.0.0.0"), [Some(4), None]);
        assert_eq!(found("::ffff:10.1.2.3"), [Some(2), Some(2)]);
        assert_eq!(found("2001:db8::1"), [None, Some(1)]);
    }

    #[test]
    fn of_the_same_pattern_twice_in_a_list_the_first_is_found() {
        let twice = vec![parsed("10.0.0.0/8"), parsed("10.0.0.0/8")];
        assert_eq!(found(&networks(&[twice]), 0, "10.0.0.1".parse().unwrap()), Some(0));
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
            lists in prop::collection::vec(prop::collection::vec(network(), 0..8), 1..4),
            low in 0u32..256,
        ) {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0xC000_0200 | low));
            let index = networks(&lists);
            for (list, nets) in lists.iter().enumerate() {
                let longest = nets.iter().filter(|net| net.contains(&address)).map(IpNet::prefix_len).max();
                let found = found(&index, list, address).map(|entry| nets[entry]);
                prop_assert_eq!(found.map(|net| net.prefix_len()), longest);
                prop_assert!(found.is_none_or(|net| net.contains(&address)));
            }
        }

        /// Against the pattern's own definition.
        #[test]
        fn a_domain_search_equals_asking_every_pattern(
            lists in prop::collection::vec(prop::collection::vec("\\.?[ab](\\.[ab]){0,2}", 0..6), 1..4),
            name in "\\.?[ab](\\.[ab]){0,3}",
        ) {
            let parsed = |texts: &Vec<String>| texts.iter().map(|text| text.parse().unwrap()).collect();
            let lists: Vec<Vec<DomainPattern>> = lists.iter().map(parsed).collect();
            let entries = lists.iter().enumerate().flat_map(|(list, patterns)| {
                patterns.iter().enumerate().map(move |(entry, pattern)| (Pattern::Domain(pattern), Hit { list, entry }))
            });
            let index = Index::new(entries);
            let mut matching = Matching::new();
            index.domains(&name, &mut matching);
            for (list, patterns) in lists.iter().enumerate() {
                let hit = index.hit(&matching, list).map(|hit| &patterns[hit.entry]);
                let first = patterns.iter().filter(|pattern| pattern.matches(&name)).max_by_key(|p| p.to_string().len());
                prop_assert_eq!(hit.is_some(), first.is_some());
                prop_assert!(hit.is_none_or(|pattern| pattern.matches(&name)));
            }
        }
    }

    #[test]
    fn an_address_goes_before_its_domain_and_that_before_what_is_above() {
        let patterns = [".test", ".example.test", "a.example.test", "b@a.example.test", "<>"]
            .map(|text| text.parse::<AddressPattern>().unwrap());
        let hit = |(entry, pattern)| (Pattern::Address(pattern), Hit { list: 7, entry });
        let index = Index::new(patterns.iter().enumerate().map(hit));
        let found = |address: &str| {
            let mut matching = Matching::new();
            index.addresses(&Address::parse(address.as_bytes()), &mut matching);
            index.hit(&matching, 7).map(|hit| hit.entry)
        };
        assert_eq!(found("<B@a.example.test>"), Some(3));
        assert_eq!(found("<c@a.example.test>"), Some(2));
        assert_eq!(found("<c@b.example.test>"), Some(1));
        assert_eq!(found("<c@example.test>"), Some(0));
        assert_eq!(found("<c@test>"), None);
        assert_eq!(found("<>"), Some(4));
    }
}
