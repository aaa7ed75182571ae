//! Waits with poll(2), in calls that block the thread.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::wait::Deadline;

/// A longer wait takes more than one call.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Waits for the events `what`. Returns `false` once the deadline is past.
pub(super) fn wait_for(
    socket: BorrowedFd<'_>,
    what: PollFlags,
    deadline: Deadline,
) -> io::Result<bool> {
    wait_for_one(&mut [PollFd::from_borrowed_fd(socket, what)], deadline)
}

pub(super) fn wait_for_one(sockets: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    loop {
        // Some of these systems count in milliseconds, up to 24 days.
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
