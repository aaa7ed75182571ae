//! A connection, and how a client gets one.

mod halves;

use std::fmt;
use std::future::{Future, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::error::{Operation, during};
use crate::imp::{self, worker};
use crate::options::ConnectOptions;
use crate::peer::PeerCredentials;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::Transport;

/// What [`LocalStream::closed`] gives.
pub(crate) type Closed = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// What a [`LocalListener`](crate::LocalListener) yields.
pub trait LocalStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) unless overridden.
    fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this transport does not know its peer"))
    }

    /// Completes when the peer is gone, as [`Stream::closed`] does. The future borrows nothing, so that
    /// the stream can be used, given away and dropped meanwhile.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) unless overridden.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    fn closed(&self) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        let what = "this transport does not tell when its peer is gone";
        Box::pin(ready(Err(io::Error::new(io::ErrorKind::Unsupported, what))))
    }
}

/// A connection between two processes of one machine, bytes both ways.
///
/// It reads and writes as tokio's streams do. `&Stream` does too, for one task that reads and one
/// that writes: two tasks that read one stream, or write it, wake only the later of them.
/// [`split`](Self::split) and [`into_split`](Self::into_split) give each its own half.
///
/// * `shutdown` ends the write side: the peer reads end of file and can still answer.
/// * When the peer is gone, reads give what had arrived and then end of file (`Ok(0)`), and writes
///   fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe), on every OS; there is never a signal.
/// * Dropping a stream never blocks; what was written, and the end of file, still arrive as long as
///   the process lives. [`close`](Self::close) before the process ends makes sure of it.
///
/// ```no_run
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # async fn run() -> std::io::Result<()> {
/// let mut stream = sockpipe::Stream::connect("org.example.tool").await?;
/// stream.write_all(b"question").await?;
/// stream.shutdown().await?;
/// let mut answer = Vec::new();
/// stream.read_to_end(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Platform-specific behavior
///
/// On Windows the end of the write side is a message of length zero, the convention of go-winio and
/// Docker. A pipe of byte type (Node's, .NET's by default) cannot carry it: `shutdown` is then
/// [`Unsupported`](io::ErrorKind::Unsupported), and the peer reads end of file when the stream is
/// closed; [`ConnectOptions::end_on_close`] leaves it to that. [What other programs
/// understand](crate::docs::windows_interop) is a page of its own.
pub struct Stream {
    pub(crate) inner: imp::Stream,
}

