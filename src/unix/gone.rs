//! Watches a socket for one event: that its peer is gone. Bytes and a half-close are not reported.
//!
//! The kernel watches the socket in a separate queue, an epoll or a kqueue. That queue does not
//! affect the readiness that reads and writes share, and unlike a copy of the descriptor it does
//! not keep the connection open. Closing the socket removes it from the queue, which then reports
//! nothing more.

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

/// The pause between checks for the peer after both sides have half-closed. The kernel reports that
/// in the same way as a closed peer.
const PAUSE: Duration = Duration::from_secs(1);

/// A queue with a socket in it.
pub(super) struct Watch {
    queue: OwnedFd,
    /// The inode number of the socket.
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

    /// Waits until the peer is gone. Returns `false` once the deadline is past.
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
