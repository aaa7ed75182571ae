//! A listener's name: how it is taken, kept and given back.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::access::Permission;
pub(super) use super::claim::refuse_and_drain;
use super::claim::{self, Claim};
use super::environment;
use super::inherited;
use super::maker::Maker;
use super::place::Place;
pub(super) use super::stale::Probes;
use crate::candidate::Candidacy;
use crate::candidate::resolve::candidates;
use crate::endpoint::Endpoint;
use crate::error::{Error, Reason};
use crate::options::ListenOptions;

/// Whose the listener's name is.
pub(super) enum Name {
    /// Ours, to keep and to remove.
    Claimed(Claim),
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
        let permission = Permission::new(options);
        let wanted = endpoint;
        let (place, endpoint) = place_to_bind(wanted, options)?;
        let Some(place) = place else {
            let socket = claim::bind_abstract(&endpoint, options.os.backlog)?;
            return Ok((socket, Self::Abstract(Maker::this()), permission, endpoint));
        };
        let others = other_places(wanted, &endpoint)?;
        let backlog = options.os.backlog;
        let (socket, claim) = Claim::take(place, &others, permission, backlog, probes)?;
        let permission = permission.in_group(claim.group());
        Ok((socket, Self::Claimed(claim), permission, endpoint))
    }

    pub(super) fn is_published(&self, socket: BorrowedFd<'_>) -> bool {
        match self {
            Self::Claimed(claim) => claim.is_published(),
            Self::Abstract(_) => true,
            Self::Inherited => inherited::is_published(socket),
        }
    }

    /// Whether the name was removed, so that `republish` has to bind it again.
    #[cfg(feature = "tokio")]
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Claimed(claim) if claim.is_gone())
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
    pub(super) fn end(&mut self, socket: &OwnedFd) -> Vec<OwnedFd> {
        if !self.is_ours() {
            return Vec::new();
        }
        if let Self::Claimed(claim) = self {
            claim.unpublish();
        }
        refuse_and_drain(socket)
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

    /// Whether the socket is this process's to shut down. Others may have an inherited one too, and a
    /// child by fork(2) has a copy of its parent's.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Claimed(claim) => claim.owned_by_this_process(),
            Self::Abstract(maker) => maker.is_this_or_gone(),
            Self::Inherited => false,
        }
    }
}

/// The first usable candidate, and its place unless it is an abstract socket.
pub(super) fn place_to_bind(
    endpoint: &Endpoint,
    options: &ListenOptions,
) -> io::Result<(Option<Place>, Endpoint)> {
    let mut refused = None;
    for candidate in candidates(endpoint, &environment()?)? {
        let opened = match &candidate.place {
            Candidacy::Path(path) => Place::of_path(path)
                .and_then(|place| place.safe(options.os.unsafe_directory))
                .map(Some),
            Candidacy::UserDir { dir, file } => match Place::in_user_dir(dir, file) {
                Ok(None) => continue,
                opened => opened,
            },
            Candidacy::PrivateDir { dir, file } => Place::in_private_dir(dir, file).map(Some),
            Candidacy::Abstract(_) => Ok(None),
            Candidacy::Pipe(_) => continue,
        };
        match opened {
            Ok(place) => return Ok((place, candidate.address())),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Error::new(Reason::NoDirectory, "this system has no directory for this name")
            .at(endpoint)
            .into()
    }))
}

/// Where else clients look for `endpoint`, as far as such places are there: a server that was started
/// with another environment may live in one of them.
fn other_places(endpoint: &Endpoint, chosen: &Endpoint) -> io::Result<Vec<Place>> {
    let all = candidates(endpoint, &environment()?)?.into_iter();
    let others = all.filter(|candidate| candidate.address() != *chosen);
    let place = |candidate: &Candidacy| match candidate {
        Candidacy::UserDir { dir, file } => Place::in_user_dir(dir, file).ok().flatten(),
        Candidacy::PrivateDir { dir, file } => {
            Place::in_existing_private_dir(dir, file).ok().flatten()
        }
        Candidacy::Path(_) | Candidacy::Abstract(_) | Candidacy::Pipe(_) => None,
    };
    Ok(others.filter_map(|candidate| place(&candidate.place)).collect())
}
