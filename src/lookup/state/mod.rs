//! Keeps what limits have counted in a directory, for the next start.
//!
//! A save writes a new file and renames it over the old one, so that there is always a whole one, whatever ends the
//! program. Keys are exported a few at a time, which holds up no check and needs memory for a few only. Charges are kept
//! by their age: the time that passes until the next start counts, by the wall clock, whose steps back count as none.
//!
//! Counters are known by rule, measure and key, not by their place, so that another configuration takes over those that it
//! has. Deliberately not here: when to save, and what to tell of it.

mod format;

use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Read;
use std::io::Seek as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

use super::Clock;
use super::Shared;
use super::limits::Cursor;
use super::limits::Record;
use super::succession::Heir;
use super::succession::labels;
use crate::policy::Measure;
use format::DecodeError;
use format::Decoder;
use format::Encoder;
use format::Header;

/// A directory to keep counters in. One program at a time has it.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    lock: Mutex<Flock<File>>,
    /// Goes up with every record, read or written.
    progress: Arc<AtomicU64>,
}

/// What a save has written.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// The moment that it is true for.
    pub at: SystemTime,
    /// Records: one for each key.
    pub keys: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// What was found at start.
#[derive(Debug)]
pub enum Found {
    /// A file that is damaged, or none that this version can read. It is out of the way now.
    Damaged {
        /// What is wrong with it.
        problem: String,
        /// Where it is now, or why it could not be renamed.
        aside: io::Result<PathBuf>,
    },
    /// No file, as at the first start.
    Nothing,
    /// Counters, which were taken over.
    Whole {
        /// What there was.
        saved: Saved,
        /// How old it is.
        age: Duration,
        /// Where this configuration counts otherwise than the one that was saved: what became of it.
        notes: Vec<String>,
    },
}

impl Store {
    /// Takes the directory, if files can be made in it. Whoever waits for a restore or a save sees in `progress` that it
    /// goes on.
    ///
    /// # Errors
    ///
    /// It is not there, may not be written, or another program has it.
    pub fn open(directory: &Path, progress: Arc<AtomicU64>) -> io::Result<Self> {
        let lock = Mutex::new(take(directory)?);
        let store = Self { directory: directory.to_owned(), lock, progress };
        // The lock may be older than the right to write.
        drop(store.create().map_err(|error| of_file(NEW, error))?);
        fs::remove_file(store.path(NEW))?;
        Ok(store)
    }

