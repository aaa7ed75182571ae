//! The credentials of a peer, in the place where a framework keeps data about a connection.

use std::io;
use std::sync::Arc;

use crate::peer::PeerCredentials;
use crate::stream::LocalStream;

/// The credentials of the peer of a handler's connection: axum's `ConnectInfo<PeerInfo>`, and
/// tonic's `request.extensions().get::<PeerInfo>()`.
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
///         Err(error) => format!("your user is unknown: {error}"),
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
/// The credentials are read once, when the connection is accepted. For tests, and for servers with
/// other loops than axum's, convert [`PeerCredentials`] or the result of
/// [`peer_credentials`](LocalStream::peer_credentials) into a `PeerInfo`:
///
/// ```
/// # #[cfg(feature = "axum")]
/// # mod example {
/// use axum::Router;
/// use axum::extract::connect_info::MockConnectInfo;
/// use sockpipe::adapters::PeerInfo;
/// use sockpipe::{PeerCredentials, UserId};
///
/// fn asked_by(user: UserId, app: Router) -> Router {
///     app.layer(MockConnectInfo(PeerInfo::from(PeerCredentials::from(user))))
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PeerInfo(Result<PeerCredentials, Arc<io::Error>>);

impl PeerInfo {
    pub(super) fn of(stream: &impl LocalStream) -> Self {
        stream.peer_credentials().into()
    }

    /// Returns the peer's credentials.
    ///
    /// # Errors
    ///
    /// The error of [`LocalStream::peer_credentials`]: `Unsupported` if the transport does not know
    /// its peer.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: a client that opened the pipe with a changing security context (sockpipe's clients
    /// do not) is identified only after its first write, so this returns an error for it.
    pub fn credentials(&self) -> io::Result<&PeerCredentials> {
        self.0.as_ref().map_err(|error| io::Error::new(error.kind(), Arc::clone(error)))
    }
}

impl From<PeerCredentials> for PeerInfo {
    fn from(credentials: PeerCredentials) -> Self {
        Self(Ok(credentials))
    }
}

impl From<io::Result<PeerCredentials>> for PeerInfo {
    fn from(credentials: io::Result<PeerCredentials>) -> Self {
        Self(credentials.map_err(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::UserId;

    #[test]
    fn peer_info_returns_its_credentials_or_its_error() {
        let visitor = PeerCredentials::from(UserId::Uid(7));
        let peer = PeerInfo::from(visitor.clone());
        assert_eq!(peer.credentials().expect("credentials"), &visitor);

        let nobody = io::Error::new(io::ErrorKind::Unsupported, "nobody knows");
        let peer = PeerInfo::from(Err(nobody));
        let error = peer.credentials().expect_err("nobody knows");
        let said = (error.kind(), error.to_string());
        assert_eq!(said, (io::ErrorKind::Unsupported, "nobody knows".to_owned()));
    }
}
