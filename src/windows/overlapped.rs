//! Overlapped I/O without an event loop: each operation has an event, and whoever wants it done
//! waits for that.
//!
//! The low bit of an event's handle in `OVERLAPPED` keeps an operation from being reported to a
//! completion port as well, see `GetQueuedCompletionStatus`. The pipe may have one: what is bound to
//! a port is not cancelled when the thread that began it ends, as other I/O is.
#![allow(unsafe_code, reason = "system calls, and memory that the system writes to meanwhile")]

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Arc, OnceLock};

use windows_sys::Wdk::Storage::FileSystem::{
    FILE_COMPLETION_INFORMATION, FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT,
    FileModeInformation, FileReplaceCompletionInformation, NtQueryInformationFile,
    NtSetInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_IO_INCOMPLETE, ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_NO_DATA, ERROR_OPERATION_ABORTED,
    ERROR_PIPE_CONNECTED, INVALID_HANDLE_VALUE, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetOverlappedResult, GetQueuedCompletionStatus,
    IO_STATUS_BLOCK, OVERLAPPED, PostQueuedCompletionStatus,
};
use windows_sys::Win32::System::Pipes::ConnectNamedPipe;
use windows_sys::Win32::System::Threading::{
    CloseThreadpoolWait, CreateEventW, CreateThreadpoolWait, INFINITE, PTP_CALLBACK_INSTANCE,
    PTP_WAIT, SetThreadpoolWait, WaitForSingleObject,
};

