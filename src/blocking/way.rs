//! Waiting by blocking the thread, for the code that both APIs share.

use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::instance::way::Way;
use crate::options::{ConnectOptions, ListenOptions};
use crate::wait::Deadline;

/// Waits by blocking the thread.
pub(crate) struct Threads;

impl Way for Threads {
    type Listener = super::listener::Listener;
    type Stream = super::stream::Stream;

    fn bind(endpoint: &Endpoint, options: &ListenOptions) -> io::Result<Self::Listener> {
        Self::Listener::bind_with(endpoint, options)
    }

    async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self::Stream> {
        Self::Stream::connect_with(endpoint, options)
    }

    async fn sleep(duration: Duration) -> io::Result<()> {
        thread::sleep(duration);
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

/// Returns the time that a call may still take. A timeout must not be zero, so a deadline that is
/// past is an error.
fn left(end: Deadline) -> io::Result<Option<Duration>> {
    if end.is_past() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(end.left()) }
}

/// Runs a future that waits only by [`Threads`]. A poll blocks the thread, so the future is ready
/// when it returns.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
