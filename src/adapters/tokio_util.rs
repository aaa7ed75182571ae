//! tokio-util's trait for listeners.

use std::io;
use std::task::{Context, Poll, ready};

use tokio_util::net::Listener as UtilListener;

use super::Incoming;
use crate::endpoint::Endpoint;
use crate::listener::{Listener, LocalListener};
use crate::stream::Stream;

/// With the feature `tokio-util`. The address is the listener's, and `None` for clients, which have
/// no address.
impl UtilListener for Listener {
    type Io = Stream;
    type Addr = Option<Endpoint>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Self::Addr)>> {
        Self::poll_accept(self, cx).map_ok(|stream| (stream, None))
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        LocalListener::endpoint(self).map(Some)
    }
}

/// With the feature `tokio-util`, for listeners that cannot be polled.
impl<L: LocalListener> UtilListener for Incoming<L> {
    type Io = L::Stream;
    type Addr = Option<Endpoint>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Self::Addr)>> {
        Poll::Ready(match ready!(self.poll_connection(cx)) {
            Some(accepted) => accepted.map(|stream| (stream, None)),
            None => {
                let what = "the listener has failed before, and accepts nothing any more";
                Err(io::Error::new(io::ErrorKind::NotConnected, what))
            }
        })
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.endpoint().cloned())
    }
}
