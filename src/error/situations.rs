//! The errors that several modules return.

use std::borrow::Borrow;
use std::fmt;
use std::io;
use std::time::Duration;

use super::{Error, Operation, Reason, during};
use crate::endpoint::{Endpoint, ParseEndpointError};

/// A live server holds the name: `process`, if that is known.
pub(crate) fn live_server(endpoint: impl Borrow<Endpoint>, process: Option<u32>) -> io::Error {
    let holder = process.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let cause = format!("a server is already listening there{holder}");
    Error::new(Reason::LiveServer { process }, cause).at(endpoint).into()
}

/// Connections of a former server hold the name.
pub(crate) fn held_by_connections(endpoint: impl Borrow<Endpoint>) -> io::Error {
    let cause =
        "no server listens there, and connections still hold the name until they are closed";
    let error = Error::new(Reason::HeldByConnections, cause).at(endpoint);
    error
        .advising("end the clients of the server that was there, or choose another endpoint")
        .into()
}

pub(crate) fn no_server(endpoint: impl Borrow<Endpoint>) -> io::Error {
    Error::new(Reason::NoServer, "").at(endpoint).into()
}

pub(crate) fn busy(endpoint: impl Borrow<Endpoint>, limit: Duration) -> io::Error {
    let limit = limit.as_secs_f32();
    let cause = format!("the server was too busy to answer within {limit} s");
    let error = Error::new(Reason::Deadline, cause).at(endpoint);
    error.advising("try again, or raise ConnectOptions::deadline").into()
}

/// The permissions of `what` do not allow this user to connect.
pub(crate) fn peer_refused(
    endpoint: impl Borrow<Endpoint>,
    what: &str,
    error: impl Into<io::Error>,
) -> io::Error {
    let cause = format!("the permissions of {what} refuse this user");
    Error::new(Reason::PeerRefused, cause).caused_by(error.into()).at(endpoint).into()
}

pub(crate) fn unexpected_server(
    endpoint: impl Borrow<Endpoint>,
    user: impl fmt::Display,
    expected: impl fmt::Display,
) -> io::Error {
    let cause = format!("it runs as {user}, not as {expected}");
    let error = Error::new(Reason::UnexpectedServer, cause).at(endpoint);
    error.advising("if you trust that user, allow it with ConnectOptions::expect_server").into()
}

/// The name was taken until the limit of `bind_wait`.
pub(crate) fn still_taken(limit: Duration, error: io::Error) -> io::Error {
    let (endpoint, holds) = match Error::of(&error) {
        Some(known) => (known.endpoint.clone(), known.cause.clone()),
        None => (None, error.to_string()),
    };
    let cause = format!("waited {} s for the name: {holds}", limit.as_secs_f32());
    let advice = "stop it, or choose another endpoint";
    let error = Error::new(Reason::Deadline, cause).advising(advice).caused_by(error);
    Error { endpoint, ..error }.into()
}

/// No client connected within the limit of `accept_timeout`.
#[cfg(feature = "blocking")]
pub(crate) fn no_client(endpoint: &Endpoint, limit: Duration) -> io::Error {
    let cause = format!("no client connected within {} s", limit.as_secs_f32());
    during(Operation::Accept, endpoint, Error::new(Reason::Deadline, cause).into())
}

/// `unblock` has ended `accept`.
#[cfg(feature = "blocking")]
pub(crate) fn stopped() -> io::Error {
    Error::new(Reason::Stopped, "the listener was stopped by unblock").into()
}

/// `accept` failed permanently.
pub(crate) fn accept_failed(endpoint: &Endpoint, error: io::Error) -> io::Error {
    let error = match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::from_foreign(error).advising("bind a new listener"),
    };
    during(Operation::Accept, endpoint, error.into())
}

pub(crate) fn too_long(endpoint: &Endpoint, reason: String) -> io::Error {
    let error = Error::new(Reason::NameTooLong, reason.clone());
    error.at(endpoint).caused_by(ParseEndpointError::new(endpoint, reason)).into()
}

/// This OS has no such endpoint.
pub(crate) fn not_here(endpoint: &Endpoint, why: &str) -> io::Error {
    let error = Error::new(Reason::Unsupported, why).at(endpoint);
    error.in_operation(Operation::Resolve).into()
}
