//! Accepts clients.

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

/// An instance of a pipe that waits for its client. Dropping it closes the pipe at once.
pub(in crate::windows) struct Connect {
    /// Declared before the event that it watches, so that it is dropped first.
    _watch: Watch,
    /// On the heap, so that its address does not change.
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
    /// Starts to accept a client, and wakes `waker` when one has come. The system cancels this when
    /// the calling thread ends.
    ///
    /// # Errors
    ///
    /// Returns the pipe with the error, because the pipe holds the name.
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
        // If the client is there already, `ConnectNamedPipe` makes NT forget who it is (`NpListen`
        // in its pipe driver).
        if pipe::has_client(pipe)? {
            return self.event.set();
        }
        // SAFETY: the handle is open as long as `self` has it. The system may write to the
        // structure until the operation is over. It is on the heap, and is freed only after `end`
        // or `drop`, which wait for that.
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

    /// Whether a client has come, or none will. This checks the event, because the system signals
    /// events in the order in which clients come, but calls back in any order.
    pub(in crate::windows) fn is_over(&self) -> bool {
        matches!(self.event.wait(Deadline::after(Some(Duration::ZERO))), Ok(true))
    }

    /// Returns the pipe if it has a client, and otherwise stops waiting for one.
    pub(in crate::windows) fn end(mut self) -> io::Result<OwnedHandle> {
        let settled = self.settle();
        let pipe = self.pipe.take().ok_or_else(|| io::Error::other("the pipe was taken"))?;
        match settled {
            // A client can open the pipe until it is closed, even after this error.
            Err(error) if !pipe::has_client(&pipe).unwrap_or(false) => Err(error),
            _ => Ok(pipe),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        let (Some(pipe), true) = (&self.pipe, std::mem::take(&mut self.begun)) else {
            return Ok(());
        };
        let pipe = pipe.as_handle();
        // This changes nothing if a client has come.
        cancel(pipe, &self.overlapped);
        wait(pipe, &self.overlapped, &self.event, Deadline::after(None));
        match result(pipe, &self.overlapped) {
            // A client has come and gone.
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
