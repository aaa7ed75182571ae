//! Sockets that a service manager passes to this process: sd_listen_fds(3), and the standard input
//! of inetd.

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process;
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::inherited;
use crate::error::{Error, Reason};

/// The first descriptor that a service manager passes: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// The numbers of the descriptors that were taken already. Each is passed once; a later descriptor
/// with the same number belongs to the program.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// A descriptor that a service manager passed, from
/// [`activated_descriptors`](super::ext::activated_descriptors).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activated {
    /// The name that the unit gives it (`FileDescriptorName=`), `unknown` where it gives none.
    pub name: String,
    /// Its number.
    pub number: RawFd,
    /// What this crate can make of it.
    pub kind: ActivatedKind,
}

/// What a descriptor is that a service manager passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivatedKind {
    /// A Unix domain stream socket that listens.
    Listener,
    /// A connected Unix domain stream socket, as of a unit with `Accept=yes`.
    Stream,
    /// Something else: a TCP or datagram socket, a FIFO, a stored file. It is left to the program.
    Other,
}

/// Returns the descriptors that were passed to this process and not taken yet.
pub(super) fn passed() -> io::Result<Vec<Activated>> {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    look(&taken)
}

fn look(taken: &BTreeSet<RawFd>) -> io::Result<Vec<Activated>> {
    // Otherwise the variables are meant for another process, such as the parent, which left them
    // set.
    let ours = variable("LISTEN_PID")?.is_some_and(|pid| pid == u64::from(process::id()));
    let count = variable("LISTEN_FDS")?.unwrap_or(0);
    if !ours || count == 0 {
        return Ok(Vec::new());
    }

    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut found = Vec::new();
    for number in FIRST..FIRST.saturating_add(i32::try_from(count).unwrap_or(i32::MAX)) {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        if taken.contains(&number) {
            continue;
        }

        if !is_open(number) {
            let what = format!("LISTEN_FDS is {count}, and descriptor {number} is not open");
            return Err(unusable(what));
        }
        // As sd_listen_fds(3) does: the descriptors are for this process, not for its children.
        fcntl_setfd(look_at(number), FdFlags::CLOEXEC)?;
        let kind = kind(look_at(number));
        found.push(Activated { name: name.to_owned(), number, kind });
    }
    Ok(found)
}

fn kind(descriptor: BorrowedFd<'_>) -> ActivatedKind {
    if inherited::address(descriptor).is_ok() {
        ActivatedKind::Listener
    } else if inherited::is_connected(descriptor) {
        ActivatedKind::Stream
    } else {
        ActivatedKind::Other
    }
}

/// Calls `listener` with a copy of each listening socket, and returns the results. The sockets
/// themselves are closed once all calls have succeeded. An error leaves them all for the next call.
pub(super) fn listeners<L>(
    listener: impl Fn(OwnedFd) -> io::Result<L>,
) -> io::Result<Vec<(String, L)>> {
    // One thread at a time, because the first one closes the sockets.
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    let mut numbers = Vec::new();
    for Activated { name, number, kind } in look(&taken)? {
        if kind == ActivatedKind::Listener {
            let copy = fcntl_dupfd_cloexec(look_at(number), FIRST)?;
            found.push((name, listener(copy)?));
            numbers.push(number);
        }
    }
    for number in numbers {
        taken.insert(number);
        drop(adopt(number));
    }
    Ok(found)
}

/// Returns the connection that this process was started for: the descriptor of a unit with
/// `Accept=yes`, or the standard input that inetd passes for `nowait`.
pub(super) fn stream() -> io::Result<Option<OwnedFd>> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let passed = look(&taken)?;
    if let Some(found) = passed.iter().find(|found| found.kind == ActivatedKind::Stream) {
        taken.insert(found.number);
        return Ok(Some(adopt(found.number)));
    }

    if !is_open(0) || !taken.insert(0) {
        return Ok(None);
    }
    let input = look_at(0);
    if kind(input) != ActivatedKind::Stream {
        taken.remove(&0);
        return Ok(None);
    }

    let stream = fcntl_dupfd_cloexec(input, FIRST)?;
    give_up_standard_streams()?;
    Ok(Some(stream))
}

/// inetd passes the connection as all three standard streams. While one of them is open, the peer
/// does not see the end of the stream.
fn give_up_standard_streams() -> io::Result<()> {
    let empty = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let is_the_connection =
        |number: RawFd| is_open(number) && kind(look_at(number)) == ActivatedKind::Stream;
    rustix::stdio::dup2_stdin(&empty)?;
    if is_the_connection(1) {
        rustix::stdio::dup2_stdout(&empty)?;
    }
    if is_the_connection(2) {
        rustix::stdio::dup2_stderr(&empty)?;
    }
    Ok(())
}

fn variable(name: &str) -> io::Result<Option<u64>> {
    let Some(text) = env::var_os(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| unusable(format!("{name} is {text:?}, not a number")))
}

fn unusable(what: String) -> io::Error {
    Error::new(Reason::UnusableDescriptor, what).into()
}

#[allow(unsafe_code, reason = "a number in the environment is all that a descriptor comes as")]
fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD reads the flags of a descriptor and takes no pointer; for a number that is
    // none it fails with EBADF. It needs neither /proc nor /dev/fd.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

#[allow(unsafe_code, reason = "a number in the environment is all that a descriptor comes as")]
fn look_at(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the descriptor was open just before. The borrow serves only to query or copy it, and
    // ends before it is closed: the callers hold `TAKEN`, and only they close it. If other code
    // owns the descriptor, it keeps it.
    unsafe { BorrowedFd::borrow_raw(number) }
}

#[allow(unsafe_code, reason = "a number in the environment is all that a descriptor comes as")]
fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is an open socket, and the service manager made it for this process:
    // LISTEN_PID names it. By that protocol it belongs to the first code that asks for it, and
    // `TAKEN` lets this function's callers ask once for each number.
    unsafe { OwnedFd::from_raw_fd(number) }
}
