//! The two APIs behind one trait, so that the jobs are the same: the async stream, and the blocking
//! one whose calls block the thread of the task that polls it.

use std::io::{self, Read, Write};
use std::path::Path;
use std::pin::{Pin, pin};
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use sockpipe::{ConnectOptions, Stream, blocking, connect_or_spawn_with};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::jobs::{Fault, receive, send};

/// How long a call of the blocking API may wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client waits for its bytes to leave when it closes.
const CLOSING: Duration = Duration::from_secs(5);

/// What is sent, and expected back.
#[derive(Clone, Copy)]
pub(crate) struct Echo {
    pub(crate) seed: u64,
    pub(crate) length: u64,
    pub(crate) piece: usize,
}

pub(crate) trait Connection:
    AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static
{
    /// Connects, and starts `server` if there is none.
    fn connect(
        path: &Path,
        server: Option<Command>,
        options: &ConnectOptions,
    ) -> impl Future<Output = io::Result<Self>> + Send;

    /// Returns the server's process.
    fn server(&self) -> Option<u32>;

    /// Limits how long each read and write may wait, where dropping its future does not end it.
    fn limit(&self, limit: Duration) -> io::Result<()>;

    /// Writes and reads at the same time, in one of the ways to use both directions of a stream.
    fn echo(self, way: u8, echo: Echo) -> impl Future<Output = Result<(), Fault>> + Send;

    fn close(self) -> impl Future<Output = io::Result<()>> + Send;
}

impl Connection for Stream {
    async fn connect(
        path: &Path,
        server: Option<Command>,
        options: &ConnectOptions,
    ) -> io::Result<Self> {
        match server {
            None => Self::connect_with(path, options).await,
            Some(server) => connect_or_spawn_with(path, server, options).await,
        }
    }

    fn server(&self) -> Option<u32> {
        self.peer_credentials().ok()?.pid()
    }

    fn limit(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    async fn echo(mut self, way: u8, echo: Echo) -> Result<(), Fault> {
        let Echo { seed, length, piece } = echo;
        let (written, read) = match way % 3 {
            0 => {
                let (mut from, mut to) = self.into_split();
                tokio::join!(
                    async {
                        let sent = send(&mut to, seed, length, piece).await;
                        // Dropping this half ends the direction.
                        drop(to);
                        sent
                    },
                    receive(&mut from, seed, length)
                )
            }
            1 => {
                let (mut from, mut to) = self.split();
                tokio::join!(
                    async {
                        send(&mut to, seed, length, piece).await?;
                        to.shutdown().await
                    },
                    receive(&mut from, seed, length)
                )
            }
            _ => {
                let (mut from, mut to) = (&self, &self);
                tokio::join!(
                    async {
                        send(&mut to, seed, length, piece).await?;
                        to.shutdown().await
                    },
                    receive(&mut from, seed, length)
                )
            }
        };
        read?;
        Ok(written?)
    }

    async fn close(self) -> io::Result<()> {
        Self::close(self, CLOSING).await
    }
}

/// A stream of the blocking API. Its futures are ready whenever they are polled.
pub(crate) struct Blocking(pub(crate) blocking::Stream);

impl Blocking {
    /// Sets the limit of each read and write.
    pub(crate) fn set_limit(&self, limit: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(limit))?;
        self.0.set_write_timeout(Some(limit))
    }
}

impl Connection for Blocking {
    async fn connect(
        path: &Path,
        server: Option<Command>,
        options: &ConnectOptions,
    ) -> io::Result<Self> {
        let stream = match server {
            None => blocking::Stream::connect_with(path, options)?,
            Some(server) => blocking::connect_or_spawn_with(path, server, options)?,
        };
        let stream = Self(stream);
        stream.set_limit(PATIENCE)?;
        Ok(stream)
    }

    fn server(&self) -> Option<u32> {
        self.0.peer_credentials().ok()?.pid()
    }

    fn limit(&self, limit: Duration) -> io::Result<()> {
        self.set_limit(limit)
    }

    async fn echo(mut self, _: u8, echo: Echo) -> Result<(), Fault> {
        let Echo { seed, length, piece } = echo;
        let mut to = Self(self.0.try_clone()?);
        let (written, read) = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                now(send(&mut to, seed, length, piece))?;
                to.0.shutdown()
            });
            let read = now(receive(&mut self, seed, length));
            (writer.join().expect("no panic"), read)
        });
        read?;
        Ok(written?)
    }

    async fn close(self) -> io::Result<()> {
        self.0.close(CLOSING)
    }
}

impl AsyncRead for Blocking {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = (&self.0).read(buffer.initialize_unfilled())?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Blocking {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready((&self.0).write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown())
    }
}

/// Runs a future that waits for nothing but [`Blocking`] streams.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a blocking call did not block"),
    }
}
