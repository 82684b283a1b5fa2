//! The state file as bytes: counters on their way to the next start.
//!
//! ```text
//! magic, version (u32)
//! header:   length, time of saving, key of the hashes (16 bytes; not before version 2), what each counter counts
//! records:  length, one key of one counter with its charges, its block and whose bounds it was judged by; as many as there
//!           are. A charge is its age and its amount; of a counter of different values, the age and the hash of a value. What
//!           follows the charges is left out where there is nothing to say; a block from 0 to 0 is none
//! end:      0 for a length, the number of records, CRC-32 of all before (u32)
//! ```
//!
//! Fixed numbers are little-endian, all others LEB128, signed ones folded (zigzag) before. Read and written one record at a
//! time, since there may be millions. Nothing read is to be believed before the end was reached: only there is the checksum.

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;

use crc32fast::Hasher;

use super::super::hashes::HashKey;
use super::super::limits::Record;
use super::super::succession::Label;

/// What is told before the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Nanoseconds from 1970 to the moment from which ages count.
    pub(super) at: u64,
    /// What the hashes of different values were made with; `None` where there were none yet.
    pub(super) hash_key: Option<HashKey>,
    /// What records name by their index.
    pub(super) counters: Vec<Label>,
}

/// Writes a file from its beginning to its end.
pub(super) struct Encoder<W> {
    output: W,
    checksum: Hasher,
    bytes: u64,
    records: u64,
    /// Of the record that is written; kept for its memory.
    body: Vec<u8>,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl<W: Write> Encoder<W> {
    pub(super) fn start(output: W, header: &Header) -> io::Result<Self> {
        let mut encoder = Self { output, checksum: Hasher::new(), bytes: 0, records: 0, body: Vec::new() };
        encoder.write(&MAGIC)?;
        encoder.write(&VERSION.to_le_bytes())?;
        let mut body = header.at.to_le_bytes().to_vec();
        body.extend_from_slice(&header.hash_key.unwrap_or_default());
        put_length(&mut body, header.counters.len());
        for label in &header.counters {
            for text in [&label.rule, &label.measure, &label.key] {
                put_bytes(&mut body, text.as_bytes());
            }
            put_length(&mut body, label.windows.len());
            label.windows.iter().for_each(|window| put(&mut body, *window));
        }
        encoder.write_framed(&body)?;
        Ok(encoder)
    }

    pub(super) fn record(&mut self, record: &Record) -> io::Result<()> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        put_length(&mut body, record.counter);
        put_bytes(&mut body, &record.key);
        put_length(&mut body, record.charges.len());
        for (age, amount) in &record.charges {
            put(&mut body, fold(*age));
            put(&mut body, *amount);
        }
        if record.block.is_some() || record.whose.is_some() {
            let (since, until) = record.block.unwrap_or_default();
            put(&mut body, fold(since));
            put(&mut body, fold(until));
        }
        if let Some(whose) = &record.whose {
            put_bytes(&mut body, whose.as_bytes());
        }
        let written = self.write_framed(&body);
        self.body = body;
        self.records += 1;
        written
    }

    /// Writes the end, and gives back what was written to.
    pub(super) fn finish(mut self) -> io::Result<(W, Written)> {
        let mut end = vec![0];
        put(&mut end, self.records);
        self.write(&end)?;
        let checksum = self.checksum.clone().finalize();
        self.write(&checksum.to_le_bytes())?;
        Ok((self.output, Written { records: self.records, bytes: self.bytes }))
    }

    fn write_framed(&mut self, body: &[u8]) -> io::Result<()> {
        let mut length = Vec::with_capacity(LONGEST_NUMBER);
        put_length(&mut length, body.len());
        self.write(&length)?;
        self.write(body)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.output.write_all(bytes)
    }
}

/// Reads a file of a known length from its beginning to its end.
pub(super) struct Decoder<R> {
    input: R,
    /// How many bytes there still are; nothing longer is allocated.
    left: u64,
    checksum: Hasher,
    counters: usize,
    records: u64,
    /// Of the record that is read; kept for its memory.
    body: Vec<u8>,
}

