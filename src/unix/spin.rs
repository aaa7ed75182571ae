//! Busy-polling before a reader sleeps: [`SpinPolicy::Auto`](crate::SpinPolicy).
//!
//! Waking a sleeping core takes longer than the rest of a round trip. So a reader that finds no
//! data polls again for a short time before it sleeps. A stream that polls in this way *watches*.
//! The module `tasks` implements this for tokio tasks, and `threads` for blocking threads.

#[cfg(feature = "tokio")]
pub(super) mod tasks;
#[cfg(feature = "blocking")]
pub(super) mod threads;

use std::time::Duration;

/// How long to watch. It has to be longer than it takes to wake a core. Otherwise, once both peers
/// sleep, each answer would arrive too late, and both would sleep again.
pub(super) const BUDGET: Duration = Duration::from_micros(50);

/// Tracks whether watching pays off. A hit is data that arrives while the stream watches. A miss is
/// a watch that ends without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Credit {
    /// While the score is negative, watching does not pay off, and the stream only probes: a few
    /// reads watch, and all reads between them sleep without watching.
    score: i8,
    /// How many more reads sleep without watching before the next probe.
    skip: u16,
    /// The value of `skip` after the next miss.
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

    /// Reports whether the next read that finds no data may watch.
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
    fn misses_stop_watching_and_a_hit_allows_it_again() {
        let mut credit = Credit::new();
        assert!(credit.allows());
        credit.miss();

        for interval in [16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(credit.skip, interval);
            for _ in 0..interval {
                assert!(!credit.allows());
            }
            assert!(credit.allows(), "a probe after {interval} waits");
            assert!(credit.allows(), "until the result of the probe is recorded");
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
            assert!(credit.allows(), "a high score allows several misses");
        }
        credit.miss();
        assert!(!credit.allows());
    }
}
