//! Functions and options of Unix only. See [daemons](crate::docs::daemons) for services that
//! systemd starts.

mod activated;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

pub use self::activated::{activated_descriptors, activated_listeners, activated_stream};
pub use super::activation::{Activated, ActivatedKind};
use super::inherited;
use super::name::Probes;
pub use super::options::OnNameLost;
pub use super::pass::*;
pub use super::peek::*;
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

/// Options of a listener on Unix. Implemented for this crate's types only, so methods can be added.
pub trait ListenOptionsExt: Sealed {
    /// Allows a directory in which other users could replace the socket: another user's, or one
    /// that others can write to and that is not sticky. Default: `false`, and `bind` fails with
    /// `PermissionDenied`.
    ///
    /// A client then relies on its own check of the server, which
    /// [`ExpectServer`](crate::ExpectServer) describes.
    #[must_use]
    fn unsafe_directory(self, allowed: bool) -> Self;

    /// Sets the permission bits of the socket in place of those of [`Access`](crate::Access): 0o660
    /// admits the group.
    ///
    /// `accept` checks the peer by the same bits: its user, and for the group bits its groups if
    /// the OS reports them (Linux, macOS, FreeBSD).
    #[must_use]
    fn mode(self, mode: u32) -> Self;

    /// Sets the group of the socket by its id. Use it with [`mode`](Self::mode) 0o660.
    ///
    /// Default: the group of the process, or of the directory on systems that inherit it from
    /// there.
    #[must_use]
    fn group(self, group: u32) -> Self;

    /// Sets how many clients may wait to be accepted, in place of the system's limit (`somaxconn`).
    #[must_use]
    fn backlog(self, length: u32) -> Self;

    /// Sets what the listener does if its name is removed. Default: [`OnNameLost::Republish`].
    #[must_use]
    fn on_name_lost(self, choice: OnNameLost) -> Self;

    /// Allows another process of this user to take the listener over with [`take_over`], as the
    /// next version of a program does. Default: `false`.
    ///
    /// The async listener then also listens on a socket beside its own, `.NAME.upgrade`, for its
    /// user only. After it is taken over, [`accept`](Listener::accept) fails with
    /// [`Reason::TakenOver`](crate::Reason::TakenOver), and a server [with a graceful
    /// shutdown](crate::Serve::with_graceful_shutdown) finishes its connections and returns without
    /// an error. A blocking listener, an inherited one, and one of an abstract socket cannot be
    /// taken over: `bind` fails with `Unsupported`.
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

    fn on_name_lost(mut self, choice: OnNameLost) -> Self {
        self.os.on_name_lost = choice;
        self
    }

    fn upgradable(mut self, allowed: bool) -> Self {
        self.os.upgradable = allowed;
        self
    }
}

/// Options of a daemon on Unix. Implemented for this crate's types only, so methods can be added.
pub trait DaemonCommandExt: Sealed {
    /// Passes open descriptors to the daemon under the same numbers, whether or not they are
    /// close-on-exec. Default: none.
    ///
    /// Examples are a jobserver's pipe, and sockets for `LISTEN_FDS`. The daemon keeps only these
    /// and the standard descriptors. It also closes the descriptors that a
    /// [`pre_exec`](std::os::unix::process::CommandExt::pre_exec) of the command opens.
    ///
    /// The start fails with `EBADF` if one of them is not open.
    #[must_use]
    fn keep_fds(self, fds: impl IntoIterator<Item = RawFd>) -> Self;

    /// Sets the daemon's umask in place of this process's: 0o077 keeps its files private.
    ///
    /// A daemon that writes files for others, such as a compiler's cache, should use the umask of
    /// the client that asks for the file.
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

/// Methods of a listener on Unix. Implemented for this crate's types only, so methods can be added.
pub trait ListenerExt: Sealed + Sized {
    /// Reports whether clients still find this listener under its name. A cleaner of `/tmp` or
    /// another program may have removed it.
    fn is_published(&self) -> bool;

    /// Binds the name again after it was removed, with a new socket.
    ///
    /// Clients that were waiting keep their connections. It does nothing while the listener [is
    /// published](Self::is_published).
    ///
    /// # Errors
    ///
    /// As for [`Listener::bind`]: `AddrInUse` if another server has the name by now; `NotFound` if
    /// the directory was removed or replaced; `Unsupported` for an inherited listener, which does
    /// not own its name; `Other` outside a tokio runtime, for the async listener. The listener
    /// stays as it was, and you can try again.
    fn republish(&mut self) -> io::Result<()>;

