//! What Linux has of its own. The file of the other systems lists the same items.
#![allow(unsafe_code, reason = "a socket option and a function of the allocator without wrappers")]

mod boundary;

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::Pid;

pub use self::boundary::{bytes_ahead, receive};
pub use super::receive::Received;
use crate::os::chunk::CHUNK;

/// Of the kernel's `asm/socket.h`.
const SO_PASSRIGHTS: libc::c_int =
    if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 92 } else { 83 };

/// What is spliced at a time, at most.
const PIPE: usize = 256 * 1024;

/// Makes the kernel refuse descriptors to the peer. Before Linux 6.16 it cannot.
pub fn refuse_descriptors(socket: impl AsFd) -> bool {
    let off: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the option's value is a number that
    // lives as long as the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    done == 0
}

/// Gives memory that was freed back to the system.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether something is mounted at the path.
pub fn is_mount_point(path: &Path) -> bool {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// A child that has ended and not been waited for.
pub fn ended_child() -> Option<Pid> {
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: there is room for the result.
    let done = unsafe { libc::waitid(libc::P_ALL, 0, found.as_mut_ptr(), look) };
    // SAFETY: numbers and pointers that may be null, and all of them may be zero, as they were
    // before.
    let found = unsafe { found.assume_init() };
    // SAFETY: the call fills in this field, or leaves it zero.
    let pid = unsafe { found.si_pid() };
    if done == 0 { Pid::from_raw(pid) } else { None }
}

/// What bytes go through that are spliced from a socket to another.
pub struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
}

impl Pipe {
    pub fn new() -> io::Result<Self> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // As far as the user's share goes; else it has the usual size.
        let _ = fcntl_setpipe_size(&from, PIPE);
        Ok(Self { from, to })
    }

    /// Fills it from the socket. `None`: there is nothing, too little to be worth it, or the end.
    pub fn fill(&self, socket: BorrowedFd<'_>, most: Option<usize>) -> io::Result<Option<usize>> {
        let most = match most {
            Some(most) if most < CHUNK / 2 => return Ok(None),
            Some(most) => most,
            None => PIPE,
        };
        match splice(socket, None, &self.to, None, most, SpliceFlags::NONBLOCK) {
            Ok(0) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            filled => Ok(Some(filled?)),
        }
    }

    /// Empties it into the socket: at most `length` bytes.
    pub fn empty(&self, socket: BorrowedFd<'_>, length: usize) -> Result<usize, Errno> {
        splice(&self.from, None, socket, None, length, SpliceFlags::NONBLOCK)
    }
}
