//! Counts of a server's connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Refusal;

/// Counts of a server's connections, from [`Serve::counters`](crate::Serve::counters). Read them
/// while it serves, and after.
///
/// Each number is read by itself, so two of them may be of different moments.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    active: AtomicUsize,
    accepted: AtomicU64,
    over_limit: AtomicU64,
    stopping: AtomicU64,
    cut: AtomicU64,
}

impl Counters {
    /// Returns how many connections are served now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.0.active.load(Ordering::Relaxed)
    }

    /// Returns how many connections were given to a handler.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Returns how many connections were closed for reason `why` before a handler ran, or when
    /// Windows reported their user late. [`Listener::stats`](crate::Listener::stats) counts the
    /// clients that the transport refuses by itself.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.count(why).load(Ordering::Relaxed)
    }

    /// Returns how many connections were cut at the [drain
    /// deadline](crate::GracefulServe::drain_deadline), or had not been served by then.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.0.cut.load(Ordering::Relaxed)
    }

    pub(super) fn accept(&self) -> Active {
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        self.0.active.fetch_add(1, Ordering::Relaxed);
        Active(self.clone())
    }

    pub(super) fn refuse(&self, why: Refusal) {
        self.count(why).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_cut(&self, connections: usize) {
        self.0.cut.fetch_add(connections as u64, Ordering::Relaxed);
    }

    fn count(&self, why: Refusal) -> &AtomicU64 {
        match why {
            Refusal::UserLimit => &self.0.over_limit,
            Refusal::Stopping => &self.0.stopping,
        }
    }
}

/// Counts a connection as active until it is dropped.
pub(super) struct Active(Counters);

impl Active {
    pub(super) fn refuse(&self, why: Refusal) {
        self.0.refuse(why);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
