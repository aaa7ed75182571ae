//! A scheduler that runs one thread at a time.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::choices::Choices;
use super::socket::{Memory, Queue, SOCKET};
use crate::shared_memory::ring::tests::STEP;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Level,
    /// Readiness as tokio reports it.
    Edge,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) readiness: Readiness,
    /// Each side has one thread, which has the stream to itself.
    pub(super) alone: bool,
    /// The client writes everything before it reads anything.
    pub(super) reads_late: bool,
    /// The client writes only once all that it has written is answered, and the server only
    /// answers.
    pub(super) asks: bool,
    /// One of these sides dies at some moment.
    pub(super) victims: &'static [usize],
    /// The least and the most bytes that a side sends.
    pub(super) lengths: (u64, u64),
    /// The most bytes that a call writes, and the most that it reads. Random schedules choose fewer
    /// bytes too.
    pub(super) calls: (u64, u64),
    /// The exchanges after which an offer is withdrawn, if there can be so many.
    pub(super) patience: Option<u32>,
    /// The steps after which another thread runs in the usual one of the listed schedules.
    pub(super) turn: u64,
}

/// The panic that ends the threads of a side that dies, or of a world that has stalled.
pub(super) struct Ended;

/// What a thread waits for.
#[derive(Clone, Debug)]
pub(super) enum Until {
    /// Another thread has made a step. The thread then tries again.
    Later(u64),
    Readable(usize),
    /// The side's socket has had an edge after this one, or has ended.
    Edge(usize, Option<u64>),
    Writable(usize),
    Bell(usize),
    BellEdge(usize, Option<u64>),
    /// The side has written everything.
    Written(usize),
    /// The side has to write next in a conversation of questions and answers.
    Turn(usize),
    Either(Box<[Self; 2]>),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) choices: Choices,
    case: Case,
    current: usize,
    alive: [bool; 4],
    waiting: [Option<Until>; 4],
    steps: u64,
    /// The step at which the current thread began to run.
    began: u64,
    pub(super) failed: bool,
    /// The number of steps until `victim` dies, in random schedules.
    doom: Option<u64>,
    victim: Option<usize>,
    pub(super) dead: [bool; 2],
    pub(super) has_ended: [bool; 2],
    /// The number of bytes that each side has written and read.
    pub(super) written: [usize; 2],
    pub(super) read: [usize; 2],
    /// The queue from each side to the other.
    pub(super) queues: [Queue; 2],
    pub(super) marked: bool,
    pub(super) refuses: bool,
    /// The peer breaks the rules, so it may do what the sides of a schedule never do.
    pub(super) is_hostile: bool,
    /// Whether an offer was accepted, possibly before its byte was read.
    pub(super) taken: bool,
    /// The memory of each offer.
    pub(super) made: Vec<Memory>,
}

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    turns: [Condvar; 4],
}

thread_local! {
    /// The world of this thread, and the thread's number in it: side * 2 + (reads).
    static HERE: RefCell<Option<(Arc<World>, usize)>> = const { RefCell::new(None) };
}

impl State {
    pub(super) fn is_readable(&self, side: usize) -> bool {
        let queue = &self.queues[1 - side];
        !queue.items.is_empty() || queue.ended
    }

    /// Returns how many bytes the side may write.
    pub(super) fn may_write(&self, side: usize) -> usize {
        let (written, read) = (self.written[side], self.read[side]);
        match side {
            _ if !self.case.asks => usize::MAX,
            0 if read < written => 0,
            0 => usize::MAX,
            _ => read - written,
        }
    }

    pub(super) fn holds(&self, until: &Until) -> bool {
        match until {
            Until::Later(steps) => self.steps != *steps,
            Until::Readable(side) => self.is_readable(*side),
            Until::Edge(side, seen) => {
                let queue = &self.queues[1 - side];
                queue.ended || *seen != Some(queue.edge)
            }
            Until::Writable(side) => self.queues[*side].items.len() < SOCKET || self.dead[1 - side],

            Until::Bell(side) => self.dead[1 - side] || self.queues[1 - side].bells > 0,
            Until::BellEdge(side, seen) => {
                self.dead[1 - side] || *seen != Some(self.queues[1 - side].bell_edge)
            }
            Until::Written(side) => self.has_ended[*side],
            Until::Turn(side) => self.may_write(*side) > 0,
            Until::Either(both) => both.iter().any(|until| self.holds(until)),
        }
    }

    fn die(&mut self) {
        self.doom = None;
        let Some(victim) = self.victim.take() else { return };
        self.dead[victim] = true;
        for thread in [victim * 2, victim * 2 + 1] {
            self.waiting[thread] = None;
        }
        for queue in &mut self.queues {
            queue.ended = true;
            queue.edge += 1;
            queue.bell_edge += 1;
        }
    }

