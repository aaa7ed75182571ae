//! Servers of tonic: the connections that they take, and what their services see of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::transport::server::Connected;

use super::{Incoming, PeerInfo};
use crate::listener::LocalListener;
use crate::stream::{LocalStream, Stream};
use crate::timed::TimedStream;

/// With the feature `tonic`.
impl<L: LocalListener> futures_core::Stream for Incoming<L> {
    type Item = io::Result<L::Stream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_connection(cx)
    }
}

/// With the feature `tonic`.
impl Connected for Stream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo::of(self)
    }
}

/// With the feature `tonic`; also for streams that are not sockpipe's own.
impl<S: LocalStream> Connected for TimedStream<S> {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo::of(self)
    }
}
