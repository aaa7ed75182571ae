//! The user's tokio runtime, without tokio's panics.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Sleep, sleep as tokio_sleep};

use crate::error::{Error, Reason};

/// Runs `f`, which needs the runtime's reactor or clock.
///
/// tokio panics where they are missing and has no call to ask for them, so the panic is caught:
/// its message appears once, and the caller gets an error.
pub(super) fn enter<T>(f: impl FnOnce() -> T) -> io::Result<T> {
    if Handle::try_current().is_err() {
        let error = Error::new(Reason::NoRuntime, "there is no tokio runtime here");
        return Err(error.advising("call this from inside one").into());
    }
    catch_unwind(AssertUnwindSafe(f)).map_err(|_| {
        let error = Error::new(Reason::NoRuntime, "this tokio runtime has no I/O or no timers");
        error.advising("build it with enable_all(), or enable_io() and enable_time()").into()
    })
}

/// # Errors
///
/// Without a runtime here no client could be let in, and each would be closed.
pub(crate) fn can_accept() -> io::Result<()> {
    enter(|| ())
}

pub(crate) fn sleep(duration: Duration) -> io::Result<Sleep> {
    enter(|| tokio_sleep(duration))
}

pub(crate) fn shutdown_signal() -> impl Future<Output = io::Result<()>> + Send + 'static {
    let listen = || {
        enter(|| {
            io::Result::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
        })?
    };
    // Where the call comes before the runtime, its first poll does not.
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

pub(super) fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    enter(|| register_owned(socket))?
}

#[allow(unsafe_code, reason = "tokio has no safe constructor of AsyncFd")]
fn register_owned(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is a valid, open descriptor that only it closes, and its `as_raw_fd`
    // always names that one; the `AsyncFd` takes it whole, and nothing takes it out again.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}
