//! The backend that blocks.
//!
//! Its sockets block, so that a call that waits is one system call. With a time limit, a call does
//! not wait in the kernel: `SO_RCVTIMEO` counts in ticks of up to 10 ms, and on a write
//! `SO_SNDTIMEO` starts again for each part that the kernel takes. If the kernel has no flag for
//! that in a single call, a stream's socket is in nonblocking mode, and calls that would wait poll
//! first.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, SendFlags, Shutdown, send, sendmsg, shutdown};

use super::access::{Permission, peer_refused};
use super::connect::Search;
use super::gone::Watch;
use super::name::{self, Name, Probes};
use super::options::cannot_be_upgraded;
use super::peer::Peer;
use super::receive::receive_into;
use super::shared_memory::threads::Lane;
use super::spin::threads::Spin;
use super::{
    at_most, at_most_of, inherited, is_broken, is_passing, is_shortage, platform, prepare,
    shut_down, socket_is_not_all,
};
use crate::endpoint::Endpoint;
use crate::error::events::{self, ListenerStats};
use crate::error::stopped;
#[cfg(feature = "tokio")]
use crate::options::SpinPolicy;
use crate::options::{ConnectOptions, ListenOptions, StreamOptions};
use crate::peer::PeerCredentials;
use crate::wait::{Backoff, Deadline, Limit, timed_out};

