//! Buffers for what comes and what goes: lent to a connection while it has something to do, so that one that waits has none.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::BytesMut;

/// As much as is read at once: several pieces of a body, of which both MTAs send at most 65535 bytes in a frame. Of a body of 5 MiB
/// each read also costs an acknowledgement.
const INPUT: usize = 256 << 10;

/// Room for answers; most are a few bytes.
const OUTPUT: usize = 4 << 10;

/// How many are kept that nobody uses. More than there are threads are in use only where look-ups take their time.
const MOST_KEPT: usize = 16;

/// The buffers that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Buffer>>,
}

/// A place to read to, and one to write from. The default has no room at all.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) input: Box<[u8]>,
    pub(super) output: BytesMut,
}

/// A buffer that is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    pub(super) buffer: Buffer,
    owner: &'a Buffers,
}

impl Buffers {
    pub(super) fn lend(&self) -> Lent<'_> {
        let free = self.free().pop();
        let buffer = free.unwrap_or_else(|| Buffer {
            input: vec![0; INPUT].into_boxed_slice(),
            output: BytesMut::with_capacity(OUTPUT),
        });
        Lent { buffer, owner: self }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent<'_> {
    /// Gives back the place to read to, and keeps only the answers: for who has to wait before they are whole.
    pub(super) fn keep_output(&mut self) {
        let output = BytesMut::from(&*self.buffer.output);
        let buffer = std::mem::replace(&mut self.buffer, Buffer { input: Box::default(), output });
        drop(Self { buffer, owner: self.owner });
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.input.is_empty() {
            return;
        }
        buffer.output.clear();
        // One that grew, or of which a part went, is not what the next one needs.
        if buffer.output.capacity() != OUTPUT {
            buffer.output = BytesMut::with_capacity(OUTPUT);
        }
        let mut free = self.owner.free();
        if free.len() < MOST_KEPT {
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_next_gets_what_was_given_back_and_finds_it_empty() {
        let buffers = Buffers::default();
        let mut first = buffers.lend();
        first.buffer.output.extend_from_slice(&[b'x'; 2 * OUTPUT]);
        let at = first.buffer.input.as_ptr();
        drop(first);
        let second = buffers.lend();
        assert_eq!(second.buffer.input.as_ptr(), at);
        assert_eq!((second.buffer.output.len(), second.buffer.output.capacity()), (0, OUTPUT));
    }

    #[test]
    fn who_waits_keeps_no_more_than_the_answers() {
        let buffers = Buffers::default();
        let mut first = buffers.lend();
        first.buffer.output.extend_from_slice(b"x");
        first.keep_output();
        assert_eq!(buffers.free().len(), 1);
        assert_eq!((&*first.buffer.output, first.buffer.input.len()), (&b"x"[..], 0));
        drop(first);
        assert_eq!(buffers.free().len(), 1, "it has been given back before");
        assert!(buffers.lend().buffer.output.is_empty());
    }

    #[test]
    fn what_many_needed_at_once_is_not_kept() {
        let buffers = Buffers::default();
        drop((0..2 * MOST_KEPT).map(|_| buffers.lend()).collect::<Vec<_>>());
        assert_eq!(buffers.free().len(), MOST_KEPT);
    }
}
