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
    ///
    /// An MTA writes a small macro packet and then a small command, which Nagle holds back until the first is
    /// acknowledged; with nothing to send, our kernel would delay that acknowledgement by 40 ms. The kernel forgets
    /// TCP_QUICKACK, so it is asked for before every read.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                // Only a hint: where it cannot be had, the read still can.
                _ = stream.set_quickack(true);
                stream.read_buf(buffer).await
            }
            Self::Unix(stream) => stream.read_buf(buffer).await,
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }
}
