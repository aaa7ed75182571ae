//! Named pipes.

mod accept;
mod arming;
#[cfg(feature = "blocking")]
pub(crate) mod blocking;
mod connect;
mod convert;
mod end;
pub mod ext;
#[cfg(feature = "interprocess")]
pub(crate) mod interprocess;
#[cfg(feature = "tokio")]
mod listener;
mod options;
mod overlapped;
mod pipe;
mod process;
#[cfg(feature = "tokio")]
mod reactor;
#[cfg(feature = "tokio")]
mod registered;
mod security;
#[cfg(feature = "blocking")]
pub(crate) mod signal;
mod spawn;
#[cfg(feature = "tokio")]
mod stream;
mod system;
#[cfg(all(test, feature = "tokio"))]
mod tests;
pub(crate) mod worker;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY};

pub(crate) use self::options::{EndOnClose, OsListenOptions, Spin, end_on_close, spin};
#[cfg(feature = "shared-memory")]
pub(crate) use self::options::{Memory, memory};
use self::pipe::Presence;
use self::security::own_sid;
pub(crate) use self::spawn::{
    OsDaemonOptions, SpawnLock, is_reaped, leave, nameless_file, spawn_detached,
};
#[cfg(feature = "tokio")]
pub(crate) use self::{
    listener::Listener,
    reactor::{can_accept, shutdown_signal, sleep},
    stream::Stream,
};
use crate::candidate::Candidate;
use crate::candidate::Occupancy;
use crate::candidate::resolve::{Environment, Family, candidates};
use crate::endpoint::Endpoint;
use crate::error::{self, Error, Operation, Reason, held_by_connections, live_server};
use crate::peer::UserId;

/// The longest `\\.\pipe\NAME` that the system takes, in UTF-16 units.
const PATH_LIMIT: usize = 256;
/// The most bytes that one write hands to the system. If the process ends without `close`, at most
/// this much of the written data is lost.
const CHUNK: usize = 64 * 1024;

/// Converts a text of the OS into bytes to send to a program on the same OS: its UTF-16, which may
/// be invalid.
pub(crate) fn bytes_of(text: &OsStr) -> Vec<u8> {
    text.encode_wide().flat_map(u16::to_le_bytes).collect()
}

pub(crate) fn text_of(bytes: &[u8]) -> Option<OsString> {
    let units = bytes.chunks_exact(2);
    let whole = units.remainder().is_empty();
    let units: Vec<_> = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    whole.then(|| OsString::from_wide(&units))
}

pub(crate) fn current_user() -> io::Result<UserId> {
    own_sid().map(|sid| UserId::Sid(sid.to_owned()))
}

pub(crate) fn environment() -> io::Result<Environment> {
    Ok(Environment {
        family: Family::of(std::env::consts::OS),
        user: current_user()?,
        runtime_dir: None,
        user_temp_dir: || None,
        session: security::own_session,
    })
}

pub(crate) fn occupancy(candidate: &Candidate) -> io::Result<Occupancy> {
    let address = resolve(&candidate.address())?;
    match pipe::presence(&address.to_string()) {
        Presence::There => Ok(Occupancy::Held { process: None }),
        Presence::Orphaned => Ok(Occupancy::HeldByConnections),
        Presence::Absent => Ok(Occupancy::Free),
        Presence::Unknown(Some(code)) => {
            Err(error::os(address, io::Error::from_raw_os_error(code as i32)))
        }
        Presence::Unknown(None) => {
            let what = format!("cannot determine whether a pipe exists at {address}");
            Err(io::Error::other(what))
        }
    }
}

/// Never removes anything: the system frees a pipe's name when the last handle is closed.
pub(crate) fn remove_stale(candidate: &Candidate) -> io::Result<bool> {
    match occupancy(candidate)? {
        Occupancy::Held { process } => Err(live_server(candidate.address(), process)),
        Occupancy::HeldByConnections => Err(held_by_connections(candidate.address())),
        _ => Ok(false),
    }
}

/// Returns the address, with a portable name resolved.
fn resolve(endpoint: &Endpoint) -> io::Result<Endpoint> {
    // Windows has exactly one candidate.
    let address = match candidates(endpoint, &environment()?)?.first() {
        Some(candidate) => candidate.address(),
        None => endpoint.clone(),
    };
    let length = address.to_string().encode_utf16().count();
    if length > PATH_LIMIT {
        let reason = format!("pipe path of {length} characters exceeds the limit of {PATH_LIMIT}");
        return Err(error::too_long(&address, reason));
    }
    Ok(address)
}

/// Checks that nothing holds the name once its listener is closed.
fn released(address: &Endpoint) -> io::Result<()> {
    match pipe::presence(&address.to_string()) {
        Presence::There | Presence::Orphaned => Err(held_by_connections(address)),
        Presence::Absent | Presence::Unknown(_) => Ok(()),
    }
}

/// Fails if a live server holds the name. The system refuses a second server too, but its error can
/// also have other causes.
fn refuse_present(address: &Endpoint) -> io::Result<()> {
    let path = address.to_string();
    if matches!(pipe::presence(&path), Presence::Absent | Presence::Unknown(_)) {
        return Ok(());
    }
    // The reactor closes what this process dropped, and may not have done so yet.
    #[cfg(feature = "tokio")]
    reactor::settle();
    match pipe::presence(&path) {
        Presence::There => Err(live_server(address, None)),
        // The remains of a crashed server's pipe may be taken over.
        Presence::Orphaned | Presence::Absent | Presence::Unknown(_) => Ok(()),
    }
}

fn cannot_listen(address: &Endpoint, path: &str, error: io::Error) -> io::Error {
    if !matches!(system::code(&error), Some(ERROR_ACCESS_DENIED | ERROR_PIPE_BUSY)) {
        return error::os(address, error);
    }

    match pipe::presence(path) {
        Presence::There => live_server(address, None),
        Presence::Orphaned => held_by_connections(address),
        Presence::Absent | Presence::Unknown(_) => error::os(address, error),
    }
}

/// The error for a further instance of a pipe whose first instance is ours.
fn cannot_add(address: &Endpoint, error: io::Error) -> io::Error {
    let what = if system::code(&error) == Some(ERROR_ACCESS_DENIED) {
        "its security descriptor does not let this user add instances of it (0x4, as in GA)"
    } else {
        "another instance of the pipe cannot be made"
    };
    Error::new(Reason::Os, format!("{what}: {error}")).at(address).caused_by(error).into()
}

fn broken_pipe() -> io::Error {
    io::Error::from(io::ErrorKind::BrokenPipe)
}

fn no_half_close() -> io::Error {
    let what = "the pipe is of byte type and cannot carry the end of one direction; the peer reads \
                it when the stream is closed";
    let error = Error::new(Reason::NoHalfClose, what)
        .advising("ConnectOptions::end_on_close leaves it to that");
    error.in_operation(Operation::Shutdown).into()
}

fn not_taken(deadline: Duration) -> io::Error {
    let what = format!(
        "the peer did not read all data within {} s; the rest still arrives while this process \
         lives",
        deadline.as_secs_f32()
    );
    Error::new(Reason::Deadline, what).in_operation(Operation::Shutdown).into()
}
