//! tokio's own listener and stream under the traits.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::coop::consume_budget;

use super::claim::drain;
use super::gone::Watch;
use super::{inherited, is_passing, is_shortage, platform, runtime};
use crate::endpoint::Endpoint;
use crate::error::events;
use crate::listener::LocalListener;
use crate::peer::{PeerCredentials, UserId};
use crate::runtime::enter;
use crate::stream::{Closed, LocalStream};
use crate::wait::Backoff;

/// As many as wait in a queue, by Linux's default of `somaxconn`; those of the others are shorter.
const LONGEST_QUEUE: usize = 4096;

/// A listener of one's own making: its name, its mode and who may connect are left as they are.
/// Errors that pass are handled inside, as [`accept`](LocalListener::accept) promises.
impl LocalListener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<UnixStream> {
        let socket = accept(self.as_fd()).await?;
        stream(socket)
    }

    /// # Errors
    ///
    /// `InvalidInput` for a socket without a name.
    fn endpoint(&self) -> io::Result<Endpoint> {
        inherited::address(self.as_fd())
    }

    fn stop_listening(&mut self) -> Vec<UnixStream> {
        // Others may have the socket too, so it is not shut down.
        drain(self.as_fd(), LONGEST_QUEUE)
            .into_iter()
            .filter_map(|socket| stream(socket).ok())
            .collect()
    }
}

impl LocalStream for UnixStream {
    fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let peer = self.peer_cred()?;
        let process = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        Ok(PeerCredentials::new(UserId::Uid(peer.uid()), Some(peer.gid()), process))
    }

    fn closed(&self) -> Closed {
        let watch = Watch::new(self.as_fd());
        Box::pin(async { watch?.gone().await })
    }
}

pub(super) fn stream(socket: OwnedFd) -> io::Result<UnixStream> {
    enter(|| UnixStream::from_std(socket.into()))?
}

/// The next connection of a socket that listens and does not block.
///
/// Not by its owner's call, which reads the peer's address: that is the peer's choice, and nothing
/// here depends on it.
pub(super) async fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut backoff = Backoff::ACCEPT;
    loop {
        // A flood of clients does not keep other tasks from their turn.
        consume_budget().await;
        let accepted = match platform::accept(listener) {
            Err(Errno::AGAIN) => accept_later(listener).await,
            accepted => accepted.map_err(io::Error::from),
        };

        let error = match accepted {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(errno) if is_passing(errno) => {}
            Some(errno) if is_shortage(errno) => {
                let pause = backoff.pause();
                events::accept_paused(&error, pause);
                runtime::sleep(pause)?.await;
            }
            _ => return Err(error),
        }
    }
}

/// Waits for a client. The listener itself is registered with its owner's reactor, which takes a
/// descriptor once; so this registers another one of the same socket.
async fn accept_later(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let socket = runtime::register(listener.try_clone_to_owned()?)?;
    loop {
        let mut ready = socket.readable().await?;
        match platform::accept(listener) {
            Err(Errno::AGAIN) if ready.ready().is_read_closed() => {
                let what = "the socket was shut down, and listens no more";
                return Err(io::Error::new(ErrorKind::NotConnected, what));
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            accepted => return Ok(accepted?),
        }
    }
}
