//! Streams whose credentials come from the caller and not from the transport.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::LocalListener;
use crate::endpoint::Endpoint;
use crate::peer::PeerCredentials;
use crate::stream::LocalStream;

/// A stream with given credentials, or a listener whose streams have them.
///
/// Use it in tests over [`memory`](crate::memory) of code that decides by user, and to turn any
/// reader and writer, such as a TLS stream, into a [`LocalStream`].
///
/// ```
/// use sockpipe::{LocalListener, LocalStream, PeerCredentials, UserId, WithCredentials, memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (listener, connector) = memory::pair();
/// let root = PeerCredentials::from(UserId::Uid(0));
/// let mut listener = WithCredentials::new(listener, root);
/// let _client = connector.connect().await?;
/// let server = listener.accept().await?;
/// assert!(server.peer_credentials()?.is_system());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WithCredentials<T> {
    inner: T,
    credentials: PeerCredentials,
}

impl<T> WithCredentials<T> {
    /// Creates a wrapper that reports `credentials` as the peer's of `inner`, a stream or a
    /// listener.
    pub fn new(inner: T, credentials: PeerCredentials) -> Self {
        Self { inner, credentials }
    }

    /// Returns a reference to the inner stream or listener.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Returns the inner stream or listener.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<L: LocalListener> LocalListener for WithCredentials<L> {
    type Stream = WithCredentials<L::Stream>;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let stream = self.inner.accept().await?;
        Ok(WithCredentials::new(stream, self.credentials.clone()))
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        self.inner.endpoint()
    }

    fn stop_listening(&mut self) -> Vec<Self::Stream> {
        let streams = self.inner.stop_listening().into_iter();
        streams.map(|stream| WithCredentials::new(stream, self.credentials.clone())).collect()
    }

    fn release(&mut self) -> io::Result<()> {
        self.inner.release()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> LocalStream for WithCredentials<S> {
    /// # Errors
    ///
    /// Never.
    fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Ok(self.credentials.clone())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithCredentials<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithCredentials<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};

    use super::*;
    use crate::memory::tests::at_once;
    use crate::peer::UserId;
    use crate::{memory, serve};

    #[tokio::test]
    async fn a_handler_sees_the_credentials_that_a_test_chose() {
        let (listener, connector) = memory::pair();
        let visitor = PeerCredentials::new(UserId::Uid(7), None, Some(9));
        let listener = WithCredentials::new(listener, visitor);
        let handler = async |mut stream: WithCredentials<_>| {
            let peer = stream.peer_credentials()?;
            stream.write_all(format!("{} {:?}", peer.user(), peer.pid()).as_bytes()).await
        };
        let server = tokio::spawn(serve(listener, handler).into_future());
        let mut client = connector.connect().await.expect("a connection");
        let mut said = String::new();
        client.read_to_string(&mut said).await.expect("an end");
        assert_eq!(said, "uid 7 Some(9)");
        server.abort();
    }

    #[test]
    fn what_the_stream_buffers_goes_out_at_a_flush() {
        let (near, mut far) = tokio::io::duplex(16);
        let visitor = PeerCredentials::from(UserId::Uid(7));
        let mut stream = WithCredentials::new(BufStream::new(near), visitor);
        assert!(stream.is_write_vectored());
        let parts = [IoSlice::new(b"a"), IoSlice::new(b"bc")];
        assert_eq!(at_once(stream.write_vectored(&parts)).expect("room"), 3);
        at_once(stream.write_all(b"d")).expect("room");
        at_once(stream.flush()).expect("a flush");
        let mut bytes = [0; 4];
        at_once(far.read_exact(&mut bytes)).expect("all of them");
        assert_eq!(bytes, *b"abcd");
        at_once(stream.shutdown()).expect("an end");
        assert_eq!(at_once(far.read(&mut bytes)).expect("the end"), 0);
    }

    #[test]
    fn pending_streams_have_the_chosen_credentials() {
        let (listener, connector) = memory::pair();
        let visitor = PeerCredentials::from(UserId::Uid(7));
        let _client = at_once(connector.connect()).expect("a connection");
        let pending = WithCredentials::new(listener, visitor.clone()).stop_listening();
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].peer_credentials().expect("credentials"), visitor);
    }
}
