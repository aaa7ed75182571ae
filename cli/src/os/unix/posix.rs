//! What Linux has of its own, for other systems.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

pub use super::receive::Received;

/// Receives what comes next: bytes without descriptors, or descriptors and the bytes they came
/// with, which these systems keep apart.
pub fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Received, Errno> {
    Received::with_descriptors(socket, room)
}

/// It is not known.
pub fn bytes_ahead(_: BorrowedFd<'_>, _: &mut [u8]) -> Result<usize, Errno> {
    Ok(0)
}

/// No other system refuses descriptors.
pub fn refuse_descriptors(_: impl AsFd) -> bool {
    false
}

/// The allocator decides.
pub fn give_back_memory() {}

/// Files are not mounted here.
pub fn is_mount_point(_: &Path) -> bool {
    false
}

/// The first process is another one here.
pub fn ended_child() -> Option<Pid> {
    None
}

/// Nothing is spliced from a socket to another.
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
