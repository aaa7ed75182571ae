//! Watches a socket for a hang-up with epoll(7).

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// The hang-ups so far. There is nothing to remember: the kernel reports a hang-up each time.
#[derive(Default)]
pub(super) struct Heard(());

/// Requests no events, because epoll always reports a hang-up and an error.
pub(super) fn watch_for_hangup(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let queue = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&queue, socket, EventData::new_u64(0), EventFlags::empty())?;
    Ok(queue)
}

impl Heard {
    /// Whether nothing can come from the peer or go to it any more.
    #[allow(clippy::unused_self, reason = "elsewhere it is used")]
    pub(super) fn hear(&mut self, queue: BorrowedFd<'_>) -> Result<bool, Errno> {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        match epoll::wait(queue, &mut [none], Some(&Timespec::default())) {
            Ok(events) => Ok(events > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}
