//! A peer that writes any words into the memory, and sends anything, between the steps of this
//! side's calls.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use super::choices::Choices;
use super::socket::{BYTE, Item, Memory, Pair, RING, SOCKET, Socket};
use super::world::World;
use super::{PLAIN, is_full};
use crate::shared_memory::lane::{Lane, Outcome, Read, Role, Then};
use crate::shared_memory::ring::tests::{STEP, is_possible, move_on, overwrite};

/// The calls of one conversation.
const CALLS: usize = 60;
/// More steps than any call of this side makes.
const STEPS: u32 = 1000;

/// The numbers of two of the words of a direction.
const SOCKET_BYTES: u64 = 0;
const ON_RING: u64 = 1;

struct Peer {
    world: Arc<World>,
    side: usize,
    choices: RefCell<Choices>,
    /// The steps of the current call.
    steps: Cell<u32>,
    /// The number of bytes that the peer has put into the socket.
    sent: Cell<usize>,
    /// Whether the peer still does what moves the stream into memory.
    is_polite: Cell<bool>,
    /// Whether the peer sends an offer at each step, and nothing else.
    is_flood: bool,
    /// Whether the current step is the peer's own.
    is_acting: Cell<bool>,
}

impl Peer {
    fn below(&self, limit: u64) -> u64 {
        self.choices.borrow_mut().below(limit)
    }

    /// Returns a word that is small as often as large.
    fn word(&self) -> u64 {
        match self.below(4) {
            0 => self.below(3),
            1 => self.below(24),
            2 => u64::MAX - self.below(24),
            _ => self.below(u64::MAX),
        }
    }

    fn step(&self) {
        if self.is_acting.replace(true) {
            return;
        }
        self.steps.set(self.steps.get() + 1);
        assert!(self.steps.get() < STEPS, "a call without an end");
        if self.is_flood {
            let memory = self.world.state().made.pop();
            self.send(Some(memory.unwrap_or_else(Memory::new)));
        } else if self.is_polite.get() {
            self.agree();
        } else if self.below(3) == 0 {
            self.act();
        }
        self.is_acting.set(false);
    }

    /// Makes an offer, or accepts that of this side, and switches.
    fn agree(&self) {
        let memory = self.world.state().made.last().cloned();
        match memory {
            None if self.side == 1 => self.send(Some(Memory::new())),
            None => self.world.state().marked = true,
            Some(memory) => {
                self.switch(&memory, self.side as u64);
                if self.side == 0 {
                    memory.0.0.accept();
                }
            }
        }
        self.world.state().queues[1 - self.side].items.clear();
    }

    /// Switches this direction, in which all bytes but those of `offers` are data.
    fn switch(&self, memory: &Memory, offers: u64) {
        let words = &memory.0.0.directions[self.side];
        overwrite(words, SOCKET_BYTES, (self.sent.get() as u64).saturating_sub(offers));
        overwrite(words, ON_RING, 1);
    }

    fn act(&self) {
        let memory = self.world.state().made.last().cloned();
        match (self.below(16), memory) {
            (0..=4, Some(memory)) => {
                // A possible next position, so that bytes flow as well.
                let words = &memory.0.0.directions[self.below(2) as usize];
                move_on(words, self.below(2) == 0, self.below(RING as u64));
            }
            (5, Some(memory)) => {
                let words = &memory.0.0.directions[self.below(2) as usize];
                overwrite(words, self.below(7), self.word());
            }
            (6 | 7, Some(memory)) => memory.0.0.set_state(self.below(5) as u32),

            (8 | 9, Some(memory)) => {
                let offers = self.below(2);
                self.switch(&memory, offers);
            }
            (10, memory) => self.send(Some(memory.unwrap_or_else(Memory::new))),
            (11, _) => self.send(Some(Memory::new())),

            // The socket gets its mark, and loses bytes.
            (12, _) => {
                let mut state = self.world.state();
                state.marked = true;
                let queue = &mut state.queues[1 - self.side].items;
                let some = queue.len().min(4);
                queue.drain(..some);
            }
            (13, _) => self.world.state().queues[self.side].bells = 2,
            (14, _) if self.below(400) == 0 => self.world.state().queues[self.side].ended = true,
            (15, _) if self.below(400) == 0 => self.world.state().dead[self.side] = true,
            _ => self.send(None),
        }
    }

    /// Sends a byte, which may be data or a bell, with or without an offer.
    fn send(&self, offer: Option<Memory>) {
        let keeps_byte = self.is_polite.get() || self.is_flood;
        let byte = if keeps_byte || self.below(2) == 0 { BYTE } else { 0 };
        let mut state = self.world.state();
        if state.queues[self.side].items.len() < SOCKET && !state.queues[self.side].ended {
            state.made.extend(offer.clone());
            state.queues[self.side].items.push_back(Item { byte, is_data: true, offer });
            self.sent.set(self.sent.get() + 1);
        }
    }
}

/// What this side has met in a conversation.
#[derive(Debug, Default)]
struct Met {
    invalid: usize,
    broken: usize,
    ends: usize,
    from_ring: usize,
    into_ring: usize,
}

