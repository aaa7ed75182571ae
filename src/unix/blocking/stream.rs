//! A stream whose calls block.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, SendFlags, send, sendmsg};

use crate::endpoint::Endpoint;
#[cfg(feature = "tokio")]
use crate::options::SpinPolicy;
use crate::options::{ConnectOptions, StreamOptions};
use crate::peer::PeerCredentials;
use crate::unix::connect::Search;
use crate::unix::gone::Watch;
use crate::unix::peer::Peer;
use crate::unix::poll::wait_for;
use crate::unix::receive::receive_into;
use crate::unix::shared_memory::threads::Lane;
use crate::unix::spin::threads::Spin;
use crate::unix::{
    at_most, at_most_of, is_broken, platform, prepare, shut_down, socket_is_not_all,
};
use crate::wait::{Deadline, Limit, timed_out};

pub(crate) struct Stream {
    pub(super) socket: OwnedFd,
    pub(super) peer: Peer,
    spin: Option<Spin>,
    /// The lane through shared memory, if the stream may use it.
    pub(super) lane: Option<Lane>,
}

impl Stream {
    pub(crate) fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        let mut search = Search::new(endpoint, options)?;
        loop {
            match search.attempt()? {
                Ok((socket, peer)) => {
                    let mut stream = Self::new(socket, peer, options.stream)?;
                    stream.lane = Lane::connected(&stream.socket, peer.uid, options.stream);
                    return Ok(stream);
                }
                Err(pause) => thread::sleep(pause),
            }
        }
    }

    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        let stream = |socket: UnixStream| {
            Self::new(socket.into(), Peer::this_process(), StreamOptions::default())
        };
        Ok((stream(one)?, stream(other)?))
    }

    #[inline]
    pub(crate) fn read(&self, buf: &mut [u8], limit: Limit) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if let Some(lane) = &self.lane {
            let deadline = Deadline::after(limit.get());
            return lane.read(&self.socket, self.spin.as_ref(), buf, deadline);
        }
        self.read_with(limit, |socket, flags| receive_into(socket, buf, flags))
    }

    #[inline]
    pub(crate) fn write(&self, buf: &[u8], limit: Limit) -> io::Result<usize> {
        let buf = at_most(buf);
        if let Some(lane) = &self.lane {
            return lane.write(&self.socket, &[IoSlice::new(buf)], Deadline::after(limit.get()));
        }
        self.write_with(limit, |socket, flags| send(socket, buf, flags))
    }

    #[inline]
    pub(crate) fn write_vectored(&self, bufs: &[IoSlice<'_>], limit: Limit) -> io::Result<usize> {
        let bufs = match (bufs, at_most_of(bufs)) {
            ([first, ..], []) => return self.write(first, limit),
            (_, bufs) => bufs,
        };
        if let Some(lane) = &self.lane {
            return lane.write(&self.socket, bufs, Deadline::after(limit.get()));
        }
        self.write_with(limit, |socket, flags| {
            sendmsg(socket, bufs, &mut Default::default(), flags)
        })
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match &self.lane {
            Some(lane) => lane.shut_down(&self.socket),
            None => shut_down(self.as_fd()),
        }
    }

    /// The kernel has the bytes as soon as a write returns, so there is nothing to wait for.
    pub(crate) fn close(&self, _: Duration) -> io::Result<()> {
        self.shutdown()
    }

    pub(crate) fn closed(&self, deadline: Deadline) -> io::Result<bool> {
        Watch::new(self.as_fd())?.wait(deadline)
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Ok(self.peer.credentials())
    }

    pub(in crate::unix) fn from_socket(
        socket: OwnedFd,
        options: StreamOptions,
    ) -> io::Result<Self> {
        let peer = Peer::of(socket.as_fd())?;
        platform::no_signals(socket.as_fd())?;
        let mut stream = Self::new(socket, peer, options)?;
        stream.lane = Lane::accepted(&stream.socket, peer.uid, options);
        Ok(stream)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn from_async(stream: crate::unix::Stream) -> io::Result<Self> {
        let options = with_spin(stream.spin.is_some());
        let peer = stream.peer;
        let (socket, lane) = stream.into_parts();
        let mut blocking = Self::new(socket, peer, options)?;
        blocking.lane = lane.map(|lane| Lane::from_async(lane, options)).transpose()?;
        Ok(blocking)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn into_async(self) -> io::Result<crate::unix::Stream> {
        ioctl_fionbio(&self.socket, true)?;
        let options = with_spin(self.spin.is_some());
        let lane = self.lane.map(Lane::into_async).transpose()?;
        crate::unix::Stream::from_parts(self.socket, self.peer, options, lane)
    }

    pub(in crate::unix) fn into_fd(self) -> io::Result<OwnedFd> {
        self.only_socket()?;
        if !platform::DONTWAIT_IS_HONORED {
            ioctl_fionbio(&self.socket, false)?;
        }
        Ok(self.socket)
    }

    fn new(socket: OwnedFd, peer: Peer, options: StreamOptions) -> io::Result<Self> {
        ioctl_fionbio(&socket, !platform::DONTWAIT_IS_HONORED)?;
        prepare(socket.as_fd(), options)?;
        Ok(Self { socket, peer, spin: Spin::new(options.spin), lane: None })
    }

    /// # Errors
    ///
    /// `Unsupported` for a stream that may use shared memory.
    pub(in crate::unix) fn only_socket(&self) -> io::Result<()> {
        self.lane.as_ref().map_or(Ok(()), |_| Err(socket_is_not_all()))
    }

    #[cfg(feature = "shared-memory")]
    pub(crate) fn uses_memory(&self) -> bool {
        self.lane.as_ref().is_some_and(Lane::is_upgraded)
    }

    /// Returns zero, or the value of `T` that stands for it, once the peer is gone.
    ///
    /// Without a time limit and without spinning this is one system call, and costs what std's read
    /// costs.
    #[inline]
    pub(in crate::unix) fn read_with<T: Default>(
        &self,
        limit: Limit,
        mut read: impl FnMut(BorrowedFd<'_>, RecvFlags) -> Result<T, Errno>,
    ) -> io::Result<T> {
        if limit != Limit::NONE || self.spin.is_some() {
            return self.read_on(None, limit, read);
        }
        match read(self.as_fd(), RecvFlags::empty()) {
            Ok(read) => Ok(read),
            Err(errno) => self.read_on(Some(errno), Limit::NONE, read),
        }
    }

    /// Continues after `failed`, the error of a first call. It is cold so that a call that succeeds
    /// at once saves no registers for it.
    #[cold]
    fn read_on<T: Default>(
        &self,
        mut failed: Option<Errno>,
        limit: Limit,
        mut read: impl FnMut(BorrowedFd<'_>, RecvFlags) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let deadline = Deadline::after(limit.get());
        let flags =
            if deadline.left().is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        let mut watch = self.spin.as_ref();

        loop {
            let outcome = failed.take().map(Err).or_else(|| {
                watch.take()?.watch(deadline.left(), || read(self.as_fd(), RecvFlags::DONTWAIT))
            });

            match outcome.unwrap_or_else(|| read(self.as_fd(), flags)) {
                Ok(read) => return Ok(read),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !wait_for(self.as_fd(), PollFlags::IN, deadline)? {
                        return Err(timed_out("read"));
                    }
                }
                // Linux: the peer closed while it had unread bytes of ours. This counts as an end
                // of file.
                Err(Errno::CONNRESET) => return Ok(T::default()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// As [`read_with`](Self::read_with).
    #[inline]
    pub(in crate::unix) fn write_with<T>(
        &self,
        limit: Limit,
        mut write: impl FnMut(BorrowedFd<'_>, SendFlags) -> Result<T, Errno>,
    ) -> io::Result<T> {
        if limit != Limit::NONE {
            return self.write_on(None, limit, write);
        }
        match write(self.as_fd(), platform::NO_SIGNAL) {
            Ok(written) => Ok(written),
            Err(errno) => self.write_on(Some(errno), Limit::NONE, write),
        }
    }

    /// As [`read_on`](Self::read_on).
    #[cold]
    fn write_on<T>(
        &self,
        mut failed: Option<Errno>,
        limit: Limit,
        mut write: impl FnMut(BorrowedFd<'_>, SendFlags) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let deadline = Deadline::after(limit.get());
        let wait = if deadline.left().is_some() { SendFlags::DONTWAIT } else { SendFlags::empty() };

        loop {
            let outcome = failed.take().map(Err);
            match outcome.unwrap_or_else(|| write(self.as_fd(), platform::NO_SIGNAL | wait)) {
                Ok(written) => return Ok(written),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !wait_for(self.as_fd(), PollFlags::OUT, deadline)? {
                        return Err(timed_out("write"));
                    }
                }
                Err(errno) if is_broken(errno) => return Err(Errno::PIPE.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Stream {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSocket")
            .field("socket", &self.socket)
            .field("peer", &self.peer)
            .finish()
    }
}

#[cfg(feature = "tokio")]
fn with_spin(spins: bool) -> StreamOptions {
    let spin = if spins { SpinPolicy::Auto } else { SpinPolicy::Off };
    StreamOptions { spin, ..StreamOptions::default() }
}
