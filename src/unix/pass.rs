//! Passing open descriptors to the peer: `SCM_RIGHTS`, unix(7).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::{at_most, platform};
#[cfg(feature = "blocking")]
use crate::blocking;
use crate::sealed::Sealed;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// The maximum number of descriptors in one message: Linux's limit, `SCM_MAX_FD`. OpenBSD sends at
/// most 127, and receives these.
pub const MAX_FDS: usize = 253;

/// Bytes of control data: as much as one message can have here, whatever limit the caller asked
/// for. XNU installs descriptors even without room for them, and does not report which, so that
/// this process could not close them.
pub(super) const ROOM: usize =
    cmsg_space!(ScmRights(platform::FDS_IN_A_MESSAGE)) + platform::ROOM_FOR_CREDENTIALS;

/// Methods to send and receive open descriptors with data; [`AsyncPassFds`] is the async form.
///
/// The receiver gets its own descriptors of the same open files. They arrive with the first byte
/// that they were sent with, and a plain read of that byte closes them. So both sides have to agree
/// when to look for them.
///
/// ```
/// use std::io;
/// use std::os::fd::AsFd;
/// use sockpipe::blocking::Stream;
/// use sockpipe::os::unix::PassFds;
///
/// # fn main() -> io::Result<()> {
/// let (one, other) = Stream::pair()?;
/// let file = std::fs::File::open("/dev/null")?;
/// one.send_with_fds(b"the log", &[file.as_fd()])?;
///
/// let mut buffer = [0; 64];
/// let (length, fds) = other.recv_with_fds(&mut buffer, 1)?;
/// assert_eq!((&buffer[..length], fds.len()), (&b"the log"[..], 1));
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "blocking")]
pub trait PassFds: Sealed {
    /// Writes some of `data`, and sends `fds` with its first byte. Returns the number of bytes
    /// written.
    ///
    /// The caller keeps its descriptors. Write the rest of `data`, if any, with a plain write.
    /// Without `fds` this is a plain write.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `data` is empty and `fds` is not, or for more than [`MAX_FDS`]
    /// descriptors; else the error of the write. The peer then received none of them.
    fn send_with_fds(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize>;

    /// Reads data, and at most `limit` descriptors that came with it.
    ///
    /// The descriptors are close-on-exec. Zero bytes mean end of file. The list is empty if the
    /// peer sent no descriptors.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the buffer is empty, or for a `limit` above [`MAX_FDS`]. `InvalidData` if
    /// more than `limit` descriptors came, or if this process has no room for them: all of them are
    /// closed, and the data that they came with is lost. If there is no room, systems other than
    /// Linux may report an error of their own. Else the error of the read.
    fn recv_with_fds(&self, buf: &mut [u8], limit: usize) -> io::Result<(usize, Vec<OwnedFd>)>;
}

#[cfg(feature = "blocking")]
impl PassFds for blocking::Stream {
    fn send_with_fds(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        check_send(data, fds)?;
        self.inner().only_socket()?;
        self.inner().write_with(self.write_limit(), |socket, flags| send(socket, data, fds, flags))
    }

    fn recv_with_fds(&self, buf: &mut [u8], limit: usize) -> io::Result<(usize, Vec<OwnedFd>)> {
        check_receive(buf, limit)?;
        self.inner().only_socket()?;
        let read = |socket: BorrowedFd<'_>, flags| receive(socket, buf, flags);
        self.inner().read_with(self.read_limit(), read)?.into_result(limit)
    }
}

/// Methods to send and receive open descriptors with data, for the async [`Stream`](crate::Stream).
///
/// The descriptors arrive with the first byte that they were sent with, and a plain read of that
/// byte closes them. So both sides have to agree when to look for them.
///
/// ```
/// use std::fs::File;
/// use std::io::{self, Read};
/// use std::os::fd::AsFd;
/// use sockpipe::Stream;
/// use sockpipe::os::unix::AsyncPassFds;
///
/// async fn send(stream: &Stream, file: &File) -> io::Result<()> {
///     // One byte is enough: the descriptors go with the first.
///     stream.send_with_fds(b"f", &[file.as_fd()]).await?;
///     Ok(())
/// }
///
/// async fn receive(stream: &Stream) -> io::Result<File> {
///     let mut byte = [0];
///     match stream.recv_with_fds(&mut byte, 1).await? {
///         (1, mut fds) if byte == *b"f" && fds.len() == 1 => Ok(fds.remove(0).into()),
///         (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
///         _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no file came with the byte")),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> io::Result<()> {
/// let (one, other) = Stream::pair()?;
/// send(&one, &File::open("/dev/zero")?).await?;
///
/// let mut four = [1; 4];
/// receive(&other).await?.read_exact(&mut four)?;
/// assert_eq!(four, [0; 4]);
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "tokio")]
pub trait AsyncPassFds: Sealed {
    /// Writes some of `data`, and sends `fds` with its first byte. Returns the number of bytes
    /// written.
    ///
    /// The caller keeps its descriptors. Write the rest of `data`, if any, with a plain write.
    /// Without `fds` this is a plain write.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `data` is empty and `fds` is not, or for more than [`MAX_FDS`]
    /// descriptors; else the error of the write. The peer then received none of them.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has sent nothing.
    fn send_with_fds(
        &self,
        data: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> impl Future<Output = io::Result<usize>> + Send;

    /// Reads data, and at most `limit` descriptors that came with it.
    ///
    /// The descriptors are close-on-exec. Zero bytes mean end of file. The list is empty if the
    /// peer sent no descriptors.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the buffer is empty, or for a `limit` above [`MAX_FDS`]. `InvalidData` if
    /// more than `limit` descriptors came, or if this process has no room for them: all of them are
    /// closed, and the data that they came with is lost. If there is no room, systems other than
    /// Linux may report an error of their own. Else the error of the read.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has received nothing.
    fn recv_with_fds(
        &self,
        buf: &mut [u8],
        limit: usize,
    ) -> impl Future<Output = io::Result<(usize, Vec<OwnedFd>)>> + Send;
}

#[cfg(feature = "tokio")]
impl AsyncPassFds for Stream {
    async fn send_with_fds(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        check_send(data, fds)?;
        self.inner.only_socket()?;
        self.inner.write_by(|socket| send(socket, data, fds, platform::NO_SIGNAL)).await
    }

