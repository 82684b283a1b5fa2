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
