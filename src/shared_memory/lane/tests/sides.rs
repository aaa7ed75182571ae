//! The threads of a schedule call the lane as the async and the blocking streams do.

use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::world::{Case, Ended, Memory, Pair, Readiness, Socket, World, wait_for};
use crate::shared_memory::lane::{Lane, Outcome, Role, Then};

struct Side {
    lane: Lane<Pair, Memory>,
    socket: Socket,
    case: Case,
    /// The first number that this side sends.
    first: u8,
    length: u64,
    written: AtomicU64,
    done: AtomicBool,
}

impl Side {
    fn sends(&self) -> Vec<u8> {
        (0..self.length).map(|at| self.first.wrapping_add(at as u8)).collect()
    }

    fn below(&self, limit: u64) -> usize {
        self.socket.world.state().below(limit) as usize
    }

    fn edge(&self) -> u64 {
        self.socket.world.state().queues[1 - self.socket.side].edge
    }

    fn bell_edge(&self) -> u64 {
        self.socket.world.state().queues[1 - self.socket.side].bell_edge
    }

    /// Waits until the socket is readable. With edge readiness, this takes an edge after `cleared`.
    fn wait_readable(&self, cleared: Option<u64>) {
        match self.case.readiness {
            Readiness::Level => wait_for(|| self.socket.is_readable()),
            Readiness::Edge => wait_for(|| {
                let ended = self.socket.world.state().queues[1 - self.socket.side].ended;
                ended || cleared != Some(self.edge())
            }),
        }
    }

    fn write(&self) {
        let bytes = self.sends();
        let mut rest = &bytes[..];
        let (mut heard, mut then) = (None, Then::LookAgain);

        while !rest.is_empty() {
            let part = &rest[..rest.len().min(1 + self.below(5))];
            match self.lane.write(&self.socket, &[IoSlice::new(part)], then) {
                Ok(Outcome::Done(count)) => {
                    rest = &rest[count..];
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                }

                Ok(Outcome::Socket) => wait_for(|| self.socket.is_writable()),
                Ok(Outcome::Ring) if then == Then::LookAgain => {
                    then = Then::Sleep;
                    continue;
                }
                Ok(Outcome::Ring) => self.wait_for_bell(&mut heard),

                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    assert!(self.case.dies, "a broken pipe to a peer that lives");
                    self.done.store(true, Ordering::Relaxed);
                    return;
                }
                Err(error) => panic!("{error}"),
            }

            then = Then::LookAgain;
        }
        self.lane.shut_down(&self.socket).expect("an end");
        self.done.store(true, Ordering::Relaxed);
    }

    fn wait_for_bell(&self, cleared: &mut Option<u64>) {
        let gone = || self.socket.world.state().dead[1 - self.socket.side];
        match self.case.readiness {
            Readiness::Edge => wait_for(|| gone() || *cleared != Some(self.bell_edge())),
            Readiness::Level => wait_for(|| {
                gone() || self.socket.world.state().queues[1 - self.socket.side].bells > 0
            }),
        }
        let seen = self.bell_edge();
        match self.socket.hear() {
            Ok(true) => {}
            Ok(false) => self.lane.peer_is_gone(),
            Err(_) => *cleared = Some(seen),
        }
    }

    fn read(&self) -> Vec<u8> {
        if self.case.reads_late && self.socket.side == 0 {
            wait_for(|| self.done.load(Ordering::Relaxed));
        }
        let (mut got, mut cleared) = (Vec::new(), None);
        loop {
            let mut buf = vec![0; 1 + self.below(7)];
            let length = self.read_once(&mut buf, &mut cleared).expect("no error");
            if length == 0 {
                return got;
            }
            got.extend(&buf[..length]);
        }
    }

    fn read_once(&self, buf: &mut [u8], cleared: &mut Option<u64>) -> io::Result<usize> {
        match self.lane.look(buf).transpose()? {
            Some(Outcome::Done(read)) => return Ok(read.length),
            Some(_) => return self.read_ring(buf, cleared),
            None => {}
        }
        loop {
            if self.case.readiness == Readiness::Edge {
                self.wait_readable(*cleared);
            }

            let seen = self.edge();
            match self.lane.read(&self.socket, buf, Then::Sleep) {
                Ok(Outcome::Done(read)) => {
                    if read.emptied {
                        *cleared = Some(seen);
                    }
                    return Ok(read.length);
                }

                Ok(Outcome::Socket) if self.case.readiness == Readiness::Level => {
                    self.wait_readable(None);
                }
                Ok(Outcome::Socket) => *cleared = Some(seen),

                Ok(Outcome::Ring) => {
                    // From here on the socket carries only bells and the end.
                    *cleared = Some(seen);
                    return self.read_ring(buf, cleared);
                }

                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads from the ring. With edge readiness it leaves bells in the socket, as the async stream
    /// does.
    fn read_ring(&self, buf: &mut [u8], cleared: &mut Option<u64>) -> io::Result<usize> {
        loop {
            if let Outcome::Done(read) = self.lane.read(&self.socket, buf, Then::Sleep)? {
                return Ok(read.length);
            }
            self.wait_readable(*cleared);

            let seen = self.edge();
            let ended = self.socket.world.state().queues[1 - self.socket.side].ended;
            assert!(
                self.socket.has_bells() || !self.socket.is_readable() || ended,
                "data behind the switch"
            );

            let leaves = self.case.readiness == Readiness::Edge && !ended;
            if (leaves && !self.lane.has_many_bells()) || self.lane.hear(&self.socket).is_err() {
                *cleared = Some(seen);
            }
        }
    }
}

/// Runs one schedule. Returns whether the stream moved into memory.
pub(super) fn run(seed: u64, case: Case) -> bool {
    let world = World::new(seed, case);
    let side = |side: usize| {
        let role = if side == 0 { Role::Taker } else { Role::Maker };
        let length = world.state().below(case.lengths + 1);
        Side {
            lane: Lane::new(role, 0, true),
            socket: Socket { world: Arc::clone(&world), side },
            case,
            first: side as u8 * 128,
            length,
            written: AtomicU64::new(0),
            done: AtomicBool::new(false),
        }
    };

    let sides = [side(0), side(1)];
    if seed % 2 == 0 {
        sides[0].lane.start(&sides[0].socket, true);
    }

    let got: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|me| {
                let (world, side) = (&world, &sides[me / 2]);
                scope.spawn(move || {
                    let body = || {
                        world.enter(me, || {
                            if me % 2 == 1 {
                                return Some(side.read());
                            }
                            side.write();
                            None
                        })
                    };

                    match catch_unwind(AssertUnwindSafe(body)) {
                        Ok(got) => got,
                        Err(ended) if ended.is::<Ended>() => None,
                        Err(panic) => {
                            world.state().failed = true;
                            resume_unwind(panic)
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });

    let state = world.state();
    assert!(!state.failed, "seed {seed}: everybody sleeps; {case:?}");
    for (me, peer) in [(0, 1), (1, 0)] {
        if state.dead[me] {
            continue;
        }

        let got = got[me * 2 + 1].as_ref().expect("an end of file");
        let sent = sides[peer].sends();
        let written = sides[peer].written.load(Ordering::Relaxed) as usize;
        assert_eq!(*got, sent[..got.len()], "seed {seed}: other bytes than those sent");
        assert!(got.len() >= written, "seed {seed}: {} of {written} bytes", got.len());
    }
    drop(state);
    sides.iter().any(|side| side.lane.link().is_some())
}
