//! Behavior that macOS and the BSDs share.

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
use super::runtime::NameEvent;
use super::sockopt::get;

/// `sun_path` has 104 bytes, including the NUL.
pub(super) const PATH_LIMIT: usize = 103;
/// Whether shutting down the socket ends accept(2) in every thread. XNU refuses the shutdown.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_ENDS_AT_SHUTDOWN: bool = false;
/// A refused connection may also mean that the backlog is full.
pub(super) const REFUSED_MAY_BE_BUSY: bool = true;
/// Whether setsockopt(2) fails with `EINVAL` for any option once the peer is gone. XNU does so if a
/// socket can neither send nor receive (`sosetopt`); OpenBSD does so for the size of a buffer.
pub(super) const OPTIONS_FAIL_WITHOUT_PEER: bool = true;
/// Whether a socket whose peer is gone reports no peer name, as if it had never been connected.
/// When its peer closes, it loses `SS_ISCONNECTED` (`unp_disconnect`).
pub(super) const A_GONE_PEER_HAS_NO_NAME: bool = true;
/// The most bytes that one call takes. A call with more fails as a whole.
pub(super) const MOST: usize = i32::MAX as usize;
/// The events that the reactor watches a stream for.
#[cfg(feature = "tokio")]
pub(super) const STREAM_INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Whether reads may end early in the stream without any sign of it. Control data begins a record
/// of its own, and no read reaches from one record into the next. Linux instead ends a read behind
/// such data, and reports that there was some.
#[cfg(feature = "tokio")]
pub(super) fn may_have_marks(_: &AsyncFd<OwnedFd>) -> bool {
    true
}

/// Nothing to do yet: the mode of the file is set between `bind` and `listen`.
pub(super) fn set_mode_to_be(_: &OwnedFd, _: Mode) {}

/// [`short_path`] never returns a path here.
pub(super) const NO_SHORT_PATH: &str = "";

/// These systems have no way around a long path.
pub(super) fn short_path(_: &OwnedFd, _: &OsStr) -> Option<PathBuf> {
    None
}

/// Not reached: no endpoint resolves to an abstract socket here.
pub(super) fn abstract_address(_: &[u8]) -> io::Result<SocketAddrUnix> {
    Err(io::ErrorKind::Unsupported.into())
}

/// These systems have no user namespaces.
pub(super) fn is_unmapped(_: u32) -> bool {
    false
}

pub(super) fn peer_pidfd(_: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no descriptors of processes"))
}

/// Nothing to do: the cleaners of these systems respect locks, or nothing at all.
pub(super) fn keep(_: &OwnedFd) {}

/// These systems cannot mount on a socket.
pub(super) fn is_mount_point(_: &Path) -> bool {
    false
}

/// These systems report no events: the listener's regular checks notice a removed name.
#[cfg(feature = "tokio")]
pub(super) fn name_events(_: &Path, _: bool) -> Vec<NameEvent> {
    Vec::new()
}

/// These systems do not report it.
pub(super) fn is_bound(_: &Path, _: &Stat) -> Option<bool> {
    None
}

/// These systems do not report it. A peer counts as gone once nothing can be sent or received.
pub(super) fn has_peer(_: u64) -> bool {
    false
}

/// These systems have no single call for it.
pub(super) fn close_on_exec_from(_: RawFd, _: RawFd) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// These systems cannot create a file without a name.
pub(super) fn unlinked_file(_: &Path) -> Option<OwnedFd> {
    None
}

pub(super) fn memory_file() -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no files in memory"))
}

/// Whether the socket listens.
pub(super) fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0];
    match get(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &mut value) {
        Ok(_) => Ok(value != [0]),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(refuses_all(socket)),
        Err(error) => Err(error),
    }
}

/// The same for a kernel without the option, such as macOS's and OpenBSD's older ones. A listening
/// socket cannot connect, and reports that before it looks at the address; any other socket reports
/// a bad address. A sandbox hides both errors: then the first accept finds that the socket does not
/// listen.
fn refuses_all(socket: BorrowedFd<'_>) -> bool {
    matches!(connect_to_nothing(socket), Errno::OPNOTSUPP | Errno::PERM)
}

/// Connects to an address without a name. No socket has it, so the call always fails.
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
