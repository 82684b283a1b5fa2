//! A connection from an MTA, over TCP or a unix socket.

use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::task;
use std::task::Poll;
use std::task::ready;

use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::ReadBuf;
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

    /// Reads what has arrived to the beginning of `input`, and says how much; zero at the end.
    pub(super) fn poll_read(&mut self, context: &mut task::Context<'_>, input: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(input);
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, &mut buffer),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Reads what has arrived to the end of `input`, as far as that has room, and says how much; zero at the end.
    pub(super) fn poll_append(
        &mut self,
        context: &mut task::Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => pin!(stream.read_buf(input)).poll(context),
            Self::Unix(stream) => pin!(stream.read_buf(input)).poll(context),
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

    /// Writes as much of `output` as can be written without waiting, and takes that away; whether it was all.
    pub(super) fn write_now(&self, output: &mut BytesMut) -> io::Result<bool> {
        while !output.is_empty() {
            let written = match self {
                Self::Tcp(stream) => stream.try_write(output),
                Self::Unix(stream) => stream.try_write(output),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                // Emptied, it keeps all of its room.
                Ok(written) if written == output.len() => output.clear(),
                Ok(written) => output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes all of it, however long that takes.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }
}
