//! What stands under a name, and whether it is a dead socket.

use std::ffi::OsStr;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, Stat, unlinkat};
use rustix::io::Errno;
use rustix::net::connect;
use rustix::process::geteuid;

use super::lock::{self, Held, Lock, NAME_LOCK};
use super::note::{self, Said};
use super::place::{Place, SOCKET, what};
use super::platform;
use crate::candidate::Occupancy;
use crate::error::{self, Error, Reason, live_server};

/// Between probes, where one refusal proves nothing.
const PAUSE: Duration = Duration::from_millis(25);

/// How a socket that nobody is known to have is tried, where one refusal proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probes {
    /// Without a pause, so that it stays where it is.
    AtOnce,
    /// The caller can be kept waiting.
    Paused,
}

/// What there is at `place`, without a connection.
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

/// Removes what a crash has left at `place`, as `Claim::take` would before it takes the name:
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

/// Whether a dead socket has the name; `false` when nothing has it.
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

/// Whether nobody has the socket. The kernel is asked first where it tells, then the last holder of
/// the lock, and then the socket itself, which a server notices.
fn is_abandoned(lock: &Lock, stat: &Stat, probes: Probes) -> io::Result<bool> {
    let place = &lock.place;
    let said = note::said(&lock.file, stat);
    let path = place.resolved().unwrap_or_else(|| place.path());
    if platform::is_bound(&path, stat) == Some(true) {
        return Err(live_server(place.endpoint(), None));
    }
    if said == Said::Bound && !platform::REFUSED_MAY_BE_BUSY {
        return Ok(true);
    }

    let needed = if said == Said::Nothing { platform::PROBES } else { 1 };
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

/// One connection to a socket that may be that of a server without our lock. Only a refusal says
/// that nobody listens. `None` where it went meanwhile.
fn is_refused(place: &Place) -> io::Result<Option<bool>> {
    let socket = platform::socket()?;
    match connect(&socket, &place.address(place.name())?) {
        Err(Errno::CONNREFUSED) => Ok(Some(true)),
        // A server whose queue is full, or one of another kind.
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

/// Refused once, which a server with a full queue does too.
fn may_be_busy(place: &Place) -> io::Error {
    let cause = "the socket there may be that of a server whose queue is full";
    let error = Error::new(Reason::UnprovenSocket, cause).at(place.endpoint());
    error.advising("remove it with Candidate::remove_stale, or wait with bind_wait").into()
}
