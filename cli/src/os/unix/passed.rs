//! Sockets that were passed to this process: `fd:N`.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::net::getpeername;
use sockpipe::os::unix::{ListenerExt, StreamExt};
use sockpipe::{ListenOptions, Listener, Stream};

use crate::exit::{Exit, USAGE, at_endpoint};

/// The numbers of the passed connections that block. The runtime makes them nonblocking, also for
/// the other processes that share them. A listener stays nonblocking: a second server at it would
/// block in `accept`.
static BLOCKING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// # Errors
///
/// Fails if no open descriptor has that number.
pub fn check_passed(number: u32) -> Result<()> {
    let open = borrow(number).and_then(|passed| Ok(fcntl_getfd(passed)?));
    open.map(drop).map_err(|error| {
        let what = format!("cannot use fd:{number}: {error}; whoever starts this passes it");
        Exit::new(USAGE, what).into()
    })
}

/// Returns a listener for a passed listening socket.
pub fn passed_listener(number: u32, options: &ListenOptions) -> Result<Listener> {
    let socket = duplicate(number).map_err(|error| {
        let what = format!("cannot listen at fd:{number}: {error}; pass a socket that listens");
        Exit::new(USAGE, what)
    })?;
    if getpeername(&socket).is_ok() {
        let what = format!(
            "cannot listen at fd:{number}: it is connected; `connect` and `relay` take such a \
             socket"
        );
        return Err(Exit::new(USAGE, what).into());
    }
    Listener::from_fd(socket, options).map_err(|error| at_endpoint(error).into())
}

/// Returns a stream for a passed connected socket.
pub fn passed_stream(number: u32) -> Result<Stream> {
    stream(number).map_err(|error| {
        let what = format!("cannot use fd:{number}: {error}; pass a connected Unix domain socket");
        Exit::new(USAGE, what).into()
    })
}

fn stream(number: u32) -> io::Result<Stream> {
    let socket = duplicate(number)?;
    let blocks = !fcntl_getfl(&socket)?.contains(OFlags::NONBLOCK);
    let stream = Stream::from_fd(socket)?;
    if blocks {
        BLOCKING.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }
    Ok(stream)
}

/// Whether the socket has a peer, or had one that is gone.
pub fn passed_is_connected(number: u32) -> bool {
    let peer = borrow(number).and_then(|socket| Ok(getpeername(socket)?));
    peer.is_ok()
}

/// Makes those passed connections block again that blocked before. The tool calls it at its end; a
/// signal that terminates it leaves them nonblocking.
pub fn restore_passed() {
    let mut blocking = BLOCKING.lock().unwrap_or_else(PoisonError::into_inner);
    for number in blocking.drain(..) {
        let restored = borrow(number).and_then(|passed| {
            let flags = fcntl_getfl(passed)?;
            Ok(fcntl_setfl(passed, flags - OFlags::NONBLOCK)?)
        });
        // The process ends, and no caller could act on a failure.
        let _ = restored;
    }
}

/// Duplicates a passed descriptor, which stays open because other code may own the number. Commands
/// do not inherit it.
fn duplicate(number: u32) -> io::Result<OwnedFd> {
    let passed = borrow(number)?;
    let socket = fcntl_dupfd_cloexec(passed, 3)?;
    fcntl_setfd(passed, FdFlags::CLOEXEC)?;
    Ok(socket)
}

#[allow(unsafe_code, reason = "a number is all that there is of a passed descriptor")]
fn borrow(number: u32) -> io::Result<BorrowedFd<'static>> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: the number is not -1. The descriptor may not be open, and the calls that use it
    // report that.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}
