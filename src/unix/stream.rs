//! A connection: a socket that the user's tokio runtime watches.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, send, sendmsg};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UnixStream;

use super::connect::Search;
use super::peer::Peer;
use super::receive::receive;
use super::spin::tasks::Spin;
use super::{IOV_MAX, platform, prepare, runtime, shut_down};
use crate::endpoint::Endpoint;
use crate::options::{ConnectOptions, StreamOptions};
use crate::peer::PeerCredentials;
use crate::runtime::enter;

/// The most that is received into a buffer that is not initialized before the reactor is asked.
const DIRECT: usize = 4096;

pub(crate) struct Stream {
    pub(super) socket: UnixStream,
    pub(super) peer: Peer,
    pub(super) spin: Option<Box<Spin>>,
}

impl Stream {
    pub(crate) async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        let mut search = Search::new(endpoint, options)?;
        loop {
            match search.attempt()? {
                Ok((socket, peer)) => return Self::new(socket, peer, options.stream),
                Err(pause) => runtime::sleep(pause)?.await,
            }
        }
    }

    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = enter(UnixStream::pair)??;
        Ok((Self::from_tokio(one)?, Self::from_tokio(other)?))
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(spin) = &self.spin else { return self.read(cx, buf) };
        spin.poll(cx, buf, |buf| self.receive(buf), |cx, buf| self.read(cx, buf))
    }

    /// A read that the reactor does not hear of. What it takes away from under the reactor's nose
    /// costs a later read one try more.
    fn receive(&self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Room has to be initialized first, and is no more than needed for most answers.
        let initialized = buf.initialized().len() - buf.filled().len();
        let room = initialized.max(buf.remaining().min(DIRECT));
        match recv(&self.socket, buf.initialize_unfilled_to(room), RecvFlags::DONTWAIT) {
            Ok((length, _)) => buf.advance(length),
            Err(Errno::AGAIN | Errno::INTR) => return Poll::Pending,
            // As in `read`.
            Err(Errno::CONNRESET) => {}
            Err(errno) => return Poll::Ready(Err(errno.into())),
        }
        Poll::Ready(Ok(()))
    }

    fn read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let mut read = None;
            let outcome = self.socket.try_io(Interest::READABLE, || {
                let received = receive(&self.socket, buf)?;
                read = Some(received.length);
                // A short read without control data means that the socket is empty. `WouldBlock`
                // tells the reactor so; else the next read would have to find out.
                if received.length == 0 || received.may_have_more {
                    Ok(())
                } else {
                    Err(ErrorKind::WouldBlock.into())
                }
            });
            match (read, outcome) {
                (Some(_), _) => return Poll::Ready(Ok(())),
                (None, Err(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // Linux: the peer closed with bytes of ours unread. To us it is gone, no more.
                (None, Err(error)) if error.kind() == ErrorKind::ConnectionReset => {
                    return Poll::Ready(Ok(()));
                }
                (None, outcome) => return Poll::Ready(outcome),
            }
        }
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(cx, || {
            let mut sent = None;
            let outcome = self.socket.try_io(Interest::WRITABLE, || {
                let length = send(&self.socket, buf, platform::NO_SIGNAL)?;
                sent = Some(length);
                // A short write means that there is no more room, as a short read that there is no
                // more to read; see there.
                if length == buf.len() { Ok(length) } else { Err(ErrorKind::WouldBlock.into()) }
            });
            sent.map_or(outcome, Ok)
        })
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bufs = &bufs[..bufs.len().min(IOV_MAX)];
        // As writev(2), which std uses, but without its signal when the peer is gone.
        let send_all = || {
            let sent = sendmsg(&self.socket, bufs, &mut Default::default(), platform::NO_SIGNAL);
            Ok(sent?)
        };
        self.write_with(cx, || self.socket.try_io(Interest::WRITABLE, send_all))
    }

    pub(crate) fn is_write_vectored(&self) -> bool {
        true
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        shut_down(self.socket.as_fd())
    }

    /// The kernel has the bytes as soon as a write returns, so there is nothing to wait for.
    pub(crate) async fn close(self, _: Duration) -> io::Result<()> {
        self.shutdown()
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Ok(self.peer.credentials())
    }

    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(self.socket.into_std()?.into())
    }

    pub(super) fn from_socket(socket: OwnedFd, options: StreamOptions) -> io::Result<Self> {
        let peer = Peer::of(socket.as_fd())?;
        Self::new(socket, peer, options)
    }

    pub(super) fn from_tokio(socket: UnixStream) -> io::Result<Self> {
        platform::no_signals(socket.as_fd())?;
        Ok(Self { peer: Peer::of(socket.as_fd())?, socket, spin: None })
    }

    pub(super) fn into_tokio(self) -> UnixStream {
        self.socket
    }

    /// Zero, or what it gives in place of zero, once the peer is gone.
    pub(super) async fn read_by<T: Default>(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let socket = self.socket.as_fd();
        match self.socket.async_io(Interest::READABLE, || Ok(read(socket)?)).await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(T::default()),
            done => done,
        }
    }

    pub(super) async fn write_by<T>(
        &self,
        mut write: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let socket = self.socket.as_fd();
        match self.socket.async_io(Interest::WRITABLE, || Ok(write(socket)?)).await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Errno::PIPE.into()),
            done => done,
        }
    }

    pub(super) fn new(socket: OwnedFd, peer: Peer, options: StreamOptions) -> io::Result<Self> {
        prepare(socket.as_fd(), options)?;
        let socket = enter(|| UnixStream::from_std(socket.into()))??;
        Ok(Self { socket, peer, spin: Spin::new(options.spin) })
    }

    fn write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match write() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The peer closed with bytes of ours unread, in the middle of this.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Poll::Ready(Err(Errno::PIPE.into()));
                }
                done => {
                    if let Some(spin) = &self.spin {
                        spin.wrote();
                    }
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSocket")
            .field("socket", &self.socket.as_fd())
            .field("peer", &self.peer)
            .finish()
    }
}
