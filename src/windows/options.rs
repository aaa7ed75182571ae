//! Options that exist on Windows only.

use crate::options::SpinPolicy;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::options::SharedMemory;

/// Set through `os::windows`.
#[derive(Clone, Debug, Default)]
pub(crate) struct OsListenOptions {
    pub(super) security_descriptor: Option<String>,
    pub(super) buffer_size: Option<u32>,
    pub(super) instances: Option<usize>,
    pub(super) byte_type: bool,
    pub(super) app_containers: bool,
}

pub(crate) type EndOnClose = bool;

/// This has no settings: the reactor's thread receives what comes over a pipe, not the reader.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spin;

pub(crate) const fn spin(_: SpinPolicy) -> Spin {
    Spin
}

pub(crate) const fn end_on_close(allowed: bool) -> EndOnClose {
    allowed
}

/// This has no settings: pipes have no memory to share.
#[cfg(feature = "shared-memory")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory;

#[cfg(feature = "shared-memory")]
pub(crate) const fn memory(_: SharedMemory) -> Memory {
    Memory
}

#[cfg(all(feature = "shared-memory", feature = "tokio"))]
impl super::Stream {
    pub(crate) const fn uses_memory(&self) -> bool {
        false
    }
}

#[cfg(all(feature = "shared-memory", feature = "blocking"))]
impl super::blocking::Stream {
    pub(crate) const fn uses_memory(&self) -> bool {
        false
    }
}
