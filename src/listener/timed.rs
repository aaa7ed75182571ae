//! Deadlines for clients that send nothing.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::endpoint::Endpoint;
use crate::listener::LocalListener;
use crate::peer::{PeerCredentials, PeerTold};
use crate::runtime::sleep_until;
use crate::stream::{Closed, LocalStream, OwnedReadHalf, OwnedWriteHalf, Stream};

/// A listener whose streams fail with [`TimedOut`](ErrorKind::TimedOut) when the client misses a
/// deadline. Reads and writes both fail, so a handler ends whatever it waits for.
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

    /// Sets how long a connection may stay open without a byte in either direction.
    ///
    /// This deadline also ends a write to a client that no longer reads.
    ///
    /// The listener knows nothing of requests and responses. It also cuts a client that waits for a
    /// slow handler, a quiet stream of events, or a quiet WebSocket. Use it for protocols that send
    /// data more often than that; [embedding](crate::docs::embedding) has deadlines for HTTP.
    ///
    /// Under `axum::serve`, a client that waits for the start of its response is not cut.
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
    /// Until a byte has come.
    first_byte: Option<Instant>,
    idle: Option<Duration>,
    /// Of requests and answers: a client that waits for an answer is not idle.
    answers: bool,
    /// What both halves know.
    last: Arc<Last>,
    // One for each direction, made when needed: two tasks may wait, and a timer wakes one.
    timers: [Option<Pin<Box<Sleep>>>; 2],
}

/// When a byte last went either way, and whether it was the client's.
struct Last {
    accepted: Instant,
    /// Nanoseconds since then, and in the lowest bit who spoke.
    spoken: AtomicU64,
}

impl Last {
    fn now(&self, by_client: bool) {
        let nanos = self.accepted.elapsed().as_nanos() as u64;
        self.spoken.store(nanos & !1 | u64::from(by_client), Ordering::Relaxed);
    }

    fn at(&self) -> Instant {
        self.accepted + Duration::from_nanos(self.spoken.load(Ordering::Relaxed) & !1)
    }

    fn is_by_client(&self) -> bool {
        self.spoken.load(Ordering::Relaxed) & 1 == 1
    }
}

const READ: usize = 0;
const WRITE: usize = 1;

impl<S> TimedStream<S> {
    fn new(inner: S, first_byte: Option<Duration>, idle: Option<Duration>) -> Self {
        let accepted = Instant::now();
        let first_byte = first_byte.and_then(|limit| accepted.checked_add(limit));
        let last = Arc::new(Last { accepted, spoken: AtomicU64::new(0) });
        Self { inner, first_byte, idle, answers: false, last, timers: [None, None] }
    }

    /// For a protocol of requests and answers.
    #[cfg(feature = "axum")]
    pub(crate) fn with_answers(self) -> Self {
        Self { answers: true, ..self }
    }

    /// Returns the stream, which has no deadlines from now on.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Returns a reference to the stream.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    fn deadline(&self, direction: usize) -> Option<Instant> {
        let waits = self.answers && direction == READ && self.last.is_by_client();
        let idle = self.idle.filter(|_| !waits).and_then(|limit| self.last.at().checked_add(limit));
        match self.first_byte {
            Some(first) if direction == READ => Some(idle.map_or(first, |idle| idle.min(first))),
            _ => idle,
        }
    }

    /// Says which deadline is over. Of the idle one nobody can say who should have spoken.
    fn passed(&self, direction: usize, deadline: Instant) -> io::Error {
        let first_byte = direction == READ && self.first_byte == Some(deadline);
        let what = match self.idle {
            Some(idle) if !first_byte => format!("no data went in either direction for {idle:?}"),
            _ => "the client sent nothing before the deadline for its first byte".to_owned(),
        };
        io::Error::new(ErrorKind::TimedOut, what)
    }

    /// While a direction waits: an error once its deadline is over.
    fn poll_deadline<T>(&mut self, direction: usize, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some(deadline) = self.deadline(direction) else { return Poll::Pending };
        let timer = match &mut self.timers[direction] {
            Some(timer) => timer,
            none => none.insert(Box::pin(sleep_until(deadline)?)),
        };
        // Bytes move the deadline; the timer is moved only when it would have rung.
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
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Pending => self.poll_deadline(WRITE, cx),
            // An empty write says nothing of the client.
            Poll::Ready(Ok(0)) => outcome,
            ready => {
                self.last.now(false);
                ready
            }
        }
    }
}

