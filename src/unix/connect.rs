//! Finding the server: every address of an endpoint in turn, again while it is worth waiting.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, connect as connect_to};
use rustix::process::geteuid;

use super::access::is_own;
use super::hints;
use super::lock::{self, Held};
use super::peer::Peer;
use super::place::{self, Place};
use super::{environment, platform};
use crate::candidate::resolve::candidates;
use crate::candidate::{Candidacy, Candidate};
use crate::endpoint::{Endpoint, Form};
use crate::error::{self, Error, Reason};
use crate::options::{ConnectOptions, ExpectServer};
use crate::peer::UserId;
use crate::wait::Backoff;

/// Waits between tries.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));

/// How long a name may have no server while somebody holds it: between the calls with which a
/// server takes it, or gives it back. They take microseconds, unless it is kept from running.
const GAP: Duration = Duration::from_secs(1);
/// The same where it cannot be told whether somebody does: another user's lock is not to be read.
const OTHERS_GAP: Duration = Duration::from_millis(100);

/// One connection attempt after another, until there is a server or no time left.
pub(super) struct Search<'a> {
    endpoint: &'a Endpoint,
    candidates: Vec<Candidate>,
    options: &'a ConnectOptions,
    started: Instant,
    backoff: Backoff,
    /// Since when the name has been held without a server.
    gap: Option<Instant>,
}

impl<'a> Search<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, options: &'a ConnectOptions) -> io::Result<Self> {
        let candidates = candidates(endpoint, &environment()?)?;
        Ok(Self {
            endpoint,
            candidates,
            options,
            started: Instant::now(),
            backoff: PAUSES,
            gap: None,
        })
    }

    /// A connected socket, which does not block, and its server, which is the right one; or how
    /// long to wait before the next attempt.
    pub(super) fn attempt(&mut self) -> io::Result<Result<(OwnedFd, Peer), Duration>> {
        let limit = self.options.limit();
        let waits = self.options.wait_for_server.is_some();

        let attempt = try_all(self.endpoint, &self.candidates);
        if !matches!(attempt, Attempt::Gap(..) | Attempt::Perhaps(_)) {
            self.gap = None;
        }

        let (failure, may_wait) = match attempt {
            Attempt::Connected(socket, address) => {
                let peer = Peer::of(socket.as_fd())?;
                check_server(&self.options.expect_server, peer.uid, &address)?;
                return Ok(Ok((socket, peer)));
            }

            Attempt::Busy(address) => (error::busy(address, limit), true),
            Attempt::Gap(address, holder) => {
                let since = self.gap.get_or_insert_with(Instant::now);
                let may_wait = waits || since.elapsed() < GAP;
                (name_without_server(address, holder), may_wait)
            }
            Attempt::Perhaps(error) => {
                let since = self.gap.get_or_insert_with(Instant::now);
                (error, waits || since.elapsed() < OTHERS_GAP)
            }
            Attempt::Nobody(error) => (error, waits),
            Attempt::Failed(error) => (error, false),
        };

        let left = limit.saturating_sub(self.started.elapsed());
        if !may_wait || left.is_zero() {
            return Err(self.explained(failure));
        }
        Ok(Err(jittered(self.backoff.pause()).min(left)))
    }
}

impl Search<'_> {
    /// That there is no server, with what may hide it.
    fn explained(&self, failure: io::Error) -> io::Error {
        let Some(known) = Error::of(&failure).filter(|known| *known.reason() == Reason::NoServer)
        else {
            return failure;
        };
        let Some(hint) = hints::hint(self.endpoint, &self.candidates) else { return failure };
        let looked = looked_for(&self.candidates);
        let endpoint = known.endpoint().unwrap_or(self.endpoint);
        Error::new(Reason::NoServer, format!("{looked}; {hint}")).at(endpoint).into()
    }
}

/// What came of trying every address of an endpoint once.
enum Attempt {
    Connected(OwnedFd, Endpoint),
    /// A server is there, and its backlog is full.
    Busy(Endpoint),
    /// Somebody holds the name, and there is no server: it is starting or ending, or has lost its
    /// name. Which process that is, where it can be told.
    Gap(Endpoint, Option<u32>),
    /// There is no server that answers, and another user's may hold the name.
    Perhaps(io::Error),
    /// There is no server: it may be started yet.
    Nobody(io::Error),
    Failed(io::Error),
}

