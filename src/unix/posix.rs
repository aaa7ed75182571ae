//! What macOS and the BSDs have in common. Lists the same items as `linux.rs`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, renameat};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType};

use crate::endpoint::resolve::Family;

pub(super) const FAMILY: Family =
    if cfg!(target_vendor = "apple") { Family::Apple } else { Family::Bsd };
/// `sun_path` is 104 bytes with its NUL on macOS and the BSDs.
pub(super) const PATH_LIMIT: usize = 103;
/// On macOS it is an option of the socket, see `prepare`.
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// How to open a directory in which nothing is listed.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY;
/// Connection refused may also mean that the backlog is full.
pub(super) const REFUSED_MAY_BE_BUSY: bool = true;
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
    #[cfg(target_vendor = "apple")]
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    Ok(socket)
}

/// The file's mode is set between `bind` and `listen`: these systems refuse it on a socket.
pub(super) fn set_mode_to_be(_: &OwnedFd, _: Mode) -> io::Result<()> {
    Ok(())
}

/// There is no way around a long path.
pub(super) fn short_path(_: &OwnedFd, _: &OsStr) -> Option<PathBuf> {
    None
}

/// Not reached: no endpoint resolves to one here.
pub(super) fn abstract_address(_: &str) -> io::Result<SocketAddrUnix> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no user namespaces.
pub(super) fn is_unmapped(_: u32) -> bool {
    false
}

pub(super) fn peer_groups(_: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let what = "this system does not tell a peer's groups";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

pub(super) fn peer_pidfd(_: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no descriptors of processes"))
}

/// These systems cannot rename without replacing. Our lock still keeps out those who take it.
pub(super) fn rename_new(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
    renameat(dir, from, dir, to)
}

#[cfg(target_vendor = "apple")]
mod apple {
    use std::ffi::OsString;
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

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

    /// Whether the socket is one that listens: `SO_ACCEPTCONN`, getsockopt(2).
    #[allow(unsafe_code, reason = "rustix does not have the option on this system")]
    pub(in crate::unix) fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut value: libc::c_int = 0;
        let mut bytes = size_of::<libc::c_int>() as libc::socklen_t;
        let (to, socket) = ((&raw mut value).cast(), socket.as_raw_fd());
        // SAFETY: the descriptor is borrowed, so it is open; `to` and `bytes` are the place and the
        // size of one number, and the system writes no more than that.
        let done = unsafe {
            libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, to, &raw mut bytes)
        };
        if done == 0 { Ok(value != 0) } else { Err(io::Error::last_os_error()) }
    }

    #[allow(unsafe_code, reason = "rustix has no confstr")]
    fn confstr(name: libc::c_int, buffer: &mut [u8]) -> usize {
        // SAFETY: the pointer and the length are those of one live, writable slice, and `confstr`
        // writes at most that many bytes.
        unsafe { libc::confstr(name, buffer.as_mut_ptr().cast(), buffer.len()) }
    }
}
