//! What is kept of one key, in as few bytes as it takes.

use super::Load;
use super::bounds::Bounds;
use super::charges::Charges;
use super::values::Values;

/// One key of one counter.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) charges: Charges,
    /// What is reserved; of different values, how many.
    pub(super) held: u64,
    pub(super) pin: Pin,
    /// Neighbours in the counter's order of use: the one used before, the one used after.
    pub(super) links: Links,
    /// The shard's count of uses when this was last used; it wraps around.
    pub(super) used: u32,
    counter: u16,
    /// The row that it was last judged by.
    row: u16,
}

impl Entry {
    pub(super) fn new(counter: u16, key: &[u8]) -> Self {
        let (charges, pin, links) = (Charges::None, Pin::Free, Links::OUT);
        Self { key: Key::new(key), charges, held: 0, pin, links, used: 0, counter, row: 0 }
    }

    pub(super) fn counter(&self) -> usize {
        usize::from(self.counter)
    }

    pub(super) fn row(&self) -> usize {
        usize::from(self.row)
    }

    /// A row beyond 16 bits is judged by like all others, and here only remembered as the last that there can be.
    pub(super) fn set_row(&mut self, row: usize) {
        self.row = u16::try_from(row).unwrap_or(u16::MAX);
    }

    pub(super) fn hold(&mut self, load: Load) {
        match load {
            Load::Amount(amount) => self.held = self.held.saturating_add(amount),
            Load::Try => {}
            Load::Value(value) => self.change_values(|values| values.hold(value)),
        }
    }

    pub(super) fn release(&mut self, load: Load) {
        match load {
            Load::Amount(amount) => self.held = self.held.saturating_sub(amount),
            Load::Try => {}
            Load::Value(value) => self.change_values(|values| values.release(value)),
        }
    }

    /// Turns what was held into a charge.
    pub(super) fn charge(&mut self, load: Load, now: u64, bounds: &Bounds) {
        self.charges.forget(now, bounds.longest);
        match load {
            Load::Amount(amount) => {
                self.held = self.held.saturating_sub(amount);
                self.charges.charge(now, amount, bounds.grain(self.row()));
            }
            Load::Try => {}
            Load::Value(value) => self.change_values(|values| values.charge(value, now, bounds.most_values)),
        }
    }

    fn change_values(&mut self, change: impl FnOnce(&mut Values)) {
        self.charges.change_values(change);
        self.held = self.charges.values().map_or(0, Values::held);
    }
}

/// Why a key must not be forgotten for another one. Times are when that ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Pin {
    Blocked(Box<Blocked>),
    #[default]
    Free,
    /// Not even one more would fit.
    Full(u64),
    /// So much as was asked for would not fit.
    Refused(u64),
}

/// A block: from when until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) since: u64,
    pub(super) until: u64,
}

impl Pin {
    /// Its place among all pins of a counter; `None` for none.
    pub(super) fn rank(&self) -> Option<(Tier, u64)> {
        match self {
            Self::Blocked(block) => Some((Tier::Blocked, block.until)),
            Self::Free => None,
            Self::Full(until) => Some((Tier::Full, *until)),
            Self::Refused(until) => Some((Tier::Refused, *until)),
        }
    }
}

/// Who has to go first, when there are too many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Idle,
    Full,
    Refused,
    Blocked,
}

/// Place in a doubly linked list of slots; [`NONE`] at its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) before: u32,
    pub(super) after: u32,
}

impl Links {
    /// In no list.
    pub(super) const OUT: Self = Self { before: NONE - 1, after: NONE - 1 };
}

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// A short key in place, a long one elsewhere.
#[derive(Debug)]
pub(super) enum Key {
    Long(Box<[u8]>),
    Short { length: u8, bytes: [u8; SHORT] },
}

impl Key {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(key);
                Self::Short { length, bytes }
            }
            _ => Self::Long(key.into()),
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Long(key) => key,
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
        }
    }
}

const SHORT: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_are_kept_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..bytes.len() {
            assert_eq!(Key::new(&bytes[..length]).as_slice(), &bytes[..length]);
        }
        assert_eq!(size_of::<Key>(), 24);
    }
}
