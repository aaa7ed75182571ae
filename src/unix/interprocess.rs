//! The functions with which the traits are implemented for interprocess's listener and stream. The
//! Windows backend has the same functions.

use std::io;
use std::os::fd::AsFd;

use ::interprocess::local_socket::tokio::{Listener, Stream};

use super::{foreign, inherited};
use crate::endpoint::Endpoint;
use crate::peer::PeerCredentials;
use crate::stream::LocalStream;

pub(crate) async fn accept(listener: &Listener) -> io::Result<Stream> {
    let Listener::UdSocket(listener) = listener;
    let socket = foreign::accept(listener.as_fd()).await?;
    Ok(Stream::UdSocket(foreign::stream(socket)?.into()))
}

pub(crate) fn endpoint(listener: &Listener) -> io::Result<Endpoint> {
    let Listener::UdSocket(listener) = listener;
    inherited::check_listener(listener.as_fd())
}

pub(crate) fn peer_credentials(stream: &Stream) -> io::Result<PeerCredentials> {
    let Stream::UdSocket(stream) = stream;
    LocalStream::peer_credentials(stream.inner())
}