impl<R: Read> Decoder<R> {
    pub(super) fn start(input: R, length: u64) -> Result<(Self, Header), DecodeError> {
        let mut decoder =
            Self { input, left: length, checksum: Hasher::new(), counters: 0, records: 0, body: Vec::new() };
        match decoder.array("magic number") {
            Ok(MAGIC) => {}
            Err(error @ DecodeError::Read(_)) => return Err(error),
            Ok(_) | Err(_) => return Err(DecodeError::Foreign),
        }
        let version = u32::from_le_bytes(decoder.array("version")?);
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        decoder.read_body("header")?;
        let header = Fields(&decoder.body).header(version)?;
        decoder.counters = header.counters.len();
        Ok((decoder, header))
    }

    /// The next record; `None` at the end of a file that is whole.
    pub(super) fn record(&mut self) -> Result<Option<Record>, DecodeError> {
        self.read_body("record")?;
        if self.body.is_empty() {
            return self.end().map(|()| None);
        }
        let record = Fields(&self.body).record()?;
        if record.counter >= self.counters {
            return Err(DecodeError::Garbage("counter of a record"));
        }
        self.records += 1;
        Ok(Some(record))
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        let records = self.number("number of records")?;
        let computed = self.checksum.clone().finalize();
        let checksum = u32::from_le_bytes(self.array("checksum")?);
        if checksum != computed {
            return Err(DecodeError::Checksum);
        }
        if records != self.records {
            return Err(DecodeError::Garbage("number of records"));
        }
        if self.left > 0 { Err(DecodeError::Garbage("end")) } else { Ok(()) }
    }

    fn read_body(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let length = self.number(field)?;
        if length > self.left {
            return Err(DecodeError::CutShort(field));
        }
        if length > LONGEST_BODY {
            return Err(DecodeError::Garbage(field));
        }
        let length = usize::try_from(length).map_err(|_| DecodeError::Garbage(field))?;
        let mut body = std::mem::take(&mut self.body);
        body.resize(length, 0);
        let read = self.read(&mut body, field);
        self.body = body;
        read
    }

    fn number(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut bytes = [0; LONGEST_NUMBER];
        for length in 1..=LONGEST_NUMBER {
            let [byte] = self.array(field)?;
            if let Some(place) = bytes.get_mut(length - 1) {
                *place = byte;
            }
            if byte < 0x80 {
                return Fields(bytes.get(..length).unwrap_or_default()).number(field);
            }
        }
        Err(DecodeError::Garbage(field))
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        self.read(&mut bytes, field)?;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8], field: &'static str) -> Result<(), DecodeError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(DecodeError::CutShort(field))?;
        self.input.read_exact(bytes).map_err(DecodeError::Read)?;
        self.checksum.update(bytes);
        Ok(())
    }
}

