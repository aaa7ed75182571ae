//! A server that the next version of its program takes over, without a moment in which there is none or
//! two.
//!
//! The old one listens on `.NAME.upgrade` too, for its own user. Who connects there is sent, in one
//! message, the listening socket, the file that has the lock on the name, and one end of a pair from
//! which one byte can be read. What flock(2) locks is the open file, so that both processes have the
//! lock from then on, and whoever is killed leaves it to the other. Which of them has the name is said by
//! that byte, which the kernel gives to one: the new process reads it once it has all that it needs; the
//! old one reads it if it is to end, or to bind its name anew, before it has heard from the new one.
//!
//! Killed before it has read the byte, or before it has said so, the new process leaves the old one as it
//! was. Killed at any time after the message, the old one leaves all to the new one.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, bind, listen, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::access::{Permission, is_own};
use super::claim::Claim;
use super::listener::Listener;
use super::lock::{Lock, lock_name};
use super::name::{Name, place_to_bind};
use super::peer::Peer;
use super::place::{Place, file_id, remove};
use super::{bound, connect, inherited, pass, platform, runtime};
use crate::endpoint::Endpoint;
use crate::error::{self, Error, Operation, Reason, during};
use crate::instance::way::within;
use crate::listener;
use crate::options::ListenOptions;
use crate::peer::UserId;
use crate::wait::Deadline;

/// What the socket of an upgrade is called, after a dot and the name.
const UPGRADE: &str = ".upgrade";
/// What is sent with the descriptors, before the number of the socket's file.
const VERSION: &[u8; 18] = b"sockpipe upgrade 1";
/// That the byte was read.
const TAKEN: &[u8] = b"1";
/// Processes that may wait to take over: there is one, as a rule.
const WAITING: i32 = 16;
/// Between tries.
const PAUSE: Duration = Duration::from_millis(10);

/// The old process's side.
pub(super) struct Offer {
    socket: AsyncFd<OwnedFd>,
    heir: Option<Heir>,
}

/// Who has been sent what it needs.
struct Heir {
    connection: AsyncFd<OwnedFd>,
    /// Whoever reads from it first has the name.
    byte: OwnedFd,
    process: Option<u32>,
}

impl Offer {
    pub(super) fn new(place: &Place) -> io::Result<Self> {
        let name = lock_name(place, UPGRADE);
        withdraw(place);
        let owner = Permission::new(&ListenOptions::default());
        let socket = platform::socket()?;
        platform::set_mode_to_be(&socket, owner.mode());
        let cannot = |errno: Errno| error::os(place.endpoint(), errno);
        bind(&socket, &place.address(&name)?).map_err(cannot)?;
        bound::settle(place, &name, owner)?;
        listen(&socket, WAITING).map_err(cannot)?;
        Ok(Self { socket: runtime::register(socket)?, heir: None })
    }

    /// Whether another process may have the name at any time, or has it.
    pub(super) fn is_undecided(&self) -> bool {
        self.heir.is_some()
    }

    /// Ready once another process has the name, with which one that is.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        claim: &Claim,
        listening: &OwnedFd,
    ) -> Poll<Option<u32>> {
        loop {
            if let Some(heir) = &self.heir {
                if ready!(heir.poll(cx)) {
                    return Poll::Ready(heir.process);
                }
                self.heir = None;
            }
            let connection = ready!(poll_call(&self.socket, cx, |socket| platform::accept(socket)));
            // Who is refused reads an end, and who cannot be sent it all too.
            if let Ok(connection) = connection {
                self.heir = Heir::new(connection, claim, listening).ok();
            }
        }
    }

    /// Ends it: whether the name is still this process's.
    pub(super) fn end(self, claim: &Claim) -> bool {
        let ours = self.heir.as_ref().is_none_or(Heir::is_too_late);
        if ours {
            withdraw(&claim.lock().place);
        }
        ours
    }
}

impl Heir {
    fn new(connection: OwnedFd, claim: &Claim, listening: &OwnedFd) -> io::Result<Self> {
        let peer = Peer::of(connection.as_fd())?;
        // What is not under the name is nothing to take over.
        if !is_own(peer.uid) || !claim.is_published() {
            return Err(Errno::ACCESS.into());
        }
        let (byte, mut other) = UnixStream::pair()?;
        other.write_all(TAKEN)?;
        byte.set_nonblocking(true)?;
        let message = [&VERSION[..], &claim.id().to_bytes()].concat();
        let fds = [listening.as_fd(), claim.lock().file.as_fd(), byte.as_fd()];
        // The connection is new, so that there is room.
        pass::send(connection.as_fd(), &message, &fds, platform::NO_SIGNAL)?;
        let connection = runtime::register(connection)?;
        Ok(Self { connection, byte: byte.into(), process: peer.pid })
    }

    /// Whether it has the name; it never will have, if not.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut said = [0];
        let read = poll_call(&self.connection, cx, |connection| {
            recv(connection, &mut said[..], RecvFlags::empty())
        });
        read.map(|read| matches!(read, Ok((1, _))))
    }

    fn is_too_late(&self) -> bool {
        is_first(&self.byte)
    }
}

/// Whether this process is the first to read the byte.
fn is_first(byte: &OwnedFd) -> bool {
    loop {
        match recv(byte, &mut [0][..], RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            read => return matches!(read, Ok((1, _))),
        }
    }
}

