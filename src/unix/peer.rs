//! Who is at the other end, as the kernel recorded it when the connection was made.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::{getegid, geteuid};

use super::platform;
use crate::peer::{PeerCredentials, UserId};

/// Effective ids, and the process where the system tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: Option<u32>,
}

impl Peer {
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        platform::peer(socket)
    }

    /// Of both ends of a pair: not every system can tell (NetBSD).
    pub(super) fn this_process() -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Self { uid, gid, pid: Some(std::process::id()) }
    }

    pub(super) fn credentials(self) -> PeerCredentials {
        PeerCredentials::new(UserId::Uid(self.uid), Some(self.gid), self.pid)
    }
}
