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
/// Whether a call with `MSG_DONTWAIT` never waits. XNU's send does not look at it (`sosend` asks
/// for `SS_NBIO` and `MSG_NBIO` only), so that a time limit needs a socket that does not block.
#[cfg(feature = "blocking")]
pub(super) const CALLS_CAN_BE_TOLD_NOT_TO_WAIT: bool = false;
/// The most descriptors in one message: `UIPC_MAX_CMSG_FD`.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;
/// Whether a read puts descriptors that came with its bytes into the table, room for them or not
/// (`soreceive` calls `dom_externalize` in any case). Where the table is full it says `EMSGSIZE`:
/// then they are gone, and the bytes are still there.
pub(super) const READS_INSTALL_DESCRIPTORS: bool = true;
/// Whether accept(2) drops a client that it finds no descriptor for: see `accept`.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_DROPS_CLIENTS: bool = true;
/// Whether sendmsg(2) says `EMSGSIZE` of descriptors where it says `EAGAIN` of bytes: it compares
/// them with a size that `uipc_send` lowers by what the peer has not read.
pub(super) const A_FULL_SOCKET_IS_EMSGSIZE: bool = true;
/// Whether a buffer that is larger than can be (`kern.ipc.maxsockbuf`) is made as large as can be,
/// without an error. A socket with the largest one, as a listener's clients have it then, refuses
/// it.
pub(super) const SIZES_ARE_CUT: bool = true;
/// What open(2) says of a link where none is to be followed.
pub(super) const NOT_FOLLOWED: Errno = Errno::LOOP;
/// The most descriptors that a message takes: 254, and as many as Linux's.
pub(super) const FDS_TO_SEND: usize = 253;

/// A socket that does not block and that no child inherits.
pub(super) fn socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    Ok(prepare(socket)?)
}

/// Without the peer's address: it is the peer's choice, and nothing here depends on it.
///
/// The kernel takes a client off the queue, then looks for a descriptor, and closes the client
/// where there is none. So one is made sure of first; another thread can still take it in between.
pub(super) fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    drop(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?);
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

/// A child that another thread starts between the two calls inherits it.
#[cfg(feature = "blocking")]
pub(super) fn put_over(from: &OwnedFd, to: &mut OwnedFd) -> Result<(), Errno> {
    rustix::io::dup2(from, to)?;
    fcntl_setfd(to, FdFlags::CLOEXEC)
}
