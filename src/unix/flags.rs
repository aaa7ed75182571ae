//! Creates and accepts sockets that are nonblocking and close-on-exec from the start. All systems
//! but macOS accept these flags in the call itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, accept_with, socket_with};

/// Marks the descriptors that a peer passes.
pub(super) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

pub(super) fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?)
}

/// Does not ask for the peer's address: the peer chooses it, and nothing here depends on it.
pub(super) fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    accept_with(socket, FLAGS)
}

/// Nothing to do: the call that received the descriptor has marked it.
pub(super) fn close_on_exec(_: &OwnedFd) -> Result<(), Errno> {
    Ok(())
}

/// Makes `to` refer to the same open file as `from`.
#[cfg(feature = "blocking")]
pub(super) fn put_over(from: &OwnedFd, to: &mut OwnedFd) -> Result<(), Errno> {
    rustix::io::dup3(from, to, rustix::io::DupFlags::CLOEXEC)
}
