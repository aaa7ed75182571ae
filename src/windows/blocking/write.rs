//! The write side of a pipe.
//!
//! Without a time limit, a write returns when the pipe has room for all of it. With one it must not
//! wait that long, and what is cancelled in a pipe may have been read in part, nobody can tell how
//! much. So it returns when the system has its bytes in hand, as the reactor's writes do, and the
//! next write waits until the pipe has had room for them: one whose time is over has written
//! nothing. Such a write is begun by a thread that stays, for it may outlive the caller's.

//!
//! A write without a time limit takes no lock: a byte says what the locks guard, see [`Phase`].

use std::io;
use std::os::windows::io::OwnedHandle;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::end;
use super::super::overlapped::{self, Event, Write};
use super::super::{broken_pipe, no_half_close, not_taken, pipe};
use super::turn::Turn;
use crate::wait::{Deadline, timed_out};

/// What of the write side goes with a stream that is converted.
#[cfg(feature = "tokio")]
pub(in super::super) struct WriteState {
    pub(in super::super) end_on_close: bool,
    /// What became of our end, where the write side is shut.
    pub(in super::super) ended: Option<io::Result<()>>,
}

pub(super) struct WriteSide {
    /// Whether the pipe can carry our end.
    messages: bool,
    /// What `shutdown` may do where it cannot.
    end_on_close: bool,
    /// One writes at a time, and waits for the last write.
    turn: Turn,
    /// Of a write without a time limit, which waits until it is over.
    event: Event,
    phase: Phase,
    /// Of who has the turn.
    last: Mutex<Last>,
    /// What became of our end, once the write side is shut.
    end: Mutex<Option<End>>,
}

/// How far the write side is, as it is known without a lock.
///
/// Nothing is written behind our end. So a write that is being handed to the system and a shutdown
/// each leave a mark, and the later one sees the earlier one's: a write that finds the side shut is
/// not begun, and a shutdown that finds a write leaves it to that to send the end behind it.
#[derive(Default)]
struct Phase(AtomicU8);

/// A write is being handed to the system.
const BEGINNING: u8 = 1;
/// Our end is sent, or whoever writes just now sends it.
const SHUT: u8 = 2;
/// The last write may be under way, or has failed. Of who has the turn.
const UNSETTLED: u8 = 4;

impl Phase {
    fn is(&self, mark: u8) -> bool {
        self.0.load(Ordering::Acquire) & mark != 0
    }

    /// Returns the marks that there were.
    fn mark(&self, mark: u8) -> u8 {
        self.0.fetch_or(mark, Ordering::AcqRel)
    }

    fn unmark(&self, mark: u8) -> u8 {
        self.0.fetch_and(!mark, Ordering::AcqRel)
    }
}

/// The last write.
enum Last {
    Done,
    UnderWay(Write),
    /// The peer is gone, and did not read all of it.
    Failed,
}

/// An empty message, the end of a stream; nothing on a pipe of byte type. The system takes it at
/// once, and the peer reads it behind all that was written before.
enum End {
    Sent(io::Result<()>),
    Sending(Write),
}

impl WriteSide {
    pub(super) fn new(messages: bool, end_on_close: bool) -> io::Result<Self> {
        Ok(Self {
            messages,
            end_on_close,
            turn: Turn::default(),
            event: Event::new()?,
            phase: Phase::default(),
            last: Mutex::new(Last::Done),
            end: Mutex::new(None),
        })
    }

