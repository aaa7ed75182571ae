//! Unix domain sockets.

mod claim;
mod place;
mod runtime;

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

use std::env;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, connect, shutdown};
use rustix::process::geteuid;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Sleep;

use self::claim::Claim;
use self::place::Place;
use crate::endpoint::resolve::{Candidate, Environment, candidates};
use crate::endpoint::{Endpoint, Form};
use crate::options::{Access, ConnectOptions, ExpectServer, ListenOptions};
use crate::peer::{PeerCredentials, UserId};

/// Waits between tries to accept while the system is out of descriptors or memory.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Waits between tries to connect.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
const START_IT: &str = "start it first, or wait for it with ConnectOptions::wait_for_server";
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

pub(crate) struct Listener {
    // Dropped in this order: the socket is closed before the claim lets go of the name's lock.
    socket: AsyncFd<OwnedFd>,
    claim: Claim,
    access: Access,
    pause: Option<Pin<Box<Sleep>>>,
    next_pause: Duration,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        // Accepting may have to wait one day: better to learn now that it cannot.
        drop(runtime::sleep(Duration::ZERO)?);
        let (place, endpoint) = place_to_bind(endpoint)?;
        let (socket, claim) = Claim::take(place, options.access)?;
        let socket = runtime::register(socket)?;
        let next_pause = ACCEPT_PAUSE.0;
        Ok((Self { socket, claim, access: options.access, pause: None, next_pause }, endpoint))
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        for _ in 0..ACCEPT_BURST {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match platform::accept(self.socket.get_ref()) {
                Ok(socket) => {
                    self.next_pause = ACCEPT_PAUSE.0;
                    // A peer that may not, or cannot be told apart, is closed here; so is one that
                    // the reactor has no room for.
                    if let Ok(stream) = Stream::from_socket(socket) {
                        if may_connect(self.access, stream.peer.uid()) {
                            return Poll::Ready(Ok(stream));
                        }
                    }
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                // The client left, or the call was interrupted.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {}
                // The client stays in the backlog until there is room again.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.pause = Some(Box::pin(runtime::sleep(self.next_pause)?));
                    self.next_pause = (self.next_pause * 2).min(ACCEPT_PAUSE.1);
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.claim.unpublish(self.socket.get_ref());
    }
}

fn may_connect(access: Access, uid: u32) -> bool {
    match access {
        Access::Owner => uid == 0 || uid == geteuid().as_raw(),
        Access::Everyone => true,
    }
}

/// The first usable candidate's place.
fn place_to_bind(endpoint: &Endpoint) -> io::Result<(Place, Endpoint)> {
    let mut refused = None;
    for candidate in candidates(endpoint, &environment()?)? {
        let opened = match &candidate {
            Candidate::Path(path) => Place::of_path(path).and_then(Place::safe),
            Candidate::UserDir { dir, file } => match Place::in_user_dir(dir, file) {
                Ok(Some(place)) => Ok(place),
                Ok(None) => continue,
                Err(error) => Err(error),
            },
            Candidate::PrivateDir { dir, file } => Place::in_private_dir(dir, file),
            Candidate::Pipe(_) => continue,
        };
        match opened {
            Ok(place) => return Ok((place, candidate.endpoint())),
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
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> io::Result<Self> {
        let candidates = candidates(endpoint, &environment()?)?;
        let started = Instant::now();
        let limit = options.limit();
        let mut pause = CONNECT_PAUSE.0;
        loop {
            let (failure, may_wait) = match connect_to_first(endpoint, &candidates) {
                Attempt::Connected(socket, path) => {
                    let stream = Self::from_socket(socket)?;
                    check_server(&options.expect_server, stream.peer.uid(), &path)?;
                    return Ok(stream);
                }
                Attempt::Busy(path) => (busy(&path, limit), true),
                Attempt::Nobody(error) => (error, options.wait_for_server.is_some()),
                Attempt::Failed(error) => (error, false),
            };
            let left = limit.saturating_sub(started.elapsed());
            if !may_wait || left.is_zero() {
                return Err(failure);
            }
            runtime::sleep(jittered(pause).min(left))?.await;
            pause = (pause * 2).min(CONNECT_PAUSE.1);
        }
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
                if length == 0 || length == room { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
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
        self.write_with(cx, || self.socket.try_write_vectored(bufs))
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
                // Linux: the peer closed with bytes of ours unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Poll::Ready(Err(Errno::PIPE.into()));
                }
                done => return Poll::Ready(done),
            }
        }
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

/// What came of trying every address of an endpoint once.
enum Attempt {
    Connected(OwnedFd, Endpoint),
    /// A server is there, and its backlog is full.
    Busy(Endpoint),
    /// There is no server: it may be started yet.
    Nobody(io::Error),
    Failed(io::Error),
}

fn connect_to_first(endpoint: &Endpoint, candidates: &[Candidate]) -> Attempt {
    let (mut absent, mut stale) = (None, None);
    for candidate in candidates {
        let address = candidate.endpoint();
        let Form::Path(path) = &address.0 else { continue };
        match try_connect(path) {
            Ok(socket) => return Attempt::Connected(socket, address),
            Err(error) => match error.kind() {
                ErrorKind::NotFound => absent = Some(error),
                ErrorKind::ConnectionRefused => stale = stale.or(Some(error)),
                ErrorKind::WouldBlock => return Attempt::Busy(address),
                _ => return Attempt::Failed(error),
            },
        }
    }
    let error = match (stale, absent, candidates) {
        (Some(stale), ..) => stale,
        (None, Some(absent), [_]) => absent,
        _ => nobody(endpoint, candidates),
    };
    Attempt::Nobody(error)
}

/// `WouldBlock` means busy.
fn try_connect(path: &Path) -> io::Result<OwnedFd> {
    let place = Place::of_path(path)?;
    let socket = platform::socket()?;
    let errno = match connect(&socket, &place.address(place.name())?) {
        Ok(()) => return Ok(socket),
        Err(errno) => errno,
    };
    let shown = path.display();
    let (kind, why) = match errno {
        // Not started: the attempt after the pause is a new one, on a new socket.
        Errno::AGAIN | Errno::INTR | Errno::INPROGRESS => return Err(ErrorKind::WouldBlock.into()),
        Errno::NOENT => (ErrorKind::NotFound, format!("no server at {shown}: {START_IT}")),
        Errno::CONNREFUSED | Errno::NOTSOCK => match place.what_stands_there()? {
            Some(what) if what != place::SOCKET => (
                ErrorKind::AlreadyExists,
                format!("cannot connect to {shown}: it is {what}, not a socket"),
            ),
            _ if platform::REFUSED_MAY_BE_BUSY && claim::is_held(&place) => return Err(ErrorKind::WouldBlock.into()),
            _ => (
                ErrorKind::ConnectionRefused,
                format!(
                    "no server at {shown}, only the socket that one left behind: {START_IT}"
                ),
            ),
        },
        Errno::PROTOTYPE => (
            ErrorKind::AlreadyExists,
            format!("cannot connect to {shown}: it is a socket of another type, not a stream"),
        ),
        Errno::ACCESS | Errno::PERM => (
            ErrorKind::PermissionDenied,
            format!("the server at {shown} does not let this user in"),
        ),
        errno => {
            let error = io::Error::from(errno);
            (error.kind(), format!("cannot connect to {shown}: {error}"))
        }
    };
    Err(io::Error::new(kind, why))
}

/// More than one address was tried.
fn nobody(endpoint: &Endpoint, candidates: &[Candidate]) -> io::Error {
    let places: Vec<_> = candidates.iter().map(|place| place.endpoint().to_string()).collect();
    let uid = geteuid().as_raw();
    io::Error::new(
        ErrorKind::NotFound,
        format!(
            "no server at {endpoint} of uid {uid} (looked for {}): {START_IT}",
            places.join(", ")
        ),
    )
}

fn busy(address: &Endpoint, limit: Duration) -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        format!(
            "the server at {address} was too busy to answer within {} s; try again, or raise \
             ConnectOptions::deadline",
            limit.as_secs_f32()
        ),
    )
}

fn check_server(expect: &ExpectServer, uid: u32, address: &Endpoint) -> io::Result<()> {
    let own = geteuid().as_raw();
    let (right, expected) = match expect {
        ExpectServer::Anyone => return Ok(()),
        ExpectServer::Default => (uid == own || uid == 0, format!("uid {own} or root")),
        ExpectServer::User(UserId::Uid(user)) => (uid == *user, format!("uid {user}")),
        ExpectServer::User(user @ UserId::Sid(_)) => {
            let what = format!("cannot expect {user} at {address}: users have no SIDs here");
            return Err(io::Error::new(ErrorKind::Unsupported, what));
        }
    };
    if right {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "refused the server at {address}: it runs as uid {uid}, not as {expected}; if that is \
             right, say so with ConnectOptions::expect_server"
        ),
    ))
}

/// Between half of `pause` and all of it, so that clients that met once do not meet again.
fn jittered(pause: Duration) -> Duration {
    let share = place::random() as u32 % 512 + 512;
    pause * share / 1024
}
