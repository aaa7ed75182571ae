//! Implements the traits for tokio's own listener and stream.

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

/// The longest backlog, by Linux's default of `somaxconn`. Those of the other systems are shorter.
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

/// Accepts the next connection of a nonblocking listening socket.
///
/// It does not use the accept function of tokio or interprocess, which reads the peer's address:
/// the peer chooses that, and nothing here depends on it.
pub(super) async fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut backoff = Backoff::ACCEPT;
    loop {
        // Gives other tasks their turn in a flood of clients.
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

/// Waits for a client. The listener itself is registered with its owner's reactor, which accepts a
/// descriptor only once. So this function registers a copy of the descriptor.
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
