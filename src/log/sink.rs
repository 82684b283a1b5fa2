//! Where lines go: standard error, or the journal. What cannot be written is counted, and the next lines are tried anew.

use std::io;
use std::io::ErrorKind;
use std::io::Stderr;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How long to wait for a reader if standard error was made not to block, which whoever shares it may do.
const RETRY_TIME: Duration = Duration::from_millis(10);

/// How much room is kept from one batch for the next, in bytes: some thousand lines.
const MOST_KEPT: usize = 1 << 20;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    Journal(Journal),
    Stderr(Stream<Stderr>),
}

/// Lines that are written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Batch {
    pub(super) fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len());
    }

    /// Empty, with room for as much again; not if that was unusually much.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > MOST_KEPT {
            *self = Self::default();
        }
        self.bytes.clear();
        self.ends.clear();
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(*start..*end))
    }

    /// How many lines are not whole if only so many bytes are written.
    fn lost_after(&self, written: usize) -> u64 {
        self.ends.iter().filter(|end| **end > written).count() as u64
    }
}

impl Sink {
    /// Writes them, however long that takes. How many lines were lost.
    pub(super) fn write(&mut self, batch: &Batch) -> u64 {
        match self {
            Self::Journal(journal) => journal.write(batch),
            Self::Stderr(stream) => stream.write(batch),
        }
    }
}

/// A stream of lines.
#[derive(Debug)]
pub(super) struct Stream<W> {
    out: W,
    /// The last line was not written to its end.
    is_torn: bool,
}

impl<W: Write> Stream<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out, is_torn: false }
    }

    fn write(&mut self, batch: &Batch) -> u64 {
        // What is left of a line must not be the beginning of the next.
        if self.is_torn && self.write_out(b"\n") == 0 {
            return batch.lost_after(0);
        }
        let written = self.write_out(&batch.bytes);
        let is_whole = written == 0 || batch.ends.binary_search(&written).is_ok();
        self.is_torn = !is_whole;
        batch.lost_after(written)
    }

    /// How much was written.
    fn write_out(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => break,
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_TIME),
                Err(_) => break,
            }
        }
        written
    }
}

/// journald's socket; one datagram is one line. `tracing-journald` would send from the thread that tells, and so hold up mail
/// when journald does not read.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    fn write(&mut self, batch: &Batch) -> u64 {
        batch.lines().map(|line| u64::from(self.send(line).is_err())).sum()
    }

    /// Sends to whoever listens there now: the socket may have been made anew.
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(line) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.socket = Self::open(&self.path)?.socket;
        self.socket.send(line).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that has room for so many bytes.
    #[derive(Debug)]
    struct Disk {
        held: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room - self.held.len());
            if length == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.held.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        lines.iter().for_each(|line| batch.push(line.as_bytes()));
        batch
    }

    #[test]
    fn room_is_kept_for_the_next_batch_unless_it_is_unusually_much() {
        let mut usual = batch(&["one\n", "two\n"]);
        let room = usual.bytes.capacity();
        usual.clear();
        assert!(usual.is_empty() && usual.bytes.is_empty() && usual.bytes.capacity() == room);
        let mut much = batch(&[&"x".repeat(MOST_KEPT + 1)]);
        much.clear();
        assert!(much.is_empty() && much.bytes.is_empty() && much.bytes.capacity() == 0);
    }

    #[test]
    fn a_full_disk_loses_lines_and_never_joins_two() {
        let mut stream = Stream::new(Disk { held: Vec::new(), room: 7 });
        let lines = batch(&["one\n", "two two\n", "three\n"]);
        assert_eq!(stream.write(&lines), 2);
        assert_eq!(stream.write(&lines), 3);
        stream.out.room = 1000;
        assert_eq!(stream.write(&lines), 0);
        assert_eq!(stream.out.held, b"one\ntwo\none\ntwo two\nthree\n");
        stream.out.room = stream.out.held.len() + 4;
        assert_eq!(stream.write(&lines), 2);
        stream.out.room = 1000;
        assert_eq!(stream.write(&lines), 0);
        assert!(stream.out.held.ends_with(b"three\none\none\ntwo two\nthree\n"));
    }

    #[test]
    fn a_journal_that_comes_back_is_found() {
        let path = std::env::temp_dir().join(format!("postward-sink-{}", std::process::id()));
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.write(&batch(&["a", "b"])), 0);
        drop(receiver);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(journal.write(&batch(&["c", "d"])), 2);
        let receiver = UnixDatagram::bind(&path).unwrap();
        assert_eq!(journal.write(&batch(&["e"])), 0);
        let mut heard = [0; 9];
        assert_eq!(receiver.recv(&mut heard).unwrap(), 1);
        assert_eq!(heard[0], b'e');
        std::fs::remove_file(&path).unwrap();
    }
}
