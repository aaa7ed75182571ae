//! The additional duties of a container's first process.

use std::time::Duration;

use rustix::process::{WaitOptions, getpid, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::system::ended_child;

/// The pause before another look at a child that has ended and that its own waiter has not reaped
/// yet.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Whether this is the first process, which the system does not end by signals that it does not
/// handle.
pub fn is_first_process() -> bool {
    getpid().is_init()
}

/// Reaps orphans that have ended, which the system gives to the first process. `is_ours` recognizes
/// children that are waited for elsewhere. Requires a runtime.
pub fn take_orphans(is_ours: impl Fn(u32) -> bool + Send + 'static) {
    if let Ok(children) = signal(SignalKind::child()) {
        tokio::spawn(take_each(children, is_ours));
    }
}

async fn take_each(mut children: Signal, is_ours: impl Fn(u32) -> bool) {
    while children.recv().await.is_some() {
        while let Some(pid) = ended_child() {
            if is_ours(pid.as_raw_nonzero().get().unsigned_abs()) {
                sleep(LOOK_PAUSE).await;
            } else if waitpid(Some(pid), WaitOptions::NOHANG).is_err() {
                break;
            }
        }
    }
}
