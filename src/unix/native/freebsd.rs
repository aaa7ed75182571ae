//! The constants and calls that only FreeBSD has.

use std::io;
use std::mem::offset_of;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use libc::xucred;
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use super::super::peer::Peer;
use super::xucred::Credentials;

/// The system whose rules for names and directories apply.
pub(in crate::unix) const SYSTEM: &str = "freebsd";
/// The flags to open a directory whose entries are not listed.
pub(in crate::unix) const DIRECTORY: OFlags = OFlags::from_bits_retain(libc::O_SEARCH as u32);
/// No other control data comes before descriptors.
pub(in crate::unix) const ROOM_FOR_CREDENTIALS: usize = 0;

/// Nothing to do: each call has a flag for it.
pub(in crate::unix) fn no_signals(_: BorrowedFd<'_>) -> Result<(), Errno> {
    Ok(())
}

/// Returns the credentials that the peer had when it connected or listened. The process is reported
/// since FreeBSD 13.
pub(in crate::unix) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = Credentials::of(socket)?;
    // The pid is the first member of a union with a pointer, so there is padding before it.
    let pid = credentials.word(offset_of!(xucred, cr_pid__c_anonymous_union));
    let pid = NonZeroU32::new(pid);
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid()?, pid })
}

/// Returns at most 16 groups.
pub(in crate::unix) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    Ok(Credentials::of(socket)?.groups().to_vec())
}

pub(in crate::unix) fn user_temp_dir() -> Option<PathBuf> {
    None
}

/// Always `false`: this system has access control lists of its own.
pub(in crate::unix) fn is_private_group(_: &OwnedFd, _: &Stat) -> bool {
    false
}
