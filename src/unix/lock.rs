//! The lock on a name. Its holder may create and remove the socket under the name.
//!
//! It is an flock(2) on a separate file beside the socket, so the kernel releases it however the
//! process ends. The file names its holder for other processes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, openat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::bound::BoundFile;
use super::maker::Maker;
use super::note::{self, SocketRecord};
use super::place::{Place, file_id, remove};
use super::{is_transient, lock_query, platform, release_failed};
use crate::error::{self, Error, Reason, live_server};

/// The suffix of a name lock's file. The file is called after a dot, the name, and this.
pub(super) const NAME_LOCK: &str = ".lock";
/// Each round means that another process made progress, so more rounds than these do not occur.
pub(super) const ROUNDS: usize = 100;
const LOCK_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

#[derive(Debug)]
pub(super) struct Lock {
    pub(super) place: Place,
    /// The name of the lock file.
    name: OsString,
    /// Closing it releases the lock. No child inherits it past exec.
    pub(super) file: OwnedFd,
    /// A child by fork(2) shares the lock, and must not release it.
    maker: Maker,
    /// Whether the file, with its content, is left in place for later processes.
    pub(super) stays: bool,
}

/// The holder of the lock on a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    ByNobody,
    /// Another user's lock exists, which this user may not read.
    Perhaps,
    /// A process holds it. Its id is there if it is known.
    By(Option<u32>),
    /// The same, by a server that accepts no more connections.
    Stopping(Option<u32>),
}

impl Lock {
    /// Takes the lock to serve under the name. Other processes can query it.
    pub(super) fn take(place: Place) -> io::Result<Self> {
        let lock = Self::take_as_left(place, NAME_LOCK)?;
        lock_query::allow_queries(&lock.file);
        note::write_holder(&lock.file);
        platform::keep(&lock.file);
        Ok(lock)
    }

    /// Wraps the locked file that another process has passed, which shares its lock because
    /// flock(2) locks the open file. The lock stays that process's until it is [owned](Self::own).
    /// Returns `None` if the file is not the lock on the name.
    #[cfg(feature = "tokio")]
    pub(super) fn passed(place: Place, file: OwnedFd) -> io::Result<Option<Self>> {
        let name = lock_name(&place, NAME_LOCK);
        let lock = Self { place, name, file, maker: Maker::this(), stays: true };
        let held = lock_exclusively(&lock.file).is_ok() && lock.is_ours()?;
        Ok(held.then_some(lock))
    }

    #[cfg(feature = "tokio")]
    pub(super) fn own(&mut self) {
        self.stays = false;
        note::write_holder(&self.file);
    }

    /// Takes the lock, and keeps the content that the last holder wrote in the file.
    pub(super) fn take_as_left(place: Place, suffix: &str) -> io::Result<Self> {
        let name = lock_name(&place, suffix);
        for _ in 0..ROUNDS {
            let opened = open(&place, &name).map_err(|errno| cannot_lock(&place, &name, errno))?;
            let Some((file, made)) = opened else { continue };
            match try_to_lock(&place, &name, &file) {
                Ok(true) => {
                    return Ok(Self { place, name, file, maker: Maker::this(), stays: false });
                }
                Ok(false) => {}
                Err(error) => {
                    // No other process knows of the new file, unless one has locked it since.
                    if made && lock_exclusively(&file).is_ok() {
                        drop(Self { place, name, file, maker: Maker::this(), stays: false });
                    } else if made && Error::of(&error).is_some_and(says_no_locks) {
                        // No other process holds the lock on it either.
                        remove(&place, &name);
                    }
                    return Err(error);
                }
            }
        }
        Err(live_server(place.endpoint(), None))
    }

    /// Notes that the holder of the lock accepts no more connections.
    #[cfg(feature = "tokio")]
    pub(super) fn write_stopping(&self) {
        note::write_stopping(&self.file);
    }

    pub(super) fn owned_by_this_process(&self) -> bool {
        self.maker.is_this_or_gone()
    }

    /// Whether this process still acts as the user who took the lock.
    pub(super) fn owned_by_this_user(&self) -> bool {
        matches!(fstat(&self.file), Ok(stat) if stat.st_uid == geteuid().as_raw())
    }

    fn has_socket_record(&self) -> bool {
        let Ok(Some(stat)) = self.place.stat(self.place.name()) else { return false };
        note::socket_record(&self.file, &stat) != SocketRecord::Missing
    }

