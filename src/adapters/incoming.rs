//! A stream of connections, for callers that poll.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::endpoint::Endpoint;
use crate::listener::LocalListener;

/// The connections of a [`LocalListener`] as a stream.
///
/// With the feature `futures-core` it implements `Stream`, which tonic's servers take. The
/// listener's error is permanent and is the last item; tonic then ends as after a shutdown.
///
/// ```
/// # #[cfg(feature = "futures-core")]
/// # mod example {
/// use futures_util::StreamExt;
/// use sockpipe::Listener;
/// use sockpipe::adapters::Incoming;
///
/// # async fn run() -> std::io::Result<()> {
/// let mut incoming = Incoming::new(Listener::bind("org.example.tool")?);
/// while let Some(stream) = incoming.next().await {
///     let stream = stream?;
///     # drop(stream);
/// }
/// # Ok(())
/// # }
/// # }
/// ```
///
/// With the feature `tokio-util` it implements `tokio_util::net::Listener`.
pub struct Incoming<L: LocalListener> {
    endpoint: Option<Endpoint>,
    state: State<L>,
}

type Accepting<L> =
    Pin<Box<dyn Future<Output = (L, io::Result<<L as LocalListener>::Stream>)> + Send>>;

enum State<L: LocalListener> {
    // Kept between polls: if each poll created a new future, the wakers of dropped ones would wake
    // the task in vain.
    Accepting(Accepting<L>),
    Failed,
}

impl<L: LocalListener> Incoming<L> {
    /// Creates a stream of the connections of `listener`.
    pub fn new(listener: L) -> Self {
        Self { endpoint: listener.endpoint().ok(), state: State::Accepting(accept(listener)) }
    }

    /// Returns the address that clients use, if there is one.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Polls for the next connection. Returns `None` after the listener's error, which is
    /// permanent.
    pub(super) fn poll_connection(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<L::Stream>>> {
        let State::Accepting(future) = &mut self.state else { return Poll::Ready(None) };
        let (listener, outcome) = ready!(future.as_mut().poll(cx));
        self.state = match outcome {
            Ok(_) => State::Accepting(accept(listener)),
            Err(_) => State::Failed,
        };
        Poll::Ready(Some(outcome))
    }
}

/// With the feature `futures-core`.
#[cfg(feature = "futures-core")]
impl<L: LocalListener> futures_core::Stream for Incoming<L> {
    type Item = io::Result<L::Stream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_connection(cx)
    }
}

fn accept<L: LocalListener>(mut listener: L) -> Accepting<L> {
    Box::pin(async move {
        let outcome = listener.accept().await;
        (listener, outcome)
    })
}

impl<L: LocalListener> fmt::Debug for Incoming<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
