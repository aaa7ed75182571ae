//! Deadlines for clients that send nothing.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::exchanges::Exchanges;
use crate::endpoint::Endpoint;
use crate::listener::LocalListener;
use crate::peer::{PeerCredentials, PeerTold};
use crate::runtime::sleep_until;
use crate::stream::{Closed, LocalStream, OwnedReadHalf, OwnedWriteHalf, Stream};

/// A listener whose streams fail with [`TimedOut`](ErrorKind::TimedOut) when the client misses a
/// deadline. A waiting read fails; with an idle deadline, a waiting write fails too.
///
/// ```no_run
/// use std::time::Duration;
/// use sockpipe::{Listener, TimedListener, echo, serve};
///
/// # async fn run() -> std::io::Result<()> {
/// let listener = TimedListener::new(Listener::bind("echo")?)
///     .first_byte_deadline(Duration::from_secs(10))
///     .idle_deadline(Duration::from_secs(300));
/// serve(listener, |stream| echo::echo(stream, |_| ())).await?;
/// # Ok(())
/// # }
/// ```
///
/// It needs tokio's timers. Without them, a wait fails with [`Other`](ErrorKind::Other).
#[derive(Debug)]
pub struct TimedListener<L> {
    inner: L,
    first_byte: Option<Duration>,
    idle: Option<Duration>,
}

impl<L: LocalListener> TimedListener<L> {
    /// Creates a listener without deadlines.
    pub fn new(listener: L) -> Self {
        Self { inner: listener, first_byte: None, idle: None }
    }

    /// Sets how long after it is accepted a client may take to send its first byte.
    #[must_use]
    pub fn first_byte_deadline(mut self, deadline: Duration) -> Self {
        self.first_byte = Some(deadline);
        self
    }

    /// Sets how long a read or a write may wait without a byte in either direction.
    ///
    /// If a read waits this long, the client is idle. If a write does, the client no longer reads.
    /// The deadline runs only while the handler waits in a read or a write, so it does not
    /// interrupt a handler that works between them. A handler that reads while the client waits for
    /// news turns the deadline off with [`set_idle_deadline`](TimedStream::set_idle_deadline).
    ///
    /// # Platform-specific behavior
    ///
    /// Linux: a write to a full socket continues only when the client has read most of the send
    /// buffer, which has 208 KiB by default. A client that reads less within the deadline is closed
    /// too. For such clients set a longer deadline, or a smaller
    /// [`send_buffer_size`](crate::ListenOptions::send_buffer_size).
    ///
    /// # Under `axum::serve`
    ///
    /// The deadline of reads runs between requests only: it closes a connection that the client
    /// keeps open without a request, and does not cut a client that waits for a slow handler, a
    /// quiet stream of events or a quiet WebSocket. An HTTP/2 connection, and one that was
    /// upgraded, has no idle deadline for reads.
    #[must_use]
    pub fn idle_deadline(mut self, deadline: Duration) -> Self {
        self.idle = Some(deadline);
        self
    }
}

impl<L: LocalListener> LocalListener for TimedListener<L> {
    type Stream = TimedStream<L::Stream>;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let stream = self.inner.accept().await?;
        Ok(TimedStream::new(stream, self.first_byte, self.idle))
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        self.inner.endpoint()
    }

    fn stop_listening(&mut self) -> Vec<Self::Stream> {
        let streams = self.inner.stop_listening().into_iter();
        streams.map(|stream| TimedStream::new(stream, self.first_byte, self.idle)).collect()
    }

    fn release(&mut self) -> io::Result<()> {
        self.inner.release()
    }
}

/// A stream of a [`TimedListener`], or a half of one.
pub struct TimedStream<S> {
    inner: S,
    /// The deadline for the first byte, until it has arrived.
    first_byte: Option<Instant>,
    /// The messages of HTTP, if that is the protocol.
    exchanges: Option<Exchanges>,
    /// The reader, if it has no deadline because a response is still to be sent.
    reader: Option<Waker>,
    /// Shared by both halves.
    idle: Arc<Idle>,
    // One for each direction, created when needed: two tasks may wait, and a timer wakes only one.
    timers: [Option<Pin<Box<Sleep>>>; 2],
}

