//! Conversions between streams and the socket types of std and tokio.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

#[cfg(feature = "blocking")]
use rustix::io::Errno;

use super::ext::StreamExt;
#[cfg(feature = "blocking")]
use super::unless_gone;
#[cfg(feature = "blocking")]
use crate::blocking;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// Calls [`StreamExt::from_fd`].
#[cfg(feature = "tokio")]
impl TryFrom<OwnedFd> for Stream {
    type Error = io::Error;

    fn try_from(socket: OwnedFd) -> io::Result<Self> {
        Self::from_fd(socket)
    }
}

/// Calls [`StreamExt::from_fd`].
#[cfg(feature = "tokio")]
impl TryFrom<UnixStream> for Stream {
    type Error = io::Error;

    fn try_from(socket: UnixStream) -> io::Result<Self> {
        Self::from_fd(socket.into())
    }
}

/// Fails outside a tokio runtime, or if the OS does not report the peer's credentials.
#[cfg(feature = "tokio")]
impl TryFrom<tokio::net::UnixStream> for Stream {
    type Error = io::Error;

    fn try_from(socket: tokio::net::UnixStream) -> io::Result<Self> {
        super::Stream::from_tokio(socket).map(Self::from_imp)
    }
}

/// Fails outside a tokio runtime. Fails with [`Unsupported`](io::ErrorKind::Unsupported) if the
/// stream may use shared memory.
#[cfg(feature = "tokio")]
impl TryFrom<Stream> for tokio::net::UnixStream {
    type Error = io::Error;

    fn try_from(stream: Stream) -> io::Result<Self> {
        stream.inner.into_tokio()
    }
}

/// Calls [`StreamExt::into_fd`].
#[cfg(feature = "tokio")]
impl TryFrom<Stream> for OwnedFd {
    type Error = io::Error;

    fn try_from(stream: Stream) -> io::Result<Self> {
        stream.into_fd()
    }
}

/// Calls [`StreamExt::into_fd`]. The returned socket is in nonblocking mode.
#[cfg(feature = "tokio")]
impl TryFrom<Stream> for UnixStream {
    type Error = io::Error;

    fn try_from(stream: Stream) -> io::Result<Self> {
        stream.into_fd().map(Self::from)
    }
}

/// Calls [`StreamExt::from_fd`].
#[cfg(feature = "blocking")]
impl TryFrom<OwnedFd> for blocking::Stream {
    type Error = io::Error;

    fn try_from(socket: OwnedFd) -> io::Result<Self> {
        Self::from_fd(socket)
    }
}

/// Calls [`StreamExt::from_fd`], and keeps the socket's read and write timeouts. Calls of the
/// stream block even if the socket was in nonblocking mode.
#[cfg(feature = "blocking")]
impl TryFrom<UnixStream> for blocking::Stream {
    type Error = io::Error;

    fn try_from(socket: UnixStream) -> io::Result<Self> {
        let (read, write) = (socket.read_timeout()?, socket.write_timeout()?);
        // The stream has its own timeouts. If the kernel's stayed set, they could end a wait early.
        set(socket.set_read_timeout(None))?;
        set(socket.set_write_timeout(None))?;
        let stream = Self::from_fd(socket.into())?;
        stream.set_read_timeout(read)?;
        stream.set_write_timeout(write)?;
        Ok(stream)
    }
}

/// Calls [`StreamExt::into_fd`].
#[cfg(feature = "blocking")]
impl TryFrom<blocking::Stream> for OwnedFd {
    type Error = io::Error;

    fn try_from(stream: blocking::Stream) -> io::Result<Self> {
        stream.into_fd()
    }
}

/// Calls [`StreamExt::into_fd`]. The returned socket is in blocking mode, and keeps the stream's
/// read and write timeouts.
#[cfg(feature = "blocking")]
impl TryFrom<blocking::Stream> for UnixStream {
    type Error = io::Error;

    fn try_from(stream: blocking::Stream) -> io::Result<Self> {
        let (read, write) = (stream.read_timeout(), stream.write_timeout());
        let socket = Self::from(stream.into_fd()?);
        set(socket.set_read_timeout(read))?;
        set(socket.set_write_timeout(write))?;
        Ok(socket)
    }
}

/// Ignores a failure to set a timeout if the peer has closed the connection, because then no call
/// waits.
#[cfg(feature = "blocking")]
fn set(timeout: io::Result<()>) -> io::Result<()> {
    timeout.or_else(|error| match Errno::from_io_error(&error) {
        Some(errno) => Ok(unless_gone(Err(errno))?),
        None => Err(error),
    })
}