/// What of a header or record is not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn header(mut self, version: u32) -> Result<Header, DecodeError> {
        let at = u64::from_le_bytes(self.array("time of saving")?);
        let hash_key = if version < HASHES_SINCE { None } else { Some(self.array("key of the hashes")?) };
        let mut counters = Vec::new();
        for _ in 0..self.number("number of counters")? {
            let rule = self.text("name of a rule")?;
            let measure = self.text("measure of a counter")?;
            let key = self.text("key of a counter")?;
            let windows = self.number("number of windows")?;
            let windows = (0..windows).map(|_| self.number("window")).collect::<Result<_, _>>()?;
            counters.push(Label { rule, measure, key, windows });
        }
        self.end("end of the header")?;
        Ok(Header { at, hash_key, counters })
    }

    fn record(mut self) -> Result<Record, DecodeError> {
        let counter = self.number("counter of a record")?;
        let counter = usize::try_from(counter).map_err(|_| DecodeError::Garbage("counter of a record"))?;
        let key = self.bytes("key")?.to_vec();
        let mut charges = Vec::new();
        for _ in 0..self.number("number of charges")? {
            charges.push((unfold(self.number("age of a charge")?), self.number("amount of a charge")?));
        }
        let block = if self.0.is_empty() {
            None
        } else {
            Some((unfold(self.number("begin of a block")?), unfold(self.number("end of a block")?)))
        };
        let whose = if self.0.is_empty() { None } else { Some(self.text("name of an override")?.into()) };
        self.end("end of a record")?;
        Ok(Record { counter, whose, key, charges, block: block.filter(|block| *block != (0, 0)) })
    }

    fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes(field)?.to_vec()).map_err(|_| DecodeError::Garbage(field))
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.number(field)?;
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (bytes, rest) = split.ok_or(DecodeError::Garbage(field))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(DecodeError::Garbage(field))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn number(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array(field)?;
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(DecodeError::Garbage(field));
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Garbage(field))
    }

    const fn end(&self, field: &'static str) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Garbage(field)) }
    }
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum DecodeError {
    Checksum,
    CutShort(&'static str),
    Foreign,
    Garbage(&'static str),
    Read(io::Error),
    Version(u32),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::CutShort(field) => write!(f, "{field}: it ends too early"),
            Self::Foreign => f.write_str("it is not a state file"),
            Self::Garbage(field) => write!(f, "{field}: what stands there makes no sense"),
            Self::Read(error) => write!(f, "cannot read it: {error}"),
            Self::Version(found) if *found > VERSION => {
                write!(f, "a newer version wrote it (format {found}, this one reads {VERSION})")
            }
            Self::Version(found) => write!(f, "its format is {found}, this version reads {VERSION}"),
        }
    }
}

fn put(body: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while rest >= 0x80 {
        body.push(low_bits(rest) | 0x80);
        rest >>= 7;
    }
    body.push(low_bits(rest));
}

fn put_length(body: &mut Vec<u8>, length: usize) {
    put(body, length as u64);
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    put_length(body, bytes.len());
    body.extend_from_slice(bytes);
}

const fn low_bits(number: u64) -> u8 {
    (number & 0x7f) as u8
}

