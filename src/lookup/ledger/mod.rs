//! What one session holds of the counters.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Clock;
use super::Shared;
use super::held_values::HeldValue;
use super::held_values::HeldValues;
use super::limits;
use super::limits::By;
use super::limits::Load;
use super::operate::ends_after;
use crate::facts::Amount;
use crate::facts::Answer;
use crate::facts::Bound;
use crate::facts::Exceeded;
use crate::facts::Hold;
use crate::facts::Key;
use crate::facts::Scope;
use crate::policy::Levels;
use crate::policy::MAX_SESSION_KEYS;

/// The reservations of one session. Dropping it gives all of them back.
pub struct Ledger {
    shared: Arc<Shared>,
    /// Of the message. In a box: most of its life a session has no message, or none of which anything is held.
    message: Option<Box<Holdings>>,
    /// Of the connection, in the order in which it came.
    connection: Vec<Held>,
}

/// The reservations of one message.
#[derive(Debug, Default)]
struct Holdings {
    /// What it holds, by counter and key.
    amounts: BTreeMap<(usize, Key), u64>,
    /// The different values that it holds.
    values: HeldValues,
    /// The counters that charge tries.
    attempts: BTreeSet<usize>,
    /// What it is charged if it is refused or given up.
    refusals: BTreeMap<(usize, Key), u64>,
    /// What the recipient of the current command is charged if it is refused.
    recipient_refusals: Vec<Held>,
    /// Under which counters and rows the recipient of the current command is tried, for whom.
    tries: Vec<(usize, usize, Key)>,
    /// What of it was added for the current command.
    command: Vec<Held>,
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
        Self { shared, message: None, connection: Vec::new() }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn mark(&mut self) {
        if let Some(message) = &mut self.message {
            message.command.clear();
            message.values.mark();
            message.recipient_refusals.clear();
            message.tries.clear();
        }
    }

    fn message(&mut self) -> &mut Holdings {
        self.message.get_or_insert_default()
    }

    /// What of `hold` the message holds already.
    fn held(&self, hold: &Hold) -> u64 {
        let amounts = self.message.as_ref().map(|message| &message.amounts);
        amounts.and_then(|amounts| amounts.get(&(hold.counter, hold.key.clone()))).copied().unwrap_or_default()
    }

    /// What of `hold` it is charged already, should it be refused.
    fn held_for_refusal(&self, hold: &Hold) -> Option<u64> {
        let refusals = &self.message.as_ref()?.refusals;
        refusals.get(&(hold.counter, hold.key.clone())).copied()
    }

    /// Reserves, if there is room under every bound; else nothing.
    pub(super) fn hold(&mut self, hold: &Hold) -> Answer {
        let amount = match &hold.amount {
            Amount::Add(_) if hold.scope == Scope::Connection && self.is_connected(hold) => 0,
            Amount::Add(amount) => *amount,
            Amount::Nothing | Amount::Try => return self.hold_try(hold),
            Amount::Value(value) => return self.hold_value(hold, value),
            Amount::Total(total) => {
                let held = self.held(hold);
                if *total < held {
                    let message = self.message.get_or_insert_default();
                    message.give_back(&self.shared, hold.counter, &hold.key, held - total);
                }
                total.saturating_sub(held)
            }
        };
        let levels = self.shared.policy.counters().get(hold.counter).map(|counter| &counter.levels);
        // With steps, what is held already says which one it is at.
        if amount == 0 && levels.is_none_or(Levels::is_empty) {
            return Answer::Within;
        }
        // Judged again: the true size may be more than the declared one.
        if hold.scope == Scope::Refused && self.held_for_refusal(hold).is_some_and(|known| known >= amount) {
            return Answer::Within;
        }
        let now = self.shared.clock.now();
        let over = match self.shared.hold(now, hold, amount) {
            Ok(over) => over,
            Err(exceeded) => return Answer::Exceeded(told(self.shut_out(now, hold, exceeded), hold.row)),
        };
        if amount > 0 {
            self.reserve(now, hold, amount);
        }
        over.map_or(Answer::Within, |over| Answer::Exceeded(told(self.shut_out(now, hold, over), hold.row)))
    }

