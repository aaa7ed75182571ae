//! A sink that combines small messages into one write.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;
use tokio::io::AsyncWrite;

/// The size of the queue, and so the largest write of small messages. Readers have buffers of this
/// size, and would need a second read for a few bytes more.
const BOUNDARY: usize = 64 * 1024;
/// The size of the length before each message.
const PREFIX: usize = 4;
/// The limit of tokio-util's `LengthDelimitedCodec`, which refuses to read longer frames.
const LIMIT: usize = 8 * 1024 * 1024;

/// A sink that writes each message after its length: 4 bytes, the most significant first, as
/// tokio-util's `LengthDelimitedCodec` does with its default settings.
///
/// A system call for each message costs ten times as much as a copy of a small one. The sink copies
/// messages into a buffer of 64 KiB, and writes it when it is full or flushed. `forward` of
/// [futures](https://docs.rs/futures) flushes whenever its source has no message ready. A single
/// message is sent at once, and messages that arrive together are sent together:
///
/// ```no_run
/// use futures_util::{StreamExt, stream};
/// use sockpipe::{FrameSink, Stream};
///
/// # async fn run() -> std::io::Result<()> {
/// let stream = Stream::connect("org.example.log").await?;
/// let messages = stream::iter(["one", "two", "three"]); // or the receiving end of a channel
/// messages.map(Ok).forward(FrameSink::new(stream)).await?;
/// # Ok(())
/// # }
/// ```
///
/// Without `forward`, call [`feed`](Self::feed) for each message that is ready, and
/// [`flush`](Self::flush) before you wait for more. Pass messages by reference. A sink that was
/// flushed holds no buffer.
///
/// The peer reads with `FramedRead` and `LengthDelimitedCodec`, or with any code that reads the
/// four bytes.
#[cfg_attr(docsrs, doc(cfg(feature = "framed")))]
pub struct FrameSink<W> {
    inner: W,
    /// The queued bytes, and room for more.
    buffer: Vec<u8>,
    queued: usize,
    /// How many of the queued bytes are written.
    written: usize,
    /// The length of the last message.
    last: usize,
}

impl<W: AsyncWrite + Unpin> FrameSink<W> {
    /// Creates a sink that writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::new(), queued: 0, written: 0, last: 0 }
    }

    /// Queues `message`. If it does not fit into the 64 KiB, the queued messages are written first.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a message of more than 8 MiB, which the peer would refuse; else the error
    /// of the write.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the message is queued when the future completes, and not
    /// before.
    #[inline]
    pub fn feed(&mut self, message: impl AsRef<[u8]>) -> impl Future<Output = io::Result<()>> {
        // Written by hand, because the state machine of an `async fn` takes a tenth of the time of
        // a small message.
        poll_fn(move |cx| {
            let message = message.as_ref();
            if self.is_full(message.len()) {
                ready!(self.poll_write_out(cx))?;
            }
            Poll::Ready(self.push(message))
        })
    }

    /// Writes all queued messages.
    ///
    /// # Errors
    ///
    /// The error of the write.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the next flush continues.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_all(cx)).await
    }

    /// Queues `message` and flushes. Use it for a message that no other follows at once.
    ///
    /// # Errors
    ///
    /// As for [`feed`](Self::feed).
    pub async fn send(&mut self, message: impl AsRef<[u8]>) -> io::Result<()> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Returns a reference to the inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Returns a mutable reference to the inner writer.
    ///
    /// Write to it only after a completed flush, because a queued message may be written in part.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Returns the inner writer.
    ///
    /// Flush first: queued messages are discarded, and one of them may be written in part.
    pub fn into_inner(self) -> W {
        self.inner
    }

    #[inline]
    fn is_full(&self, next: usize) -> bool {
        self.queued + next + PREFIX > BOUNDARY && self.queued > 0
    }

    #[inline]
    fn push(&mut self, message: &[u8]) -> io::Result<()> {
        if message.len() > LIMIT {
            return Err(too_long(message.len()));
        }
        self.last = message.len();
        let end = self.queued + PREFIX + message.len();
        if end > self.buffer.len() {
            self.grow(end);
        }
        // One bounds check for both parts, because its cost shows with small messages.
        let (prefix, room) = self.buffer[self.queued..end].split_at_mut(PREFIX);
        prefix.copy_from_slice(&(message.len() as u32).to_be_bytes());
        room.copy_from_slice(message);
        self.queued = end;
        Ok(())
    }

    /// Doubles the buffer each time, so that a sink of few messages allocates little.
    #[cold]
    fn grow(&mut self, least: usize) {
        let length = (self.buffer.len() * 2).min(BOUNDARY).max(least);
        if self.queued == 0 {
            // For a large message, the system provides memory that is already zeroed.
            self.buffer = vec![0; length];
        } else {
            self.buffer.resize(length, 0);
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        // Frees the buffer: a flushed sink holds none.
        self.buffer = Vec::new();
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    #[cold]
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.queued {
            let rest = &self.buffer[self.written..self.queued];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                length => self.written += length,
            }
        }
        (self.queued, self.written) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

/// The errors are those of [`feed`](FrameSink::feed).
impl<W, M> Sink<M> for FrameSink<W>
where
    W: AsyncWrite + Unpin,
    M: AsRef<[u8]>,
{
    type Error = io::Error;

    #[inline]
    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The next message is not known yet. It is often as long as the last one.
        if self.is_full(self.last) { self.poll_write_out(cx) } else { Poll::Ready(Ok(())) }
    }

    #[inline]
    fn start_send(mut self: Pin<&mut Self>, message: M) -> io::Result<()> {
        self.push(message.as_ref())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_all(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<W: fmt::Debug> fmt::Debug for FrameSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = self.queued - self.written;
        f.debug_struct("FrameSink").field("inner", &self.inner).field("queued", &queued).finish()
    }
}

#[cold]
fn too_long(length: usize) -> io::Error {
    let what = format!("message of {length} bytes exceeds the limit of {LIMIT} bytes");
    io::Error::new(ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests;
