//! Finds out what stands under a name, and whether it is a dead socket.

use std::ffi::OsStr;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, Stat, unlinkat};
use rustix::io::Errno;
use rustix::net::connect;
use rustix::process::geteuid;

use super::lock::{self, Held, Lock, NAME_LOCK};
use super::note::{self, SocketRecord};
use super::place::{Place, SOCKET, what};
use super::platform;
use crate::candidate::Occupancy;
use crate::error::{self, Error, Reason, live_server};

/// How many refused probes show that a socket is dead if the kernel does not report what is bound.
/// A server between bind(2) and listen(2) refuses as well, and on some systems one whose backlog is
/// full. Both last only for a moment.
const PROBES: u32 = 3;
/// The pause between probes, where one refusal proves nothing.
const PAUSE: Duration = Duration::from_millis(25);

/// How to probe a socket without a known owner, where one refusal proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probes {
    /// Without a pause. A socket that needs more probes is left in place.
    AtOnce,
    /// With pauses, because the caller can wait.
    Paused,
}

/// Reports what is at `place`, without making a connection.
pub(super) fn occupancy(place: &Place) -> io::Result<Occupancy> {
    if let Held::By(process) | Held::Stopping(process) = lock::holding(place)? {
        return Ok(Occupancy::Held { process });
    }
    let Some(stat) = place.stat(place.name())? else { return Ok(Occupancy::Free) };
    let path = place.resolved().unwrap_or_else(|| place.path());
    Ok(match what(&stat) {
        SOCKET if !platform::is_mount_point(&path) => Occupancy::Unclaimed,
        SOCKET if platform::is_bound(&path, &stat) == Some(true) => Occupancy::Unclaimed,
        SOCKET => Occupancy::Foreign { what: "a mount point with a dead socket" },
        what => Occupancy::Foreign { what },
    })
}

/// Removes what a crash left at `place`, as `Claim::take` does before it takes the name. Returns
/// whether there was a dead socket.
pub(super) fn remove_stale(place: Place) -> io::Result<bool> {
    let nothing = |name: &OsStr| Ok::<_, io::Error>(place.stat(name)?.is_none());
    if nothing(place.name())? && nothing(&lock::lock_name(&place, NAME_LOCK))? {
        return Ok(false);
    }
    // The lock file is removed with the lock. This process will not serve, so no other process may
    // find it as the holder.
    let lock = Lock::take_as_left(place, NAME_LOCK)?;
    let stale = is_stale(&lock, Probes::Paused)?;
    if stale {
        remove(&lock)?;
    }
    Ok(stale)
}

/// Removes the dead socket under the name.
pub(super) fn remove(lock: &Lock) -> io::Result<()> {
    let place = &lock.place;
    match unlinkat(place.dir(), place.name(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::BUSY) => {
            let cause = "a dead socket is mounted there, and a mount point cannot be replaced";
            let error = Error::new(Reason::Os, cause).at(place.endpoint());
            let error = error.caused_by(io::Error::from(Errno::BUSY));
            Err(error.advising("unmount it, or choose another path").into())
        }
        Err(errno) => Err(error::os(place.endpoint(), errno)),
    }
}

/// Whether a dead socket has the name. A free name gives `false`.
pub(super) fn is_stale(lock: &Lock, probes: Probes) -> io::Result<bool> {
    let place = &lock.place;
    let Some(stat) = place.stat(place.name())? else { return Ok(false) };
    let what = what(&stat);
    if what != SOCKET {
        let what = format!("{what} exists there and is not removed");
        let error = Error::new(Reason::NotASocket, what).at(place.endpoint());
        return Err(error.advising("choose another path, or remove it yourself").into());
    }
    let own = geteuid().as_raw();
    if stat.st_uid != own {
        let what = format!("the socket there belongs to uid {}, not to uid {own}", stat.st_uid);
        let error = Error::new(Reason::ForeignOwner, what).at(place.endpoint());
        return Err(error.advising("choose another path").into());
    }
    is_abandoned(lock, &stat, probes)
}

/// Whether no server has the socket. Asks the kernel first, if the system reports it, then reads
/// the record of the last lock holder, and at last probes the socket, which a server would notice.
fn is_abandoned(lock: &Lock, stat: &Stat, probes: Probes) -> io::Result<bool> {
    let place = &lock.place;
    let record = note::socket_record(&lock.file, stat);
    let path = place.resolved().unwrap_or_else(|| place.path());
    let bound = platform::is_bound(&path, stat);
    if bound == Some(true) {
        return Err(live_server(place.endpoint(), None));
    }
    if record == SocketRecord::Bound && !platform::REFUSED_MAY_BE_BUSY {
        return Ok(true);
    }

    let needed = if record == SocketRecord::Missing && bound.is_none() { PROBES } else { 1 };
    for probe in 0..needed {
        if probe > 0 && probes == Probes::AtOnce {
            return Err(may_be_busy(place));
        }
        if probe > 0 {
            thread::sleep(PAUSE);
        }
        match is_refused(place)? {
            Some(true) => {}
            Some(false) => return Err(live_server(place.endpoint(), None)),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Makes one connection to a socket that may belong to a server without the lock. Only a refusal
/// shows that no server listens. Returns `None` if the socket disappeared meanwhile.
fn is_refused(place: &Place) -> io::Result<Option<bool>> {
    let socket = platform::socket()?;
    match connect(&socket, &place.address(place.name())?) {
        Err(Errno::CONNREFUSED) => Ok(Some(true)),
        // A server whose backlog is full, or a socket of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Ok(Some(false)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => {
            let error = io::Error::from(errno);
            let cause =
                format!("cannot determine whether a server holds the socket there: {error}");
            Err(Error::new(Reason::Os, cause).at(place.endpoint()).caused_by(error).into())
        }
    }
}

/// The error after a single refusal, which may also come from a server with a full backlog or from
/// one that does not listen yet.
fn may_be_busy(place: &Place) -> io::Error {
    let cause =
        "the socket there may be that of a server whose queue is full or that does not listen yet";
    let error = Error::new(Reason::UnprovenSocket, cause).at(place.endpoint());
    error.advising("remove it with Candidate::remove_stale, or wait with bind_wait").into()
}
