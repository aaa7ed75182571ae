//! Unix domain sockets.

mod access;
mod claim;
mod connect;
pub mod ext;
mod inherited;
mod place;
mod runtime;
mod sockname;
#[cfg(all(target_os = "linux", not(sockpipe_posix)))]
mod sockopt;
mod spawn;

// Linux, and what macOS and the BSDs have in common; `--cfg sockpipe_posix` runs the latter on
// Linux. Both files list the same items.
cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", not(sockpipe_posix)))] {
        #[path = "unix/linux.rs"]
        mod platform;
    } else {
        #[path = "unix/posix.rs"]
        mod platform;
    }
}

use std::collections::VecDeque;
use std::env;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, sendmsg, shutdown};
use rustix::process::geteuid;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Sleep;

use self::access::Permission;
use self::claim::Claim;
use self::place::Place;
pub(crate) use self::runtime::sleep;
pub(crate) use self::spawn::{SpawnLock, leave, nameless_file, spawn_detached};
use crate::endpoint::Endpoint;
use crate::endpoint::resolve::{Candidacy, Candidate, Environment, candidates};
use crate::events;
use crate::listener::ListenerStats;
use crate::occupancy::Occupancy;
use crate::options::{ConnectOptions, ListenOptions};
use crate::peer::{PeerCredentials, UserId};

/// Waits between tries to accept while the system is out of descriptors or memory.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Connections passed over in one poll before other tasks get their turn.
const ACCEPT_BURST: usize = 16;

pub(crate) fn environment() -> io::Result<Environment> {
    Ok(Environment {
        family: platform::FAMILY,
        user: UserId::Uid(geteuid().as_raw()),
        runtime_dir: env::var_os("XDG_RUNTIME_DIR").map(Into::into),
        user_temp_dir: platform::user_temp_dir()?,
    })
}

pub(crate) fn occupancy(candidate: &Candidate) -> io::Result<Occupancy> {
    match place_to_look_at(candidate)? {
        Some(place) => claim::occupancy(&place),
        None if matches!(candidate.place, Candidacy::Abstract(_)) => Ok(Occupancy::Unclaimed),
        None => Ok(Occupancy::Free),
    }
}

pub(crate) fn remove_stale(candidate: &Candidate) -> io::Result<bool> {
    place_to_look_at(candidate)?.map_or(Ok(false), claim::remove_stale)
}

/// `None`: there is no file to it, or there is none yet.
fn place_to_look_at(candidate: &Candidate) -> io::Result<Option<Place>> {
    match &candidate.place {
        Candidacy::Path(path) => Place::of_path(path).map(Some),
        Candidacy::UserDir { dir, file } => match Place::in_user_dir(dir, file)? {
            Some(place) => Ok(Some(place)),
            None => Err(io::Error::new(
                ErrorKind::NotFound,
                format!(
                    "the directory {} is missing, another user's, or writable by others",
                    dir.display()
                ),
            )),
        },
        Candidacy::PrivateDir { dir, file } => Place::in_existing_private_dir(dir, file),
        Candidacy::Abstract(_) | Candidacy::Pipe(_) => Ok(None),
    }
}

pub(crate) struct Listener {
    // Dropped in this order: the socket is closed before the claim lets go of the name's lock.
    socket: AsyncFd<OwnedFd>,
    name: Name,
    permission: Permission,
    /// Accepted before a call of `republish`, on the socket that it replaced.
    waiting: VecDeque<OwnedFd>,
    pause: Option<Pin<Box<Sleep>>>,
    next_pause: Duration,
    stats: ListenerStats,
}

