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
    /// Windows: the crate's event loop continues to complete the stream's I/O, because Windows
    /// cannot detach a pipe from its completion port. So each call that waits costs a thread
    /// switch, and the stream cannot be converted into a handle.
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
    /// there is no tokio runtime with I/O (Unix). On an error the stream is dropped.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: the call first waits until a write that is in progress has completed, as the next
    /// write would do.
    pub fn into_async(self) -> io::Result<crate::Stream> {
        self.into_inner()?.into_async().map(crate::Stream::from_imp)
    }
}

/// Calls [`into_blocking`](crate::Stream::into_blocking).
impl TryFrom<crate::Stream> for Stream {
    type Error = io::Error;

    fn try_from(stream: crate::Stream) -> io::Result<Self> {
        stream.into_blocking()
    }
}

/// Calls [`into_async`](Stream::into_async).
impl TryFrom<Stream> for crate::Stream {
    type Error = io::Error;

    fn try_from(stream: Stream) -> io::Result<Self> {
        stream.into_async()
    }
}
