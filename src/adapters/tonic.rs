//! The connection info that tonic passes to its services.

use tonic::transport::server::Connected;

use super::PeerInfo;
use crate::listener::timed::TimedStream;
use crate::stream::{LocalStream, Stream};

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
