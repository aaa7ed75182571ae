//! The errors that every backend has, in the same words: each names the endpoint and the next step.

use std::fmt::Display;
use std::io::{Error, ErrorKind};
use std::time::Duration;

/// What to do when there is no server.
pub(crate) const START_IT: &str =
    "start it first, or wait for it with ConnectOptions::wait_for_server";

/// An error of the OS as it came, with what it kept us from; one that says so already is left alone.
pub(crate) fn cannot(what: &str, endpoint: impl Display, error: Error) -> Error {
    if error.raw_os_error().is_none() {
        return error;
    }
    Error::new(error.kind(), format!("cannot {what} {endpoint}: {error}"))
}

/// `holder` is the process that has the name, where that can be told.
pub(crate) fn in_use(address: impl Display, holder: Option<u32>) -> Error {
    let holder = holder.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    Error::new(
        ErrorKind::AddrInUse,
        format!(
            "cannot listen on {address}: a server is already listening there{holder}; stop it, or \
             choose another endpoint"
        ),
    )
}

/// `bind_wait` found the name taken until the end.
pub(crate) fn still_taken(limit: Duration, error: &Error) -> Error {
    let what = format!("waited {} s for the name: {error}", limit.as_secs_f32());
    Error::new(ErrorKind::TimedOut, what)
}

/// `accept_timeout` came to its end.
#[cfg(feature = "blocking")]
pub(crate) fn nobody_came(address: impl Display, limit: Duration) -> Error {
    let what = format!("no client came to {address} within {} s", limit.as_secs_f32());
    Error::new(ErrorKind::TimedOut, what)
}

/// `accept` cannot go on.
pub(crate) fn deaf(address: impl Display, error: &Error) -> Error {
    let what = format!("cannot accept on {address} any more: {error}; listen on it anew");
    Error::new(error.kind(), what)
}

pub(crate) fn nobody(at: impl Display) -> Error {
    Error::new(ErrorKind::NotFound, format!("no server at {at}: {START_IT}"))
}

pub(crate) fn busy(address: impl Display, limit: Duration) -> Error {
    Error::new(
        ErrorKind::TimedOut,
        format!(
            "the server at {address} was too busy to answer within {} s; try again, or raise \
             ConnectOptions::deadline",
            limit.as_secs_f32()
        ),
    )
}

pub(crate) fn not_let_in(address: impl Display) -> Error {
    let what = format!("the server at {address} does not let this user in");
    Error::new(ErrorKind::PermissionDenied, what)
}

pub(crate) fn impostor(address: impl Display, who: impl Display, expected: impl Display) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "refused the server at {address}: it runs as {who}, not as {expected}; if that is \
             right, say so with ConnectOptions::expect_server"
        ),
    )
}
