//! What the messages of a load are made of, prepared once.

use crate::frames;

/// The content of every message; only the envelope differs.
pub(crate) struct Script {
    pub(crate) recipients: usize,
    /// Frames.
    pub(crate) headers: Vec<Vec<u8>>,
    /// Frames, none longer than Postfix makes them.
    pub(crate) body: Vec<Vec<u8>>,
    /// What is declared at MAIL.
    pub(crate) size: usize,
}

impl Script {
    pub(crate) fn new(recipients: usize, body: usize) -> Self {
        let mut headers = Vec::new();
        let mut size = body + 2;
        for name in NAMES {
            let value = "a value of about as many letters as header fields have in mail of every day";
            size += name.len() + value.len() + 4;
            let mut frame = Vec::new();
            frames::put(&mut frame, b'L', |out| {
                frames::put_string(out, name);
                frames::put_string(out, &format!(" {value}"));
            });
            headers.push(frame);
        }
        let line = b"The quick brown fox jumps over the lazy dog, and then it does so once more.\r\n";
        let text: Vec<u8> = line.iter().copied().cycle().take(body).collect();
        let pieces = text.chunks(65_535).map(|piece| {
            let mut frame = Vec::new();
            frames::put(&mut frame, b'B', |out| out.extend_from_slice(piece));
            frame
        });
        Self { recipients, headers, body: pieces.collect(), size }
    }
}

/// xorshift64*: the same load in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % bound
    }
}

const NAMES: [&str; 10] = [
    "Received",
    "From",
    "To",
    "Subject",
    "Date",
    "Message-Id",
    "MIME-Version",
    "Content-Type",
    "User-Agent",
    "List-Id",
];
