//! How what waits here waits: in a runtime, or by blocking the thread. The rest is written once.

use std::future::Future;
use std::io;
use std::time::Duration;

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
}

/// By the tokio runtime that the caller is in.
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
}

/// By blocking the thread.
#[cfg(feature = "blocking")]
pub(crate) struct Threads;

#[cfg(feature = "blocking")]
impl Way for Threads {
    type Listener = crate::blocking::Listener;
    type Stream = crate::blocking::Stream;

    fn bind(endpoint: &Endpoint, options: &ListenOptions) -> io::Result<Self::Listener> {
        Self::Listener::bind_with(endpoint, options)
    }

    async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self::Stream> {
        Self::Stream::connect_with(endpoint, options)
    }

    async fn sleep(duration: Duration) -> io::Result<()> {
        std::thread::sleep(duration);
        Ok(())
    }
}

/// What a future gives that waits by [`Threads`] only, and so is ready when it is asked.
#[cfg(feature = "blocking")]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    use std::task::{Context, Poll, Waker};

    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
