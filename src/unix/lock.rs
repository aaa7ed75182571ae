//! The lock on a name: who holds it may make and remove what stands under the name.
//!
//! It is flock(2) on a file of its own beside the socket, so the kernel frees it however the process
//! ends. Whose it is, is written in it for others.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, openat, unlinkat,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::process::{Pid, geteuid, test_kill_process};

use super::claim::ROUNDS;
use super::place::{Place, file_id, remove};
use super::platform;
use crate::error::{Error, Reason, live_server};

/// What the lock on a name is called, after a dot and the name.
pub(super) const NAME_LOCK: &str = ".lock";
const LOCK_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// What follows the process in the lock file of a server that lets nobody in any more.
const STOPPING: &str = "stopping";
/// Between tries while somebody asks whether the lock is held, and how long that may go on: one
/// question takes microseconds, unless who asks is kept from running.
const ASKED: (Duration, Duration) = (Duration::from_micros(100), Duration::from_secs(1));

#[derive(Debug)]
pub(super) struct Lock {
    pub(super) place: Place,
    /// Of the lock file.
    name: OsString,
    /// Closing it frees the lock; no child inherits it past its exec.
    pub(super) file: OwnedFd,
    /// A child by fork(2) shares the lock, and is not to give it back.
    process: u32,
    /// The file is left in place for those who come later, with what is written in it.
    pub(super) stays: bool,
}

impl Lock {
    pub(super) fn take(place: Place, suffix: &str) -> io::Result<Self> {
        let lock = Self::take_as_left(place, suffix)?;
        lock.write(&process::id().to_string());
        platform::keep(&lock.file);
        Ok(lock)
    }

    /// With what the last holder wrote in the file.
    pub(super) fn take_as_left(place: Place, suffix: &str) -> io::Result<Self> {
        let name = lock_name(&place, suffix);
        let path = place.dir_path().join(&name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        for _ in 0..ROUNDS {
            // Not blocking, for a FIFO in its place.
            let file = openat(place.dir(), &name, flags | OFlags::NONBLOCK, LOCK_MODE)
                .map_err(|errno| cannot_lock(&place, &path, errno))?;
            let stat = fstat(&file)?;
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            // It is never written: what is in it may be somebody's.
            let linked = stat.st_nlink > 1;
            if !regular
                || stat.st_uid != geteuid().as_raw()
                || linked && place.why_unsafe()?.is_some()
            {
                let what = format!("its lock file {} is not one of this user's", path.display());
                let error = Error::new(Reason::ForeignOwner, what).at(place.endpoint());
                return Err(error.advising("choose a directory of your own").into());
            }
            match lock_exclusively(&file) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let holder = if linked { None } else { holder(&file) };
                    return Err(live_server(place.endpoint(), holder));
                }
                Err(errno) => return Err(cannot_lock(&place, &path, errno)),
            }
            let still_there = place.stat(&name)?.is_some_and(|now| file_id(&now) == file_id(&stat));
            if still_there && linked {
                // A copy by links, of a backup say. The other name keeps it; who waits for this one,
                // as the holder of a lock would have it, sees that it is gone and starts over.
                unlinkat(place.dir(), &name, AtFlags::empty())
                    .map_err(|errno| cannot_lock(&place, &path, errno))?;
            } else if still_there {
                return Ok(Self { place, name, file, process: process::id(), stays: false });
            }
        }
        Err(live_server(place.endpoint(), None))
    }

    /// Says who has the lock. Of use to others only: a full disk is no reason not to serve.
    pub(super) fn write(&self, holder: &str) {
        let text = format!("{holder}\n");
        let _ = pwrite(&self.file, text.as_bytes(), 0);
        // In this order it is never empty, for those who look meanwhile.
        let _ = ftruncate(&self.file, text.len() as u64);
    }

    /// Says that who has the lock lets nobody in any more.
    #[cfg(feature = "tokio")]
    pub(super) fn write_stopping(&self) {
        self.write(&format!("{} {STOPPING}", process::id()));
    }

    pub(super) fn is_this_process_s(&self) -> bool {
        is_this_process_s(self.process)
    }

    /// Whether this process still acts as the user who took the lock.
    #[cfg(feature = "tokio")]
    pub(super) fn is_this_user_s(&self) -> bool {
        matches!(fstat(&self.file), Ok(stat) if stat.st_uid == geteuid().as_raw())
    }

    /// Whether the file that is locked is the one that stands there.
    pub(super) fn is_ours(&self) -> io::Result<bool> {
        let ours = file_id(&fstat(&self.file)?);
        let standing = self.place.stat(&self.name)?;
        Ok(standing.is_some_and(|standing| file_id(&standing) == ours))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.stays || !self.is_this_process_s() {
            return;
        }
        // While it is still held: who opened it before finds that it is gone, and starts over. Not
        // a successor's, made after somebody removed ours.
        if matches!(self.is_ours(), Ok(true)) {
            remove(&self.place, &self.name);
        }
    }
}

