//! Takes the place of another system's kernel when the code of that system runs on Linux, with
//! `--cfg sockpipe_posix`.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::cmsg_space;
use rustix::fs::OFlags;
use rustix::io::Errno;

pub(in crate::unix) use super::super::epoll::{Heard, watch_for_hangup};
pub(in crate::unix) use super::super::group::has_only_the_owner as is_private_group;
use super::super::peer::Peer;
use super::super::sockopt::get;

/// The system whose rules for names and directories apply.
pub(in crate::unix) const SYSTEM: &str = "freebsd";
pub(in crate::unix) const DIRECTORY: OFlags = OFlags::RDONLY;
/// See `linux.rs`.
pub(in crate::unix) const ROOM_FOR_CREDENTIALS: usize = cmsg_space!(ScmCredentials(1));

pub(in crate::unix) fn no_signals(_: BorrowedFd<'_>) -> Result<(), Errno> {
    Ok(())
}

pub(in crate::unix) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut numbers = [0; 3];
    get(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut numbers)?;
    let [pid, uid, gid] = numbers;
    // Linux reports this for a socket that was never connected; the others report an error.
    if (pid, uid) == (0, u32::MAX) {
        return Err(Errno::NOTCONN.into());
    }
    Ok(Peer { uid, gid, pid: NonZeroU32::new(pid) })
}

pub(in crate::unix) fn peer_groups(_: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let what = "this system does not report a peer's groups";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

pub(in crate::unix) fn user_temp_dir() -> Option<PathBuf> {
    None
}
