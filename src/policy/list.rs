//! Lists: what they are called and what stands in them. What matches is in the index, for all of them together.

use std::collections::HashMap;

use super::index::Hit;
use super::index::Index;
use super::index::Matching;
use super::index::Pattern;
use crate::config;
use crate::config::AddressPattern;
use crate::facts::Address;

/// A list made ready.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// What `@name` calls it; empty for values written into a condition.
    pub(crate) name: String,
    senders: Senders,
    /// What was written, for texts and logs: entry and comment.
    entries: Vec<(Box<str>, Box<str>)>,
}

impl List {
    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.senders.numbers.len()
    }

    /// Whether `login` may use `sender`; a login that is not in the list may use none, the null sender is everybody's.
    pub(crate) fn may_use(&self, login: &str, sender: &Address) -> bool {
        sender.is_null() || self.senders.allow(login, sender)
    }

    /// An entry as written, and its comment.
    pub(crate) fn entry(&self, index: usize) -> (&str, &str) {
        self.entries.get(index).map_or(("", ""), |(entry, comment)| (entry, comment))
    }
}

/// What each login may send as.
#[derive(Debug, Default)]
struct Senders {
    /// The list of each login in the index.
    numbers: HashMap<Box<str>, usize>,
    index: Index,
}

impl Senders {
    fn new(written: &[(String, Vec<AddressPattern>)]) -> Self {
        let mut numbers: HashMap<Box<str>, usize> = HashMap::new();
        let mut entries = Vec::new();
        for (login, allowed) in written {
            let next = numbers.len();
            let list = *numbers.entry(login.as_str().into()).or_insert(next);
            let entry = entries.len();
            entries.extend(allowed.iter().map(|pattern| (Pattern::Address(pattern), Hit { list, entry })));
        }
        Self { numbers, index: Index::new(entries) }
    }

    fn allow(&self, login: &str, sender: &Address) -> bool {
        let mut matching = Matching::new();
        self.index.addresses(sender, &mut matching);
        self.numbers.get(login).is_some_and(|list| self.index.hit(&matching, *list).is_some())
    }
}

/// Lists in the making.
#[derive(Debug, Default)]
pub(crate) struct Lists<'a> {
    lists: Vec<List>,
    entries: Vec<(Pattern<'a>, Hit)>,
    /// Those of values written into conditions, by what was written.
    inline: HashMap<String, usize>,
}

impl<'a> Lists<'a> {
    /// Adds the list that somebody has given a name.
    pub(crate) fn add_named(&mut self, written: &'a config::List) {
        let name = written.name.value.clone();
        self.lists.push(List { name, senders: Senders::new(&written.senders), entries: Vec::new() });
        for entry in &written.networks {
            self.add(Pattern::Network(entry.value), &entry.comment);
        }
        for entry in &written.domains {
            self.add(Pattern::Domain(&entry.value), &entry.comment);
        }
        for entry in &written.addresses {
            self.add(Pattern::Address(&entry.value), &entry.comment);
        }
        for entry in &written.logins {
            self.add(Pattern::Login(&entry.value), &entry.comment);
        }
    }

    /// The list of values written into a condition; the same values are the same list.
    pub(crate) fn inline(&mut self, values: Vec<Pattern<'a>>) -> usize {
        let written: String = values.iter().map(|value| format!("{value:?}\n")).collect();
        if let Some(known) = self.inline.get(&written) {
            return *known;
        }
        self.lists.push(List::default());
        values.into_iter().for_each(|value| self.add(value, ""));
        let list = self.lists.len() - 1;
        self.inline.insert(written, list);
        list
    }

    /// What they are, and what finds their entries.
    pub(crate) fn finish(self) -> (Vec<List>, Index) {
        (self.lists, Index::new(self.entries))
    }

    /// Adds an entry to the last list.
    fn add(&mut self, pattern: Pattern<'a>, comment: &str) {
        let number = self.lists.len().wrapping_sub(1);
        if let Some(list) = self.lists.last_mut() {
            self.entries.push((pattern, Hit { list: number, entry: list.entries.len() }));
            list.entries.push((written(pattern).into(), comment.into()));
        }
    }
}

/// A pattern as people write it: a single address without its prefix length.
fn written(pattern: Pattern<'_>) -> String {
    match pattern {
        Pattern::Address(pattern) => pattern.to_string(),
        Pattern::Domain(pattern) => pattern.to_string(),
        Pattern::Login(login) => login.to_owned(),
        Pattern::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().to_string(),
        Pattern::Network(network) => network.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_may_use_what_stands_behind_it() {
        let allowed = ["alice@example.test", ".example.org"].map(|text| text.parse().unwrap());
        let senders = Senders::new(&[("alice".to_owned(), allowed.to_vec()), ("carol".to_owned(), Vec::new())]);
        let list = List { senders, ..List::default() };
        let may = |login, sender: &str| list.may_use(login, &Address::parse(sender.as_bytes()));
        assert!(may("alice", "<Alice@Example.test>"));
        assert!(may("alice", "<x@sub.example.org>"));
        assert!(!may("alice", "<bob@example.test>"));
        assert!(!may("bob", "<bob@example.test>") && !may("carol", "<alice@example.test>"));
        assert!(may("bob", "<>"));
    }

    #[test]
    fn the_same_values_are_one_list() {
        let mut lists = Lists::default();
        let domain = "a.test".parse().unwrap();
        let first = lists.inline(vec![Pattern::Domain(&domain)]);
        assert_eq!(lists.inline(vec![Pattern::Domain(&domain)]), first);
        assert_ne!(lists.inline(vec![Pattern::Login("a.test")]), first);
        assert_ne!(lists.inline(vec![Pattern::Domain(&domain), Pattern::Login("a.test")]), first);
    }

    #[test]
    fn entries_are_shown_as_written() {
        let mut lists = Lists::default();
        let networks = ["192.0.2.1/32", "192.0.2.0/24"].map(|text| Pattern::Network(text.parse().unwrap()));
        lists.inline(networks.to_vec());
        let (lists, _) = lists.finish();
        assert_eq!([0, 1].map(|entry| lists[0].entry(entry).0), ["192.0.2.1", "192.0.2.0/24"]);
    }
}
