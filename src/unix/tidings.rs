//! What says that a name may be gone before it is time to look after it: its file, by inotify(7),
//! and mounts that come and go. A hint and no more: where the system has none of it to give, the
//! looks find out all the same.

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

use super::runtime::{Tidings, register_for};

/// One for all listeners of the process: a user can have 128 of them. Gone with the last listener.
static INOTIFY: Mutex<Weak<OwnedFd>> = Mutex::new(Weak::new());

/// Those of the socket at `path`; of mounts too, where a directory that is mounted over is looked
/// for again.
pub(super) fn of(path: &Path, follows_mounts: bool) -> Vec<Tidings> {
    let mut all: Vec<Tidings> = Vec::new();
    if let Ok((shared, watch)) = watch(path) {
        all.push(Box::pin(async move {
            once(&watch, Interest::READABLE).await;
            // Whatever it is of. Of other listeners too, which were woken with this one.
            while read(&*shared, &mut [0_u8; 4096]).is_ok_and(|length| length > 0) {}
        }));
    }
    let mounts = if follows_mounts { mounts().ok() } else { None };
    if let Some(mounts) = mounts {
        all.push(Box::pin(async move { once(&mounts, Interest::PRIORITY).await }));
    }
    all
}

/// A reactor that ends has none.
async fn once(source: &AsyncFd<OwnedFd>, interest: Interest) {
    if source.ready(interest).await.is_err() {
        pending::<()>().await;
    }
}

/// The last name of a socket that is open leaves its file there, with one link less.
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

/// See proc_pid_mountinfo(5): it is ready once when what is mounted changes.
fn mounts() -> io::Result<AsyncFd<OwnedFd>> {
    let file = open("/proc/self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    register_for(file, Interest::PRIORITY)
}
