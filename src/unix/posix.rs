//! What macOS and the BSDs have in common. Lists the same items as `linux.rs`.

use std::ffi::OsStr;
use std::io;
#[cfg(not(any(target_os = "linux", target_os = "openbsd", target_os = "netbsd")))]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};

#[cfg(feature = "tokio")]
use tokio::io::{Interest, unix::AsyncFd};

use super::peer::Peer;

/// Whose names and directories are used.
pub(super) const SYSTEM: &str = if cfg!(target_vendor = "apple") { "macos" } else { "freebsd" };
/// `sun_path` is 104 bytes with its NUL on macOS and the BSDs.
pub(super) const PATH_LIMIT: usize = 103;
/// On macOS it is an option of the socket, see `prepare`.
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// Not every one of these systems has `MSG_CMSG_CLOEXEC`; see `close_on_exec`.
pub(super) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();
/// How to open a directory in which nothing is listed.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY;
/// Connection refused may also mean that the backlog is full.
pub(super) const REFUSED_MAY_BE_BUSY: bool = true;
/// Whether setsockopt(2) says `EINVAL` of any option once the peer is gone. XNU does, of a socket that
/// can neither send nor receive (`sosetopt`); so does OpenBSD, of the size of a buffer.
pub(super) const GONE_TAKES_NO_OPTIONS: bool = true;
/// Whether a call with `MSG_DONTWAIT` never waits. XNU's send does not look at it (`sosend` asks for
/// `SS_NBIO` and `MSG_NBIO` only), so that a time limit needs a socket that does not block.
#[cfg(feature = "blocking")]
pub(super) const CALLS_CAN_BE_TOLD_NOT_TO_WAIT: bool = false;
/// What the reactor watches a stream for.
#[cfg(feature = "tokio")]
pub(super) const STREAM_INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// The most descriptors in one message: XNU's `UIPC_MAX_CMSG_FD`. On the BSDs a message's control
/// data has 2048 bytes, with room for no more.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;
/// How many probes make a socket dead: a backlog is full for a moment only.
pub(super) const PROBES: u32 = 3;

#[cfg(target_vendor = "apple")]
pub(super) use apple::{listens, user_temp_dir};

#[cfg(not(target_vendor = "apple"))]
pub(super) fn user_temp_dir() -> io::Result<Option<PathBuf>> {
    Ok(None)
}

/// A socket that does not block and that no child inherits.
pub(super) fn socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    Ok(prepare(socket)?)
}

/// Whether the socket is one that listens.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_acceptconn(socket)?)
}

/// Without the peer's address: it is the peer's choice, and nothing here depends on it.
pub(super) fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    prepare(rustix::net::accept(socket)?)
}

// Not every one of these systems takes the flags in the call itself; a child that another thread
// starts between the calls inherits the socket.
fn prepare(socket: OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    no_signals(socket.as_fd())?;
    Ok(socket)
}

/// For a socket that was made elsewhere. One whose peer is gone does not take the option; one that
/// was accepted has it from the socket that listens.
#[cfg_attr(not(target_vendor = "apple"), allow(unused_variables, reason = "each call says so"))]
pub(super) fn no_signals(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    #[cfg(target_vendor = "apple")]
    super::unless_gone(rustix::net::sockopt::set_socket_nosigpipe(socket, true))?;
    Ok(())
}

/// These systems have no out-of-band bytes on a Unix domain socket.
#[cfg(feature = "tokio")]
pub(super) fn may_have_marks(_: &AsyncFd<OwnedFd>) -> bool {
    false
}

/// A descriptor that a peer passed. A child that another thread starts just before inherits it.
pub(super) fn close_on_exec(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl_setfd(fd, FdFlags::CLOEXEC)
}

/// The file's mode is set between `bind` and `listen`: these systems refuse it on a socket.
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

/// Who connected or listened, when that was. Each of these systems has its own way.
pub(super) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    cfg_if::cfg_if! {
        if #[cfg(target_os = "linux")] {
            let [pid, uid, gid] = three(socket, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
        } else if #[cfg(target_os = "openbsd")] {
            let [uid, gid, pid] = three(socket, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
        } else if #[cfg(target_os = "netbsd")] {
            let [pid, uid, gid] = three(socket, 0, libc::LOCAL_PEEREID)?;
        } else {
            let ((uid, gid), pid) = (peer_ids(socket)?, peer_process(socket));
        }
    }
    Ok(Peer { uid, gid, pid: Some(pid).filter(|pid| *pid != 0) })
}

#[cfg(any(target_os = "linux", target_os = "openbsd", target_os = "netbsd"))]
fn three(socket: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<[u32; 3]> {
    let mut numbers = [0; 3];
    super::sockopt::get(socket, level, option, &mut numbers)?;
    Ok(numbers)
}

/// See getpeereid(3).
#[cfg(not(any(target_os = "linux", target_os = "openbsd", target_os = "netbsd")))]
#[allow(unsafe_code, reason = "rustix does not have the call")]
fn peer_ids(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let (mut uid, mut gid) = (0, 0);
    let socket = socket.as_raw_fd();
    // SAFETY: the descriptor is borrowed, so it is open, and the others are places for one number
    // each.
    let done = unsafe { libc::getpeereid(socket, &raw mut uid, &raw mut gid) };
    if done == 0 { Ok((uid, gid)) } else { Err(io::Error::last_os_error()) }
}

/// `LOCAL_PEERPID`, at the level `SOL_LOCAL`.
#[cfg(target_vendor = "apple")]
fn peer_process(socket: BorrowedFd<'_>) -> u32 {
    let mut process = [0];
    match super::sockopt::get(socket, 0, libc::LOCAL_PEERPID, &mut process) {
        Ok(_) => process[0],
        Err(_) => 0,
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "openbsd",
    target_os = "netbsd",
    target_vendor = "apple"
)))]
fn peer_process(_: BorrowedFd<'_>) -> u32 {
    0
}

pub(super) fn peer_groups(_: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let what = "this system does not tell a peer's groups";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

pub(super) fn peer_pidfd(_: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no descriptors of processes"))
}

/// Nothing to do: cleaners of these systems ask for locks, or for nothing.
pub(super) fn keep(_: &OwnedFd) {}

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

#[cfg(target_vendor = "apple")]
mod apple {
    use std::ffi::OsString;
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use super::super::sockopt::get;

    /// The user's own temporary directory, mode 0700: confstr(3), `_CS_DARWIN_USER_TEMP_DIR`.
    /// Not `$TMPDIR`, which server and client need not share.
    pub(in crate::unix) fn user_temp_dir() -> io::Result<Option<PathBuf>> {
        let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
        let length = confstr(libc::_CS_DARWIN_USER_TEMP_DIR, &mut buffer);
        if length == 0 {
            return Err(io::Error::last_os_error());
        }
        // The length counts the NUL, and what would not fit.
        buffer.truncate(length.min(buffer.len()).saturating_sub(1));
        Ok(Some(OsString::from_vec(buffer).into()))
    }

    /// Whether the socket is one that listens: `SO_ACCEPTCONN`, getsockopt(2). rustix does not have
    /// the option on this system.
    pub(in crate::unix) fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut value = [0];
        get(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &mut value)?;
        Ok(value != [0])
    }

    #[allow(unsafe_code, reason = "rustix has no confstr")]
    fn confstr(name: libc::c_int, buffer: &mut [u8]) -> usize {
        // SAFETY: the pointer and the length are those of one live, writable slice, and `confstr`
        // writes at most that many bytes.
        unsafe { libc::confstr(name, buffer.as_mut_ptr().cast(), buffer.len()) }
    }
}
