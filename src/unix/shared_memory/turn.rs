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
