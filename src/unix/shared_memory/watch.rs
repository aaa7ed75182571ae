//! Watching a ring, as `spin::tasks` watches a socket.
//!
//! A look at memory costs no system call, so a poll looks for a moment before it lets the others
//! have their turn. No flag is up meanwhile: the peer rings for those who sleep.

use std::hint::spin_loop;
use std::pin::pin;
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::task::yield_now;

use crate::unix::spin::tasks::{Spin, THREAD};

/// How long one poll looks. Timers and other tasks of the thread wait for as long.
const LOOK: Duration = Duration::from_micros(1);
/// Looks for each look at the clock.
const LOOKS: u32 = 4;

/// What came of watching.
pub(super) enum Watched<T> {
    Found(T),
    /// The task looks again when the others have had their turn.
    GoesOn,
    /// It does not pay: the task waits to be woken.
    Sleeps,
}

/// Watches by `look`, which has just found nothing.
pub(super) fn watch_memory<T>(
    spin: &Spin,
    cx: &mut Context<'_>,
    mut look: impl FnMut() -> Option<T>,
) -> Watched<T> {
    THREAD.with(|thread| {
        if !spin.watch(thread) {
            return Watched::Sleeps;
        }
        let until = Instant::now() + LOOK;
        loop {
            for _ in 0..LOOKS {
                if let Some(found) = look() {
                    spin.completed(thread);
                    return Watched::Found(found);
                }
                spin_loop();
            }
            if Instant::now() >= until {
                // It allocates nothing, and only ever says Pending.
                let _ = pin!(yield_now()).poll(cx);
                return Watched::GoesOn;
            }
        }
    })
}

/// Counts what was found without watching.
pub(super) fn found(spin: &Spin) {
    THREAD.with(|thread| spin.completed(thread));
}
