//! Hears that the peer of a socket is gone, and of nothing else: no byte, no end of a direction.
//!
//! A queue of the kernel's own watches the socket: an epoll or a kqueue. It has no part in the
//! readiness that reads and writes share, and unlike a copy of the descriptor it does not keep the
//! connection open. Closing the socket takes it out of the queue, from which nothing comes any
//! more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
#[cfg(feature = "blocking")]
use std::thread;
use std::time::Duration;

#[cfg(feature = "blocking")]
use rustix::event::PollFlags;
use rustix::fs::fstat;

use super::platform::{self, Heard};
#[cfg(feature = "blocking")]
use super::poll::wait_for;
#[cfg(feature = "tokio")]
use super::runtime;
#[cfg(feature = "blocking")]
use crate::wait::Deadline;

/// Between two looks for a peer that nothing can be heard of any more: both sides have ended their
/// writing, which the kernel tells in the same way as that the peer has closed.
const PAUSE: Duration = Duration::from_secs(1);

/// A queue with a socket in it.
pub(super) struct Watch {
    queue: OwnedFd,
    /// The number of the socket's file.
    socket: u64,
}

impl Watch {
    #[allow(clippy::unnecessary_cast, reason = "the type differs from system to system")]
    pub(super) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let queue = platform::watch_for_hangup(socket)?;
        Ok(Self { queue, socket: fstat(socket)?.st_ino as u64 })
    }

    /// Completes when the peer is gone.
    #[cfg(feature = "tokio")]
    pub(super) async fn gone(self) -> io::Result<()> {
        let queue = runtime::register(self.queue)?;
        let mut heard = Heard::default();
        loop {
            let mut ready = queue.readable().await?;
            if !heard.hear(queue.get_ref().as_fd())? {
                ready.clear_ready();
            } else if !platform::has_peer(self.socket) {
                return Ok(());
            } else {
                runtime::sleep(PAUSE)?.await;
            }
        }
    }

    /// Waits until the peer is gone. `false` once the deadline is past.
    #[cfg(feature = "blocking")]
    pub(super) fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        let mut heard = Heard::default();
        loop {
            if !wait_for(self.queue.as_fd(), PollFlags::IN, deadline)? {
                return Ok(false);
            }
            if heard.hear(self.queue.as_fd())? {
                if !platform::has_peer(self.socket) {
                    return Ok(true);
                }
                thread::sleep(deadline.left().map_or(PAUSE, |left| left.min(PAUSE)));
            }
            if deadline.is_past() {
                return Ok(false);
            }
        }
    }
}