fn try_all(endpoint: &Endpoint, candidates: &[Candidate]) -> Attempt {
    let (mut absent, mut stale, mut gap, mut stopping) = (None, None, None, None);
    let mut perhaps = false;
    for candidate in candidates {
        let address = candidate.address();
        let tried = match &candidate.place {
            Candidacy::Path(path) => match try_path(path) {
                Some(socket) => Ok(socket),
                None => Place::of_path(path).map_err(Missed::Other).and_then(try_place),
            },
            // What stands in a directory that is not the user's own is not the user's server.
            Candidacy::UserDir { dir, file } | Candidacy::PrivateDir { dir, file } => {
                match Place::in_user_dir(dir, file) {
                    Ok(Some(place)) => try_place(place),
                    Ok(None) => continue,
                    Err(error) => Err(Missed::Other(error)),
                }
            }
            Candidacy::Abstract(name) => try_abstract(name),
            Candidacy::Pipe(_) => continue,
        };
        match tried {
            Ok(socket) => return Attempt::Connected(socket, address),
            Err(Missed::Busy) => return Attempt::Busy(address),
            // A server in another place keeps it from starting in this one.
            Err(Missed::Gap(holder)) => gap = gap.or(Some((address, holder))),
            Err(Missed::Stopping(holder)) => stopping = stopping.or(Some((address, holder))),
            Err(missed) => {
                perhaps |= matches!(missed, Missed::Perhaps(_));
                let (Missed::Perhaps(error) | Missed::Other(error)) = missed else { continue };
                match error.kind() {
                    ErrorKind::NotFound => absent = Some(error),
                    ErrorKind::ConnectionRefused => stale = stale.or(Some(error)),
                    _ => return Attempt::Failed(error),
                }
            }
        }
    }

    if let Some((address, holder)) = gap {
        return Attempt::Gap(address, holder);
    }
    if let Some((address, holder)) = stopping {
        return Attempt::Nobody(server_stopping(address, holder));
    }

    let error = match (stale, absent, candidates) {
        (Some(stale), ..) => stale,
        (None, Some(absent), [_]) => absent,
        _ => Error::new(Reason::NoServer, looked_for(candidates)).at(endpoint).into(),
    };
    if perhaps { Attempt::Perhaps(error) } else { Attempt::Nobody(error) }
}

/// Why one address did not do.
enum Missed {
    Busy,
    Gap(Option<u32>),
    /// Another user's server may be in that gap.
    Perhaps(io::Error),
    Stopping(Option<u32>),
    Other(io::Error),
}

