//! The parts of the user's tokio runtime that only Unix needs.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::runtime::enter;
pub(crate) use crate::runtime::sleep;

/// # Errors
///
/// Fails outside a runtime, where no client could be accepted, and each would be closed.
pub(crate) fn can_accept() -> io::Result<()> {
    enter(|| ())
}

pub(crate) fn shutdown_signal() -> impl Future<Output = io::Result<()>> + Send + 'static {
    let listen = || {
        enter(|| {
            io::Result::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
        })?
    };
    // If this function is called before the runtime starts, the first poll runs inside it.
    let listening = Handle::try_current().is_ok().then(listen);
    async move {
        let (mut interrupt, mut terminate) = listening.unwrap_or_else(listen)?;
        poll_fn(|cx| match interrupt.poll_recv(cx) {
            Poll::Pending => terminate.poll_recv(cx),
            ready => ready,
        })
        .await;
        Ok(())
    }
}

/// A future that completes once a name may have been removed.
pub(super) type NameEvent = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Registers a socket with the reactor, for reading.
pub(super) fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register_for(socket, Interest::READABLE)
}

pub(super) fn register_for(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    enter(|| register_owned(socket, interest))?
}

#[allow(unsafe_code, reason = "tokio has no safe constructor of AsyncFd")]
fn register_owned(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is a valid, open descriptor that only it closes, and its `as_raw_fd`
    // always returns that number. The `AsyncFd` takes ownership, and nothing replaces the `OwnedFd`
    // inside.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    registered.map_err(|error| error.into_parts().1)
}