/// Streams of sockpipe's own.
impl TimedStream<Stream> {
    /// Splits the stream into halves for two tasks, which share one idle deadline.
    ///
    /// As for [`Stream::into_split`], dropping the write half ends the write side.
    pub fn into_split(self) -> (TimedStream<OwnedReadHalf>, TimedStream<OwnedWriteHalf>) {
        let Self { inner, first_byte, idle, answers, last, timers } = self;
        let [timer, other] = timers;
        let (from, to) = inner.into_split();
        let (timers, shared) = ([timer, None], last.clone());
        let from = TimedStream { inner: from, first_byte, idle, answers, last: shared, timers };
        let timers = [None, other];
        (from, TimedStream { inner: to, first_byte: None, idle, answers, last, timers })
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
        let is_empty = buf.remaining() == 0;
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => self.poll_deadline(READ, cx),
            // An empty read says nothing of the client.
            ready if is_empty => ready,
            ready => {
                self.last.now(true);
                self.first_byte = None;
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
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, outcome)
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
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
    use tokio::time::sleep;

    use super::*;
    use crate::memory;
    use crate::memory::tests::at_once;

    const SECOND: Duration = Duration::from_secs(1);

    async fn accepted(first_byte: u64, idle: u64) -> (memory::Stream, TimedStream<memory::Stream>) {
        let (listener, connector) = memory::pair();
        let mut listener = TimedListener::new(listener)
            .first_byte_deadline(SECOND * first_byte as u32)
            .idle_deadline(SECOND * idle as u32);
        let client = connector.connect().await.expect("a connection");
        (client, listener.accept().await.expect("a connection"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_given_up() {
        let (_client, mut server) = accepted(10, 60).await;
        let started = Instant::now();
        let error = server.read(&mut [0]).await.expect_err("nothing was said");
        assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_says_which_deadline_is_over() {
        for (first_byte, idle, said) in [
            (10, 60, "the client sent nothing before the deadline for its first byte"),
            (60, 10, "no data went in either direction for 10s"),
        ] {
            let (_client, mut server) = accepted(first_byte, idle).await;
            let error = server.read(&mut [0]).await.expect_err("nothing was said");
            assert_eq!(error.to_string(), said);
        }
        // A writer waits for the reader's deadline only.
        let (_client, mut server) = accepted(10, 60).await;
        let error = server.write_all(&vec![0; 1 << 20]).await.expect_err("no room");
        assert_eq!(error.to_string(), "no data went in either direction for 60s");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_move_the_deadline() {
        let (mut client, mut server) = accepted(10, 60).await;
        let started = Instant::now();
        let talk = async {
            for pause in [9, 59, 59] {
                sleep(SECOND * pause).await;
                client.write_u8(1).await.expect("a write");
            }
            client
        };

        let listen = async {
            for _ in 0..3 {
                server.read_u8().await.expect("in time");
            }
            server.read_u8().await.expect_err("nothing more was said")
        };
        let (_client, error) = tokio::join!(talk, listen);
        assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, 187));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up_in_both_directions() {
        let (mut client, server) = accepted(10, 60).await;
        client.write_u8(1).await.expect("a write");
        let (mut from, mut to) = split(server);
        from.read_u8().await.expect("a byte");
        let started = Instant::now();
        let reader = async { from.read_u8().await.expect_err("nothing more was said").kind() };
        let writer = async { to.write_all(&vec![0; 1 << 20]).await.expect_err("no room").kind() };
        assert_eq!(tokio::join!(reader, writer), (ErrorKind::TimedOut, ErrorKind::TimedOut));
        assert_eq!(started.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn without_deadlines_it_waits() {
        let (listener, connector) = memory::pair();
        let mut listener = TimedListener::new(listener);
        let mut client = connector.connect().await.expect("a connection");
        let mut server = listener.accept().await.expect("a connection");
        let late = async {
            sleep(SECOND * 100_000).await;
            client.write_u8(7).await.expect("a write");
        };
        let (got, ()) = tokio::join!(server.read_u8(), late);
        assert_eq!(got.expect("a byte"), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_read_or_write_moves_no_deadline() {
        for (first_byte, idle, limit) in [(4, 60, 4), (10, 4, 4)] {
            let (_client, mut server) = accepted(first_byte, idle).await;
            let started = Instant::now();
            sleep(SECOND * 3).await;
            assert_eq!(at_once(server.read(&mut [])).expect("an empty read"), 0);
            assert_eq!(at_once(server.write(&[])).expect("an empty write"), 0);
            let error = server.read(&mut [0]).await.expect_err("nothing was said");
            assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, limit));
        }
    }

    #[cfg(feature = "axum")]
    #[tokio::test(start_paused = true)]
    async fn of_requests_and_answers_who_waits_is_not_idle() {
        let (mut client, server) = accepted(10, 60).await;
        let mut server = server.with_answers();
        client.write_u8(1).await.expect("a write");
        server.read_u8().await.expect("a request");
        let waited = tokio::time::timeout(SECOND * 600, server.read_u8()).await;
        waited.expect_err("it waits for its answer");
        server.write_u8(2).await.expect("an answer");
        let answered = Instant::now();
        let error = server.read_u8().await.expect_err("nothing more was asked");
        assert_eq!((error.kind(), answered.elapsed().as_secs()), (ErrorKind::TimedOut, 60));
    }

    #[test]
    fn without_timers_to_wait_with_it_is_an_error() {
        let (listener, connector) = memory::pair();
        let mut listener = TimedListener::new(listener).idle_deadline(SECOND);
        let mut client = at_once(connector.connect()).expect("a connection");
        let mut server = at_once(listener.accept()).expect("a connection");
        let error = at_once(server.read_u8()).expect_err("nothing was said");
        assert_eq!(error.kind(), ErrorKind::Other, "{error}");
        at_once(client.write_u8(7)).expect("a write");
        assert_eq!(at_once(server.read_u8()).expect("it need not wait"), 7);
    }
}
