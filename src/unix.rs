//! Unix domain sockets.

mod access;
mod activation;
mod asking;
#[cfg(feature = "blocking")]
pub(crate) mod blocking;
mod bound;
mod child;
mod claim;
mod connect;
mod convert;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
pub mod ext;
#[cfg(feature = "tokio")]
mod foreign;
mod gone;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod group;
mod hints;
mod inherited;
#[cfg(feature = "interprocess")]
pub(crate) mod interprocess;
#[cfg(feature = "tokio")]
mod listener;
mod lock;
mod look;
mod maker;
mod name;
mod note;
mod options;
mod pass;
mod peek;
mod peer;
mod place;
mod places;
#[cfg(feature = "blocking")]
mod poll;
mod receive;
#[cfg(feature = "tokio")]
mod runtime;
#[cfg(feature = "blocking")]
pub(crate) mod signal;
mod sockname;
mod sockopt;
mod spawn;
mod spin;
mod stale;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
mod successor;
#[cfg(feature = "blocking")]
mod swap;
#[cfg(feature = "tokio")]
mod upgrade;
pub(crate) mod worker;

// How each system behaves: files that list the same items, so that a mend for one compiles on all.
// `--cfg sockpipe_posix` runs FreeBSD's on Linux, `--cfg sockpipe_posix="darwin"` besides it
// macOS's.
#[cfg(any(target_vendor = "apple", sockpipe_posix = "darwin"))]
mod apple;
#[cfg(any(target_vendor = "apple", sockpipe_posix = "darwin"))]
use self::apple as platform;
#[cfg(any(
    target_os = "freebsd",
    target_os = "dragonfly",
    all(
        sockpipe_posix,
        not(any(
            sockpipe_posix = "darwin",
            sockpipe_posix = "netbsd",
            sockpipe_posix = "openbsd"
        ))
    )
))]
mod freebsd;
#[cfg(any(
    target_os = "freebsd",
    target_os = "dragonfly",
    all(
        sockpipe_posix,
        not(any(
            sockpipe_posix = "darwin",
            sockpipe_posix = "netbsd",
            sockpipe_posix = "openbsd"
        ))
    )
))]
use self::freebsd as platform;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(sockpipe_posix)))]
mod diag;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(sockpipe_posix)))]
mod linux;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(sockpipe_posix)))]
use self::linux as platform;
#[cfg(any(target_os = "netbsd", sockpipe_posix = "netbsd"))]
mod netbsd;
#[cfg(all(
    feature = "tokio",
    any(target_os = "linux", target_os = "android"),
    not(sockpipe_posix)
))]
mod tidings;
#[cfg(any(target_os = "netbsd", sockpipe_posix = "netbsd"))]
use self::netbsd as platform;
#[cfg(any(target_os = "openbsd", sockpipe_posix = "openbsd"))]
mod openbsd;
#[cfg(any(target_os = "openbsd", sockpipe_posix = "openbsd"))]
use self::openbsd as platform;

// What several of them share.
#[cfg(not(any(target_vendor = "apple", sockpipe_posix = "darwin")))]
mod flags;
#[cfg(any(not(any(target_os = "linux", target_os = "android")), sockpipe_posix))]
mod posix;

/// The constants, layouts and calls that one kernel alone has: checked by their types only, where
/// that system cannot be run.
#[cfg(any(not(any(target_os = "linux", target_os = "android")), sockpipe_posix))]
mod native {
    #[cfg(target_vendor = "apple")]
    mod apple;
    #[cfg(target_vendor = "apple")]
    pub(super) use self::apple::*;
    #[cfg(target_os = "dragonfly")]
    mod dragonfly;
    #[cfg(target_os = "dragonfly")]
    pub(super) use self::dragonfly::*;
    #[cfg(target_os = "freebsd")]
    mod freebsd;
    #[cfg(target_os = "freebsd")]
    pub(super) use self::freebsd::*;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    mod kqueue;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) use self::kqueue::*;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    mod linux;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) use self::linux::*;
    #[cfg(target_os = "netbsd")]
    mod netbsd;
    #[cfg(target_os = "netbsd")]
    pub(super) use self::netbsd::*;
    #[cfg(target_os = "openbsd")]
    mod openbsd;
    #[cfg(target_os = "openbsd")]
    pub(super) use self::openbsd::*;
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
    mod xucred;
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd"
)))]
compile_error!(
    "sockpipe supports Linux, Android, macOS and Apple's other systems, FreeBSD, DragonFly, \
     NetBSD, OpenBSD and Windows, and not this system"
);

// The lane of shared memory, where there is one.
#[cfg(not(all(feature = "shared-memory", target_os = "linux", not(sockpipe_posix))))]
mod no_shared_memory;
#[cfg(not(all(feature = "shared-memory", target_os = "linux", not(sockpipe_posix))))]
use self::no_shared_memory as shared_memory;
#[cfg(all(feature = "shared-memory", target_os = "linux", not(sockpipe_posix)))]
mod shared_memory;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::net::{Shutdown, shutdown};
use rustix::process::geteuid;

