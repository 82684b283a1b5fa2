//! Frames of the milter protocol, as much as a load generator and a floor need. Not those of `postward::wire`: what is
//! measured must not be what measures.

/// `u32 length | u8 letter | data`.
pub(crate) fn put(out: &mut Vec<u8>, letter: u8, data: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, letter]);
    data(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(crate) fn put_string(out: &mut Vec<u8>, string: &str) {
    out.extend_from_slice(string.as_bytes());
    out.push(0);
}

/// A frame as it was found.
pub(crate) struct Frame<'a> {
    pub(crate) letter: u8,
    pub(crate) data: &'a [u8],
    /// How long it is altogether.
    pub(crate) length: usize,
}

/// The first whole frame. `None`: more bytes are needed.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length == 0 || length > MOST {
        return Err(format!("a frame of length {length}"));
    }
    Ok(rest.get(..length).map(|frame| Frame { letter: frame[0], data: &frame[1..], length: 4 + length }))
}

/// The `index`th of the words that OPTNEG begins with: version, actions, steps.
pub(crate) fn word(data: &[u8], index: usize) -> Result<u32, String> {
    let bytes = data.get(index * 4..).and_then(<[u8]>::first_chunk::<4>);
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(|| "an OPTNEG that ends too early".to_owned())
}

/// What may be left out, by the command's letter.
pub(crate) const fn skip_bit(letter: u8) -> u32 {
    match letter {
        b'C' => 0x1,
        b'H' => 0x2,
        b'M' => 0x4,
        b'R' => 0x8,
        b'B' => 0x10,
        b'L' => 0x20,
        b'N' => 0x40,
        b'T' => 0x200,
        _ => 0,
    }
}

/// What may be left without a reply, by the command's letter.
pub(crate) const fn silence_bit(letter: u8) -> u32 {
    match letter {
        b'C' => 0x1000,
        b'H' => 0x2000,
        b'M' => 0x4000,
        b'R' => 0x8000,
        b'T' => 0x1_0000,
        b'U' => 0x2_0000,
        b'L' => 0x80,
        b'N' => 0x4_0000,
        b'B' => 0x8_0000,
        _ => 0,
    }
}

/// Whether the MTA waits for a reply after `steps` were negotiated.
pub(crate) const fn is_answered(letter: u8, steps: u32) -> bool {
    !matches!(letter, b'A' | b'D' | b'K' | b'Q') && steps & silence_bit(letter) == 0
}

const MOST: usize = 1 << 20;
