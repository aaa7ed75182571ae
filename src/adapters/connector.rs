//! How clients of HTTP and gRPC connect.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::options::ConnectOptions;
use crate::stream::Stream;

/// Connects a client of hyper or tonic to one endpoint, whatever the address in its requests.
///
/// It is a `tower_service::Service<Uri>`. Each call is a new connection; who calls it keeps them and
/// uses them again.
///
/// ```no_run
/// # #[cfg(feature = "hyper-util")]
/// # mod example {
/// use http_body_util::Empty;
/// use hyper::body::Bytes;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use sockpipe::adapters::Connector;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = Connector::new("org.example.tool")?;
/// let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
/// // The host is for the `Host` header; any will do.
/// let answer = client.get("http://localhost/version".parse()?).await?;
/// println!("{}", answer.status());
/// # Ok(())
/// # }
/// # }
/// ```
///
/// A client of tonic, with the feature `tonic`:
///
/// ```no_run
/// # #[cfg(feature = "_grpc_example")]
/// # mod example {
/// use sockpipe::adapters::Connector;
/// use tonic::transport::Endpoint;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = Connector::new("org.example.tool")?;
/// let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
/// # drop(channel);
/// # Ok(())
/// # }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    endpoint: Endpoint,
    options: ConnectOptions,
}

impl Connector {
    /// Connects to `endpoint` with the default options. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the endpoint does not parse.
    pub fn new<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        Ok(Self { endpoint, options: ConnectOptions::default() })
    }

    /// Connects with `options` in place of the default ones.
    #[must_use]
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Where it connects to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// Its errors are those of [`Stream::connect_with`].
impl Service<Uri> for Connector {
    type Response = HyperStream;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        let Self { endpoint, options } = self.clone();
        Connecting(Box::pin(async move {
            let stream = Stream::connect_with(endpoint, &options).await?;
            Ok(HyperStream(TokioIo::new(stream)))
        }))
    }
}

/// What a call of a [`Connector`] gives. Dropping it leaves nothing behind.
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

/// A [`Stream`] that reads and writes by hyper's traits.
#[derive(Debug)]
pub struct HyperStream(TokioIo<Stream>);

impl HyperStream {
    /// The stream.
    #[must_use]
    pub fn get_ref(&self) -> &Stream {
        self.0.inner()
    }

    /// The stream.
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

/// With the feature `hyper-util`, for its clients.
#[cfg(feature = "hyper-util")]
impl hyper_util::client::legacy::connect::Connection for HyperStream {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        hyper_util::client::legacy::connect::Connected::new()
    }
}
