//! Watches a ring, as `spin::tasks` watches a socket.
//!
//! A look at memory costs no system call, so a poll looks for a moment before it lets other tasks
//! have their turn. No flag is up meanwhile, because only a side that sleeps needs a bell.
//!
//! For the same reason, more than one stream of a thread may watch. If many are busy, a bell for
//! each message costs more than a look by each stream in each turn.

use std::hint::spin_loop;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::task::yield_now;

use crate::unix::spin::BUDGET;
use crate::unix::spin::tasks::{Spin, THREAD, Thread};

/// How long one poll looks. Timers and other tasks of the thread wait meanwhile.
const LOOK: Duration = Duration::from_micros(1);
/// The number of looks between two readings of the clock.
const LOOKS: u32 = 4;
/// The number of turns that together cost about as much as a sleep and the bell that ends it.
const TURNS: u32 = 32;

/// The result of watching.
pub(super) enum Watched<T> {
    Found(T),
    /// The task looks again after the other tasks have had their turn.
    GoesOn,
    /// Watching does not pay off. The task waits to be woken.
    Sleeps,
}

/// The turns that one direction of a stream takes while many streams of its thread are busy.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of turns in a row that found nothing.
    idle: AtomicU32,
    /// The time to give up, in nanoseconds since some fixed moment. It applies after [`TURNS`]
    /// turns.
    late: AtomicU64,
}

impl Turns {
    /// Reports whether to take one more turn. A stream gives up once both its turns and its time
    /// are used up. Neither alone suffices, because the other tasks determine how long a turn
    /// takes.
    fn take(&self, spin: &Spin, thread: &Thread) -> bool {
        match self.idle.load(Relaxed) {
            0 if !spin.may_watch(thread) => return false,
            0 => spin.watches.store(true, Relaxed),
            TURNS => self.late.store(nanos() + BUDGET.as_nanos() as u64, Relaxed),
            idle if idle > TURNS && nanos() >= self.late.load(Relaxed) => {
                self.idle.store(0, Relaxed);
                spin.watches.store(false, Relaxed);
                thread.missed();
                return false;
            }
            _ => {}
        }
        self.idle.fetch_add(1, Relaxed);
        true
    }

    /// Watches with `look`, which has just found nothing.
    pub(super) fn watch<T>(
        &self,
        spin: &Spin,
        cx: &mut Context<'_>,
        mut look: impl FnMut() -> Option<T>,
    ) -> Watched<T> {
        THREAD.with(|thread| {
            if thread.is_busy() {
                // The stream has just looked, and the others are next.
                if !self.take(spin, thread) {
                    return Watched::Sleeps;
                }
            } else if !spin.watch(thread) {
                return Watched::Sleeps;
            } else if let Some(found) = look_for_a_moment(&mut look) {
                self.completed(spin, thread);
                return Watched::Found(found);
            }
            // This wakes the task after the others. It allocates nothing, and always returns
            // `Pending`.
            let _ = pin!(yield_now()).poll(cx);
            Watched::GoesOn
        })
    }

    /// Counts bytes or room that were found without watching, or at the start of a turn.
    pub(super) fn found(&self, spin: &Spin) {
        THREAD.with(|thread| self.completed(spin, thread));
    }

    fn completed(&self, spin: &Spin, thread: &Thread) {
        self.idle.store(0, Relaxed);
        spin.completed(thread);
    }
}

fn look_for_a_moment<T>(look: &mut impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + LOOK;
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Some(found);
            }
            spin_loop();
        }
        if Instant::now() >= until {
            return None;
        }
    }
}

fn nanos() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SpinPolicy;

    /// Returns five busy streams of this thread. They are made outside a runtime, and behave as on
    /// a runtime with several threads.
    fn crowd() -> Vec<(Box<Spin>, Turns)> {
        Thread::start();
        let spin = || Spin::new(SpinPolicy::Auto).expect("one that spins");
        let streams: Vec<_> = (0..5).map(|_| (spin(), Turns::default())).collect();
        for (spin, turns) in &streams {
            turns.found(spin);
            spin.wrote();
        }
        streams
    }

    fn takes_turn((spin, turns): &(Box<Spin>, Turns)) -> bool {
        THREAD.with(|thread| {
            assert!(thread.is_busy());
            turns.take(spin, thread)
        })
    }

    #[test]
    fn beside_many_busy_streams_each_takes_its_turns() {
        let streams = crowd();
        for _ in 0..2 {
            assert!(streams.iter().all(takes_turn));
        }
        streams.iter().for_each(|(spin, turns)| turns.found(spin));
        assert_eq!(Thread::score(), 5, "each was awake for what came");
        assert!(!takes_turn(&streams[0]), "it has asked nothing since");
        streams[0].0.wrote();
        Thread::set_credit(-1, 1, 16);
        assert!(!takes_turn(&streams[0]), "it may not watch");
        assert!(takes_turn(&streams[0]), "a probe");
    }

    #[test]
    fn a_stream_gives_up_after_its_turns_and_its_time() {
        let streams = crowd();
        let (spin, turns) = &streams[0];
        for _ in 0..3 * TURNS {
            assert!(takes_turn(&streams[0]), "the time is not over");
            turns.late.store(u64::MAX, Relaxed);
        }
        turns.late.store(0, Relaxed);
        assert!(!takes_turn(&streams[0]));
        assert_eq!(Thread::score(), -1);
        // A message arrives by a bell, and the stream watches again.
        turns.found(spin);
        spin.wrote();
        Thread::set_credit(0, 0, 16);
        assert!((0..TURNS).all(|_| takes_turn(&streams[0])), "the turns are not over");
        turns.found(spin);
        spin.wrote();
        assert!((0..TURNS).all(|_| takes_turn(&streams[0])), "nor after something has come");
    }
}
