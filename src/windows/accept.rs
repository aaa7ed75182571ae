//! The instances of a listener's pipe, and their clients. The driver does the waiting: a task on
//! the reactor (`listener.rs`), or a thread (`blocking/listener.rs`). Its thread must stay, because
//! the system cancels what a thread has begun when that thread ends.
//!
//! No event loop owns an instance before it is handed out, so instances can be closed at any time
//! and at once.

use std::collections::VecDeque;
use std::io;
use std::os::windows::io::OwnedHandle;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Waker;
use std::time::Instant;

use super::arming::{Arming, Step};
use super::overlapped::Connect;
use super::pipe::{self, Instance, Kind};
use super::{cannot_add, cannot_listen};
use crate::endpoint::Endpoint;

pub(super) struct Instances {
    path: String,
    kind: Kind,
    /// Instances that accept no client yet. They hold the name all the same. Clients open the
    /// oldest instance that is free, so this order and that of `armed` is the order in which
    /// clients come.
    made: VecDeque<OwnedHandle>,
    armed: Vec<Connect>,
    arming: Arming<Connect>,
}

pub(super) enum Next {
    Client(OwnedHandle),
    /// Wait until woken, up to this time.
    Wait(Option<Instant>),
}

impl Instances {
    /// Claims the name. Clients can open the pipe from here on.
    pub(super) fn claim(address: &Endpoint, kind: Kind, wanted: usize) -> io::Result<Self> {
        let path = &address.to_string();
        let first = match pipe::create(path, Instance::First, &kind) {
            Ok(first) => first,
            Err(error) => {
                pipe::take_over(path, &kind).ok_or_else(|| cannot_listen(address, path, error))?
            }
        };
        let mut instances = Self::new(path, kind, wanted);
        instances.made.push_back(first);
        while instances.made.len() < wanted {
            instances.make().map_err(|error| cannot_add(address, error))?;
        }
        Ok(instances)
    }

    fn new(path: &str, kind: Kind, wanted: usize) -> Self {
        let (made, armed, arming) = (VecDeque::new(), Vec::new(), Arming::new(wanted));
        Self { path: path.to_owned(), kind, made, armed, arming }
    }

    pub(super) fn has_messages(&self) -> bool {
        self.kind.has_messages()
    }

    /// Returns the counter of pauses, which stays up to date.
    pub(super) fn pauses(&self) -> Arc<AtomicU64> {
        self.arming.pauses()
    }

    /// Returns the next client. If there is none yet, `waker` is woken when one may have come.
    pub(super) fn next(&mut self, waker: &Waker) -> Next {
        loop {
            let now = Instant::now();
            match self.arming.step(now) {
                Step::Arm => match self.arm(waker) {
                    Ok(()) => self.arming.armed(),
                    Err(error) => self.arming.failed(&error, now),
                },
                Step::HandOut(over) => match over.end() {
                    Ok(client) => return Next::Client(client),
                    Err(error) => self.arming.failed(&error, now),
                },
                // One at a time: otherwise clients that come as fast as instances are created would
                // keep any from being handed out.
                Step::Wait(until) => match self.armed.iter().position(Connect::is_over) {
                    Some(over) => self.arming.taken(self.armed.remove(over)),
                    None => return Next::Wait(until),
                },
            }
        }
    }

    /// Records that a client that was handed out could not be used.
    pub(super) fn failed(&mut self, error: &io::Error) {
        self.arming.failed(error, Instant::now());
    }

    /// Closes the instances without a client, and returns the others. It begins with the newest: a
    /// client that connects meanwhile opens the oldest, and is returned too.
    pub(super) fn end(self) -> Vec<OwnedHandle> {
        let mut clients: Vec<_> = Vec::new();
        for pipe in self.made.into_iter().rev() {
            // A client may have opened an instance that was not armed.
            if pipe::has_client(&pipe).unwrap_or(false) {
                clients.push(pipe);
            }
        }
        let over = self.arming.into_taken().into_iter().chain(self.armed);
        clients.extend(over.rev().filter_map(|over| over.end().ok()));
        clients.reverse();
        clients
    }

    fn make(&mut self) -> io::Result<()> {
        self.made.push_back(pipe::create(&self.path, Instance::Further, &self.kind)?);
        Ok(())
    }

    fn arm(&mut self, waker: &Waker) -> io::Result<()> {
        if self.made.is_empty() {
            self.make()?;
        }
        let Some(pipe) = self.made.pop_front() else { return Ok(()) };
        match Connect::begin(pipe, waker) {
            Ok(armed) => self.armed.push(armed),
            Err((pipe, error)) => {
                self.made.push_front(pipe);
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use std::sync::atomic::Ordering;
    use std::task::Waker;
    use std::time::Duration;

    use tokio::net::windows::named_pipe::{PipeMode, ServerOptions};

    use super::super::pipe::{ARMED, Presence, presence};
    use super::super::reactor;
    use super::super::tests::unique;
    use super::*;
    use crate::options::Access;

    fn further(path: &str, count: usize) -> Instances {
        let kind = Kind::new(Access::Owner).expect("a descriptor");
        let mut instances = Instances::new(path, kind, count);
        for _ in 0..count {
            instances.make().expect("room for these");
        }
        instances
    }

    /// Asks repeatedly until there is a client, as a woken task would.
    fn next(instances: &mut Instances) -> OwnedHandle {
        loop {
            match instances.next(Waker::noop()) {
                Next::Client(client) => return client,
                Next::Wait(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// A foreign instance limits the number of instances, as a system out of resources would.
    #[test]
    fn without_room_for_a_successor_the_last_instance_is_kept() {
        let path = unique();
        let context = reactor::handle().expect("a reactor").enter();
        let mut foreign = ServerOptions::new();
        foreign.max_instances(ARMED + 1).pipe_mode(PipeMode::Message);
        let foreign = foreign.create(&path).expect("a free name");
        drop(context);
        let busy = pipe::open(&path).expect("the foreign instance");
        let mut instances = further(&path, ARMED);
        assert!(matches!(instances.next(Waker::noop()), Next::Wait(None)));
        let pauses = instances.pauses();

        // Without room for a successor, all instances but one are handed out.
        let opened: Vec<_> = (0..ARMED).map(|_| pipe::open(&path).expect("an instance")).collect();
        let handed_out: Vec<_> = (1..ARMED).map(|_| next(&mut instances)).collect();
        assert!(matches!(instances.next(Waker::noop()), Next::Wait(Some(_))));
        assert_ne!(pauses.load(Ordering::Relaxed), 0);
        drop((foreign, busy, opened, handed_out));
        // Once all the others are closed there is room again.
        drop(next(&mut instances));
        assert_eq!(presence(&path), Presence::There);
        assert_eq!(instances.end().len(), 0);
        assert_eq!(presence(&path), Presence::Absent);
    }

    #[test]
    fn the_end_returns_every_client_that_opened_an_instance() {
        let path = unique();
        for accepted in [true, false] {
            let mut instances = further(&path, ARMED);
            if accepted {
                assert!(matches!(instances.next(Waker::noop()), Next::Wait(None)));
            }
            let clients: Vec<_> = (0..2).map(|_| pipe::open(&path).expect("one")).collect();
            assert_eq!(instances.end().len(), clients.len(), "accepted: {accepted}");
        }
    }
}
