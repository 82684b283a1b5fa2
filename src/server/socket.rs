//! A connection from an MTA, over TCP or a unix socket.

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::session::Transport;

/// Either kind of connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) const fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Unix(_) => Transport::Unix,
        }
    }

    /// Reads what has arrived; zero at the end.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Acknowledges at once what was read, where no answer carries the acknowledgement.
    ///
    /// An MTA writes a small macro packet and then a small command, which Nagle holds back until the first is
    /// acknowledged; with nothing to send, our kernel would delay that by 40 ms. The kernel forgets TCP_QUICKACK, so it is
    /// asked for each time.
    pub(super) fn acknowledge(&self) {
        if let Self::Tcp(stream) = self {
            // Only a hint: without it mail flows all the same.
            _ = stream.set_quickack(true);
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }
}
