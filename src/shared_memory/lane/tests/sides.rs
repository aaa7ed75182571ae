//! The threads of a schedule call the lane as the async and the blocking streams do.

use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use super::choices::Choices;
use super::socket::{Memory, Pair, Socket};
use super::world::{Case, Ended, Readiness, Until, World, wait};
use crate::shared_memory::lane::{Lane, Outcome, Role, Then};
use crate::shared_memory::ring::tests::published;

struct Side {
    lane: Lane<Pair, Memory>,
    socket: Socket,
    case: Case,
    sends: Vec<u8>,
}

/// The writing part of a side.
#[derive(Default)]
struct Writing {
    /// Whether the side has ended its writes, or cannot write any more.
    over: bool,
    /// The edge of the bells that this side has cleared.
    cleared: Option<u64>,
}

/// The reading part of a side.
#[derive(Default)]
struct Reading {
    got: Vec<u8>,
    over: bool,
    cleared: Option<u64>,
}

/// Converts the result of a call into a number of bytes, or what the caller waits for.
type Tried<T> = Result<T, Until>;

impl Side {
    fn new(world: &Arc<World>, side: usize, case: Case) -> Self {
        let role = if side == 0 { Role::Taker } else { Role::Maker };
        let (least, most) = case.lengths;
        let length = least + world.state().choices.below(most - least + 1);
        let first = side as u8 * 128;
        Self {
            lane: Lane::new(role, 0, true),
            socket: Socket { world: Arc::clone(world), side },
            case,
            sends: (0..length).map(|at| first.wrapping_add(at as u8)).collect(),
        }
    }

    /// Returns the length of a call of at most `most` bytes.
    fn length(&self, most: u64) -> usize {
        let choices = &mut self.socket.world.state().choices;
        if choices.are_listed() { most as usize } else { 1 + choices.below(most) as usize }
    }

    fn holds(&self, until: &Until) -> bool {
        self.socket.world.state().holds(until)
    }

    fn edge(&self) -> u64 {
        self.socket.world.state().queues[1 - self.socket.side].edge
    }

    fn bell_edge(&self) -> u64 {
        self.socket.world.state().queues[1 - self.socket.side].bell_edge
    }

    /// Returns what a reader waits for. With edge readiness, this is an edge after `cleared`.
    fn readable(&self, cleared: Option<u64>) -> Until {
        match self.case.readiness {
            Readiness::Level => Until::Readable(self.socket.side),
            Readiness::Edge => Until::Edge(self.socket.side, cleared),
        }
    }

    fn bell(&self, cleared: Option<u64>) -> Until {
        match self.case.readiness {
            Readiness::Level => Until::Bell(self.socket.side),
            Readiness::Edge => Until::BellEdge(self.socket.side, cleared),
        }
    }

