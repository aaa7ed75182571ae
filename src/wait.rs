//! Deadlines, timeouts, and the pauses between attempts.

use std::io::{Error, ErrorKind, Result};
#[cfg(feature = "blocking")]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::still_taken;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Returns the deadline that is `limit` from now. Without a limit, or with one that no clock
    /// reaches, there is none.
    pub(crate) fn after(limit: Option<Duration>) -> Self {
        Self(limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    /// Returns the time that is left: `None` without a deadline, zero once it is past.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn is_past(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// The timeout of a read or a write in nanoseconds, or 0 for none. As a single number, it is read
/// without a lock and costs nothing to pass on.
#[cfg(feature = "blocking")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit(u64);

#[cfg(feature = "blocking")]
impl Limit {
    pub(crate) const NONE: Self = Self(0);

    /// Caps the limit at 584 years, the longest time that fits.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self(limit.map_or(0, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn get(self) -> Option<Duration> {
        (self != Self::NONE).then(|| Duration::from_nanos(self.0))
    }

    pub(crate) fn store(self, place: &AtomicU64) {
        place.store(self.0, Relaxed);
    }

    #[inline]
    pub(crate) fn load(place: &AtomicU64) -> Self {
        Self(place.load(Relaxed))
    }
}

/// The pauses between attempts, each twice as long as the one before, from `first` to `most`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// The pauses of a listener while the process or the system lacks a resource.
    pub(crate) const ACCEPT: Self = Self::new(Duration::from_millis(5), Duration::from_secs(1));

    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// Returns how long to wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.most);
        pause
    }
}

/// The attempts of `bind_wait`.
pub(crate) struct WaitForName {
    limit: Duration,
    end: Deadline,
    backoff: Backoff,
}

impl WaitForName {
    /// The pauses between attempts to bind a name that another server holds.
    const PAUSES: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(50));

    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, end: Deadline::after(Some(limit)), backoff: Self::PAUSES }
    }

    /// Returns how long to wait after a failed attempt, or the error if no further attempt is worth
    /// it.
    pub(crate) fn after(&mut self, error: Error) -> Result<Duration> {
        if error.kind() != ErrorKind::AddrInUse {
            return Err(error);
        }
        if self.end.is_past() {
            return Err(still_taken(self.limit, error));
        }
        let pause = self.backoff.pause();
        Ok(self.end.left().map_or(pause, |left| left.min(pause)))
    }
}

/// Creates the error of a read or write that timed out.
#[cfg(feature = "blocking")]
pub(crate) fn timed_out(what: &str) -> Error {
    Error::new(ErrorKind::TimedOut, format!("the peer let the {what} timeout pass"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(5), ms(17));
        let pauses: Vec<_> = (0..4).map(|_| backoff.pause()).collect();
        assert_eq!(pauses, [ms(5), ms(10), ms(17), ms(17)]);
    }
}