pub(crate) use self::child::{OsDaemonOptions, leave, nameless_file, spawn_detached};
pub(crate) use self::options::{EndOnClose, OsListenOptions, Spin, end_on_close, spin};
#[cfg(feature = "shared-memory")]
pub(crate) use self::options::{Memory, memory};
use self::place::Place;
pub(crate) use self::spawn::SpawnLock;
#[cfg(feature = "tokio")]
pub(crate) use self::{
    listener::Listener,
    runtime::{can_accept, shutdown_signal, sleep},
    stream::Stream,
};
use crate::candidate::Occupancy;
use crate::candidate::resolve::{Environment, Family};
use crate::candidate::{Candidacy, Candidate};
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
        user_temp_dir: platform::user_temp_dir,
        session: || env::var("XDG_SESSION_ID").ok(),
    })
}

pub(crate) fn occupancy(candidate: &Candidate) -> io::Result<Occupancy> {
    match place_to_look_at(candidate)? {
        Some(place) => stale::occupancy(&place),
        None if matches!(candidate.place, Candidacy::Abstract(_)) => Ok(Occupancy::Unclaimed),
        None => Ok(Occupancy::Free),
    }
}

pub(crate) fn remove_stale(candidate: &Candidate) -> io::Result<bool> {
    place_to_look_at(candidate)?.map_or(Ok(false), stale::remove_stale)
}

/// `None`: there is no file to it, or there is none yet.
fn place_to_look_at(candidate: &Candidate) -> io::Result<Option<Place>> {
    match &candidate.place {
        Candidacy::Path(path) => Place::of_path(path).map(Some),
        Candidacy::UserDir { dir, file } => match Place::in_user_dir(dir, file)? {
            Some(place) => Ok(Some(place)),
            None => Err(Error::new(Reason::NoDirectory, Place::why_no_user_dir(dir)).into()),
        },
        Candidacy::PrivateDir { dir, file } => Place::in_existing_private_dir(dir, file),
        Candidacy::Abstract(_) | Candidacy::Pipe(_) => Ok(None),
    }
}

/// A text of the system's, to be sent to a program of the same system.
pub(crate) fn bytes_of(text: &OsStr) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[allow(clippy::unnecessary_wraps, reason = "elsewhere not all bytes are a text")]
pub(crate) fn text_of(bytes: &[u8]) -> Option<OsString> {
    Some(OsString::from_vec(bytes.to_vec()))
}

/// Whether accept(2) failed for a client that left again, or was interrupted: the next try may do.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::INTR | Errno::CONNABORTED | Errno::PROTO)
}

/// Whether accept(2) failed for want of descriptors or memory, or a sandbox or a firewall let
/// nobody through. The client stays in the backlog until that is over.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::PERM)
}

/// Whether a write failed because the peer is gone: before the call, with bytes of ours unread in
/// the middle of it (Linux), or in the middle of it anyhow (macOS, and older ones of the BSDs).
fn is_broken(errno: Errno) -> bool {
    matches!(errno, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
}

/// A listener has ended, and its name is left behind; where the caller cannot be given the error.
fn release_failed(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::error!(%error, "a listener's name is left behind");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// The beginning of `buf`, for one call.
#[inline]
fn at_most(buf: &[u8]) -> &[u8] {
    &buf[..buf.len().min(platform::MOST)]
}

/// Those of the first of `bufs` that one call takes. A first one that is too long is left out too,
/// and then there are none.
#[inline]
fn at_most_of<'a, 'b>(bufs: &'a [IoSlice<'b>]) -> &'a [IoSlice<'b>] {
    if platform::MOST == isize::MAX as usize {
        return &bufs[..bufs.len().min(IOV_MAX)];
    }
    let mut total = 0_usize;
    let fits = |buf: &&IoSlice<'_>| {
        total = total.saturating_add(buf.len());
        total <= platform::MOST
    };
    &bufs[..bufs.iter().take(IOV_MAX).take_while(fits).count()]
}

/// Whether a look failed for what may be over at the next one, so that it says nothing of what is
/// there.
fn is_transient(errno: Errno) -> bool {
    is_shortage(errno) || matches!(errno, Errno::INTR | Errno::IO | Errno::AGAIN)
}

/// Ends the write side.
fn shut_down(socket: BorrowedFd<'_>) -> io::Result<()> {
    match shutdown(socket, Shutdown::Write) {
        // macOS: the peer is gone, so there is nobody left to tell.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Of a stream that may use shared memory.
fn socket_is_not_all() -> io::Error {
    let what = "the stream may use shared memory, so its socket alone is not the connection";
    Error::new(Reason::Unsupported, what).advising("turn the option shared_memory off").into()
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
    let set = set.and_then(|()| match socket_send_buffer_size(socket) {
        Ok(size) if platform::SIZES_ARE_CUT && size < bytes as usize => Err(Errno::NOBUFS),
        _ => Ok(()),
    });
    // These systems take no other size for any peer.
    let is_a_size = i32::try_from(bytes).is_ok_and(|bytes| bytes > 0);
    let set = if is_a_size { unless_gone(set) } else { set };
    set.map_err(|errno| {
        let error = io::Error::from(errno);
        let what = format!("the system refuses a send buffer of {bytes} bytes: {error}");
        Error::new(Reason::Os, what).caused_by(error).advising("choose a smaller one").into()
    })
}