/// The idle deadline, and when it began to run.
struct Idle {
    accepted: Instant,
    /// Nanoseconds from `accepted` to the last byte in either direction.
    last: AtomicU64,
    /// Nanoseconds, or `NEVER`.
    limit: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Idle {
    fn new(accepted: Instant, limit: Option<Duration>) -> Self {
        let idle = Self { accepted, last: AtomicU64::new(0), limit: AtomicU64::new(NEVER) };
        idle.set_limit(limit);
        idle
    }

    fn restart(&self) {
        self.last.store(nanos(self.accepted.elapsed()), Ordering::Relaxed);
    }

    fn limit(&self) -> Option<Duration> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != NEVER).then(|| Duration::from_nanos(limit))
    }

    fn set_limit(&self, limit: Option<Duration>) {
        self.limit.store(limit.map_or(NEVER, nanos), Ordering::Relaxed);
    }

    fn deadline(&self) -> Option<Instant> {
        let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
        self.accepted.checked_add(last)?.checked_add(self.limit()?)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

const READ: usize = 0;
const WRITE: usize = 1;

impl<S> TimedStream<S> {
    fn new(inner: S, first_byte: Option<Duration>, idle: Option<Duration>) -> Self {
        let accepted = Instant::now();
        let first_byte = first_byte.and_then(|limit| accepted.checked_add(limit));
        Self::half(inner, first_byte, Arc::new(Idle::new(accepted, idle)))
    }

    fn half(inner: S, first_byte: Option<Instant>, idle: Arc<Idle>) -> Self {
        Self { inner, first_byte, exchanges: None, reader: None, idle, timers: [None, None] }
    }

    /// Lets the idle deadline of reads run between requests only.
    #[cfg(feature = "axum")]
    pub(crate) fn for_http(self) -> Self {
        Self { exchanges: self.idle.limit().map(|_| Exchanges::default()), ..self }
    }

    /// Returns the stream, which has no deadlines from now on.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Returns a reference to the stream.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Replaces the [idle deadline](TimedListener::idle_deadline) of this connection, for both
    /// halves. `None` turns it off, for a client that waits for news.
    ///
    /// The deadline starts again with this call. A shorter deadline, or the first one, does not
    /// apply to a read or write that already waits in another task.
    ///
    /// ```no_run
    /// use sockpipe::{Stream, TimedStream};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # async fn publish(_: TimedStream<Stream>) -> std::io::Result<()> { Ok(()) }
    /// async fn handle(mut stream: TimedStream<Stream>) -> std::io::Result<()> {
    ///     let mut request = [0; 9];
    ///     stream.read_exact(&mut request).await?;
    ///     if request == *b"subscribe" {
    ///         stream.set_idle_deadline(None);
    ///         return publish(stream).await;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn set_idle_deadline(&mut self, deadline: Option<Duration>) {
        self.idle.set_limit(deadline);
        self.idle.restart();
    }

    /// Reports whether the client waits for a response.
    fn owes_response(&self) -> bool {
        self.exchanges.as_ref().is_some_and(|exchanges| !exchanges.are_answered())
    }

    fn deadline(&self, direction: usize) -> Option<Instant> {
        let waits = direction == READ && self.owes_response();
        let idle = self.idle.deadline().filter(|_| !waits);
        match self.first_byte {
            Some(first) if direction == READ => Some(idle.map_or(first, |idle| idle.min(first))),
            _ => idle,
        }
    }

    /// Returns the error for the deadline that has passed.
    fn passed(&self, direction: usize, deadline: Instant) -> io::Error {
        let first_byte = direction == READ && self.first_byte == Some(deadline);
        let what = match self.idle.limit() {
            Some(idle) if !first_byte => format!("no data went in either direction for {idle:?}"),
            _ => "the client sent nothing before the deadline for its first byte".to_owned(),
        };
        io::Error::new(ErrorKind::TimedOut, what)
    }

    /// Polls the deadline of a direction that waits, which is an error once it has passed.
    fn poll_deadline<T>(&mut self, direction: usize, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some(deadline) = self.deadline(direction) else {
            if direction == READ && self.owes_response() {
                self.reader = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };

        let timer = match &mut self.timers[direction] {
            Some(timer) => timer,
            none => none.insert(Box::pin(sleep_until(deadline)?)),
        };
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }

        // Each byte moves the deadline, but the timer is reset only when it fires.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(self.passed(direction, deadline)));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> TimedStream<S> {
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut left = match outcome {
            Poll::Pending => return self.poll_deadline(WRITE, cx),
            // An empty write does not show that the client is there.
            Poll::Ready(Ok(0) | Err(_)) => return outcome,
            Poll::Ready(Ok(written)) => written,
        };
        self.idle.restart();

        if let Some(exchanges) = &mut self.exchanges {
            for buf in bufs {
                let sent = &buf[..left.min(buf.len())];
                exchanges.sent(sent);
                left -= sent.len();
            }
            // The reader has a deadline again, and has to poll it.
            if exchanges.are_answered() {
                if let Some(reader) = self.reader.take() {
                    reader.wake();
                }
            }
        }
        outcome
    }
}

/// Methods for sockpipe's own streams.
impl TimedStream<Stream> {
    /// Splits the stream into halves for two tasks, which share one idle deadline.
    ///
    /// As for [`Stream::into_split`], dropping the write half ends the write side.
    pub fn into_split(self) -> (TimedStream<OwnedReadHalf>, TimedStream<OwnedWriteHalf>) {
        let [reads, writes] = self.timers;
        let (from, to) = self.inner.into_split();
        let from = TimedStream {
            timers: [reads, None],
            ..TimedStream::half(from, self.first_byte, self.idle.clone())
        };
        let to = TimedStream { timers: [None, writes], ..TimedStream::half(to, None, self.idle) };
        (from, to)
    }

    /// Ends the write side and waits until the OS has every byte, as [`Stream::close`] does.
    ///
    /// # Errors
    ///
    /// As for [`Stream::close`].
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        self.inner.close(deadline).await
    }
}

impl<S: LocalStream> TimedStream<S> {
    /// Returns the credentials of the peer.
    ///
    /// # Errors
    ///
    /// As for [`LocalStream::peer_credentials`].
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.inner.peer_credentials()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (is_empty, before) = (buf.remaining() == 0, buf.filled().len());
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => self.poll_deadline(READ, cx),
            // An empty read does not show that the client is there.
            ready if is_empty => ready,
            ready => {
                let Self { first_byte, exchanges, idle, .. } = &mut *self;
                idle.restart();
                *first_byte = None;
                if let Some(exchanges) = exchanges {
                    exchanges.received(&buf.filled()[before..]);
                }
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(cx, &[IoSlice::new(buf)], outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, bufs, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: LocalStream> LocalStream for TimedStream<S> {
    fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.inner.peer_credentials()
    }

    fn peer_told(&self) -> Option<PeerTold> {
        self.inner.peer_told()
    }

    fn closed(&self) -> Closed {
        self.inner.closed()
    }
}

impl<S: fmt::Debug> fmt::Debug for TimedStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TimedStream").field(&self.inner).finish()
    }
}

#[cfg(test)]
mod tests;
