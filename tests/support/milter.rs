//! A milter client.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// The MTA's side of the protocol, byte by byte. It offers no step to skip, so every command but macros is answered.
pub(crate) struct Milter {
    pub(crate) stream: Box<dyn Stream>,
}

pub(crate) trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl Milter {
    pub(crate) fn connect(endpoint: &str) -> Self {
        let stream: Box<dyn Stream> = match endpoint.strip_prefix("unix:") {
            Some(path) => {
                let stream = UnixStream::connect(Path::new(path)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
            None => {
                let stream = TcpStream::connect(endpoint.strip_prefix("inet:").unwrap()).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
        };
        Self { stream }
    }

    pub(crate) fn negotiate(&mut self) {
        let (code, _) = self.ask(b'O', &[0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0, 0, 0]);
        assert_eq!(code, b'O');
    }

    pub(crate) fn macros(&mut self, command: u8, macros: &[(&[u8], &[u8])]) {
        let mut data = vec![command];
        for (name, value) in macros {
            data.extend([name, &b"\0"[..], value, b"\0"].concat());
        }
        self.send(b'D', &data);
    }

    /// Sends a command and gives the answer's letter and data.
    pub(crate) fn ask(&mut self, code: u8, data: &[u8]) -> (u8, Vec<u8>) {
        self.send(code, data);
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        (frame[0], frame[1..].to_vec())
    }

    pub(crate) fn send(&mut self, code: u8, data: &[u8]) {
        let length = u32::try_from(data.len() + 1).unwrap();
        let frame = [&length.to_be_bytes()[..], &[code], data].concat();
        self.stream.write_all(&frame).unwrap();
    }

    /// Waits until the daemon has closed the connection; false if it says something instead.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
