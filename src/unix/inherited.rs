//! Sockets that were made elsewhere: verified before use, and never unlinked.

use std::env;
use std::io::{self, ErrorKind};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::sockopt::socket_type;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, getpeername, getsockname};

use super::platform;
use crate::endpoint::{Endpoint, Form};

/// The first descriptor that a service manager passes: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// Verifies that `socket` listens, readies it, and gives its address.
pub(super) fn check_listener(socket: &OwnedFd) -> io::Result<Endpoint> {
    let name = check(socket)?;
    if !platform::listens(socket)? {
        return Err(wrong("it does not listen"));
    }
    endpoint(&name).ok_or_else(|| wrong("it has no name"))
}

/// Verifies that `socket` is connected, and readies it.
pub(super) fn check_stream(socket: &OwnedFd) -> io::Result<()> {
    check(socket)?;
    getpeername(socket).map_err(|_| wrong("it is not connected"))?;
    Ok(())
}

/// Whether the name of a listener that is not ours still leads to a socket: whose, cannot be told
/// without connecting to it.
pub(super) fn is_published(socket: &OwnedFd) -> bool {
    let name = getsockname(socket).ok().and_then(|name| SocketAddrUnix::try_from(name).ok());
    match name.as_ref().and_then(endpoint) {
        Some(Endpoint(Form::Path(path))) => path.exists(),
        Some(_) => true,
        None => false,
    }
}

fn check(socket: &OwnedFd) -> io::Result<SocketAddrUnix> {
    let name = getsockname(socket).map_err(|_| wrong("it is not a socket"))?;
    if name.address_family() != AddressFamily::UNIX {
        return Err(wrong("it is not a Unix domain socket"));
    }
    if socket_type(socket)? != SocketType::STREAM {
        return Err(wrong("it is not a stream socket"));
    }
    fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(socket, true)?;
    SocketAddrUnix::try_from(name).map_err(|_| wrong("its address makes no sense"))
}

fn endpoint(name: &SocketAddrUnix) -> Option<Endpoint> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    if let Some(path) = name.path_bytes() {
        let path = Path::new(OsStr::from_bytes(path));
        return Endpoint::try_from(path).ok();
    }
    let name = platform::abstract_name(name)?;
    Some(Endpoint(Form::Abstract(String::from_utf8_lossy(name).into_owned())))
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("cannot use this descriptor: {why}"))
}

/// The descriptors that a service manager passed to this very process, once.
pub(super) fn activated() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);

    // Of the process that set the variables for us, or for our parent, which left them.
    let ours = variable("LISTEN_PID")?.is_some_and(|pid| pid == u64::from(process::id()));
    let count = variable("LISTEN_FDS")?.unwrap_or(0);
    if !ours || count == 0 || TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut found = Vec::new();
    for number in FIRST..FIRST.saturating_add(i32::try_from(count).unwrap_or(i32::MAX)) {
        if !Path::new("/dev/fd").join(number.to_string()).exists() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("LISTEN_FDS is {count}, and descriptor {number} is not open"),
            ));
        }
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        found.push((name.to_owned(), adopt(number)));
    }
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

#[allow(unsafe_code, reason = "a number in the environment is all that a descriptor comes as")]
fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is open, and the service manager made it for this process: LISTEN_PID
    // names it. Nobody else in the process owns it, as the protocol gives it to the first who
    // asks, and this function's one caller asks once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
