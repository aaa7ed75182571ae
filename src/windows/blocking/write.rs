//! The write side of a pipe.
//!
//! Without a time limit, a write returns when the pipe has room for all of it. With one it must not
//! wait that long, and what is cancelled in a pipe may have been read in part, nobody can tell how
//! much. So it returns when the system has its bytes in hand, as the reactor's writes do, and the
//! next write waits until the pipe has had room for them: one whose time is over has written
//! nothing. Such a write is begun by a thread that stays, for it may outlive the caller's.

use std::io;
use std::os::windows::io::OwnedHandle;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::end;
use super::super::overlapped::{self, Event, Write};
use super::super::{broken_pipe, no_half_close, not_taken, pipe};
use super::Turn;
use crate::wait::{Deadline, timed_out};

/// What of the write side goes with a stream that is converted.
#[cfg(feature = "tokio")]
pub(in super::super) struct WriteState {
    pub(in super::super) end_on_close: bool,
    /// What became of our end, where the write side is shut.
    pub(in super::super) ended: Option<io::Result<()>>,
}

pub(super) struct WriteSide {
    /// What `shutdown` may do on a pipe that cannot carry our end.
    end_on_close: bool,
    /// One writes at a time, and waits for the last write.
    turn: Turn,
    /// Of a write without a time limit, which waits until it is over.
    event: Event,
    state: Mutex<State>,
}

struct State {
    last: Last,
    /// What became of our end, once the write side is shut.
    end: Option<End>,
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
    pub(super) fn new(end_on_close: bool) -> io::Result<Self> {
        let state = Mutex::new(State { last: Last::Done, end: None });
        Ok(Self { end_on_close, turn: Turn::default(), event: Event::new()?, state })
    }

    pub(super) fn write(
        &self,
        pipe: &Arc<OwnedHandle>,
        bytes: &[u8],
        deadline: Deadline,
    ) -> io::Result<usize> {
        let Some(_turn) = self.turn.take(deadline) else { return Err(timed_out("write")) };
        if self.lock().end.is_some() {
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
        // The write side may have been shut meanwhile. Nothing is written behind the end, so the lock
        // is held until the system has the write in hand.
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(broken_pipe());
        }
        let written = if deadline.left().is_none() {
            overlapped::write(&**pipe, bytes, &self.event, state)
        } else {
            begin_elsewhere(Arc::clone(pipe), bytes.to_vec())
                .map(|under_way| state.last = under_way.map_or(Last::Done, Last::UnderWay))
        };
        match written {
            Ok(()) => Ok(bytes.len()),
            Err(error) if pipe::is_gone(&error) => Err(broken_pipe()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn shutdown(&self, pipe: &Arc<OwnedHandle>, messages: bool) -> io::Result<()> {
        if !messages && !self.end_on_close {
            return Err(no_half_close());
        }
        self.lock().end(pipe, messages)
    }

    pub(super) fn close(
        &self,
        pipe: &Arc<OwnedHandle>,
        messages: bool,
        limit: Duration,
    ) -> io::Result<()> {
        let deadline = Deadline::after(Some(limit));
        self.lock().end(pipe, messages)?;
        let Some(_turn) = self.turn.take(deadline) else { return Err(not_taken(limit)) };
        match self.wait_for_last(deadline)? {
            Some(true) => {}
            Some(false) => return Err(broken_pipe()),
            None => return Err(not_taken(limit)),
        }
        self.wait_for_end(deadline)?.unwrap_or_else(|| Err(not_taken(limit)))
    }

    /// Waits until nothing is under way. Returns what became of our end, where the side is shut.
    pub(super) fn finish(&self) -> io::Result<Option<io::Result<()>>> {
        let deadline = Deadline::after(None);
        let whole = self.wait_for_last(deadline)? != Some(false);
        let shut = self.lock().end.is_some();
        let ended = if shut { self.wait_for_end(deadline)? } else { None };
        Ok(ended.map(|outcome| if whole { outcome } else { Err(broken_pipe()) }))
    }

    #[cfg(feature = "tokio")]
    pub(super) fn into_state(self) -> io::Result<WriteState> {
        Ok(WriteState { end_on_close: self.end_on_close, ended: self.finish()? })
    }

    /// Whether the system has taken all of the last write; `None` once the deadline is past.
    fn wait_for_last(&self, deadline: Deadline) -> io::Result<Option<bool>> {
        loop {
            let (outcome, event) = match &self.lock().last {
                Last::Done => return Ok(Some(true)),
                Last::Failed => return Ok(Some(false)),
                Last::UnderWay(write) => (write.outcome(), write.event()),
            };
            // Not with the lock: others may want to shut the write side down meanwhile.
            match outcome {
                Some(Ok(())) => self.lock().last = Last::Done,
                Some(Err(_)) => self.lock().last = Last::Failed,
                None if !event.wait(deadline)? => return Ok(None),
                None => {}
            }
        }
    }

    /// What became of our end, which was begun; `None` once the deadline is past.
    fn wait_for_end(&self, deadline: Deadline) -> io::Result<Option<io::Result<()>>> {
        loop {
            let (outcome, event) = match &self.lock().end {
                Some(End::Sending(write)) => (write.outcome(), write.event()),
                Some(End::Sent(Err(error))) => return Ok(Some(Err(error.kind().into()))),
                Some(End::Sent(Ok(()))) | None => return Ok(Some(Ok(()))),
            };
            match outcome {
                Some(outcome) => self.lock().end = Some(End::Sent(end::sent(outcome))),
                None if !event.wait(deadline)? => return Ok(None),
                None => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends the write side, if it is not ended yet, without waiting.
    fn end(&mut self, pipe: &Arc<OwnedHandle>, messages: bool) -> io::Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        if !messages {
            self.end = Some(End::Sent(Ok(())));
            return Ok(());
        }
        self.end = Some(match begin_elsewhere(Arc::clone(pipe), Vec::new()) {
            Ok(Some(write)) => End::Sending(write),
            Ok(None) => End::Sent(Ok(())),
            Err(error) => End::Sent(end::sent(Err(error))),
        });
        Ok(())
    }
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
