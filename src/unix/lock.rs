//! The lock on a name: who holds it may make and remove what stands under the name.
//!
//! It is flock(2) on a file of its own beside the socket, so the kernel frees it however the process
//! ends. Whose it is, and under which temporary name its socket begins, is written in it for others.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, openat};
use rustix::io::{Errno, pread, pwrite};
use rustix::process::{Pid, geteuid, test_kill_process};

use super::claim::ROUNDS;
use super::place::{Place, SOCKET, file_id, remove, what};
use crate::messages::in_use;

/// What the lock on a name is called, after a dot and the name.
pub(super) const NAME_LOCK: &str = ".lock";
const LOCK_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Between tries while somebody asks whether the lock is held, and how long that may go on: one
/// question takes microseconds, unless who asks is kept from running.
const ASKED: (Duration, Duration) = (Duration::from_micros(100), Duration::from_secs(1));

#[derive(Debug)]
pub(super) struct Lock {
    pub(super) place: Place,
    /// Of the lock file.
    name: OsString,
    /// Closing it frees the lock; no child inherits it past its exec.
    file: OwnedFd,
    /// A child by fork(2) shares the lock, and is not to give it back.
    process: u32,
    /// The file is left in place for those who come later, with what is written in it.
    pub(super) stays: bool,
}

impl Lock {
    pub(super) fn take(place: Place, suffix: &str) -> io::Result<Self> {
        let lock = Self::take_as_left(place, suffix)?;
        lock.remove_unfinished();
        lock.write(&process::id().to_string());
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
            if !regular || stat.st_uid != geteuid().as_raw() || stat.st_nlink > 1 {
                return Err(io::Error::new(
                    ErrorKind::PermissionDenied,
                    format!(
                        "cannot listen on {}: its lock file {} is not one of this user's; choose \
                         a directory of your own",
                        place.path().display(),
                        path.display()
                    ),
                ));
            }
            match lock_exclusively(&file) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(in_use(place.endpoint(), holder(&file))),
                Err(errno) => return Err(cannot_lock(&place, &path, errno)),
            }
            let still_there = place.stat(&name)?.is_some_and(|now| file_id(&now) == file_id(&stat));
            if still_there {
                return Ok(Self { place, name, file, process: process::id(), stays: false });
            }
        }
        Err(in_use(place.endpoint(), None))
    }

    /// Says who has the lock. Of use to others only: a full disk is no reason not to serve.
    pub(super) fn write(&self, holder: &str) {
        let text = format!("{holder}\n");
        let _ = pwrite(&self.file, text.as_bytes(), 0);
        // In this order it is never empty, for those who look meanwhile.
        let _ = ftruncate(&self.file, text.len() as u64);
    }

    /// Removes the socket that an earlier holder of this very lock bound and did not live to rename.
    /// It is nobody's: it was under a name that only that holder used, while it held the lock, and
    /// the lock is ours now.
    fn remove_unfinished(&self) {
        let Some(mark) = mark(&self.file) else { return };
        let name = temporary_name(&self.place, &mark);
        let Ok(Some(stat)) = self.place.stat(&name) else { return };
        if what(&stat) == SOCKET && stat.st_uid == geteuid().as_raw() {
            remove(&self.place, &name);
        }
    }

    pub(super) fn written(&self) -> Option<String> {
        written(&self.file)
    }

    pub(super) fn is_this_process_s(&self) -> bool {
        is_this_process_s(self.process)
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

/// What makes the temporary name of the last holder, where it got as far as to use one: a process
/// and a random number.
fn mark(file: &OwnedFd) -> Option<String> {
    let written = written(file)?;
    let (process, random) = written.trim_end().split_once(' ')?;
    process.parse::<u32>().ok()?;
    u32::from_str_radix(random, 16).ok()?;
    Some(written.trim_end().to_owned())
}

fn written(file: &OwnedFd) -> Option<String> {
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

/// Says whose it is, for those who find it in `ss` or a listing.
pub(super) fn temporary_name(place: &Place, mark: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(place.name());
    name.push(".");
    name.push(mark.replace(' ', "."));
    name
}

/// Whether what `process` made is this process's to end: its own, or its parent's who went and left it
/// to this one, as those do that become daemons after they have bound.
pub(super) fn is_this_process_s(made_by: u32) -> bool {
    let gone = |made_by| test_kill_process(made_by) == Err(Errno::SRCH);
    let other = i32::try_from(made_by).ok().and_then(Pid::from_raw);
    made_by == process::id() || other.is_some_and(gone)
}

/// The path that a socket of ours has, whose first one was `path`.
pub(super) fn renamed_from(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_prefix('.')?;
    let (name, random) = name.rsplit_once('.')?;
    let (name, process) = name.rsplit_once('.')?;
    process.parse::<u32>().ok()?;
    u32::from_str_radix(random, 16).ok().filter(|_| random.len() == 8)?;
    Some(path.with_file_name(name))
}

fn cannot_lock(place: &Place, lock: &Path, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    let (kind, remedy) = match errno {
        Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => {
            (ErrorKind::Unsupported, "choose a directory on a local file system")
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            (ErrorKind::PermissionDenied, "choose a directory that you can write to")
        }
        // Not a file: something that is not ours stands there.
        Errno::LOOP | Errno::ISDIR => {
            (ErrorKind::PermissionDenied, "choose a directory of your own")
        }
        _ => (error.kind(), "choose another directory"),
    };
    io::Error::new(
        kind,
        format!(
            "cannot listen on {}: its lock file {} cannot be had: {error}; {remedy}",
            place.path().display(),
            lock.display()
        ),
    )
}

/// Whether a server that follows our ways lives at `place`, however busy it seems.
pub(super) fn is_held(place: &Place) -> bool {
    holding(place).is_some()
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
