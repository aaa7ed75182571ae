//! Busy-polling for tokio's tasks.
//!
//! A reader watches without holding the thread. The task calls `yield_now`, which puts it behind
//! everything that can run and behind one look at the reactor, and then tries to receive a few
//! times. A loop inside `poll_read` would be simpler, but would keep timers and other connections
//! waiting for as long as the conversation lasts.
//!
//! Three gates keep watching from costing more than it saves. Only one stream of a thread watches
//! at a time. No stream watches while many streams of the thread are busy. While watching does not
//! pay off, streams only probe now and then. Each thread keeps this state for itself, so nothing is
//! shared or locked.

use std::cell::Cell;
use std::future::Future;
use std::hint::spin_loop;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::coop::has_budget_remaining;
use tokio::task::yield_now;

use super::{BUDGET, Credit};
use crate::options::SpinPolicy;

/// The number of tries to receive in each turn of the task. They take about as long as the turn
/// itself.
const TRIES: u32 = 4;
/// With more busy streams than this, a thread rarely sleeps, and watching would be in their way.
const BUSY: u32 = 4;
/// The number of reads over which busy streams are counted.
const WINDOW: u32 = 64;

/// The state that the streams polled by one thread share.
pub(in crate::unix) struct Thread {
    credit: Cell<Credit>,
    /// The stream that watches, or 0 for none. A stream that is dropped or moves to another thread
    /// leaves its number behind, so the number is valid only until `owned_until`.
    owner: Cell<u64>,
    owned_until: Cell<Option<Instant>>,
    /// The time at which the owner gives up. It goes on if `progress` differs from `seen`:
    /// something came for another stream, and the thread would not have slept anyway.
    until: Cell<Option<Instant>>,
    seen: Cell<u32>,
    /// The number of completed reads.
    progress: Cell<u32>,
    /// The number of reads in this window. The two fields below count the streams that had reads,
    /// in this window and in the one before.
    reads: Cell<u32>,
    streams: Cell<u32>,
    streams_before: Cell<u32>,
    window: Cell<u32>,
}

thread_local! {
    pub(in crate::unix) static THREAD: Thread = const {
        Thread {
            credit: Cell::new(Credit::new()),
            owner: Cell::new(0),
            owned_until: Cell::new(None),
            until: Cell::new(None),
            seen: Cell::new(0),
            progress: Cell::new(0),
            reads: Cell::new(0),
            streams: Cell::new(0),
            streams_before: Cell::new(0),
            window: Cell::new(0),
        }
    };
}

impl Thread {
    fn with_credit<T>(&self, change: impl FnOnce(&mut Credit) -> T) -> T {
        let mut credit = self.credit.get();
        let outcome = change(&mut credit);
        self.credit.set(credit);
        outcome
    }

    pub(in crate::unix) fn missed(&self) {
        self.with_credit(Credit::miss);
    }

    pub(in crate::unix) fn is_busy(&self) -> bool {
        self.streams.get().max(self.streams_before.get()) > BUSY
    }

    fn is_taken(&self, now: Instant) -> bool {
        self.owner.get() != 0 && self.owned_until.get().is_some_and(|until| now < until)
    }
}

/// The state of one stream. Only one task reads, but the fields are atomics because the stream is
/// `Sync`.
#[derive(Debug)]
pub(in crate::unix) struct Spin {
    id: u64,
    /// Whether to watch only after a write of this side. On a runtime with several threads, a
    /// stream that only reads would keep a thread from its work by watching.
    only_in_turns: bool,
    wrote: AtomicBool,
    pub(in crate::unix) watches: AtomicBool,
    /// The thread's window in which the stream was last counted.
    window: AtomicU32,
}

