//! Admits one thread at a time, without a lock.
//!
//! Each direction of a pipe is used by one thread at a time: the system gives the end of the stream
//! to one read only, and what is written next depends on what was written last. A thread that comes
//! alone changes one number when it comes and again when it leaves. Both together take 20 ns, and
//! the call on the pipe between them takes microseconds. Only threads that come at the same time
//! use the lock, to sleep.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::wait::Deadline;

const FREE: u8 = 0;
const TAKEN: u8 = 1;
/// The turn is taken, and other threads may wait for it.
const WANTED: u8 = 2;

#[derive(Default)]
pub(super) struct Turn {
    state: AtomicU8,
    asleep: Mutex<()>,
    free: Condvar,
}

pub(super) struct Taken<'a>(&'a Turn);

impl Turn {
    /// Takes the turn. Returns `None` once the deadline is past.
    pub(super) fn take(&self, deadline: Deadline) -> Option<Taken<'_>> {
        match self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Some(Taken(self)),
            Err(_) => self.wait(deadline),
        }
    }

    #[cold]
    fn wait(&self, deadline: Deadline) -> Option<Taken<'_>> {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        // The mark stays afterwards, even if no thread waits by then. That costs one unneeded call.
        while self.state.swap(WANTED, Ordering::Acquire) != FREE {
            asleep = match deadline.left() {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    let waited = self.free.wait_timeout(asleep, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.free.wait(asleep).unwrap_or_else(PoisonError::into_inner),
            };
        }
        Some(Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.0.state.swap(FREE, Ordering::Release) == WANTED {
            // A thread that has set the mark holds the lock until it waits, so this notification
            // reaches it.
            drop(self.0.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.0.free.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use super::*;

    /// Data that only the thread with the turn may use.
    struct Shared {
        turn: Turn,
        count: Cell<u32>,
    }

    // SAFETY: only the thread with the turn uses the number.
    #[allow(unsafe_code, reason = "a number without a lock shows that the turn is one")]
    unsafe impl Sync for Shared {}

    #[test]
    fn one_thread_has_the_turn_at_a_time_and_none_is_forgotten() {
        const THREADS: u32 = 4;
        const TIMES: u32 = 5_000;
        let shared = Shared { turn: Turn::default(), count: Cell::new(0) };

        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let shared = &shared;
                    for _ in 0..TIMES {
                        let _turn = shared.turn.take(Deadline::after(None)).expect("no deadline");
                        let before = shared.count.get();
                        if before % 64 == 0 {
                            thread::yield_now();
                        }
                        shared.count.set(before + 1);
                    }
                });
            }
        });

        assert_eq!(shared.count.get(), THREADS * TIMES);
    }

    #[test]
    fn a_turn_that_is_taken_is_waited_for_until_the_deadline() {
        let turn = Turn::default();
        let first = turn.take(Deadline::after(Some(Duration::ZERO))).expect("it is free");
        assert!(turn.take(Deadline::after(Some(Duration::from_millis(20)))).is_none());
        drop(first);
        drop(turn.take(Deadline::after(Some(Duration::ZERO))).expect("it is free again"));
        assert!(turn.take(Deadline::after(Some(Duration::ZERO))).is_some());
    }
}