    /// Removes the lock file, but not another file that replaced it.
    fn remove_file(&self) {
        let removed = self.is_ours().and_then(|ours| {
            let remove = || unlinkat(self.place.dir(), &self.name, AtFlags::empty());
            if ours {
                remove().map_err(|errno| cannot_lock(&self.place, &self.name, errno))
            } else {
                Ok(())
            }
        });
        removed.unwrap_or_else(|error| release_failed(&error));
    }

    /// Releases the lock without a note, if the socket lives on: the note would call it dead.
    pub(super) fn leave(&self) {
        self.remove_file();
    }

    /// Whether the locked file is still the one under the lock's name.
    pub(super) fn is_ours(&self) -> io::Result<bool> {
        let ours = file_id(&fstat(&self.file)?);
        let standing = self.place.stat(&self.name)?;
        Ok(standing.is_some_and(|standing| file_id(&standing) == ours))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.stays || !self.owned_by_this_process() {
            return;
        }
        // Removed while the lock is still held: a process that opened the file before finds that it
        // is gone, and starts over. The file stays if it is a successor's, created after ours was
        // removed, or if it describes a dead socket, because the next server learns from it that
        // the socket has no owner.
        if !self.has_socket_record() {
            self.remove_file();
        }
    }
}

/// Opens or creates the lock file, and returns whether it is new. Returns `None` if other processes
/// create and remove it meanwhile.
fn open(place: &Place, name: &OsStr) -> Result<Option<(OwnedFd, bool)>, Errno> {
    // Nonblocking, in case there is a FIFO in its place.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let there = |flags| openat(place.dir(), name, flags, LOCK_MODE);
    match there(flags) {
        Ok(file) => return Ok(Some((file, false))),
        Err(Errno::NOENT) => {}
        Err(Errno::ACCESS) if restore_mode(place, name) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    match there(flags | OFlags::CREATE | OFlags::EXCL) {
        Ok(file) => {
            // The umask may have removed some of the mode's bits.
            if fstat(&file).map(|stat| Mode::from_raw_mode(stat.st_mode)) != Ok(LOCK_MODE) {
                let _ = fchmod(&file, LOCK_MODE);
            }
            Ok(Some((file, true)))
        }
        Err(Errno::EXIST) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Locks the file, and returns whether it is still the one under that name.
fn try_to_lock(place: &Place, name: &OsStr, file: &OwnedFd) -> io::Result<bool> {
    let cannot = |errno| cannot_lock(place, name, errno);
    let stat = fstat(file).map_err(cannot)?;
    // A file with a second link is never written to, because its content may be someone else's.
    let linked = stat.st_nlink > 1;
    if !owned_by_this_user(&stat) || linked && place.why_unsafe()?.is_some() {
        return Err(foreign(place, name).into());
    }

    match lock_exclusively(file) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let holder = if linked { None } else { note::holder(file) };
            return Err(live_server(place.endpoint(), holder));
        }
        Err(errno) => return Err(cannot(errno)),
    }

    let still_there = place.stat(name)?.is_some_and(|now| file_id(&now) == file_id(&stat));
    if still_there && linked {
        // A hard link, for example of a backup. The other name keeps the file. A process that waits
        // for this one, thinking that a holder has it, sees that it is gone and starts over.
        unlinkat(place.dir(), name, AtFlags::empty()).map_err(cannot)?;
    }
    Ok(still_there && !linked)
}

/// Restores the mode of a lock file of this user that cannot be opened. A process that created it
/// under a strict umask may have been killed before it set the mode.
fn restore_mode(place: &Place, name: &OsStr) -> bool {
    let Ok(file) = BoundFile::open(place, name) else { return false };
    let mode = Mode::from_raw_mode(file.stat.st_mode);
    let is_ours = owned_by_this_user(&file.stat) && file.stat.st_nlink == 1;
    is_ours && !mode.contains(LOCK_MODE) && file.set_mode(LOCK_MODE).is_ok()
}

fn owned_by_this_user(stat: &Stat) -> bool {
    is_regular(stat) && stat.st_uid == geteuid().as_raw()
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn lock_exclusively(file: &OwnedFd) -> Result<(), Errno> {
    for _ in 0..ROUNDS {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => {}
            done => return done,
        }
        // Where checking takes no lock, only a holder can have one.
        if lock_query::is_supported(file) {
            break;
        }
        // Checking processes share the lock for a moment. A holder's lock is exclusive.
        flock(file, FlockOperation::NonBlockingLockShared)?;
        flock(file, FlockOperation::Unlock)?;
    }
    Err(Errno::WOULDBLOCK)
}

pub(super) fn lock_name(place: &Place, suffix: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(place.name());
    name.push(suffix);
    name
}

fn has_no_locks(errno: Errno) -> bool {
    let known = matches!(errno, Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL);
    // `NOTSUP` has another number on macOS.
    known || errno == Errno::NOTSUP
}

fn says_no_locks(error: &Error) -> bool {
    *error.reason() == Reason::NoLocks
}

fn foreign(place: &Place, name: &OsStr) -> Error {
    let path = place.dir_path().join(name);
    let what = format!("its lock file {} belongs to another user", path.display());
    Error::new(Reason::ForeignOwner, what)
        .at(place.endpoint())
        .advising("choose a directory of your own, or another name")
}

fn cannot_lock(place: &Place, name: &OsStr, errno: Errno) -> io::Error {
    const NO_LOCKS: (Reason, &str) = (Reason::NoLocks, "choose a directory on a local file system");
    const FOREIGN: (Reason, &str) = (Reason::ForeignOwner, "choose a directory of your own");
    let error = io::Error::from(errno);
    let is_denied = matches!(errno, Errno::ACCESS | Errno::PERM);
    if is_denied && place.stat_there(name).is_ok_and(|stat| !owned_by_this_user(&stat)) {
        return foreign(place, name).caused_by(error).into();
    }

    let (reason, remedy) = match errno {
        errno if has_no_locks(errno) => NO_LOCKS,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            (Reason::NotWritable, "choose a directory that you can write to")
        }
        // A directory: it is not ours.
        Errno::ISDIR => FOREIGN,
        // A symbolic link, by this system's error or by the usual one.
        errno if errno == platform::NOT_FOLLOWED || errno == Errno::LOOP => FOREIGN,
        _ => (Reason::Os, "choose another directory"),
    };
    let lock = place.dir_path().join(name);
    let what = format!("cannot open its lock file {}: {error}", lock.display());
    let error = Error::new(reason, what).at(place.endpoint()).caused_by(error);
    error.advising(remedy).into()
}

