//! Sockets that were created elsewhere. They are verified before use, and never unlinked.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::sockopt::socket_type;
use rustix::net::{SocketType, listen};

use super::claim::backlog_of;
use super::peer::Peer;
use super::platform;
use super::sockname::SockName;
use crate::endpoint::{Endpoint, Form};
use crate::error::{Error, Operation, Reason};

/// Verifies that `socket` listens, prepares it, and returns its address.
pub(super) fn check_listener(socket: BorrowedFd<'_>) -> io::Result<Endpoint> {
    let endpoint = address(socket)?;
    ready(socket)?;
    Ok(endpoint)
}

/// Makes the system report this process's present user to clients as the server: it remembers the
/// user of the last listen(2).
pub(super) fn listen_again(socket: BorrowedFd<'_>, backlog: Option<u32>) -> io::Result<()> {
    Ok(listen(socket, backlog_of(backlog))?)
}

/// Returns the address of a listening `socket`.
pub(super) fn address(socket: BorrowedFd<'_>) -> io::Result<Endpoint> {
    let name = check(socket).map_err(wrong)?;
    if !platform::listens(socket)? {
        return Err(wrong("it does not listen").into());
    }
    let no_name = "it has no name, or one that cannot be written";
    endpoint(&name).ok_or_else(|| wrong(no_name).into())
}

pub(super) fn is_connected(socket: BorrowedFd<'_>) -> bool {
    check(socket).is_ok() && has_or_had_peer(socket)
}

/// Verifies that `socket` is connected, and prepares it.
pub(super) fn check_stream(socket: BorrowedFd<'_>) -> io::Result<()> {
    usable(socket).map_err(|why| wrong(why).in_operation(Operation::Adopt))?;
    ready(socket)
}

/// The same for `socket` from the standard input.
pub(super) fn check_input(socket: BorrowedFd<'_>) -> io::Result<()> {
    usable(socket).map_err(|why| {
        let cause = format!("unusable standard input: {why}");
        let error = Error::new(Reason::UnusableDescriptor, cause).in_operation(Operation::Adopt);
        error.advising("start this program with Stream::pair_with_child")
    })?;
    ready(socket)
}

/// Returns why `socket` cannot be a stream, if it cannot.
fn usable(socket: BorrowedFd<'_>) -> Result<(), &'static str> {
    check(socket)?;
    if has_or_had_peer(socket) { Ok(()) } else { Err("it is not connected") }
}

/// Also true if the peer is gone, because its data can still be read.
fn has_or_had_peer(socket: BorrowedFd<'_>) -> bool {
    // The kernel knows the peer's credentials for as long as the socket is open.
    let had = || matches!(platform::listens(socket), Ok(false)) && Peer::of(socket).is_ok();
    SockName::peer(socket).is_ok() || platform::A_GONE_PEER_HAS_NO_NAME && had()
}

/// Whether the name of a listener that does not own it still leads to a socket. Without connecting,
/// no one can know whose socket that is.
pub(super) fn is_published(socket: BorrowedFd<'_>) -> bool {
    match SockName::own(socket).ok().as_ref().and_then(endpoint) {
        Some(Endpoint(Form::Path(path))) => path.exists(),
        Some(_) => true,
        None => false,
    }
}

/// Returns the name of a Unix stream socket, or why `socket` is none.
fn check(socket: BorrowedFd<'_>) -> Result<SockName, &'static str> {
    let name = SockName::own(socket).map_err(|_| "it is not a socket")?;
    if !name.is_unix() {
        return Err("it is not a Unix domain socket");
    }
    if socket_type(socket) != Ok(SocketType::STREAM) {
        return Err("it is not a stream socket");
    }
    Ok(name)
}

fn ready(socket: BorrowedFd<'_>) -> io::Result<()> {
    fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    platform::no_signals(socket)?;
    ioctl_fionbio(socket, true)?;
    Ok(())
}

fn endpoint(name: &SockName) -> Option<Endpoint> {
    if let Some(path) = name.path() {
        let path = Path::new(OsStr::from_bytes(path));
        return Endpoint::try_from(path).ok();
    }
    name.after_nul().map(|name| Endpoint(Form::Abstract(name.to_owned())))
}

fn wrong(why: &str) -> Error {
    Error::new(Reason::UnusableDescriptor, format!("unusable descriptor: {why}"))
}