    /// Keeps what was reserved as long as its scope says.
    fn reserve(&mut self, now: Duration, hold: &Hold, amount: u64) {
        let held = Held { counter: hold.counter, key: hold.key.clone(), amount };
        match hold.scope {
            Scope::Instant => self.shared.commit(now, hold.counter, &hold.key, amount),
            Scope::Connection => self.connect(held),
            Scope::Refused => {
                self.shared.release(hold.counter, &hold.key, amount);
                self.may_be_refused(&hold.amount, held);
            }
            Scope::Attempt | Scope::Message => {
                let message = self.message();
                if hold.scope == Scope::Attempt {
                    message.attempts.insert(held.counter);
                }
                *message.amounts.entry((held.counter, held.key.clone())).or_default() += amount;
                message.command.push(held);
            }
        }
    }

    /// Whether one more may be tried. What becomes of it shows when the command is settled.
    fn hold_try(&mut self, hold: &Hold) -> Answer {
        let now = self.shared.clock.now();
        if let Err(exceeded) = self.shared.hold(now, hold, Load::Try) {
            return Answer::Exceeded(told(self.shut_out(now, hold, exceeded), hold.row));
        }
        if hold.amount == Amount::Try {
            self.message().tries.push((hold.counter, hold.row, hold.key.clone()));
        }
        Answer::Within
    }

    /// The recipient of this command was refused, or was not.
    fn note_tries(&mut self, is_refused: bool) {
        let Some(message) = &mut self.message else {
            return;
        };
        for (counter, row, key) in message.tries.drain(..) {
            self.shared.note(self.shared.clock.now(), counter, row, &key, is_refused);
        }
    }

    /// Nothing was refused, and the message goes on.
    pub(super) fn keep(&mut self) {
        self.note_tries(false);
    }

    /// One more different value, unless this message has it already.
    fn hold_value(&mut self, hold: &Hold, value: &Key) -> Answer {
        let held = HeldValue { counter: hold.counter, key: hold.key.clone(), value: self.shared.hashes.of(value) };
        if self.message.as_ref().is_some_and(|message| message.values.has(&held)) {
            return Answer::Within;
        }
        let now = self.shared.clock.now();
        if let Err(exceeded) = self.shared.hold(now, hold, Load::Value(held.value)) {
            return Answer::Exceeded(told(self.shut_out(now, hold, exceeded), hold.row));
        }
        let message = self.message();
        if hold.scope == Scope::Attempt {
            message.attempts.insert(hold.counter);
        }
        message.values.add(held);
        Answer::Within
    }

    /// What is charged if it comes to a refusal: of the message, or of the recipient of this command.
    fn may_be_refused(&mut self, amount: &Amount, held: Held) {
        match amount {
            Amount::Add(_) => self.message().recipient_refusals.push(held),
            Amount::Nothing | Amount::Total(_) | Amount::Try | Amount::Value(_) => {
                _ = self.message().refusals.insert((held.counter, held.key), held.amount)
            }
        }
    }

    /// The message was accepted: what it holds is charged now.
    pub(super) fn commit(&mut self) {
        let Some(message) = self.message.take() else {
            return;
        };
        let now = self.shared.clock.now();
        for ((counter, key), amount) in message.amounts {
            self.shared.commit(now, counter, &key, amount);
        }
        for HeldValue { counter, key, value } in message.values.into_all() {
            self.shared.commit(now, counter, &key, Load::Value(value));
        }
    }

    /// The message is over: what it holds is given back, or charged where tries are.
    pub(super) fn release(&mut self) {
        let Some(message) = self.message.take() else {
            return;
        };
        let now = self.shared.clock.now();
        for ((counter, key), amount) in message.refusals {
            self.shared.commit(now, counter, &key, amount);
        }
        for ((counter, key), amount) in message.amounts {
            if message.attempts.contains(&counter) {
                self.shared.commit(now, counter, &key, amount);
            } else {
                self.shared.release(counter, &key, amount);
            }
        }
        for HeldValue { counter, key, value } in message.values.into_all() {
            if message.attempts.contains(&counter) {
                self.shared.commit(now, counter, &key, Load::Value(value));
            } else {
                self.shared.release(counter, &key, Load::Value(value));
            }
        }
    }