use super::pipe::{End, code, raw};
use super::security::check;
use crate::deadline::Deadline;

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

    /// Of an operation that is not to be reported to a completion port.
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
    // and to `overlapped` until the operation is over; both outlive it, for this function does not
    // return before `finish` has said that it is, and nothing else touches them until then.
    let begun = check(unsafe {
        ReadFile(raw(&pipe), buf.as_mut_ptr(), length, null_mut(), overlapped.get())
    });
    match begun {
        Ok(()) => {}
        Err(error) if code(&error) == Some(ERROR_MORE_DATA) => {}
        Err(error) if code(&error) == Some(ERROR_IO_PENDING) => {
            // Whether it was waited for, failed to be, or ended just now: what it was is told by
            // `finish`, which does not return while it is under way.
            let waited = event.wait(deadline);
            if !matches!(waited, Ok(true)) {
                cancel(pipe, &overlapped);
            }
        }
        Err(error) => return Err(error),
    }
    match finish(pipe, &overlapped) {
        Ok(length) => Ok(Some(length)),
        Err(error) if code(&error) == Some(ERROR_OPERATION_ABORTED) && deadline.is_past() => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn cancel(pipe: BorrowedHandle<'_>, overlapped: &UnsafeCell<OVERLAPPED>) {
    // It fails where the operation is over.
    // SAFETY: the handle is open as long as the pipe is borrowed, and the structure lives; only its
    // address counts.
    unsafe { CancelIoEx(raw(&pipe), overlapped.get()) };
}

/// Waits until the operation is over, and gives how many bytes it has moved.
fn finish(pipe: BorrowedHandle<'_>, overlapped: &UnsafeCell<OVERLAPPED>) -> io::Result<usize> {
    loop {
        match result(pipe, overlapped, true) {
            Err(error) if code(&error) == Some(ERROR_IO_INCOMPLETE) => {}
            outcome => return outcome,
        }
    }
}

/// `ERROR_IO_INCOMPLETE` while it is under way, unless it is to wait.
fn result(
    pipe: BorrowedHandle<'_>,
    overlapped: &UnsafeCell<OVERLAPPED>,
    wait: bool,
) -> io::Result<usize> {
    let mut length = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; the structure is that of an
    // operation on it that was begun, and its event is open; `length` is a place for a number.
    let done = check(unsafe {
        GetOverlappedResult(raw(&pipe), overlapped.get(), &mut length, i32::from(wait))
    });
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
    event: Arc<Event>,
    pipe: Arc<OwnedHandle>,
}

// SAFETY: a `Write` owns its operation, which is only asked about; any thread may do so.
unsafe impl Send for Write {}
// SAFETY: as above; asking changes nothing on our side.
unsafe impl Sync for Write {}

impl Write {
    /// `None` where the system took it all at once. No other operation may be under way with the
    /// same event.
    pub(super) fn begin(
        pipe: &Arc<OwnedHandle>,
        bytes: Vec<u8>,
        event: &Arc<Event>,
    ) -> io::Result<Option<Self>> {
        let (from, length) = (bytes.as_ptr(), bytes.len());
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let operation = Box::new(Operation {
            overlapped: UnsafeCell::new(event.overlapped()),
            _bytes: bytes,
            event: Arc::clone(event),
            pipe: Arc::clone(pipe),
        });
        let overlapped = operation.overlapped.get();
        let this = Self(NonNull::from(Box::leak(operation)));
        // SAFETY: the handle is open, for the operation has a share in it. The system may read the
        // bytes and write to `overlapped` until the operation is over; both are on the heap, in the
        // operation, and nothing frees or changes that before it is over: see `drop`.
        match check(unsafe { WriteFile(raw(&**pipe), from, length, null_mut(), overlapped) }) {
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
        match result(operation.pipe.as_handle(), &operation.overlapped, false) {
            Err(error) if code(&error) == Some(ERROR_IO_INCOMPLETE) => None,
            outcome => Some(outcome.map(drop)),
        }
    }

    /// Signalled when it is over.
    pub(super) fn event(&self) -> Arc<Event> {
        Arc::clone(&self.operation().event)
    }

    fn operation(&self) -> &Operation {
        // SAFETY: it is freed only by `free` and by the callback of `linger`, both of which get the
        // `Write` itself.
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
        // only it frees the operation from here on.
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

/// A completion port.
#[derive(Debug)]
pub(super) struct Port(OwnedHandle);

impl Port {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: this combination of arguments makes a port.
        let port = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, null_mut(), 0, 0) };
        if port.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so it is an open handle, and nobody else has it.
        Ok(Self(unsafe { OwnedHandle::from_raw_handle(port) }))
    }

    /// # Errors
    ///
    /// `ERROR_INVALID_PARAMETER` where the pipe is bound to a port, or not for overlapped I/O.
    pub(super) fn bind(&self, pipe: &impl AsHandle) -> io::Result<()> {
        // SAFETY: both handles are open as long as they are borrowed.
        let port = unsafe { CreateIoCompletionPort(raw(pipe), self.0.as_raw_handle(), 0, 0) };
        if port.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reports an operation that the system does not.
    pub(super) fn post(&self, overlapped: *mut OVERLAPPED) -> io::Result<()> {
        // SAFETY: the handle is open; the pointer is only passed on.
        check(unsafe { PostQueuedCompletionStatus(self.0.as_raw_handle(), 0, 0, overlapped) })
    }

    /// The next operation that is over, and what came of it; `None` once the deadline is past.
    #[allow(clippy::type_complexity, reason = "both are the system's")]
    pub(super) fn next(
        &self,
        deadline: Deadline,
    ) -> io::Result<Option<(*mut OVERLAPPED, io::Result<()>)>> {
        loop {
            let (mut length, mut key, mut overlapped) = (0, 0, null_mut());
            let (port, limit) = (self.0.as_raw_handle(), milliseconds(deadline));
            // SAFETY: the handle is open, and the others are places for what is asked.
            let outcome = check(unsafe {
                GetQueuedCompletionStatus(port, &mut length, &mut key, &mut overlapped, limit)
            });
            match outcome {
                outcome if !overlapped.is_null() => return Ok(Some((overlapped, outcome))),
                Err(error) if code(&error) == Some(WAIT_TIMEOUT) => {
                    if deadline.is_past() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
    }
}

/// What pipes are bound to that no listener made. Nothing is reported to it.
pub(super) fn quiet_port() -> io::Result<&'static Port> {
    static PORT: OnceLock<Port> = OnceLock::new();
    if let Some(port) = PORT.get() {
        return Ok(port);
    }
    let port = Port::new()?;
    Ok(PORT.get_or_init(|| port))
}

/// Takes a pipe from the completion port that it is bound to. See `FILE_COMPLETION_INFORMATION`:
/// since Windows 8.1, and while no operation is under way.
pub(super) fn unbind(pipe: &impl AsHandle) -> io::Result<()> {
    let none = FILE_COMPLETION_INFORMATION { Port: null_mut(), Key: null_mut() };
    let mut status = IO_STATUS_BLOCK::default();
    let (pipe, from) = (raw(pipe), (&raw const none).cast());
    let length = size_of::<FILE_COMPLETION_INFORMATION>() as u32;
    // SAFETY: the handle is open as long as the pipe is borrowed; the structure is of the kind that
    // the call is told, as long as it is told, and `status` is a place for its outcome.
    let outcome = unsafe {
        NtSetInformationFile(pipe, &mut status, from, length, FileReplaceCompletionInformation)
    };
    if outcome >= 0 {
        return Ok(());
    }
    let what = format!("this system does not take a pipe from a completion port ({outcome:#x})");
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

/// Whether an end that was made elsewhere can be used so: it is for overlapped I/O, and has a peer.
pub(super) fn check_adopted(pipe: &OwnedHandle, end: End) -> io::Result<()> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if is_synchronous(pipe)? {
        return invalid("the handle is not for overlapped I/O");
    }
    if end == End::Server && !has_client(pipe)? {
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
        return Err(io::Error::other(format!("the handle's mode is not told ({outcome:#x})")));
    }
    Ok(mode & (FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT) != 0)
}

/// Completes a connection whose client is there already.
fn has_client(pipe: &impl AsHandle) -> io::Result<bool> {
    let (pipe, event) = (pipe.as_handle(), Event::new()?);
    let overlapped = UnsafeCell::new(event.overlapped());
    // SAFETY: the handle is open as long as the pipe is borrowed. The system may write to
    // `overlapped` until the operation is over, which `finish` has said before this returns.
    let begun = check(unsafe { ConnectNamedPipe(raw(&pipe), overlapped.get()) });
    let Err(error) = begun else { return Ok(true) };
    match code(&error) {
        Some(ERROR_PIPE_CONNECTED | ERROR_NO_DATA) => Ok(true),
        Some(ERROR_IO_PENDING) => {
            cancel(pipe, &overlapped);
            Ok(finish(pipe, &overlapped).is_ok())
        }
        _ => Err(error),
    }
}
