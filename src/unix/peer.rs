//! The credentials of the peer, as the kernel recorded them when the connection was made.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;

use rustix::process::{getegid, geteuid};

use super::platform;
use crate::peer::{PeerCredentials, UserId};

/// Effective ids, and the process id if the system reports it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: Option<NonZeroU32>,
}

impl Peer {
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        platform::peer(socket)
    }

    /// Returns the credentials of both ends of a pair, which not every system reports (NetBSD).
    pub(super) fn this_process() -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Self { uid, gid, pid: NonZeroU32::new(std::process::id()) }
    }

    pub(super) fn process(self) -> Option<u32> {
        self.pid.map(NonZeroU32::get)
    }

    pub(super) fn credentials(self) -> PeerCredentials {
        PeerCredentials::new(UserId::Uid(self.uid), Some(self.gid), self.process())
    }
}
