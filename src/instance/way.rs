//! How what waits here waits: in a runtime, or by blocking the thread. The rest is written once.

use std::future::Future;
#[cfg(feature = "tokio")]
use std::future::poll_fn;
use std::io;
#[cfg(feature = "blocking")]
use std::io::{Read, Write};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

#[cfg(feature = "tokio")]
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::endpoint::Endpoint;
use crate::options::{ConnectOptions, ListenOptions};
#[cfg(feature = "blocking")]
use crate::wait::Deadline;

pub(crate) trait Way {
    type Listener;
    type Stream;

    fn bind(endpoint: &Endpoint, options: &ListenOptions) -> io::Result<Self::Listener>;

    fn connect(
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    fn sleep(duration: Duration) -> impl Future<Output = io::Result<()>> + Send;

    /// `TimedOut` where it takes longer than `limit`.
    fn write_all(
        stream: &mut Self::Stream,
        bytes: &[u8],
        limit: Option<Duration>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// As [`write_all`](Self::write_all).
    fn read_exact(
        stream: &mut Self::Stream,
        bytes: &mut [u8],
        limit: Option<Duration>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// The process at the other end, where that can be told.
    fn process(stream: &Self::Stream) -> Option<u32>;
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

/// What `future` gives, unless that takes longer than `limit`.
#[cfg(feature = "tokio")]
async fn within<T>(
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

    async fn write_all(
        stream: &mut Self::Stream,
        mut bytes: &[u8],
        limit: Option<Duration>,
    ) -> io::Result<()> {
        let end = Deadline::after(limit);
        while !bytes.is_empty() {
            stream.set_write_timeout(left(end)?)?;
            match stream.write(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        stream.set_write_timeout(None)
    }

    async fn read_exact(
        stream: &mut Self::Stream,
        mut bytes: &mut [u8],
        limit: Option<Duration>,
    ) -> io::Result<()> {
        let end = Deadline::after(limit);
        while !bytes.is_empty() {
            stream.set_read_timeout(left(end)?)?;
            match stream.read(bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => bytes = &mut bytes[read..],
            }
        }
        stream.set_read_timeout(None)
    }

    fn process(stream: &Self::Stream) -> Option<u32> {
        stream.peer_credentials().ok()?.pid()
    }
}

/// What a call may take that may not take no time at all.
#[cfg(feature = "blocking")]
fn left(end: Deadline) -> io::Result<Option<Duration>> {
    if end.is_past() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(end.left()) }
}

/// What a future gives that waits by [`Threads`] only, and so is ready when it is asked.
#[cfg(feature = "blocking")]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    use std::task::{Context, Waker};

    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
