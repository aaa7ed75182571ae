//! The lock on a name: who holds it may make and remove what stands under the name.
//!
//! It is flock(2) on a file of its own beside the socket, so the kernel frees it however the
//! process ends. Whose it is, is written in it for others.

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
use super::note::{self, Said};
use super::place::{Place, file_id, remove};
use super::{asking, is_transient, platform, release_failed};
use crate::error::{self, Error, Reason, live_server};

/// What the lock on a name is called, after a dot and the name.
pub(super) const NAME_LOCK: &str = ".lock";
/// Each round means that another process got on: one that goes on for ever does not exist.
pub(super) const ROUNDS: usize = 100;
const LOCK_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

#[derive(Debug)]
pub(super) struct Lock {
    pub(super) place: Place,
    /// Of the lock file.
    name: OsString,
    /// Closing it frees the lock; no child inherits it past its exec.
    pub(super) file: OwnedFd,
    /// A child by fork(2) shares the lock, and is not to give it back.
    maker: Maker,
    /// The file is left in place for those who come later, with what is written in it.
    pub(super) stays: bool,
}

/// Who holds the lock on a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    ByNobody,
    /// Another user's lock is there, which this one may not look at.
    Perhaps,
    /// By a process, and which one where that can be told.
    By(Option<u32>),
    /// The same, by a server that lets nobody in any more.
    Stopping(Option<u32>),
}

impl Lock {
    /// To serve under the name, which others can ask about.
    pub(super) fn take(place: Place) -> io::Result<Self> {
        let lock = Self::take_as_left(place, NAME_LOCK)?;
        asking::let_ask(&lock.file);
        note::write_holder(&lock.file);
        platform::keep(&lock.file);
        Ok(lock)
    }

    /// That of another process, which has passed the locked file: what flock(2) locks is the open
    /// file. It is that one's until it is [owned](Self::own). `None` where it is no lock on the
    /// name.
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

    /// With what the last holder wrote in the file.
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
                    // Nobody knows of it, unless another has locked it since.
                    if made && lock_exclusively(&file).is_ok() {
                        drop(Self { place, name, file, maker: Maker::this(), stays: false });
                    } else if made && Error::of(&error).is_some_and(says_no_locks) {
                        // Nobody else has a lock on it either.
                        remove(&place, &name);
                    }
                    return Err(error);
                }
            }
        }
        Err(live_server(place.endpoint(), None))
    }

    /// Says that who has the lock lets nobody in any more.
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

    fn tells_of_a_socket(&self) -> bool {
        let stands = self.place.stat(self.place.name());
        matches!(stands, Ok(Some(stat)) if note::said(&self.file, &stat) != Said::Nothing)
    }

    /// Not a file that somebody put in its place.
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

    /// Lets go of the lock on a socket that lives on: its note would call it dead.
    pub(super) fn leave(&self) {
        self.remove_file();
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
        if self.stays || !self.owned_by_this_process() {
            return;
        }
        // While it is still held: who opened it before finds that it is gone, and starts over. Not
        // a successor's, made after somebody removed ours; and not before a dead socket that it
        // tells of, by which the next server knows that nobody has it.
        if !self.tells_of_a_socket() {
            self.remove_file();
        }
    }
}

/// The lock file, and whether it was made just now; `None` where others make and remove it
/// meanwhile.
fn open(place: &Place, name: &OsStr) -> Result<Option<(OwnedFd, bool)>, Errno> {
    // Not blocking, for a FIFO in its place.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let there = |flags| openat(place.dir(), name, flags, LOCK_MODE);
    match there(flags) {
        Ok(file) => return Ok(Some((file, false))),
        Err(Errno::NOENT) => {}
        Err(Errno::ACCESS) if mend(place, name) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    match there(flags | OFlags::CREATE | OFlags::EXCL) {
        Ok(file) => {
            // Whatever the umask has left of it.
            if fstat(&file).map(|stat| Mode::from_raw_mode(stat.st_mode)) != Ok(LOCK_MODE) {
                let _ = fchmod(&file, LOCK_MODE);
            }
            Ok(Some((file, true)))
        }
        Err(Errno::EXIST) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether the file is locked, and still the one that stands there.
fn try_to_lock(place: &Place, name: &OsStr, file: &OwnedFd) -> io::Result<bool> {
    let cannot = |errno| cannot_lock(place, name, errno);
    let stat = fstat(file).map_err(cannot)?;
    // It is never written: what is in it may be somebody's.
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
        // A copy by links, of a backup say. The other name keeps it; who waits for this one,
        // as the holder of a lock would have it, sees that it is gone and starts over.
        unlinkat(place.dir(), name, AtFlags::empty()).map_err(cannot)?;
    }
    Ok(still_there && !linked)
}

/// Whether a lock file of this user that it may not open has its mode again: a process that made it
/// under a strict umask was killed before it could set the mode.
fn mend(place: &Place, name: &OsStr) -> bool {
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
        // Who asks here holds nothing, so this is a holder.
        if asking::holds_nothing(file) {
            break;
        }
        // Who asks shares the lock for a moment. Who holds it shares it with nobody.
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
    // Another number on macOS.
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
        // Not a file: something that is not ours stands there.
        Errno::ISDIR => FOREIGN,
        // A symbolic link, as this system calls it, or as Linux and most do.
        errno if errno == platform::NOT_FOLLOWED || errno == Errno::LOOP => FOREIGN,
        _ => (Reason::Os, "choose another directory"),
    };
    let lock = place.dir_path().join(name);
    let what = format!("cannot open its lock file {}: {error}", lock.display());
    let error = Error::new(reason, what).at(place.endpoint()).caused_by(error);
    error.advising(remedy).into()
}

/// Who holds the lock on the name at `place`. A lock that another user made means nothing: anybody
/// can make one where this user looks. Nor does one with a second link.
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
    let held = asking::is_held(&lock).map_err(cannot)?;
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
