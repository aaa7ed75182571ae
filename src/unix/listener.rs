//! The async listener, which accepts clients on the user's tokio runtime.

use std::collections::VecDeque;
use std::future::{self, Future, Ready};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep};

use super::access::{Permission, peer_refused};
use super::claim::Claim;
use super::name::{self, LOOK, Name, Probes};
use super::options::cannot_be_upgraded;
use super::runtime::{self, NameEvent, sleep};
use super::stream::Stream;
use super::upgrade::{Offer, taken_over};
use super::{inherited, is_passing, is_shortage, platform, prepare, release_failed};
use crate::endpoint::Endpoint;
use crate::error::events::{self, ListenerStats};
use crate::options::{ListenOptions, StreamOptions};
use crate::wait::Backoff;

/// The delay from a notification that the name may be gone to the look. Perhaps a server that takes
/// names without a lock has removed it, and will bind it next.
const SOON: Duration = Duration::from_secs(1);
/// Connections passed over in one poll before other tasks get their turn.
const ACCEPT_BURST: usize = 16;

pub(crate) struct Listener {
    // The fields are dropped in this order: the socket is closed before the claim releases the lock
    // on the name.
    socket: AsyncFd<OwnedFd>,
    name: Name,
    permission: Permission,
    /// Connections that were accepted on a socket which `listen_on` replaced.
    waiting: VecDeque<OwnedFd>,
    pause: Option<Pin<Box<Sleep>>>,
    backoff: Backoff,
    /// The next look at the name.
    look: Option<Pin<Box<Sleep>>>,
    /// Notifications that the look should be sooner.
    name_events: Vec<NameEvent>,
    stats: ListenerStats,
    stream_options: StreamOptions,
    backlog: Option<u32>,
    /// The offer to take the listener over, if there is one.
    offer: Option<Offer>,
    /// Set once another process has taken the listener over, with its id if that is known.
    taken_over: Option<Option<u32>>,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let (socket, name, permission, endpoint) = Name::take(endpoint, options, Probes::AtOnce)?;
        let mut listener = Self::new(socket, name, permission, options)?;
        listener.offer(options.os.upgradable)?;
        Ok((listener, endpoint))
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        for _ in 0..ACCEPT_BURST {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }

            let taken_over = self.poll_offer(cx);
            let accepted = match self.waiting.pop_front() {
                Some(socket) => Ok(socket),
                None if taken_over.is_ready() => return taken_over.map(Err),

                None => {
                    let mut guard = match self.socket.poll_read_ready(cx) {
                        Poll::Ready(guard) => guard?,
                        Poll::Pending => {
                            ready!(self.poll_name(cx))?;
                            continue;
                        }
                    };
                    let accepted = platform::accept(self.socket.get_ref());
                    if accepted.as_ref().err() == Some(&Errno::AGAIN) {
                        // Another owner of the socket has shut it down. The socket stays ready,
                        // and a nonblocking accept(2) hides that.
                        if guard.ready().is_read_closed() {
                            return Poll::Ready(Err(Errno::INVAL.into()));
                        }
                        guard.clear_ready();
                    }
                    accepted
                }
            };

