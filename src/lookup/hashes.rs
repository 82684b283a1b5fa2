//! Different values as numbers: so that one takes eight bytes, however long it is.
//!
//! Clients choose some of them, HELO names say, so the hash has a key that nobody knows: who could find two values with the
//! same hash could count twice as one. What was saved means something only together with the key that it was made with.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::OnceLock;

use siphasher::sip::SipHasher13;

/// The key of a hash.
pub(super) type HashKey = [u8; 16];

/// Hashes values, from the first one to the last with the same key.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    key: OnceLock<HashKey>,
}

impl Hashes {
    pub(super) fn of(&self, value: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.key()).hash(value)
    }

    /// The key, which is drawn when it is first needed.
    pub(super) fn key(&self) -> HashKey {
        *self.key.get_or_init(drawn)
    }

    /// Goes on with another key; whether all hashes from the first one on are made with it.
    pub(super) fn adopt(&self, key: HashKey) -> bool {
        *self.key.get_or_init(|| key) == key
    }
}

/// What the standard library seeds its tables with, twice: it comes from the operating system.
fn drawn() -> HashKey {
    let [one, other] = [0_u64, 1].map(|half| RandomState::new().hash_one(half));
    (u128::from(one) << 64 | u128::from(other)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_differ_and_keys_do() {
        let (one, other) = (Hashes::default(), Hashes::default());
        assert_eq!(one.of(b"a"), one.of(b"a"));
        assert_ne!(one.of(b"a"), one.of(b"b"));
        assert_ne!(one.of(b"a"), other.of(b"a"));
    }

    #[test]
    fn what_was_saved_is_known_again_with_its_key() {
        let (saved, restored) = (Hashes::default(), Hashes::default());
        let value = saved.of(b"a");
        assert!(restored.adopt(saved.key()));
        assert_eq!(restored.of(b"a"), value);
        assert!(!restored.adopt([7; 16]), "it is in use");
        assert_eq!(restored.of(b"a"), value);
    }

    /// A file written today is read by a later version: SipHash-1-3 as its authors have it.
    #[test]
    fn the_hash_is_the_same_for_ever() {
        let hashes = Hashes::default();
        assert!(hashes.adopt(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"));
        assert_eq!(hashes.of(b""), 0xabac_0158_050f_c4dc);
    }
}
