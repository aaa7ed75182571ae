//! The user and process at the other end of a stream.

use std::fmt;
#[cfg(feature = "tokio")]
use std::future::Future;
use std::io;
use std::num::NonZeroU32;
#[cfg(feature = "tokio")]
use std::pin::Pin;

use crate::imp;

/// A user as the operating system names it: a number on Unix, a SID on Windows.
///
/// Both forms exist on every OS, so that configuration can be read anywhere. A backend that cannot
/// compare a form refuses it with [`Unsupported`](std::io::ErrorKind::Unsupported).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UserId {
    /// An effective user id.
    Uid(u32),
    /// A security identifier in string form, such as `S-1-5-21-1-2-3-1001`.
    Sid(String),
}

impl UserId {
    /// Returns the user that this process runs as.
    ///
    /// # Errors
    ///
    /// Windows: the process may not read its own token.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the effective user. Windows: the user of the process's token.
    pub fn current() -> io::Result<Self> {
        imp::current_user()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Sid(sid) => f.write_str(sid),
        }
    }
}

/// The account of Windows's own services.
pub(crate) const SYSTEM: &str = "S-1-5-18";
/// The group of administrators, which owns the objects that its members create.
pub(crate) const ADMINISTRATORS: &str = "S-1-5-32-544";

/// The credentials of a peer: always its user, and its process if the OS reports it.
///
/// Decide by [`user`](Self::user) only. A process id is for log lines: it may belong to another
/// process by the time you look at it. [Access and trust](crate::docs::access_and_trust) shows how
/// to use them.
///
/// # Platform-specific behavior
///
/// Unix: the kernel records the credentials when a process calls `connect` (seen by the server) or
/// `listen` (seen by the client), and reports them by `SO_PEERCRED` on Linux, `LOCAL_PEERCRED` or
/// `getpeereid` on macOS and the BSDs. Windows: the crate reads them when you ask; a server sees
/// the client's token, a client sees the owner of the pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    user: UserId,
    group: Option<u32>,
    process: Option<NonZeroU32>,
}

impl PeerCredentials {
    /// Creates credentials, for implementations of [`LocalStream`](crate::LocalStream) outside this
    /// crate.
    #[must_use]
    pub fn new(user: UserId, group: Option<u32>, process: Option<u32>) -> Self {
        Self { user, group, process: process.and_then(NonZeroU32::new) }
    }

    /// Returns the user.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Reports whether the peer runs as the user of this process. `false` if that is unknown.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: a client sees the owner of the pipe. For a server that an administrator started it
    /// can be the Administrators group, for which [`is_system`](Self::is_system) is true and
    /// `is_self` is not.
    #[must_use]
    pub fn is_self(&self) -> bool {
        UserId::current().is_ok_and(|own| own == self.user)
    }

    /// Reports whether the peer runs as the system: root, or on Windows SYSTEM or the
    /// Administrators group. [`ExpectServer::Default`](crate::ExpectServer::Default) accepts such a
    /// server too.
    #[must_use]
    pub fn is_system(&self) -> bool {
        match &self.user {
            UserId::Uid(uid) => *uid == 0,
            UserId::Sid(sid) => [SYSTEM, ADMINISTRATORS].contains(&sid.as_str()),
        }
    }

    /// Returns the effective user id. `None` on Windows.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        match self.user {
            UserId::Uid(uid) => Some(uid),
            UserId::Sid(_) => None,
        }
    }

    /// Returns the effective group id. `None` on Windows.
    #[must_use]
    pub fn gid(&self) -> Option<u32> {
        self.group
    }

    /// Returns the process id, if the OS reports it and the process is visible from here. A peer in
    /// another PID namespace is not.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.map(NonZeroU32::get)
    }
}

/// A future of the peer's credentials, from
/// [`LocalStream::peer_told`](crate::LocalStream::peer_told).
#[cfg(feature = "tokio")]
pub type PeerTold = Pin<Box<dyn Future<Output = io::Result<PeerCredentials>> + Send>>;

/// Creates credentials with a user and nothing else.
impl From<UserId> for PeerCredentials {
    fn from(user: UserId) -> Self {
        Self::new(user, None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_id_zero_means_unknown() {
        let peer = PeerCredentials::new(UserId::Uid(7), Some(8), Some(0));
        assert_eq!((peer.uid(), peer.gid(), peer.pid()), (Some(7), Some(8), None));
    }

    #[test]
    fn root_and_the_accounts_of_windows_are_the_system() {
        let is_system = |user| PeerCredentials::from(user).is_system();
        for sid in ["S-1-5-18", "S-1-5-32-544"] {
            assert!(is_system(UserId::Sid(sid.to_owned())), "{sid}");
        }
        assert!(is_system(UserId::Uid(0)));
        assert!(!is_system(UserId::Uid(18)));
        assert!(!is_system(UserId::Sid("S-1-5-18-1".to_owned())));
    }

    #[test]
    fn the_own_user_is_self_and_another_is_not() {
        let own = UserId::current().expect("a user");
        let other = match &own {
            UserId::Uid(uid) => UserId::Uid(uid + 1),
            UserId::Sid(sid) => UserId::Sid(format!("{sid}-1")),
        };
        assert!(PeerCredentials::from(own).is_self());
        assert!(!PeerCredentials::from(other).is_self());
    }
}
