//! The two directions of a stream, borrowed and owned.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;
use crate::peer::PeerCredentials;

impl Stream {
    /// Splits the stream into two halves that borrow it, to read and write at the same time.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Splits the stream into two halves that own it, to read and write in two tasks.
    ///
    /// Dropping the write half ends the write side, as `shutdown` does.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Arc::new(self);
        (OwnedReadHalf(stream.clone()), OwnedWriteHalf { stream, open: true })
    }
}

/// The read side of a [`Stream`], from [`Stream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a Stream);

/// The write side of a [`Stream`], from [`Stream::split`].
///
/// Dropping it changes nothing; `shutdown` ends the write side.
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a Stream);

/// The read side of a [`Stream`], from [`Stream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf(Arc<Stream>);

/// The write side of a [`Stream`], from [`Stream::into_split`].
///
/// Dropping it ends the write side, as `shutdown` does.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<Stream>,
    /// Whether a drop ends the write side.
    open: bool,
}

/// The error of [`OwnedReadHalf::reunite`] for halves of different streams. It returns both halves.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these halves are not of one stream")
    }
}

impl Error for ReuniteError {}

impl ReadHalf<'_> {
    /// Waits until the peer is gone, as [`Stream::closed`] does.
    ///
    /// # Errors
    ///
    /// As for [`Stream::closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.0.closed()
    }
}

impl WriteHalf<'_> {
    /// Waits until the peer is gone, as [`Stream::closed`] does.
    ///
    /// # Errors
    ///
    /// As for [`Stream::closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.0.closed()
    }
}

impl OwnedReadHalf {
    /// Reunites the halves of a stream.
    ///
    /// # Errors
    ///
    /// [`ReuniteError`] if the halves come from different streams.
    pub fn reunite(self, mut write: OwnedWriteHalf) -> Result<Stream, ReuniteError> {
        if !Arc::ptr_eq(&self.0, &write.stream) {
            return Err(ReuniteError(self, write));
        }
        write.open = false;
        drop(write);
        // There are no other owners than these two halves.
        Arc::try_unwrap(self.0).map_err(|stream| {
            let write = OwnedWriteHalf { stream: stream.clone(), open: true };
            ReuniteError(Self(stream), write)
        })
    }

    /// Returns the credentials of the peer, as [`Stream::peer_credentials`] does.
    ///
    /// # Errors
    ///
    /// As for [`Stream::peer_credentials`].
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.0.peer_credentials()
    }

    /// Waits until the peer is gone, as [`Stream::closed`] does.
    ///
    /// # Errors
    ///
    /// As for [`Stream::closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.0.closed()
    }
}

impl OwnedWriteHalf {
    /// Returns the credentials of the peer, as [`Stream::peer_credentials`] does.
    ///
    /// # Errors
    ///
    /// As for [`Stream::peer_credentials`].
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.stream.peer_credentials()
    }

    /// Waits until the peer is gone, as [`Stream::closed`] does.
    ///
    /// # Errors
    ///
    /// As for [`Stream::closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.stream.closed()
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.open {
            // It fails if the peer is gone or the transport has no half-close. A drop does not
            // report that.
            let _ = self.stream.inner.shutdown();
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_read(cx, buf)
    }
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(&self.0)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_shutdown(cx)
    }
}

impl AsyncWrite for OwnedWriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(&&*self.stream)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut &*self.stream).poll_shutdown(cx);
        if matches!(done, Poll::Ready(Ok(()))) {
            self.open = false;
        }
        done
    }
}