/// Whose the listener's name is.
enum Name {
    /// Ours, to keep and to remove.
    Claimed(Claim),
    /// The kernel's: an abstract socket's name goes with it.
    Abstract,
    /// That of whoever made the socket.
    Inherited,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let mut permission = Permission::new(options);
        let (place, endpoint) = place_to_bind(endpoint, options)?;
        let (socket, name) = match place {
            Some(place) => {
                let (socket, claim) = Claim::take(place, permission, options.unix.backlog)?;
                permission = permission.in_group(claim.group());
                (socket, Name::Claimed(claim))
            }
            None => (claim::bind_abstract(&endpoint, options.unix.backlog)?, Name::Abstract),
        };
        Ok((Self::new(socket, name, permission)?, endpoint))
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        for _ in 0..ACCEPT_BURST {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let accepted = match self.waiting.pop_front() {
                Some(socket) => Ok(socket),
                None => {
                    let mut guard = ready!(self.socket.poll_read_ready(cx))?;
                    let accepted = platform::accept(self.socket.get_ref());
                    if accepted.as_ref().err() == Some(&Errno::AGAIN) {
                        guard.clear_ready();
                    }
                    accepted
                }
            };
            match accepted {
                Ok(socket) => {
                    self.next_pause = ACCEPT_PAUSE.0;
                    if let Some(stream) = self.admit(socket) {
                        return Poll::Ready(Ok(stream));
                    }
                }
                // There is none, the client left, or the call was interrupted.
                Err(
                    Errno::AGAIN | Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM,
                ) => {}
                // The client stays in the backlog until there is room again.
                Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.pause = Some(Box::pin(sleep(self.next_pause)?));
                    events::accept_paused(&errno.into(), self.next_pause);
                    self.stats.pauses += 1;
                    self.next_pause = (self.next_pause * 2).min(ACCEPT_PAUSE.1);
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn take_pending(&mut self) -> Vec<Stream> {
        if let Name::Claimed(claim) = &mut self.name {
            claim.unpublish();
        }
        let mut sockets: Vec<_> = self.waiting.drain(..).collect();
        if !matches!(self.name, Name::Inherited) {
            sockets.extend(claim::refuse_and_drain(self.socket.get_ref()));
        }
        sockets.into_iter().filter_map(|socket| self.admit(socket)).collect()
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        self.stats
    }

    fn new(socket: OwnedFd, name: Name, permission: Permission) -> io::Result<Self> {
        // Accepting may have to wait one day: better to learn now that it cannot.
        drop(sleep(Duration::ZERO)?);
        Ok(Self {
            socket: runtime::register(socket)?,
            name,
            permission,
            waiting: VecDeque::new(),
            pause: None,
            next_pause: ACCEPT_PAUSE.0,
            stats: ListenerStats::default(),
        })
    }

    /// A peer that may not stay, or cannot be told, is closed here; so is one that the reactor has
    /// no room for.
    fn admit(&mut self, socket: OwnedFd) -> Option<Stream> {
        let (why, user) = match Stream::from_socket(socket) {
            Ok(stream) if self.permission.admits(&stream.peer, stream.as_fd()) => {
                return Some(stream);
            }
            Ok(stream) => ("it may not connect", Some(stream.peer.uid())),
            Err(_) => ("who it is cannot be told", None),
        };
        events::peer_refused(why, user);
        self.stats.refused += 1;
        None
    }

    fn is_published(&self) -> bool {
        match &self.name {
            Name::Claimed(claim) => claim.is_published(),
            Name::Abstract => true,
            Name::Inherited => inherited::is_published(self.as_fd()),
        }
    }

    fn republish(&mut self) -> io::Result<()> {
        let claim = match &mut self.name {
            Name::Claimed(claim) if !claim.is_published() => claim,
            Name::Inherited => {
                let what = "the name of an inherited listener is not its own to take again";
                return Err(io::Error::new(ErrorKind::Unsupported, what));
            }
            Name::Claimed(_) | Name::Abstract => return Ok(()),
        };
        let socket = claim.republish(self.permission)?;
        let socket = match runtime::register(socket) {
            Ok(socket) => socket,
            Err(error) => {
                claim.withdraw();
                return Err(error);
            }
        };
        let before = mem::replace(&mut self.socket, socket);
        self.waiting.extend(claim::refuse_and_drain(before.get_ref()));
        Ok(())
    }

    fn from_fd(socket: OwnedFd, options: &ListenOptions) -> io::Result<(Self, Endpoint)> {
        let endpoint = inherited::check_listener(socket.as_fd())?;
        Ok((Self::new(socket, Name::Inherited, Permission::new(options))?, endpoint))
    }

    fn into_fd(mut self) -> io::Result<OwnedFd> {
        let socket = self.socket.get_ref().try_clone()?;
        let name = mem::replace(&mut self.name, Name::Inherited);
        if let Name::Claimed(claim) = name {
            claim.leave();
        }
        Ok(socket)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        match &mut self.name {
            Name::Claimed(claim) => claim.unpublish(),
            Name::Abstract => {}
            // Others may have the socket too: it is not ours to shut down.
            Name::Inherited => return,
        }
        drop(claim::refuse_and_drain(self.socket.get_ref()));
    }
}

/// The first usable candidate, and its place unless it is an abstract socket.
fn place_to_bind(
    endpoint: &Endpoint,
    options: &ListenOptions,
) -> io::Result<(Option<Place>, Endpoint)> {
    let mut refused = None;
    for candidate in candidates(endpoint, &environment()?)? {
        let opened = match &candidate.place {
            Candidacy::Path(path) => Place::of_path(path)
                .and_then(|place| place.safe(options.unix.unsafe_directory))
                .map(Some),
            Candidacy::UserDir { dir, file } => match Place::in_user_dir(dir, file) {
                Ok(None) => continue,
                opened => opened,
            },
            Candidacy::PrivateDir { dir, file } => Place::in_private_dir(dir, file).map(Some),
            Candidacy::Abstract(_) => Ok(None),
            Candidacy::Pipe(_) => continue,
        };
        match opened {
            Ok(place) => return Ok((place, candidate.address())),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| {
        let what = format!("cannot listen on {endpoint}: this system has no place for it");
        io::Error::new(ErrorKind::NotFound, what)
    }))
}

pub(crate) struct Stream {
    socket: UnixStream,
    peer: UCred,
}

impl Stream {
    pub(crate) async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        let candidates = candidates(endpoint, &environment()?)?;
        let (socket, address) = connect::connect(endpoint, &candidates, options).await?;
        let stream = Self::from_socket(socket)?;
        connect::check_server(&options.expect_server, stream.peer.uid(), &address)?;
        Ok(stream)
    }

    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = runtime::enter(UnixStream::pair)??;
        let stream = |socket: UnixStream| Ok(Self { peer: socket.peer_cred()?, socket });
        stream(one).and_then(|one| Ok((one, stream(other)?)))
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let mut read = None;
            let outcome = self.socket.try_io(Interest::READABLE, || {
                let length = self.socket.try_read_buf(buf)?;
                read = Some(length);
                // A short read means that the socket is empty. `WouldBlock` tells the reactor so,
                // as tokio's own `poll_read` does; else the next read would have to find out.
                if length == 0 || length == room {
                    Ok(())
                } else {
                    Err(ErrorKind::WouldBlock.into())
                }
            });
            match (read, outcome) {
                (Some(_), _) => return Poll::Ready(Ok(())),
                (None, Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                // Linux: the peer closed with bytes of ours unread. To us it is gone, no more.
                (None, Err(error)) if error.kind() == ErrorKind::ConnectionReset => {
                    return Poll::Ready(Ok(()));
                }
                (None, outcome) => return Poll::Ready(outcome),
            }
        }
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(cx, || self.socket.try_write(buf))
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // More are refused whole. The limit is POSIX's IOV_MAX on all of these systems.
        let bufs = &bufs[..bufs.len().min(1024)];
        // As writev(2), which std uses, but without its signal when the peer is gone.
        let send = || {
            let sent = sendmsg(&self.socket, bufs, &mut Default::default(), platform::NO_SIGNAL);
            Ok(sent?)
        };
        self.write_with(cx, || self.socket.try_io(Interest::WRITABLE, send))
    }

