//! What a listener handles by itself: counted, and told to `tracing` where that is wanted.

use std::io;
use std::time::Duration;

/// Counts of the events that a listener handled by itself since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Clients that the listener closed before `accept` yielded them, because their user may not
    /// connect or is unknown. Always 0 on Windows, where the OS refuses them.
    pub refused: u64,
    /// Times that `accept` had to wait because the process or the system lacked descriptors, memory
    /// or, on Windows, instances of the pipe.
    pub pauses: u64,
    /// Times that the listener's name was removed by another process and bound again. Always 0 on
    /// Windows.
    pub republished: u64,
}

/// Accepting has to wait: the process or the system is out of something.
pub(crate) fn accept_paused(error: &io::Error, pause: Duration) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, ?pause, "cannot accept for now");
    #[cfg(not(feature = "tracing"))]
    let _ = (error, pause);
}

/// A handler of a server gave an error, which ends its connection only.
#[cfg(feature = "tokio")]
pub(crate) fn handler_failed(error: &dyn std::fmt::Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "a handler failed");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// A handler that is to end when its client leaves will not hear of it.
#[cfg(feature = "tokio")]
pub(crate) fn departure_unheard(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "a handler will not hear of it when its client leaves");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// A listener failed where the caller cannot be given the error.
#[cfg(feature = "axum")]
pub(crate) fn accept_failed(error: &io::Error, pause: Duration) {
    #[cfg(feature = "tracing")]
    tracing::error!(%error, ?pause, "the listener failed");
    #[cfg(not(feature = "tracing"))]
    let _ = (error, pause);
}
