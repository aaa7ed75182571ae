//! How XNU behaves, the kernel of macOS and iOS. Lists the same items as `linux.rs`, with those of
//! `posix.rs`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

pub(super) use super::posix::*;

/// Newer kernels know it. Older ones take no notice of flags that they do not know, and have an
/// option of the socket, see `prepare`.
pub(super) const NO_SIGNAL: SendFlags = SendFlags::from_bits_retain(libc::MSG_NOSIGNAL as u32);
/// There is no `MSG_CMSG_CLOEXEC`; see `close_on_exec`.
pub(super) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();
/// Whether a call with `MSG_DONTWAIT` never waits. XNU's send does not look at it (`sosend` asks for
/// `SS_NBIO` and `MSG_NBIO` only), so that a time limit needs a socket that does not block.
#[cfg(feature = "blocking")]
pub(super) const CALLS_CAN_BE_TOLD_NOT_TO_WAIT: bool = false;
/// The most descriptors in one message: `UIPC_MAX_CMSG_FD`.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;

/// A socket that does not block and that no child inherits.
pub(super) fn socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    Ok(prepare(socket)?)
}

/// Without the peer's address: it is the peer's choice, and nothing here depends on it.
pub(super) fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    prepare(rustix::net::accept(socket)?)
}

// The calls themselves take no flags; a child that another thread starts between them inherits the
// socket.
fn prepare(socket: OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    no_signals(socket.as_fd())?;
    Ok(socket)
}

/// A descriptor that a peer passed. A child that another thread starts just before inherits it.
pub(super) fn close_on_exec(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl_setfd(fd, FdFlags::CLOEXEC)
}
