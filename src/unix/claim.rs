//! Owning a name in a directory, from bind to drop, crashes and rivals included.
//!
//! The file of a socket outlives its server, and no call of unix(7) replaces the file only if its
//! server is dead. A process that unlinks a socket which seems dead sooner or later unlinks that of
//! a server that is just starting, or busy. So each name has a lock, `.NAME.lock` beside it, held
//! with flock(2) for as long as the listener lives. The kernel releases it however the process
//! ends.
//!
//! To take a name:
//!
//! 1. Open the lock file, or create it, and flock it without waiting. If another process holds
//!    the lock, a server lives: `AddrInUse`, and nothing was touched. Then check that the locked
//!    file is still the one under that name: the last holder removes it when it ends, and a process
//!    that opened it before that holds a lock on a deleted file.
//! 2. Look at the name. A file that is not a socket, or belongs to another user, is left alone: an
//!    error. A socket may belong to a server that does not use the lock, so a connection is tried,
//!    and any result but a sure "nobody listens" counts as a living server.
//! 3. Unlink a dead socket, bind a new one under the name itself, set its mode, and listen. If a
//!    server that ignores the lock has just bound the name, the kernel refuses to bind over it, and
//!    step 2 is repeated. The disk holds only the name and its lock at any time, and the name that
//!    the system shows for the socket is the one that users know. A process that is killed on the
//!    way leaves what a crash leaves: nothing, or a socket that refuses connections.
//!
//! A client may connect in the middle of step 3, and find nothing or be refused. A client of this
//! crate sees that the lock is held, and retries for a moment; see `connect`.
//!
//! To release the name, still under the lock: unlink the name if it is still our socket's. The
//! socket is open, so no other file can have its inode, and the comparison is sound. Refuse new
//! connections and close the pending ones. Close the socket, remove the lock file, release the
//! lock.
//!
//! Two servers that follow this protocol cannot both win, nor remove each other's socket: every
//! change to the name is made under the one lock. One race remains: a server that ignores the lock
//! can bind between the check of a dead socket (2) and its removal (3).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Stat, Timespec, Timestamps, UTIME_NOW, futimens, unlinkat};
use rustix::io::Errno;
use rustix::net::{Shutdown, bind, listen, shutdown};

use super::access::Permission;
use super::lock::{self, Held, Lock, ROUNDS};
use super::options::{OnNameLost, OsListenOptions};
use super::place::{FileId, Place, file_id, remove};
use super::places::other_places;
use super::stale::{self, Probes};
use super::{bound, is_passing, note, platform, release_failed};
use crate::endpoint::{Endpoint, Form};
use crate::error::{self, Error, Reason, live_server};

#[derive(Debug)]
pub(super) struct Claim {
    /// Dropped last, and with it the lock is released.
    lock: Lock,
    /// The endpoint that the caller asked for.
    wanted: Endpoint,
    /// The file of the socket, to recognize it. If this socket is withdrawn, the previous one,
    /// which is still open, becomes current again.
    id: FileId,
    former: Option<FileId>,
    /// True until the name is removed, or left to another process.
    ours: bool,
    backlog: i32,
    pub(super) on_lost: OnNameLost,
    pub(super) watch: Watch,
}

/// The results of earlier looks at the name.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The loss of the name was logged.
    pub(super) reported: bool,
    pub(super) touched: Option<Instant>,
}

impl Claim {
    /// Binds a listening socket in `place`, and returns it with the claim to its name. Fails while
    /// a server lives in another place where clients look for `wanted` too.
    pub(super) fn take(
        place: Place,
        wanted: &Endpoint,
        permission: Permission,
        options: &OsListenOptions,
        probes: Probes,
    ) -> io::Result<(OwnedFd, Self)> {
        // Checked first, so that an impossible path leaves nothing behind.
        place.address(place.name())?;
        let lock = take_alone(place, wanted)?;
        let (socket, id) = listen_in(&lock, permission, backlog_of(options.backlog), probes)?;
        Ok((socket, Self::new(lock, wanted, id, options)))
    }

    fn new(lock: Lock, wanted: &Endpoint, id: FileId, options: &OsListenOptions) -> Self {
        Self {
            lock,
            wanted: wanted.clone(),
            id,
            former: None,
            ours: true,
            backlog: backlog_of(options.backlog),
            on_lost: options.on_name_lost,
            watch: Watch::default(),
        }
    }

    /// Takes over the claim to a name that another process has passed with its lock and with the
    /// socket whose file is `id`. From here on the claim belongs to this process.
    #[cfg(feature = "tokio")]
    pub(super) fn passed(
        mut lock: Lock,
        wanted: &Endpoint,
        id: FileId,
        options: &OsListenOptions,
    ) -> Self {
        lock.own();
        Self::new(lock, wanted, id, options)
    }