impl Stream {
    /// Connects to the server at `endpoint` with the default options: it fails at once when nobody
    /// listens, waits up to 5 seconds for a busy server, and talks to no other user's server.
    ///
    /// # Errors
    ///
    /// | kind | when |
    /// |---|---|
    /// | `NotFound` | no server is listening |
    /// | `ConnectionRefused` | a socket is there, and no server behind it (Unix) |
    /// | `TimedOut` | the server was busy until the deadline |
    /// | `PermissionDenied` | the server refuses this user, or is another user's than expected |
    /// | `AlreadyExists` | what stands at the path is not a socket |
    /// | `InvalidInput` | the endpoint does not parse, or is too long for the OS |
    /// | `Unsupported` | this OS has no such endpoint |
    /// | `Other` | there is no tokio runtime here, or it lacks I/O or timers (Unix) |
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn connect<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        Self::connect_with(endpoint, &ConnectOptions::default()).await
    }

    /// Connects to the server at `endpoint` with `options`.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect). With
    /// [`wait_for_server`](ConnectOptions::wait_for_server), `NotFound` and `ConnectionRefused`
    /// come only when that time is over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn connect_with<E>(endpoint: E, options: &ConnectOptions) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        let connected = imp::Stream::connect(&endpoint, options).await;
        connected.map(Self::from_imp).map_err(|error| during(Operation::Connect, endpoint, error))
    }

    /// Two streams connected to each other, without a name.
    ///
    /// # Errors
    ///
    /// What the OS reports, and `Other` where there is no tokio runtime with I/O (Unix).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = imp::Stream::pair()?;
        Ok((Self::from_imp(one), Self::from_imp(other)))
    }

    /// Starts a child that is connected to this process, as editors and browsers do with their workers.
    /// The child takes its end with [`from_parent`](Self::from_parent). There is no name, and nobody else
    /// can connect. The stream ends when the child drops its end, or ends itself.
    ///
    /// The child's end is its standard input, whatever `command` has for that. Else the child is like any
    /// other: wait for it, so that it leaves no zombie.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use sockpipe::Stream;
    ///
    /// # fn run() -> std::io::Result<()> {
    /// // In the worker: `let parent = Stream::from_parent()?;`
    /// let (worker, mut child) = Stream::pair_with_child(&mut Command::new("example-worker"))?;
    /// # drop(worker);
    /// child.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`pair`](Self::pair) and of [`Command::spawn`].
    pub fn pair_with_child(command: &mut Command) -> io::Result<(Self, Child)> {
        let (end, stdin) = worker::pair()?;
        let stream = worker::into_async(end)?;
        let child = command.stdin(stdin).spawn();
        // The command had a copy of the child's end.
        command.stdin(Stdio::null());
        Ok((Self::from_imp(stream), child?))
    }

    /// Takes the end that [`pair_with_child`](Self::pair_with_child) in the parent gave to this process.
    /// The standard input is empty from then on: call it before anything is read from that. Both ends
    /// report the parent as their peer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the standard input is no such end, as when the program was started by hand.
    pub fn from_parent() -> io::Result<Self> {
        let stream = worker::into_async(worker::from_parent()?)?;
        worker::empty_stdin()?;
        Ok(Self::from_imp(stream))
    }

    /// Ends the write side and returns when the OS has every byte: after that even
    /// [`std::process::exit`] loses nothing that was written.
    ///
    /// That the OS has the bytes does not mean that the peer has read them.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) when the peer did not take enough of them within
    /// `deadline`; they still arrive while the process lives.
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the peer left with bytes outstanding.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the kernel has every byte as soon as a write returns, so this does not wait. Windows:
    /// it waits until the pipe's buffer has taken the last write.
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        self.inner.close(deadline).await
    }

    /// Completes when the peer is gone: it has closed its stream, or its process has ended. Its
    /// half-close is not that, nor is one of this side.
    ///
    /// It reads nothing, and completes also while there are bytes that nobody has read. So a handler
    /// can give up work whose answer nobody waits for:
    ///
    /// ```no_run
    /// # async fn work() -> Vec<u8> { Vec::new() }
    /// use sockpipe::Stream;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// async fn answer(mut stream: Stream) -> std::io::Result<()> {
    ///     tokio::select! {
    ///         answer = work() => stream.write_all(&answer).await,
    ///         gone = stream.closed() => gone,
    ///     }
    /// }
    /// ```
    ///
    /// The future borrows nothing: the stream can be read, written, split and given away meanwhile. It
    /// does not keep the connection open. Once this side of it is dropped nothing is told any more, and
    /// the future may stay pending for ever.
    ///
    /// [`Serve::cancel_when_client_leaves`](crate::Serve::cancel_when_client_leaves) does the same for
    /// each handler of a server.
    ///
    /// # Errors
    ///
    /// What the OS reports, as when the process is out of descriptors; `Other` where it is awaited
    /// outside a tokio runtime with I/O and timers (Unix).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: each such future has a descriptor of its own. Windows: the system tells of it only when it
    /// is asked, which is once a second. macOS and the BSDs, and Linux where sock_diag(7) cannot be
    /// asked: once both sides have ended their writing, the peer counts as gone.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.inner.closed()
    }

    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// Windows: that the peer cannot be asked, as when it is gone, or that it is a foreign client that
    /// does not let itself be identified, as go-winio's. Unix: none, they were read when the
    /// connection was made.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.inner.peer_credentials()
    }

    /// Returns what carries the bytes: [`Transport::SharedMemory`] once both directions have moved into
    /// memory, as [`SharedMemory`](crate::SharedMemory) describes.
    #[cfg(feature = "shared-memory")]
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::of(self.inner.uses_memory())
    }

    pub(crate) fn from_imp(inner: imp::Stream) -> Self {
        Self { inner }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("inner", &self.inner).finish()
    }
}

impl LocalStream for Stream {
    fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Self::peer_credentials(self)
    }

    fn closed(&self) -> Closed {
        Box::pin(Self::closed(self))
    }
}

impl AsyncRead for &Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner.poll_read(cx, buf)
    }
}

impl AsyncWrite for &Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// Nothing is buffered above the OS.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner.shutdown())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_shutdown(cx)
    }
}
