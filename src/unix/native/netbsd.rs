//! The constants and calls that only NetBSD has.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use super::super::peer::Peer;
use super::super::sockopt::get;

/// The system whose rules for names and directories apply.
pub(in crate::unix) const SYSTEM: &str = "netbsd";
/// The flags to open a directory whose entries are not listed.
pub(in crate::unix) const DIRECTORY: OFlags = OFlags::from_bits_retain(libc::O_SEARCH as u32);
/// No other control data comes before descriptors.
pub(in crate::unix) const ROOM_FOR_CREDENTIALS: usize = 0;

/// Nothing to do: each call has a flag for it.
pub(in crate::unix) fn no_signals(_: BorrowedFd<'_>) -> Result<(), Errno> {
    Ok(())
}

/// Returns the credentials that the peer had when it connected or listened: `LOCAL_PEEREID`, at
/// level 0, a `struct unpcbid`.
pub(in crate::unix) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut numbers = [0; 3];
    get(socket, 0, libc::LOCAL_PEEREID, &mut numbers)?;
    let [pid, uid, gid] = numbers;
    Ok(Peer { uid, gid, pid: NonZeroU32::new(pid) })
}

pub(in crate::unix) fn peer_groups(_: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let what = "this system does not report a peer's groups";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

pub(in crate::unix) fn user_temp_dir() -> Option<PathBuf> {
    None
}

/// Always `false`: this system has access control lists of its own.
pub(in crate::unix) fn is_private_group(_: &OwnedFd, _: &Stat) -> bool {
    false
}