    /// Leaves the name, and its lock, to the process that received them.
    #[cfg(feature = "tokio")]
    pub(super) fn pass(mut self) {
        self.ours = false;
        self.lock.stays = true;
    }

    #[cfg(feature = "tokio")]
    pub(super) fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The file of the socket.
    #[cfg(feature = "tokio")]
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn is_published(&self) -> bool {
        self.lock.place.is_where_it_was() && self.has_name()
    }

    /// Whether the path leads to this listener's socket. It costs one system call.
    pub(super) fn is_found(&self) -> bool {
        matches!(self.lock.place.stat_by_path(), Ok(stat) if file_id(&stat) == self.id)
    }

    /// Whether this process may bind the name again. If it acts as another user by now, it would
    /// create a socket of that user.
    pub(super) fn is_ours_to_keep(&self) -> bool {
        self.ours && self.owned_by_this_process() && self.lock.owned_by_this_user()
    }

    pub(super) fn place(&self) -> &Place {
        &self.lock.place
    }

    pub(super) fn is_locked(&self) -> io::Result<bool> {
        self.lock.is_ours()
    }

    /// Takes the lock again, unless another process holds it by now.
    pub(super) fn lock_again(&mut self) {
        let place = self.lock.place.try_clone();
        let Ok(lock) = place.and_then(Lock::take) else { return };
        if let Ok(Some(stat)) = lock.place.stat(lock.place.name()) {
            note::write_bound(&lock.file, &stat);
        }
        self.lock = lock;
    }

    pub(super) fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = futimens(&self.lock.file, &Timestamps { last_access: now, last_modification: now });
    }

    fn has_name(&self) -> bool {
        let place = &self.lock.place;
        matches!(place.stat(place.name()), Ok(Some(stat)) if file_id(&stat) == self.id)
    }

    pub(super) fn owned_by_this_process(&self) -> bool {
        self.lock.owned_by_this_process()
    }

    /// The group of the socket's file. Some systems take it from the directory.
    pub(super) fn group(&self) -> Option<u32> {
        let place = &self.lock.place;
        place.stat(place.name()).ok().flatten().map(|stat| stat.st_gid)
    }

    /// Binds a new socket under the name, which no longer leads to the old one.
    pub(super) fn republish(
        &mut self,
        permission: Permission,
        probes: Probes,
    ) -> io::Result<OwnedFd> {
        let place = &self.lock.place;
        let taken = if !place.is_where_it_was() {
            Some(take_alone(place.reopened()?, &self.wanted)?)
        } else if !self.lock.is_ours()? {
            // Cleaners remove lock files too, and another server may have taken a new one since.
            Some(take_alone(place.try_clone()?, &self.wanted)?)
        } else {
            None
        };
        let lock = taken.as_ref().unwrap_or(&self.lock);
        let (socket, id) = listen_in(lock, permission, self.backlog, probes)?;
        if let Some(lock) = taken {
            // The old name may remain, for example in a directory that another one is mounted over.
            self.remove_name().unwrap_or_else(|error| release_failed(&error));
            self.lock = lock;
        }
        self.former = Some(std::mem::replace(&mut self.id, id));
        Ok(socket)
    }

    /// Takes back a name that `republish` gave to a socket that will not be used. Once that socket
    /// is closed, another file may get its inode number.
    pub(super) fn withdraw(&mut self) {
        self.remove_name().unwrap_or_else(|error| release_failed(&error));
        if let Some(former) = self.former.take() {
            self.id = former;
        }
    }

    fn remove_name(&self) -> io::Result<()> {
        let place = &self.lock.place;
        let removed = match place.stat_there(place.name()) {
            Ok(stat) if self.ours && file_id(&stat) == self.id => {
                unlinkat(place.dir(), place.name(), AtFlags::empty())
            }
            Err(errno) if self.ours => Err(errno),
            _ => Ok(()),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(not_removed(place, errno)),
        }
    }

    /// Unlinks the socket and notes that in the lock file. While the lock is held, no other server
    /// can take the name. A socket that only refuses connections would not do, because not every
    /// system lets a listening socket refuse them. If this fails, the end of the listener tries
    /// again.
    #[cfg(feature = "tokio")]
    pub(super) fn stop(&mut self) {
        self.lock.write_stopping();
        self.ours = self.remove_name().is_err();
    }

    /// Removes the name for good. The caller closes the socket next, then drops the claim.
    pub(super) fn unpublish(&mut self) -> io::Result<()> {
        let removed = self.remove_name();
        // From here on another file may get this inode number.
        self.ours = false;
        removed
    }

    /// Leaves the name to the process that has the socket, without a lock.
    pub(super) fn leave(mut self) {
        self.ours = false;
        self.lock.leave();
    }
}

/// Releases the name if creating the listener failed after the name was taken.
impl Drop for Claim {
    fn drop(&mut self) {
        if self.owned_by_this_process() {
            self.unpublish().unwrap_or_else(|error| release_failed(&error));
        }
    }
}

