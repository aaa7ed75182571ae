//! The credentials of a peer where frameworks keep what they know of a connection.

use std::io;
use std::sync::Arc;

use crate::peer::PeerCredentials;
use crate::stream::LocalStream;

/// Who is at the other end of a handler's connection: axum's `ConnectInfo<PeerInfo>`, and tonic's
/// `request.extensions().get::<PeerInfo>()`.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # mod example {
/// use axum::extract::ConnectInfo;
/// use axum::{Router, routing::get};
/// use sockpipe::Listener;
/// use sockpipe::adapters::PeerInfo;
///
/// async fn whoami(ConnectInfo(peer): ConnectInfo<PeerInfo>) -> String {
///     match peer.credentials() {
///         Ok(peer) => format!("you are {}", peer.user()),
///         Err(error) => format!("who you are cannot be told: {error}"),
///     }
/// }
///
/// # async fn run() -> std::io::Result<()> {
/// let app = Router::new().route("/", get(whoami));
/// let app = app.into_make_service_with_connect_info::<PeerInfo>();
/// axum::serve(Listener::bind("org.example.tool")?, app).await
/// # }
/// # }
/// ```
///
/// It is asked for once, when the connection is accepted.
#[derive(Clone, Debug)]
pub struct PeerInfo(Result<PeerCredentials, Arc<io::Error>>);

impl PeerInfo {
    pub(super) fn of(stream: &impl LocalStream) -> Self {
        Self(stream.peer_credentials().map_err(Arc::new))
    }

    /// The peer's credentials.
    ///
    /// # Errors
    ///
    /// What [`LocalStream::peer_credentials`] said: `Unsupported` where the transport does not know
    /// its peer.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: a client that opened the pipe with a security context that changes (sockpipe's does
    /// not) is known only once it has written, and so not here.
    pub fn credentials(&self) -> io::Result<&PeerCredentials> {
        self.0.as_ref().map_err(|error| io::Error::new(error.kind(), Arc::clone(error)))
    }
}
