//! Descriptors that the runtime watches.

use std::future::pending;
use std::io::{self, stdout};
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[allow(unsafe_code, reason = "tokio has no safe constructor of AsyncFd")]
pub fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is a valid, open descriptor that only it closes, and its `as_raw_fd`
    // always returns that number. The `AsyncFd` takes ownership, and nothing replaces the `OwnedFd`
    // inside.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(|error| error.into_parts().1)
}

/// Completes when `watched` has no reader any more, or when both directions of a socket have ended.
///
/// It clears the write readiness of `watched`. A writer that tries before it waits misses nothing.
pub async fn until_unread(watched: &AsyncFd<OwnedFd>) {
    while let Ok(mut ready) = watched.writable().await {
        if ready.ready().is_write_closed() {
            return;
        }
        ready.clear_ready();
    }
}

/// Completes when standard output has no reader any more. It never completes where that cannot be
/// seen, for example if it is a file.
pub async fn stdout_unread() {
    let stdout = stdout().as_fd().try_clone_to_owned();
    match stdout.and_then(|stdout| register(stdout, Interest::WRITABLE)) {
        Ok(watched) => until_unread(&watched).await,
        Err(_) => pending().await,
    }
}
