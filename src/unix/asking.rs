//! Checks whether a process holds a lock without taking it, so that a checking process that is
//! suspended blocks no other.
//!
//! flock(2) has no such question. On Linux the holder has a second lock on the same descriptor, one
//! of an open file description (`F_OFD_SETLK`), which keeps nobody out, for the two kinds do not
//! see each other; and others can ask for it. On macOS and the BSDs `F_GETLK` sees flock's own.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        const ASK: libc::c_int = libc::F_OFD_GETLK;

        /// Lets others ask. Where the system has no such lock they ask by another way.
        pub(super) fn let_ask(file: &OwnedFd) {
            let _ = fcntl(file, libc::F_OFD_SETLK);
        }
    } else {
        const ASK: libc::c_int = libc::F_GETLK;

        /// Nothing to do.
        pub(super) fn let_ask(_: &OwnedFd) {}
    }
}

/// Whether the lock on `file` is held by another.
pub(super) fn is_held(file: &OwnedFd) -> Result<bool, Errno> {
    match fcntl(file, ASK) {
        Ok(kind) => Ok(kind != libc::F_UNLCK as libc::c_short),
        // Shared for a moment with others who ask. A holder shares it with nobody.
        Err(errno) if has_no_question(errno) => {
            match flock(file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => flock(file, FlockOperation::Unlock).map(|()| false),
                Err(Errno::WOULDBLOCK) => Ok(true),
                Err(errno) => Err(errno),
            }
        }
        Err(errno) => Err(errno),
    }
}

/// Whether nobody has to hold the lock on `file` to ask about it.
pub(super) fn holds_nothing(file: &OwnedFd) -> bool {
    !matches!(fcntl(file, ASK), Err(errno) if has_no_question(errno))
}

fn has_no_question(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// `operation` with a lock for writing on the whole file; gives the kind of lock that comes back.
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
