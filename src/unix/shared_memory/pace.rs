//! The pace at which a reader checks the ring.
//!
//! Each check takes the writer's position out of the cache of the writer's core, and the next
//! message has to fetch it back. If small messages follow each other without answers, that costs
//! the writer more than everything else. So the reader of such messages pauses until a few have
//! accumulated.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The number of consecutive reads after which a reader pauses. Each found bytes at once, with no
/// write in between.
const STREAM: u32 = 16;
/// A read of this length or more is worth a check of its own.
const SMALL: usize = 4096;
/// The length of a pause.
const PAUSE: Duration = Duration::from_micros(1);

/// The number of reads since the last write, or since a read that found nothing. Usually one task
/// or thread reads. If several do, a lost count only makes the guess worse.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU32);

impl Pace {
    /// Pauses if messages arrive fast, so that they accumulate. Returns whether it did.
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

    /// Counts a read that did not wait for long.
    pub(super) fn found(&self, length: usize) {
        let reads = if length < SMALL { self.0.load(Relaxed).saturating_add(1) } else { 0 };
        self.0.store(reads, Relaxed);
    }

    /// Starts to count again, because nothing came or this side answers.
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
