//! Events after which a name may be gone: inotify(7) watches its file, and `/proc` reports changes
//! of the mounts. They only let a listener notice a removed name sooner. Without them, its regular
//! checks notice it.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::runtime::{NameEvent, register_for};

/// One instance for all listeners of the process, because a user can have only 128. The last
/// listener closes it.
static INOTIFY: Mutex<Weak<OwnedFd>> = Mutex::new(Weak::new());

/// Returns the events for the socket at `path`. They include changes of the mounts if the
/// listener opens its directory again after another one was mounted over it.
pub(super) fn of(path: &Path, follows_mounts: bool) -> Vec<NameEvent> {
    let mut all: Vec<NameEvent> = Vec::new();
    if let Ok((shared, watch)) = watch(path) {
        all.push(Box::pin(async move {
            once(&watch, Interest::READABLE).await;
            // Discards all events, including those of other listeners, which were woken together
            // with this one.
            while read(&*shared, &mut [0_u8; 4096]).is_ok_and(|length| length > 0) {}
        }));
    }
    let mounts = if follows_mounts { mounts().ok() } else { None };
    if let Some(mounts) = mounts {
        all.push(Box::pin(async move { once(&mounts, Interest::PRIORITY).await }));
    }
    all
}

/// Completes at the first event, or never if the reactor has ended.
async fn once(source: &AsyncFd<OwnedFd>, interest: Interest) {
    if source.ready(interest).await.is_err() {
        pending::<()>().await;
    }
}

/// Watches the attributes of the file: removing the last name of an open socket does not delete the
/// file, and only lowers its number of links.
fn watch(path: &Path) -> io::Result<(Arc<OwnedFd>, AsyncFd<OwnedFd>)> {
    let mut shared = INOTIFY.lock().unwrap_or_else(PoisonError::into_inner);
    let inotify = match shared.upgrade() {
        Some(inotify) => inotify,
        None => Arc::new(init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?),
    };
    let what = WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DONT_FOLLOW;
    add_watch(&*inotify, path, what)?;
    *shared = Arc::downgrade(&inotify);
    let watch = register_for(inotify.try_clone()?, Interest::READABLE)?;
    Ok((inotify, watch))
}

/// Opens the file that becomes ready once when the mounts change, see proc_pid_mountinfo(5).
fn mounts() -> io::Result<AsyncFd<OwnedFd>> {
    let file = open("/proc/self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    register_for(file, Interest::PRIORITY)
}
