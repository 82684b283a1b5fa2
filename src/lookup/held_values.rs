//! The different values that one message holds: each once, however often it has it.

use std::collections::BTreeSet;

use crate::facts::Key;

/// A value of a key of a counter.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct HeldValue {
    pub(super) counter: usize,
    pub(super) key: Key,
    /// A hash.
    pub(super) value: u64,
}

/// What is held of a message, and which of it for the current command.
#[derive(Debug, Default)]
pub(super) struct HeldValues {
    message: BTreeSet<HeldValue>,
    command: Vec<HeldValue>,
}

impl HeldValues {
    /// Another command begins.
    pub(super) fn mark(&mut self) {
        self.command.clear();
    }

    pub(super) fn has(&self, held: &HeldValue) -> bool {
        self.message.contains(held)
    }

    pub(super) fn add(&mut self, held: HeldValue) {
        self.command.push(held.clone());
        self.message.insert(held);
    }

    /// All of it, to be charged or given back.
    pub(super) fn into_all(self) -> BTreeSet<HeldValue> {
        self.message
    }

    /// What was held for this command, to be given back; but not of these counters, which charge it all the same.
    pub(super) fn roll_back(&mut self, charged: &BTreeSet<usize>) -> Vec<HeldValue> {
        let mut brought = std::mem::take(&mut self.command);
        brought.retain(|held| !charged.contains(&held.counter) && self.message.remove(held));
        brought
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Ledger;
    use super::super::Shared;
    use super::*;
    use crate::config::Config;
    use crate::config::Source;
    use crate::facts::Amount;
    use crate::facts::Answer;
    use crate::facts::Hold;
    use crate::facts::Scope;
    use crate::policy::Policy;

    const CONFIG: &str = r#"
        [[rule]]
        name = "stolen"
        limit = { key = "login", distinct = "2/hour", of = "client/24" }
        [[rule]]
        name = "tries"
        limit = { key = "login", distinct = "2/hour", of = "recipient", charge = "attempts", block_for = "1h" }
    "#;

    fn shared() -> Arc<Shared> {
        let (config, mut diagnostics) =
            Config::read(vec![Source { path: "test.toml".into(), text: CONFIG.to_owned() }]);
        let policy = Policy::compile(&config, &mut diagnostics);
        Shared::new(Arc::new(policy.unwrap_or_else(|| panic!("{diagnostics}"))))
    }

    fn ask(ledger: &mut Ledger, counter: usize, value: &str) -> Answer {
        let amount = Amount::Value(Key::from_slice(value.as_bytes()));
        let scope = if counter == 0 { Scope::Message } else { Scope::Attempt };
        ledger.mark();
        ledger.hold(&Hold { counter, row: 0, key: Key::from_slice(b"alice"), amount, scope })
    }

    fn fits(ledger: &mut Ledger, value: &str) -> bool {
        ask(ledger, 0, value) == Answer::Within
    }

    #[test]
    fn what_is_not_accepted_is_no_value() {
        let shared = shared();
        for network in ["a", "b", "c", "d"] {
            let mut ledger = Ledger::new(Arc::clone(&shared));
            assert!(fits(&mut ledger, network));
            ledger.release();
            assert!(fits(&mut ledger, network), "and when the connection is lost");
        }
        let mut ledger = Ledger::new(Arc::clone(&shared));
        for network in ["a", "b", "a", "b"] {
            assert!(fits(&mut ledger, network));
            ledger.commit();
        }
        let Answer::Exceeded(exceeded) = ask(&mut ledger, 0, "c") else { panic!("two are all") };
        let counter = &shared.policy.counters()[0];
        assert_eq!((counter.bound(&exceeded).as_str(), exceeded.used), ("2 networks/hour", 2));
    }

    #[test]
    fn sessions_at_once_share_what_they_have_in_common() {
        let shared = shared();
        let [mut first, mut second, mut third] = [(); 3].map(|()| Ledger::new(Arc::clone(&shared)));
        assert!(fits(&mut first, "a") && fits(&mut second, "a") && fits(&mut third, "b"));
        assert!(!fits(&mut first, "c"), "a and b are held");
        first.release();
        assert!(!fits(&mut first, "c"), "the second one holds a still");
        drop(second);
        assert!(fits(&mut first, "c"));
    }

    #[test]
    fn a_refused_command_gives_back_only_what_it_brought() {
        let shared = shared();
        let (mut ledger, mut other) = (Ledger::new(Arc::clone(&shared)), Ledger::new(shared));
        assert!(fits(&mut ledger, "a"));
        assert!(fits(&mut ledger, "a"));
        ledger.roll_back();
        assert!(fits(&mut ledger, "b"));
        assert!(!fits(&mut other, "c"));
        ledger.roll_back();
        assert!(fits(&mut other, "c"), "b is free");
        other.release();
        assert!(fits(&mut other, "b") && !fits(&mut ledger, "c"), "a is held still");
    }

    #[test]
    fn a_try_counts_whatever_became_of_it_and_who_is_over_is_shut_out() {
        let shared = shared();
        let mut ledger = Ledger::new(Arc::clone(&shared));
        assert_eq!(ask(&mut ledger, 1, "a"), Answer::Within);
        ledger.roll_back();
        assert_eq!(ask(&mut ledger, 1, "b"), Answer::Within);
        drop(ledger);
        let mut ledger = Ledger::new(shared);
        assert!(matches!(ask(&mut ledger, 1, "c"), Answer::Exceeded(_)));
        assert!(matches!(ask(&mut ledger, 1, "a"), Answer::Exceeded(_)), "a block holds for known ones, too");
    }
}
