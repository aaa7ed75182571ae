//! The two ways to wait: in a runtime, and by blocking the thread. The code that waits is generic
//! over them.

use std::future::Future;
#[cfg(feature = "tokio")]
use std::future::poll_fn;
use std::io;
#[cfg(feature = "tokio")]
use std::pin::pin;
#[cfg(feature = "tokio")]
use std::task::Poll;
use std::time::Duration;

#[cfg(feature = "tokio")]
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::endpoint::Endpoint;
use crate::options::{ConnectOptions, ListenOptions};

pub(crate) trait Way {
    type Listener;
    type Stream;

    fn bind(endpoint: &Endpoint, options: &ListenOptions) -> io::Result<Self::Listener>;

    fn connect(
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    fn sleep(duration: Duration) -> impl Future<Output = io::Result<()>> + Send;

    /// Writes all of `bytes`. Fails with `TimedOut` after `limit`.
    fn write_all(
        stream: &mut Self::Stream,
        bytes: &[u8],
        limit: Option<Duration>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Fills `bytes`. Fails with `TimedOut` after `limit`.
    fn read_exact(
        stream: &mut Self::Stream,
        bytes: &mut [u8],
        limit: Option<Duration>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Returns the process at the other end, if the OS reports it.
    fn process(stream: &Self::Stream) -> Option<u32>;
}

/// Waits in the tokio runtime of the caller.
#[cfg(feature = "tokio")]
pub(crate) struct Tasks;

#[cfg(feature = "tokio")]
impl Way for Tasks {
    type Listener = crate::listener::Listener;
    type Stream = crate::stream::Stream;

    fn bind(endpoint: &Endpoint, options: &ListenOptions) -> io::Result<Self::Listener> {
        Self::Listener::bind_with(endpoint, options)
    }

    async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self::Stream> {
        Self::Stream::connect_with(endpoint, options).await
    }

    async fn sleep(duration: Duration) -> io::Result<()> {
        crate::imp::sleep(duration)?.await;
        Ok(())
    }

    async fn write_all(
        stream: &mut Self::Stream,
        bytes: &[u8],
        limit: Option<Duration>,
    ) -> io::Result<()> {
        within(limit, stream.write_all(bytes)).await
    }

    async fn read_exact(
        stream: &mut Self::Stream,
        bytes: &mut [u8],
        limit: Option<Duration>,
    ) -> io::Result<()> {
        within(limit, stream.read_exact(bytes)).await.map(drop)
    }

    fn process(stream: &Self::Stream) -> Option<u32> {
        stream.peer_credentials().ok()?.pid()
    }
}

/// Returns the output of `future`, or `TimedOut` after `limit`.
#[cfg(feature = "tokio")]
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let Some(limit) = limit else { return future.await };
    let (mut future, mut late) = (pin!(future), pin!(crate::imp::sleep(limit)?));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Pending => late.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        ready => ready,
    })
    .await
}