impl Spin {
    /// Returns `None` if the policy is off.
    pub(in crate::unix) fn new(policy: SpinPolicy) -> Option<Box<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if policy == SpinPolicy::Off {
            return None;
        }
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        Some(Box::new(Self {
            id: NEXT.fetch_add(1, Relaxed),
            only_in_turns: !matches!(flavor, Ok(RuntimeFlavor::CurrentThread)),
            wrote: AtomicBool::new(false),
            watches: AtomicBool::new(false),
            window: AtomicU32::new(u32::MAX),
        }))
    }

    /// Reads with `read`, which registers the task if it finds nothing. A stream that watches tries
    /// `receive` first, which does not register the task.
    pub(in crate::unix) fn poll<T, B>(
        &self,
        cx: &mut Context<'_>,
        buf: &mut B,
        receive: impl Fn(&mut B) -> Poll<T>,
        read: impl FnOnce(&mut Context<'_>, &mut B) -> Poll<T>,
    ) -> Poll<T> {
        THREAD.with(|thread| {
            let watches = self.watches.load(Relaxed) && thread.owner.get() == self.id;
            if watches && has_budget_remaining() {
                for _ in 0..TRIES {
                    if let Poll::Ready(received) = receive(buf) {
                        self.completed(thread);
                        return Poll::Ready(received);
                    }
                    spin_loop();
                }
            }
            if let Poll::Ready(received) = read(cx, buf) {
                self.completed(thread);
                return Poll::Ready(received);
            }
            // A task that has used up its budget has not tried to receive, so it knows nothing
            // about its peer.
            if has_budget_remaining() && self.watch(thread) {
                // The task is registered with the reactor in any case. This call wakes it as well,
                // after all others have had their turn. It allocates nothing, and always returns
                // `Pending`.
                let _ = pin!(yield_now()).poll(cx);
            }
            Poll::Pending
        })
    }

    pub(in crate::unix) fn wrote(&self) {
        self.wrote.store(true, Relaxed);
    }

    /// Reports whether to go on without sleeping, after a read that found nothing.
    pub(in crate::unix) fn watch(&self, thread: &Thread) -> bool {
        if self.watches.load(Relaxed) {
            let goes_on = self.goes_on(thread);
            self.watches.store(goes_on, Relaxed);
            return goes_on;
        }
        if thread.is_busy() || !self.may_watch(thread) {
            return false;
        }
        let now = Instant::now();
        if thread.is_taken(now) {
            return false;
        }
        thread.owner.set(self.id);
        thread.owned_until.set(Some(now + BUDGET));
        thread.until.set(Some(now + BUDGET));
        thread.seen.set(thread.progress.get());
        self.watches.store(true, Relaxed);
        true
    }

    /// Reports whether a stream that does not watch yet may begin.
    pub(in crate::unix) fn may_watch(&self, thread: &Thread) -> bool {
        (!self.only_in_turns || self.wrote.load(Relaxed)) && thread.with_credit(Credit::allows)
    }

    fn goes_on(&self, thread: &Thread) -> bool {
        // Another stream has taken over, or the task has moved to another thread.
        if thread.owner.get() != self.id {
            return false;
        }
        if thread.is_busy() {
            thread.owner.set(0);
            return false;
        }

        let now = Instant::now();
        if thread.progress.get() != thread.seen.get() {
            thread.with_credit(Credit::hit);
            thread.until.set(Some(now + BUDGET));
            thread.seen.set(thread.progress.get());
            return true;
        }

        if thread.until.get().is_some_and(|until| now < until) {
            return true;
        }
        thread.missed();
        thread.owner.set(0);
        false
    }

    pub(in crate::unix) fn completed(&self, thread: &Thread) {
        self.wrote.store(false, Relaxed);
        thread.progress.set(thread.progress.get().wrapping_add(1));
        if thread.reads.get() == WINDOW {
            thread.reads.set(0);
            thread.streams_before.set(thread.streams.take());
            thread.window.set(thread.window.get().wrapping_add(1));
        } else {
            thread.reads.set(thread.reads.get() + 1);
        }
        if self.window.load(Relaxed) != thread.window.get() {
            self.window.store(thread.window.get(), Relaxed);
            thread.streams.set(thread.streams.get() + 1);
        }
        if self.watches.load(Relaxed) {
            self.watches.store(false, Relaxed);
            thread.with_credit(Credit::hit);
            if thread.owner.get() == self.id {
                thread.owner.set(0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
