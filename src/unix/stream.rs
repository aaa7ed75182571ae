//! A connection: a socket that the user's tokio runtime watches.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, send, sendmsg};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};
use tokio::net::UnixStream;

use super::connect::Search;
use super::gone::Watch;
use super::peer::Peer;
use super::receive::{Filled, Received, receive, receive_into};
use super::shared_memory::tasks::Lane;
use super::spin::tasks::Spin;
use super::{
    at_most, at_most_of, is_broken, platform, prepare, runtime, shut_down, socket_is_not_all,
};
use crate::endpoint::Endpoint;
use crate::error::{Error, Operation};
use crate::options::{ConnectOptions, StreamOptions};
use crate::peer::{PeerCredentials, PeerTold};
use crate::runtime::enter;

/// How many bytes of an uninitialized buffer a read without the reactor initializes at most.
const DIRECT: usize = 4096;

pub(crate) struct Stream {
    socket: AsyncFd<OwnedFd>,
    pub(super) peer: Peer,
    filled: Filled,
    pub(super) spin: Option<Box<Spin>>,
    /// The shared-memory lane, if the stream may use one.
    lane: Option<Lane>,
}

impl Stream {
    pub(crate) async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        let mut search = Search::new(endpoint, options)?;
        loop {
            match search.attempt()? {
                Ok((socket, peer)) => {
                    let mut stream = Self::new(socket, peer, options.stream)?;
                    stream.lane = Lane::connected(&stream.socket, peer.uid, options.stream);
                    return Ok(stream);
                }
                Err(pause) => runtime::sleep(pause)?.await,
            }
        }
    }

    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = net::UnixStream::pair()?;
        let stream = |socket: net::UnixStream| {
            socket.set_nonblocking(true)?;
            Self::new(socket.into(), Peer::this_process(), StreamOptions::default())
        };
        Ok((stream(one)?, stream(other)?))
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(lane) = &self.lane {
            return lane.poll_read(&self.socket, &self.filled, self.spin.as_deref(), cx, buf);
        }
        let Some(spin) = &self.spin else { return self.read(cx, buf) };
        spin.poll(cx, buf, |buf| self.receive(buf), |cx, buf| self.read(cx, buf))
    }

    /// Reads without asking the reactor. The reactor then still expects the bytes that this call
    /// takes, which costs a later read one more attempt.
    fn receive(&self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The buffer has to be initialized first, so only the part that most answers need is used.
        let initialized = buf.initialized().len() - buf.filled().len();
        let room = initialized.max(buf.remaining().min(DIRECT));
        match receive_into(self.as_fd(), buf.initialize_unfilled_to(room), RecvFlags::DONTWAIT) {
            Ok(length) => buf.advance(length),
            Err(Errno::AGAIN | Errno::INTR) => return Poll::Pending,
            // As in `read`.
            Err(Errno::CONNRESET) => {}
            Err(errno) => return Poll::Ready(Err(errno.into())),
        }
        Poll::Ready(Ok(()))
    }

    /// Calls itself if there was nothing to read after all, which costs a usual read less than a
    /// loop. The recursion ends with the task's budget, because each call uses some of it.
    fn read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ready = ready!(self.socket.poll_read_ready(cx))?;
        match receive(self.as_fd(), buf, &self.filled) {
            Received::Whole => {}
            // The socket is empty, unless an out-of-band byte ended the read. Clear the readiness
            // now, or the next read would have to find out.
            Received::Short => {
                if !platform::may_have_marks(&self.socket) {
                    ready.clear_ready();
                }
            }
            Received::Failed(Errno::AGAIN) => {
                ready.clear_ready();
                return self.read(cx, buf);
            }
            Received::Failed(Errno::INTR) => return self.read(cx, buf),
            // Linux: the peer closed without reading all bytes. Report that as end of file.
            Received::Failed(Errno::CONNRESET) => {}
            Received::Failed(errno) => return Poll::Ready(Err(errno.into())),
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let buf = at_most(buf);
        if let Some(lane) = &self.lane {
            return lane.poll_write(&self.socket, self.spin.as_deref(), cx, &[IoSlice::new(buf)]);
        }
        self.write_with(cx, buf.len(), || send(self, buf, platform::NO_SIGNAL))
    }

    /// As [`poll_write`](Self::poll_write), for a caller that has the stream to itself.
    pub(crate) fn poll_write_alone(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(lane) = &mut self.lane {
            let bufs = [IoSlice::new(at_most(buf))];
            return lane.poll_write_alone(&self.socket, self.spin.as_deref(), cx, &bufs);
        }
        self.poll_write(cx, buf)
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bufs = match (bufs, at_most_of(bufs)) {
            ([first, ..], []) => return self.poll_write(cx, first),
            (_, bufs) => bufs,
        };
        if let Some(lane) = &self.lane {
            return lane.poll_write(&self.socket, self.spin.as_deref(), cx, bufs);
        }
        // The same as writev(2), which std uses, but without its signal when the peer is gone.
        let send_all = || sendmsg(self, bufs, &mut Default::default(), platform::NO_SIGNAL);
        self.write_with(cx, 0, send_all)
    }

    pub(crate) fn is_write_vectored(&self) -> bool {
        true
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match &self.lane {
            Some(lane) => lane.shut_down(&self.socket),
            None => shut_down(self.as_fd()),
        }
    }

    /// The kernel has the bytes as soon as a write returns, so there is nothing to wait for.
    pub(crate) async fn close(self, _: Duration) -> io::Result<()> {
        self.shutdown()
    }

    /// The peer is known from the start.
    pub(crate) fn peer_told(&self) -> Option<PeerTold> {
        None
    }

    pub(crate) fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let watch = Watch::new(self.as_fd());
        async { watch?.gone().await }
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Ok(self.peer.credentials())
    }

    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        self.only_socket()?;
        Ok(self.socket.into_inner())
    }

    /// # Errors
    ///
    /// `Unsupported` for a stream that may use shared memory.
    pub(super) fn only_socket(&self) -> io::Result<()> {
        self.lane.as_ref().map_or(Ok(()), |_| Err(socket_is_not_all()))
    }

    #[cfg(feature = "blocking")]
    pub(super) fn into_parts(self) -> (OwnedFd, Option<Lane>) {
        (self.socket.into_inner(), self.lane)
    }

    #[cfg(feature = "blocking")]
    pub(super) fn from_parts(
        socket: OwnedFd,
        peer: Peer,
        options: StreamOptions,
        lane: Option<Lane>,
    ) -> io::Result<Self> {
        Ok(Self { lane, ..Self::new(socket, peer, options)? })
    }

    #[cfg(feature = "shared-memory")]
    pub(crate) fn uses_memory(&self) -> bool {
        self.lane.as_ref().is_some_and(Lane::is_upgraded)
    }

    pub(super) fn from_socket(socket: OwnedFd, options: StreamOptions) -> io::Result<Self> {
        let peer = Peer::of(socket.as_fd())?;
        let mut stream = Self::new(socket, peer, options)?;
        stream.lane = Lane::accepted(&stream.socket, peer.uid, options);
        Ok(stream)
    }

    pub(super) fn from_tokio(socket: UnixStream) -> io::Result<Self> {
        let socket = OwnedFd::from(socket.into_std()?);
        platform::no_signals(socket.as_fd())?;
        Self::from_socket(socket, StreamOptions::default())
    }

    pub(super) fn into_tokio(self) -> io::Result<UnixStream> {
        self.only_socket()?;
        enter(|| UnixStream::from_std(self.socket.into_inner().into()))?
    }

    /// Reads with `read`. Once the peer is gone, returns the default of `T`, which stands for end
    /// of file.
    pub(super) async fn read_by<T: Default>(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let read = self.socket.async_io(Interest::READABLE, |socket| Ok(read(socket.as_fd())?));
        match read.await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(T::default()),
            done => done,
        }
    }

    pub(super) async fn write_by<T>(
        &self,
        mut write: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let write = self.socket.async_io(Interest::WRITABLE, |socket| Ok(write(socket.as_fd())?));
        match write.await {
            Err(error) if Errno::from_io_error(&error).is_some_and(is_broken) => {
                Err(Errno::PIPE.into())
            }
            done => done,
        }
    }

    pub(super) fn new(socket: OwnedFd, peer: Peer, options: StreamOptions) -> io::Result<Self> {
        prepare(socket.as_fd(), options)?;
        let socket = runtime::register_for(socket, platform::STREAM_INTEREST).map_err(no_stream)?;
        let filled = Filled::default();
        Ok(Self { socket, peer, filled, spin: Spin::new(options.spin), lane: None })
    }

    /// Writes with `write`. If it writes less than `length`, the socket has no more room. Pass zero
    /// if a short write does not mean that.
    fn write_with(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        mut write: impl FnMut() -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.socket.poll_write_ready(cx))?;
            let written = match write() {
                Ok(written) => {
                    if written < length {
                        ready.clear_ready();
                    }
                    Ok(written)
                }

                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(errno) if is_broken(errno) => Err(Errno::PIPE.into()),
                Err(errno) => Err(errno.into()),
            };

            if let Some(spin) = &self.spin {
                spin.wrote();
            }
            return Poll::Ready(written);
        }
    }
}

/// No stream can be made of a socket. `connect` sets an operation of its own.
fn no_stream(error: io::Error) -> io::Error {
    match error.downcast::<Error>() {
        Ok(error) => error.in_operation(Operation::Adopt).into(),
        Err(error) => error,
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSocket")
            .field("socket", &self.as_fd())
            .field("peer", &self.peer)
            .finish()
    }
}
