//! What only Unix has; `sockpipe::os::unix` to users.

use crate::options::ListenOptions;

/// What a listener can do on Unix only.
pub trait ListenOptionsExt {
    /// Listen although others could replace the socket: in a directory that is another user's, or
    /// that others can write to and that is not sticky. Default: `false`, such a directory is
    /// refused with `PermissionDenied`.
    ///
    /// A client then relies on its own check of who listens, which
    /// [`ExpectServer`](crate::ExpectServer) describes.
    #[must_use]
    fn unsafe_directory(self, allowed: bool) -> Self;
}

impl ListenOptionsExt for ListenOptions {
    fn unsafe_directory(mut self, allowed: bool) -> Self {
        self.unsafe_directory = allowed;
        self
    }
}