    /// Tries to write the next bytes, or to end. `put` is the first attempt.
    fn try_write(
        &self,
        writing: &mut Writing,
        part: &[u8],
        put: Option<io::Result<Outcome<usize>>>,
    ) -> Tried<()> {
        let bufs = [IoSlice::new(part)];
        let mut outcome =
            put.unwrap_or_else(|| self.lane.write(&self.socket, &bufs, Then::LookAgain));
        loop {
            match outcome {
                Ok(Outcome::Done(count)) => {
                    assert!(count <= part.len());
                    self.socket.world.state().written[self.socket.side] += count;
                    return Ok(());
                }

                Ok(Outcome::Socket) => return Err(Until::Writable(self.socket.side)),
                Ok(Outcome::Ring) => {}

                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    assert!(!self.case.victims.is_empty(), "a broken pipe to a peer that lives");
                    self.end(writing);
                    return Ok(());
                }
                Err(error) => panic!("{error}"),
            }

            outcome = self.lane.write(&self.socket, &bufs, Then::Sleep);
            if matches!(outcome, Ok(Outcome::Ring)) {
                self.try_hear(writing)?;
            }
        }
    }

    /// Takes the writers' bells if there are any.
    fn try_hear(&self, writing: &mut Writing) -> Tried<()> {
        let until = self.bell(writing.cleared);
        if !self.holds(&until) {
            return Err(until);
        }
        let seen = self.bell_edge();
        match self.socket.hear() {
            Ok(true) => {}
            Ok(false) => self.lane.peer_is_gone(),
            Err(_) => writing.cleared = Some(seen),
        }
        Ok(())
    }

    fn end(&self, writing: &mut Writing) {
        writing.over = true;
        self.socket.world.state().has_ended[self.socket.side] = true;
    }

    /// Returns the bytes of the next write. Without any, ends the write side.
    fn part(&self, writing: &mut Writing) -> Tried<&[u8]> {
        let side = self.socket.side;
        let state = self.socket.world.state();
        let (written, most) = (state.written[side], state.may_write(side));
        drop(state);
        let rest = &self.sends[written..];
        if rest.is_empty() {
            self.lane.shut_down(&self.socket).expect("an end");
            self.end(writing);
            return Ok(&[]);
        }
        if most == 0 {
            return Err(Until::Turn(side));
        }
        Ok(&rest[..rest.len().min(most).min(self.length(self.case.calls.0))])
    }

    fn write(&self) {
        let mut writing = Writing::default();
        loop {
            let part = loop {
                match self.part(&mut writing) {
                    Ok(part) => break part,
                    Err(until) => wait(until),
                }
            };
            while !writing.over {
                // The blocking stream makes no first attempt on the ring.
                let put = match self.case.readiness {
                    Readiness::Level => None,
                    Readiness::Edge => {
                        self.lane.put(&self.socket, &[IoSlice::new(part)], Then::LookAgain)
                    }
                };
                match self.try_write(&mut writing, part, put) {
                    Ok(()) => break,
                    Err(until) => wait(until),
                }
            }
            if writing.over {
                return;
            }
        }
    }

    fn read(&self) -> Vec<u8> {
        if self.case.reads_late && self.socket.side == 0 {
            wait(Until::Written(0));
        }
        let mut reading = Reading::default();
        while !reading.over {
            if let Err(until) = self.try_read(&mut reading) {
                wait(until);
            }
        }
        reading.got
    }

    fn try_read(&self, reading: &mut Reading) -> Tried<()> {
        let mut buf = vec![0; self.length(self.case.calls.1)];
        let length = match self.lane.look(&mut buf).transpose().expect("no error") {
            Some(Outcome::Done(read)) => read.length,
            Some(_) => self.try_ring(&mut buf, &mut reading.cleared)?,
            None => self.try_socket(&mut buf, &mut reading.cleared)?,
        };
        assert!(length <= buf.len());
        reading.over = length == 0;
        self.socket.world.state().read[self.socket.side] += length;
        reading.got.extend(&buf[..length]);
        Ok(())
    }

    fn try_socket(&self, buf: &mut [u8], cleared: &mut Option<u64>) -> Tried<usize> {
        loop {
            let until = self.readable(*cleared);
            if self.case.readiness == Readiness::Edge && !self.holds(&until) {
                return Err(until);
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
                    return Err(until);
                }
                Ok(Outcome::Socket) => *cleared = Some(seen),

                Ok(Outcome::Ring) => {
                    // From here on the socket carries only bells and the end.
                    *cleared = Some(seen);
                    return self.try_ring(buf, cleared);
                }

                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads from the ring. With edge readiness it leaves bells in the socket, as the async stream
    /// does.
    fn try_ring(&self, buf: &mut [u8], cleared: &mut Option<u64>) -> Tried<usize> {
        loop {
            let outcome = self.lane.read(&self.socket, buf, Then::Sleep).expect("no error");
            if let Outcome::Done(read) = outcome {
                return Ok(read.length);
            }
            let until = self.readable(*cleared);
            if !self.holds(&until) {
                return Err(until);
            }

            let seen = self.edge();
            let state = self.socket.world.state();
            let ended = state.queues[1 - self.socket.side].ended;
            let is_readable = state.is_readable(self.socket.side);
            drop(state);
            assert!(self.socket.has_bells() || !is_readable || ended, "data behind the switch");

            let leaves = self.case.readiness == Readiness::Edge && !ended;
            if (leaves && !self.lane.has_many_bells()) || self.lane.hear(&self.socket).is_err() {
                *cleared = Some(seen);
            }
        }
    }

    /// Writes and reads in turns, as a task that has the stream to itself.
    fn converse(&mut self) -> Vec<u8> {
        let (mut writing, mut reading) = (Writing::default(), Reading::default());
        while !writing.over || !reading.over {
            let wrote = if writing.over { None } else { Some(self.try_write_alone(&mut writing)) };
            let late = self.case.reads_late && self.socket.side == 0 && !writing.over;
            let read = if reading.over || late { None } else { Some(self.try_read(&mut reading)) };
            match (wrote, read) {
                (Some(Err(one)), Some(Err(other))) => wait(Until::Either(Box::new([one, other]))),
                (Some(Err(until)), None) | (None, Some(Err(until))) => wait(until),
                _ => {}
            }
        }
        reading.got
    }

    fn try_write_alone(&mut self, writing: &mut Writing) -> Tried<()> {
        let part = self.part(writing)?.to_vec();
        if writing.over {
            return Ok(());
        }
        let bufs = [IoSlice::new(&part)];
        #[cfg(feature = "tokio")]
        let put = self.lane.put_alone(&self.socket, &bufs, Then::LookAgain);
        #[cfg(not(feature = "tokio"))]
        let put = self.lane.put(&self.socket, &bufs, Then::LookAgain);
        self.try_write(writing, &part, put)
    }
}

/// What a schedule did.
pub(super) struct Ran {
    pub(super) choices: Choices,
    pub(super) upgraded: bool,
    pub(super) withdrawn: usize,
    pub(super) offers: usize,
}

/// Runs the body of a thread. Returns nothing if its side dies.
fn run_thread<T>(world: &Arc<World>, me: usize, body: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(|| world.enter(me, body))) {
        Ok(done) => Some(done),
        Err(ended) if ended.is::<Ended>() => None,
        Err(panic) => {
            world.fail();
            resume_unwind(panic)
        }
    }
}

