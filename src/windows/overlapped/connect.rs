//! Letting clients in, and ends that were made elsewhere.

use std::cell::UnsafeCell;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, OwnedHandle};
use std::sync::Arc;

use windows_sys::Wdk::Storage::FileSystem::{
    FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT, FileModeInformation,
    NtQueryInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_IO_PENDING, ERROR_NO_DATA, ERROR_PIPE_CONNECTED, HANDLE, WAIT_FAILED, WAIT_OBJECT_0,
    WAIT_TIMEOUT,
};
use windows_sys::Win32::System::IO::{IO_STATUS_BLOCK, OVERLAPPED};
use windows_sys::Win32::System::Pipes::ConnectNamedPipe;
use windows_sys::Win32::System::Threading::WaitForMultipleObjects;

use super::super::pipe::{self, End, code, raw};
use super::super::security::check;
use super::{Event, cancel, milliseconds, result, wait};
use crate::wait::Deadline;

/// Whether an end that was made elsewhere can be used so: it is for overlapped I/O, and has a peer.
pub(in crate::windows) fn check_adopted(pipe: &OwnedHandle, end: End) -> io::Result<()> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if is_synchronous(pipe)? {
        return invalid("the handle is not for overlapped I/O");
    }
    if end == End::Server && !pipe::has_client(pipe)? {
        return invalid("the pipe has no client yet");
    }
    Ok(())
}

fn is_synchronous(pipe: &impl AsHandle) -> io::Result<bool> {
    let (mut mode, mut status) = (0_u32, IO_STATUS_BLOCK::default());
    let (pipe, to) = (raw(pipe), (&raw mut mode).cast());
    let length = size_of::<u32>() as u32;
    // SAFETY: the handle is open as long as the pipe is borrowed; `mode` is a place for what is
    // asked, a FILE_MODE_INFORMATION of one number, as long as is said, and `status` one for the
    // outcome.
    let outcome =
        unsafe { NtQueryInformationFile(pipe, &mut status, to, length, FileModeInformation) };
    if outcome < 0 {
        return Err(io::Error::other(format!(
            "cannot query the mode of the handle (status {outcome:#x})"
        )));
    }
    Ok(mode & (FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT) != 0)
}

/// An instance of a pipe that waits for its client.
pub(in crate::windows) struct Connect {
    /// On the heap, so that it stays where it is.
    overlapped: Box<UnsafeCell<OVERLAPPED>>,
    event: Event,
    pipe: Arc<OwnedHandle>,
    /// Whether the call left the operation under way.
    begun: bool,
}

// SAFETY: the structure belongs to no thread.
unsafe impl Send for Connect {}

impl Connect {
    /// Lets a client in. It is cancelled when this thread ends.
    pub(in crate::windows) fn begin(pipe: Arc<OwnedHandle>) -> io::Result<Self> {
        let event = Event::new()?;
        let overlapped = Box::new(UnsafeCell::new(event.overlapped()));
        let mut this = Self { overlapped, event, pipe, begun: false };
        // SAFETY: the handle is open, for `this` has a share in it. The system may write to the
        // structure until the operation is over; it is on the heap, and `end` or `drop`, without
        // which it is not freed, waits for that.
        let begun = check(unsafe { ConnectNamedPipe(raw(&*this.pipe), this.overlapped.get()) });
        match begun {
            Ok(()) => this.event.set()?,
            Err(error) => match code(&error) {
                Some(ERROR_IO_PENDING) => this.begun = true,
                // A client has come already, or come and gone.
                Some(ERROR_PIPE_CONNECTED | ERROR_NO_DATA) => this.event.set()?,
                _ => return Err(error),
            },
        }
        Ok(this)
    }

    /// Signalled when a client has come, or none will.
    pub(in crate::windows) fn event(&self) -> &Event {
        &self.event
    }

    /// `Ok` if the instance has a client. Where it has none yet, it is not waited for any longer.
    pub(in crate::windows) fn end(mut self) -> io::Result<()> {
        self.settle()
    }

    fn settle(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.begun) {
            return Ok(());
        }
        let pipe = self.pipe.as_handle();
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

/// How many events can be waited for at once: `MAXIMUM_WAIT_OBJECTS`.
pub(in crate::windows) const MOST_EVENTS: usize = 64;

/// The first of at most [`MOST_EVENTS`] that is signalled; `None` once the deadline is past.
pub(in crate::windows) fn wait_for_any(
    events: &[&Event],
    deadline: Deadline,
) -> io::Result<Option<usize>> {
    let handles: Vec<HANDLE> = events.iter().map(|event| event.0.as_raw_handle()).collect();
    let count = u32::try_from(handles.len()).map_err(io::Error::other)?;
    loop {
        let limit = milliseconds(deadline);
        // SAFETY: the handles are open as long as the events are borrowed, and as many as is said.
        match unsafe { WaitForMultipleObjects(count, handles.as_ptr(), 0, limit) } {
            WAIT_TIMEOUT if deadline.is_past() => return Ok(None),
            WAIT_TIMEOUT => {}
            WAIT_FAILED => return Err(io::Error::last_os_error()),
            signalled => return Ok(Some((signalled - WAIT_OBJECT_0) as usize)),
        }
    }
}
