//! Overlapped I/O without an event loop: each operation has an event, and the caller waits for that
//! event.
//!
//! The system stores the outcome of an operation first, and signals its event afterwards. So an
//! operation that was left under way counts as over when its event is signalled, not when its
//! outcome can be read. Otherwise the late signal would be taken for that of the next operation
//! with the event.
//!
//! No pipe is bound to a completion port: that could not be undone, and the pipe could not be
//! handed on. But the system cancels such an operation when the thread that began it ends. An
//! operation that may outlive a call is begun by a thread that stays; see `accept.rs` and
//! `blocking/write.rs`.
#![allow(unsafe_code, reason = "system calls, and memory that the system writes to meanwhile")]

mod connect;
#[cfg(feature = "blocking")]
mod transfer;
mod watch;

use std::cell::UnsafeCell;
use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::null;

use windows_sys::Win32::Foundation::{
    ERROR_IO_INCOMPLETE, ERROR_MORE_DATA, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Threading::{
    CreateEventW, INFINITE, SetEvent, WaitForSingleObject,
};

pub(super) use self::connect::Connect;
#[cfg(feature = "blocking")]
pub(super) use self::transfer::{Write, check_adopted, read, write};
use super::system::{check, code, raw};
use crate::wait::Deadline;

/// An event that is signalled when an operation is over, until the next one begins with it.
#[derive(Debug)]
pub(super) struct Event(OwnedHandle);

impl Event {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: null means the default security and no name.
        let event = unsafe { CreateEventW(null(), 1, 0, null()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
        Ok(Self(unsafe { OwnedHandle::from_raw_handle(event) }))
    }

    /// Waits until the event is signalled. Returns `false` once the deadline is past.
    pub(super) fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        loop {
            // SAFETY: the handle is open as long as `self` lives.
            match unsafe { WaitForSingleObject(self.0.as_raw_handle(), milliseconds(deadline)) } {
                WAIT_OBJECT_0 => return Ok(true),
                WAIT_TIMEOUT if deadline.is_past() => return Ok(false),
                WAIT_TIMEOUT => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
    }

    fn set(&self) -> io::Result<()> {
        // SAFETY: the handle is open as long as `self` lives.
        check(unsafe { SetEvent(self.0.as_raw_handle()) })
    }

    /// The low bit keeps the operation from being reported to a completion port, if a pipe that was
    /// made elsewhere is bound to one. See `GetQueuedCompletionStatus`.
    fn overlapped(&self) -> OVERLAPPED {
        let event = self.0.as_raw_handle().map_addr(|handle| handle | 1);
        OVERLAPPED { hEvent: event, ..OVERLAPPED::default() }
    }
}

/// Rounds up, so that a wait does not end early. Without a deadline the wait has no limit.
fn milliseconds(deadline: Deadline) -> u32 {
    let Some(left) = deadline.left() else { return INFINITE };
    u32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(INFINITE).min(INFINITE - 1)
}

fn cancel(pipe: BorrowedHandle<'_>, overlapped: &UnsafeCell<OVERLAPPED>) {
    // This fails if the operation is over, which is ignored.
    // SAFETY: the handle is open as long as the pipe is borrowed, and the structure is alive; the
    // call uses only its address.
    unsafe { CancelIoEx(raw(&pipe), overlapped.get()) };
}

/// Waits until an operation that was left under way is over and has signalled its event. Cancels it
/// at the deadline.
fn wait(
    pipe: BorrowedHandle<'_>,
    overlapped: &UnsafeCell<OVERLAPPED>,
    event: &Event,
    mut deadline: Deadline,
) {
    loop {
        // If the wait fails, the operation must not go on either.
        if !matches!(event.wait(deadline), Ok(true)) {
            cancel(pipe, overlapped);
            deadline = Deadline::after(None);
        } else if !is_under_way(&result(pipe, overlapped)) {
            return;
        }
    }
}

fn is_under_way(outcome: &io::Result<usize>) -> bool {
    matches!(outcome, Err(error) if code(error) == Some(ERROR_IO_INCOMPLETE))
}

/// Returns how many bytes the operation has moved, or `ERROR_IO_INCOMPLETE` while it is under way.
fn result(pipe: BorrowedHandle<'_>, overlapped: &UnsafeCell<OVERLAPPED>) -> io::Result<usize> {
    let mut length = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; the structure belongs to an
    // operation that was begun on it; `length` is a place for a number. The call must not wait: it
    // would wait for the event alone, and then take the operation to be over.
    let done = check(unsafe { GetOverlappedResult(raw(&pipe), overlapped.get(), &mut length, 0) });
    match done {
        Ok(()) => Ok(length as usize),
        // The rest of the message comes with the next read.
        Err(error) if code(&error) == Some(ERROR_MORE_DATA) => Ok(length as usize),
        Err(error) => Err(error),
    }
}
