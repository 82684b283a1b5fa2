//! Which tests of a plan can hold: those that the facts at hand admit.
//!
//! A condition that demands that the client is in a list, or in one of a few, is a *gate*: where the client is in none of them
//! the answer is No, whatever else is asked, and the test need not be visited. `Not` is no gate, and neither is a question about
//! an amount. An address that is malformed opens every gate that asks about it, for such a test cannot be judged, and says so.

use std::collections::BTreeSet;
use std::collections::HashMap;

use smallvec::SmallVec;

use super::condition::Condition;
use super::condition::Question;
use super::found::Asked;
use super::found::Found;
use super::index::Index;
use super::plan::Test;
use crate::facts::Facts;
use crate::facts::Recipient;

/// Above so many numbers of lists those are dropped that came twice: thousands of recipients may be in the same ones.
const ROOM: usize = 64;

/// Numbers of tests or lists; more than fit in place are rare.
type Numbers = SmallVec<[u32; 16]>;

/// The gates of one plan, by what opens them: each with its test, in order. Tests are called by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    /// At each number the first test from there on that has no gate.
    without: Vec<u32>,
    /// What lists are asked about.
    asked: BTreeSet<Asked>,
    in_lists: Vec<((Asked, u32), u32)>,
    listeners: Vec<(Box<str>, u32)>,
    ports: Vec<(u16, u32)>,
}

/// The tests with a gate that is open, in order.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    tests: Numbers,
    /// The lists in which the fact is that is looked at.
    lists: Numbers,
}

/// What opens a gate.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Key<'a> {
    InList(Asked, usize),
    Listener(&'a str),
    Port(u16),
}

impl Gates {
    /// Of several questions that could be the gate of a test it is the one that the fewest others share.
    pub(crate) fn new(tests: &[Test]) -> Self {
        let mut uses = HashMap::new();
        tests.iter().for_each(|test| count(&test.condition, &mut uses));
        let mut gates = Self::default();
        let mut is_gated = Vec::with_capacity(tests.len());
        for (number, test) in (0..).zip(tests) {
            let keys = keys(&test.condition, &uses);
            is_gated.push(keys.is_some());
            keys.into_iter().flatten().for_each(|key| gates.add(key, number));
        }
        gates.in_lists.sort_unstable();
        gates.listeners.sort_unstable();
        gates.ports.sort_unstable();
        gates.asked = gates.in_lists.iter().map(|((asked, _), _)| *asked).collect();
        gates.without = without(&is_gated);
        gates
    }

    fn add(&mut self, key: Key<'_>, test: u32) {
        match key {
            Key::InList(asked, list) => {
                self.in_lists.extend(u32::try_from(list).ok().map(|list| ((asked, list), test)));
            }
            Key::Listener(name) => self.listeners.push((name.into(), test)),
            Key::Port(port) => self.ports.push((port, test)),
        }
    }

    /// The first test from `from` on that can hold.
    pub(crate) fn next(&self, from: usize, admitted: &Admitted) -> Option<usize> {
        let without = *self.without.get(from)? as usize;
        if without == from {
            return Some(from);
        }
        let after = admitted.tests.partition_point(|test| (*test as usize) < from);
        Some(admitted.tests.get(after).map_or(without, |test| without.min(*test as usize)))
    }

    /// Finds the tests that can hold; `recipients` are those that it may be about.
    pub(crate) fn admit<'a>(
        &self,
        facts: &Facts<'a>,
        recipients: impl Iterator<Item = &'a Recipient> + Clone,
        index: &Index,
        found: &mut Found,
        admitted: &mut Admitted,
    ) {
        let Admitted { tests, lists } = admitted;
        tests.clear();
        for asked in &self.asked {
            lists.clear();
            let subjects = recipients.clone().map(|recipient| Facts { recipient: Some(recipient), ..*facts });
            let is_open = if *asked == Asked::Recipient {
                find_all(*asked, subjects, index, found, lists)
            } else {
                find_all(*asked, std::iter::once(*facts), index, found, lists)
            };
            if is_open {
                tests.extend(opened(&self.in_lists, |(of, _)| of.cmp(asked)));
                continue;
            }
            for list in lists.iter() {
                tests.extend(opened(&self.in_lists, |key| key.cmp(&(*asked, *list))));
            }
        }
        if let Some(port) = facts.connection.port {
            tests.extend(opened(&self.ports, |key| key.cmp(&port)));
        }
        if let Some(listener) = &facts.connection.listener {
            tests.extend(opened(&self.listeners, |key| key.cmp(listener)));
        }
        in_order(tests);
    }
}