/// What `call` gives that would have to wait no longer.
fn poll_call<T>(
    socket: &AsyncFd<OwnedFd>,
    cx: &mut Context<'_>,
    mut call: impl FnMut(&OwnedFd) -> Result<T, Errno>,
) -> Poll<Result<T, Errno>> {
    loop {
        // Without a reactor nobody accepts either.
        let Ok(mut guard) = ready!(socket.poll_read_ready(cx)) else { return Poll::Pending };
        match call(socket.get_ref()) {
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => {
                guard.clear_ready();
                return Poll::Ready(Err(errno));
            }
            done => return Poll::Ready(done),
        }
    }
}

/// Takes the socket of an upgrade away, which is that of whoever has the lock.
fn withdraw(place: &Place) {
    let name = lock_name(place, UPGRADE);
    if matches!(place.stat(&name), Ok(Some(stat)) if bound::is_our_socket(&stat)) {
        remove(place, &name);
    }
}

pub(super) async fn take_over(
    endpoint: &Endpoint,
    options: &ListenOptions,
    limit: Duration,
) -> io::Result<listener::Listener> {
    let end = Deadline::after(Some(limit));
    loop {
        let asked = ask(endpoint, options, end).await;
        let asked = asked.map_err(|error| during(Operation::TakeOver, endpoint, error))?;
        if let Some(listener) = asked {
            return Ok(listener::Listener::from_imp(listener));
        }
        let pause = end.left().unwrap_or(PAUSE).min(PAUSE);
        match listener::Listener::bind_wait::<Endpoint>(endpoint.clone(), options, pause).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if end.is_past() {
                    return Err(during(Operation::TakeOver, endpoint, cannot_be_had(limit, error)));
                }
            }
            bound => return bound,
        }
    }
}

fn cannot_be_had(limit: Duration, error: io::Error) -> io::Error {
    let seconds = limit.as_secs_f32();
    let what = format!("the server there lets nobody take over, and kept its name for {seconds} s");
    let advice = "stop it, or bind it with os::unix::ListenOptionsExt::upgradable";
    Error::new(Reason::Deadline, what).advising(advice).caused_by(error).into()
}

/// `None` where nobody is there to be asked, or is just ending.
async fn ask(
    endpoint: &Endpoint,
    options: &ListenOptions,
    end: Deadline,
) -> io::Result<Option<(Listener, Endpoint)>> {
    let (Some(place), address) = place_to_bind(endpoint, options)? else {
        return Err(no_place(endpoint));
    };
    let connected = connect::try_address(&place.address(&lock_name(&place, UPGRADE))?)?;
    let Ok(connection) = connected else { return Ok(None) };
    let peer = Peer::of(connection.as_fd())?;
    if !is_own(peer.uid) {
        let own = crate::imp::current_user()?;
        return Err(error::unexpected_server(address, UserId::Uid(peer.uid), own));
    }

    let connection = runtime::register(connection)?;
    let mut message = [0; 64];
    let receive = connection.async_io(Interest::READABLE, |connection| {
        Ok(pass::receive(connection.as_fd(), &mut message, RecvFlags::empty())?)
    });
    let received = match within(end.left(), receive).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(no_answer(peer.pid));
        }
        // It ended with us in its queue.
        Err(_) => return Ok(None),
        Ok(received) => received,
    };
    if received.length == 0 {
        return Ok(None);
    }
    let Some(id) = message[..received.length].strip_prefix(VERSION) else {
        return Err(not_understood(peer.pid));
    };
    let Ok(passed) = <[OwnedFd; 3]>::try_from(received.fds) else {
        return Err(not_understood(peer.pid));
    };
    take(endpoint, place, passed, id, connection.get_ref(), options)
        .map(|taken| Some((taken?, address)))
}

/// With all that is needed; `None` where the one that sent it keeps the name.
fn take(
    wanted: &Endpoint,
    place: Place,
    [socket, lock, byte]: [OwnedFd; 3],
    id: &[u8],
    connection: &OwnedFd,
    options: &ListenOptions,
) -> io::Result<Option<Listener>> {
    let permission = Permission::new(options);
    inherited::check_listener(socket.as_fd())?;
    let stat = bound::settle(&place, place.name(), permission)?;
    let Some(lock) = Lock::passed(place, lock)? else { return Ok(None) };
    if file_id(&stat).to_bytes() != id {
        return Ok(None);
    }
    let permission = permission.in_group(Some(stat.st_gid));
    let mut listener = Listener::new(socket, Name::Inherited, permission, options)?;
    if !is_first(&byte) {
        return Ok(None);
    }
    // The connection is open, and there is room for a byte; if the other one is gone, so much the better.
    let _ = send(connection, TAKEN, platform::NO_SIGNAL);
    let claim = Claim::passed(lock, wanted, file_id(&stat), &options.os);
    withdraw(&claim.lock().place);
    listener.own(claim, options)?;
    Ok(Some(listener))
}

fn no_place(endpoint: &Endpoint) -> io::Error {
    let error = Error::new(Reason::Unsupported, "it has no place for a lock").at(endpoint);
    error.advising("use a path, or a name").into()
}

pub(super) fn taken_over(process: Option<u32>) -> io::Error {
    let by = process.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let what = format!("{by} has taken the listener over");
    Error::new(Reason::TakenOver { process }, what).into()
}

fn no_answer(process: Option<u32>) -> io::Error {
    let who = process.map_or_else(|| "the server".to_owned(), |pid| format!("process {pid}"));
    let what = format!("{who} does not hand the name over: it is stopped, or hangs");
    Error::new(Reason::NoAnswer { process }, what).advising("look at it, or stop it").into()
}

fn not_understood(process: Option<u32>) -> io::Error {
    let who = process.map_or_else(|| "the server".to_owned(), |pid| format!("process {pid}"));
    let what = format!("{who} speaks another version of sockpipe's upgrade");
    Error::new(Reason::NotUnderstood { process }, what).advising("stop it first").into()
}
