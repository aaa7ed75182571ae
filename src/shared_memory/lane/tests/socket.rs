//! A socket made of queues, and memory that both sides have.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use super::world::{State, World};
use crate::shared_memory::lane::{Came, Header, Link, Received, Wire};
use crate::shared_memory::ring::Bytes;
use crate::shared_memory::ring::tests::{Plain, step};

/// The number of bytes that a ring holds.
pub(super) const RING: usize = 8;
/// The number of bytes that a socket holds.
pub(super) const SOCKET: usize = 6;
pub(super) const BYTE: u8 = 0xA5;

#[derive(Clone, Debug)]
pub(super) struct Memory(pub(super) Arc<(Header, [Plain; 2])>);

impl Memory {
    pub(super) fn new() -> Self {
        let memory = Self(Arc::new((Header::default(), [Plain::new(RING), Plain::new(RING)])));
        memory.0.0.prepare(RING as u64);
        memory
    }
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) byte: u8,
    pub(super) is_data: bool,
    pub(super) offer: Option<Memory>,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    pub(super) ended: bool,
    /// How many items have arrived.
    pub(super) edge: u64,
    pub(super) bells: u32,
    pub(super) bell_edge: u64,
}

/// One side's socket.
pub(super) struct Socket {
    pub(super) world: Arc<World>,
    pub(super) side: usize,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) memory: Memory,
    world: Arc<World>,
    side: usize,
}

impl Link for Pair {
    fn header(&self) -> &Header {
        &self.memory.0.0
    }

    fn ring(&self, direction: usize) -> impl Bytes + '_ {
        &self.memory.0.1[direction]
    }

    fn ring_writer(&self) {
        step();
        let mut state = self.world.state();
        let queue = &mut state.queues[self.side];
        queue.bells = (queue.bells + 1).min(2);
        queue.bell_edge += 1;
    }
}

impl Socket {
    fn gone(&self, state: &State) -> bool {
        state.dead[1 - self.side]
    }

    fn pair(&self, memory: Memory) -> Pair {
        Pair { memory, world: Arc::clone(&self.world), side: self.side }
    }

    fn push(&self, bytes: &[u8], is_data: bool, offer: Option<&Memory>) -> io::Result<usize> {
        step();
        let mut state = self.world.state();
        if self.gone(&state) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if state.queues[self.side].ended {
            assert!(state.is_hostile, "written to a socket that was shut down");
            return Err(ErrorKind::BrokenPipe.into());
        }

        let queue = &mut state.queues[self.side];
        let count = (SOCKET - queue.items.len().min(SOCKET)).min(bytes.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let item = |byte: &u8| Item { byte: *byte, is_data, offer: offer.cloned() };
        queue.items.extend(bytes[..count].iter().map(item));
        queue.edge += 1;
        Ok(count)
    }

    fn pop(&self, buf: &mut [u8], with_offer: bool) -> io::Result<Received<Memory>> {
        step();
        let mut state = self.world.state();
        let State { queues, choices, taken, is_hostile, .. } = &mut *state;
        let queue = &mut queues[1 - self.side];
        if queue.items.is_empty() {
            let none = Received { length: 0, came: Came::Nothing };
            return if queue.ended { Ok(none) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let (mut length, mut came) = (0, Came::Nothing);

        while length < buf.len() {
            let Some(item) = queue.items.pop_front() else { break };
            buf[length] = item.byte;
            length += 1;
            if let Some(offer) = item.offer {
                assert!(with_offer || *taken || *is_hostile, "an offer without room for it");
                came = if with_offer {
                    Came::Offer((!choices.happens(16)).then_some(offer))
                } else {
                    Came::Other
                };
                break;
            }
        }

        Ok(Received { length, came })
    }

    /// Reports whether the next bytes are bells.
    pub(super) fn has_bells(&self) -> bool {
        let state = self.world.state();
        let next = state.queues[1 - self.side].items.front();
        next.is_some_and(|item| !item.is_data)
    }

    /// Takes the writers' bells. Returns `false` if the peer is gone.
    pub(super) fn hear(&self) -> io::Result<bool> {
        step();
        let mut state = self.world.state();
        let gone = self.gone(&state);
        let queue = &mut state.queues[1 - self.side];
        match std::mem::take(&mut queue.bells) {
            0 if gone => Ok(false),
            0 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(true),
        }
    }
}

impl Wire for Socket {
    type Link = Pair;
    type Offer = Memory;

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.push(&bufs[0], true, None)
    }

    fn receive(&self, buf: &mut [u8]) -> io::Result<Received<Memory>> {
        self.pop(buf, false)
    }

    fn receive_with_offer(&self, buf: &mut [u8]) -> io::Result<Received<Memory>> {
        self.pop(buf, true)
    }

    fn peek_offer(&self, byte: u8) -> Option<Memory> {
        step();
        let state = self.world.state();
        let mut ahead = state.queues[1 - self.side].items.iter().take(4);
        let offer = ahead.find(|item| item.offer.is_some())?;
        offer.offer.clone().filter(|_| offer.byte == byte)
    }

    fn ring_reader(&self) -> io::Result<()> {
        self.push(&[0], false, None).map(drop)
    }

    fn shut_down(&self) -> io::Result<()> {
        step();
        let mut state = self.world.state();
        state.queues[self.side].ended = true;
        state.queues[self.side].edge += 1;
        Ok(())
    }

    fn is_gone(&self) -> bool {
        step();
        self.gone(&self.world.state())
    }

    fn ticks(&self) -> u64 {
        u64::from(self.world.state().choices.happens(2))
    }

    fn mark(&self) -> Option<u8> {
        step();
        self.world.state().marked = true;
        Some(BYTE)
    }

    fn mark_of_peer(&self) -> Option<u8> {
        step();
        self.world.state().marked.then_some(BYTE)
    }

    fn make(&self) -> Option<(Pair, Memory)> {
        let memory = Memory::new();
        self.world.state().made.push(memory.clone());
        Some((self.pair(memory.clone()), memory))
    }

    fn offer(&self, byte: u8, offer: &Memory) -> io::Result<()> {
        self.push(&[byte], false, Some(offer))?;
        // The peer may answer before this call returns.
        step();
        Ok(())
    }

    fn is_offer(&self, _: &Memory) -> bool {
        true
    }

    fn take(&self, offer: Memory) -> Option<Pair> {
        step();
        let mut state = self.world.state();
        if state.refuses {
            return None;
        }
        state.taken = true;
        drop(state);
        offer.0.0.fits(RING as u64).then(|| self.pair(offer))
    }
}
