//! Connections as they come, for callers that poll.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::endpoint::Endpoint;
use crate::listener::LocalListener;

/// The connections of any [`LocalListener`] as a stream of them.
///
/// With the feature `tonic` it is the `Stream` that tonic's servers take. The listener's error, which
/// is final, is the last item; tonic then ends as after a stop.
///
/// ```no_run
/// # #[cfg(feature = "_grpc_example")]
/// # mod example {
/// use sockpipe::Listener;
/// use sockpipe::adapters::Incoming;
/// use tonic::transport::Server;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let (_reporter, service) = tonic_health::server::health_reporter();
/// let incoming = Incoming::new(Listener::bind("org.example.tool")?);
/// Server::builder().add_service(service).serve_with_incoming(incoming).await?;
/// # Ok(())
/// # }
/// # }
/// ```
///
/// With the feature `tokio-util` it is a `tokio_util::net::Listener`.
pub struct Incoming<L: LocalListener> {
    endpoint: Option<Endpoint>,
    state: State<L>,
}

type Accepting<L> =
    Pin<Box<dyn Future<Output = (L, io::Result<<L as LocalListener>::Stream>)> + Send>>;

enum State<L: LocalListener> {
    // Kept from poll to poll: a future that is made anew for each poll would be woken for the old
    // one's sake.
    Accepting(Accepting<L>),
    Failed,
}

impl<L: LocalListener> Incoming<L> {
    /// The connections of `listener`.
    pub fn new(listener: L) -> Self {
        Self { endpoint: listener.endpoint().ok(), state: State::Accepting(accept(listener)) }
    }

    /// The address clients use, where there is one.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// The next connection; `None` after the listener's error, which is final.
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
