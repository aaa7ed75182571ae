//! What only Unix has; `sockpipe::os::unix` to users.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

pub use super::activation::{Activated, ActivatedKind};
use super::name::Probes;
pub use super::pass::*;
use super::{activation, inherited};
#[cfg(feature = "blocking")]
use crate::blocking;
use crate::instance::command::DaemonCommand;
use crate::options::{ListenOptions, StreamOptions};
use crate::sealed::Sealed;
#[cfg(feature = "tokio")]
use crate::{
    endpoint::{Endpoint, ParseEndpointError},
    listener::Listener,
    stream::Stream,
};

/// What a listener can be told on Unix only. For the types of this crate: it will grow.
pub trait ListenOptionsExt: Sealed {
    /// Listen although others could replace the socket: in a directory that is another user's, or
    /// that others can write to and that is not sticky. Default: `false`, such a directory is
    /// refused with `PermissionDenied`.
    ///
    /// A client then relies on its own check of who listens, which
    /// [`ExpectServer`](crate::ExpectServer) describes.
    #[must_use]
    fn unsafe_directory(self, allowed: bool) -> Self;

    /// The permission bits of the socket, in place of those of [`Access`](crate::Access): 0o660
    /// lets the socket's group in, 0o666 everybody. Only the bits of 0o666 count.
    ///
    /// The peer is checked by the same bits at `accept`: its user, and for the group bits its
    /// groups where the OS tells them (Linux, macOS, FreeBSD).
    #[must_use]
    fn mode(self, mode: u32) -> Self;

    /// The group of the socket, by its id. Default: that of the process, or of the directory where
    /// the OS takes it from there. Meant for [`mode`](Self::mode) 0o660.
    #[must_use]
    fn group(self, group: u32) -> Self;

    /// How many clients may wait to be accepted, in place of the system's limit (`somaxconn`).
    #[must_use]
    fn backlog(self, length: u32) -> Self;

    /// Lets another process of this user take the listener over with [`take_over`], as the next version
    /// of a program does. Default: `false`.
    ///
    /// The async listener then also listens on a socket beside its own, `.NAME.upgrade`, for its user
    /// alone. Once it is taken over, [`accept`](Listener::accept) fails with
    /// [`Reason::TakenOver`](crate::Reason::TakenOver), and a server
    /// [with a graceful shutdown](crate::Serve::with_graceful_shutdown) finishes its connections and
    /// ends well. A blocking listener, an inherited one, and one of an abstract socket cannot be taken
    /// over: to bind it is `Unsupported`.
    #[must_use]
    fn upgradable(self, allowed: bool) -> Self;
}

impl ListenOptionsExt for ListenOptions {
    fn unsafe_directory(mut self, allowed: bool) -> Self {
        self.os.unsafe_directory = allowed;
        self
    }

    fn mode(mut self, mode: u32) -> Self {
        self.os.mode = Some(mode & 0o666);
        self
    }

    fn group(mut self, group: u32) -> Self {
        self.os.group = Some(group);
        self
    }

    fn backlog(mut self, length: u32) -> Self {
        self.os.backlog = Some(length);
        self
    }

    fn upgradable(mut self, allowed: bool) -> Self {
        self.os.upgradable = allowed;
        self
    }
}

/// What a daemon can be given on Unix only. For the types of this crate: it will grow.
pub trait DaemonCommandExt: Sealed {
    /// The open descriptors that the daemon gets besides the standard ones, under the same numbers and
    /// whether or not they are close-on-exec: a jobserver's pipe, sockets for `LISTEN_FDS`. Default:
    /// none. Every other descriptor of this process is closed in the daemon, those of a
    /// [`pre_exec`](std::os::unix::process::CommandExt::pre_exec) of the command's own too.
    ///
    /// One that is not open when the daemon is started makes that fail, with `EBADF`.
    #[must_use]
    fn keep_fds(self, fds: impl IntoIterator<Item = RawFd>) -> Self;

    /// The daemon's umask, in place of this process's: 0o077 for one whose files are nobody else's
    /// business. One that writes files for others, as a compiler's cache does, is better off with the
    /// umask of whoever asks it to.
    #[must_use]
    fn umask(self, mask: u32) -> Self;
}

impl DaemonCommandExt for DaemonCommand {
    fn keep_fds(mut self, fds: impl IntoIterator<Item = RawFd>) -> Self {
        self.os.keep_fds.extend(fds);
        self
    }

    fn umask(mut self, mask: u32) -> Self {
        self.os.umask = Some(mask);
        self
    }
}

/// What a listener can do on Unix only. For the types of this crate: it will grow.
pub trait ListenerExt: Sealed + Sized {
    /// Whether clients still find this listener under its name. Somebody may have removed it: a
    /// cleaner of `/tmp`, or a server that takes what it wants.
    fn is_published(&self) -> bool;