    /// Creates a listener from a socket that is already listening.
    ///
    /// It calls listen(2) again, so that clients see this process's user as the server's. The
    /// listener does not own the name: it does not remove it on drop, and holds no lock. Of the
    /// options, [`Access`](crate::Access) and [`mode`](ListenOptionsExt::mode) determine whose
    /// connections are accepted.
    ///
    /// `endpoint` returns the name that the socket itself knows. For a socket from
    /// [`into_fd`](Self::into_fd) that is the path that clients use, unless the path was longer
    /// than a socket's address.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is not a listening Unix domain stream socket, or if its name cannot be
    /// written as an endpoint; `Other` outside a tokio runtime, for the async listener.
    fn from_fd(socket: OwnedFd, options: &ListenOptions) -> io::Result<Self>;

    /// Calls listen(2) again, so that clients see the process's present user as the server's, for
    /// their [`ExpectServer`](crate::ExpectServer).
    ///
    /// Use it in a process that has dropped root's rights since it began to listen. Pending
    /// connections stay.
    ///
    /// # Errors
    ///
    /// The error that the OS reports.
    fn listen_as_current_user(&self) -> io::Result<()>;

    /// Converts the listener into its socket, to pass it to another process.
    ///
    /// The name stays and belongs to the receiver, which has to remove it. The socket of the async
    /// listener is in nonblocking mode, that of the blocking one blocks. Accept first any clients
    /// that waited when the listener was [published again](Self::republish): they wait on another
    /// socket, and are closed.
    ///
    /// # Errors
    ///
    /// The error that the OS reports.
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

/// Methods of a stream on Unix. Implemented for this crate's types only, so methods can be added.
pub trait StreamExt: Sealed + Sized {
    /// Returns all groups of the peer, as they were when it connected.
    ///
    /// # Errors
    ///
    /// `Unsupported` on every system but Linux.
    fn peer_groups(&self) -> io::Result<Vec<u32>>;

    /// Returns a descriptor of the peer's process, which unlike a process id never refers to
    /// another process. See pidfd_open(2).
    ///
    /// # Errors
    ///
    /// `Unsupported` on every system but Linux 6.5 or newer. `NotFound` if the process is gone and
    /// was waited for.
    fn peer_pidfd(&self) -> io::Result<OwnedFd>;

    /// Creates a stream from a connected socket.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is not a connected Unix domain stream socket; `Other` outside a tokio
    /// runtime, for the async stream.
    fn from_fd(socket: OwnedFd) -> io::Result<Self>;

    /// Converts the stream into its socket. The socket of the async stream is in nonblocking mode,
    /// that of the blocking one blocks.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if the blocking stream has other handles; else the error that the OS reports.
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

/// Takes the endpoint over from the server that holds it, or binds it as soon as it is free, for up
/// to `limit`.
///
/// Use it to start a new version of a program while the old one runs. The old server was bound with
/// [`upgradable`](ListenOptionsExt::upgradable), and finishes its connections.
///
/// There is no moment without a server: the new one gets the socket that clients connect to, with
/// its pending connections. If either process crashes on the way, the other one has the name.
///
/// ```no_run
/// use std::time::Duration;
/// use sockpipe::os::unix::{ListenOptionsExt, take_over};
/// use sockpipe::{ListenOptions, echo, serve, shutdown_signal};
///
/// # async fn run() -> std::io::Result<()> {
/// let options = ListenOptions::new().upgradable(true);
/// let listener = take_over("org.example.daemon", &options, Duration::from_secs(10)).await?;
/// let stop = shutdown_signal(); // only now: Ctrl-C ends a process that still waits
/// // Until a signal, or until the next version takes over from this one.
/// serve(listener, |stream| echo::echo(stream, |_| ())).with_graceful_shutdown(stop).await?;
/// # Ok(())
/// # }
/// ```
///
/// Only the socket and the lock on the name are passed on. [Daemons](crate::docs::daemons) shows
/// how a program passes its state. Of `options`, the socket gets the mode and the group.
///
/// # Errors
///
/// `TimedOut` if the server does not answer (the error names its process), or if it cannot be taken
/// over and keeps the name. `InvalidData` if it speaks another version of this protocol;
/// `PermissionDenied` if it is another user's. `Unsupported` for an abstract socket. Else as for
/// [`Listener::bind`].
///
/// # Cancel safety
///
/// Dropping the future leaves the name with the process that holds it.
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