    async fn recv_with_fds(
        &self,
        buf: &mut [u8],
        limit: usize,
    ) -> io::Result<(usize, Vec<OwnedFd>)> {
        check_receive(buf, limit)?;
        self.inner.only_socket()?;
        let read = |socket: BorrowedFd<'_>| receive(socket, buf, RecvFlags::empty());
        self.inner.read_by(read).await?.into_result(limit)
    }
}

fn check_send(data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if data.is_empty() && !fds.is_empty() {
        return Err(invalid("descriptors need at least one byte to go with"));
    }
    if fds.len() > platform::FDS_TO_SEND {
        let (most, count) = (platform::FDS_TO_SEND, fds.len());
        return Err(invalid(&format!(
            "{count} descriptors exceed the limit of {most} for one message"
        )));
    }
    Ok(())
}

fn check_receive(buf: &[u8], limit: usize) -> io::Result<()> {
    if buf.is_empty() {
        return Err(invalid("descriptors come with at least one byte, and the buffer is empty"));
    }
    check_count(limit)
}

fn check_count(count: usize) -> io::Result<()> {
    if count > MAX_FDS {
        return Err(invalid(&format!(
            "{count} descriptors exceed the limit of {MAX_FDS} for one message"
        )));
    }
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what)
}

/// The result of one read, empty at end of file.
#[derive(Default)]
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) fds: Vec<OwnedFd>,
    truncated: bool,
}

impl Received {
    fn into_result(self, limit: usize) -> io::Result<(usize, Vec<OwnedFd>)> {
        // Truncated: the process had no room for all of them.
        if self.truncated || self.fds.len() > limit {
            let what = format!(
                "the peer sent more descriptors than the {limit} asked for, or than this process \
                 has room for; all were closed"
            );
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        Ok((self.length, self.fds))
    }
}

pub(super) fn send(
    socket: BorrowedFd<'_>,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<usize, Errno> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let mut send = || sendmsg(socket, &[IoSlice::new(at_most(data))], &mut control, flags);
    match send() {
        Err(Errno::MSGSIZE) if platform::A_FULL_SOCKET_IS_EMSGSIZE && !fds.is_empty() => {
            // If the socket has room by now, and the second attempt still fails, it can never
            // succeed.
            if is_writable(socket)? { send() } else { Err(Errno::AGAIN) }
        }
        sent => sent,
    }
}

fn is_writable(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut writable = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    Ok(poll(&mut writable, Some(&Timespec::default()))? > 0)
}

/// Receives the bytes of one message, and all of its descriptors. Descriptors that are not used are
/// closed when the control buffer, or the result, is dropped.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: RecvFlags,
) -> Result<Received, Errno> {
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = flags | platform::CLOSE_ON_EXEC;
    let mut message = recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, flags);
    let mut truncated = false;
    if platform::READS_INSTALL_DESCRIPTORS && matches!(message, Err(Errno::MSGSIZE)) {
        // The descriptors are gone. Treat their bytes like those of a truncated message.
        truncated = true;
        message = recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, flags);
    }
    let message = message?;
    truncated |= message.flags.contains(ReturnFlags::CTRUNC);
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    for fd in &fds {
        platform::close_on_exec(fd)?;
    }
    Ok(Received { length: message.bytes, fds, truncated })
}
