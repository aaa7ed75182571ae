//! Lanes for tokio's tasks.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::{RestoreOnPending, poll_proceed};

use super::pace::Pace;
use super::{Bell, Link, Offer, Wire, eager};
use crate::options::{SpinPolicy, StreamOptions};
use crate::shared_memory::lane::{self, Outcome, Read, Role, Then};
use crate::unix::platform;
use crate::unix::receive::Filled;
use crate::unix::runtime::register;
use crate::unix::shared_memory::watch::{Turns, Watched};
use crate::unix::spin::tasks::Spin;

/// The most bytes of an uninitialized buffer that one read initializes.
const ROOM: usize = 64 * 1024;
/// The most tries of one poll. A peer can ring without end, and so wake a task for nothing.
const TRIES: usize = 16;

pub(super) type Core<B> = lane::Lane<Link<B>, Offer>;

// This is what a stream costs that has shared memory on and does not use it.
#[cfg(test)]
const _: () = assert!(size_of::<Core<AsyncBell>>() <= 200);

/// The writers' bell, and the counters of a stream in memory. A stream that stays on its socket
/// allocates none of this.
#[derive(Debug)]
pub(super) struct AsyncBell {
    socket: AsyncFd<OwnedFd>,
    pace: Pace,
    /// The turns of the reader, and those of the writer that waits for room.
    turns: [Turns; 2],
    /// The state of watching for room. It is used only if the stream watches at all.
    spin: Option<Box<Spin>>,
}

#[cfg(feature = "blocking")]
impl AsyncBell {
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket.into_inner()
    }
}

impl Bell for AsyncBell {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let spin = Spin::new(SpinPolicy::Auto);
        let socket = register(socket)?;
        Ok(Self { socket, pace: Pace::default(), turns: Default::default(), spin })
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// The state of a stream that may use shared memory.
#[derive(Debug)]
pub(in crate::unix) struct Lane(Box<Core<AsyncBell>>);

impl Lane {
    /// Creates the lane of a stream that connected. Returns `None` if the stream uses its socket
    /// only.
    pub(in crate::unix) fn connected(
        socket: &AsyncFd<OwnedFd>,
        user: u32,
        options: StreamOptions,
    ) -> Option<Self> {
        Self::new(Role::Taker, socket, user, options)
    }

    /// Creates the lane of a stream that was accepted.
    pub(in crate::unix) fn accepted(
        socket: &AsyncFd<OwnedFd>,
        user: u32,
        options: StreamOptions,
    ) -> Option<Self> {
        Self::new(Role::Maker, socket, user, options)
    }

    fn new(
        role: Role,
        socket: &AsyncFd<OwnedFd>,
        user: u32,
        options: StreamOptions,
    ) -> Option<Self> {
        let eager = eager(options)?;
        let core = Core::new(role, user, eager);
        core.start(&Wire::new(socket.get_ref(), user), eager);
        Some(Self::from_core(core))
    }

    #[cfg(feature = "blocking")]
    pub(super) fn into_core(self) -> Core<AsyncBell> {
        *self.0
    }

    pub(super) fn from_core(core: Core<AsyncBell>) -> Self {
        Self(Box::new(core))
    }

    fn bell(&self) -> Option<&AsyncBell> {
        self.0.link().map(|link| &link.bell)
    }

    pub(in crate::unix) fn is_upgraded(&self) -> bool {
        self.0.is_upgraded()
    }

    pub(in crate::unix) fn poll_read(
        &self,
        socket: &AsyncFd<OwnedFd>,
        filled: &Filled,
        spin: Option<&Spin>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let turn = ready!(self.poll_turn(cx));
        let initialized = buf.initialized().len() - buf.filled().len();
        let room = initialized.max(buf.remaining().min(ROOM));
        let read = self.read(socket, filled, spin, cx, buf.initialize_unfilled_to(room));
        let length = ready!(read)?;
        done(turn);
        buf.advance(length);
        Poll::Ready(Ok(()))
    }

    /// Takes an operation's part of the task's budget, as operations on sockets do. While the
    /// stream has no memory, the wait for the socket takes it.
    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<Option<RestoreOnPending>> {
        match self.bell() {
            Some(_) => poll_proceed(cx).map(Some),
            None => Poll::Ready(None),
        }
    }

