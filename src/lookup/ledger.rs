//! What one session holds of the counters.

use std::sync::Arc;

use super::Clock;
use super::Shared;
use super::limits;
use crate::facts::Amount;
use crate::facts::Answer;
use crate::facts::Exceeded;
use crate::facts::Hold;
use crate::facts::Key;
use crate::facts::Scope;

/// The reservations of one session. Dropping it gives all of them back.
pub struct Ledger {
    shared: Arc<Shared>,
    message: Vec<Held>,
    connection: Vec<Held>,
    /// How much of `message` was held before the current command.
    mark: usize,
}

/// One reservation.
#[derive(Clone, Debug)]
struct Held {
    counter: usize,
    key: Key,
    amount: u64,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, message: Vec::new(), connection: Vec::new(), mark: 0 }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) const fn mark(&mut self) {
        self.mark = self.message.len();
    }

    /// Reserves, if there is room under every bound; else nothing.
    pub(super) fn hold(&mut self, hold: &Hold) -> Answer {
        let amount = match hold.amount {
            Amount::Add(amount) => amount,
            Amount::Total(total) => {
                let held = self.held(hold);
                if total < held {
                    self.give_back(hold, held - total);
                }
                total.saturating_sub(held)
            }
        };
        if amount == 0 {
            return Answer::Within;
        }
        let now = self.shared.clock.now();
        if let Err(exceeded) = self.shared.counters.hold(now, hold.counter, &hold.key, amount) {
            return Answer::Exceeded(told(&exceeded));
        }
        match hold.scope {
            Scope::Instant => self.shared.counters.commit(now, hold.counter, &hold.key, amount),
            Scope::Connection => self.connection.push(Held { counter: hold.counter, key: hold.key.clone(), amount }),
            Scope::Message => self.message.push(Held { counter: hold.counter, key: hold.key.clone(), amount }),
        }
        Answer::Within
    }

    /// The message was accepted: what it holds is charged now.
    pub(super) fn commit(&mut self) {
        let now = self.shared.clock.now();
        for held in self.message.drain(..) {
            self.shared.counters.commit(now, held.counter, &held.key, held.amount);
        }
        self.mark = 0;
    }

    /// The message is over: what it holds is given back.
    pub(super) fn release(&mut self) {
        give_back(&self.shared, &mut self.message, 0);
        self.mark = 0;
    }

    /// The command was refused: what was held for it alone is given back.
    pub(super) fn roll_back(&mut self) {
        give_back(&self.shared, &mut self.message, self.mark);
    }

    pub(super) fn release_connection(&mut self) {
        give_back(&self.shared, &mut self.connection, 0);
    }

    /// What this message holds of that key already.
    fn held(&self, hold: &Hold) -> u64 {
        let same = self.message.iter().filter(|held| held.counter == hold.counter && held.key == hold.key);
        same.map(|held| held.amount).sum()
    }

    /// More was declared than came: the rest is free for others.
    fn give_back(&mut self, hold: &Hold, mut surplus: u64) {
        for held in self.message.iter_mut().filter(|held| held.counter == hold.counter && held.key == hold.key) {
            let part = surplus.min(held.amount);
            held.amount -= part;
            surplus -= part;
            self.shared.counters.release(held.counter, &held.key, part);
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.release();
        self.release_connection();
    }
}

fn give_back(shared: &Shared, held: &mut Vec<Held>, from: usize) {
    for held in held.drain(from.min(held.len())..) {
        shared.counters.release(held.counter, &held.key, held.amount);
    }
}

fn told(exceeded: &limits::Exceeded) -> Exceeded {
    Exceeded {
        rate: exceeded.rate,
        used: exceeded.used,
        retry_after: exceeded.retry_after,
        retry_at: exceeded.retry_after.and_then(|after| Clock::time_of_day().checked_add(after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Source;
    use crate::policy::Policy;

    const CONFIG: &str = r#"
        [[rule]]
        name = "limits"
        limit = { key = "login", messages = "2/hour", recipients = "3/hour", bytes = "1000 B/hour", concurrent = 1 }
    "#;

    fn shared() -> Arc<Shared> {
        let sources = vec![Source { path: "test.toml".into(), text: CONFIG.to_owned() }];
        let (config, mut diagnostics) = Config::read(sources);
        let policy = Policy::compile(&config, &mut diagnostics);
        Shared::new(Arc::new(policy.unwrap_or_else(|| panic!("{diagnostics}"))))
    }

    fn counter(shared: &Shared, measure: &str) -> usize {
        shared.policy.counters().iter().position(|counter| counter.measure.name() == measure).unwrap()
    }

    fn hold(ledger: &mut Ledger, measure: &str, amount: Amount, scope: Scope) -> bool {
        let counter = counter(&ledger.shared, measure);
        let hold = Hold { counter, key: Key::from_slice(b"alice"), amount, scope };
        ledger.hold(&hold) == Answer::Within
    }

    fn message(ledger: &mut Ledger) -> bool {
        hold(ledger, "messages", Amount::Total(1), Scope::Message)
    }

    #[test]
    fn what_is_not_accepted_costs_nothing() {
        let shared = shared();
        let mut ledger = Ledger::new(Arc::clone(&shared));
        for _ in 0..10 {
            assert!(message(&mut ledger));
            ledger.release();
        }
        drop(ledger);
        let mut lost = Ledger::new(Arc::clone(&shared));
        assert!(message(&mut lost));
        drop(lost);
        let mut ledger = Ledger::new(shared);
        for _ in 0..2 {
            assert!(message(&mut ledger));
            ledger.commit();
        }
        assert!(!message(&mut ledger), "two were accepted");
    }

    #[test]
    fn one_message_is_one_message_however_often_it_is_judged() {
        let mut ledger = Ledger::new(shared());
        for _ in 0..5 {
            assert!(message(&mut ledger));
        }
        ledger.commit();
        assert!(message(&mut ledger));
    }

    #[test]
    fn a_refused_recipient_is_given_back_and_the_others_stay() {
        let mut ledger = Ledger::new(shared());
        let recipient = |ledger: &mut Ledger| {
            ledger.mark();
            hold(ledger, "recipients", Amount::Add(1), Scope::Message)
        };
        assert!(recipient(&mut ledger));
        for _ in 0..5 {
            assert!(recipient(&mut ledger));
            ledger.roll_back();
        }
        assert!(recipient(&mut ledger) && recipient(&mut ledger));
        assert!(!recipient(&mut ledger), "three are held");
    }

    #[test]
    fn what_was_declared_is_corrected_by_what_came() {
        let shared = shared();
        let (mut ledger, mut other) = (Ledger::new(Arc::clone(&shared)), Ledger::new(shared));
        let size = |ledger: &mut Ledger, octets| hold(ledger, "bytes", Amount::Total(octets), Scope::Message);
        assert!(size(&mut ledger, 900) && !size(&mut other, 200));
        assert!(size(&mut ledger, 100) && size(&mut other, 200), "the rest is free again");
        ledger.commit();
        assert!(size(&mut other, 900) && !size(&mut other, 901));
    }

    #[test]
    fn a_connection_holds_its_place_until_it_ends() {
        let shared = shared();
        let (mut first, mut second) = (Ledger::new(Arc::clone(&shared)), Ledger::new(shared));
        let connect = |ledger: &mut Ledger| hold(ledger, "concurrent", Amount::Add(1), Scope::Connection);
        assert!(connect(&mut first));
        first.release();
        assert!(!connect(&mut second), "a message that ends does not end the connection");
        drop(first);
        assert!(connect(&mut second));
    }
}
