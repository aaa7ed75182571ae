//! Takes the place of `linux.rs` on the other systems.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

pub use super::receive::Received;

/// Receives what comes next: either bytes without descriptors, or descriptors and the bytes they
/// came with. These systems keep the two apart.
pub fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Received, Errno> {
    Received::with_descriptors(socket, room)
}

/// These systems do not report it.
pub fn bytes_ahead(_: BorrowedFd<'_>, _: &mut [u8]) -> Result<usize, Errno> {
    Ok(0)
}

/// These systems cannot reject descriptors.
pub fn refuse_descriptors(_: impl AsFd) -> bool {
    false
}

/// Nothing to do: the allocator decides.
pub fn give_back_memory() {}

/// These systems cannot mount on a file.
pub fn is_mount_point(_: &Path) -> bool {
    false
}

/// Always `None`: this program is never the first process of these systems.
pub fn ended_child() -> Option<Pid> {
    None
}

/// These systems cannot splice from one socket to another.
pub enum Pipe {}

impl Pipe {
    pub fn new() -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn fill(&self, _: BorrowedFd<'_>, _: Option<usize>) -> io::Result<Option<usize>> {
        match *self {}
    }

    pub fn empty(&self, _: BorrowedFd<'_>, _: usize) -> Result<usize, Errno> {
        match *self {}
    }
}