/// A wait that is longer takes more than one call.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct Listener {
    // Dropped in this order: the socket is closed before the claim lets go of the name's lock.
    socket: OwnedFd,
    name: Name,
    permission: Permission,
    /// Accepted before a call of `republish`, on the socket that it replaced.
    waiting: Mutex<VecDeque<OwnedFd>>,
    /// The socket does not block: there was an `accept` with a deadline, or others may have it too,
    /// and want that.
    polls: AtomicBool,
    stopped: AtomicBool,
    /// One end is polled with the socket, and the other one closed to end that; where the socket cannot
    /// be shut down for it, as others have it too or the system does not know of it.
    stop: Option<(UnixStream, UnixStream)>,
    refused: AtomicU64,
    pauses: AtomicU64,
    stream_options: StreamOptions,
    backlog: Option<u32>,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        if options.os.upgradable {
            return Err(cannot_be_upgraded("a blocking listener"));
        }
        let (socket, name, permission, endpoint) = Name::take(endpoint, options, Probes::Paused)?;
        Ok((Self::new(socket, name, permission, options)?, endpoint))
    }

    /// `None` once the deadline is past.
    pub(crate) fn accept(&self, deadline: Deadline) -> io::Result<Option<Stream>> {
        // Of several threads that wait for one client all but one would block.
        if deadline.left().is_some() {
            // Each time: whoever else has the socket may have made it one that blocks.
            ioctl_fionbio(&self.socket, true)?;
            self.polls.store(true, Ordering::Relaxed);
        }
        let mut backoff = Backoff::ACCEPT;
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return Err(stopped());
            }
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let accepted = match waiting {
                Some(socket) => Ok(socket),
                None => platform::accept(&self.socket),
            };
            match accepted {
                Ok(socket) => {
                    if let Some(stream) = self.admit(socket) {
                        return Ok(Some(stream));
                    }
                    if deadline.is_past() {
                        return Ok(None);
                    }
                }
                // The socket does not block, for this or another call, or since another process that
                // has it wanted that.
                Err(Errno::AGAIN) => {
                    if !self.wait(deadline)? {
                        return Ok(None);
                    }
                }
                Err(errno) if is_passing(errno) && deadline.is_past() => return Ok(None),
                Err(errno) if is_passing(errno) => {}
                Err(errno) if is_shortage(errno) => {
                    let pause = backoff.pause();
                    events::accept_paused(&errno.into(), pause);
                    self.pauses.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(deadline.left().map_or(pause, |left| left.min(pause)));
                    if deadline.is_past() {
                        return Ok(None);
                    }
                }
                Err(_) if self.stopped.load(Ordering::Acquire) => return Err(stopped()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Until there is a client, or no more are wanted; `false` once the deadline is past.
    fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        let socket = PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN);
        match &self.stop {
            Some((end, _)) => {
                let end = PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN);
                wait_for_one(&mut [socket, end], deadline)
            }
            None => wait_for_one(&mut [socket], deadline),
        }
    }

    pub(crate) fn unblock(&self) {
        self.stopped.store(true, Ordering::Release);
        // Neither can fail: both are open sockets.
        let _ = match &self.stop {
            Some((_, end)) => end.shutdown(std::net::Shutdown::Both),
            None => shutdown(&self.socket, Shutdown::Both).map_err(io::Error::from),
        };
    }

    pub(crate) fn into_pending(mut self) -> Vec<Stream> {
        let mut sockets: Vec<_> = self.waiting().drain(..).collect();
        sockets.extend(self.end());
        sockets.into_iter().filter_map(|socket| self.admit(socket)).collect()
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        let refused = self.refused.load(Ordering::Relaxed);
        let pauses = self.pauses.load(Ordering::Relaxed);
        ListenerStats { refused, pauses, ..ListenerStats::default() }
    }

    fn new(
        socket: OwnedFd,
        name: Name,
        permission: Permission,
        options: &ListenOptions,
    ) -> io::Result<Self> {
        // Where the room for a client is made sure of before the call, that is when there is one.
        let polls = matches!(name, Name::Inherited)
            || platform::ACCEPT_DROPS_CLIENTS
            || !platform::ACCEPT_ENDS_AT_SHUTDOWN;
        let stop = if polls { Some(UnixStream::pair()?) } else { None };
        ioctl_fionbio(&socket, polls)?;
        // Better to learn now what no client's socket would be let have.
        prepare(socket.as_fd(), options.stream)?;
        Ok(Self {
            socket,
            name,
            permission,
            waiting: Mutex::default(),
            polls: AtomicBool::new(polls),
            stopped: AtomicBool::new(false),
            stop,
            refused: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            stream_options: options.stream,
            backlog: options.os.backlog,
        })
    }

    /// A peer that may not stay, or cannot be told, is closed here.
    fn admit(&self, socket: OwnedFd) -> Option<Stream> {
        let (why, user) = match Stream::from_socket(socket, self.stream_options) {
            Ok(stream) if self.permission.admits(&stream.peer, stream.as_fd()) => {
                return Some(stream);
            }
            Ok(stream) => ("it may not connect", Some(stream.peer.uid)),
            Err(_) => ("its user is unknown", None),
        };
        peer_refused(why, user);
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn waiting(&mut self) -> &mut VecDeque<OwnedFd> {
        self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self) -> Vec<OwnedFd> {
        if self.name.is_ours() {
            // What is in the queue is wanted, and no more.
            let _ = ioctl_fionbio(&self.socket, true);
        }
        self.name.end(&self.socket)
    }

    pub(super) fn is_published(&self) -> bool {
        self.name.is_published(self.as_fd())
    }

    pub(super) fn republish(&mut self, probes: Probes) -> io::Result<()> {
        let Some(socket) = self.name.republish(self.permission, probes)? else { return Ok(()) };
        if let Err(errno) = ioctl_fionbio(&socket, *self.polls.get_mut()) {
            self.name.withdraw();
            return Err(errno.into());
        }
        let before = std::mem::replace(&mut self.socket, socket);
        let _ = ioctl_fionbio(&before, true);
        self.waiting().extend(name::refuse_and_drain(&before));
        Ok(())
    }

    pub(super) fn from_fd(
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let endpoint = inherited::check_listener(socket.as_fd())?;
        inherited::listen_again(socket.as_fd(), options.os.backlog)?;
        Ok((Self::new(socket, Name::Inherited, Permission::new(options), options)?, endpoint))
    }

    pub(super) fn listen_again(&self) -> io::Result<()> {
        inherited::listen_again(self.socket.as_fd(), self.backlog)
    }

    pub(super) fn into_fd(mut self) -> io::Result<OwnedFd> {
        let socket = self.socket.try_clone()?;
        ioctl_fionbio(&socket, false)?;
        self.name.leave();
        Ok(socket)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end());
    }
}

