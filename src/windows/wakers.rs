//! The users' wakers, which the reactor's thread calls: a panic in one of them must not end it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Stands between the reactor and the waker of whoever polled last.
pub(super) struct Guard {
    user: Arc<User>,
    /// Wakes `user`. Always the same one, so that the reactor need not take a new one each time.
    waker: Waker,
}

struct User(Mutex<Option<Waker>>);

impl Guard {
    pub(super) fn new() -> Self {
        let user = Arc::new(User(Mutex::new(None)));
        Self { waker: Waker::from(Arc::clone(&user)), user }
    }

    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.user.set(cx.waker());
        poll(&mut Context::from_waker(&self.waker))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The reactor may keep its clone for longer, and must not be who drops the user's.
        drop(self.user.take());
    }
}

impl User {
    fn set(&self, waker: &Waker) {
        if self.lock().as_ref().is_some_and(|current| current.will_wake(waker)) {
            return;
        }
        // To clone one and to drop one is the user's code too, which the reactor is not to wait for.
        let waker = waker.clone();
        let before = self.lock().replace(waker);
        drop(before);
    }

    fn take(&self) -> Option<Waker> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Wake for User {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(user) = self.take() {
            // The panic is reported by its hook, and there is nobody here to tell.
            let _ = catch_unwind(AssertUnwindSafe(|| user.wake()));
        }
    }
}

/// `future`, whose user's waker cannot end the reactor.
pub(super) async fn guarded<F: Future>(future: F) -> F::Output {
    let guard = Guard::new();
    let mut future = pin!(future);
    poll_fn(|cx| guard.poll(cx, |cx| future.as_mut().poll(cx))).await
}
