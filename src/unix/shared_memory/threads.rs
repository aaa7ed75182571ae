//! Lanes for threads that block.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

#[cfg(feature = "tokio")]
use super::tasks;
use super::turn::Turns;
use super::{Bell, Link, Offer, Wire, eager};
use crate::options::StreamOptions;
use crate::shared_memory::lane::{self, Outcome, Role, Then};
use crate::unix::poll::wait_for;
use crate::unix::spin::threads::Spin;
use crate::wait::{Deadline, timed_out};

type Core = lane::Lane<Link<OwnedFd>, Offer>;

impl Bell for OwnedFd {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(socket)
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// The state of a stream that may use shared memory.
#[derive(Debug)]
pub(in crate::unix) struct Lane {
    core: Box<Core>,
    /// The state of watching for room.
    spin: Option<Spin>,
    /// The turns of the threads that read, and the turns of the threads that write.
    turns: Box<[Turns; 2]>,
}

impl Lane {
    /// Creates the lane of a stream that connected. Returns `None` if the stream uses its socket
    /// only.
    pub(in crate::unix) fn connected(
        socket: &OwnedFd,
        user: u32,
        options: StreamOptions,
    ) -> Option<Self> {
        Self::new(Role::Taker, socket, user, options)
    }

    /// Creates the lane of a stream that was accepted.
    pub(in crate::unix) fn accepted(
        socket: &OwnedFd,
        user: u32,
        options: StreamOptions,
    ) -> Option<Self> {
        Self::new(Role::Maker, socket, user, options)
    }

    fn new(role: Role, socket: &OwnedFd, user: u32, options: StreamOptions) -> Option<Self> {
        let eager = eager(options)?;
        let core = Box::new(Core::new(role, user, eager));
        core.start(&Wire::new(socket, user), eager);
        Some(Self::with(core, options))
    }

    #[cfg(feature = "tokio")]
    pub(in crate::unix) fn from_async(
        lane: tasks::Lane,
        options: StreamOptions,
    ) -> io::Result<Self> {
        let core = lane.into_core().map(|link| link.convert(|bell| Ok(bell.into_socket())))?;
        Ok(Self::with(Box::new(core), options))
    }

    fn with(core: Box<Core>, options: StreamOptions) -> Self {
        Self { core, spin: Spin::new(options.spin), turns: Box::default() }
    }

    #[cfg(feature = "tokio")]
    pub(in crate::unix) fn into_async(self) -> io::Result<tasks::Lane> {
        let core = self.core.map(|link| link.convert(Bell::new))?;
        Ok(tasks::Lane::from_core(core))
    }

    pub(in crate::unix) fn is_upgraded(&self) -> bool {
        self.core.is_upgraded()
    }

    pub(in crate::unix) fn read(
        &self,
        socket: &OwnedFd,
        spin: Option<&Spin>,
        buf: &mut [u8],
        deadline: Deadline,
    ) -> io::Result<usize> {
        if let Some(looked) = self.core.look(buf) {
            if let Outcome::Done(read) = looked? {
                return Ok(read.length);
            }
        }
        let _turn = self.turns[0].take(deadline).ok_or_else(|| timed_out("read"))?;
        let wire = Wire::new(socket, self.core.user());
        let look = || attempt(self.core.read(&wire, buf, Then::LookAgain));
        if let Some(read) = spin.and_then(|spin| spin.watch(deadline.left(), look)) {
            return read?.map(|read| read.length);
        }
        loop {
            let blocked = match self.core.read(&wire, buf, Then::Sleep) {
                Ok(Outcome::Done(read)) => return Ok(read.length),
                Ok(blocked) => blocked,
                Err(error) => unless_passing(Err(error)).map(|()| Outcome::Socket)?,
            };
            wait(socket.as_fd(), PollFlags::IN, deadline, "read")?;
            if blocked == Outcome::Ring {
                unless_passing(self.core.hear(&wire))?;
            }
        }
    }

    pub(in crate::unix) fn write(
        &self,
        socket: &OwnedFd,
        bufs: &[IoSlice<'_>],
        deadline: Deadline,
    ) -> io::Result<usize> {
        let wire = Wire::new(socket, self.core.user());
        let blocked = match self.core.write(&wire, bufs, Then::LookAgain) {
            Ok(Outcome::Done(written)) => return Ok(written),
            Ok(blocked) => blocked,
            Err(error) => unless_passing(Err(error)).map(|()| Outcome::Socket)?,
        };
        let _turn = self.turns[1].take(deadline).ok_or_else(|| timed_out("write"))?;
        if let (Outcome::Ring, Some(spin)) = (blocked, &self.spin) {
            let look = || attempt(self.core.write(&wire, bufs, Then::LookAgain));
            if let Some(written) = spin.watch(deadline.left(), look) {
                return written?;
            }
        }
        loop {
            match self.core.write(&wire, bufs, Then::Sleep) {
                Ok(Outcome::Done(written)) => return Ok(written),
                Ok(Outcome::Socket) => wait(socket.as_fd(), PollFlags::OUT, deadline, "write")?,
                Ok(Outcome::Ring) => {
                    let Some(link) = self.core.link() else {
                        return Err(ErrorKind::BrokenPipe.into());
                    };
                    wait(link.bell.as_fd(), PollFlags::IN, deadline, "write")?;
                    match Link::<OwnedFd>::hear(link.bell.as_fd()) {
                        Ok(true) => {}
                        Ok(false) => self.core.peer_is_gone(),
                        Err(error) => unless_passing(Err(error))?,
                    }
                }
                Err(error) => unless_passing(Err(error))?,
            }
        }
    }

    pub(in crate::unix) fn shut_down(&self, socket: &OwnedFd) -> io::Result<()> {
        self.core.shut_down(&Wire::new(socket, self.core.user()))
    }
}

/// Waits until a retry may succeed. A peer that rings without end wakes this side for nothing, but
/// only until the deadline. Whatever the previous call has not found by then is late.
fn wait(
    socket: BorrowedFd<'_>,
    what: PollFlags,
    deadline: Deadline,
    operation: &'static str,
) -> io::Result<()> {
    if deadline.is_past() || !wait_for(socket, what, deadline)? {
        return Err(timed_out(operation));
    }
    Ok(())
}

/// Converts the outcome into the result of a nonblocking call.
fn attempt<T>(outcome: io::Result<Outcome<T>>) -> Result<io::Result<T>, Errno> {
    match outcome {
        Ok(Outcome::Done(done)) => Ok(Ok(done)),
        Ok(_) => Err(Errno::AGAIN),
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(Errno::AGAIN),
        Err(error) => Ok(Err(error)),
    }
}

/// Ignores errors after which the caller retries.
fn unless_passing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(())
        }
        outcome => outcome,
    }
}
