//! How often a reader looks at the ring.
//!
//! Each look takes the writer's position out of the cache of the writer's core, and the next
//! message has to fetch it back. Where small messages come one after the other and nobody waits for
//! an answer, that costs the writer more than all else. So such a reader lets a few come together.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Reads one after the other, each found at once, with no write between them.
const STREAM: u32 = 16;
/// What brings more is worth a look by itself.
const SMALL: usize = 4096;
/// How long the messages have.
const PAUSE: Duration = Duration::from_micros(1);

/// The reads since the last write, or since one that found nothing. One task or thread reads; where
/// several do, a lost count is no more than a worse guess.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU32);

impl Pace {
    /// Gives messages the time to come together, where they come fast. `true`: it did.
    pub(super) fn pause(&self) -> bool {
        let pauses = self.0.load(Relaxed) >= STREAM;
        if pauses {
            let until = Instant::now() + PAUSE;
            while Instant::now() < until {
                spin_loop();
            }
        }
        pauses
    }

    /// Counts a read that has not waited for long.
    pub(super) fn found(&self, length: usize) {
        let reads = if length < SMALL { self.0.load(Relaxed).saturating_add(1) } else { 0 };
        self.0.store(reads, Relaxed);
    }

    /// Nothing came, or this side answers.
    pub(super) fn ends(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_pauses_only_after_consecutive_small_reads() {
        let pace = Pace::default();
        let read = |length| (0..STREAM).for_each(|_| pace.found(length));
        read(64);
        let started = Instant::now();
        assert!(pace.pause());
        assert!(started.elapsed() >= PAUSE);
        pace.found(SMALL);
        assert!(!pace.pause(), "after a long read");
        read(64);
        pace.ends();
        assert!(!pace.pause(), "after a write");
        read(SMALL);
        assert!(!pace.pause(), "in bulk data");
    }
}
