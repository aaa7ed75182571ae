//! Waking who waits for an event, by one of the system's threads.

use std::ffi::c_void;
use std::io;
use std::os::windows::io::AsRawHandle;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use windows_sys::Win32::System::Threading::{
    CloseThreadpoolWait, CreateThreadpoolWait, PTP_CALLBACK_INSTANCE, PTP_WAIT, SetThreadpoolWait,
    WaitForThreadpoolWaitCallbacks,
};

use super::Event;

/// Wakes once its event is signalled. The event has to outlive it.
pub(super) struct Watch {
    wait: PTP_WAIT,
    /// What the callback sees; on the heap, so that it stays where it is.
    seen: Box<Seen>,
}

struct Seen {
    over: AtomicBool,
    waker: Waker,
}

impl Watch {
    /// The waker is one of the crate's own: it does not drop the watch, which waits for it.
    pub(super) fn new(event: &Event, waker: &Waker) -> io::Result<Self> {
        let seen = Box::new(Seen { over: AtomicBool::new(false), waker: waker.clone() });
        let context = (&raw const *seen).cast_mut().cast();
        // SAFETY: the callback is one, its argument points to a `Seen` that lives until `drop` has
        // waited for the callback, and null means the process's threads.
        let wait = unsafe { CreateThreadpoolWait(Some(signalled), context, null()) };
        if wait == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the wait was just made, the event is open, and null means for ever.
        unsafe { SetThreadpoolWait(wait, event.0.as_raw_handle(), null()) };
        Ok(Self { wait, seen })
    }

    pub(super) fn is_over(&self) -> bool {
        self.seen.over.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: the wait is open until the end of this function; a null handle ends its wait.
        unsafe { SetThreadpoolWait(self.wait, null_mut(), null()) };
        // SAFETY: as above. It returns when the callback has, or will not begin.
        unsafe { WaitForThreadpoolWaitCallbacks(self.wait, 1) };
        // SAFETY: as above, and nobody uses the wait any more.
        unsafe { CloseThreadpoolWait(self.wait) };
    }
}

/// # Safety
///
/// `seen` points to a [`Seen`] that lives until this returns.
unsafe extern "system" fn signalled(
    _: PTP_CALLBACK_INSTANCE,
    seen: *mut c_void,
    _: PTP_WAIT,
    _: u32,
) {
    // SAFETY: the caller's promise.
    let seen = unsafe { &*seen.cast::<Seen>() };
    seen.over.store(true, Ordering::Release);
    seen.waker.wake_by_ref();
}