/// Returns the holder of the lock on the name at `place`. Another user's lock is ignored, because
/// any user can create one where this user looks. So is a lock file with a second link.
pub(super) fn holding(place: &Place) -> io::Result<Held> {
    let cannot = |errno| error::os(place.endpoint(), errno);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let lock = match openat(place.dir(), lock_name(place, NAME_LOCK), flags, Mode::empty()) {
        Ok(lock) => lock,
        Err(Errno::ACCESS | Errno::PERM) => return Ok(Held::Perhaps),
        Err(errno) if is_transient(errno) => return Err(cannot(errno)),
        Err(_) => return Ok(Held::ByNobody),
    };

    let stat = fstat(&lock).map_err(cannot)?;
    let counts = stat.st_uid == geteuid().as_raw() || stat.st_uid == 0;
    if !is_regular(&stat) || stat.st_nlink != 1 || !counts {
        return Ok(Held::ByNobody);
    }
    let held = lock_query::is_held(&lock).map_err(cannot)?;
    Ok(match note::holder(&lock) {
        _ if !held => Held::ByNobody,
        process if note::is_stopping(&lock) => Held::Stopping(process),
        process => Held::By(process),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn place(dir: &tempfile::TempDir) -> Place {
        Place::of_path(&dir.path().join("x")).expect("a place")
    }

    #[test]
    fn a_lock_on_a_removed_file_does_not_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(&dir);
        let name = lock_name(&place, NAME_LOCK);
        let (file, made) = open(&place, &name).expect("no error").expect("a file");
        assert!(made && try_to_lock(&place, &name, &file).expect("a lock"));
        fs::remove_file(dir.path().join(&name)).expect("the file");
        assert!(!try_to_lock(&place, &name, &file).expect("a lock of nothing"));
        File::create(dir.path().join(&name)).expect("a successor's");
        assert!(!try_to_lock(&place, &name, &file).expect("a lock of nothing"));
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn a_passed_file_is_refused_unless_it_is_the_lock_of_the_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let passed = |file| Lock::passed(place(&dir), file).expect("an answer");
        let mut lock = Lock::take(place(&dir)).expect("a free name");

        let other = File::create(dir.path().join("other")).expect("a file");
        assert!(passed(other.into()).is_none());
        let reopened = File::open(dir.path().join(".x.lock")).expect("the lock file");
        assert!(passed(reopened.into()).is_none());
        assert!(passed(lock.file.try_clone().expect("a descriptor")).is_some());
        lock.own();
    }
}
