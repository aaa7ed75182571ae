//! The waits of a listener that cannot go on at the moment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::events;

const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// Each is longer than the one before, until something went well.
pub(super) struct Pauses {
    next: Duration,
    count: Arc<AtomicU64>,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: SHORTEST, count: Arc::default() }
    }

    /// How many there were, also later.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }

    /// How long to wait before the next try.
    pub(super) fn after(&mut self, error: &io::Error) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        self.count.fetch_add(1, Ordering::Relaxed);
        events::accept_paused(error, pause);
        pause
    }

    pub(super) fn went_well(&mut self) {
        self.next = SHORTEST;
    }
}
