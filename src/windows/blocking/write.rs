//! The write side of a pipe.
//!
//! As with the reactor, a write returns when the system has its bytes in hand, which may be before
//! the pipe has room for them; the next write waits for that. So a write whose time is over has
//! written nothing, no write is ever taken back, and nothing is lost: what is cancelled in a pipe may
//! have been read in part, and nobody can tell how much.

use std::io;
use std::os::windows::io::OwnedHandle;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, ERROR_NO_DATA};

use super::super::overlapped::{self, Event, Write};
use super::super::{broken_pipe, no_half_close, not_taken, pipe};
use crate::deadline::{Deadline, timed_out};

/// What of the write side goes with a stream that is converted.
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "there is an async stream with it"))]
pub(in super::super) struct WriteState {
    pub(in super::super) end_on_close: bool,
    /// What became of our end, where the write side is shut.
    pub(in super::super) ended: Option<io::Result<()>>,
}

/// Whether a pipe is bound to a completion port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    No,
    ByUs,
    /// It was when we got it.
    Elsewhere,
}

pub(super) struct WriteSide {
    /// What `shutdown` may do on a pipe that cannot carry our end.
    end_on_close: bool,
    event: Arc<Event>,
    state: Mutex<State>,
}

struct State {
    bound: Bound,
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
    pub(super) fn new(end_on_close: bool, bound: Bound) -> io::Result<Self> {
        let state = Mutex::new(State { bound, last: Last::Done, end: None });
        Ok(Self { end_on_close, event: Arc::new(Event::new()?), state })
    }

    pub(super) fn write(
        &self,
        pipe: &Arc<OwnedHandle>,
        deadline: Deadline,
        bytes: impl FnOnce() -> Vec<u8>,
    ) -> io::Result<usize> {
        loop {
            let mut state = self.lock();
            if state.end.is_some() {
                return Err(broken_pipe());
            }
            match state.settled().0 {
                Last::Failed => return Err(broken_pipe()),
                Last::UnderWay(write) => {
                    let event = write.event();
                    // Not with the lock: others may want to shut the write side down meanwhile.
                    drop(state);
                    if !event.wait(deadline)? {
                        return Err(timed_out("write"));
                    }
                    continue;
                }
                Last::Done => {}
            }
            let bytes = bytes();
            let length = bytes.len();
            // An empty message would be the end.
            if length == 0 {
                return Ok(0);
            }
            state.bind(pipe)?;
            return match Write::begin(pipe, bytes, &self.event) {
                Ok(under_way) => {
                    state.last = under_way.map_or(Last::Done, Last::UnderWay);
                    Ok(length)
                }
                Err(error) if pipe::is_gone(&error) => Err(broken_pipe()),
                Err(error) => Err(error),
            };
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
        loop {
            let mut state = self.lock();
            state.end(pipe, messages)?;
            let event = match state.settled() {
                (Last::Failed, _) => return Err(broken_pipe()),
                (Last::UnderWay(write), _) | (Last::Done, Some(End::Sending(write))) => {
                    write.event()
                }
                (Last::Done, Some(End::Sent(Err(error)))) => {
                    return Err(io::Error::from(error.kind()));
                }
                (Last::Done, Some(End::Sent(Ok(()))) | None) => return Ok(()),
            };
            drop(state);
            if !event.wait(deadline)? {
                return Err(not_taken(limit));
            }
        }
    }

    /// Once nothing is under way, for which it waits.
    pub(super) fn into_state(self) -> io::Result<(WriteState, Bound)> {
        loop {
            let mut state = self.lock();
            let event = match state.settled() {
                (Last::UnderWay(write), _) | (_, Some(End::Sending(write))) => write.event(),
                _ => break,
            };
            drop(state);
            event.wait(Deadline::after(None))?;
        }
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ended = match (state.end, state.last) {
            (Some(End::Sent(Ok(()))), Last::Failed) => Some(Err(broken_pipe())),
            (Some(End::Sent(outcome)), _) => Some(outcome),
            (Some(End::Sending(_)) | None, _) => None,
        };
        Ok((WriteState { end_on_close: self.end_on_close, ended }, state.bound))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has to come before the first write. One that is under way when its thread ends would
    /// otherwise be cancelled.
    fn bind(&mut self, pipe: &Arc<OwnedHandle>) -> io::Result<()> {
        if self.bound == Bound::No {
            self.bound = match overlapped::quiet_port()?.bind(&**pipe) {
                Ok(()) => Bound::ByUs,
                Err(error) if pipe::code(&error) == Some(ERROR_INVALID_PARAMETER) => {
                    Bound::Elsewhere
                }
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// What is known by now of the last write, and of the end.
    fn settled(&mut self) -> (&Last, Option<&End>) {
        if let Last::UnderWay(write) = &self.last {
            match write.outcome() {
                None => {}
                Some(Ok(())) => self.last = Last::Done,
                Some(Err(_)) => self.last = Last::Failed,
            }
        }
        if let Some(End::Sending(write)) = &self.end {
            if let Some(outcome) = write.outcome() {
                self.end = Some(End::Sent(end_outcome(outcome)));
            }
        }
        (&self.last, self.end.as_ref())
    }

    /// Ends the write side, if it is not ended yet, without waiting.
    fn end(&mut self, pipe: &Arc<OwnedHandle>, messages: bool) -> io::Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        if !messages {
            self.end = Some(End::Sent(Ok(())));
            return Ok(());
        }
        self.bind(pipe)?;
        let event = Arc::new(Event::new()?);
        self.end = Some(match Write::begin(pipe, Vec::new(), &event) {
            Ok(Some(write)) => End::Sending(write),
            Ok(None) => End::Sent(Ok(())),
            Err(error) => End::Sent(end_outcome(Err(error))),
        });
        Ok(())
    }
}

fn end_outcome(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        // It is this write that met a closed pipe. One that was under way when the peer left has its
        // own error.
        Err(error) if pipe::code(&error) == Some(ERROR_NO_DATA) => Ok(()),
        Err(error) if pipe::is_gone(&error) => Err(broken_pipe()),
        outcome => outcome,
    }
}
