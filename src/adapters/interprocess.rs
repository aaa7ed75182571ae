//! interprocess's tokio listener and stream under our traits, so that a program can come over bit by
//! bit.

use std::io;

use interprocess::local_socket::tokio::{Listener, Stream};

use crate::endpoint::Endpoint;
use crate::imp;
use crate::listener::LocalListener;
use crate::peer::PeerCredentials;
use crate::stream::LocalStream;

/// With the feature `interprocess`: [`serve`](crate::serve()) and the other adapters on its
/// listener. The name, and who may connect, are interprocess's own affair.
///
/// # Platform-specific behavior
///
/// Windows: the endpoint is `Unsupported`, for interprocess does not tell it, and `shutdown` of its
/// streams does nothing.
impl LocalListener for Listener {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<Stream> {
        imp::interprocess::accept(self).await
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        imp::interprocess::endpoint(self)
    }
}

impl LocalStream for Stream {
    fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        imp::interprocess::peer_credentials(self)
    }
}
