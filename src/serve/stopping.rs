//! How handlers hear of a stop.

use std::future::Future;

use tokio::sync::watch;

/// Tells a handler of [`serve_with`](crate::serve_with()) that the server stops.
///
/// A handler that waits for its client's next request can end there; one that is within a request
/// finishes it first. Clones tell the same, for tasks that a handler starts.
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
    /// Who says that the server stops, and what hears it.
    pub(super) fn new() -> (watch::Sender<bool>, Self) {
        let (stop, stopping) = watch::channel(false);
        (stop, Self(stopping))
    }

    /// Completes when the server has been asked to stop, at once if it has been before. A server
    /// without [`with_graceful_shutdown`](crate::Serve::with_graceful_shutdown) never is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.0.clone();
        async move {
            if stopping.wait_for(|requested| *requested).await.is_err() {
                // The server is gone without having been asked.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns whether the server has been asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}
