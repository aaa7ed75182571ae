//! The end of a wait that may have one.

use std::io::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

use crate::error::still_taken;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Without a limit, or with one that no clock reaches, there is no end.
    pub(crate) fn after(limit: Option<Duration>) -> Self {
        Self(limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    /// What is left; `None` without an end, zero once it is past.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn is_past(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// The turns of `bind_wait`.
pub(crate) struct WaitForName {
    limit: Duration,
    end: Deadline,
    pause: Duration,
}

impl WaitForName {
    /// Between two tries to take a name that another server has: first, and at most.
    const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, end: Deadline::after(Some(limit)), pause: Self::PAUSE.0 }
    }

    /// How long to wait after a try that has failed, if another one is worth it.
    pub(crate) fn after(&mut self, error: Error) -> Result<Duration> {
        if error.kind() != ErrorKind::AddrInUse {
            return Err(error);
        }
        if self.end.is_past() {
            return Err(still_taken(self.limit, error));
        }
        let pause = self.end.left().map_or(self.pause, |left| left.min(self.pause));
        self.pause = (self.pause * 2).min(Self::PAUSE.1);
        Ok(pause)
    }
}

/// A read or write whose time is over.
#[cfg(feature = "blocking")]
pub(crate) fn timed_out(what: &str) -> Error {
    Error::new(ErrorKind::TimedOut, format!("the peer let the {what} timeout pass"))
}
