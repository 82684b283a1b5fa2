//! `u32 length | u8 code | data`: cutting the byte stream into frames, and writing them.

use std::fmt;

use bytes::BufMut;
use bytes::BytesMut;

/// The longest frame taken from an MTA, code and data together. Both MTAs send at most 65536 (Postfix `milter8.c`
/// `MILTER_CHUNK_SIZE`; Sendmail `mfdef.h`); anything past this is not a milter client.
pub const MAX_FRAME: usize = 1 << 20;

/// One frame: a command's or response's letter and what follows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// The letter: `SMFIC_*` or `SMFIR_*`.
    pub code: u8,
    /// What follows the letter.
    pub data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the first whole frame of `bytes` and says how many bytes it took. `None`: more bytes are needed.
    ///
    /// # Errors
    ///
    /// A length of zero, or one past [`MAX_FRAME`]; the stream cannot be read any further then.
    pub fn split(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some((prefix, rest)) = bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > MAX_FRAME {
            return Err(FrameError::TooLong { length });
        }
        let Some((&code, data)) = rest.get(..length).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        Ok(Some((Self { code, data }, prefix.len() + length)))
    }

    /// The first frame of `bytes` as far as it has come, where [`Frame::split`] needs more, and how many bytes are missing.
    /// `None`: not even its letter is there.
    #[must_use]
    pub fn begun(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (prefix, rest) = bytes.split_first_chunk::<4>()?;
        let (&code, data) = rest.split_first()?;
        let missing = (u32::from_be_bytes(*prefix) as usize).checked_sub(rest.len())?;
        Some((Self { code, data }, missing))
    }

    /// Appends a frame whose data `write` produces; the length is filled in afterwards.
    pub fn write(out: &mut BytesMut, code: u8, write: impl FnOnce(&mut BytesMut)) {
        let start = out.len();
        out.put_u32(0);
        out.put_u8(code);
        write(out);
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(prefix) = out.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Why the byte stream is not one of frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameError {
    /// A frame without even a letter.
    Empty,
    /// A frame longer than [`MAX_FRAME`].
    TooLong {
        /// What the frame says its length is.
        length: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("frame length: zero, expected at least one byte for the command"),
            Self::TooLong { length } => write!(f, "frame length: {length} bytes, the limit is {MAX_FRAME}"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_cut_short_at_any_byte_waits_for_more() {
        let whole = [0, 0, 0, 3, b'H', b'a', 0];
        for end in 0..whole.len() {
            assert_eq!(Frame::split(&whole[..end]), Ok(None), "cut at {end}");
        }
        let frame = Frame { code: b'H', data: b"a\0" };
        assert_eq!(Frame::split(&whole), Ok(Some((frame, 7))));
    }

    #[test]
    fn of_a_frame_that_has_begun_it_is_known_what_is_missing() {
        let whole = [0, 0, 0, 3, b'B', b'a', b'b'];
        for end in 0..5 {
            assert_eq!(Frame::begun(&whole[..end]), None, "cut at {end}");
        }
        for (data, missing) in [(&b""[..], 2), (b"a", 1), (b"ab", 0)] {
            assert_eq!(Frame::begun(&whole[..5 + data.len()]), Some((Frame { code: b'B', data }, missing)));
        }
        assert_eq!(Frame::begun(&[&whole[..], b"x"].concat()), None, "more than one");
    }

    #[test]
    fn the_next_frame_is_left_alone() {
        let two = [0, 0, 0, 1, b'A', 0, 0, 0, 1, b'Q'];
        assert_eq!(Frame::split(&two), Ok(Some((Frame { code: b'A', data: b"" }, 5))));
    }

    #[test]
    fn length_zero_is_an_error() {
        assert_eq!(Frame::split(&[0, 0, 0, 0]), Err(FrameError::Empty));
    }

    /// "HTTP" read as a length: refused before anything is allocated for it.
    #[test]
    fn a_wild_length_is_an_error() {
        assert_eq!(Frame::split(b"HTTP"), Err(FrameError::TooLong { length: 0x4854_5450 }));
    }

    #[test]
    fn write_fills_in_the_length() {
        let mut out = BytesMut::from(&b"before"[..]);
        Frame::write(&mut out, b'q', |out| out.extend_from_slice(b"why\0"));
        assert_eq!(&out[..], b"before\0\0\0\x05qwhy\0");
    }
}