    /// Chooses the next thread. The first option is the thread that runs already, until its turn is
    /// over.
    fn choose(&mut self, me: usize) {
        let over = self.steps - self.began >= self.case.turn;
        let first = me + usize::from(over);
        loop {
            let can_run = |thread: &usize| {
                let until = self.waiting[*thread].as_ref();
                self.alive[*thread] && until.is_none_or(|until| self.holds(until))
            };
            let threads: Vec<_> =
                (first..first + 4).map(|thread| thread % 4).filter(can_run).collect();
            if threads.is_empty() {
                self.failed |= self.alive.contains(&true);
                return;
            }

            // In a listed schedule, the death of a side is an option at each step.
            let may_die = self.choices.are_listed() && self.victim.is_some();
            let options = threads.len() + usize::from(may_die);
            match threads.get(self.choices.below(options as u64) as usize) {
                Some(thread) => {
                    if *thread != me || over {
                        self.began = self.steps;
                    }
                    self.current = *thread;
                    return;
                }
                None => self.die(),
            }
        }
    }
}

impl World {
    pub(super) fn new(mut choices: Choices, case: Case) -> Arc<Self> {
        let refuses = choices.happens(8);
        let victims = case.victims;
        let victim =
            (!victims.is_empty()).then(|| victims[choices.below(victims.len() as u64) as usize]);
        let doom = (victim.is_some() && !choices.are_listed()).then(|| choices.below(500) + 1);

        let state = State {
            choices,
            case,
            current: 0,
            alive: [true, !case.alone, true, !case.alone],
            waiting: Default::default(),

            steps: 0,
            began: 0,
            failed: false,
            doom,
            victim,
            dead: [false; 2],
            has_ended: [false; 2],
            written: [0; 2],
            read: [0; 2],
            queues: Default::default(),

            marked: false,
            refuses,
            is_hostile: false,
            taken: false,
            made: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), turns: Default::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all threads.
    pub(super) fn fail(&self) {
        self.state().failed = true;
        self.turns.iter().for_each(Condvar::notify_all);
    }

    /// Runs `body` with this thread as thread `me` of the world.
    pub(super) fn enter<T>(self: &Arc<Self>, me: usize, body: impl FnOnce() -> T) -> T {
        HERE.set(Some((Arc::clone(self), me)));
        STEP.set(Some(Box::new(step)));
        let leave = Leave(Arc::clone(self), me);
        self.wait_turn(self.state(), me);
        let done = body();
        drop(leave);
        done
    }

    fn wait_turn(&self, mut state: MutexGuard<'_, State>, me: usize) {
        while state.current != me && !state.failed {
            state = self.turns[me].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting[me] = None;
        let ends = state.failed || state.dead[me / 2];
        drop(state);
        if ends {
            resume_unwind(Box::new(Ended));
        }
    }

    fn pass_on(&self, state: &mut State, me: usize) {
        if let Some(doom) = &mut state.doom {
            *doom -= 1;
            if *doom == 0 {
                state.die();
            }
        }

        state.choose(me);
        if state.failed {
            self.turns.iter().for_each(Condvar::notify_all);
        } else if state.current != me {
            self.turns[state.current].notify_one();
        }
    }
}

struct Leave(Arc<World>, usize);

impl Drop for Leave {
    fn drop(&mut self) {
        STEP.set(None);
        HERE.set(None);
        let mut state = self.0.state();
        state.alive[self.1] = false;
        state.steps += 1;
        self.0.pass_on(&mut state, self.1);
    }
}

/// Lets another thread of the world run.
fn step() {
    let Some((world, me)) = HERE.with_borrow(Clone::clone) else { return };
    if std::thread::panicking() {
        return;
    }
    let mut state = world.state();
    state.steps += 1;
    world.pass_on(&mut state, me);
    world.wait_turn(state, me);
}

/// Waits until the condition holds. The world has stalled if every thread waits.
pub(super) fn wait(until: Until) {
    let Some((world, me)) = HERE.with_borrow(Clone::clone) else { return };
    let mut state = world.state();
    // A thread that tries again has changed nothing, but any other may have released a lock.
    state.steps += u64::from(!matches!(until, Until::Later(_)));
    state.waiting[me] = Some(until);
    world.pass_on(&mut state, me);
    world.wait_turn(state, me);
}

/// Tries until `attempt` succeeds.
pub(in crate::shared_memory::lane) fn retry(attempt: impl Fn() -> bool) {
    let Some((world, _)) = HERE.with_borrow(Clone::clone) else { return };
    step();
    while !attempt() {
        let steps = world.state().steps;
        wait(Until::Later(steps));
    }
}

/// Returns how many exchanges an offer stands, if this thread's world shortens that.
pub(in crate::shared_memory::lane) fn patience() -> Option<u32> {
    HERE.with_borrow(|here| here.as_ref().and_then(|(world, _)| world.state().case.patience))
}
