//! The functions that our traits need for interprocess's listener and stream. The Unix backend has
//! the same items.

use std::io::{self, ErrorKind};

use ::interprocess::local_socket::tokio::{Listener, Stream};
use ::interprocess::local_socket::traits::tokio::Listener as _;

use super::system::End;
use super::{reactor, security};
use crate::endpoint::Endpoint;
use crate::error::events;
use crate::peer::PeerCredentials;
use crate::wait::Backoff;

/// Accepts a client. As in our own listener, every failure is treated as transient.
pub(crate) async fn accept(listener: &Listener) -> io::Result<Stream> {
    let mut backoff = Backoff::ACCEPT;
    loop {
        let error = match listener.accept().await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let pause = backoff.pause();
        events::accept_paused(&error, pause);
        reactor::sleep(pause)?.await;
    }
}

pub(crate) fn endpoint(_: &Listener) -> io::Result<Endpoint> {
    let what = "interprocess does not report the name of its pipe";
    Err(io::Error::new(ErrorKind::Unsupported, what))
}

pub(crate) fn peer_credentials(stream: &Stream) -> io::Result<PeerCredentials> {
    let Stream::NamedPipe(pipe) = stream;
    let end = if pipe.inner().is_server() { End::Server } else { End::Client };
    security::peer(pipe, end)
}
