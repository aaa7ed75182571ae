//! Options that exist on Unix only.

use std::io;

use crate::error::{Error, Reason};
use crate::options::SpinPolicy;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::options::SharedMemory;

pub(crate) type Spin = SpinPolicy;

/// The listener options that [`ListenOptionsExt`](super::ext::ListenOptionsExt) sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct OsListenOptions {
    pub(super) unsafe_directory: bool,
    pub(super) mode: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) backlog: Option<u32>,
    pub(super) on_name_lost: OnNameLost,
    pub(super) upgradable: bool,
}

/// The action of a listener whose socket was removed from its path.
///
/// A listener checks its path at least every 9 seconds while it waits in `accept`, unless the
/// choice is [`Ignore`](Self::Ignore).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnNameLost {
    /// Bind a new socket under the same name. Pending connections are still accepted.
    ///
    /// If another server has bound the name in the meantime, `accept` fails with `AddrInUse`.
    ///
    /// If the directory was removed and created again, the result depends on the endpoint. For a
    /// path, the listener does not bind in the new directory: it serves its connections, and no new
    /// client can reach it. For a portable name, it binds in the user's current runtime directory,
    /// which may be a new one after a logout and a login.
    #[default]
    Republish,
    /// Stop: `accept` fails with `NotFound` ([`Reason::NameLost`](crate::Reason::NameLost)).
    Stop,
    /// Do not check the name, and continue to wait for clients.
    Ignore,
}

/// The option `end_on_close`. It has no effect on Unix, because every socket supports half-close.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndOnClose;

pub(crate) const fn spin(policy: SpinPolicy) -> Spin {
    policy
}

pub(crate) const fn end_on_close(_: bool) -> EndOnClose {
    EndOnClose
}

/// Whether a stream may use shared memory. The value has no effect on systems that do not support
/// shared memory.
#[cfg(feature = "shared-memory")]
pub(crate) type Memory = SharedMemory;

#[cfg(feature = "shared-memory")]
pub(crate) const fn memory(policy: SharedMemory) -> Memory {
    policy
}

/// Returns the error for the option `upgradable` on a kind of listener that cannot be taken over.
pub(super) fn cannot_be_upgraded(what: &str) -> io::Error {
    let error = Error::new(Reason::Unsupported, format!("{what} cannot be taken over"));
    error.advising("turn os::unix::ListenOptionsExt::upgradable off").into()
}
