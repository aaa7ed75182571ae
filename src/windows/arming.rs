//! Decides when a listener creates another instance of its pipe, and when it hands a client out.
//!
//! This code makes no system calls and waits for nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::events;
use crate::wait::Backoff;

/// The state of a listener's instances. `C` is an instance that is no longer armed, because its
/// client has come or waiting for one failed.
pub(super) struct Arming<C> {
    wanted: usize,
    armed: usize,
    taken: VecDeque<C>,
    /// Until this time no instance is created, because creating the last one failed.
    rest: Option<Instant>,
    backoff: Backoff,
    pauses: Arc<AtomicU64>,
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<C> {
    /// Create an instance and wait for a client in it; then call [`armed`](Arming::armed) or
    /// [`failed`](Arming::failed).
    Arm,
    HandOut(C),
    /// Wait until an armed instance is [`taken`](Arming::taken), up to this time.
    Wait(Option<Instant>),
}

impl<C> Arming<C> {
    pub(super) fn new(wanted: usize) -> Self {
        Self {
            wanted,
            armed: 0,
            taken: VecDeque::new(),
            rest: None,
            backoff: Backoff::ACCEPT,
            pauses: Arc::default(),
        }
    }

    /// Returns the counter of pauses, which stays up to date.
    pub(super) fn pauses(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.pauses)
    }

    /// Returns the next step. A successor is created before an instance is handed out, and the last
    /// instance is kept. The pipe's name lives as long as an instance does: if the last one were
    /// handed out, and its client left, any process could take the name.
    pub(super) fn step(&mut self, now: Instant) -> Step<C> {
        if self.rest.is_some_and(|until| until <= now) {
            self.rest = None;
        }
        if self.armed < self.wanted && self.rest.is_none() {
            return Step::Arm;
        }
        // Instances that were taken hold the name, too.
        let held = self.armed + self.taken.len();
        match if held > 1 { self.taken.pop_front() } else { None } {
            Some(taken) => Step::HandOut(taken),
            None => Step::Wait(self.rest),
        }
    }

    pub(super) fn armed(&mut self) {
        self.armed += 1;
        if self.armed >= self.wanted {
            self.backoff = Backoff::ACCEPT;
        }
    }

    /// Records that an instance could not be created, or had an error in place of a client. The
    /// cause may be transient.
    pub(super) fn failed(&mut self, error: &io::Error, now: Instant) {
        let pause = self.backoff.pause();
        self.rest = Some(now + pause);
        self.pauses.fetch_add(1, Ordering::Relaxed);
        events::accept_paused(error, pause);
    }

    pub(super) fn taken(&mut self, taken: C) {
        self.armed -= 1;
        self.taken.push_back(taken);
        if self.armed == 0 {
            // Clients find no instance to open, so the pause ends.
            self.rest = None;
        }
    }

    /// Returns the taken instances that were not handed out.
    pub(super) fn into_taken(self) -> VecDeque<C> {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shortage() -> io::Error {
        io::Error::from(io::ErrorKind::OutOfMemory)
    }

    /// Returns an `Arming` that has armed all the instances that it wants.
    fn armed(wanted: usize, now: Instant) -> Arming<u32> {
        let mut arming = Arming::new(wanted);
        for _ in 0..wanted {
            assert_eq!(arming.step(now), Step::Arm);
            arming.armed();
        }
        assert_eq!(arming.step(now), Step::Wait(None));
        arming
    }

    #[test]
    fn a_successor_is_made_before_a_client_is_handed_out() {
        let now = Instant::now();
        let mut arming = armed(2, now);
        arming.taken(7);
        assert_eq!(arming.step(now), Step::Arm);
        arming.armed();
        assert_eq!(arming.step(now), Step::HandOut(7));
        assert_eq!(arming.step(now), Step::Wait(None));
    }

    #[test]
    fn clients_are_handed_out_in_their_order_while_another_instance_is_armed() {
        let now = Instant::now();
        let mut arming = armed(3, now);
        arming.taken(1);
        arming.taken(2);
        assert_eq!(arming.step(now), Step::Arm);
        arming.failed(&shortage(), now);
        assert_eq!(arming.step(now), Step::HandOut(1));
        assert_eq!(arming.step(now), Step::HandOut(2));
        assert_eq!(arming.step(now), Step::Wait(Some(now + Duration::from_millis(5))));
    }

    #[test]
    fn the_last_instance_is_held_until_its_successor_is_made() {
        let mut now = Instant::now();
        let mut arming = armed(1, now);
        arming.taken(7);
        // The pauses double from 5 ms to a second.
        for pause in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            assert_eq!(arming.step(now), Step::Arm);
            arming.failed(&shortage(), now);
            let until = now + Duration::from_millis(pause);
            assert_eq!(arming.step(now), Step::Wait(Some(until)));
            now = until;
        }
        assert_eq!(arming.pauses().load(Ordering::Relaxed), 10);
        assert_eq!(arming.step(now), Step::Arm);
        arming.armed();
        assert_eq!(arming.step(now), Step::HandOut(7));
        // The pauses start again from the shortest.
        arming.failed(&shortage(), now);
        assert_eq!(arming.step(now), Step::Wait(Some(now + Duration::from_millis(5))));
    }

    #[test]
    fn only_the_last_of_all_taken_at_once_is_held() {
        let now = Instant::now();
        let mut arming = armed(2, now);
        arming.taken(1);
        arming.taken(2);
        assert_eq!(arming.step(now), Step::Arm);
        arming.failed(&shortage(), now);
        assert_eq!(arming.step(now), Step::HandOut(1));
        assert!(matches!(arming.step(now), Step::Wait(Some(_))));
        assert_eq!(arming.into_taken(), [2]);
    }

    #[test]
    fn a_pause_ends_when_no_armed_instance_is_left() {
        let now = Instant::now();
        let mut arming = armed(2, now);
        arming.taken(1);
        arming.failed(&shortage(), now);
        assert_eq!(arming.step(now), Step::HandOut(1));
        assert!(matches!(arming.step(now), Step::Wait(Some(_))));
        arming.taken(2);
        assert_eq!(arming.step(now), Step::Arm);
        assert_eq!(arming.into_taken(), [2]);
    }
}