    /// Takes the name again that somebody removed, with a new socket. Clients that were waiting
    /// keep their connections. Does nothing while the listener [is
    /// published](Self::is_published).
    ///
    /// # Errors
    ///
    /// As for [`Listener::bind`]: `AddrInUse` when another server has the name by now.
    /// `NotFound` when the directory is not where it was. `Unsupported` for an inherited listener,
    /// whose name is not its own. `Other` outside a tokio runtime, for the async listener. The
    /// listener is as it was before then, and this can be tried again.
    fn republish(&mut self) -> io::Result<()>;

    /// A listener from a socket that listens already, made elsewhere. It listens again, so that
    /// clients are told this process's user as the server's. Its name is not this listener's: it is not removed on drop, and there is no lock. Of the options,
    /// [`Access`](crate::Access) and [`mode`](ListenOptionsExt::mode) say whose connections are
    /// accepted.
    ///
    /// `endpoint` is what the socket itself knows of its name. Of one that [`into_fd`](Self::into_fd)
    /// gave that is the path that clients use, unless it was longer than a socket's address.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is not a Unix domain stream socket that listens, or has a name that no
    /// endpoint can be written for; `Other` outside a tokio runtime, for the async listener.
    fn from_fd(socket: OwnedFd, options: &ListenOptions) -> io::Result<Self>;

    /// Listens again, with the same socket: clients are told that the process's present user is who
    /// listens, for their [`ExpectServer`](crate::ExpectServer). For a process that has given up root
    /// since it began to listen. What waits to be accepted stays.
    ///
    /// # Errors
    ///
    /// What the OS reports.
    fn listen_as_current_user(&self) -> io::Result<()>;

    /// The listening socket, to be handed to another process. Its name stays, and nobody owns it
    /// from here on: it is the receiver's to remove. That of the async listener does not block, that
    /// of the blocking one does. Clients that waited when the listener was
    /// [published again](Self::republish) do not wait on it: accept them first, or they are closed.
    ///
    /// # Errors
    ///
    /// What the OS reports.
    fn into_fd(self) -> io::Result<OwnedFd>;
}

#[cfg(feature = "tokio")]
impl ListenerExt for Listener {
    fn is_published(&self) -> bool {
        self.inner.is_published()
    }

    fn republish(&mut self) -> io::Result<()> {
        self.inner.republish(Probes::Paused)
    }

    fn listen_as_current_user(&self) -> io::Result<()> {
        self.inner.listen_again()
    }

    fn from_fd(socket: OwnedFd, options: &ListenOptions) -> io::Result<Self> {
        super::Listener::from_fd(socket, options).map(Self::from_imp)
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        self.inner.into_fd()
    }
}

/// What a stream can do on Unix only. For the types of this crate: it will grow.
pub trait StreamExt: Sealed + Sized {
    /// All groups of the peer, as they were when it connected.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the OS does not tell: anywhere but on Linux.
    fn peer_groups(&self) -> io::Result<Vec<u32>>;

    /// A descriptor of the peer's process, which unlike its id never means another one. See
    /// pidfd_open(2).
    ///
    /// # Errors
    ///
    /// `Unsupported` where the OS has none: anywhere but on Linux 6.5 or newer. `NotFound` when
    /// the process is gone and nothing is left of it.
    fn peer_pidfd(&self) -> io::Result<OwnedFd>;

    /// A stream from a connected socket, made elsewhere.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is not a connected Unix domain stream socket; `Other` outside a tokio
    /// runtime, for the async stream.
    fn from_fd(socket: OwnedFd) -> io::Result<Self>;

    /// The socket, for use elsewhere. That of the async stream does not block, that of the blocking
    /// one does.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` when the blocking stream has other handles; what the OS reports.
    fn into_fd(self) -> io::Result<OwnedFd>;
}

#[cfg(feature = "blocking")]
impl ListenerExt for blocking::Listener {
    fn is_published(&self) -> bool {
        self.inner.is_published()
    }

    fn republish(&mut self) -> io::Result<()> {
        self.inner.republish(Probes::Paused)
    }

    fn listen_as_current_user(&self) -> io::Result<()> {
        self.inner.listen_again()
    }

    fn from_fd(socket: OwnedFd, options: &ListenOptions) -> io::Result<Self> {
        super::blocking::Listener::from_fd(socket, options).map(Self::from_imp)
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        self.inner.into_fd()
    }
}

#[cfg(feature = "tokio")]
impl StreamExt for Stream {
    fn peer_groups(&self) -> io::Result<Vec<u32>> {
        super::platform::peer_groups(self.as_fd())
    }

    fn peer_pidfd(&self) -> io::Result<OwnedFd> {
        super::platform::peer_pidfd(self.as_fd())
    }

    fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        inherited::check_stream(socket.as_fd())?;
        super::Stream::from_socket(socket, StreamOptions::default()).map(Self::from_imp)
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        self.inner.into_fd()
    }
}

#[cfg(feature = "blocking")]
impl StreamExt for blocking::Stream {
    fn peer_groups(&self) -> io::Result<Vec<u32>> {
        super::platform::peer_groups(self.as_fd())
    }

