//! A connection, and how a client gets one.

mod halves;

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::error::{Operation, during};
use crate::imp;
use crate::options::ConnectOptions;
use crate::peer::PeerCredentials;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::Transport;

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
