//! tokio's own streams, except that they read by recvmsg(2), as sockpipe does. All other code is
//! tokio's, so the difference from [`Raw`] is the price of that call and of a second look at the
//! readiness, which tokio's public interface needs.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use crate::streams::{Raw, Transport};

pub struct Recvmsg;

impl Transport for Recvmsg {
    type Listener = UnixListener;
    type Stream = ByMessage<UnixStream>;
    type Reader = ByMessage<OwnedReadHalf>;
    type Writer = OwnedWriteHalf;

    fn bind(&self, address: &str) -> io::Result<(UnixListener, Option<String>)> {
        Raw.bind(address)
    }

    async fn accept(listener: &mut UnixListener) -> io::Result<Self::Stream> {
        Raw::accept(listener).await.map(ByMessage)
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        Raw.connect(address).await.map(ByMessage)
    }

    fn split(stream: Self::Stream) -> (Self::Reader, Self::Writer) {
        let (reader, writer) = stream.0.into_split();
        (ByMessage(reader), writer)
    }
}

/// A stream, or the half that reads.
pub struct ByMessage<S>(S);

impl<S: AsRef<UnixStream> + Unpin> AsyncRead for ByMessage<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.0.as_ref();
        let room = buf.remaining();
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let mut received = None;
            let outcome = socket.try_io(Interest::READABLE, || {
                let (length, truncated) = receive(socket, buf.initialize_unfilled())?;
                received = Some(length);
                // The socket is empty, unless a descriptor ended the read. This error makes tokio
                // clear the readiness, as its own streams do after a short read.
                if 0 < length && length < room && !truncated {
                    return Err(ErrorKind::WouldBlock.into());
                }
                Ok(())
            });

            match (received, outcome) {
                (Some(length), _) => {
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                (None, outcome) => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncWrite for ByMessage<UnixStream> {
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
}

/// Returns the number of bytes, and whether the kernel had control data to deliver with them.
#[inline]
fn receive(socket: &UnixStream, buf: &mut [u8]) -> io::Result<(usize, bool)> {
    let mut bytes = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: null pointers, lengths of zero and no flags are a valid message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    // SAFETY: the only buffer of `message` is `buf`, which is borrowed here.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((length, message.msg_flags & libc::MSG_CTRUNC != 0))
}
