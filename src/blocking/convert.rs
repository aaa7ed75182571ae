//! Conversions between blocking and async streams.

use std::io;

use super::stream::Stream;
use crate::imp::blocking as imp;

impl crate::Stream {
    /// Converts this connection into a stream whose calls block the thread.
    ///
    /// # Errors
    ///
    /// The error that the OS reports.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: the crate's event loop goes on completing the stream's I/O, because the system does
    /// not release a pipe from the completion port that it is bound to. Each call that waits costs
    /// a thread switch, and the stream cannot be converted into a handle.
    pub fn into_blocking(self) -> io::Result<Stream> {
        let inner = imp::Stream::from_async(self.inner)?;
        Ok(Stream::from_imp(inner))
    }
}

impl Stream {
    /// Converts this connection into an async stream for a tokio runtime. The timeouts are
    /// discarded.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) if the stream has other handles; `Other` if
    /// there is no tokio runtime with I/O (Unix). The stream is closed then.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: it waits for a write that is still in progress, as the next write would.
    pub fn into_async(self) -> io::Result<crate::Stream> {
        self.into_inner()?.into_async().map(crate::Stream::from_imp)
    }
}

/// Converts as [`into_blocking`](crate::Stream::into_blocking) does.
impl TryFrom<crate::Stream> for Stream {
    type Error = io::Error;

    fn try_from(stream: crate::Stream) -> io::Result<Self> {
        stream.into_blocking()
    }
}

/// Converts as [`into_async`](Stream::into_async) does.
impl TryFrom<Stream> for crate::Stream {
    type Error = io::Error;

    fn try_from(stream: Stream) -> io::Result<Self> {
        stream.into_async()
    }
}