pub(crate) struct Stream {
    socket: OwnedFd,
    peer: Peer,
    spin: Option<Spin>,
    /// The way to shared memory, of a stream that may take it.
    lane: Option<Lane>,
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

    pub(super) fn from_socket(socket: OwnedFd, options: StreamOptions) -> io::Result<Self> {
        let peer = Peer::of(socket.as_fd())?;
        platform::no_signals(socket.as_fd())?;
        let mut stream = Self::new(socket, peer, options)?;
        stream.lane = Lane::accepted(&stream.socket, peer.uid, options);
        Ok(stream)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn from_async(stream: super::Stream) -> io::Result<Self> {
        let options = with_spin(stream.spin.is_some());
        let peer = stream.peer;
        let (socket, lane) = stream.into_parts();
        let mut blocking = Self::new(socket, peer, options)?;
        blocking.lane = lane.map(|lane| Lane::from_async(lane, options)).transpose()?;
        Ok(blocking)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn into_async(self) -> io::Result<super::Stream> {
        ioctl_fionbio(&self.socket, true)?;
        let options = with_spin(self.spin.is_some());
        let lane = self.lane.map(|lane| lane.into_async(options)).transpose()?;
        super::Stream::from_parts(self.socket, self.peer, options, lane)
    }

    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        self.only_socket()?;
        if !platform::CALLS_CAN_BE_TOLD_NOT_TO_WAIT {
            ioctl_fionbio(&self.socket, false)?;
        }
        Ok(self.socket)
    }

    fn new(socket: OwnedFd, peer: Peer, options: StreamOptions) -> io::Result<Self> {
        ioctl_fionbio(&socket, !platform::CALLS_CAN_BE_TOLD_NOT_TO_WAIT)?;
        prepare(socket.as_fd(), options)?;
        Ok(Self { socket, peer, spin: Spin::new(options.spin), lane: None })
    }

    /// # Errors
    ///
    /// `Unsupported` for a stream that may use shared memory.
    pub(super) fn only_socket(&self) -> io::Result<()> {
        self.lane.as_ref().map_or(Ok(()), |_| Err(socket_is_not_all()))
    }

    #[cfg(feature = "shared-memory")]
    pub(crate) fn uses_memory(&self) -> bool {
        self.lane.as_ref().is_some_and(Lane::is_upgraded)
    }

    /// Zero, or what it gives in place of zero, once the peer is gone.
    ///
    /// Without a time limit and without watching it is one call, and costs what std's costs.
    #[inline]
    pub(super) fn read_with<T: Default>(
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

    /// Goes on after `failed`, what a first call came to. Cold, so that a call that does not come here
    /// keeps no registers for it.
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
                // Linux: the peer closed with bytes of ours unread. To us it is gone, no more.
                Err(Errno::CONNRESET) => return Ok(T::default()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// As [`read_with`](Self::read_with).
    #[inline]
    pub(super) fn write_with<T>(
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

/// `false` once the deadline is past.
pub(super) fn wait_for(
    socket: BorrowedFd<'_>,
    what: PollFlags,
    deadline: Deadline,
) -> io::Result<bool> {
    wait_for_one(&mut [PollFd::from_borrowed_fd(socket, what)], deadline)
}

fn wait_for_one(sockets: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    loop {
        // Some of these systems count in milliseconds, and up to 24 days.
        let left = deadline.left().map(|left| left.min(LONGEST_WAIT));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(sockets, left.as_ref()) {
            Ok(1..) => return Ok(true),
            Ok(0) if deadline.is_past() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
