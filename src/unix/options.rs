//! Options that exist on Unix only.

use std::io;

use crate::error::{Error, Reason};
use crate::options::SpinPolicy;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::options::SharedMemory;

pub(crate) type Spin = SpinPolicy;

/// The options that `os::unix` sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct OsListenOptions {
    pub(super) unsafe_directory: bool,
    pub(super) mode: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) backlog: Option<u32>,
    pub(super) on_name_lost: OnNameLost,
    pub(super) upgradable: bool,
}

/// What a listener does when it finds that its name is gone.
///
/// A listener that waits in `accept` looks every 9 seconds. Whichever is chosen, `accept` ends with
/// an `AddrInUse` error once another server has the name, unless it is [`Ignore`](Self::Ignore).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnNameLost {
    /// Bind it again, with a new socket. Pending clients keep their connections.
    ///
    /// If the endpoint is a path, a directory that was removed and created again is left alone. For
    /// a portable name the user's runtime directory may be another by now, as after a logout and a
    /// login.
    #[default]
    Republish,
    /// End: `accept` fails with `NotFound`.
    Stop,
    /// Do not look.
    Ignore,
}

/// Every socket supports half-close, so there is nothing to choose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndOnClose;

pub(crate) const fn spin(policy: SpinPolicy) -> Spin {
    policy
}

pub(crate) const fn end_on_close(_: bool) -> EndOnClose {
    EndOnClose
}

/// Whether a stream may use shared memory. On systems without it, the value has no effect.
#[cfg(feature = "shared-memory")]
pub(crate) type Memory = SharedMemory;

#[cfg(feature = "shared-memory")]
pub(crate) const fn memory(policy: SharedMemory) -> Memory {
    policy
}

/// Returns the error for a kind of listener that cannot be taken over.
pub(super) fn cannot_be_upgraded(what: &str) -> io::Error {
    let error = Error::new(Reason::Unsupported, format!("{what} cannot be taken over"));
    error.advising("turn os::unix::ListenOptionsExt::upgradable off").into()
}
