//! Sockets that were made elsewhere: verified before use, and never unlinked.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process;
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::peer::Peer;
use super::platform;
use super::sockname::SockName;
use crate::endpoint::{Endpoint, Form};

/// The first descriptor that a service manager passes: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// Verifies that `socket` listens, readies it, and gives its address.
pub(super) fn check_listener(socket: BorrowedFd<'_>) -> io::Result<Endpoint> {
    let endpoint = address(socket)?;
    ready(socket)?;
    Ok(endpoint)
}

/// The address of a `socket` that listens.
pub(super) fn address(socket: BorrowedFd<'_>) -> io::Result<Endpoint> {
    let name = check(socket)?;
    if !platform::listens(socket)? {
        return Err(wrong("it does not listen"));
    }
    endpoint(&name).ok_or_else(|| wrong("it has no name, or one that cannot be written"))
}

/// Verifies that `socket` is connected, and readies it.
pub(super) fn check_stream(socket: BorrowedFd<'_>) -> io::Result<()> {
    check(socket)?;
    if !has_or_had_peer(socket) {
        return Err(wrong("it is not connected"));
    }
    ready(socket)
}

/// Also of a peer that is gone: what it sent is still there to be read.
fn has_or_had_peer(socket: BorrowedFd<'_>) -> bool {
    // Who it was is known for as long as the socket is open.
    let had = || matches!(platform::listens(socket), Ok(false)) && Peer::of(socket).is_ok();
    SockName::peer(socket).is_ok() || platform::A_GONE_PEER_HAS_NO_NAME && had()
}

/// Whether the name of a listener that is not ours still leads to a socket: whose, cannot be told
/// without connecting to it.
pub(super) fn is_published(socket: BorrowedFd<'_>) -> bool {
    match SockName::own(socket).ok().as_ref().and_then(endpoint) {
        Some(Endpoint(Form::Path(path))) => path.exists(),
        Some(_) => true,
        None => false,
    }
}

fn check(socket: BorrowedFd<'_>) -> io::Result<SockName> {
    let name = SockName::own(socket).map_err(|_| wrong("it is not a socket"))?;
    if !name.is_unix() {
        return Err(wrong("it is not a Unix domain socket"));
    }
    if socket_type(socket)? != SocketType::STREAM {
        return Err(wrong("it is not a stream socket"));
    }
    Ok(name)
}

fn ready(socket: BorrowedFd<'_>) -> io::Result<()> {
    fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    platform::no_signals(socket)?;
    ioctl_fionbio(socket, true)?;
    Ok(())
}

fn endpoint(name: &SockName) -> Option<Endpoint> {
    if let Some(path) = name.path() {
        let path = Path::new(OsStr::from_bytes(path));
        return Endpoint::try_from(path).ok();
    }
    let name = std::str::from_utf8(name.after_nul()?).ok()?;
    (!name.contains('\0')).then(|| Endpoint(Form::Abstract(name.to_owned())))
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("cannot use this descriptor: {why}"))
}

/// What `listener` makes of each socket that a service manager passed to this very process, once. It
/// gets copies, and the sockets themselves are closed when it has made a listener of each.
pub(super) fn activated<L>(
    listener: impl Fn(OwnedFd) -> io::Result<L>,
) -> io::Result<Vec<(String, L)>> {
    static TAKEN: Mutex<bool> = Mutex::new(false);
    // One thread at a time: the first to come closes them.
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);

    // Of the process that set the variables for us, or for our parent, which left them.
    let ours = variable("LISTEN_PID")?.is_some_and(|pid| pid == u64::from(process::id()));
    let count = variable("LISTEN_FDS")?.unwrap_or(0);
    if !ours || count == 0 || *taken {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let numbers = FIRST..FIRST.saturating_add(i32::try_from(count).unwrap_or(i32::MAX));
    let mut found = Vec::new();
    for number in numbers.clone() {
        let no_listener = |why: &dyn fmt::Display| {
            let what =
                format!("LISTEN_FDS is {count}, and descriptor {number} is no listener: {why}");
            io::Error::new(ErrorKind::InvalidInput, what)
        };
        if !is_open(number) {
            return Err(no_listener(&"it is not open"));
        }
        // Before it is taken for ours: one that was not passed may be the program's own by now.
        address(look_at(number)).map_err(|error| no_listener(&error))?;
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        found.push((name.to_owned(), listener(look_at(number).try_clone_to_owned()?)?));
    }
    *taken = true;
    numbers.map(adopt).for_each(drop);
    Ok(found)
}

fn variable(name: &str) -> io::Result<Option<u64>> {
    let Some(text) = env::var_os(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        let what = format!("{name} is {text:?}, which is no number");
        io::Error::new(ErrorKind::InvalidInput, what)
    })
}

/// Not by the names in /dev/fd: FreeBSD has those of the first three only, and OpenBSD any.
#[allow(unsafe_code, reason = "a number in the environment is all that a descriptor comes as")]
fn is_open(number: RawFd) -> bool {
    // SAFETY: the call takes any number, and only reads the flags of a descriptor, if it is one.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

#[allow(unsafe_code, reason = "a number in the environment is all that a descriptor comes as")]
fn look_at(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the descriptor was seen to be open just before, and what is borrowed here is asked
    // about, or copied, and let go of; whoever else has it keeps it. No other thread is in the one
    // caller, which alone closes it.
    unsafe { BorrowedFd::borrow_raw(number) }
}

#[allow(unsafe_code, reason = "a number in the environment is all that a descriptor comes as")]
fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is an open socket that listens, and the service manager made it for
    // this process: LISTEN_PID names it. Nobody else in the process owns it, as the protocol gives
    // it to the first who asks, and this function's one caller asks once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
