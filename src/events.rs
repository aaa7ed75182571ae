//! What a listener tells `tracing`; without the feature, nobody.

use std::io;
use std::time::Duration;

/// Accepting has to wait: the process or the system is out of something.
pub(crate) fn accept_paused(error: &io::Error, pause: Duration) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, ?pause, "cannot accept for now");
    #[cfg(not(feature = "tracing"))]
    let _ = (error, pause);
}

/// A client was closed before anybody saw it.
#[allow(dead_code, reason = "on Windows the system refuses them")]
pub(crate) fn peer_refused(why: &str, user: Option<u32>) {
    #[cfg(feature = "tracing")]
    tracing::warn!(user, why, "refused a client");
    #[cfg(not(feature = "tracing"))]
    let _ = (why, user);
}

/// A listener failed where the caller cannot be given the error.
#[cfg(feature = "axum")]
pub(crate) fn accept_failed(error: &io::Error, pause: Duration) {
    #[cfg(feature = "tracing")]
    tracing::error!(%error, ?pause, "the listener failed");
    #[cfg(not(feature = "tracing"))]
    let _ = (error, pause);
}
