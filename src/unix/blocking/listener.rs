//! A listener whose calls block.

use std::collections::VecDeque;
use std::io::{self};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};

use super::stream::Stream;
use crate::endpoint::Endpoint;
use crate::error::events::{self, ListenerStats};
use crate::error::stopped;
use crate::options::{ListenOptions, StreamOptions};
use crate::unix::access::{Permission, peer_refused};
use crate::unix::name::{self, LOOK, Name, Probes};
use crate::unix::options::cannot_be_upgraded;
use crate::unix::poll::wait_for_one;
use crate::unix::{inherited, is_passing, is_shortage, platform, prepare, release_failed, swap};
use crate::wait::{Backoff, Deadline};

pub(crate) struct Listener {
    // The fields are dropped in this order: the socket is closed before the claim releases the lock
    // on the name.
    socket: OwnedFd,
    name: Mutex<Name>,
    permission: Permission,
    /// The time of the last look at the name, if the name is watched.
    looked: Option<Mutex<Instant>>,
    /// Clients that `republish` accepted from the socket that it replaced.
    waiting: Mutex<VecDeque<OwnedFd>>,
    /// Whether the socket is nonblocking: because `accept` was called with a deadline, or because
    /// other processes may share the socket and want that.
    polls: AtomicBool,
    stopped: AtomicBool,
    /// Wakes threads that wait: they poll the first end with the socket, and closing the second end
    /// stops them. It is there where shutting the socket down is not an option, because other
    /// processes share it or the system does not support that.
    stop: Option<(UnixStream, UnixStream)>,
    refused: AtomicU64,
    pauses: AtomicU64,
    republished: AtomicU64,
    stream_options: StreamOptions,
    backlog: Option<u32>,
}

/// How a wait for a client ended.
enum Waited {
    /// There may be a client, or a reason to look at the listener again.
    Came,
    /// The deadline is past.
    InVain,
    /// The socket is shut down. It is ready for ever then, and a nonblocking accept(2) does not say
    /// why.
    ShutDown,
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

    /// Returns `None` once the deadline is past.
    pub(crate) fn accept(&self, deadline: Deadline) -> io::Result<Option<Stream>> {
        // If several threads wait for one client, all but one would block.
        if deadline.left().is_some() {
            // Set on each call: another process that shares the socket may have made it blocking.
            ioctl_fionbio(&self.socket, true)?;
            self.polls.store(true, Ordering::Relaxed);
        }
        let mut backoff = Backoff::ACCEPT;
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return Err(stopped());
            }

            // Look before waiting: the last wait may be long ago.
            self.look_if_due()?;
            let times = self.republished.load(Ordering::Acquire);
            let waiting = lock(&self.waiting).pop_front();
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
                // The socket is nonblocking, for this call or another one, or because another
                // process that shares it made it so.
                Err(Errno::AGAIN) => match self.wait(deadline)? {
                    Waited::Came => {}
                    Waited::InVain => return Ok(None),
                    // The listener was stopped, or another thread has bound the name again.
                    Waited::ShutDown
                        if self.stopped.load(Ordering::Acquire)
                            || times != self.republished.load(Ordering::Acquire) => {}
                    Waited::ShutDown => return Err(Errno::INVAL.into()),
                },

                // Another thread has bound the name again, and the error came from the old socket.
                Err(_) if times != self.republished.load(Ordering::Acquire) => {}
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

    /// Waits until there may be a client, the listener is stopped, or the next look at the name is
    /// due.
    fn wait(&self, deadline: Deadline) -> io::Result<Waited> {
        let Some(looked) = &self.looked else { return self.wait_for_client(deadline) };
        let until_look = LOOK.saturating_sub(lock(looked).elapsed());
        let left = until_look.min(deadline.left().unwrap_or(LOOK));
        let waited = self.wait_for_client(Deadline::after(Some(left)))?;
        Ok(match waited {
            Waited::InVain if !deadline.is_past() => Waited::Came,
            waited => waited,
        })
    }

