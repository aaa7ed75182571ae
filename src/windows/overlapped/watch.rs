//! Wakes a task or a thread when an event is signalled, from one of the system's threads.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::os::windows::io::AsRawHandle;
use std::ptr::{null, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use windows_sys::Win32::System::Threading::{
    CloseThreadpoolWait, CreateThreadpoolWait, PTP_CALLBACK_INSTANCE, PTP_WAIT, SetThreadpoolWait,
    WaitForThreadpoolWaitCallbacks,
};

use super::Event;

/// A watch that wakes its waker once an event is signalled. The event has to outlive the watch.
pub(super) struct Watch {
    wait: PTP_WAIT,
    key: usize,
}

/// The wakers for the callback, by the key that it receives. A pointer instead of a key would not
/// be safe: Wine may call back once more after it has reported that it will not.
static WATCHED: Mutex<BTreeMap<usize, Waker>> = Mutex::new(BTreeMap::new());

fn watched() -> MutexGuard<'static, BTreeMap<usize, Waker>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// The waker must be one of the crate's own, which do not drop the watch: the drop waits for
    /// the callback that wakes it.
    pub(super) fn new(event: &Event, waker: &Waker) -> io::Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the callback has the required type, its argument is a number and no pointer, and
        // null means the process's default threads.
        let wait =
            unsafe { CreateThreadpoolWait(Some(signalled), without_provenance_mut(key), null()) };
        if wait == 0 {
            return Err(io::Error::last_os_error());
        }
        watched().insert(key, waker.clone());
        // SAFETY: the wait was just made, the event is open, and null means no time limit.
        unsafe { SetThreadpoolWait(wait, event.0.as_raw_handle(), null()) };
        Ok(Self { wait, key })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let waker = watched().remove(&self.key);
        drop(waker);
        // SAFETY: the wait is open until the end of this function; a null handle ends its wait.
        unsafe { SetThreadpoolWait(self.wait, null_mut(), null()) };
        // SAFETY: as above. It returns once the callback has returned, or will not begin.
        unsafe { WaitForThreadpoolWaitCallbacks(self.wait, 1) };
        // SAFETY: as above, and nothing uses the wait any more.
        unsafe { CloseThreadpoolWait(self.wait) };
    }
}

extern "system" fn signalled(_: PTP_CALLBACK_INSTANCE, key: *mut c_void, _: PTP_WAIT, _: u32) {
    // The lock is not held while the waker runs.
    let waker = watched().remove(&key.addr());
    if let Some(waker) = waker {
        waker.wake();
    }
}
