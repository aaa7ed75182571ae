//! The lock beside a name, which its holder alone may change.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;
use std::thread;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, openat};
use rustix::io::{Errno, pread, pwrite};
use rustix::process::geteuid;

use super::place::{Place, SOCKET, file_id, random, remove, what};
use super::platform;
use crate::messages::in_use;

/// What the lock on a name is called, after a dot and the name, and that on starting its server.
pub(super) const NAME_LOCK: &str = ".lock";
pub(super) const SPAWN_LOCK: &str = ".spawn";
const LOCK_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Each round means that another process got on: one that goes on for ever does not exist.
const ROUNDS: usize = 100;

#[derive(Debug)]
pub(super) struct Lock {
    place: Place,
    /// Of the lock file.
    name: OsString,
    /// Closing it frees the lock; no child inherits it.
    file: OwnedFd,
}

impl Lock {
    pub(super) fn take(place: Place, suffix: &str) -> io::Result<Self> {
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
                Err(Errno::WOULDBLOCK) => {
                    return Err(in_use(place.endpoint(), words(&file).0));
                }
                Err(errno) => return Err(cannot_lock(&place, &path, errno)),
            }
            let still_there = place.stat(&name)?.is_some_and(|now| file_id(&now) == file_id(&stat));
            if still_there {
                let lock = Self { place, name, file };
                if let Some(mark) = Mark::read(&lock.file) {
                    lock.remove_unfinished(mark);
                }
                lock.write(&process::id().to_string());
                return Ok(lock);
            }
        }
        Err(in_use(place.endpoint(), None))
    }
}

impl Lock {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Tells those who come after a crash the temporary name that is going to be used.
    pub(super) fn note(&self, mark: Mark) {
        self.write(&format!("{} {:08x}", mark.process, mark.random));
    }

    /// Says who has the lock. Of use to others only: a full disk is no reason not to serve.
    fn write(&self, holder: &str) {
        let text = format!("{holder}\n");
        let _ = pwrite(&self.file, text.as_bytes(), 0);
        // In this order it is never empty, for those who look meanwhile.
        let _ = ftruncate(&self.file, text.len() as u64);
    }

    /// Removes the socket that an earlier holder of this very lock bound and did not live to rename.
    /// It is nobody's: it was under a name that only that holder used, while it held the lock, and
    /// the lock is ours now.
    fn remove_unfinished(&self, mark: Mark) {
        let name = mark.temporary_name(&self.place);
        let Ok(Some(stat)) = self.place.stat(&name) else { return };
        if what(&stat) == SOCKET && stat.st_uid == geteuid().as_raw() {
            remove(&self.place, &name);
        }
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
        // While it is still held: who opened it before finds that it is gone, and starts over. Not
        // a successor's, made after somebody removed ours.
        if matches!(self.is_ours(), Ok(true)) {
            remove(&self.place, &self.name);
        }
    }
}

fn lock_exclusively(file: &OwnedFd) -> Result<(), Errno> {
    let mut tries = platform::PROBES;
    loop {
        tries -= 1;
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            // A client that asks whether the lock is held, see `is_held`, has it for a moment.
            Err(Errno::WOULDBLOCK) if tries > 0 => thread::yield_now(),
            done => return done,
        }
    }
}

/// What the holder wrote into the lock file: its process, and the random part of the temporary name
/// that it uses.
fn words(file: &OwnedFd) -> (Option<u32>, Option<u32>) {
    let mut text = [0; 32];
    let length = pread(file, &mut text, 0).unwrap_or(0);
    let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
    let mut words = text.split_whitespace();
    let process = words.next().and_then(|word| word.parse().ok());
    (process, words.next().and_then(|word| u32::from_str_radix(word, 16).ok()))
}

/// What makes a temporary name one process's, once.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    process: u32,
    random: u32,
}

impl Mark {
    pub(super) fn new() -> Self {
        Self { process: process::id(), random: random() as u32 }
    }

    /// That of the last holder; `None` where it had none, or this is no lock file of ours.
    fn read(file: &OwnedFd) -> Option<Self> {
        let (process, random) = words(file);
        Some(Self { process: process?, random: random? })
    }

    /// Says whose it is, for those who find it in `ss` or a listing.
    pub(super) fn temporary_name(self, place: &Place) -> OsString {
        let mut name = OsString::from(".");
        name.push(place.name());
        name.push(format!(".{}.{:08x}", self.process, self.random));
        name
    }
}

fn lock_name(place: &Place, suffix: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(place.name());
    name.push(suffix);
    name
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
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    openat(place.dir(), lock_name(place, NAME_LOCK), flags, Mode::empty()).is_ok_and(|lock| {
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    })
}