fn lock_exclusively(file: &OwnedFd) -> Result<(), Errno> {
    let started = Instant::now();
    while started.elapsed() < ASKED.1 {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            done => return done,
        }
        // Who asks whether the lock is held, see `holding`, shares it for a moment. Who holds it
        // shares it with nobody.
        flock(file, FlockOperation::NonBlockingLockShared)?;
        flock(file, FlockOperation::Unlock)?;
        thread::sleep(ASKED.0);
    }
    Err(Errno::WOULDBLOCK)
}

/// The process that wrote itself into the lock file.
pub(super) fn holder(file: &OwnedFd) -> Option<u32> {
    written(file)?.split_whitespace().next()?.parse().ok()
}

/// Whether the server that has the lock lets nobody in any more.
pub(super) fn is_stopping(file: &OwnedFd) -> bool {
    written(file).is_some_and(|text| text.split_whitespace().nth(1) == Some(STOPPING))
}

pub(super) fn written(file: &OwnedFd) -> Option<String> {
    let mut text = [0; 32];
    let length = pread(file, &mut text, 0).ok()?;
    String::from_utf8(text[..length].to_vec()).ok()
}

pub(super) fn lock_name(place: &Place, suffix: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(place.name());
    name.push(suffix);
    name
}

/// Whether what `process` made is this process's to end: its own, or its parent's who went and left it
/// to this one, as those do that become daemons after they have bound.
pub(super) fn is_this_process_s(made_by: u32) -> bool {
    let gone = |made_by| test_kill_process(made_by) == Err(Errno::SRCH);
    let other = i32::try_from(made_by).ok().and_then(Pid::from_raw);
    made_by == process::id() || other.is_some_and(gone)
}

fn cannot_lock(place: &Place, lock: &Path, errno: Errno) -> io::Error {
    const NO_LOCKS: (Reason, &str) = (Reason::NoLocks, "choose a directory on a local file system");
    const FOREIGN: (Reason, &str) = (Reason::ForeignOwner, "choose a directory of your own");
    let error = io::Error::from(errno);
    let (reason, remedy) = match errno {
        Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => NO_LOCKS,
        // Another number than the one above on macOS.
        errno if errno == Errno::NOTSUP => NO_LOCKS,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            (Reason::NotWritable, "choose a directory that you can write to")
        }
        // Not a file: something that is not ours stands there.
        Errno::ISDIR => FOREIGN,
        errno if errno == platform::NOT_FOLLOWED => FOREIGN,
        _ => (Reason::Os, "choose another directory"),
    };
    let what = format!("its lock file {} cannot be had: {error}", lock.display());
    let error = Error::new(reason, what).at(place.endpoint()).caused_by(error);
    error.advising(remedy).into()
}

/// The lock file of the server that lives at `place`, where that can be told.
pub(super) fn holding(place: &Place) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let lock = openat(place.dir(), lock_name(place, NAME_LOCK), flags, Mode::empty()).ok()?;
    let held = flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    held.then_some(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_made_is_its_own_or_its_successor_s() {
        assert!(is_this_process_s(process::id()));
        // It is there, and nobody's child here.
        assert!(!is_this_process_s(1));
        let mut child = process::Command::new("true").spawn().expect("a process");
        let id = child.id();
        child.wait().expect("an end");
        assert!(is_this_process_s(id));
    }
}
