//! `axum::serve` on sockpipe's listeners.

use std::io;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener as AxumListener};

use super::PeerInfo;
use crate::endpoint::Endpoint;
use crate::error::events;
use crate::listener::timed::TimedListener;
use crate::listener::{Listener, LocalListener, WithCredentials};
use crate::{imp, memory};

/// The pause before a failed listener is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// With the feature `axum`. The address is the listener's, and `None` for clients, which have no
/// address: [`PeerInfo`] has their credentials.
///
/// axum has no way to report a failed listener. The adapter retries every second, and each failure
/// is an event for `tracing`.
impl AxumListener for Listener {
    type Io = <Self as LocalListener>::Stream;
    type Addr = Option<Endpoint>;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        (accept(self).await, None)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        LocalListener::endpoint(self).map(Some)
    }
}

/// With the feature `axum`, for deadlines, and for listeners of other crates. The
/// [`idle_deadline`](TimedListener::idle_deadline) of reads runs between requests only.
impl<L: LocalListener> AxumListener for TimedListener<L> {
    type Io = <Self as LocalListener>::Stream;
    type Addr = Option<Endpoint>;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        (accept(self).await.for_http(), None)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        LocalListener::endpoint(self).map(Some)
    }
}

/// With the feature `axum`.
impl AxumListener for memory::Listener {
    type Io = <Self as LocalListener>::Stream;
    type Addr = Option<Endpoint>;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        (accept(self).await, None)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(None)
    }
}

/// With the feature `axum`, for tests: handlers see the user that the test chooses.
impl<L: LocalListener> AxumListener for WithCredentials<L> {
    type Io = <Self as LocalListener>::Stream;
    type Addr = Option<Endpoint>;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        (accept(self).await, None)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(LocalListener::endpoint(self).ok())
    }
}

/// With the feature `axum`, for `into_make_service_with_connect_info::<PeerInfo>()`.
impl Connected<IncomingStream<'_, Listener>> for PeerInfo {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self::of(stream.io())
    }
}

/// With the feature `axum`.
impl<L: LocalListener> Connected<IncomingStream<'_, TimedListener<L>>> for PeerInfo {
    fn connect_info(stream: IncomingStream<'_, TimedListener<L>>) -> Self {
        Self::of(stream.io())
    }
}

/// With the feature `axum`. It holds the credentials that the test chose.
impl<L: LocalListener> Connected<IncomingStream<'_, WithCredentials<L>>> for PeerInfo {
    fn connect_info(stream: IncomingStream<'_, WithCredentials<L>>) -> Self {
        Self::of(stream.io())
    }
}

/// With the feature `axum`. It holds an error, because the peer is this process itself.
impl Connected<IncomingStream<'_, memory::Listener>> for PeerInfo {
    fn connect_info(stream: IncomingStream<'_, memory::Listener>) -> Self {
        Self::of(stream.io())
    }
}

async fn accept<L: LocalListener>(listener: &mut L) -> L::Stream {
    loop {
        match listener.accept().await {
            Ok(stream) => return stream,
            Err(error) => {
                events::accept_failed(&error, PAUSE);
                match imp::sleep(PAUSE) {
                    Ok(pause) => pause.await,
                    // A runtime without timers cannot wait before the next attempt, and retrying at
                    // once would spin.
                    Err(_) => std::future::pending().await,
                }
            }
        }
    }
}
