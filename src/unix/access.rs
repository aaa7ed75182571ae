//! Controls who may connect: the mode of the socket, and the same rule for accepted peers.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use rustix::fs::Mode;
use rustix::process::{getegid, geteuid};

use super::peer::Peer;
use super::platform;
use crate::options::{Access, ListenOptions};

#[derive(Clone, Copy, Debug)]
pub(super) struct Permission {
    mode: Mode,
    /// The group to give the socket's file, if one was requested.
    group: Option<u32>,
    /// The group that the file has.
    members: Option<u32>,
}

impl Permission {
    /// # Errors
    ///
    /// `InvalidInput` for the group id that means "no change" to `chown`.
    pub(super) fn checked(options: &ListenOptions) -> io::Result<Self> {
        if options.os.group == Some(u32::MAX) {
            let what = "no group has the number 4294967295; choose one that getent(1) lists";
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        Ok(Self::new(options))
    }

    pub(super) fn new(options: &ListenOptions) -> Self {
        let preset = match options.access {
            Access::Owner => 0o600,
            Access::Everyone => 0o666,
        };
        let bits = options.os.mode.unwrap_or(preset);
        // The type's width differs between systems; nine bits fit in all.
        Self { mode: Mode::from_bits_truncate(bits as _), group: options.os.group, members: None }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether only the owner may connect.
    pub(super) fn is_owner_only(&self) -> bool {
        !self.mode.intersects(Mode::RWXG | Mode::RWXO)
    }

    /// The same permission for a socket whose file has this group.
    pub(super) fn in_group(self, group: Option<u32>) -> Self {
        Self { members: group, ..self }
    }

    pub(super) fn group(&self) -> Option<u32> {
        self.group
    }

    /// Whether the peer may stay. The mode of the file admitted it, but the file may have been
    /// changed since, may not exist (an abstract socket), or may be on a file system where modes
    /// have no effect.
    pub(super) fn admits(&self, peer: &Peer, socket: BorrowedFd<'_>) -> bool {
        if self.mode.contains(Mode::WOTH) || peer.uid == 0 || is_own(peer.uid) {
            return true;
        }
        if !self.mode.contains(Mode::WGRP) {
            return false;
        }
        let group = self.members.or(self.group).unwrap_or_else(|| getegid().as_raw());
        if peer.gid == group {
            return true;
        }
        match platform::peer_groups(socket) {
            Ok(groups) => groups.contains(&group),
            // Not every system reports the peer's groups. The mode of the file has admitted this
            // peer.
            Err(error) => error.kind() == ErrorKind::Unsupported,
        }
    }
}

/// Whether `uid` is the user of this process. The id that stands for all unmapped users of this
/// user namespace is no user's own.
pub(super) fn is_own(uid: u32) -> bool {
    uid == geteuid().as_raw() && !platform::is_unmapped(uid)
}

/// Logs that a client was closed before the program saw it.
pub(super) fn peer_refused(why: &str, user: Option<u32>) {
    #[cfg(feature = "tracing")]
    tracing::warn!(user, why, "refused a client");
    #[cfg(not(feature = "tracing"))]
    let _ = (why, user);
}
