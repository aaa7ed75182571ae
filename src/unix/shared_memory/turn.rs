//! Lets one thread at a time wait for a direction of a stream.
//!
//! A direction has one flag that asks for a bell, and one bell wakes one side. If two threads
//! waited for it, one could take the bell before the other has seen it, and the other would sleep
//! with its flag down.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::wait::Deadline;

#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    /// Whether the turn is for one of the threads that wait. A thread that comes later must not
    /// take it, or a busy one could keep the others waiting.
    passed_on: bool,
    /// How many threads wait for their turn. Without any, nobody has to be notified.
    waiting: usize,
}

/// The turn of a thread, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for this thread's turn. Returns `None` once the deadline is past.
    pub(super) fn take(&self, deadline: Deadline) -> Option<Turn<'_>> {
        let mut state = self.lock();
        let mut waited = false;
        while state.taken && !(waited && state.passed_on) {
            if deadline.is_past() {
                return None;
            }

            state.waiting += 1;
            state = match deadline.left() {
                None => self.over.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waiting -= 1;
            waited = true;
        }
        (state.taken, state.passed_on) = (true, false);
        Some(Turn(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.passed_on = state.waiting > 0;
        state.taken = state.passed_on;
        if state.passed_on {
            self.0.over.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Longer than any step takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn at_once() -> Deadline {
        Deadline::after(Some(Duration::ZERO))
    }

    /// A thread that waits for its turn, and keeps it until the test ends it.
    struct Waiter {
        got: Receiver<bool>,
        end: Sender<()>,
    }

    impl Waiter {
        fn start(turns: &Arc<Turns>, deadline: Deadline) -> Self {
            let ((tell, got), (end, ended)) = (channel(), channel());
            let its = Arc::clone(turns);
            thread::spawn(move || {
                let turn = its.take(deadline);
                tell.send(turn.is_some()).expect("a test");
                let _ = ended.recv_timeout(PATIENCE);
            });
            Self { got, end }
        }

        /// Starts a thread without a deadline, and returns once it waits.
        fn start_to_wait(turns: &Arc<Turns>) -> Self {
            let before = turns.lock().waiting;
            let waiter = Self::start(turns, Deadline::after(None));
            let start = Instant::now();
            while turns.lock().waiting == before {
                assert!(start.elapsed() < PATIENCE, "the thread does not wait");
                thread::yield_now();
            }
            waiter
        }

        fn got_turn(&self) -> bool {
            self.got.recv_timeout(PATIENCE).expect("a turn, or a deadline")
        }
    }

    #[test]
    fn a_turn_is_passed_on_to_a_thread_that_waits() {
        let turns = Arc::new(Turns::default());
        let turn = turns.take(at_once()).expect("a turn");
        assert!(turns.take(at_once()).is_none(), "taken");

        let waiter = Waiter::start_to_wait(&turns);
        drop(turn);
        // Whether the other thread runs already or not, the turn is for it.
        assert!(turns.take(at_once()).is_none(), "passed on");
        assert!(waiter.got_turn());
        assert!(turns.take(at_once()).is_none(), "taken");
        waiter.end.send(()).expect("a thread");
        assert!(turns.take(Deadline::after(Some(PATIENCE))).is_some());
    }

    /// A busy thread takes its next turn only after one that waited meanwhile.
    #[test]
    fn each_of_many_threads_gets_its_turn() {
        let turns = Arc::new(Turns::default());
        let mut turn = turns.take(at_once()).expect("a turn");
        let waiters: Vec<_> = (0..8).map(|_| Waiter::start_to_wait(&turns)).collect();
        for waiter in &waiters {
            waiter.end.send(()).expect("a thread");
        }

        let mut served = 0;
        for round in 1..=waiters.len() {
            drop(turn);
            turn = turns.take(Deadline::after(Some(PATIENCE))).expect("a turn");
            served += waiters.iter().filter(|waiter| waiter.got.try_recv().is_ok()).count();
            assert!(served >= round, "{served} of {round}");
        }
        drop(turn);
        assert!(turns.take(Deadline::after(Some(PATIENCE))).is_some());
    }

    #[test]
    fn a_thread_that_waits_no_longer_gets_no_turn() {
        let turns = Arc::new(Turns::default());
        let turn = turns.take(at_once()).expect("a turn");
        let other = Waiter::start_to_wait(&turns);
        let soon = || Deadline::after(Some(Duration::from_millis(20)));
        let one = Waiter::start(&turns, soon());
        assert!(!one.got_turn(), "its deadline is past");
        drop(turn);
        assert!(other.got_turn(), "it still waits");
        other.end.send(()).expect("a thread");

        let turn = turns.take(Deadline::after(Some(PATIENCE))).expect("a turn");
        let one = Waiter::start(&turns, soon());
        assert!(!one.got_turn());
        drop(turn);
        assert!(turns.take(at_once()).is_some(), "passed on to nobody");
    }

    /// Deadlines that end while turns are passed on lose no turn, and no two threads have one.
    #[test]
    fn one_thread_at_a_time_has_a_turn() {
        let turns = Arc::new(Turns::default());
        let holders = Arc::new(AtomicUsize::new(0));
        let rounds = if cfg!(miri) { 20 } else { 2000 };

        let threads: Vec<_> = (0..4_u64)
            .map(|number| {
                let (turns, holders) = (Arc::clone(&turns), Arc::clone(&holders));

                thread::spawn(move || {
                    for round in 0..rounds {
                        let limit = Duration::from_micros((round * 7 + number) % 50);
                        let Some(_turn) = turns.take(Deadline::after(Some(limit))) else {
                            continue;
                        };
                        assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
                        thread::yield_now();
                        holders.fetch_sub(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();

        for thread in threads {
            thread.join().expect("one at a time");
        }
        assert!(turns.take(at_once()).is_some(), "a lost turn");
        assert_eq!(turns.lock().waiting, 0);
    }
}
