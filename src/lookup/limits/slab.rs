//! Entries by number, in chunks: growing allocates one more chunk and moves nothing.

use super::entry::Entry;

/// Entries, each in a slot that stays its own as long as it is kept.
#[derive(Default)]
pub(super) struct Slab {
    /// Full, but for the last one.
    chunks: Vec<Vec<Slot>>,
    /// The first of the vacant slots, which name one another.
    vacant: Option<u32>,
}

// An entry is much larger than a number, and almost all slots have one.
enum Slot {
    Taken(Entry),
    Vacant { next: Option<u32> },
}

impl Slab {
    /// The slot that `entry` is in from now on.
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        if let Some(number) = self.vacant
            && let Some(slot) = self.slot_mut(number)
            && let Slot::Vacant { next } = *slot
        {
            *slot = Slot::Taken(entry);
            self.vacant = next;
            return number;
        }
        let number = self.slots();
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(Slot::Taken(entry)),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Slot::Taken(entry));
                self.chunks.push(chunk);
            }
        }
        number
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Entry> {
        let next = self.vacant;
        let slot = self.slot_mut(number)?;
        match std::mem::replace(slot, Slot::Vacant { next }) {
            Slot::Taken(entry) => {
                self.vacant = Some(number);
                Some(entry)
            }
            vacant @ Slot::Vacant { .. } => {
                *slot = vacant;
                None
            }
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Entry> {
        let (chunk, place) = split(number);
        match self.chunks.get(chunk)?.get(place)? {
            Slot::Taken(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Entry> {
        match self.slot_mut(number)? {
            Slot::Taken(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    /// How many slots there are, vacant ones included: all numbers are below.
    pub(super) fn slots(&self) -> u32 {
        let last = self.chunks.last().map_or(0, Vec::len);
        let slots = self.chunks.len().saturating_sub(1) * CHUNK + last;
        u32::try_from(slots).expect("a shard has memory for fewer entries than that")
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        let (chunk, place) = split(number);
        self.chunks.get_mut(chunk)?.get_mut(place)
    }
}

const fn split(number: u32) -> (usize, usize) {
    let number = number as usize;
    (number / CHUNK, number % CHUNK)
}

/// So large that the allocator's own share does not matter, so small that an empty one costs little.
const CHUNK: usize = if cfg!(test) { 3 } else { 64 };

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &[u8]) -> Entry {
        Entry::new(0, key)
    }

    #[test]
    fn a_slot_takes_eighty_bytes() {
        assert_eq!(size_of::<Slot>(), 80);
    }

    #[test]
    fn a_slot_is_used_again() {
        let mut slab = Slab::default();
        for number in 0..10 {
            assert_eq!(slab.insert(entry(&[number])), u32::from(number));
        }
        for number in [3, 7, 0] {
            assert_eq!(slab.remove(number).unwrap().key.as_slice(), [u8::try_from(number).unwrap()]);
            assert!(slab.get(number).is_none() && slab.remove(number).is_none());
        }
        for number in [0, 7, 3, 10] {
            assert_eq!(slab.insert(entry(b"new")), number);
        }
        assert_eq!(slab.slots(), 11);
        assert_eq!(slab.get(9).unwrap().key.as_slice(), [9]);
        assert!(slab.get(11).is_none());
    }
}
