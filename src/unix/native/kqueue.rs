//! Watches a socket for a hang-up with kqueue(2), on macOS and the BSDs.
#![allow(unsafe_code, reason = "rustix takes no low-water mark")]
#![allow(clippy::unnecessary_cast, reason = "the types differ from system to system")]

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{null, null_mut};

use rustix::event::kqueue::kqueue;
use rustix::io::Errno;

use super::super::platform;

/// The end of each direction, which the kernel reports once.
#[derive(Default)]
pub(in crate::unix) struct Heard {
    incoming: bool,
    outgoing: bool,
}

/// Neither filter reports bytes or room, because the low-water mark is higher than both ever are.
/// (XNU lowers the mark to the size of the buffer. It then reports a full or an empty buffer, and
/// `hear` ignores that.)
///
/// The outgoing direction ends when the peer is gone or this side half-closes. The incoming
/// direction ends when the peer is gone or half-closes.
pub(in crate::unix) fn watch_for_hangup(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let queue = kqueue()?;
    platform::close_on_exec(&queue)?;
    let filters = [libc::EVFILT_READ as i64, libc::EVFILT_WRITE as i64];
    let changes = filters.map(|filter| {
        let mut change = nothing();
        change.ident = socket.as_raw_fd() as _;
        change.filter = filter as _;
        change.flags = (libc::EV_ADD | libc::EV_CLEAR) as _;
        change.fflags = libc::NOTE_LOWAT as _;
        change.data = i32::MAX as _;
        change
    });
    let queue_fd = queue.as_raw_fd();
    // SAFETY: the queue is open, `changes` has the length that is passed, and there is no room for
    // events.
    let done = unsafe {
        libc::kevent(queue_fd, changes.as_ptr(), changes.len() as _, null_mut(), 0, null())
    };
    if done == -1 { Err(last_error()) } else { Ok(queue) }
}

impl Heard {
    /// Whether nothing can come from the peer or go to it any more.
    pub(in crate::unix) fn hear(&mut self, queue: BorrowedFd<'_>) -> Result<bool, Errno> {
        let mut events = [nothing(), nothing()];
        let (to, room) = (events.as_mut_ptr(), events.len() as _);
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the queue is borrowed, so it is open. There are no changes, and `to` has room for
        // `room` events.
        let count =
            unsafe { libc::kevent(queue.as_raw_fd(), null(), 0, to, room, &raw const at_once) };
        let count = match usize::try_from(count).map_err(|_| last_error()) {
            Err(Errno::INTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            let ended = event.flags as i64 & libc::EV_EOF as i64 != 0;
            if event.filter as i64 == libc::EVFILT_READ as i64 {
                self.incoming |= ended;
            } else {
                self.outgoing |= ended;
            }
        }
        Ok(self.incoming && self.outgoing)
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn nothing() -> libc::kevent {
    // SAFETY: the structure is numbers and a pointer, for which zero is a value.
    unsafe { zeroed() }
}
