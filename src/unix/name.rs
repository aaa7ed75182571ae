//! A listener's name: how it is taken, kept and given back.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::access::Permission;
pub(super) use super::claim::refuse_and_drain;
use super::claim::{self, Claim};
use super::inherited;
pub(super) use super::look::LOOK;
use super::maker::Maker;
use super::options::OnNameLost;
use super::places::place_to_bind;
#[cfg(feature = "tokio")]
use super::platform;
#[cfg(feature = "tokio")]
use super::runtime::Tidings;
pub(super) use super::stale::Probes;
use crate::endpoint::Endpoint;
use crate::options::ListenOptions;

/// Whose the listener's name is.
pub(super) enum Name {
    /// Ours, to keep and to remove.
    Claimed(Box<Claim>),
    /// The kernel's: an abstract socket's name goes with it. Of the process that listens.
    Abstract(Maker),
    /// That of whoever made the socket.
    Inherited,
}

impl Name {
    /// A listening socket, its name, the users who may connect, and the address that clients use.
    pub(super) fn take(
        endpoint: &Endpoint,
        options: &ListenOptions,
        probes: Probes,
    ) -> io::Result<(OwnedFd, Self, Permission, Endpoint)> {
        let permission = Permission::checked(options)?;
        let wanted = endpoint;
        let (place, endpoint) = place_to_bind(wanted, options)?;
        let Some(place) = place else {
            let socket = claim::bind_abstract(&endpoint, options.os.backlog)?;
            return Ok((socket, Self::Abstract(Maker::this()), permission, endpoint));
        };
        let (socket, claim) = Claim::take(place, wanted, permission, &options.os, probes)?;
        let permission = permission.in_group(claim.group());
        Ok((socket, Self::Claimed(Box::new(claim)), permission, endpoint))
    }

    pub(super) fn is_published(&self, socket: BorrowedFd<'_>) -> bool {
        match self {
            Self::Claimed(claim) => claim.is_published(),
            Self::Abstract(_) => true,
            Self::Inherited => inherited::is_published(socket),
        }
    }

    /// What a listener that waits does about its name, every [`LOOK`].
    pub(super) fn look(&mut self, permission: Permission) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Claimed(claim) => claim.look(permission),
            Self::Abstract(_) | Self::Inherited => Ok(None),
        }
    }

    /// What says that it is time to look.
    #[cfg(feature = "tokio")]
    pub(super) fn tidings(&self) -> Vec<Tidings> {
        match self {
            Self::Claimed(claim) => {
                let place = claim.place();
                platform::tidings(&place.absolute_path(), place.may_be_reopened())
            }
            Self::Abstract(_) | Self::Inherited => Vec::new(),
        }
    }

    /// Whether there is something to look after.
    pub(super) fn is_looked_after(&self) -> bool {
        matches!(self, Self::Claimed(claim) if claim.on_lost != OnNameLost::Ignore)
    }

    /// A new socket under the name; `None` while the old one is published.
    pub(super) fn republish(
        &mut self,
        permission: Permission,
        probes: Probes,
    ) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Claimed(claim) if !claim.is_published() => {
                claim.republish(permission, probes).map(Some)
            }
            Self::Inherited => {
                let what = "the name of an inherited listener is not its own to take again";
                Err(io::Error::new(ErrorKind::Unsupported, what))
            }
            Self::Claimed(_) | Self::Abstract(_) => Ok(None),
        }
    }

    /// Takes back what `republish` did.
    pub(super) fn withdraw(&mut self) {
        if let Self::Claimed(claim) = self {
            claim.withdraw();
        }
    }

    /// Leaves the name to the process that has the socket.
    pub(super) fn leave(&mut self) {
        if let Self::Claimed(claim) = std::mem::replace(self, Self::Inherited) {
            claim.leave();
        }
    }

    /// Leaves the name, and the lock on it, to the process that they were passed to.
    #[cfg(feature = "tokio")]
    pub(super) fn pass(&mut self) {
        if let Self::Claimed(claim) = std::mem::replace(self, Self::Inherited) {
            claim.pass();
        }
    }

    /// Takes the name away, refuses new connections, and gives those in the queue. The socket is to
    /// be closed next.
    ///
    /// # Errors
    ///
    /// The name is left behind. All else is done.
    pub(super) fn end(&mut self, socket: &OwnedFd) -> (Vec<OwnedFd>, io::Result<()>) {
        if !self.is_ours() {
            return (Vec::new(), Ok(()));
        }
        let removed = match self {
            Self::Claimed(claim) => claim.unpublish(),
            Self::Abstract(_) | Self::Inherited => Ok(()),
        };
        (refuse_and_drain(socket), removed)
    }

    /// Refuses new connections, keeps the name from others, and gives those in the queue.
    #[cfg(feature = "tokio")]
    pub(super) fn stop(&mut self, socket: &OwnedFd) -> Vec<OwnedFd> {
        if !self.is_ours() {
            return Vec::new();
        }
        if let Self::Claimed(claim) = self {
            claim.stop();
        }
        refuse_and_drain(socket)
    }

    /// Whether the socket is this process's to shut down. Others may have an inherited one too, and
    /// a child by fork(2) has a copy of its parent's.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Claimed(claim) => claim.owned_by_this_process(),
            Self::Abstract(maker) => maker.is_this_or_gone(),
            Self::Inherited => false,
        }
    }
}
