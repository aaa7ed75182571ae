//! Reads and writes of threads that wait for them.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;
use std::time::Duration;

use windows_sys::Wdk::Storage::FileSystem::{
    FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT, FileModeInformation,
    NtQueryInformationFile,
};
use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_OPERATION_ABORTED};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{IO_STATUS_BLOCK, OVERLAPPED};
use windows_sys::Win32::System::Threading::{
    CloseThreadpoolWait, CreateThreadpoolWait, PTP_CALLBACK_INSTANCE, PTP_WAIT, SetThreadpoolWait,
};

use super::super::pipe;
use super::super::system::{End, check, code, raw};
use super::{Event, is_under_way, result, wait};
use crate::wait::Deadline;

/// Checks that an end that was made elsewhere can be used here: it must be for overlapped I/O, and
/// have a peer.
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
    // SAFETY: the handle is open as long as the pipe is borrowed; `mode` is a place for a
    // FILE_MODE_INFORMATION, which is one number, with the given length; and `status` is a place
    // for the outcome.
    let outcome =
        unsafe { NtQueryInformationFile(pipe, &mut status, to, length, FileModeInformation) };
    if outcome < 0 {
        return Err(io::Error::other(format!("cannot query the handle's mode ({outcome:#x})")));
    }
    Ok(mode & (FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT) != 0)
}

/// Reads at most the bytes of one message. Returns `None` once the deadline is past. No other
/// operation may be under way with the same event.
pub(in crate::windows) fn read(
    pipe: &impl AsHandle,
    buf: &mut [u8],
    event: &Event,
    deadline: Deadline,
) -> io::Result<Option<usize>> {
    let pipe = pipe.as_handle();
    let overlapped = UnsafeCell::new(event.overlapped());
    let length = u32::try_from(buf.len()).unwrap_or(u32::MAX);
    // SAFETY: the handle is open as long as the pipe is borrowed. The system may write to the
    // buffer and to `overlapped` until the operation is over. Both outlive it: where the call left
    // it under way, this function does not return before `wait`, which returns when it is over.
    // Nothing else touches them until then.
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

/// Makes one write. The system takes all of it, or nothing because the peer is gone. No other
/// operation may be under way with the same event. Calls `begun` as soon as the write has its place
/// in the pipe, or has failed, and only then waits for it.
pub(in crate::windows) fn write(
    pipe: &impl AsHandle,
    bytes: &[u8],
    event: &Event,
    begun: impl FnOnce(),
) -> io::Result<()> {
    let pipe = pipe.as_handle();
    let overlapped = UnsafeCell::new(event.overlapped());
    let length = match u32::try_from(bytes.len()) {
        Ok(length) => length,
        Err(error) => {
            begun();
            return Err(io::Error::other(error));
        }
    };
    // SAFETY: the handle is open as long as the pipe is borrowed. The system may read the bytes and
    // write to `overlapped` until the operation is over. Both outlive it: where the call left it
    // under way, dropping `UnderWay` waits for its end, even if `begun` panics.
    let written = check(unsafe {
        WriteFile(raw(&pipe), bytes.as_ptr(), length, null_mut(), overlapped.get())
    });
    match written {
        Err(error) if code(&error) == Some(ERROR_IO_PENDING) => {
            let under_way = UnderWay { pipe, overlapped: &overlapped, event };
            begun();
            drop(under_way);
            result(pipe, &overlapped).map(drop)
        }
        written => {
            begun();
            written
        }
    }
}

/// An operation that must be over before the memory that it uses is freed. Dropping this waits for
/// it.
struct UnderWay<'a> {
    pipe: BorrowedHandle<'a>,
    overlapped: &'a UnsafeCell<OVERLAPPED>,
    event: &'a Event,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        wait(self.pipe, self.overlapped, self.event, Deadline::after(None));
    }
}

/// A write that the system has not fully taken yet. If this is dropped, the write goes on by
/// itself, and the pipe stays open until it is over.
pub(in crate::windows) struct Write(NonNull<Operation>);

