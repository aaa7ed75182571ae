//! The events that listeners and servers handle by themselves: their counts, and their reports to
//! `tracing`.

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

/// Reports that `accept` has to wait, because the process or the system lacks a resource.
pub(crate) fn accept_paused(error: &io::Error, pause: Duration) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, ?pause, "cannot accept for now");
    #[cfg(not(feature = "tracing"))]
    let _ = (error, pause);
}

/// Reports that a handler returned an error, which ends only its own connection.
#[cfg(feature = "tokio")]
pub(crate) fn handler_failed(error: &dyn std::fmt::Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "a handler failed");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// Reports that a handler will not be cancelled when its client leaves.
#[cfg(feature = "tokio")]
pub(crate) fn departure_unheard(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "a handler is not notified when its client leaves");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// Reports that a listener failed, if no caller can receive the error.
#[cfg(feature = "axum")]
pub(crate) fn accept_failed(error: &io::Error, pause: Duration) {
    #[cfg(feature = "tracing")]
    tracing::error!(%error, ?pause, "the listener failed");
    #[cfg(not(feature = "tracing"))]
    let _ = (error, pause);
}
