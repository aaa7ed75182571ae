//! Overlapped I/O without an event loop: each operation has an event, and whoever wants it done
//! waits for that.
//!
//! The system stores an operation's outcome first and signals its event after. So one that was left
//! under way is over when its event is signalled, not when its outcome can be read: a signal still to
//! come would be taken for that of the next operation with the event.
//!
//! Nothing is bound to a completion port, which could not be undone: so a pipe can be handed on. But
//! the system cancels such an operation when the thread that began it ends. What may outlive a call
//! is begun by a thread that stays, see `blocking/write.rs` and `blocking/listener.rs`.
#![allow(unsafe_code, reason = "system calls, and memory that the system writes to meanwhile")]

mod connect;

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_IO_INCOMPLETE, ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_OPERATION_ABORTED, WAIT_OBJECT_0,
    WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Threading::{
    CloseThreadpoolWait, CreateEventW, CreateThreadpoolWait, INFINITE, PTP_CALLBACK_INSTANCE,
    PTP_WAIT, ResetEvent, SetEvent, SetThreadpoolWait, WaitForSingleObject,
};

pub(super) use self::connect::{Connect, MOST_EVENTS, check_adopted, wait_for_any};
use super::pipe::{code, raw};
use super::security::check;
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

    pub(super) fn set(&self) -> io::Result<()> {
        // SAFETY: the handle is open as long as `self` lives.
        check(unsafe { SetEvent(self.0.as_raw_handle()) })
    }

    pub(super) fn reset(&self) -> io::Result<()> {
        // SAFETY: the handle is open as long as `self` lives.
        check(unsafe { ResetEvent(self.0.as_raw_handle()) })
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

/// One read: at most one message's bytes. `None` once the deadline is past. No other operation may
/// be under way with the same event.
pub(super) fn read(
    pipe: &impl AsHandle,
    buf: &mut [u8],
    event: &Event,
    deadline: Deadline,
) -> io::Result<Option<usize>> {
    let pipe = pipe.as_handle();
    let overlapped = UnsafeCell::new(event.overlapped());
    let length = u32::try_from(buf.len()).unwrap_or(u32::MAX);
    // SAFETY: the handle is open as long as the pipe is borrowed. The system may write to the buffer
    // and to `overlapped` until the operation is over; both outlive it, for where the call left it
    // under way this function does not return before `wait`, which returns when it is over, and
    // nothing else touches them until then.
    let begun = check(unsafe {
        ReadFile(raw(&pipe), buf.as_mut_ptr(), length, null_mut(), overlapped.get())
    });
    match begun {
        Ok(()) => {}
        Err(error) if code(&error) == Some(ERROR_MORE_DATA) => {}
        Err(error) if code(&error) != Some(ERROR_IO_PENDING) => return Err(error),
        Err(_) => wait(pipe, &overlapped, event, deadline),
    }
    match result(pipe, &overlapped) {
        Ok(length) => Ok(Some(length)),
        Err(error) if code(&error) == Some(ERROR_OPERATION_ABORTED) && deadline.is_past() => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// One write. The system takes all of it, or nothing because the peer is gone. No other operation
/// may be under way with the same event. `begun` is let go as soon as the write has its place in the
/// pipe, before it is waited for.
pub(super) fn write<T>(
    pipe: &impl AsHandle,
    bytes: &[u8],
    event: &Event,
    begun: MutexGuard<'_, T>,
) -> io::Result<()> {
    let pipe = pipe.as_handle();
    let overlapped = UnsafeCell::new(event.overlapped());
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    // SAFETY: the handle is open as long as the pipe is borrowed. The system may read the bytes and
    // write to `overlapped` until the operation is over; both outlive it, for where the call left it
    // under way this function does not return before `wait`, which returns when it is over. In
    // between only a lock is let go, which does not panic.
    let written = check(unsafe {
        WriteFile(raw(&pipe), bytes.as_ptr(), length, null_mut(), overlapped.get())
    });
    drop(begun);
    match written {
        Ok(()) => Ok(()),
        Err(error) if code(&error) != Some(ERROR_IO_PENDING) => Err(error),
        Err(_) => {
            wait(pipe, &overlapped, event, Deadline::after(None));
            result(pipe, &overlapped).map(drop)
        }
    }
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

/// A write that the system has not taken whole yet. Dropping it lets it go on by itself, and the
/// pipe stays open until then.
pub(super) struct Write(NonNull<Operation>);

struct Operation {
    overlapped: UnsafeCell<OVERLAPPED>,
    /// What the system reads from.
    _bytes: Vec<u8>,
    /// Its own, so that it is signalled only when the operation is over.
    event: Arc<Event>,
    pipe: Arc<OwnedHandle>,
}

// SAFETY: a `Write` owns its operation, which is only asked about; any thread may do so.
unsafe impl Send for Write {}
// SAFETY: as above; asking changes nothing on our side.
unsafe impl Sync for Write {}

impl Write {
    /// `None` where the system took it all at once. It is cancelled when this thread ends.
    pub(super) fn begin(pipe: Arc<OwnedHandle>, bytes: Vec<u8>) -> io::Result<Option<Self>> {
        let event = Arc::new(Event::new()?);
        let (from, length) = (bytes.as_ptr(), bytes.len());
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let overlapped = UnsafeCell::new(event.overlapped());
        let operation = Box::new(Operation { overlapped, _bytes: bytes, event, pipe });
        let (overlapped, handle) = (operation.overlapped.get(), raw(&*operation.pipe));
        let this = Self(NonNull::from(Box::leak(operation)));
        // SAFETY: the handle is open, for the operation has a share in it. The system may read the
        // bytes and write to `overlapped` until the operation is over; both are on the heap, in the
        // operation, and nothing frees or changes that before it is over: see `drop`.
        match check(unsafe { WriteFile(handle, from, length, null_mut(), overlapped) }) {
            Ok(()) => {
                this.free();
                Ok(None)
            }
            Err(error) if code(&error) == Some(ERROR_IO_PENDING) => Ok(Some(this)),
            Err(error) => {
                this.free();
                Err(error)
            }
        }
    }

    /// `None` while it is under way.
    pub(super) fn outcome(&self) -> Option<io::Result<()>> {
        let operation = self.operation();
        if !matches!(operation.event.wait(Deadline::after(Some(Duration::ZERO))), Ok(true)) {
            return None;
        }
        let outcome = result(operation.pipe.as_handle(), &operation.overlapped);
        (!is_under_way(&outcome)).then(|| outcome.map(drop))
    }

    /// Signalled when it is over.
    pub(super) fn event(&self) -> Arc<Event> {
        Arc::clone(&self.operation().event)
    }

    fn operation(&self) -> &Operation {
        // SAFETY: only `free` and the callback of `linger` free it, and both get the `Write`
        // itself.
        unsafe { self.0.as_ref() }
    }

    /// Of an operation that is over, or has not begun.
    fn free(self) {
        let operation = self.0.as_ptr();
        std::mem::forget(self);
        // SAFETY: the pointer is from a leaked box and nobody else has it; the system is done with
        // what is in it.
        drop(unsafe { Box::from_raw(operation) });
    }

    /// Frees the operation when it is over, on one of the system's threads. It is leaked, and the
    /// peer reads no end, where the system has no memory for that: freeing what it reads from would
    /// be worse.
    fn linger(&self) {
        let operation = self.0.as_ptr().cast();
        // SAFETY: the callback is one, and its argument a pointer that stays valid until it runs:
        // only it frees the operation from here on. It runs when the event is signalled, which only
        // the system does, when the operation is over.
        let wait = unsafe { CreateThreadpoolWait(Some(freed_when_over), operation, null()) };
        if wait != 0 {
            // SAFETY: the wait was just made; the event is open, for the operation has a share in
            // it; null means for ever.
            unsafe { SetThreadpoolWait(wait, self.operation().event.0.as_raw_handle(), null()) };
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        match self.outcome() {
            Some(_) => Self(self.0).free(),
            None => self.linger(),
        }
    }
}

/// # Safety
///
/// `operation` is a leaked box of an [`Operation`] that is over, and nobody else has it.
unsafe extern "system" fn freed_when_over(
    _: PTP_CALLBACK_INSTANCE,
    operation: *mut c_void,
    wait: PTP_WAIT,
    _: u32,
) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(operation.cast::<Operation>()) });
    // SAFETY: it is the wait whose callback this is; it is freed when the callback has returned.
    unsafe { CloseThreadpoolWait(wait) };
}