impl From<io::Error> for Missed {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

/// One try, on a socket of its own; the inner error is that of `connect`.
pub(super) fn try_address(address: &SocketAddrUnix) -> io::Result<Result<OwnedFd, Errno>> {
    let socket = platform::socket()?;
    Ok(connect_to(&socket, address).map(|()| socket))
}

/// The path as it stands, which is all there is to a connection most of the time. Where it does not
/// do, a look at the place says why, or finds a way around a path that is too long.
fn try_path(path: &Path) -> Option<OwnedFd> {
    if path.as_os_str().len() > platform::PATH_LIMIT {
        return None;
    }
    try_address(&SocketAddrUnix::new(path).ok()?).ok()?.ok()
}

fn try_abstract(name: &[u8]) -> Result<OwnedFd, Missed> {
    let address = Endpoint(Form::Abstract(name.to_owned()));
    match try_address(&platform::abstract_address(name)?)? {
        Ok(socket) => Ok(socket),
        Err(Errno::AGAIN | Errno::INTR | Errno::INPROGRESS) => Err(Missed::Busy),
        Err(Errno::CONNREFUSED) => Err(error::no_server(address).into()),
        Err(errno) => Err(error::os(address, errno).into()),
    }
}

/// `process` finishes its last connections there, if it is known.
fn server_stopping(endpoint: Endpoint, process: Option<u32>) -> io::Error {
    let holder = process.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let cause = format!("the server there{holder} is stopping");
    let error = Error::new(Reason::Stopping { process }, cause).at(endpoint);
    error.advising("wait for the next one with ConnectOptions::wait_for_server").into()
}

fn try_place(place: Place) -> Result<OwnedFd, Missed> {
    let errno = match try_address(&place.address(place.name())?)? {
        Ok(socket) => return Ok(socket),
        Err(errno) => errno,
    };
    let address = place.endpoint();
    let (reason, why) = match errno {
        // Not started: the attempt after the pause is a new one, on a new socket.
        Errno::AGAIN | Errno::INTR | Errno::INPROGRESS => return Err(Missed::Busy),
        Errno::NOENT => match lock::holding(&place)? {
            Held::By(process) => return Err(Missed::Gap(process)),
            Held::Stopping(process) => return Err(Missed::Stopping(process)),
            Held::Perhaps => return Err(Missed::Perhaps(error::no_server(address))),
            Held::ByNobody => return Err(error::no_server(address).into()),
        },

        Errno::CONNREFUSED | Errno::NOTSOCK => match place.what_stands_there()? {
            Some(what) if what != place::SOCKET => {
                (Reason::NotASocket, format!("the path is {what}, not a socket"))
            }
            _ => match lock::holding(&place)? {
                Held::By(_) if platform::REFUSED_MAY_BE_BUSY => return Err(Missed::Busy),
                Held::By(process) => return Err(Missed::Gap(process)),
                Held::Stopping(process) => return Err(Missed::Stopping(process)),
                Held::Perhaps => return Err(Missed::Perhaps(stale(address, errno))),
                Held::ByNobody => return Err(stale(address, errno).into()),
            },
        },

        Errno::PROTOTYPE => {
            (Reason::NotASocket, "it is a socket of another type, not a stream".to_owned())
        }
        Errno::ACCESS | Errno::PERM => {
            let what = "the socket, or of a directory above it,";
            return Err(error::peer_refused(address, what, errno).into());
        }
        errno => return Err(error::os(address, errno).into()),
    };

    let error = Error::new(reason, why).at(address).caused_by(io::Error::from(errno));
    Err(io::Error::from(error).into())
}

fn stale(address: Endpoint, errno: Errno) -> io::Error {
    let error =
        Error::new(Reason::StaleSocket, ", only the socket that a crashed server left behind");
    error.at(address).caused_by(io::Error::from(errno)).into()
}

/// `process` holds the name, if it is known.
fn name_without_server(address: Endpoint, process: Option<u32>) -> io::Error {
    let holder = process.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
    let cause = format!("name without server: {holder} holds the name, and no server answers");
    let error = Error::new(Reason::NameWithoutServer { process }, cause).at(address);
    error.advising("check that process, or stop it").into()
}

/// Where it was looked for, if that is more than one address.
fn looked_for(candidates: &[Candidate]) -> String {
    if candidates.len() < 2 {
        return String::new();
    }
    let places: Vec<_> = candidates.iter().map(|place| place.address().to_string()).collect();
    let mut looked = format!(" of uid {} (looked for {})", geteuid().as_raw(), places.join(", "));
    for candidate in candidates {
        let Candidacy::UserDir { dir, .. } = &candidate.place else { continue };
        if let Some(why) = Place::why_passed_over(dir) {
            looked += &format!("; {} was passed over, as {why}", dir.display());
        }
    }
    looked
}

fn check_server(expect: &ExpectServer, uid: u32, address: &Endpoint) -> io::Result<()> {
    let expected = match expect {
        ExpectServer::Anyone => return Ok(()),
        ExpectServer::Default if uid == 0 || is_own(uid) => return Ok(()),
        ExpectServer::Default => or_root(geteuid().as_raw()),
        ExpectServer::User(UserId::Uid(_)) if uid == 0 => return Ok(()),
        ExpectServer::User(UserId::Uid(user)) | ExpectServer::Exactly(UserId::Uid(user))
            if uid == *user && !platform::is_unmapped(uid) =>
        {
            return Ok(());
        }
        ExpectServer::User(UserId::Uid(user)) => or_root(*user),
        ExpectServer::Exactly(UserId::Uid(user)) => format!("uid {user}"),

        ExpectServer::User(user @ UserId::Sid(_))
        | ExpectServer::Exactly(user @ UserId::Sid(_)) => {
            let what = format!("cannot expect {user}: users have no SIDs here");
            return Err(Error::new(Reason::Unsupported, what).at(address).into());
        }
    };

    if platform::is_unmapped(uid) {
        let what = format!(
            "its user has no id in this user namespace or container ({uid} stands for all of \
             those), so it cannot be told from others"
        );
        let advice = "if you trust all users who can listen there, allow it with \
                      ConnectOptions::expect_server and ExpectServer::Anyone";
        let error = Error::new(Reason::UnexpectedServer, what).at(address);
        return Err(error.advising(advice).into());
    }
    Err(error::unexpected_server(address, UserId::Uid(uid), expected))
}

fn or_root(user: u32) -> String {
    if user == 0 { "root".to_owned() } else { format!("uid {user} or root") }
}

/// Between half of `pause` and all of it, so that clients that met once do not meet again.
fn jittered(pause: Duration) -> Duration {
    let share = place::random() as u32 % 512 + 512;
    pause * share / 1024
}
