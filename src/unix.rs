//! Unix domain sockets.

mod access;
mod activation;
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
mod lock_query;
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

// The platform modules describe how each system behaves. They list the same items, so that code
// written for one of them compiles with all. `--cfg sockpipe_posix` runs FreeBSD's module on Linux,
// and `--cfg sockpipe_posix="darwin"` in addition runs macOS's.
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
#[cfg(all(
    feature = "tokio",
    any(target_os = "linux", target_os = "android"),
    not(sockpipe_posix)
))]
mod name_events;
#[cfg(any(target_os = "netbsd", sockpipe_posix = "netbsd"))]
mod netbsd;
#[cfg(any(target_os = "netbsd", sockpipe_posix = "netbsd"))]
use self::netbsd as platform;
#[cfg(any(target_os = "openbsd", sockpipe_posix = "openbsd"))]
mod openbsd;
#[cfg(any(target_os = "openbsd", sockpipe_posix = "openbsd"))]
use self::openbsd as platform;

// Code that several of these systems share.
#[cfg(not(any(target_vendor = "apple", sockpipe_posix = "darwin")))]
mod flags;
#[cfg(any(not(any(target_os = "linux", target_os = "android")), sockpipe_posix))]
mod posix;

/// The constants, layouts and calls that exist in one kernel only. Where that system cannot be run,
/// only the compiler checks their types.
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

// The shared-memory lane, or its stand-in where there is none.
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

pub(crate) use self::child::{OsDaemonOptions, is_reaped, leave, nameless_file, spawn_detached};
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

/// A call with more buffers fails as a whole. POSIX sets the same limit on all of these systems.
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

/// Returns `None` if the candidate has no file, or if its directory does not exist yet.
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

/// Converts a text of the OS into bytes to send to a program on the same OS.
pub(crate) fn bytes_of(text: &OsStr) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[allow(clippy::unnecessary_wraps, reason = "elsewhere not all bytes are a text")]
pub(crate) fn text_of(bytes: &[u8]) -> Option<OsString> {
    Some(OsString::from_vec(bytes.to_vec()))
}

/// Whether accept(2) failed because the client disconnected or a signal interrupted it: the next
/// call may succeed.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::INTR | Errno::CONNABORTED | Errno::PROTO)
}

/// Whether accept(2) failed for lack of descriptors or memory, or because a sandbox or a firewall
/// blocked the connection. The client stays in the backlog until that is over.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::PERM)
}

/// Whether a write failed because the peer is gone. It may have closed before the call; during it,
/// with unread bytes of ours (Linux); or during it in any way (macOS, older BSDs).
fn is_broken(errno: Errno) -> bool {
    matches!(errno, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
}

/// Logs that a listener ended and left its name behind, where no caller can receive the error.
fn release_failed(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::error!(%error, "a listener's name is left behind");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// The part of `buf` that one call takes.
#[inline]
fn at_most(buf: &[u8]) -> &[u8] {
    &buf[..buf.len().min(platform::MOST)]
}

/// The first of `bufs`, as many as one call takes. The list is empty if the first buffer alone is
/// too long.
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

/// Whether looking at a name failed for a transient reason, so that the failure does not show what
/// is there.
fn is_transient(errno: Errno) -> bool {
    is_shortage(errno) || matches!(errno, Errno::INTR | Errno::IO | Errno::AGAIN)
}

/// Shuts down the write side.
fn shut_down(socket: BorrowedFd<'_>) -> io::Result<()> {
    match shutdown(socket, Shutdown::Write) {
        // macOS: the peer is gone, so no one is left to see the end.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The error for a stream that may use shared memory.
fn socket_is_not_all() -> io::Error {
    let what = "the stream may use shared memory, so its socket alone is not the connection";
    Error::new(Reason::Unsupported, what).advising("turn the option shared_memory off").into()
}

/// Ignores the failure of an option that every socket with a live peer accepts. A socket whose peer
/// is gone is still useful: it can hold unread bytes, and then the end of file.
fn unless_gone(set: Result<(), Errno>) -> Result<(), Errno> {
    match set {
        Err(Errno::INVAL) if platform::OPTIONS_FAIL_WITHOUT_PEER => Ok(()),
        set => set,
    }
}

/// Applies the chosen options to one stream, or to a listener, whose streams inherit them.
fn prepare(socket: BorrowedFd<'_>, options: StreamOptions) -> io::Result<()> {
    let Some(bytes) = options.send_buffer_size else { return Ok(()) };
    let set = set_socket_send_buffer_size(socket, bytes as usize);
    let set = set.and_then(|()| match socket_send_buffer_size(socket) {
        Ok(size) if platform::SIZES_ARE_CUT && size < bytes as usize => Err(Errno::NOBUFS),
        _ => Ok(()),
    });
    // These systems refuse any other size, whether or not there is a peer.
    let is_a_size = i32::try_from(bytes).is_ok_and(|bytes| bytes > 0);
    let set = if is_a_size { unless_gone(set) } else { set };
    set.map_err(|errno| {
        let error = io::Error::from(errno);
        let what = format!("the system refuses a send buffer of {bytes} bytes: {error}");
        Error::new(Reason::Os, what).caused_by(error).advising("choose a smaller one").into()
    })
}
