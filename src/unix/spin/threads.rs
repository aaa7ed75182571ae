//! Busy-polling for blocking threads. Such a thread has no other work, so it retries in a loop.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{BUDGET, Credit};
use crate::options::SpinPolicy;

/// The credit of one stream. Threads that read at the same time may overwrite each other's updates.
/// A lost update only makes the credit less accurate.
#[derive(Debug)]
pub(in crate::unix) struct Spin(AtomicU64);

impl Spin {
    /// Returns `None` if the policy is off.
    pub(in crate::unix) fn new(policy: SpinPolicy) -> Option<Self> {
        (policy != SpinPolicy::Off).then(|| Self(AtomicU64::new(Credit::new().to_bits())))
    }

    /// Retries the nonblocking `receive` while the credit allows it, for [`BUDGET`] or `limit`,
    /// whichever is shorter. Returns its result, or `None` if the caller should block.
    pub(in crate::unix) fn watch<T>(
        &self,
        limit: Option<Duration>,
        mut receive: impl FnMut() -> Result<T, Errno>,
    ) -> Option<Result<T, Errno>> {
        let mut credit = Credit::from_bits(self.0.load(Relaxed));
        let allowed = credit.allows();
        let mut outcome = None;
        if allowed {
            // If data has already arrived, watching had no part in it, so it is not a hit.
            match receive() {
                Err(Errno::AGAIN) => {}
                done => return Some(done),
            }
            outcome = Self::receive_until(
                Instant::now() + limit.map_or(BUDGET, |limit| limit.min(BUDGET)),
                receive,
            );
            if outcome.is_some() { credit.hit() } else { credit.miss() }
        }
        self.0.store(credit.to_bits(), Relaxed);
        outcome
    }

    fn receive_until<T>(
        until: Instant,
        mut receive: impl FnMut() -> Result<T, Errno>,
    ) -> Option<Result<T, Errno>> {
        loop {
            match receive() {
                Err(Errno::AGAIN) if Instant::now() < until => spin_loop(),
                Err(Errno::AGAIN) => return None,
                done => return Some(done),
            }
        }
    }
}

impl Credit {
    fn to_bits(self) -> u64 {
        let [a, b] = self.skip.to_le_bytes();
        let [c, d] = self.interval.to_le_bytes();
        u64::from_le_bytes([self.score.to_le_bytes()[0], a, b, c, d, 0, 0, 0])
    }

    fn from_bits(bits: u64) -> Self {
        let [score, a, b, c, d, ..] = bits.to_le_bytes();
        let (skip, interval) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        Self { score: i8::from_le_bytes([score]), skip, interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(score: i8, skip: u16, interval: u16) -> Spin {
        Spin(AtomicU64::new(Credit { score, skip, interval }.to_bits()))
    }

    fn credit(spin: &Spin) -> Credit {
        Credit::from_bits(spin.0.load(Relaxed))
    }

    /// Returns a `receive` that succeeds after `tries` calls. It counts its calls in `count`.
    fn after(tries: u32, count: &mut u32) -> impl FnMut() -> Result<(), Errno> {
        move || {
            *count += 1;
            if *count > tries { Ok(()) } else { Err(Errno::AGAIN) }
        }
    }

    #[test]
    fn a_credit_survives_its_conversion_to_bits() {
        let credit = Credit { score: -1, skip: 1023, interval: 512 };
        assert_eq!(Credit::from_bits(credit.to_bits()), credit);
    }

    #[test]
    fn bytes_count_as_a_hit_only_after_the_first_try() {
        let spin = spin(0, 0, 16);
        assert_eq!(spin.watch(None, after(0, &mut 0)), Some(Ok(())));
        assert_eq!(credit(&spin).score, 0);
        assert_eq!(spin.watch(None, after(1, &mut 0)), Some(Ok(())));
        assert_eq!(credit(&spin).score, 1);
        // An end of file or an error while the stream watches is returned as well.
        let mut first = true;
        let reset = || {
            Err::<(), _>(if std::mem::take(&mut first) { Errno::AGAIN } else { Errno::CONNRESET })
        };
        assert_eq!(spin.watch(None, reset), Some(Err(Errno::CONNRESET)));
    }

    #[test]
    fn a_miss_stops_watching_until_the_next_probe() {
        let spin = spin(0, 0, 16);
        let mut count = 0;
        assert_eq!(spin.watch(Some(Duration::ZERO), after(u32::MAX, &mut count)), None);
        assert_eq!((count, credit(&spin).skip), (2, 16));
        for _ in 0..16 {
            let mut count = 0;
            assert_eq!(spin.watch(None, after(0, &mut count)), None);
            assert_eq!(count, 0, "received although the credit did not allow it");
        }
        assert_eq!(spin.watch(None, after(1, &mut 0)), Some(Ok(())));
        assert_eq!(credit(&spin).score, 0);
    }
}
