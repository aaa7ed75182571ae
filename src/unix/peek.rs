//! Looks at bytes without taking them: `MSG_PEEK` of a socket.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::platform;
#[cfg(feature = "blocking")]
use crate::blocking;
use crate::sealed::Sealed;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// A method to look at the next bytes without taking them; [`AsyncPeek`] is the async form.
///
/// A server that speaks two protocols tells by them which one a client has chosen, and passes the
/// stream on whole. Windows has no counterpart, because the event loop reads a pipe ahead: code for
/// both systems uses `fill_buf` of a [`BufReader`](std::io::BufReader), and passes that on.
///
/// ```
/// use std::io::{self, Read, Write};
/// use sockpipe::blocking::Stream;
/// use sockpipe::os::unix::Peek;
///
/// # fn main() -> io::Result<()> {
/// let (mut client, mut server) = Stream::pair()?;
/// client.write_all(b"GET / HTTP/1.1\r\n")?;
///
/// let mut first = [0; 4];
/// assert_eq!(server.peek(&mut first)?, 4);
/// assert_eq!(&first, b"GET ");
/// let mut all = [0; 16];
/// server.read_exact(&mut all)?;
/// assert_eq!(&all, b"GET / HTTP/1.1\r\n");
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "blocking")]
pub trait Peek: Sealed {
    /// Waits for bytes, and copies the next ones into `buf`. Returns their number; zero means end
    /// of file. They stay, and so do descriptors that came with them.
    ///
    /// More bytes than it returns may have come: it stops where a read would, for example behind a
    /// descriptor. Calling it again returns the same bytes at once, so it cannot wait for more.
    /// The [read timeout](blocking::Stream::set_read_timeout) holds for it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the buffer is empty; `Unsupported` for a stream that may use shared
    /// memory; else the error of the read.
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize>;
}

#[cfg(feature = "blocking")]
impl Peek for blocking::Stream {
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        check(buf)?;
        self.inner().only_socket()?;
        self.inner().read_with(self.read_limit(), |socket, flags| look(socket, buf, flags))
    }
}

/// A method to look at the next bytes without taking them, for the async [`Stream`](crate::Stream).
///
/// A server that speaks two protocols tells by them which one a client has chosen, and passes the
/// stream on whole. Windows has no counterpart, because the event loop reads a pipe ahead: code for
/// both systems uses `fill_buf` of a [`BufReader`](tokio::io::BufReader), and passes that on.
#[cfg(feature = "tokio")]
pub trait AsyncPeek: Sealed {
    /// Waits for bytes, and copies the next ones into `buf`. Returns their number; zero means end
    /// of file. They stay, and so do descriptors that came with them.
    ///
    /// More bytes than it returns may have come: it stops where a read would, for example behind a
    /// descriptor. Calling it again returns the same bytes at once, so it cannot wait for more.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the buffer is empty; `Unsupported` for a stream that may use shared
    /// memory; else the error of the read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    fn peek(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

#[cfg(feature = "tokio")]
impl AsyncPeek for Stream {
    async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        check(buf)?;
        self.inner.only_socket()?;
        self.inner.read_by(|socket| look(socket, buf, RecvFlags::empty())).await
    }
}

fn check(buf: &[u8]) -> io::Result<()> {
    if buf.is_empty() {
        let what = "cannot peek into an empty buffer: zero bytes would mean end of file";
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    Ok(())
}

/// Gives no room for control data: with room, each look would install the peer's descriptors again.
fn look(socket: BorrowedFd<'_>, buf: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    let room = buf.len().min(platform::MOST);
    recv(socket, &mut buf[..room], flags | RecvFlags::PEEK).map(|(_, length)| length)
}