    pub(crate) fn is_write_vectored(&self) -> bool {
        true
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match shutdown(&self.socket, Shutdown::Write) {
            // macOS: the peer is gone, so there is nobody left to tell.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The kernel has the bytes as soon as a write returns, so there is nothing to wait for.
    pub(crate) async fn close(self, _: Duration) -> io::Result<()> {
        self.shutdown()
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let process = self.peer.pid().and_then(|pid| u32::try_from(pid).ok());
        Ok(PeerCredentials::new(UserId::Uid(self.peer.uid()), Some(self.peer.gid()), process))
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(self.socket.into_std()?.into())
    }

    fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        let socket = runtime::enter(|| UnixStream::from_std(socket.into()))??;
        Ok(Self { peer: socket.peer_cred()?, socket })
    }

    fn write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match write() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The peer closed with bytes of ours unread, in the middle of this.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Poll::Ready(Err(Errno::PIPE.into()));
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSocket")
            .field("socket", &self.socket.as_fd())
            .field("peer", &self.peer)
            .finish()
    }
}

pub(crate) async fn shutdown_signal() -> io::Result<()> {
    let (mut interrupt, mut terminate) = runtime::enter(|| {
        Ok::<_, io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    })??;
    poll_fn(|cx| match interrupt.poll_recv(cx) {
        Poll::Pending => terminate.poll_recv(cx),
        ready => ready,
    })
    .await;
    Ok(())
}
