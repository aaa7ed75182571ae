//! The write side of a pipe.
//!
//! Without a time limit, a write returns when the pipe has room for all of it. With a limit it must
//! not wait that long. It cannot be cancelled either: the peer may have read a part of it, and the
//! system does not report how much. So such a write returns once the system has the bytes, as the
//! reactor's writes do, and the next write waits until the pipe has had room for them. If the time
//! runs out during that wait, the next write has written nothing. A write with a limit is begun by
//! a thread that stays, because the write may outlive the caller's thread.
//!
//! A write without a time limit takes no lock: a byte records the state that the locks guard; see
//! [`Phase`].

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

/// The state of the write side that goes with a stream when it is converted.
#[cfg(feature = "tokio")]
pub(in super::super) struct WriteState {
    pub(in super::super) end_on_close: bool,
    /// The outcome of sending our end, if the write side is shut.
    pub(in super::super) ended: Option<io::Result<()>>,
}

pub(super) struct WriteSide {
    /// Whether the pipe can carry our end.
    messages: bool,
    /// Whether `shutdown` succeeds on a pipe that cannot: the peer reads the end at close.
    end_on_close: bool,
    /// One thread writes at a time, and waits for the last write.
    turn: Turn,
    /// The event of a write without a time limit, which waits until it is over.
    event: Event,
    phase: Phase,
    /// Used by the thread that has the turn.
    last: Mutex<Last>,
    /// The state of our end, once the write side is shut.
    end: Mutex<Option<End>>,
}

/// The progress of the write side, as far as it is known without a lock.
///
/// Nothing is written after our end. So a write that is being handed to the system and a shutdown
/// each leave a mark, and the later one sees the mark of the earlier one. A write that finds the
/// side shut is not begun. A shutdown that finds such a write leaves it to that write to send the
/// end.
#[derive(Default)]
struct Phase(AtomicU8);

/// A write is being handed to the system.
const BEGINNING: u8 = 1;
/// Our end is sent, or the thread that is writing will send it.
const SHUT: u8 = 2;
/// The last write may be under way, or has failed. Used by the thread that has the turn.
const UNSETTLED: u8 = 4;

impl Phase {
    fn is(&self, mark: u8) -> bool {
        self.0.load(Ordering::Acquire) & mark != 0
    }

    /// Sets a mark, and returns the marks from before.
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

/// Our end of the stream: an empty message, or nothing on a pipe of byte type. The system takes it
/// at once, and the peer reads it after all that was written before.
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
        // A thread that is writing has sent the end by the time it gives the turn back.
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

    /// Waits until nothing is under way. Returns the outcome of our end, if the write side is shut.
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

    /// Waits for the last write, and returns whether the system has taken all of it. Returns `None`
    /// once the deadline is past.
    fn wait_for_last(&self, deadline: Deadline) -> io::Result<Option<bool>> {
        if !self.phase.is(UNSETTLED) {
            return Ok(Some(true));
        }

        let mut last = lock(&self.last);
        loop {
            match &*last {
                Last::Done => return Ok(Some(true)),
                Last::Failed => return Ok(Some(false)),
                // Only this thread changes it, because it has the turn.
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

    /// Waits for our end, which was begun, and returns its outcome. Returns `None` once the
    /// deadline is past.
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

/// Calls `Write::begin` on a thread that lives as long as the process.
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
            // The thread that asked waits for the answer.
            let _ = begun.send(Write::begin(pipe, bytes));
        }
    })?;
    Ok(WRITER.get_or_init(|| sender))
}
