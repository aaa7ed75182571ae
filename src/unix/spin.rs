//! Busy-polling, or watching for the peer's answer before the thread sleeps:
//! [`SpinPolicy::Auto`](crate::SpinPolicy).
//!
//! Waking a core that sleeps takes longer than everything else in a round trip. So a reader that
//! finds nothing looks again for a moment. The module `tasks` does this for tokio's tasks, and
//! `threads` for threads that block.

#[cfg(feature = "tokio")]
pub(super) mod tasks;
#[cfg(feature = "blocking")]
pub(super) mod threads;

use std::time::Duration;

/// How long to watch. This is at least the time that it takes to wake a core. With less, two peers
/// that have both gone to sleep would never again answer each other in time.
pub(super) const BUDGET: Duration = Duration::from_micros(50);

/// Records whether watching pays off. A hit is an answer that came in time, and a miss is one that
/// did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Credit {
    /// A negative score means that watching does not pay off, so the stream only probes.
    score: i8,
    /// The number of waits to skip before the next probe, and the number to skip after that probe.
    skip: u16,
    interval: u16,
}

impl Credit {
    const MOST: i8 = 16;
    const MISS: i8 = 4;
    const FIRST: u16 = 16;
    const LAST: u16 = 1024;

    const fn new() -> Self {
        Self { score: 0, skip: 0, interval: Self::FIRST }
    }

    /// Reports whether to watch this time.
    fn allows(&mut self) -> bool {
        if self.score >= 0 || self.skip == 0 {
            return true;
        }
        self.skip -= 1;
        false
    }

    fn hit(&mut self) {
        if self.score < 0 {
            self.score = 0;
            self.interval = (self.interval / 2).max(Self::FIRST);
        } else if self.score < Self::MOST {
            self.score += 1;
            if self.score == Self::MOST {
                self.interval = Self::FIRST;
            }
        }
    }

    fn miss(&mut self) {
        self.score -= Self::MISS;
        if self.score < 0 {
            self.score = -1;
            self.skip = self.interval;
            self.interval = (self.interval * 2).min(Self::LAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Credit;

    #[test]
    fn credit_closes_with_misses_and_opens_with_a_hit() {
        let mut credit = Credit::new();
        assert!(credit.allows());
        credit.miss();

        for interval in [16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(credit.skip, interval);
            for _ in 0..interval {
                assert!(!credit.allows());
            }
            assert!(credit.allows(), "a probe after {interval} waits");
            assert!(credit.allows(), "and for as long as it is not known what came of it");
            credit.miss();
        }

        credit.hit();
        assert!(credit.allows());
        for _ in 0..40 {
            credit.hit();
        }
        assert_eq!(credit, Credit { score: 16, skip: 1024, interval: 16 });
        for _ in 0..4 {
            credit.miss();
            assert!(credit.allows(), "what has paid for long is not given up at once");
        }
        credit.miss();
        assert!(!credit.allows());
    }
}
