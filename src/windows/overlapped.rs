//! Overlapped I/O without an event loop: each operation has an event, and whoever wants it done
//! waits for that.
//!
//! The system stores an operation's outcome first and signals its event after. So one that was left
//! under way is over when its event is signalled, not when its outcome can be read: a signal still
//! to come would be taken for that of the next operation with the event.
//!
//! Nothing is bound to a completion port, which could not be undone: so a pipe can be handed on.
//! But the system cancels such an operation when the thread that began it ends. What may outlive a
//! call is begun by a thread that stays, see `accept.rs` and `blocking/write.rs`.
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

/// Signalled when an operation is over, and until the next one begins with it.
#[derive(Debug)]
pub(super) struct Event(OwnedHandle);

impl Event {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: null means the default security and no name.
        let event = unsafe { CreateEventW(null(), 1, 0, null()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so it is an open handle, and nobody else has it.
        Ok(Self(unsafe { OwnedHandle::from_raw_handle(event) }))
    }

    /// `false` once the deadline is past.
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

    /// The low bit keeps the operation from being reported to a completion port, where a pipe that
    /// was made elsewhere is bound to one. See `GetQueuedCompletionStatus`.
    fn overlapped(&self) -> OVERLAPPED {
        let event = self.0.as_raw_handle().map_addr(|handle| handle | 1);
        OVERLAPPED { hEvent: event, ..OVERLAPPED::default() }
    }
}

/// Rounded up, so that a wait does not end early; for ever, without a deadline.
fn milliseconds(deadline: Deadline) -> u32 {
    let Some(left) = deadline.left() else { return INFINITE };
    u32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(INFINITE).min(INFINITE - 1)
}

fn cancel(pipe: BorrowedHandle<'_>, overlapped: &UnsafeCell<OVERLAPPED>) {
    // It fails where the operation is over.
    // SAFETY: the handle is open as long as the pipe is borrowed, and the structure lives; only its
    // address counts.
    unsafe { CancelIoEx(raw(&pipe), overlapped.get()) };
}

/// Returns when an operation that was left under way is over, and has signalled its event. It is
/// cancelled at the deadline.
fn wait(
    pipe: BorrowedHandle<'_>,
    overlapped: &UnsafeCell<OVERLAPPED>,
    event: &Event,
    mut deadline: Deadline,
) {
    loop {
        // Where it cannot be waited for, it must not go on either.
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

/// How many bytes it has moved; `ERROR_IO_INCOMPLETE` while it is under way.
fn result(pipe: BorrowedHandle<'_>, overlapped: &UnsafeCell<OVERLAPPED>) -> io::Result<usize> {
    let mut length = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; the structure is that of an
    // operation on it that was begun; `length` is a place for a number. It is not to wait, which
    // would be for the event alone, and then take it to be over.
    let done = check(unsafe { GetOverlappedResult(raw(&pipe), overlapped.get(), &mut length, 0) });
    match done {
        Ok(()) => Ok(length as usize),
        // The rest of the message comes with the next read.
        Err(error) if code(&error) == Some(ERROR_MORE_DATA) => Ok(length as usize),
        Err(error) => Err(error),
    }
}