struct Operation {
    overlapped: UnsafeCell<OVERLAPPED>,
    /// The system reads from these bytes.
    _bytes: Vec<u8>,
    /// No other operation uses this event, so that it is signalled only when the operation is over.
    event: Arc<Event>,
    pipe: Arc<OwnedHandle>,
}

// SAFETY: a `Write` owns its operation and only queries it, which any thread may do.
unsafe impl Send for Write {}
// SAFETY: as above; a query changes nothing on our side.
unsafe impl Sync for Write {}

impl Write {
    /// Begins a write. Returns `None` if the system took it all at once. The system cancels the
    /// write when the calling thread ends.
    pub(in crate::windows) fn begin(
        pipe: Arc<OwnedHandle>,
        bytes: Vec<u8>,
    ) -> io::Result<Option<Self>> {
        let event = Arc::new(Event::new()?);
        let (from, length) = (bytes.as_ptr(), bytes.len());
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let overlapped = UnsafeCell::new(event.overlapped());
        let operation = Box::new(Operation { overlapped, _bytes: bytes, event, pipe });
        let (overlapped, handle) = (operation.overlapped.get(), raw(&*operation.pipe));
        let this = Self(NonNull::from(Box::leak(operation)));
        // SAFETY: the handle is open, because the operation has a share in it. The system may read
        // the bytes and write to `overlapped` until the operation is over. Both are on the heap, in
        // the operation, and nothing frees or changes it before it is over: see `drop`.
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

    /// Returns the outcome, or `None` while the write is under way.
    pub(in crate::windows) fn outcome(&self) -> Option<io::Result<()>> {
        let operation = self.operation();
        if !matches!(operation.event.wait(Deadline::after(Some(Duration::ZERO))), Ok(true)) {
            return None;
        }
        let outcome = result(operation.pipe.as_handle(), &operation.overlapped);
        (!is_under_way(&outcome)).then(|| outcome.map(drop))
    }

    /// Returns the event that is signalled when the write is over.
    pub(in crate::windows) fn event(&self) -> Arc<Event> {
        Arc::clone(&self.operation().event)
    }

    fn operation(&self) -> &Operation {
        // SAFETY: the operation is freed only by `free` and by the callback of `linger`, and both
        // take the `Write` itself.
        unsafe { self.0.as_ref() }
    }

    /// Frees an operation that is over, or has not begun.
    fn free(self) {
        let operation = self.0.as_ptr();
        std::mem::forget(self);
        // SAFETY: the pointer is from a leaked box, and nothing else owns it; the system does not
        // use its content any more.
        drop(unsafe { Box::from_raw(operation) });
    }

    /// Frees the operation when it is over, on one of the system's threads. If the system has no
    /// memory for that, the operation is leaked, and the peer reads no end. Freeing memory that the
    /// system reads from would be worse.
    fn linger(&self) {
        let operation = self.0.as_ptr().cast();
        // SAFETY: the callback has the required type. Its argument is a pointer that stays valid
        // until it runs, because only it frees the operation from here on. It runs when the event
        // is signalled, which only the system does, when the operation is over.
        let wait = unsafe { CreateThreadpoolWait(Some(freed_when_over), operation, null()) };
        if wait != 0 {
            // SAFETY: the wait was just made; the event is open, because the operation has a share
            // in it; null means no time limit.
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
/// `operation` is a leaked box of an [`Operation`] that is over, and nothing else owns it.
unsafe extern "system" fn freed_when_over(
    _: PTP_CALLBACK_INSTANCE,
    operation: *mut c_void,
    wait: PTP_WAIT,
    _: u32,
) {
    // SAFETY: the caller guarantees this.
    drop(unsafe { Box::from_raw(operation.cast::<Operation>()) });
    // SAFETY: this is the callback of that wait, which is freed when the callback has returned.
    unsafe { CloseThreadpoolWait(wait) };
}
