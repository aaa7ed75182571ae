//! The async stream, and how a client connects.

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
use crate::peer::{PeerCredentials, PeerTold};
#[cfg(feature = "shared-memory")]
use crate::shared_memory::options::Transport;

/// The future that [`LocalStream::closed`] returns.
pub(crate) type Closed = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A connection that a [`LocalListener`](crate::LocalListener) yields.
pub trait LocalStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Returns the credentials of the peer.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) unless overridden.
    fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this transport does not know its peer"))
    }

    /// Returns a future of the peer's credentials, if [`peer_credentials`](Self::peer_credentials)
    /// fails only for now ([`Reason::PeerNotToldYet`](crate::Reason::PeerNotToldYet)). The future
    /// consumes no bytes, and does not keep the connection open.
    ///
    /// `None` unless overridden.
    fn peer_told(&self) -> Option<PeerTold> {
        None
    }

    /// Waits until the peer is gone, as [`Stream::closed`] does. The future borrows nothing, so the
    /// stream can be used, moved and dropped meanwhile.
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

/// A connection between two processes of one machine that carries bytes both ways.
///
/// A stream implements tokio's [`AsyncRead`] and [`AsyncWrite`]. `&Stream` does too, for one task
/// that reads and one that writes: if two tasks read (or write) one stream, only the later one is
/// woken. [`split`](Self::split) and [`into_split`](Self::into_split) give each task its own half.
///
/// * `shutdown` ends the write side: the peer reads end of file and can still answer.
/// * When the peer is gone, reads return the data that had arrived and then end of file (`Ok(0)`).
///   Writes fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe) on every OS, and never raise a
///   signal.
/// * Dropping a stream never blocks. Written data and the end of file still arrive as long as the
///   process lives; call [`close`](Self::close) before the process exits.
///
/// [Closing](crate::docs::closing) describes what the peer sees in each case.
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
/// Docker. A pipe of byte type, the default of Node and .NET, cannot carry it. `shutdown` then
/// fails with [`Unsupported`](io::ErrorKind::Unsupported), and the peer reads end of file when the
/// stream is closed. [`ConnectOptions::end_on_close`] makes `shutdown` succeed there. [Other
/// programs on Windows](crate::docs::windows_interop) lists what each of them understands.
pub struct Stream {
    pub(crate) inner: imp::Stream,
}

impl Stream {
    /// Connects to the server at `endpoint` with the default options.
    ///
    /// It fails at once if no server is listening, waits up to 5 seconds for a busy server, and
    /// refuses a server of another user. [Access and trust](crate::docs::access_and_trust) explains
    /// that check.
    ///
    /// # Errors
    ///
    /// | kind | when |
    /// |---|---|
    /// | `NotFound` | no server is listening |
    /// | `ConnectionRefused` | a crashed server left its socket behind, or a server is stopping (Unix) |
    /// | `TimedOut` | the server was busy until the deadline |
    /// | `PermissionDenied` | the server refuses this user, or runs as another user than expected |
    /// | `AlreadyExists` | the path exists and is not a socket |
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
    /// [`wait_for_server`](ConnectOptions::wait_for_server), `NotFound` and `ConnectionRefused` are
    /// returned only after that time.
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

    /// Creates two streams connected to each other, without a name.
    ///
    /// # Errors
    ///
    /// The error that the OS reports, or `Other` if there is no tokio runtime with I/O (Unix).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = imp::Stream::pair()?;
        Ok((Self::from_imp(one), Self::from_imp(other)))
    }

    /// Starts a child process that is connected to this one, as editors and browsers do with their
    /// workers.
    ///
    /// The child takes its end with [`from_parent`](Self::from_parent). There is no name, and no
    /// other process can connect. The stream ends when the child drops its end or exits.
    ///
    /// The child's end is its standard input, whatever `command` sets for it. Wait for the child,
    /// so that it leaves no zombie.
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
        // Closes the command's copy of the child's end.
        command.stdin(Stdio::null());
        Ok((Self::from_imp(stream), child?))
    }

    /// Takes the end that [`pair_with_child`](Self::pair_with_child) in the parent gave to this
    /// process.
    ///
    /// The standard input is empty from then on, so call it before anything is read from there.
    /// Both ends report the parent as their peer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the standard input is not such an end, for example because the program was
    /// started by hand; `Other` outside a tokio runtime with I/O (Unix).
    pub fn from_parent() -> io::Result<Self> {
        let stream = worker::into_async(worker::from_parent()?)?;
        worker::empty_stdin()?;
        Ok(Self::from_imp(stream))
    }

    /// Ends the write side and waits until the OS has every byte.
    ///
    /// After that, even [`std::process::exit`] loses no written data. The peer may not have read it
    /// yet.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) if the peer did not read enough within `deadline`; the
    /// data still arrives while the process lives. [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the
    /// peer disconnected before it read everything.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the kernel has every byte as soon as a write returns, so `close` does not wait.
    /// Windows: it waits until the pipe's buffer has taken the last write.
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        self.inner.close(deadline).await
    }

    /// Waits until the peer is gone.
    ///
    /// A peer is gone when it has closed its stream or its process has ended, but not after a
    /// half-close of either side.
    ///
    /// The future reads no data, and completes even if there is unread data. So a handler can give
    /// up work whose answer no client waits for:
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
    /// The future borrows nothing: the stream can be read, written, split and moved meanwhile. It
    /// does not keep the connection open. After this side of the stream is dropped, the future may
    /// stay pending forever.
    ///
    /// [`Serve::cancel_when_client_leaves`](crate::Serve::cancel_when_client_leaves) does the same
    /// for each handler of a server.
    ///
    /// # Errors
    ///
    /// The error that the OS reports, for example if the process is out of descriptors; `Other` if
    /// it is awaited outside a tokio runtime with I/O and timers (Unix).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: each such future has a descriptor of its own. Windows: the crate asks the system once
    /// a second. macOS, the BSDs, and Linux without sock_diag(7): once both sides have ended their
    /// writing, the peer counts as gone.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.inner.closed()
    }

    /// Returns the credentials of the peer.
    ///
    /// # Errors
    ///
    /// Windows: the peer is gone; or Windows does not report a foreign client before its first
    /// bytes ([`Reason::PeerNotToldYet`](crate::Reason::PeerNotToldYet)); or the client connected
    /// anonymously ([`Reason::AnonymousPeer`](crate::Reason::AnonymousPeer)). Unix: none, because
    /// the kernel recorded the credentials when the connection was made.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.inner.peer_credentials()
    }

    /// Returns the transport that carries the bytes: [`Transport::SharedMemory`] once both
    /// directions have moved into memory, as [`SharedMemory`](crate::SharedMemory) describes.
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

    fn peer_told(&self) -> Option<PeerTold> {
        self.inner.peer_told()
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

    /// Returns at once: the crate buffers nothing above the OS.
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
        self.get_mut().inner.poll_write_alone(cx, buf)
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