    fn read(
        &self,
        socket: &AsyncFd<OwnedFd>,
        filled: &Filled,
        spin: Option<&Spin>,
        cx: &mut Context<'_>,
        mut buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let wire = Wire::new(socket.get_ref(), self.0.user()).after(filled);
        let Some(bell) = self.bell() else {
            let Some(spin) = spin else { return self.read_socket(socket, &wire, cx, buf) };
            let receive = |buf: &mut &mut [u8]| at_once(self.0.read(&wire, buf, Then::LookAgain));
            let wait = |cx: &mut Context<'_>, buf: &mut &mut [u8]| {
                self.read_socket(socket, &wire, cx, buf)
            };
            return spin.poll(cx, &mut buf, receive, wait);
        };
        let AsyncBell { pace, turns: [turns, _], .. } = bell;
        let paused = spin.is_some() && pace.pause();

        match self.0.look(buf) {
            None => return self.read_socket(socket, &wire, cx, buf),
            Some(Ok(Outcome::Done(read))) => {
                if let Some(spin) = spin {
                    pace.found(read.length);
                    turns.found(spin);
                }
                return Poll::Ready(Ok(read.length));
            }
            Some(Err(error)) => return Poll::Ready(Err(error)),
            Some(Ok(_)) if paused => pace.ends(),
            Some(Ok(_)) => {}
        }

        let look = || found(self.0.look(buf)?);
        let watched = spin.map(|spin| turns.watch(spin, cx, look));
        match watched {
            Some(Watched::Found(Ok(read))) => {
                pace.found(read.length);
                return Poll::Ready(Ok(read.length));
            }
            Some(Watched::Found(error)) => return Poll::Ready(error.map(|read| read.length)),
            Some(Watched::GoesOn) => {
                pace.ends();
                return Poll::Pending;
            }
            Some(Watched::Sleeps) | None => pace.ends(),
        }

        self.sleep(socket, cx, buf)
    }

    /// Waits for a bell, unless there are bytes to read after all.
    ///
    /// The reactor reports each bell separately, even if earlier bells are still in the socket. So
    /// this clears its readiness without a system call, unless there are many bells or the end of
    /// the socket.
    fn sleep(
        &self,
        socket: &AsyncFd<OwnedFd>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let wire = Wire::new(socket.get_ref(), self.0.user());
        for _ in 0..TRIES {
            // The task registers before the flag is up, so that a bell that comes afterwards wakes
            // it.
            let ready = socket.poll_read_ready(cx)?;
            let registered = ready.is_pending();
            if let Poll::Ready(mut ready) = ready {
                if !ready.ready().is_read_closed() && !self.0.has_many_bells() {
                    ready.clear_ready();
                    continue;
                }
                if let Ok(heard) = ready.try_io(|_| self.0.hear(&wire)) {
                    unless_passing(heard)?;
                }
            }

            match self.0.read(&wire, buf, Then::Sleep)? {
                Outcome::Done(read) => return Poll::Ready(Ok(read.length)),
                Outcome::Ring | Outcome::Socket if registered => return Poll::Pending,
                Outcome::Ring | Outcome::Socket => {}
            }
        }
        others_first(cx)
    }