    /// The new file. Who may not ask the daemon what it knows of people has no business in it.
    fn create(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(self.path(NEW))?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// Whether the directory is the one that was taken still. One that was made anew is taken, if another program has not.
    fn hold_on(&self) -> io::Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = lock.metadata()?;
        let is_there =
            fs::metadata(self.path(LOCK)).is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino()));
        if !is_there {
            *lock = take(&self.directory)?;
        }
        Ok(())
    }

    /// Makes the new file the only one, so that this outlives a loss of power, too.
    fn replace(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(self.path(NEW), self.path(FILE))?;
        File::open(&self.directory)?.sync_all()
    }

    /// Renames a file that cannot be used; of those before it some are kept.
    fn set_aside(&self) -> io::Result<PathBuf> {
        let time = humantime::format_rfc3339_seconds(Clock::time_of_day()).to_string();
        let path = self.path(&format!("{DAMAGED}{}", time.replace(['-', ':'], "")));
        fs::rename(self.path(FILE), &path)?;
        if let Err(error) = self.forget_damaged() {
            tracing::warn!(%error, "cannot remove old damaged files in {}", self.directory.display());
        }
        Ok(path)
    }

    fn forget_damaged(&self) -> io::Result<()> {
        let is_damaged = |name: &OsString| name.as_encoded_bytes().starts_with(DAMAGED.as_bytes());
        let names = fs::read_dir(&self.directory)?.flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.filter(is_damaged).collect();
        names.sort();
        for name in names.iter().rev().skip(KEPT) {
            fs::remove_file(self.directory.join(name))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn advance(&self, records: u64) {
        self.progress.fetch_add(records, Ordering::Relaxed);
    }
}

impl Shared {
    /// Writes down all that is counted. Blocks; checks go on meanwhile, and what they change may be missing.
    ///
    /// # Errors
    ///
    /// It cannot be written; what was saved before is there still.
    pub fn save(&self, store: &Store) -> io::Result<Saved> {
        // First: nothing of another program's is touched.
        store.hold_on()?;
        let saved = self.write(store);
        if saved.is_err() {
            // Half a file, on a disk that may be full.
            _ = fs::remove_file(store.path(NEW));
        }
        saved
    }

    /// Takes over what was saved, once it is known to be whole.
    ///
    /// # Errors
    ///
    /// There is a file that may not be opened, or cannot be read: it may be whole, and readable again later.
    pub fn restore(&self, store: &Store) -> io::Result<Found> {
        let file = match File::open(store.path(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let found = match self.read(&file, store) {
            Ok(found) => found,
            Err(DecodeError::Read(error)) => {
                return Err(io::Error::new(error.kind(), format!("cannot read {FILE}: {error}")));
            }
            Err(error) => Found::Damaged { problem: error.to_string(), aside: store.set_aside() },
        };
        Ok(found)
    }

    fn write(&self, store: &Store) -> io::Result<Saved> {
        let (now, at) = (self.clock.now(), Clock::time_of_day());
        let header = Header { at: since_1970(at), hash_key: Some(self.hashes.key()), counters: labels(&self.policy) };
        let file = BufWriter::with_capacity(BUFFER, store.create()?);
        let mut encoder = Encoder::start(file, &header)?;
        let mut cursor = Cursor::default();
        loop {
            let records = self.counters.export(now, &mut cursor, CHUNK);
            if records.is_empty() {
                break;
            }
            store.advance(records.len() as u64);
            // What only an earlier policy counts ends with it.
            let ours = |record: Record| Some(Record { counter: self.seats.policy_counter(record.counter)?, ..record });
            records.into_iter().filter_map(ours).try_for_each(|record| encoder.record(&record))?;
        }
        let (file, written) = encoder.finish()?;
        store.replace(&file.into_inner()?)?;
        Ok(Saved { at, keys: written.records, bytes: written.bytes })
    }

    /// Reads the file twice: nothing is taken from it before its end was seen.
    fn read(&self, mut file: &File, store: &Store) -> Result<Found, DecodeError> {
        let bytes = file.metadata().map_err(DecodeError::Read)?.len();
        let (mut decoder, header) = Decoder::start(buffered(file), bytes)?;
        let mut keys = 0;
        while decoder.record()?.is_some() {
            keys += 1;
            store.advance(1);
        }
        file.rewind().map_err(DecodeError::Read)?;
        let (mut decoder, _) = Decoder::start(buffered(file), bytes)?;

        let at = UNIX_EPOCH + Duration::from_nanos(header.at);
        let age = Clock::time_of_day().duration_since(at).unwrap_or_default();
        let knows_values = header.hash_key.is_none_or(|key| self.hashes.adopt(key));
        let ours = labels(&self.policy);
        let mut heirs: Vec<_> = header.counters.into_iter().map(|label| Heir::of(label, &ours)).collect();
        let now = self.clock.now();
        while let Some(record) = decoder.record()? {
            store.advance(1);
            let Some(heir) = heirs.get_mut(record.counter) else {
                continue;
            };
            heir.keys += 1;
            let is_of_values = |counter: &usize| self.counts_values(*counter);
            if let Some(counter) = heir.counter.filter(|counter| knows_values || !is_of_values(counter)) {
                self.counters.import(now, older(record, self.seats.counter(counter), age));
            }
        }
        let notes = heirs.iter().filter_map(|heir| heir.note(&ours)).collect();
        Ok(Found::Whole { saved: Saved { at, keys, bytes }, age, notes })
    }

    fn counts_values(&self, counter: usize) -> bool {
        self.policy.counters().get(counter).is_some_and(|counter| counter.measure == Measure::Distinct)
    }
}

/// A record for a counter of ours, so much later. Charges are never dated after the moment at which they are read: those of
/// a save that took its time, and a clock that was set back, would be.
fn older(record: Record, counter: usize, passed: Duration) -> Record {
    let passed = i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX);
    let charges = record.charges.into_iter().map(|(age, amount)| (age.saturating_add(passed).max(0), amount)).collect();
    let block = record.block.map(|(since, until)| (since.saturating_add(passed), until.saturating_add(passed)));
    Record { counter, charges, block, ..record }
}

/// Takes a directory, unless another program has it.
fn take(directory: &Path) -> io::Result<Flock<File>> {
    let lock = File::options().create(true).truncate(false).write(true).open(directory.join(LOCK));
    let lock = lock.map_err(|error| of_file(LOCK, error))?;
    Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let is_taken = error == Errno::EWOULDBLOCK;
        if is_taken { io::Error::other("another postward uses it") } else { error.into() }
    })
}

/// Where the right is missing, it may be to one file only.
fn of_file(name: &str, error: io::Error) -> io::Error {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied { io::Error::new(kind, format!("{name}: {error}")) } else { error }
}

fn buffered(file: &File) -> impl Read {
    BufReader::with_capacity(BUFFER, file)
}

fn since_1970(time: SystemTime) -> u64 {
    nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const FILE: &str = "counters";
const NEW: &str = "counters.new";
const DAMAGED: &str = "counters.damaged-";
const LOCK: &str = "lock";
/// How many damaged files are kept.
const KEPT: usize = 3;
/// How many keys are in memory at once while they are saved.
const CHUNK: usize = 1024;
const BUFFER: usize = 1 << 18;

#[cfg(test)]
mod tests;
