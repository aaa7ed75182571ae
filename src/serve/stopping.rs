//! The notice of a shutdown for handlers.

use std::future::Future;

use tokio::sync::watch;

/// A notice for handlers of [`serve_with`](crate::serve_with()) that the server is shutting down.
///
/// A handler that waits for the next request can return at once; a handler within a request
/// finishes it first. Clones report the same shutdown, for tasks that a handler starts.
///
/// ```
/// use sockpipe::Stopping;
/// use tokio::io::{AsyncRead, AsyncReadExt};
///
/// /// The next request's length; `None` when there is none, or when the server stops before.
/// async fn next(stream: &mut (impl AsyncRead + Unpin), stopping: &Stopping) -> Option<u32> {
///     tokio::select! {
///         length = stream.read_u32() => length.ok(),
///         () = stopping.requested() => None,
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Creates a notice, and the sender that gives it.
    pub(super) fn new() -> (watch::Sender<bool>, Self) {
        let (stop, stopping) = watch::channel(false);
        (stop, Self(stopping))
    }

    /// Waits until the server is asked to stop. It completes at once if that has happened already.
    ///
    /// It never completes for a server without
    /// [`with_graceful_shutdown`](crate::Serve::with_graceful_shutdown) or
    /// [`stop_when_idle`](crate::Serve::stop_when_idle).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.0.clone();
        async move {
            if stopping.wait_for(|requested| *requested).await.is_err() {
                // The server ended without a request to stop.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reports whether the server has been asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}
