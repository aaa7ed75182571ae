//! Sockets that do not block and that no child inherits, from the call that makes them. All systems
//! but macOS take the flags in the call.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, accept_with, socket_with};

/// Of descriptors that a peer passes.
pub(super) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

pub(super) fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?)
}

/// Without the peer's address: it is the peer's choice, and nothing here depends on it.
pub(super) fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    accept_with(socket, FLAGS)
}

/// Nothing to do: they come so.
pub(super) fn close_on_exec(_: &OwnedFd) -> Result<(), Errno> {
    Ok(())
}

/// Makes `to` a descriptor of what `from` is one of.
#[cfg(feature = "blocking")]
pub(super) fn put_over(from: &OwnedFd, to: &mut OwnedFd) -> Result<(), Errno> {
    rustix::io::dup3(from, to, rustix::io::DupFlags::CLOEXEC)
}