/// Returns what each side has read.
fn run_threads(world: &Arc<World>, sides: &mut [Side; 2], case: Case) -> Vec<Option<Vec<u8>>> {
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for side in sides {
            let me = side.socket.side * 2;
            if case.alone {
                readers.push(scope.spawn(move || run_thread(world, me, || side.converse())));
                continue;
            }

            let side = &*side;
            scope.spawn(move || run_thread(world, me, || side.write()));
            readers.push(scope.spawn(move || run_thread(world, me + 1, || side.read())));
        }
        readers.into_iter().map(|reader| reader.join().expect("no panic")).collect()
    })
}

/// Runs one schedule.
pub(super) fn run(choices: Choices, case: Case) -> Ran {
    let start = format!("{choices:?}, {case:?}");
    let world = World::new(choices, case);
    let mut sides = [0, 1].map(|side| Side::new(&world, side, case));
    if world.state().choices.below(2) == 0 {
        sides[0].lane.start(&sides[0].socket, true);
    }

    let mut got = run_threads(&world, &mut sides, case);
    let mut state = world.state();
    let choices = std::mem::replace(&mut state.choices, Choices::listed(0));
    assert!(!state.failed, "everybody sleeps: {start}");

    // Both sides have the memory of the same offer, and none of another.
    let links: Vec<_> = sides.iter().filter_map(|side| side.lane.link()).collect();
    let accepted = state.made.iter().filter(|memory| memory.0.0.is_accepted());
    let accepted: Vec<_> = accepted.collect();
    assert!(accepted.len() <= 1, "two offers were accepted: {start}");
    for link in links {
        let is_same = accepted.iter().any(|memory| Arc::ptr_eq(&memory.0, &link.memory.0));
        assert!(is_same, "memory of no accepted offer: {start}");
    }

    for (me, peer) in [(0, 1), (1, 0)] {
        if state.dead[me] {
            continue;
        }
        let got = got[me].take().expect("an end of file");
        let sent = &sides[peer].sends;
        assert_eq!(got, sent[..got.len()], "other bytes than those sent: {start}");
        // A side that died may have published more than its last call returned.
        let published = accepted.iter().find_map(|memory| published(&memory.0.0.directions[peer]));
        let written = state.written[peer].max(published.unwrap_or(0) as usize);
        assert!(got.len() >= written, "{} of {written} bytes: {start}", got.len());
    }

    let is_withdrawn = |memory: &&Memory| memory.0.0.is_withdrawn();
    let withdrawn = state.made.iter().filter(is_withdrawn).count();
    if state.dead == [false; 2] {
        assert_eq!(withdrawn + accepted.len(), state.made.len(), "an open offer: {start}");
    }
    Ran { choices, upgraded: !accepted.is_empty(), withdrawn, offers: state.made.len() }
}