    pub(super) fn write(
        &self,
        pipe: &Arc<OwnedHandle>,
        bytes: &[u8],
        deadline: Deadline,
    ) -> io::Result<usize> {
        let Some(_turn) = self.turn.take(deadline) else { return Err(timed_out("write")) };
        if self.phase.is(SHUT) {
            return Err(broken_pipe());
        }
        // An empty message would be the end.
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.wait_for_last(deadline)? {
            Some(true) => {}
            Some(false) => return Err(broken_pipe()),
            None => return Err(timed_out("write")),
        }
        // The write side may have been shut meanwhile.
        if self.phase.mark(BEGINNING) & SHUT != 0 {
            self.phase.unmark(BEGINNING);
            return Err(broken_pipe());
        }
        let begun = || {
            if self.phase.unmark(BEGINNING) & SHUT != 0 {
                *lock(&self.end) = Some(End::send(pipe, self.messages));
            }
        };

        let written = if deadline.left().is_none() {
            overlapped::write(&**pipe, bytes, &self.event, begun)
        } else {
            let write = begin_elsewhere(Arc::clone(pipe), bytes.to_vec());
            begun();
            write.map(|write| self.unsettled(write))
        };
        match written {
            Ok(()) => Ok(bytes.len()),
            Err(error) if pipe::is_gone(&error) => Err(broken_pipe()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn shutdown(&self, pipe: &Arc<OwnedHandle>) -> io::Result<()> {
        if !self.messages && !self.end_on_close {
            return Err(no_half_close());
        }
        self.end(pipe);
        Ok(())
    }

    pub(super) fn close(&self, pipe: &Arc<OwnedHandle>, limit: Duration) -> io::Result<()> {
        let deadline = Deadline::after(Some(limit));
        self.end(pipe);
        // Who writes just now has sent the end when it gives the turn back.
        let Some(_turn) = self.turn.take(deadline) else { return Err(not_taken(limit)) };
        match self.wait_for_last(deadline)? {
            Some(true) => {}
            Some(false) => return Err(broken_pipe()),
            None => return Err(not_taken(limit)),
        }
        self.wait_for_end(deadline)?.unwrap_or_else(|| Err(not_taken(limit)))
    }

    /// Ends the write side, if it is not ended yet, without waiting.
    fn end(&self, pipe: &Arc<OwnedHandle>) {
        let mut end = lock(&self.end);
        if self.phase.mark(SHUT) & (SHUT | BEGINNING) == 0 {
            *end = Some(End::send(pipe, self.messages));
        }
    }

    /// Waits until nothing is under way. Returns what became of our end, where the side is shut.
    pub(super) fn finish(&self) -> io::Result<Option<io::Result<()>>> {
        let deadline = Deadline::after(None);
        let whole = self.wait_for_last(deadline)? != Some(false);
        let shut = self.phase.is(SHUT);
        let ended = if shut { self.wait_for_end(deadline)? } else { None };
        Ok(ended.map(|outcome| if whole { outcome } else { Err(broken_pipe()) }))
    }

    #[cfg(feature = "tokio")]
    pub(super) fn into_state(self) -> io::Result<WriteState> {
        Ok(WriteState { end_on_close: self.end_on_close, ended: self.finish()? })
    }

    fn unsettled(&self, write: Option<Write>) {
        if let Some(write) = write {
            *lock(&self.last) = Last::UnderWay(write);
            self.phase.mark(UNSETTLED);
        }
    }

    /// Whether the system has taken all of the last write; `None` once the deadline is past.
    fn wait_for_last(&self, deadline: Deadline) -> io::Result<Option<bool>> {
        if !self.phase.is(UNSETTLED) {
            return Ok(Some(true));
        }

        let mut last = lock(&self.last);
        loop {
            match &*last {
                Last::Done => return Ok(Some(true)),
                Last::Failed => return Ok(Some(false)),
                // Nobody else changes it: this thread has the turn.
                Last::UnderWay(write) => match write.outcome() {
                    Some(Ok(())) => {
                        *last = Last::Done;
                        self.phase.unmark(UNSETTLED);
                    }
                    Some(Err(_)) => *last = Last::Failed,
                    None if !write.event().wait(deadline)? => return Ok(None),
                    None => {}
                },
            }
        }
    }

    /// What became of our end, which was begun; `None` once the deadline is past.
    fn wait_for_end(&self, deadline: Deadline) -> io::Result<Option<io::Result<()>>> {
        loop {
            let (outcome, event) = match &*lock(&self.end) {
                Some(End::Sending(write)) => (write.outcome(), write.event()),
                Some(End::Sent(Err(error))) => return Ok(Some(Err(error.kind().into()))),
                Some(End::Sent(Ok(()))) | None => return Ok(Some(Ok(()))),
            };
            match outcome {
                Some(outcome) => *lock(&self.end) = Some(End::Sent(end::sent(outcome))),
                None if !event.wait(deadline)? => return Ok(None),
                None => {}
            }
        }
    }
}

impl End {
    fn send(pipe: &Arc<OwnedHandle>, messages: bool) -> Self {
        if !messages {
            return Self::Sent(Ok(()));
        }
        match begin_elsewhere(Arc::clone(pipe), Vec::new()) {
            Ok(Some(write)) => Self::Sending(write),
            Ok(None) => Self::Sent(Ok(())),
            Err(error) => Self::Sent(end::sent(Err(error))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Job {
    pipe: Arc<OwnedHandle>,
    bytes: Vec<u8>,
    begun: SyncSender<io::Result<Option<Write>>>,
}

/// `Write::begin` by a thread that does not end before the process.
fn begin_elsewhere(pipe: Arc<OwnedHandle>, bytes: Vec<u8>) -> io::Result<Option<Write>> {
    let gone = || io::Error::other("the thread that begins writes is gone");
    let (begun, outcome) = sync_channel(1);
    writer()?.send(Job { pipe, bytes, begun }).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

fn writer() -> io::Result<&'static Sender<Job>> {
    static WRITER: OnceLock<Sender<Job>> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(writer) = WRITER.get() {
        return Ok(writer);
    }
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(writer) = WRITER.get() {
        return Ok(writer);
    }
    let (sender, jobs) = channel::<Job>();
    thread::Builder::new().name("sockpipe-write".to_owned()).spawn(move || {
        for Job { pipe, bytes, begun } in jobs {
            // Who asked waits for the answer.
            let _ = begun.send(Write::begin(pipe, bytes));
        }
    })?;
    Ok(WRITER.get_or_init(|| sender))
}