fn not_removed(place: &Place, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    let cause = format!("its socket cannot be removed: {error}");
    let error = Error::new(Reason::Os, cause).at(place.endpoint()).caused_by(error);
    error.advising("remove it, or leave it to the next server there, which replaces it").into()
}

/// Takes the lock while no server lives in another place where clients look for `wanted`. The check
/// is made under the lock, so that a server that starts there later sees the lock when it looks
/// here.
fn take_alone(place: Place, wanted: &Endpoint) -> io::Result<Lock> {
    let lock = Lock::take(place)?;
    let others = other_places(wanted, &lock.place.endpoint())?;
    for other in others.iter().filter(|other| !other.is_in(&lock.place)) {
        if let Held::By(process) | Held::Stopping(process) = lock::holding(other)? {
            return Err(live_server(other.endpoint(), process));
        }
    }
    Ok(lock)
}

/// Steps 2 and 3: binds a listening socket under the name, once the lock is held.
fn listen_in(
    lock: &Lock,
    permission: Permission,
    backlog: i32,
    probes: Probes,
) -> io::Result<(OwnedFd, FileId)> {
    let place = &lock.place;
    let cannot = |errno| error::os(place.endpoint(), errno);
    let address = place.address_to_bind()?;
    for _ in 0..ROUNDS {
        let stale = stale::is_stale(lock, probes)?;
        let socket = platform::socket()?;
        platform::set_mode_to_be(&socket, permission.mode());
        if stale {
            stale::remove(lock)?;
        }

        note::write_binding(&lock.file);
        match bind(&socket, &address) {
            Ok(()) => {
                let stat = listen_on(place, &socket, permission, backlog)?;
                note::write_bound(&lock.file, &stat);
                return Ok((socket, file_id(&stat)));
            }
            // A server that ignores the lock has just bound the name.
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => return Err(cannot(errno)),
        }
    }
    Err(live_server(place.endpoint(), None))
}

/// Refuses new connections on Linux, and returns the pending ones. If they are closed like that,
/// rather than with the socket, their clients read an end of file and no connection reset. On other
/// systems the socket listens until it is closed, and pending clients read an end of file anyway.
pub(super) fn refuse_and_drain(socket: &OwnedFd) -> Vec<OwnedFd> {
    let _ = shutdown(socket, Shutdown::Read);
    drain(socket.as_fd(), usize::from(u16::MAX))
}

/// Accepts the pending connections of a nonblocking socket, with at most `most` attempts. Where the
/// socket still listens, new clients could keep this going for ever, and so could a recurring
/// transient error.
pub(super) fn drain(socket: BorrowedFd<'_>, most: usize) -> Vec<OwnedFd> {
    let mut queue = Vec::new();
    for _ in 0..most {
        match platform::accept(socket) {
            Ok(client) => queue.push(client),
            Err(errno) if is_passing(errno) => {}
            Err(_) => break,
        }
    }
    queue
}

/// Binds a listening abstract socket. The kernel gives its name to one socket at a time and takes
/// it back with the last descriptor, so it needs no claim.
pub(super) fn bind_abstract(address: &Endpoint, backlog: Option<u32>) -> io::Result<OwnedFd> {
    let Form::Abstract(name) = &address.0 else {
        return Err(io::Error::other(format!("{address} is not an abstract socket")));
    };
    let socket = platform::socket()?;
    let cannot = |errno: Errno| error::os(address, errno);
    match bind(&socket, &platform::abstract_address(name)?) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => return Err(live_server(address, None)),
        Err(errno) => return Err(cannot(errno)),
    }
    listen(&socket, backlog_of(backlog)).map_err(cannot)?;
    Ok(socket)
}

/// The system caps this at its limit, `somaxconn`. NetBSD would take a negative number as zero.
pub(super) fn backlog_of(asked_for: Option<u32>) -> i32 {
    asked_for.and_then(|length| length.try_into().ok()).unwrap_or(i32::MAX)
}

/// Sets the group and mode of the bound `socket`'s file if the umask or the system kept `bind` from
/// doing so, then listens. A client that connects before that is refused.
fn listen_on(
    place: &Place,
    socket: &OwnedFd,
    permission: Permission,
    backlog: i32,
) -> io::Result<Stat> {
    let name = place.name();
    let listening = || {
        let stat = bound::settle(place, name, permission)?;
        listen(socket, backlog).map_err(|errno| error::os(place.endpoint(), errno))?;
        bound::is_there(place, name, file_id(&stat))?;
        Ok(stat)
    };
    listening().inspect_err(|_| {
        // Leave alone a file that another process has put there.
        if matches!(place.stat(name), Ok(Some(stat)) if bound::is_our_socket(&stat)) {
            remove(place, name);
        }
    })
}
