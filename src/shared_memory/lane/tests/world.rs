//! A scheduler, and a socket made of queues.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::shared_memory::lane::{Came, Header, Link, Received, Wire};
use crate::shared_memory::ring::Bytes;
use crate::shared_memory::ring::tests::{Plain, STEP};

/// The number of bytes that a ring holds.
const RING: usize = 8;
/// The number of bytes that a socket holds.
const SOCKET: usize = 6;
const BYTE: u8 = 0xA5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Level,
    /// Readiness as tokio reports it.
    Edge,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) readiness: Readiness,
    /// The client writes everything before it reads anything.
    pub(super) reads_late: bool,
    /// One side dies at some moment.
    pub(super) dies: bool,
    /// The most bytes that a side sends.
    pub(super) lengths: u64,
}

/// The panic that ends the threads of a side that dies, or of a world that has stalled.
pub(super) struct Ended;

#[derive(Clone, Debug)]
pub(super) struct Memory(pub(super) Arc<(Header, [Plain; 2])>);

#[derive(Debug)]
struct Item {
    byte: u8,
    is_data: bool,
    offer: Option<Memory>,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    pub(super) ended: bool,
    /// How many items have arrived.
    pub(super) edge: u64,
    pub(super) bells: u32,
    pub(super) bell_edge: u64,
}

#[derive(Debug)]
pub(super) struct State {
    random: u64,
    current: usize,
    alive: [bool; 4],
    waiting: [bool; 4],
    standstill: u32,
    pub(super) failed: bool,
    /// The number of steps until `victim` dies.
    doom: Option<u64>,
    pub(super) victim: usize,
    pub(super) dead: [bool; 2],
    /// The queue from each side to the other.
    pub(super) queues: [Queue; 2],
    marked: bool,
    refuses: bool,
    /// Whether the offer was accepted, possibly before its byte was read.
    taken: bool,
}

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    turn: Condvar,
}

thread_local! {
    /// The world of this thread, and the thread's number in it: side * 2 + (reads).
    static HERE: RefCell<Option<(Arc<World>, usize)>> = const { RefCell::new(None) };
}

impl State {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        // Xorshift, so that a seed always gives the same schedule.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}

impl World {
    pub(super) fn new(seed: u64, case: Case) -> Arc<Self> {
        let mut state = State {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            current: 0,
            alive: [true; 4],
            waiting: [false; 4],
            standstill: 0,
            failed: false,
            doom: None,
            victim: 0,
            dead: [false; 2],
            queues: Default::default(),
            marked: false,
            refuses: false,
            taken: false,
        };

        state.below(9);
        state.refuses = state.below(8) == 0;
        state.victim = state.below(2) as usize;
        if case.dies {
            state.doom = Some(state.below(500) + 1);
        }
        Arc::new(Self { state: Mutex::new(state), turn: Condvar::new() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic with the lock held")
    }

    /// Runs `body` with this thread as thread `me` of the world.
    pub(super) fn enter<T>(self: &Arc<Self>, me: usize, body: impl FnOnce() -> T) -> T {
        HERE.set(Some((Arc::clone(self), me)));
        STEP.set(Some(Box::new(step)));
        let world = Arc::clone(self);
        let leave = Leave(world, me);
        self.wait_turn(self.state(), me);
        let done = body();
        drop(leave);
        done
    }

    fn wait_turn(&self, mut state: MutexGuard<'_, State>, me: usize) {
        while state.current != me && !state.failed {
            state = self.turn.wait(state).expect("no panic with the lock held");
        }
        let ends = state.failed || state.dead[me / 2];
        drop(state);
        if ends {
            resume_unwind(Box::new(Ended));
        }
    }

    fn pass_on(&self, state: &mut State) {
        if let Some(doom) = &mut state.doom {
            *doom -= 1;
            if *doom == 0 {
                state.doom = None;
                state.dead[state.victim] = true;
                for queue in &mut state.queues {
                    queue.ended = true;
                    queue.edge += 1;
                    queue.bell_edge += 1;
                }
                state.waiting = [false; 4];
            }
        }

        let alive: Vec<_> = (0..4).filter(|thread| state.alive[*thread]).collect();
        if alive.iter().all(|thread| state.waiting[*thread]) {
            state.standstill += 1;
            state.failed |= state.standstill > 400 && !alive.is_empty();
        } else {
            state.standstill = 0;
        }

        if let Some(choice) = (!alive.is_empty()).then(|| state.below(alive.len() as u64)) {
            state.current = alive[choice as usize];
        }
        self.turn.notify_all();
    }
}

struct Leave(Arc<World>, usize);

impl Drop for Leave {
    fn drop(&mut self) {
        STEP.set(None);
        HERE.set(None);
        let mut state = self.0.state();
        state.alive[self.1] = false;
        state.waiting = [false; 4];
        self.0.pass_on(&mut state);
    }
}

/// Lets another thread of the world run.
fn step() {
    step_while(false);
}

fn step_while(waiting: bool) {
    let Some((world, me)) = HERE.with_borrow(Clone::clone) else { return };
    if std::thread::panicking() {
        return;
    }
    let mut state = world.state();
    state.waiting[me] = waiting;
    world.pass_on(&mut state);
    world.wait_turn(state, me);
}

/// Steps until `condition` holds. The world has stalled if every thread stays in this loop.
pub(in crate::shared_memory::lane) fn wait_for(condition: impl Fn() -> bool) {
    if HERE.with_borrow(Option::is_none) {
        return;
    }
    step();
    while !condition() {
        step_while(true);
    }
    if let Some((world, me)) = HERE.with_borrow(Clone::clone) {
        world.state().waiting[me] = false;
    }
}

/// One side's socket.
pub(super) struct Socket {
    pub(super) world: Arc<World>,
    pub(super) side: usize,
}

#[derive(Debug)]
pub(super) struct Pair {
    memory: Memory,
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

    fn push(&self, bytes: &[u8], is_data: bool, offer: Option<&Memory>) -> io::Result<usize> {
        step();
        let mut state = self.world.state();
        if self.gone(&state) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let queue = &mut state.queues[self.side];
        assert!(!queue.ended, "written to a socket that was shut down");
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
        let loses = state.below(16) == 0;
        let taken = state.taken;

        let queue = &mut state.queues[1 - self.side];
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
                assert!(with_offer || taken, "an offer to a read without room for it");
                came = Came::Offer((!loses).then_some(offer));
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

    pub(super) fn is_readable(&self) -> bool {
        let state = self.world.state();
        let queue = &state.queues[1 - self.side];
        !queue.items.is_empty() || queue.ended
    }

    pub(super) fn is_writable(&self) -> bool {
        let state = self.world.state();
        state.queues[self.side].items.len() < SOCKET || self.gone(&state)
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
        assert_eq!(offer.byte, byte);
        offer.offer.clone()
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
        self.world.state().below(4)
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
        let memory = Memory(Arc::new((Header::default(), [Plain::new(RING), Plain::new(RING)])));
        memory.0.0.prepare(RING as u64);
        let link = Pair { memory: memory.clone(), world: Arc::clone(&self.world), side: self.side };
        Some((link, memory))
    }

    fn offer(&self, byte: u8, offer: &Memory) -> io::Result<()> {
        self.push(&[byte], false, Some(offer)).map(drop)
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
        assert!(offer.0.0.fits(RING as u64), "memory that was not prepared");
        Some(Pair { memory: offer, world: Arc::clone(&self.world), side: self.side })
    }
}