    fn read_socket(
        &self,
        socket: &AsyncFd<OwnedFd>,
        wire: &Wire<'_, AsyncBell>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..TRIES {
            let mut ready = ready!(socket.poll_read_ready(cx))?;
            match self.0.read(wire, buf, Then::Sleep) {
                Ok(Outcome::Done(read)) => {
                    if read.emptied && !platform::may_have_marks(socket) {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(read.length));
                }
                Ok(Outcome::Ring | Outcome::Socket) => ready.clear_ready(),
                Err(error) => unless_passing(Err(error))?,
            }
        }
        others_first(cx)
    }

    pub(in crate::unix) fn poll_write(
        &self,
        socket: &AsyncFd<OwnedFd>,
        spin: Option<&Spin>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let turn = ready!(self.poll_turn(cx));
        let wire = Wire::new(socket.get_ref(), self.0.user());
        let put = self.0.put(&wire, bufs, Then::LookAgain);
        let written = ready!(self.write(put, socket, &wire, spin, cx, bufs))?;
        done(turn);
        Poll::Ready(Ok(written))
    }

    /// As [`poll_write`](Self::poll_write), for a caller that has the stream to itself.
    pub(in crate::unix) fn poll_write_alone(
        &mut self,
        socket: &AsyncFd<OwnedFd>,
        spin: Option<&Spin>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let turn = ready!(self.poll_turn(cx));
        let wire = Wire::new(socket.get_ref(), self.0.user());
        let put = self.0.put_alone(&wire, bufs, Then::LookAgain);
        let written = ready!(self.write(put, socket, &wire, spin, cx, bufs))?;
        done(turn);
        Poll::Ready(Ok(written))
    }

    /// Goes on after `put`, the first attempt to write to the ring.
    fn write(
        &self,
        put: Option<io::Result<Outcome<usize>>>,
        socket: &AsyncFd<OwnedFd>,
        wire: &Wire<'_, AsyncBell>,
        spin: Option<&Spin>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let watches = spin.is_some();
        let written = match put {
            Some(Ok(Outcome::Done(written))) => {
                if watches {
                    self.found_room();
                }
                written
            }
            Some(Ok(_)) => ready!(self.wait_for_room(wire, watches, cx, bufs))?,
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => ready!(self.write_socket(socket, wire, watches, cx, bufs))?,
        };

        if let Some(spin) = spin {
            spin.wrote();
            if let Some(bell) = self.bell() {
                bell.pace.ends();
            }
        }
        Poll::Ready(Ok(written))
    }

    fn write_socket(
        &self,
        socket: &AsyncFd<OwnedFd>,
        wire: &Wire<'_, AsyncBell>,
        watches: bool,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(socket.poll_write_ready(cx))?;
            match self.0.write(wire, bufs, Then::LookAgain) {
                Ok(Outcome::Done(written)) => return Poll::Ready(Ok(written)),
                Ok(Outcome::Socket) => ready.clear_ready(),
                // The direction has just switched, and the ring has no room.
                Ok(Outcome::Ring) => return self.wait_for_room(wire, watches, cx, bufs),
                Err(error) => unless_passing(Err(error))?,
            }
        }
    }

    fn found_room(&self) {
        let Some(AsyncBell { spin: Some(spin), turns: [_, turns], .. }) = self.bell() else {
            return;
        };
        if spin.watches.load(Relaxed) {
            turns.found(spin);
        }
    }

    fn wait_for_room(
        &self,
        wire: &Wire<'_, AsyncBell>,
        watches: bool,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(bell) = self.bell() else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        let look = || found(self.0.put(wire, bufs, Then::LookAgain)?);
        match bell.spin.as_ref().filter(|_| watches).map(|spin| {
            spin.wrote();
            bell.turns[1].watch(spin, cx, look)
        }) {
            Some(Watched::Found(written)) => return Poll::Ready(written),
            Some(Watched::GoesOn) => return Poll::Pending,
            Some(Watched::Sleeps) | None => {}
        }

        for _ in 0..TRIES {
            if let Outcome::Done(written) = self.0.write(wire, bufs, Then::Sleep)? {
                return Poll::Ready(Ok(written));
            }
            let mut ready = ready!(bell.socket.poll_read_ready(cx))?;
            match ready.try_io(|bell| Link::<AsyncBell>::hear(bell.get_ref().as_fd())) {
                Ok(Ok(true)) | Err(_) => {}
                Ok(Ok(false)) => self.0.peer_is_gone(),
                Ok(Err(error)) => unless_passing(Err(error))?,
            }
        }
        others_first(cx)
    }

    pub(in crate::unix) fn shut_down(&self, socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
        self.0.shut_down(&Wire::new(socket.get_ref(), self.0.user()))
    }
}

/// Keeps the part of the budget that a completed operation has taken.
fn done(turn: Option<RestoreOnPending>) {
    if let Some(turn) = turn {
        turn.made_progress();
    }
}

/// Lets the other tasks of the thread have their turn, and then wakes this one.
fn others_first<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Returns `None` if the caller has to wait.
fn found<T>(outcome: io::Result<Outcome<T>>) -> Option<io::Result<T>> {
    match outcome {
        Ok(Outcome::Done(done)) => Some(Ok(done)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

/// Returns the length of what was read, if that needs no wait.
fn at_once(read: io::Result<Outcome<Read>>) -> Poll<io::Result<usize>> {
    match found(read) {
        Some(Ok(read)) => Poll::Ready(Ok(read.length)),
        Some(Err(error)) if is_passing(&error) => Poll::Pending,
        Some(Err(error)) => Poll::Ready(Err(error)),
        None => Poll::Pending,
    }
}

/// Ignores errors after which the caller retries.
fn unless_passing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if is_passing(&error) => Ok(()),
        outcome => outcome,
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
