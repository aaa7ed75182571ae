//! Lets the next version of a program take over from a running server. There is never a moment
//! without a server, or with two.
//!
//! The old process also listens on `.NAME.upgrade`, for its own user. It sends each process that
//! connects there, in one message, the listening socket, the file that has the lock on the name,
//! and one end of a pair from which one byte can be read. flock(2) locks the open file, so both
//! processes have the lock from then on, and if one is killed, the other keeps it. The byte decides
//! which of them has the name, because the kernel gives it to only one. The new process reads the
//! byte once it has all that it needs. The old process reads it if it has to end, or to bind its
//! name again, before the new one has answered.
//!
//! If the new process is killed before it has read the byte, or before it has answered, the old one
//! continues as before. If the old one is killed at any time after the message, the new one has all
//! that it needs.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, bind, listen, recv};
use tokio::io::unix::AsyncFd;

use super::access::{Permission, is_own};
use super::claim::Claim;
use super::lock::lock_name;
use super::peer::Peer;
use super::place::{FileId, Place, file_id, remove};
use super::{bound, pass, platform, runtime};
use crate::error::{self, Error, Reason};
use crate::options::ListenOptions;

/// The suffix of the socket for upgrades, which is called `.NAME.upgrade`.
pub(super) const UPGRADE: &str = ".upgrade";
/// The start of the message that carries the descriptors. The identity of the socket's file
/// follows.
pub(super) const VERSION: &[u8; 18] = b"sockpipe upgrade 1";
/// The content of the byte, and of the answer that it was read.
pub(super) const TAKEN: &[u8] = b"1";
/// How many processes may wait to take over. Usually there is one.
const WAITING: i32 = 16;
/// The old process's side of an upgrade.
pub(super) struct Offer {
    socket: AsyncFd<OwnedFd>,
    id: FileId,
    successor: Option<Successor>,
}

/// A process that was sent all that it needs to take over.
struct Successor {
    connection: AsyncFd<OwnedFd>,
    /// The process that reads from it first has the name.
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
        let id = file_id(&bound::settle(place, &name, owner)?);
        listen(&socket, WAITING).map_err(cannot)?;
        Ok(Self { socket: runtime::register(socket)?, id, successor: None })
    }

    /// Whether the socket for upgrades is still there.
    pub(super) fn is_found(&self, place: &Place) -> bool {
        let standing = place.stat(&lock_name(place, UPGRADE)).ok().flatten();
        standing.is_some_and(|stat| file_id(&stat) == self.id)
    }

    /// Whether another process has the name, or may take it at any time.
    pub(super) fn is_undecided(&self) -> bool {
        self.successor.is_some()
    }

    /// Completes once another process has the name, and returns that process's id if it is known.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        claim: &Claim,
        listening: &OwnedFd,
    ) -> Poll<Option<u32>> {
        loop {
            if let Some(successor) = &self.successor {
                if ready!(successor.poll(cx)) {
                    return Poll::Ready(successor.process);
                }
                self.successor = None;
            }
            let connection = ready!(poll_call(&self.socket, cx, |socket| platform::accept(socket)));
            // A refused process reads an end of file, and so does one that cannot be sent the whole
            // message.
            if let Ok(connection) = connection {
                self.successor = Successor::new(connection, claim, listening).ok();
            }
        }
    }

    /// Ends the offer. Returns whether the name still belongs to this process.
    pub(super) fn end(self, claim: &Claim) -> bool {
        let ours = self.successor.as_ref().is_none_or(Successor::is_too_late);
        if ours {
            withdraw(&claim.lock().place);
        }
        ours
    }
}

impl Successor {
    fn new(connection: OwnedFd, claim: &Claim, listening: &OwnedFd) -> io::Result<Self> {
        let peer = Peer::of(connection.as_fd())?;
        // A socket that is not under the name cannot be taken over.
        if !is_own(peer.uid) || !claim.is_published() {
            return Err(Errno::ACCESS.into());
        }
        let (byte, mut other) = UnixStream::pair()?;
        other.write_all(TAKEN)?;
        byte.set_nonblocking(true)?;
        let message = [&VERSION[..], &claim.id().to_bytes()].concat();
        let fds = [listening.as_fd(), claim.lock().file.as_fd(), byte.as_fd()];
        // The connection is new, so its buffer has room.
        pass::send(connection.as_fd(), &message, &fds, platform::NO_SIGNAL)?;
        let connection = runtime::register(connection)?;
        Ok(Self { connection, byte: byte.into(), process: peer.process() })
    }

    /// Completes with `true` if the other process has the name, and with `false` if it will never
    /// have it.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut answer = [0];
        let read = poll_call(&self.connection, cx, |connection| {
            recv(connection, &mut answer[..], RecvFlags::empty())
        });
        read.map(|read| matches!(read, Ok((1, _))))
    }

    fn is_too_late(&self) -> bool {
        is_first(&self.byte)
    }
}

/// Whether this process is the first to read the byte.
pub(super) fn is_first(byte: &OwnedFd) -> bool {
    loop {
        match recv(byte, &mut [0][..], RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            read => return matches!(read, Ok((1, _))),
        }
    }
}

/// Repeats `call` until it no longer fails with `EAGAIN`, and returns its result.
fn poll_call<T>(
    socket: &AsyncFd<OwnedFd>,
    cx: &mut Context<'_>,
    mut call: impl FnMut(&OwnedFd) -> Result<T, Errno>,
) -> Poll<Result<T, Errno>> {
    loop {
        // Without a reactor the listener accepts no clients either.
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

/// Removes the socket for upgrades, which belongs to the process that holds the lock.
pub(super) fn withdraw(place: &Place) {
    let name = lock_name(place, UPGRADE);
    if matches!(place.stat(&name), Ok(Some(stat)) if bound::is_our_socket(&stat)) {
        remove(place, &name);
    }
}

pub(super) fn taken_over(process: Option<u32>) -> io::Error {
    let by = process.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let what = format!("{by} has taken the listener over");
    Error::new(Reason::TakenOver { process }, what).into()
}
