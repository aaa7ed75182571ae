//! A connection in memory.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

use crate::stream::{Closed, LocalStream};

/// Bytes a stream holds in each direction before a write waits.
const BUFFER: usize = 64 * 1024;

/// A connection inside the process, as [`Connector`](super::Connector) and
/// [`Listener`](super::Listener) make it.
#[derive(Debug)]
pub struct Stream {
    bytes: DuplexStream,
    /// It carries nothing, and is closed once the peer, which has its receiver, is dropped.
    peer: mpsc::Sender<Infallible>,
    _life: mpsc::Receiver<Infallible>,
}

/// Creates two streams connected to each other.
pub(super) fn connected() -> (Stream, Stream) {
    let (one, other) = duplex(BUFFER);
    let (to_one, one_s) = mpsc::channel(1);
    let (to_other, other_s) = mpsc::channel(1);
    let one = Stream { bytes: one, peer: to_other, _life: one_s };
    (one, Stream { bytes: other, peer: to_one, _life: other_s })
}

impl Stream {
    /// Waits until the peer has dropped its stream, as [`Stream::closed`](crate::Stream::closed)
    /// does. A half-close of either side does not end the wait.
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let peer = self.peer.clone();
        async move {
            peer.closed().await;
            Ok(())
        }
    }
}

impl LocalStream for Stream {
    fn closed(&self) -> Closed {
        Box::pin(Self::closed(self))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}
