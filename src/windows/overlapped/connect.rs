//! Letting clients in.

use std::cell::UnsafeCell;
use std::io;
use std::os::windows::io::{AsHandle, OwnedHandle};
use std::task::Waker;
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_NO_DATA, ERROR_PIPE_CONNECTED};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Pipes::ConnectNamedPipe;

use super::super::pipe;
use super::super::system::{check, code, raw};
use super::watch::Watch;
use super::{Event, cancel, result, wait};
use crate::wait::Deadline;

/// An instance of a pipe that waits for its client. Its drop closes the pipe, at once.
pub(in crate::windows) struct Connect {
    /// Before the event that it watches.
    _watch: Watch,
    /// On the heap, so that it stays where it is.
    overlapped: Box<UnsafeCell<OVERLAPPED>>,
    event: Event,
    /// Whether the operation was left under way.
    begun: bool,
    /// `None` once it is taken out.
    pipe: Option<OwnedHandle>,
}

// SAFETY: the structure belongs to no thread.
unsafe impl Send for Connect {}

impl Connect {
    /// Lets a client in; wakes `waker` when one has come. It is cancelled when this thread ends.
    ///
    /// # Errors
    ///
    /// The pipe is returned too, for it holds the name.
    pub(in crate::windows) fn begin(
        pipe: OwnedHandle,
        waker: &Waker,
    ) -> Result<Self, (OwnedHandle, io::Error)> {
        let ready = Event::new().and_then(|event| Ok((Watch::new(&event, waker)?, event)));
        let (watch, event) = match ready {
            Ok(ready) => ready,
            Err(error) => return Err((pipe, error)),
        };
        let overlapped = Box::new(UnsafeCell::new(event.overlapped()));
        let mut this = Self { _watch: watch, overlapped, event, begun: false, pipe: Some(pipe) };
        match this.listen() {
            Ok(()) => Ok(this),
            Err(error) => match this.pipe.take() {
                Some(pipe) => Err((pipe, error)),
                None => Ok(this),
            },
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        // NT forgets who the client is when it is asked to let one in that is there (`NpListen` in
        // its pipe driver).
        if pipe::has_client(pipe)? {
            return self.event.set();
        }
        // SAFETY: the handle is open as long as `self` has it. The system may write to the
        // structure until the operation is over; it is on the heap, and `end` or `drop`, without
        // which it is not freed, waits for that.
        match check(unsafe { ConnectNamedPipe(raw(pipe), self.overlapped.get()) }) {
            Ok(()) => self.event.set(),
            Err(error) => match code(&error) {
                Some(ERROR_IO_PENDING) => {
                    self.begun = true;
                    Ok(())
                }
                // A client has come already, or come and gone.
                Some(ERROR_PIPE_CONNECTED | ERROR_NO_DATA) => self.event.set(),
                _ => Err(error),
            },
        }
    }

    /// Whether a client has come, or none will. The system signals the events in the order in which
    /// clients come, and calls back in any.
    pub(in crate::windows) fn is_over(&self) -> bool {
        matches!(self.event.wait(Deadline::after(Some(Duration::ZERO))), Ok(true))
    }

    /// The pipe, if it has a client. Where it has none yet, it is not waited for any longer.
    pub(in crate::windows) fn end(mut self) -> io::Result<OwnedHandle> {
        let settled = self.settle();
        let pipe = self.pipe.take().ok_or_else(|| io::Error::other("the pipe was taken"))?;
        match settled {
            // Until it is closed a client can open it all the same.
            Err(error) if !pipe::has_client(&pipe).unwrap_or(false) => Err(error),
            _ => Ok(pipe),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        let (Some(pipe), true) = (&self.pipe, std::mem::take(&mut self.begun)) else {
            return Ok(());
        };
        let pipe = pipe.as_handle();
        // It changes nothing where a client has come.
        cancel(pipe, &self.overlapped);
        wait(pipe, &self.overlapped, &self.event, Deadline::after(None));
        match result(pipe, &self.overlapped) {
            // One that has come and gone.
            Err(error) if code(&error) == Some(ERROR_NO_DATA) => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let _ = self.settle();
    }
}