    fn wait_for_client(&self, deadline: Deadline) -> io::Result<Waited> {
        let socket = PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN);
        let (came, events) = match &self.stop {
            Some((end, _)) => {
                let end = PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN);
                let mut watched = [socket, end];
                (wait_for_one(&mut watched, deadline)?, watched[0].revents())
            }
            None => {
                let mut watched = [socket];
                (wait_for_one(&mut watched, deadline)?, watched[0].revents())
            }
        };

        Ok(match came {
            false => Waited::InVain,
            true if events.contains(PollFlags::HUP) => Waited::ShutDown,
            true => Waited::Came,
        })
    }

    /// Looks at the name in one of the waiting threads. An error that ends one of them ends the
    /// others too, as each looks in turn.
    fn look_if_due(&self) -> io::Result<()> {
        let Some(looked) = &self.looked else { return Ok(()) };
        if lock(looked).elapsed() < LOOK {
            return Ok(());
        }
        let mut name = lock(&self.name);
        if lock(looked).elapsed() < LOOK {
            return Ok(());
        }
        if let Some(socket) = name.look(self.permission)? {
            if self.listen_on(socket).is_err() {
                name.withdraw();
            }
        }
        *lock(looked) = Instant::now();
        Ok(())
    }

    /// Puts the new socket in place of the old one, under the same descriptor, because other
    /// threads are waiting on it.
    fn listen_on(&self, socket: OwnedFd) -> io::Result<()> {
        self.prepare(&socket)?;
        let before = self.socket.try_clone()?;
        swap::replace(&self.socket, &socket)?;
        self.republished.fetch_add(1, Ordering::Release);
        let _ = ioctl_fionbio(&before, true);
        // A thread that waits on the old socket wakes, and continues with the new one.
        let queue = name::refuse_and_drain(&before);
        lock(&self.waiting).extend(queue);
        if self.stopped.load(Ordering::Acquire) {
            self.unblock();
        }
        Ok(())
    }

    /// Limits how long a blocking socket waits: until the next look at its name.
    fn prepare(&self, socket: &OwnedFd) -> io::Result<()> {
        ioctl_fionbio(socket, self.polls.load(Ordering::Relaxed))?;
        if self.looked.is_some() {
            set_socket_timeout(socket, Timeout::Recv, Some(LOOK))?;
        }
        Ok(())
    }

    pub(crate) fn unblock(&self) {
        self.stopped.store(true, Ordering::Release);
        // Neither call can fail, since both are open sockets.
        let _ = match &self.stop {
            Some((_, end)) => end.shutdown(std::net::Shutdown::Both),
            None => shutdown(&self.socket, Shutdown::Both).map_err(io::Error::from),
        };
    }

    pub(crate) fn into_pending(mut self) -> Vec<Stream> {
        let mut sockets: Vec<_> = lock(&self.waiting).drain(..).collect();
        let (queue, released) = self.end();
        released.unwrap_or_else(|error| release_failed(&error));
        sockets.extend(queue);
        sockets.into_iter().filter_map(|socket| self.admit(socket)).collect()
    }

    pub(crate) fn close(mut self) -> io::Result<()> {
        self.end().1
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        let refused = self.refused.load(Ordering::Relaxed);
        let pauses = self.pauses.load(Ordering::Relaxed);
        let republished = self.republished.load(Ordering::Relaxed);
        ListenerStats { refused, pauses, republished }
    }

    fn new(
        socket: OwnedFd,
        name: Name,
        permission: Permission,
        options: &ListenOptions,
    ) -> io::Result<Self> {
        let looked = name.is_looked_after().then(|| Mutex::new(Instant::now()));
        // This system drops a client if no descriptor is free, so the check for one has to come
        // after a client is there.
        let polls = matches!(name, Name::Inherited)
            || platform::ACCEPT_DROPS_CLIENTS
            || !platform::ACCEPT_ENDS_AT_SHUTDOWN;
        let stop = if polls { Some(UnixStream::pair()?) } else { None };
        // Fail now if the sockets of clients could not be given these options.
        prepare(socket.as_fd(), options.stream)?;
        let listener = Self {
            socket,
            name: Mutex::new(name),
            permission,
            looked,
            waiting: Mutex::default(),
            polls: AtomicBool::new(polls),
            stopped: AtomicBool::new(false),
            stop,
            refused: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            republished: AtomicU64::new(0),
            // Used also for a socket that replaces this one.
            stream_options: options.stream,
            backlog: options.os.backlog,
        };

        listener.prepare(&listener.socket)?;
        Ok(listener)
    }

    /// Closes a peer that may not stay, or whose user cannot be determined.
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

    fn end(&mut self) -> (Vec<OwnedFd>, io::Result<()>) {
        let name = self.name.get_mut().unwrap_or_else(PoisonError::into_inner);
        if name.is_ours() {
            // Take the clients that are in the queue, and do not wait for more.
            let _ = ioctl_fionbio(&self.socket, true);
        }
        name.end(&self.socket)
    }

    pub(in crate::unix) fn is_published(&self) -> bool {
        lock(&self.name).is_published(self.as_fd())
    }

    pub(in crate::unix) fn republish(&mut self, probes: Probes) -> io::Result<()> {
        let mut name = lock(&self.name);
        let Some(socket) = name.republish(self.permission, probes)? else { return Ok(()) };
        self.listen_on(socket).inspect_err(|_| name.withdraw())
    }

    pub(in crate::unix) fn from_fd(
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let endpoint = inherited::check_listener(socket.as_fd())?;
        inherited::listen_again(socket.as_fd(), options.os.backlog)?;
        Ok((Self::new(socket, Name::Inherited, Permission::new(options), options)?, endpoint))
    }

    pub(in crate::unix) fn listen_again(&self) -> io::Result<()> {
        inherited::listen_again(self.socket.as_fd(), self.backlog)
    }

    pub(in crate::unix) fn into_fd(mut self) -> io::Result<OwnedFd> {
        let socket = self.socket.try_clone()?;
        ioctl_fionbio(&socket, false)?;
        if self.looked.is_some() {
            set_socket_timeout(&socket, Timeout::Recv, None)?;
        }
        self.name.get_mut().unwrap_or_else(PoisonError::into_inner).leave();
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
        self.end().1.unwrap_or_else(|error| release_failed(&error));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
