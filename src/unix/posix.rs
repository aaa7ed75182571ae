//! What macOS and the BSDs have in common.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, Stat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
#[cfg(feature = "tokio")]
use tokio::io::{Interest, unix::AsyncFd};

pub(super) use super::native::{
    DIRECTORY, Heard, ROOM_FOR_CREDENTIALS, SYSTEM, is_private_group, no_signals, peer,
    peer_groups, user_temp_dir, watch_for_hangup,
};
#[cfg(feature = "tokio")]
use super::runtime::Tidings;
use super::sockopt::get;

/// `sun_path` is 104 bytes with its NUL.
pub(super) const PATH_LIMIT: usize = 103;
/// Whether accept(2) ends in every thread when the socket is shut down. XNU refuses to.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_ENDS_AT_SHUTDOWN: bool = false;
/// Connection refused may also mean that the backlog is full.
pub(super) const REFUSED_MAY_BE_BUSY: bool = true;
/// How many probes make a socket dead: a backlog is full for a moment only.
pub(super) const PROBES: u32 = 3;
/// Whether setsockopt(2) says `EINVAL` of any option once the peer is gone. XNU does, of a socket
/// that can neither send nor receive (`sosetopt`); so does OpenBSD, of the size of a buffer.
pub(super) const GONE_TAKES_NO_OPTIONS: bool = true;
/// Whether the name of a peer that is gone cannot be had, as if there never had been one. It loses
/// `SS_ISCONNECTED` as its peer closes (`unp_disconnect`).
pub(super) const A_GONE_PEER_HAS_NO_NAME: bool = true;
/// The most bytes of one call. More is refused whole.
pub(super) const MOST: usize = i32::MAX as usize;
/// What the reactor watches a stream for.
#[cfg(feature = "tokio")]
pub(super) const STREAM_INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Whether reads end at a place in the stream without any sign of it. Control data begins a record
/// of its own there, and no read reaches from one record into the next; Linux ends a read behind
/// such data, and reports that there was some.
#[cfg(feature = "tokio")]
pub(super) fn may_have_marks(_: &AsyncFd<OwnedFd>) -> bool {
    true
}

/// Nothing to do before there is a file: its mode is set between `bind` and `listen`.
pub(super) fn set_mode_to_be(_: &OwnedFd, _: Mode) {}

/// There never is a [`short_path`].
pub(super) const NO_SHORT_PATH: &str = "";

/// There is no way around a long path.
pub(super) fn short_path(_: &OwnedFd, _: &OsStr) -> Option<PathBuf> {
    None
}

/// Not reached: no endpoint resolves to one here.
pub(super) fn abstract_address(_: &[u8]) -> io::Result<SocketAddrUnix> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no user namespaces.
pub(super) fn is_unmapped(_: u32) -> bool {
    false
}

pub(super) fn peer_pidfd(_: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no descriptors of processes"))
}

/// Nothing to do: cleaners of these systems ask for locks, or for nothing.
pub(super) fn keep(_: &OwnedFd) {}

/// Sockets are not mounted on here.
pub(super) fn is_mount_point(_: &Path) -> bool {
    false
}

/// None: the looks find out.
#[cfg(feature = "tokio")]
pub(super) fn tidings(_: &Path, _: bool) -> Vec<Tidings> {
    Vec::new()
}

/// Not told here.
pub(super) fn is_bound(_: &Path, _: &Stat) -> Option<bool> {
    None
}

/// Not told here: where nothing can come or go any more, the peer counts as gone.
pub(super) fn has_peer(_: u64) -> bool {
    false
}

/// There is no one call for it.
pub(super) fn close_on_exec_from(_: RawFd, _: RawFd) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// No file of these systems is made without a name.
pub(super) fn unlinked_file(_: &Path) -> Option<OwnedFd> {
    None
}

pub(super) fn memory_file() -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no files in memory"))
}

/// Whether the socket is one that listens.
pub(super) fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0];
    match get(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &mut value) {
        Ok(_) => Ok(value != [0]),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(refuses_all(socket)),
        Err(error) => Err(error),
    }
}

/// The same for a kernel without the option, as macOS's and older ones of OpenBSD. A listening
/// socket cannot connect, and reports that before it looks at the address; any other socket reports
/// a bad address. In a sandbox both are hidden, and a socket that does not listen is found when it
/// is to accept.
fn refuses_all(socket: BorrowedFd<'_>) -> bool {
    matches!(connect_to_nothing(socket), Errno::OPNOTSUPP | Errno::PERM)
}

/// To an address without a name: no socket has it, so that there is an error for sure.
#[allow(unsafe_code, reason = "rustix has no address of this family without a name here")]
fn connect_to_nothing(socket: BorrowedFd<'_>) -> Errno {
    const LENGTH: usize = std::mem::offset_of!(libc::sockaddr, sa_data);
    let address = unix_without_name();
    let socket = socket.as_raw_fd();
    // SAFETY: the descriptor is borrowed, so it is open. `address` is live, and `LENGTH` is no more
    // than its size.
    let _ = unsafe { libc::connect(socket, &raw const address, LENGTH as libc::socklen_t) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

#[allow(unsafe_code, reason = "the fields differ from system to system")]
fn unix_without_name() -> libc::sockaddr {
    // SAFETY: the structure is numbers and arrays of them, for which zero is a value.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::AF_UNIX as libc::sa_family_t;
    address
}
