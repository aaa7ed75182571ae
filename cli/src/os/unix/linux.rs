//! Functions that only Linux has. `posix.rs`, the file of the other systems, lists the same items.
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

/// The value of the kernel's `asm/socket.h`.
const SO_PASSRIGHTS: libc::c_int =
    if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 92 } else { 83 };

/// The most bytes of one splice.
const PIPE: usize = 256 * 1024;

/// Makes the kernel reject descriptors from the peer. Returns `false` before Linux 6.16, which
/// cannot do that.
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
    // SAFETY: the call has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether something is mounted at the path.
pub fn is_mount_point(path: &Path) -> bool {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Returns a child that has ended and was not waited for.
pub fn ended_child() -> Option<Pid> {
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `found` has room for the result.
    let done = unsafe { libc::waitid(libc::P_ALL, 0, found.as_mut_ptr(), look) };
    // SAFETY: the structure is numbers and pointers that may be null, so the zeros that it started
    // with are valid.
    let found = unsafe { found.assume_init() };
    // SAFETY: the call fills in this field, or leaves it zero.
    let pid = unsafe { found.si_pid() };
    if done == 0 { Pid::from_raw(pid) } else { None }
}

/// The pipe that bytes pass through when they are spliced from one socket to another.
pub struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
}

impl Pipe {
    pub fn new() -> io::Result<Self> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // This fails beyond the user's share of pipe memory. The pipe then keeps its usual size.
        let _ = fcntl_setpipe_size(&from, PIPE);
        Ok(Self { from, to })
    }

    /// Fills the pipe from the socket. Returns `None` if there are no bytes, if there are too few
    /// to be worth it, or at end of file.
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

    /// Moves at most `length` bytes from the pipe to the socket.
    pub fn empty(&self, socket: BorrowedFd<'_>, length: usize) -> Result<usize, Errno> {
        splice(&self.from, None, socket, None, length, SpliceFlags::NONBLOCK)
    }
}
