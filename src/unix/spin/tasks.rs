//! Busy-polling for tokio tasks.
//!
//! A reader that watches does not block its thread. Its task calls `yield_now`, so that tokio first
//! runs all other ready tasks and polls the reactor once. Then the task tries to receive a few
//! times. A loop inside `poll_read` would be simpler, but it would delay timers and other
//! connections for as long as the peer keeps sending.
//!
//! Three rules limit what watching costs. Only one stream of a thread watches at a time. No stream
//! watches while many streams of the thread are busy. While watching does not pay off, streams
//! watch only occasionally, as a probe. This state is thread-local, so it needs no lock.

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

/// How often each poll of a watching task tries to receive. All tries together take about as long
/// as the rest of the poll.
const TRIES: u32 = 4;
/// With more busy streams than this, a thread rarely sleeps, and watching would only delay them.
const BUSY: u32 = 4;
/// The number of reads over which busy streams are counted.
const WINDOW: u32 = 64;

/// The state that all streams polled by one thread share.
pub(in crate::unix) struct Thread {
    credit: Cell<Credit>,
    /// The id of the stream that watches, or 0 for none. The id expires at `owned_until`, because a
    /// stream that is dropped or moves to another thread does not reset it.
    owner: Cell<u64>,
    owned_until: Cell<Option<Instant>>,
    /// The time at which the owner stops watching. If `progress` differs from `seen`, the time is
    /// extended: another stream has received data, so the thread would not have slept anyway.
    until: Cell<Option<Instant>>,
    /// The value of `progress` when `until` was set.
    seen: Cell<u32>,
    /// The number of completed reads. It wraps around.
    progress: Cell<u32>,
    /// The number of completed reads in the current window.
    reads: Cell<u32>,
    /// The number of streams that completed a read in the current window.
    streams: Cell<u32>,
    /// The same number for the previous window.
    streams_before: Cell<u32>,
    /// The number of the current window.
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

/// The state of one stream. Only one task reads from the stream, but the stream is `Sync`, so the
/// fields are atomics.
#[derive(Debug)]
pub(in crate::unix) struct Spin {
    id: u64,
    /// Whether a read watches only after a write on the same stream. On a multi-thread runtime, a
    /// stream that only reads would occupy a worker thread by watching.
    only_after_write: bool,
    /// Whether the stream has written since its last completed read.
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
            only_after_write: !matches!(flavor, Ok(RuntimeFlavor::CurrentThread)),
            wrote: AtomicBool::new(false),
            watches: AtomicBool::new(false),
            window: AtomicU32::new(u32::MAX),
        }))
    }

    /// Polls `read`, which registers the task's waker if there is no data. If the stream watches,
    /// tries `receive` first, which registers no waker.
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
            // A task that has used up tokio's coop budget has not tried to receive, so it does not
            // know whether there is data.
            if has_budget_remaining() && self.watch(thread) {
                // `read` has registered the task with the reactor. This call also schedules the
                // task behind all ready tasks. It does not allocate, and its first poll always
                // returns `Pending`.
                let _ = pin!(yield_now()).poll(cx);
            }
            Poll::Pending
        })
    }

    pub(in crate::unix) fn wrote(&self) {
        self.wrote.store(true, Relaxed);
    }

    /// Reports whether the task watches instead of sleeping, after a read that found no data.
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

    /// Reports whether a stream that does not watch may start to.
    pub(in crate::unix) fn may_watch(&self, thread: &Thread) -> bool {
        (!self.only_after_write || self.wrote.load(Relaxed)) && thread.with_credit(Credit::allows)
    }

    fn goes_on(&self, thread: &Thread) -> bool {
        // Another stream watches now, or the task has moved to another thread.
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
