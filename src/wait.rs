//! The end of a wait that may have one.

use std::io::{Error, ErrorKind, Result};
#[cfg(feature = "blocking")]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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

/// A time limit of a read or a write, in nanoseconds, 0 for none: one number, which is read without
/// a lock and costs nothing to pass on.
#[cfg(feature = "blocking")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit(u64);

#[cfg(feature = "blocking")]
impl Limit {
    pub(crate) const NONE: Self = Self(0);

    /// 584 years are all that fit, and as good as any longer time.
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

/// Pauses between tries, each twice as long as the one before, from `first` to `most`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Of a listener, while the process or the system is out of something.
    pub(crate) const ACCEPT: Self = Self::new(Duration::from_millis(5), Duration::from_secs(1));

    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// How long to wait before the next try.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.most);
        pause
    }
}

/// The turns of `bind_wait`.
pub(crate) struct WaitForName {
    limit: Duration,
    end: Deadline,
    backoff: Backoff,
}

impl WaitForName {
    /// Between two tries to take a name that another server has.
    const PAUSES: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(50));

    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, end: Deadline::after(Some(limit)), backoff: Self::PAUSES }
    }

    /// How long to wait after a try that has failed, if another one is worth it.
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

/// A read or write whose time is over.
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