/// Finds the lists in which what is asked about is, for one of these subjects; true where of one nobody can say.
fn find_all<'a>(
    asked: Asked,
    subjects: impl Iterator<Item = Facts<'a>>,
    index: &Index,
    found: &mut Found,
    lists: &mut Numbers,
) -> bool {
    let mut room = ROOM;
    for facts in subjects {
        if asked.malformed(&facts).is_some() {
            return true;
        }
        for pattern in found.matching(asked, &facts, index) {
            lists.extend(index.places(*pattern).iter().map(|place| place.list));
        }
        if lists.len() > room {
            in_order(lists);
            room = room.max(2 * lists.len());
        }
    }
    in_order(lists);
    false
}

fn in_order(numbers: &mut Numbers) {
    numbers.sort_unstable();
    numbers.dedup();
}

/// The tests behind one key.
fn opened<K>(gates: &[(K, u32)], order: impl Fn(&K) -> std::cmp::Ordering) -> impl Iterator<Item = u32> {
    let first = gates.partition_point(|(key, _)| order(key).is_lt());
    let gates = gates.get(first..).unwrap_or_default();
    gates.iter().take_while(move |(key, _)| order(key).is_eq()).map(|(_, test)| *test)
}

fn without(is_gated: &[bool]) -> Vec<u32> {
    let mut next = u32::try_from(is_gated.len()).unwrap_or(u32::MAX);
    let from_the_end = (0..next).rev().zip(is_gated.iter().rev()).map(|(number, is_gated)| {
        next = if *is_gated { next } else { number };
        next
    });
    let mut without: Vec<u32> = from_the_end.collect();
    without.reverse();
    without
}

/// How many tests could have each key.
fn count<'a>(condition: &'a Condition, uses: &mut HashMap<Key<'a>, usize>) {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().for_each(|part| count(part, uses)),
        Condition::Not(_) => {}
        Condition::Question(question) => {
            of_question(question).into_iter().flatten().for_each(|key| *uses.entry(key).or_default() += 1);
        }
    }
}