const fn fold(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unfold(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Longer than any record or header that is written: what a damaged length may not make us ask of memory.
const LONGEST_BODY: u64 = 1 << 28;

/// The first byte is not ASCII, the last ones are changed by whatever changes line ends (as in PNG, RFC 2083 §12.11).
const MAGIC: [u8; 8] = *b"\x8fPWS\r\n\x1a\n";
const VERSION: u32 = 2;
const OLDEST_VERSION: u32 = 1;
/// The version that has different values.
const HASHES_SINCE: u32 = 2;
/// Of 64 bits, seven in each byte.
const LONGEST_NUMBER: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let label = |rule: &str, windows: &[u64]| Label {
            rule: rule.to_owned(),
            measure: "messages".to_owned(),
            key: "client/32/64".to_owned(),
            windows: windows.to_vec(),
        };
        Header {
            at: 1_763_737_572_000_000_000,
            hash_key: Some([9; 16]),
            counters: vec![label("rate", &[3600, 0, u64::MAX]), label("ü", &[])],
        }
    }

    fn records() -> Vec<Record> {
        let record = |counter, key: &[u8], charges: &[(i64, u64)], block| Record {
            counter,
            whose: None,
            key: key.to_vec(),
            charges: charges.to_vec(),
            block,
        };
        vec![
            record(0, b"alice", &[(7_200_000_000_000, 1), (127, 128), (-1, u64::MAX)], None),
            record(1, b"", &[], Some((5, -3_600_000_000_000))),
            record(0, &[0x80; 200], &[(0, 0)], Some((i64::MAX, i64::MIN))),
            Record { whose: Some("example.com".into()), ..record(0, b"a@example.com", &[(1, 1)], None) },
            Record { whose: Some("é".into()), ..record(0, b"b", &[], Some((1, -1))) },
        ]
    }

    fn encode(header: &Header, records: &[Record]) -> Vec<u8> {
        let mut encoder = Encoder::start(Vec::new(), header).unwrap();
        records.iter().for_each(|record| encoder.record(record).unwrap());
        let (bytes, written) = encoder.finish().unwrap();
        assert_eq!((written.bytes, written.records), (bytes.len() as u64, records.len() as u64));
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<(Header, Vec<Record>), DecodeError> {
        let (mut decoder, header) = Decoder::start(bytes, bytes.len() as u64)?;
        let mut records = Vec::new();
        while let Some(record) = decoder.record()? {
            records.push(record);
        }
        Ok((header, records))
    }

    #[test]
    fn what_was_written_is_read_again() {
        assert_eq!(decode(&encode(&header(), &records())).unwrap(), (header(), records()));
        let empty = Header { at: 0, hash_key: Some([0; 16]), counters: Vec::new() };
        assert_eq!(decode(&encode(&empty, &[])).unwrap(), (empty, Vec::new()));
    }

    #[test]
    fn a_file_cut_short_anywhere_is_not_whole() {
        let bytes = encode(&header(), &records());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(decode(&[&bytes[..], b"\0"].concat()).is_err());
    }

    #[test]
    fn a_single_flipped_bit_is_found_wherever_it_is() {
        let bytes = encode(&header(), &records());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "{bit}");
        }
    }

    /// The file may become shorter while it is read.
    #[test]
    fn a_length_that_is_not_true_is_found() {
        let bytes = encode(&header(), &records());
        let (mut decoder, _) = Decoder::start(&bytes[..bytes.len() - 3], bytes.len() as u64).unwrap();
        let error = std::iter::from_fn(|| decoder.record().transpose()).find_map(Result::err);
        assert!(matches!(error, Some(DecodeError::Read(_))), "{error:?}");
    }

    /// Right by its checksum, and yet not what we write.
    #[test]
    fn records_that_make_no_sense_are_errors() {
        let mut body = encode(&header(), &[]);
        body.truncate(body.len() - 6);
        let with = |rest: &[u8]| {
            let bytes = [&body[..], rest].concat();
            let checksum = crc32fast::hash(&bytes);
            decode(&[&bytes[..], &checksum.to_le_bytes()].concat())
        };
        assert!(with(&[0, 0]).is_ok());
        assert!(with(&[3, 0, 0, 0, 0, 1]).is_ok(), "a key without charges");
        for (rest, why) in [
            (&[3, 2, 0, 0, 0, 1][..], "a third counter"),
            (&[0, 1], "a record that is not there"),
            (&[3, 0, 0, 1, 0, 1], "a charge that is not there"),
            (&[4, 0, 0, 0, 0, 0, 1], "half a block"),
            (&[7, 0, 0, 0, 0, 0, 0, 0, 0, 1], "more behind a name"),
            (&[6, 0, 0, 0, 0, 0, 1, 0, 1], "a name longer than its record"),
            (&[7, 0, 0, 0, 0, 0, 1, 0xff, 0, 1], "a name that is no text"),
            (&[3, 0, 9, 0, 0, 1], "a key longer than its record"),
            (&[0x80; 12], "a number without end"),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "a number of 65 bits"),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "a record longer than the file"),
        ] {
            assert!(with(rest).is_err(), "{why}");
        }
    }

    #[test]
    fn foreign_files_and_other_versions_are_told_apart() {
        let mut bytes = encode(&header(), &[]);
        assert!(matches!(decode(b"#!/bin/sh\necho precious\n"), Err(DecodeError::Foreign)));
        bytes[8] = 3;
        let error = decode(&bytes).unwrap_err().to_string();
        assert_eq!(error, "a newer version wrote it (format 3, this one reads 2)");
    }

    /// Version 1 had no different values, and no key for their hashes.
    #[test]
    fn the_version_before_is_read() {
        let mut bytes = encode(&header(), &records());
        bytes.truncate(bytes.len() - 4);
        bytes[8] = 1;
        assert!(bytes[12] < 0x80, "a length of one byte");
        bytes[12] -= 16;
        assert_eq!(bytes.drain(21..37).collect::<Vec<_>>(), [9; 16]);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(decode(&bytes).unwrap(), (Header { hash_key: None, ..header() }, records()));
    }
}