            match accepted {
                Ok(socket) => {
                    self.backoff = Backoff::ACCEPT;
                    if let Some(stream) = self.admit(socket) {
                        return Poll::Ready(Ok(stream));
                    }
                }

                Err(errno) if errno == Errno::AGAIN || is_passing(errno) => {}
                Err(errno) if is_shortage(errno) => {
                    let pause = self.backoff.pause();
                    self.pause = Some(Box::pin(sleep(pause)?));
                    events::accept_paused(&errno.into(), pause);
                    self.stats.pauses += 1;
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }

        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Completes once the name was removed and bound again, with a new socket.
    fn poll_name(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.offer.as_ref().is_some_and(Offer::is_undecided) {
            return Poll::Pending;
        }
        loop {
            if !self.name.is_looked_after() {
                return Poll::Pending;
            }

            let look = match &mut self.look {
                Some(look) => look,
                none => {
                    self.name_events = self.name.events();
                    none.insert(Box::pin(sleep(LOOK)?))
                }
            };

            if self.name_events.iter_mut().any(|event| event.as_mut().poll(cx).is_ready()) {
                self.name_events.clear();
                if look.deadline() > Instant::now() + SOON {
                    *look = Box::pin(sleep(SOON)?);
                }
            }

            ready!(look.as_mut().poll(cx));
            self.look = None;
            let Some(socket) = self.name.look(self.permission)? else {
                self.keep_offer();
                continue;
            };

            if self.listen_on(socket).is_ok() {
                // No process has been sent the old socket: an undecided offer returns early, above.
                if self.offer.take().is_some() {
                    let _ = self.offer(true);
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Completes once another process has taken the listener over.
    fn poll_offer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let (Some(offer), Name::Claimed(claim)) = (&mut self.offer, &self.name) {
            let process = ready!(offer.poll(cx, claim, self.socket.get_ref()));
            self.passed_to(process);
        }
        self.taken_over.map_or(Poll::Pending, |process| Poll::Ready(taken_over(process)))
    }

    fn passed_to(&mut self, process: Option<u32>) {
        self.offer = None;
        self.name.pass();
        self.taken_over = Some(process);
    }

    /// If `wanted`, offers the listener to other processes from here on.
    fn offer(&mut self, wanted: bool) -> io::Result<()> {
        if wanted {
            let Name::Claimed(claim) = &self.name else {
                return Err(cannot_be_upgraded("such a listener"));
            };
            self.offer = Some(Offer::new(&claim.lock().place)?);
        }
        Ok(())
    }

    /// Makes the offer again if its socket was removed.
    fn keep_offer(&mut self) {
        if let (Some(offer), Name::Claimed(claim)) = (&self.offer, &self.name) {
            if claim.is_published() && !offer.is_found(&claim.lock().place) {
                self.offer = None;
                let _ = self.offer(true);
            }
        }
    }

    /// Ends the offer, and returns whether there was one. Fails if another process has taken the
    /// listener over.
    fn end_offer(&mut self) -> io::Result<bool> {
        if let (true, Name::Claimed(claim)) = (self.name.is_ours(), &self.name) {
            let Some(offer) = self.offer.take() else { return Ok(false) };
            if offer.end(claim) {
                return Ok(true);
            }
            self.passed_to(None);
        }
        self.taken_over.map_or(Ok(false), |process| Err(taken_over(process)))
    }

    /// Makes this process the owner of a listener that was passed to it together with its name.
    pub(super) fn own(&mut self, claim: Claim, options: &ListenOptions) -> io::Result<()> {
        self.name = Name::Claimed(Box::new(claim));
        // From here on, clients see this process as the server.
        self.listen_again()?;
        self.offer(options.os.upgradable)
    }

    pub(crate) fn take_pending(&mut self) -> Vec<Stream> {
        // If another process has taken the listener over, it serves the pending clients.
        let _ = self.end_offer();
        let mut sockets: Vec<_> = self.waiting.drain(..).collect();
        sockets.extend(self.name.stop(self.socket.get_ref()));
        sockets.into_iter().filter_map(|socket| self.admit(socket)).collect()
    }

    /// Completes at once, because the system's calls do not wait.
    pub(crate) fn close(mut self) -> Ready<io::Result<()>> {
        future::ready(self.release())
    }

    /// Does all that a drop does, except that it does not close the socket.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        let _ = self.end_offer();
        let (_queue, released) = self.name.end(self.socket.get_ref());
        released
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        self.stats
    }

    pub(super) fn new(
        socket: OwnedFd,
        name: Name,
        permission: Permission,
        options: &ListenOptions,
    ) -> io::Result<Self> {
        // Accepting may have to sleep later. Without a timer, fail now.
        drop(sleep(Duration::ZERO)?);
        // Likewise, fail now for an option that every client's socket would reject.
        prepare(socket.as_fd(), options.stream)?;
        Ok(Self {
            socket: runtime::register(socket)?,
            name,
            permission,
            waiting: VecDeque::new(),
            pause: None,
            backoff: Backoff::ACCEPT,
            look: None,
            name_events: Vec::new(),
            stats: ListenerStats::default(),
            // Also used for a socket that replaces this one.
            stream_options: options.stream,
            backlog: options.os.backlog,
            offer: None,
            taken_over: None,
        })
    }

    /// Closes a peer that may not connect, whose credentials are unknown, or that the reactor
    /// cannot register.
    fn admit(&mut self, socket: OwnedFd) -> Option<Stream> {
        let (why, user) = match Stream::from_socket(socket, self.stream_options) {
            Ok(stream) if self.permission.admits(&stream.peer, stream.as_fd()) => {
                return Some(stream);
            }
            Ok(stream) => ("it may not connect", Some(stream.peer.uid)),
            Err(_) => ("its user is unknown", None),
        };
        peer_refused(why, user);
        self.stats.refused += 1;
        None
    }

    pub(super) fn is_published(&self) -> bool {
        self.name.is_published(self.as_fd())
    }

    pub(super) fn republish(&mut self, probes: Probes) -> io::Result<()> {
        let upgradable = self.end_offer()?;
        if let Some(socket) = self.name.republish(self.permission, probes)? {
            self.listen_on(socket)?;
        }
        self.offer(upgradable)
    }

    /// Replaces the old socket with the new one under the name.
    fn listen_on(&mut self, socket: OwnedFd) -> io::Result<()> {
        let socket = match runtime::register(socket) {
            Ok(socket) => socket,
            Err(error) => {
                self.name.withdraw();
                return Err(error);
            }
        };
        self.stats.republished += 1;
        let before = mem::replace(&mut self.socket, socket);
        self.waiting.extend(name::refuse_and_drain(before.get_ref()));
        Ok(())
    }

    pub(super) fn from_fd(
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        if options.os.upgradable {
            return Err(cannot_be_upgraded("an inherited listener"));
        }
        let endpoint = inherited::check_listener(socket.as_fd())?;
        inherited::listen_again(socket.as_fd(), options.os.backlog)?;
        Ok((Self::new(socket, Name::Inherited, Permission::new(options), options)?, endpoint))
    }

    pub(super) fn listen_again(&self) -> io::Result<()> {
        inherited::listen_again(self.socket.get_ref().as_fd(), self.backlog)
    }

    pub(super) fn into_fd(mut self) -> io::Result<OwnedFd> {
        self.end_offer()?;
        let socket = self.socket.get_ref().try_clone()?;
        self.name.leave();
        Ok(socket)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.release().unwrap_or_else(|error| release_failed(&error));
    }
}
