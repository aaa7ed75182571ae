//! The new process's side of an upgrade: takes over from a running server.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, send};
use tokio::io::Interest;

use super::access::{Permission, is_own};
use super::claim::Claim;
use super::listener::Listener;
use super::lock::{Lock, lock_name};
use super::name::Name;
use super::peer::Peer;
use super::place::{Place, file_id};
use super::places::place_to_bind;
use super::upgrade::{TAKEN, UPGRADE, VERSION, is_first, withdraw};
use super::{bound, connect, inherited, pass, platform, runtime};
use crate::endpoint::Endpoint;
use crate::error::{self, Error, Operation, Reason, during};
use crate::instance::way::within;
use crate::listener;
use crate::options::ListenOptions;
use crate::peer::UserId;
use crate::wait::Deadline;

/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(10);

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
                    return Err(during(Operation::TakeOver, endpoint, timed_out(limit, error)));
                }
            }
            bound => return bound,
        }
    }
}

fn timed_out(limit: Duration, error: io::Error) -> io::Error {
    let seconds = limit.as_secs_f32();
    let what = format!("the server there lets nobody take over, and kept its name for {seconds} s");
    let advice = "stop it, or bind it with os::unix::ListenOptionsExt::upgradable";
    Error::new(Reason::Deadline, what).advising(advice).caused_by(error).into()
}

/// Asks the server to hand over. Returns `None` if no server answers, or if it is just ending.
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
            return Err(no_answer(peer.process()));
        }
        // The server ended while this connection was pending.
        Err(_) => return Ok(None),
        Ok(received) => received,
    };
    if received.length == 0 {
        return Ok(None);
    }
    let Some(id) = message[..received.length].strip_prefix(VERSION) else {
        return Err(not_understood(peer.process()));
    };
    let Ok(passed) = <[OwnedFd; 3]>::try_from(received.fds) else {
        return Err(not_understood(peer.process()));
    };
    take(endpoint, place, passed, id, connection.get_ref(), options)
        .map(|taken| Some((taken?, address)))
}

/// Takes over with what the old process sent. Returns `None` if that process keeps the name.
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
    // The connection has room for one byte. If the old process is gone, it needs no answer.
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