    fn peer_pidfd(&self) -> io::Result<OwnedFd> {
        super::platform::peer_pidfd(self.as_fd())
    }

    fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        inherited::check_stream(socket.as_fd())?;
        super::blocking::Stream::from_socket(socket, StreamOptions::default()).map(Self::from_imp)
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_inner()?.into_fd()
    }
}

#[cfg(feature = "tokio")]
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(feature = "tokio")]
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(feature = "blocking")]
impl AsFd for blocking::Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().as_fd()
    }
}

#[cfg(feature = "blocking")]
impl AsFd for blocking::Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Takes the endpoint over from the server that has it, or listens on it as soon as it is free, for up
/// to `limit`: the start of a new version, while the old one runs. The old one was bound with
/// [`upgradable`](ListenOptionsExt::upgradable), and finishes the connections that it has.
///
/// There is no moment without a server: the new one has the very socket that clients connect to, and
/// those that wait to be accepted. Should either process crash on the way, the other one has the name.
///
/// ```no_run
/// use std::time::Duration;
/// use sockpipe::os::unix::{ListenOptionsExt, take_over};
/// use sockpipe::{ListenOptions, echo, serve, shutdown_signal};
///
/// # async fn run() -> std::io::Result<()> {
/// let stop = shutdown_signal();
/// let options = ListenOptions::new().upgradable(true);
/// let listener = take_over("org.example.daemon", &options, Duration::from_secs(10)).await?;
/// // Until a signal, or until the next version takes over from this one.
/// serve(listener, |stream| echo::echo(stream, |_| ())).with_graceful_shutdown(stop).await?;
/// # Ok(())
/// # }
/// ```
///
/// Of `options`, mode and group are given to the socket anew.
///
/// # Errors
///
/// `TimedOut` when the server there does not answer, naming its process, or cannot be taken over and
/// keeps the name. `InvalidData` when it speaks another version of this; `PermissionDenied` when it is
/// another user's. `Unsupported` for an abstract socket. Else as for [`Listener::bind`].
///
/// # Cancel safety
///
/// Dropping the future leaves the name with the one that has it.
#[cfg(feature = "tokio")]
pub async fn take_over<E>(
    endpoint: E,
    options: &ListenOptions,
    limit: std::time::Duration,
) -> io::Result<Listener>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
    super::successor::take_over(&endpoint, options, limit).await
}

/// Returns the listeners that the service manager passed to this process, with their names: systemd's
/// socket activation, sd_listen_fds(3). Empty when there are none, and when they were taken before:
/// they are there once. The environment is left as it is, and is meant for this process only
/// (`LISTEN_PID`).
///
/// What else was passed, such as a TCP socket, stays open for the program:
/// [`activated_descriptors`] lists it. The listeners' names are the service manager's: not removed on
/// drop. Of the options, [`Access`](crate::Access) and [`mode`](ListenOptionsExt::mode) say whose
/// connections are accepted; set them as the unit's `SocketMode=` has it.
///
/// # Errors
///
/// `InvalidInput` when the variables make no sense, or a descriptor is not open. `Other` outside a tokio
/// runtime, for async listeners. They are there still then.
pub fn activated_listeners<L: ListenerExt>(
    options: &ListenOptions,
) -> io::Result<Vec<(String, L)>> {
    // All or nothing, and until then of copies: an error leaves the sockets for the next call.
    activation::listeners(|copy| L::from_fd(copy, options))
}

/// Returns the connection that this process was started for, if there is one and nobody took it: that
/// of a unit with `Accept=yes`, or the standard input of a server that inetd starts (`nowait`).
///
/// inetd's connection is the three standard streams at once. These lead to `/dev/null` afterwards, so
/// that the peer sees the end of the stream.
///
/// ```no_run
/// use sockpipe::{Stream, echo};
///
/// # async fn run() -> std::io::Result<()> {
/// if let Some(stream) = sockpipe::os::unix::activated_stream::<Stream>()? {
///     echo::echo(stream, |_| ()).await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// `InvalidInput` when the variables make no sense, or a descriptor is not open. `Other` outside a tokio
/// runtime, for the async stream, which is lost then.
pub fn activated_stream<S: StreamExt>() -> io::Result<Option<S>> {
    activation::stream()?.map(S::from_fd).transpose()
}

/// Returns what the service manager passed to this process and nobody has taken, in its order: also
/// sockets, FIFOs and files that are not this crate's. They stay open, and are closed in children that
/// the process starts.
///
/// ```no_run
/// use sockpipe::os::unix::{ActivatedKind, activated_descriptors};
///
/// for passed in activated_descriptors()? {
///     if passed.kind == ActivatedKind::Other {
///         println!("descriptor {} is {}", passed.number, passed.name);
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidInput` when the variables make no sense, or a descriptor is not open.
pub fn activated_descriptors() -> io::Result<Vec<Activated>> {
    activation::passed()
}