/// The keys without one of which a condition is answered No; `None`: it may hold whatever is known.
fn keys<'a>(condition: &'a Condition, uses: &HashMap<Key<'a>, usize>) -> Option<Vec<Key<'a>>> {
    let sharing = |keys: &Vec<Key<'a>>| keys.iter().filter_map(|key| uses.get(key)).sum::<usize>();
    match condition {
        // One No settles it, whatever the others say.
        Condition::All(parts) => parts.iter().filter_map(|part| keys(part, uses)).min_by_key(sharing),
        Condition::Any(parts) => {
            parts.iter().map(|part| keys(part, uses)).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        Condition::Not(_) => None,
        Condition::Question(question) => of_question(question),
    }
}

fn of_question(question: &Question) -> Option<Vec<Key<'_>>> {
    match question {
        Question::InLists(asked, lists) => Some(lists.iter().map(|list| Key::InList(*asked, *list)).collect()),
        Question::Listener(names) => Some(names.iter().map(|name| Key::Listener(name)).collect()),
        Question::Port(ports) => Some(ports.iter().copied().map(Key::Port).collect()),
        Question::Authenticated(_)
        | Question::DiskFree { .. }
        | Question::Recipients(_)
        | Question::SenderLoginMismatch(_)
        | Question::Size(_)
        | Question::Tls(_) => None,
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
    use crate::facts::Stage;
    use crate::policy::Policy;

    /// A policy whose rules have these conditions.
    fn policy(conditions: impl IntoIterator<Item = String>) -> Policy {
        let lists = "[lists.all]\nnetworks = [\"0.0.0.0/0\", \"::/0\"]\n".to_owned();
        let text = conditions.into_iter().enumerate().fold(lists, |text, (number, condition)| {
            format!("{text}[[rule]]\nname = \"{number}\"\nwhen = {{ {condition} }}\nadd_header = \"X: y\"\n")
        });
        let (config, mut diagnostics) = Config::read(vec![Source { path: "policy.toml".into(), text }]);
        Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}"))
    }

    /// The rules that are visited for this message.
    fn visited(policy: &Policy, stage: Stage, sender: &str, recipients: &[&str]) -> Vec<usize> {
        let connection = Connection {
            client: "192.0.2.7".parse().ok(),
            port: Some(25),
            listener: Some("smtp".into()),
            ..Connection::default()
        };
        let message = Message { sender: Address::parse(sender.as_bytes()), ..Message::default() };
        let facts = Facts { connection: &connection, message: Some(&message), recipient: None };
        let address = |text: &&str| Address::parse(text.as_bytes());
        let recipient = |(address, position)| Recipient { address, position, ..Recipient::default() };
        let recipients: Vec<Recipient> = recipients.iter().map(address).zip(1..).map(recipient).collect();
        let (mut found, mut admitted) = (Found::default(), Admitted::default());
        let plan = policy.plan(stage).unwrap();
        plan.gates.admit(&facts, recipients.iter(), &policy.index, &mut found, &mut admitted);
        let after = |last: usize| plan.next(last + 1, &admitted).map(|(number, _)| number);
        let numbers = std::iter::successors(plan.next(0, &admitted).map(|(number, _)| number), |last| after(*last));
        numbers.map(|number| plan.tests[number].rule).collect()
    }

    /// What a message costs does not grow with the rules about others.
    #[test]
    fn of_ten_thousand_rules_only_those_are_visited_that_can_hold() {
        let of_others = |number: usize| match number % 6 {
            0 => format!("client = \"198.18.{}.{}\"", number / 250, number % 250),
            1 => format!("sender = \"s{number}@example.com\""),
            2 => format!("sender_domain = [\"d{number}.example\", \".e{number}.example\"]"),
            3 => format!("client = \"@all\", sender = \"t{number}@example.com\""),
            4 => format!("any = [{{ port = {} }}, {{ client = \"198.19.0.0/16\" }}]", 1000 + number),
            _ => format!("listener = \"l{number}\", port = 25"),
        };
        for others in [20, 1000, 10_000] {
            let own = ["size = \"> 1\"", "client = \"192.0.2.0/24\"", "not = { client = \"198.18.0.1\" }"];
            let policy = policy((0..others).map(of_others).chain(own.map(str::to_owned)));
            let all: Vec<usize> = [Stage::Mail, Stage::EndOfMessage]
                .into_iter()
                .flat_map(|stage| visited(&policy, stage, "<a@example.org>", &["<b@example.org>"]))
                .collect();
            assert_eq!(all, [others + 1, others + 2, others]);
        }
    }

    #[test]
    fn every_recipient_of_the_message_opens_gates() {
        let of_recipients = ["a@x.test", "b@x.test", "x.test", ".test", "c@x.test"];
        let policy = policy(of_recipients.map(|recipient| format!("recipient = \"{recipient}\", size = \"> 1\"")));
        let visited = |recipients: &[&str]| visited(&policy, Stage::EndOfMessage, "<>", recipients);
        assert_eq!(visited(&["<a@x.test>", "<B@x.test>"]), [0, 1, 2, 3]);
        assert_eq!(visited(&["<a@y.test>"]), [3]);
        assert_eq!(visited(&[]), [0; 0]);
        let many: Vec<String> = (0..1000).map(|number| format!("<r{number}@x.test>")).collect();
        assert_eq!(visited(&many.iter().map(String::as_str).collect::<Vec<_>>()), [2, 3]);
    }

    /// Nobody can say whose it is, and the rule has to say so.
    #[test]
    fn a_malformed_address_opens_every_gate_that_asks_about_it() {
        let policy = policy(["sender = \"a@x.test\"", "sender_domain = \"y.test\"", "port = 26"].map(str::to_owned));
        assert_eq!(visited(&policy, Stage::Mail, "<a@x.test@y.test>", &[]), [0, 1]);
        assert_eq!(visited(&policy, Stage::Mail, "<b@x.test>", &[]), [0; 0]);
    }
}