    /// The command was refused: what was held for it alone is given back, unless it was the try that counts.
    pub(super) fn roll_back(&mut self) {
        self.note_tries(true);
        let Some(message) = &mut self.message else {
            return;
        };
        for refused in message.recipient_refusals.drain(..) {
            self.shared.commit(self.shared.clock.now(), refused.counter, &refused.key, refused.amount);
        }
        for held in std::mem::take(&mut message.command) {
            if !message.attempts.contains(&held.counter) {
                message.give_back(&self.shared, held.counter, &held.key, held.amount);
            }
        }
        for HeldValue { counter, key, value } in message.values.roll_back(&message.attempts) {
            self.shared.release(counter, &key, Load::Value(value));
        }
    }

    /// The message is over because we failed: nobody is charged for a refusal.
    pub(super) fn release_unjudged(&mut self) {
        if let Some(message) = &mut self.message {
            message.refusals.clear();
        }
        self.release();
    }

    /// The same for the recipient of this command.
    pub(super) fn roll_back_unjudged(&mut self) {
        if let Some(message) = &mut self.message {
            message.tries.clear();
            message.recipient_refusals.clear();
        }
        self.roll_back();
    }

    /// Who is over a limit that says so is blocked from now on, unless he is at a step that lets pass; the block is what he
    /// has to wait for.
    fn shut_out(&self, now: Duration, hold: &Hold, exceeded: limits::Exceeded) -> limits::Exceeded {
        let counter = self.shared.policy.counters().get(hold.counter);
        let blocking = counter.filter(|counter| !counter.levels.passes(exceeded.step));
        match (blocking.and_then(|counter| counter.block_for), exceeded.by) {
            (Some(time), By::Concurrent | By::Rate(_) | By::Share(_)) => {
                self.shared.block(now, hold.counter, &hold.key, now.saturating_add(time));
                let longest = exceeded.retry_after.map_or(time, |retry_after| retry_after.max(time));
                limits::Exceeded { retry_after: Some(longest), ..exceeded }
            }
            (_, By::Block(_)) | (None, By::Concurrent | By::Rate(_) | By::Share(_)) => exceeded,
        }
    }

    pub(super) fn release_connection(&mut self) {
        for held in self.connection.drain(..) {
            self.shared.release(held.counter, &held.key, held.amount);
        }
    }

    /// Whether this connection has its place already: the session forgets it after many other keys, and asks again.
    fn is_connected(&self, hold: &Hold) -> bool {
        self.connection.iter().any(|held| held.counter == hold.counter && held.key == hold.key)
    }

    /// A connection holds places for the latest [`MAX_SESSION_KEYS`] keys of a counter. Who passes that chooses the key
    /// freely, as an EHLO name, and could have chosen another one at the start.
    fn connect(&mut self, held: Held) {
        let same = |before: &Held| before.counter == held.counter;
        if self.connection.iter().filter(|before| same(before)).count() >= MAX_SESSION_KEYS
            && let Some(oldest) = self.connection.iter().position(same)
        {
            let oldest = self.connection.remove(oldest);
            self.shared.release(oldest.counter, &oldest.key, oldest.amount);
        }
        self.connection.push(held);
    }
}

impl Holdings {
    /// Gives back what of `amount` the message still holds: more was declared than came, or the command was refused.
    fn give_back(&mut self, shared: &Shared, counter: usize, key: &Key, amount: u64) {
        if let Some(held) = self.amounts.get_mut(&(counter, key.clone())) {
            let part = amount.min(*held);
            *held -= part;
            shared.release(counter, key, part);
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.release();
        self.release_connection();
    }
}

fn told(exceeded: limits::Exceeded, row: usize) -> Exceeded {
    let (bound, retry_after) = match exceeded.by {
        By::Block(block) => (Bound::Block, ends_after(block)),
        By::Concurrent => (Bound::Concurrent, exceeded.retry_after),
        By::Rate(index) => (Bound::Rate(index), exceeded.retry_after),
        By::Share(index) => (Bound::Share(index), exceeded.retry_after),
    };
    let retry_at = retry_after.and_then(|after| Clock::time_of_day().checked_add(after));
    Exceeded { row, step: exceeded.step, bound, used: exceeded.used, retry_after, retry_at }
}

#[cfg(test)]
mod tests;
