//! Unix domain sockets.

mod access;
#[cfg(feature = "blocking")]
pub(crate) mod blocking;
mod bound;
mod claim;
mod connect;
mod convert;
pub mod ext;
#[cfg(feature = "tokio")]
mod foreign;
mod inherited;
#[cfg(feature = "interprocess")]
pub(crate) mod interprocess;
#[cfg(feature = "tokio")]
mod listener;
mod lock;
mod name;
mod options;
mod pass;
mod peer;
mod place;
#[cfg(feature = "tokio")]
mod receive;
#[cfg(feature = "tokio")]
mod runtime;
mod sockname;
mod sockopt;
#[cfg(feature = "tokio")]
mod spawn;
mod spin;
#[cfg(feature = "tokio")]
mod stream;

// Linux, and what macOS and the BSDs have in common; `--cfg sockpipe_posix` runs the latter on
// Linux. Both files list the same items.
cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", not(sockpipe_posix)))] {
        #[path = "unix/linux.rs"]
        mod platform;
    } else {
        #[path = "unix/posix.rs"]
        mod platform;
    }
}

use std::env;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{Shutdown, shutdown};
use rustix::process::geteuid;

pub(crate) use self::options::{EndOnClose, OsListenOptions, Spin, end_on_close, spin};
use self::place::Place;
#[cfg(feature = "tokio")]
pub(crate) use self::{
    listener::Listener,
    runtime::{can_accept, shutdown_signal, sleep},
    spawn::{SpawnLock, leave, nameless_file, spawn_detached},
    stream::Stream,
};
use crate::endpoint::candidate::Occupancy;
use crate::endpoint::candidate::{Candidacy, Candidate};
use crate::endpoint::resolve::{Environment, Family};
use crate::error::{Error, Reason};
use crate::options::StreamOptions;
use crate::peer::UserId;

/// More buffers are refused whole. The limit is POSIX's on all of these systems.
const IOV_MAX: usize = 1024;

#[allow(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(crate) fn current_user() -> io::Result<UserId> {
    Ok(UserId::Uid(geteuid().as_raw()))
}

pub(crate) fn environment() -> io::Result<Environment> {
    Ok(Environment {
        family: Family::of(platform::SYSTEM),
        user: current_user()?,
        runtime_dir: env::var_os("XDG_RUNTIME_DIR").map(Into::into),
        user_temp_dir: platform::user_temp_dir()?,
    })
}

pub(crate) fn occupancy(candidate: &Candidate) -> io::Result<Occupancy> {
    match place_to_look_at(candidate)? {
        Some(place) => claim::occupancy(&place),
        None if matches!(candidate.place, Candidacy::Abstract(_)) => Ok(Occupancy::Unclaimed),
        None => Ok(Occupancy::Free),
    }
}

pub(crate) fn remove_stale(candidate: &Candidate) -> io::Result<bool> {
    place_to_look_at(candidate)?.map_or(Ok(false), claim::remove_stale)
}

/// `None`: there is no file to it, or there is none yet.
fn place_to_look_at(candidate: &Candidate) -> io::Result<Option<Place>> {
    match &candidate.place {
        Candidacy::Path(path) => Place::of_path(path).map(Some),
        Candidacy::UserDir { dir, file } => match Place::in_user_dir(dir, file)? {
            Some(place) => Ok(Some(place)),
            None => {
                let dir = dir.display();
                let what = format!(
                    "the directory {dir} is missing, another user's, or writable by others"
                );
                Err(Error::new(Reason::NoDirectory, what).into())
            }
        },
        Candidacy::PrivateDir { dir, file } => Place::in_existing_private_dir(dir, file),
        Candidacy::Abstract(_) | Candidacy::Pipe(_) => Ok(None),
    }
}

/// Whether accept(2) failed for a client that left again, or was interrupted: the next try may do.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM)
}

/// Whether accept(2) failed for want of descriptors or memory. The client stays in the backlog until
/// there is room again.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

/// Ends the write side.
fn shut_down(socket: BorrowedFd<'_>) -> io::Result<()> {
    match shutdown(socket, Shutdown::Write) {
        // macOS: the peer is gone, so there is nobody left to tell.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What came of an option that every socket takes whose peer is there. A socket without its peer is
/// still good: for the bytes that came before it left, and then the end.
fn unless_gone(set: Result<(), Errno>) -> Result<(), Errno> {
    match set {
        Err(Errno::INVAL) if platform::GONE_TAKES_NO_OPTIONS => Ok(()),
        set => set,
    }
}

/// What is chosen for the streams of a listener, or for one.
fn prepare(socket: BorrowedFd<'_>, options: StreamOptions) -> io::Result<()> {
    let Some(bytes) = options.send_buffer_size else { return Ok(()) };
    let set = set_socket_send_buffer_size(socket, bytes as usize);
    // These systems take no other size, whoever is there.
    let is_a_size = i32::try_from(bytes).is_ok_and(|bytes| bytes > 0);
    let set = if is_a_size { unless_gone(set) } else { set };
    set.map_err(|errno| {
        let error = io::Error::from(errno);
        let what = format!("the system gives no send buffer of {bytes} bytes: {error}");
        Error::new(Reason::Os, what).caused_by(error).advising("ask for less").into()
    })
}
