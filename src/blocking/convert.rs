//! The same connection for the other API.

use std::io;

use super::stream::Stream;
use crate::imp::blocking as imp;

impl crate::Stream {
    /// Converts this connection into a stream whose calls block the thread.
    ///
    /// # Errors
    ///
    /// What the OS reports.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: the crate's event loop goes on completing the stream's I/O, for the system does not
    /// let a pipe go that it completes I/O of. It costs a change of threads per call that waits,
    /// and there is no way to the handle.
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
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) when there are other handles of the stream;
    /// `Other` where there is no tokio runtime with I/O (Unix). The stream is closed then.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: it waits for a write that is still under way, as the next write would.
    pub fn into_async(self) -> io::Result<crate::Stream> {
        self.into_inner()?.into_async().map(crate::Stream::from_imp)
    }
}

/// As [`into_blocking`](crate::Stream::into_blocking).
impl TryFrom<crate::Stream> for Stream {
    type Error = io::Error;

    fn try_from(stream: crate::Stream) -> io::Result<Self> {
        stream.into_blocking()
    }
}

/// As [`into_async`](Stream::into_async).
impl TryFrom<Stream> for crate::Stream {
    type Error = io::Error;

    fn try_from(stream: Stream) -> io::Result<Self> {
        stream.into_async()
    }
}
