//! Finds the server for a client, and checks that it is the right one.

use std::io;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, ERROR_PIPE_BUSY};

use super::pipe::{self, Opened};
use super::resolve;
use super::security::{self, own_sid};
use super::system;
use crate::endpoint::Endpoint;
use crate::error::{self, Error, Reason};
use crate::options::{ConnectOptions, ExpectServer};
use crate::peer::{ADMINISTRATORS, SYSTEM, UserId};
use crate::wait::Backoff;

/// Bounds of the random part of the pause between attempts. The pauses start short, because a
/// server soon replaces an instance that was taken.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(32));

/// Attempts to open the pipe, repeated until there is a server or no time left.
pub(super) struct Search<'a> {
    address: Endpoint,
    path: String,
    options: &'a ConnectOptions,
    started: Instant,
    backoff: Backoff,
}

impl<'a> Search<'a> {
    pub(super) fn new(endpoint: &Endpoint, options: &'a ConnectOptions) -> io::Result<Self> {
        let address = resolve(endpoint)?;
        let path = address.to_string();
        Ok(Self { address, path, options, started: Instant::now(), backoff: PAUSES })
    }

    /// Returns the end of a pipe whose server is the right one, or how long to wait before the next
    /// attempt.
    pub(super) fn attempt(&mut self) -> io::Result<Result<Opened, Duration>> {
        let error = match self.open() {
            Ok(opened) => return Ok(Ok(opened)),
            Err(error) => error,
        };
        let (address, limit) = (&self.address, self.options.limit());
        let (failure, may_wait) = match system::code(&error) {
            Some(ERROR_PIPE_BUSY) => (error::busy(address, limit), true),
            // The server closed the instance that we were about to get.
            Some(_) if pipe::is_gone(&error) => (error::busy(address, limit), true),
            Some(ERROR_FILE_NOT_FOUND) => {
                (error::no_server(address), self.options.wait_for_server.is_some())
            }
            Some(ERROR_ACCESS_DENIED) => (error::peer_refused(address, "the pipe", error), false),
            Some(_) => (error::os(address, error), false),
            None => (error, false),
        };
        let left = limit.saturating_sub(self.started.elapsed());
        if !may_wait || left.is_zero() {
            return Err(failure);
        }
        let random = pipe::random() % self.backoff.pause().as_micros() as u64;
        let pause = Duration::from_micros(500 + random);
        Ok(Err(pause.min(left)))
    }

    fn open(&self) -> io::Result<Opened> {
        let opened = pipe::open(&self.path)?;
        let expect = &self.options.expect_server;
        if !matches!(expect, ExpectServer::Anyone) {
            check_owner(&self.address, security::owner_sid(&opened)?.as_deref(), expect)?;
        }
        Ok(opened)
    }
}

/// Checks that a pipe with this owner belongs to an expected server.
pub(super) fn check_owner(
    address: &Endpoint,
    owner: Option<&str>,
    expect: &ExpectServer,
) -> io::Result<()> {
    let (users, expected) = match expect {
        ExpectServer::Anyone => return Ok(()),
        ExpectServer::Default => {
            let own = own_sid()?;
            (vec![own, SYSTEM, ADMINISTRATORS], format!("{own}, SYSTEM or Administrators"))
        }
        ExpectServer::User(UserId::Sid(sid)) => {
            let expected = format!("{sid}, SYSTEM or Administrators");
            (vec![sid.as_str(), SYSTEM, ADMINISTRATORS], expected)
        }
        // The strict form: SYSTEM and Administrators are not accepted in its place.
        ExpectServer::Exactly(UserId::Sid(sid)) => (vec![sid.as_str()], sid.clone()),
        ExpectServer::User(user @ UserId::Uid(_))
        | ExpectServer::Exactly(user @ UserId::Uid(_)) => {
            let what = format!("cannot expect {user}: users have SIDs here, no uids");
            return Err(Error::new(Reason::Unsupported, what).at(address).into());
        }
    };

    if owner.is_some_and(|sid| users.iter().any(|user| user.eq_ignore_ascii_case(sid))) {
        return Ok(());
    }
    let who = owner.unwrap_or("a user it does not name");
    Err(error::unexpected_server(address, who, expected))
}
