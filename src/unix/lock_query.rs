//! Checks whether a process holds a lock without taking it, so that a checking process that is
//! suspended blocks no other.
//!
//! flock(2) has no such query. On Linux the holder therefore takes a second lock on the same open
//! file (`F_OFD_SETLK`), which others can query. It conflicts with no flock, because the two kinds
//! do not see each other. On macOS and the BSDs `F_GETLK` sees flock's own locks.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        const GET_LOCK: libc::c_int = libc::F_OFD_GETLK;

        /// Lets other processes query the lock. If the system lacks this kind of lock, they use the
        /// shared lock in [`is_held`].
        pub(super) fn allow_queries(file: &OwnedFd) {
            let _ = fcntl(file, libc::F_OFD_SETLK);
        }
    } else {
        const GET_LOCK: libc::c_int = libc::F_GETLK;

        /// Nothing to do: others can query flock's own lock.
        pub(super) fn allow_queries(_: &OwnedFd) {}
    }
}

/// Whether another process holds the lock on `file`.
pub(super) fn is_held(file: &OwnedFd) -> Result<bool, Errno> {
    match fcntl(file, GET_LOCK) {
        Ok(kind) => Ok(kind != libc::F_UNLCK as libc::c_short),
        // Take a shared lock for a moment. Others that check can share it; a holder's lock is
        // exclusive.
        Err(errno) if is_unsupported(errno) => {
            match flock(file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => flock(file, FlockOperation::Unlock).map(|()| false),
                Err(Errno::WOULDBLOCK) => Ok(true),
                Err(errno) => Err(errno),
            }
        }
        Err(errno) => Err(errno),
    }
}

/// Whether the lock on `file` can be queried without taking one.
pub(super) fn is_supported(file: &OwnedFd) -> bool {
    !matches!(fcntl(file, GET_LOCK), Err(errno) if is_unsupported(errno))
}

fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// Runs `operation` with a write lock on the whole file, and returns the kind of lock that the
/// kernel fills in.
#[allow(unsafe_code, reason = "rustix has no call for locks of this kind")]
fn fcntl(file: &OwnedFd, operation: libc::c_int) -> Result<libc::c_short, Errno> {
    // SAFETY: a `struct flock` is integers only, for which zeros are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is borrowed, so it is open, and these operations read and write one
    // `struct flock`, which `lock` is.
    match unsafe { libc::fcntl(file.as_raw_fd(), operation, &raw mut lock) } {
        -1 => Err(last_error()),
        _ => Ok(lock.l_type),
    }
}

fn last_error() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
