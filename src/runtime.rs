//! The user's tokio runtime, without tokio's panics.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::error::{Error, Reason};

/// Runs `f`, which needs the runtime's reactor or clock.
///
/// tokio panics if they are missing, and has no call that reports whether they are there. So the
/// panic is caught: its message appears once, and the caller gets an error.
pub(crate) fn enter<T>(f: impl FnOnce() -> T) -> io::Result<T> {
    if Handle::try_current().is_err() {
        let error = Error::new(Reason::NoRuntime, "there is no tokio runtime here");
        return Err(error.advising("call this inside a tokio runtime").into());
    }
    catch_unwind(AssertUnwindSafe(f)).map_err(|_| {
        let error = Error::new(Reason::NoRuntime, "this tokio runtime has no I/O or no timers");
        error.advising("build it with enable_all(), or enable_io() and enable_time()").into()
    })
}

/// Creates a timer of the runtime.
pub(crate) fn sleep(duration: Duration) -> io::Result<Sleep> {
    enter(|| tokio::time::sleep(duration))
}

pub(crate) fn sleep_until(deadline: Instant) -> io::Result<Sleep> {
    enter(|| tokio::time::sleep_until(deadline))
}
