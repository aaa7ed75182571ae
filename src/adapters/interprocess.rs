//! interprocess's tokio listener and stream with sockpipe's traits, so that a program can move to
//! sockpipe step by step.

use std::io;

use interprocess::local_socket::tokio::{Listener, Stream};

use crate::endpoint::Endpoint;
use crate::imp;
use crate::listener::LocalListener;
use crate::peer::PeerCredentials;
use crate::stream::LocalStream;

/// With the feature `interprocess`: [`serve`](crate::serve()) and the other adapters work on its
/// listener. interprocess determines the name, and which users may connect.
///
/// # Platform-specific behavior
///
/// Windows: the endpoint is `Unsupported`, because interprocess does not report it, and `shutdown`
/// of its streams does nothing.
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
