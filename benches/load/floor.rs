//! The floor: a server that finds the frames, answers CONTINUE where an answer is owed, and does nothing else.
//!
//! What it answers to the offer is given to it, and is what Postward answered to the same offer: so both get the same steps
//! and macros. One read and one write for each wake-up, into buffers that belong to the thread and not to the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::frames;
use crate::server::Endpoint;

/// Serves until it is killed.
pub(crate) fn run(endpoint: &Endpoint, answer: Vec<u8>, is_prompt: bool) -> Result<(), String> {
    let steps = frames::first(&answer)?.map_or(Ok(0), |frame| frames::word(frame.data, 2))?;
    // One for the life of the process, so that a connection holds no more than a pointer to it.
    let what: &'static What = Box::leak(Box::new(What { answer, steps, is_prompt }));
    // One thread: what more of them say to each other is no part of the least that can be done.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let serving = async move {
        match endpoint {
            Endpoint::Tcp(address) => serve_tcp(TcpListener::bind(address).await?, what).await,
            Endpoint::Unix(path) => serve_unix(UnixListener::bind(path)?, what).await,
        }
    };
    runtime.block_on(serving).map_err(|error: std::io::Error| format!("the floor on {endpoint}: {error}"))
}

/// What it is to do.
struct What {
    answer: Vec<u8>,
    steps: u32,
    /// Acknowledges at once what is not answered.
    is_prompt: bool,
}

/// A connection that can be told to acknowledge now what it has read, and not in 40 ms.
trait Stream: AsyncRead + AsyncWrite + Unpin {
    fn acknowledge(&self);
}

impl Stream for TcpStream {
    fn acknowledge(&self) {
        // As far as the kernel can.
        let _ = self.set_quickack(true);
    }
}

impl Stream for UnixStream {
    fn acknowledge(&self) {}
}

async fn serve_tcp(listener: TcpListener, what: &'static What) -> std::io::Result<()> {
    eprintln!("listening on inet:{}", listener.local_addr()?);
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        sessions.spawn(session(stream, what));
        while sessions.try_join_next().is_some() {}
    }
}

async fn serve_unix(listener: UnixListener, what: &'static What) -> std::io::Result<()> {
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        sessions.spawn(session(stream, what));
        while sessions.try_join_next().is_some() {}
    }
}

/// Ends with QUIT, with the connection, or with the first thing that is no frame.
async fn session<S: Stream>(mut stream: S, what: &'static What) {
    let mut frames = Frames { what, head: [0; 5], read: 0, left: 0 };
    let mut unsent = Vec::new();
    poll_fn(|context| {
        BUFFERS.with_borrow_mut(|(input, output)| {
            loop {
                match wake(&mut stream, context, &mut frames, (input, output), &mut unsent) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
    })
    .await;
}

/// One read and one write. `false`: the session is over.
fn wake<S: Stream>(
    stream: &mut S,
    context: &mut Context<'_>,
    frames: &mut Frames,
    (input, output): (&mut [u8], &mut Vec<u8>),
    unsent: &mut Vec<u8>,
) -> Poll<bool> {
    while !unsent.is_empty() {
        match Pin::new(&mut *stream).poll_write(context, unsent) {
            Poll::Ready(Ok(sent)) => drop(unsent.drain(..sent)),
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => return Poll::Pending,
        }
    }
    let mut read = ReadBuf::new(input);
    match Pin::new(&mut *stream).poll_read(context, &mut read) {
        Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
        Poll::Ready(_) => return Poll::Ready(false),
        Poll::Pending => return Poll::Pending,
    }
    output.clear();
    if !frames.take(read.filled(), output) {
        return Poll::Ready(false);
    }
    if output.is_empty() {
        if frames.what.is_prompt {
            stream.acknowledge();
        }
        return Poll::Ready(true);
    }
    match Pin::new(stream).poll_write(context, output) {
        Poll::Ready(Ok(sent)) => {
            unsent.extend_from_slice(&output[sent..]);
            Poll::Ready(true)
        }
        Poll::Ready(Err(_)) => Poll::Ready(false),
        Poll::Pending => {
            unsent.extend_from_slice(output);
            Poll::Pending
        }
    }
}

/// Where in the stream of frames a connection is.
struct Frames {
    what: &'static What,
    head: [u8; 5],
    /// How much of the head is there.
    read: usize,
    /// How much of the frame's data is still to come.
    left: usize,
}

impl Frames {
    /// Appends what is owed for `bytes`. `false`: QUIT, or a length that no MTA sends.
    fn take(&mut self, mut bytes: &[u8], output: &mut Vec<u8>) -> bool {
        while !bytes.is_empty() {
            let data = self.left.min(bytes.len());
            self.left -= data;
            bytes = &bytes[data..];
            let part = (self.head.len() - self.read).min(bytes.len());
            self.head[self.read..self.read + part].copy_from_slice(&bytes[..part]);
            self.read += part;
            bytes = &bytes[part..];
            if self.read < self.head.len() {
                continue;
            }
            self.read = 0;
            let [length @ .., letter] = self.head;
            let length = u32::from_be_bytes(length) as usize;
            if length == 0 || length > 1 << 20 || letter == b'Q' {
                return false;
            }
            self.left = length - 1;
            if letter == b'O' {
                output.extend_from_slice(&self.what.answer);
            } else if frames::is_answered(letter, self.what.steps) {
                output.extend_from_slice(&[0, 0, 0, 1, b'c']);
            }
        }
        true
    }
}

thread_local! {
    static BUFFERS: RefCell<(Box<[u8]>, Vec<u8>)> = RefCell::new((vec![0; 64 * 1024].into(), Vec::new()));
}
