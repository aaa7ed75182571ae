//! The connector for clients of HTTP and gRPC.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::instance::connector::Connector;
use crate::stream::Stream;

/// With the feature `hyper-util`: connects a client of hyper or tonic to this connector's endpoint,
/// whatever address its requests have. Each call makes a new connection; the client pools and
/// reuses them.
///
/// ```no_run
/// use http_body_util::Empty;
/// use hyper::body::Bytes;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use sockpipe::Connector;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = Connector::new("org.example.tool")?;
/// let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
/// // The host is for the `Host` header; any will do.
/// let answer = client.get("http://localhost/version".parse()?).await?;
/// println!("{}", answer.status());
/// # Ok(())
/// # }
/// ```
impl Service<Uri> for Connector {
    type Response = HyperStream;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        let connector = self.clone();
        Connecting(Box::pin(
            async move { Ok(HyperStream(TokioIo::new(connector.connect().await?))) },
        ))
    }
}

/// The future of a call of a [`Connector`]. Dropping it leaves nothing behind.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Connecting(Pin<Box<dyn Future<Output = io::Result<HyperStream>> + Send>>);

impl Future for Connecting {
    type Output = io::Result<HyperStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

/// A [`Stream`] that implements hyper's traits for reading and writing.
#[derive(Debug)]
pub struct HyperStream(TokioIo<Stream>);

impl HyperStream {
    /// Returns the stream.
    #[must_use]
    pub fn get_ref(&self) -> &Stream {
        self.0.inner()
    }

    /// Returns the stream.
    #[must_use]
    pub fn into_inner(self) -> Stream {
        self.0.into_inner()
    }
}

impl Read for HyperStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for HyperStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

impl hyper_util::client::legacy::connect::Connection for HyperStream {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        hyper_util::client::legacy::connect::Connected::new()
    }
}