impl Met {
    fn check<T>(&mut self, outcome: std::io::Result<T>) -> Option<T> {
        match outcome.map_err(|error| error.kind()) {
            Ok(done) => return Some(done),
            Err(ErrorKind::InvalidData) => self.invalid += 1,
            Err(ErrorKind::BrokenPipe) => self.broken += 1,
            // The caller tries again.
            Err(ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(kind) => panic!("{kind:?}"),
        }
        None
    }

    fn read(&mut self, outcome: Outcome<Read>, length: usize, on_ring: bool) {
        let Outcome::Done(read) = outcome else { return };
        assert!(read.length <= length);
        if read.length == 0 {
            self.ends += 1;
        } else if on_ring {
            assert!(read.length <= RING, "more than the ring holds");
            self.from_ring += 1;
        }
    }
}

/// One side's conversation with the peer.
struct Conversation {
    lane: Lane<Pair, Memory>,
    socket: Socket,
    peer: Rc<Peer>,
}

impl Conversation {
    fn new(role: Role, seed: u64) -> Self {
        let world = World::new(Choices::random(seed), PLAIN);
        world.state().is_hostile = true;
        let side = usize::from(role == Role::Maker);
        let peer = Rc::new(Peer {
            world: Arc::clone(&world),
            side: 1 - side,
            choices: RefCell::new(Choices::random(seed + 1)),
            steps: Cell::new(0),
            sent: Cell::new(0),
            is_polite: Cell::new(seed % 4 > 0),
            is_flood: seed % 16 == 0,
            is_acting: Cell::new(false),
        });

        let acting = Rc::clone(&peer);
        STEP.set(Some(Box::new(move || acting.step())));
        Self { lane: Lane::new(role, 0, true), socket: Socket { world, side }, peer }
    }

    fn call(&mut self, met: &mut Met) {
        self.peer.steps.set(0);
        let Self { lane, socket, peer } = self;
        let then = if peer.below(2) == 0 { Then::Sleep } else { Then::LookAgain };
        let mut buf = [0; 20];
        let length = 1 + peer.below(20) as usize;
        let buf = &mut buf[..length];
        let on_ring = lane.incoming.get_mut().unwrap_or_else(PoisonError::into_inner).on_ring;

        let bytes = [7; 12];
        let (first, second) = (peer.below(13) as usize, peer.below(13) as usize);
        let bufs = [IoSlice::new(&bytes[..first]), IoSlice::new(&bytes[..second])];
        match peer.below(12) {
            0..=2 => {
                if let Some(outcome) = met.check(lane.read(socket, buf, then)) {
                    met.read(outcome, length, on_ring);
                }
            }
            3 | 4 => {
                if let Some(outcome) = lane.look(buf).and_then(|looked| met.check(looked)) {
                    met.read(outcome, length, true);
                }
            }

            5 | 6 => {
                met.check(lane.write(socket, &bufs, then));
            }
            number @ (7 | 8) => {
                let put = match number {
                    #[cfg(feature = "tokio")]
                    7 => lane.put_alone(socket, &bufs, then),
                    _ => lane.put(socket, &bufs, then),
                };
                if let Some(Outcome::Done(count)) = put.and_then(|put| met.check(put)) {
                    assert!(count <= first + second);
                    met.into_ring += usize::from(count > 0);
                }
            }

            9 if lane.has_many_bells() || on_ring => {
                met.check(lane.hear(socket));
            }
            10 => {
                if met.check(socket.hear()) == Some(false) {
                    lane.peer_is_gone();
                }
            }
            _ if peer.below(100) == 0 => {
                met.check(lane.shut_down(socket));
            }
            _ => {
                lane.is_upgraded();
            }
        }
    }

    /// Checks that this side's own state is possible, whatever the peer has written.
    fn check(&mut self) {
        let incoming = self.lane.incoming.get_mut().unwrap_or_else(PoisonError::into_inner);
        let outgoing = self.lane.outgoing.get_mut().unwrap_or_else(PoisonError::into_inner);
        assert!(is_possible(&incoming.reader, &outgoing.writer, RING as u64));
        let received = incoming.received as usize;
        assert!(received <= self.peer.sent.get(), "bytes that the peer has not sent");
    }
}

#[test]
fn a_peer_that_writes_any_words_causes_errors_only() {
    let seeds = match is_full() {
        _ if cfg!(miri) => 3,
        true => 1_000_000,
        false => 10_000,
    };

    for role in [Role::Taker, Role::Maker] {
        let (mut met, mut upgraded) = (Met::default(), 0);
        for seed in 0..seeds {
            let mut conversation = Conversation::new(role, seed);
            for number in 0..CALLS {
                let peer = &conversation.peer;
                peer.is_polite.set(peer.is_polite.get() && number < CALLS / 3);
                conversation.call(&mut met);
                conversation.check();
            }
            STEP.set(None);
            upgraded += usize::from(conversation.lane.is_upgraded());
        }

        println!("{role:?}: {seeds} conversations, {upgraded} in memory, {met:?}");
        if !cfg!(miri) {
            let counts =
                [upgraded, met.invalid, met.broken, met.ends, met.from_ring, met.into_ring];
            assert!(counts.iter().all(|count| *count > seeds as usize / 10), "{met:?}");
        }
    }
}
