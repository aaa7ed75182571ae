//! How XNU behaves, the kernel of macOS and iOS. Together with `posix.rs` this lists the same items
//! as `linux.rs`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

pub(super) use super::posix::*;

/// Newer kernels support this flag. Older ones ignore unknown flags; for them `prepare` sets an
/// option of the socket.
pub(super) const NO_SIGNAL: SendFlags = SendFlags::from_bits_retain(libc::MSG_NOSIGNAL as u32);
/// There is no `MSG_CMSG_CLOEXEC`; see `close_on_exec`.
pub(super) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();
/// Whether a call with `MSG_DONTWAIT` never waits. XNU's send ignores that flag (`sosend` checks
/// `SS_NBIO` and `MSG_NBIO` only), so a write with a time limit needs a nonblocking socket.
#[cfg(feature = "blocking")]
pub(super) const DONTWAIT_IS_HONORED: bool = false;
/// The most descriptors in one message: `UIPC_MAX_CMSG_FD`.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;
/// Whether a read installs the descriptors that came with its bytes even if its caller has no room
/// for them (`soreceive` always calls `dom_externalize`). If the process's table is full, the read
/// fails with `EMSGSIZE`: the descriptors are lost, and the bytes remain.
pub(super) const READS_INSTALL_DESCRIPTORS: bool = true;
/// Whether accept(2) drops the client if the process has no free descriptor: see `accept`.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_DROPS_CLIENTS: bool = true;
/// Whether sendmsg(2) with descriptors fails with `EMSGSIZE` where one without them fails with
/// `EAGAIN`. XNU compares the descriptors' size with a limit that `uipc_send` lowers by the bytes
/// that the peer has not read.
pub(super) const A_FULL_SOCKET_IS_EMSGSIZE: bool = true;
/// Whether the system silently caps a buffer size above its maximum (`kern.ipc.maxsockbuf`). A
/// socket that has the maximum already, as a listener's clients then do, refuses such a size.
pub(super) const SIZES_ARE_CUT: bool = true;
/// The error of open(2) with `O_NOFOLLOW` for a symbolic link.
pub(super) const NOT_FOLLOWED: Errno = Errno::LOOP;
/// The most descriptors that one send takes: XNU would take 254, and Linux takes 253.
pub(super) const FDS_TO_SEND: usize = 253;

/// Creates a nonblocking socket that no child inherits.
pub(super) fn socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    Ok(prepare(socket)?)
}

/// Does not ask for the peer's address: the peer chooses it, and nothing here depends on it.
///
/// The kernel removes a client from the queue before it looks for a free descriptor, and closes the
/// client if there is none. This function therefore checks first that one is free. Another thread
/// can still take it in between.
pub(super) fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    drop(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?);
    prepare(rustix::net::accept(socket)?)
}

// The calls themselves take no flags, so a child that another thread starts between them inherits
// the socket.
fn prepare(socket: OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    no_signals(socket.as_fd())?;
    Ok(socket)
}

/// Marks a descriptor that a peer passed. A child that another thread starts just before inherits
/// it.
pub(super) fn close_on_exec(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl_setfd(fd, FdFlags::CLOEXEC)
}

/// Between the two calls, a child that another thread starts inherits the descriptor.
#[cfg(feature = "blocking")]
pub(super) fn put_over(from: &OwnedFd, to: &mut OwnedFd) -> Result<(), Errno> {
    rustix::io::dup2(from, to)?;
    fcntl_setfd(to, FdFlags::CLOEXEC)
}
