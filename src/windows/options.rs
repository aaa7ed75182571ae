//! What can be chosen on Windows only.

use crate::options::SpinPolicy;

/// Set through `os::windows`.
#[derive(Clone, Debug, Default)]
pub(crate) struct OsListenOptions {
    pub(super) security_descriptor: Option<String>,
    pub(super) buffer_size: Option<u32>,
    pub(super) instances: Option<usize>,
    pub(super) byte_type: bool,
}

pub(crate) type EndOnClose = bool;

/// What comes over a pipe is received by the reactor's thread and not by the reader, so there is
/// nothing to choose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spin;

pub(crate) const fn spin(_: SpinPolicy) -> Spin {
    Spin
}

pub(crate) const fn end_on_close(allowed: bool) -> EndOnClose {
    allowed
}
