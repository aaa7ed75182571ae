//! Takes, keeps and releases a listener's name.

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
use super::runtime::NameEvent;
pub(super) use super::stale::Probes;
use crate::endpoint::Endpoint;
use crate::options::ListenOptions;

/// The owner of the listener's name.
pub(super) enum Name {
    /// This listener, which keeps the name and removes it.
    Claimed(Box<Claim>),
    /// The kernel: the name of an abstract socket disappears with the socket. The maker is the
    /// process that listens.
    Abstract(Maker),
    /// The process that made the socket.
    Inherited,
}

impl Name {
    /// Binds a listening socket. Returns it with its name, the users that may connect, and the
    /// address that clients use.
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

    /// Looks after the name while the listener waits. Called every [`LOOK`].
    pub(super) fn look(&mut self, permission: Permission) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Claimed(claim) => claim.look(permission),
            Self::Abstract(_) | Self::Inherited => Ok(None),
        }
    }

    /// Returns the events after which the name may be gone.
    #[cfg(feature = "tokio")]
    pub(super) fn events(&self) -> Vec<NameEvent> {
        match self {
            Self::Claimed(claim) => {
                let place = claim.place();
                platform::name_events(&place.absolute_path(), place.may_be_reopened())
            }
            Self::Abstract(_) | Self::Inherited => Vec::new(),
        }
    }

    /// Whether the listener looks after this name.
    pub(super) fn is_looked_after(&self) -> bool {
        matches!(self, Self::Claimed(claim) if claim.on_lost != OnNameLost::Ignore)
    }

    /// Binds a new socket under the name. Returns `None` while the old one is published.
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

    /// Undoes a call of `republish`.
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

    /// Leaves the name, and its lock, to the process that received them.
    #[cfg(feature = "tokio")]
    pub(super) fn pass(&mut self) {
        if let Self::Claimed(claim) = std::mem::replace(self, Self::Inherited) {
            claim.pass();
        }
    }

    /// Removes the name, refuses new connections, and returns the pending ones. The caller closes
    /// the socket next.
    ///
    /// # Errors
    ///
    /// The name could not be removed. Everything else is done.
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

    /// Refuses new connections, keeps the name from other servers, and returns the pending
    /// connections.
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

    /// Whether this process may shut down the socket. Other processes may have an inherited socket
    /// too, and a child by fork(2) has a copy of its parent's.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Claimed(claim) => claim.owned_by_this_process(),
            Self::Abstract(maker) => maker.is_this_or_gone(),
            Self::Inherited => false,
        }
    }
}
