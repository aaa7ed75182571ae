//! The blocking stream.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::error::{Operation, during};
use crate::imp::{blocking as imp, worker};
use crate::options::ConnectOptions;
use crate::peer::PeerCredentials;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::options::Transport;
use crate::wait::{Deadline, Limit};

/// A connection between two processes of one machine that carries bytes both ways.
///
/// A stream implements [`Read`] and [`Write`], and so does `&Stream`: one thread may read while
/// another writes. [`try_clone`](Self::try_clone) returns another handle of the same stream.
///
/// * [`shutdown`](Self::shutdown) ends the write side: the peer reads end of file and can still
///   answer.
/// * When the peer is gone, reads return the data that had arrived and then end of file (`Ok(0)`).
///   Writes fail with [`BrokenPipe`](ErrorKind::BrokenPipe) on every OS, and never raise a signal.
/// * Reads and writes fail with [`TimedOut`](ErrorKind::TimedOut) after their timeout on every OS,
///   and the stream stays usable. Signals do not interrupt them.
/// * Dropping the last handle never blocks. Written data and the end of file still arrive as long
///   as the process lives; call [`close`](Self::close) before the process exits.
pub struct Stream {
    shared: Arc<Shared>,
}

/// The state that all handles of a stream share.
struct Shared {
    inner: imp::Stream,
    /// The number of a [`Limit`], as in `write_timeout`.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

impl Stream {
    /// Connects to the server at `endpoint` with the default options.
    ///
    /// It fails at once if no server is listening, waits up to 5 seconds for a busy server, and
    /// refuses a server of another user. [Access and trust](crate::docs::access_and_trust) explains
    /// that check.
    ///
    /// # Errors
    ///
    /// | kind | when |
    /// |---|---|
    /// | `NotFound` | no server is listening |
    /// | `ConnectionRefused` | a crashed server left its socket behind, or a server is stopping (Unix) |
    /// | `TimedOut` | the server was busy until the deadline |
    /// | `PermissionDenied` | the server refuses this user, or runs as another user than expected |
    /// | `AlreadyExists` | the path exists and is not a socket |
    /// | `InvalidInput` | the endpoint does not parse, or is too long for the OS |
    /// | `Unsupported` | this OS has no such endpoint |
    pub fn connect<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        Self::connect_with(endpoint, &ConnectOptions::default())
    }

    /// Connects to the server at `endpoint` with `options`.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect). With
    /// [`wait_for_server`](ConnectOptions::wait_for_server), `NotFound` and `ConnectionRefused` are
    /// returned only after that time.
    pub fn connect_with<E>(endpoint: E, options: &ConnectOptions) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        let connected = imp::Stream::connect(&endpoint, options);
        connected.map(Self::from_imp).map_err(|error| during(Operation::Connect, endpoint, error))
    }

    /// Creates two streams connected to each other, without a name.
    ///
    /// # Errors
    ///
    /// The error that the OS reports.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = imp::Stream::pair()?;
        Ok((Self::from_imp(one), Self::from_imp(other)))
    }

    /// Starts a child process that is connected to this one, as editors and browsers do with their
    /// workers.
    ///
    /// The child takes its end with [`from_parent`](Self::from_parent). There is no name, and no
    /// other process can connect. The stream ends when the child drops its end or exits.
    ///
    /// The child's end is its standard input, whatever `command` sets for it. Wait for the child,
    /// so that it leaves no zombie.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use sockpipe::blocking::Stream;
    ///
    /// # fn run() -> std::io::Result<()> {
    /// // In the worker: `let parent = Stream::from_parent()?;`
    /// let (worker, mut child) = Stream::pair_with_child(&mut Command::new("example-worker"))?;
    /// # drop(worker);
    /// child.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`pair`](Self::pair) and of [`Command::spawn`].
    pub fn pair_with_child(command: &mut Command) -> io::Result<(Self, Child)> {
        let (end, stdin) = worker::pair()?;
        let stream = worker::into_blocking(end)?;
        let child = command.stdin(stdin).spawn();
        // Closes the command's copy of the child's end.
        command.stdin(Stdio::null());
        Ok((Self::from_imp(stream), child?))
    }

    /// Takes the end that [`pair_with_child`](Self::pair_with_child) in the parent gave to this
    /// process.
    ///
    /// The standard input is empty from then on, so call it before anything is read from there.
    /// Both ends report the parent as their peer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the standard input is not such an end, for example because the program was
    /// started by hand.
    pub fn from_parent() -> io::Result<Self> {
        let stream = worker::into_blocking(worker::from_parent()?)?;
        worker::empty_stdin()?;
        Ok(Self::from_imp(stream))
    }

    /// Sets how long a read may wait before it fails with [`TimedOut`](ErrorKind::TimedOut).
    /// Default: `None`, no timeout.
    ///
    /// The timeout applies to all handles of the stream, and to reads that begin after this call.
    ///
    /// A `read` that times out has taken nothing. A `read_exact` may have taken a part, which is
    /// lost: close the connection then, or collect messages in a buffer of your own.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a timeout of zero, as in the standard library.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set(&self.shared.read_timeout, timeout)
    }

    /// Sets how long a write may wait before it fails with [`TimedOut`](ErrorKind::TimedOut).
    /// Default: `None`, no timeout.
    ///
    /// A write that times out has written nothing. The timeout applies to all handles of the
    /// stream, and to writes that begin after this call.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a timeout of zero, as in the standard library.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set(&self.shared.write_timeout, timeout)
    }

    /// Returns the timeout of [`set_read_timeout`](Self::set_read_timeout), capped at 584 years.
    #[must_use]
    pub fn read_timeout(&self) -> Option<Duration> {
        self.read_limit().get()
    }

    /// Returns the timeout of [`set_write_timeout`](Self::set_write_timeout), capped at 584 years.
    #[must_use]
    pub fn write_timeout(&self) -> Option<Duration> {
        self.write_limit().get()
    }

    /// Creates another handle of the same stream, for another thread. The stream is closed with the
    /// last handle.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: Arc::clone(&self.shared) })
    }

    /// Ends the write side of all handles without waiting: the peer reads end of file and can still
    /// answer.
    ///
    /// Writes fail with [`BrokenPipe`](ErrorKind::BrokenPipe) from then on.
    ///
    /// # Errors
    ///
    /// The error that the OS reports.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: [`Unsupported`](ErrorKind::Unsupported) on a pipe of byte type, unless
    /// [`ConnectOptions::end_on_close`] is set.
    pub fn shutdown(&self) -> io::Result<()> {
        self.shared.inner.shutdown()
    }

    /// Ends the write side and waits until the OS has every byte.
    ///
    /// After that, even [`std::process::exit`] loses no written data. The peer may not have read it
    /// yet. Other handles of the stream can go on reading.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ErrorKind::TimedOut) if the peer did not read enough within `deadline`; the
    /// data still arrives while the process lives. [`BrokenPipe`](ErrorKind::BrokenPipe) if the
    /// peer disconnected before it read everything.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the kernel has every byte as soon as a write returns, so `close` does not wait.
    /// Windows: it waits until the pipe's buffer has taken the last write.
    pub fn close(self, deadline: Duration) -> io::Result<()> {
        self.shared.inner.close(deadline)
    }

    /// Waits up to `limit` until the peer is gone, and reports whether it is. `None` sets no limit.
    ///
    /// A peer is gone when it has closed its stream or its process has ended, but not after a
    /// half-close of either side. The call reads no data, and returns even if there is unread data.
    /// With a limit of zero it does not wait.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockpipe::blocking::Stream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (one, other) = Stream::pair()?;
    /// assert!(!one.closed(Some(Duration::ZERO))?);
    /// drop(other);
    /// assert!(one.closed(None)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that the OS reports, for example if the process is out of descriptors.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: the crate asks the system once a second. macOS, the BSDs, and Linux without
    /// sock_diag(7): once both sides have ended their writing, the peer counts as gone.
    pub fn closed(&self, limit: Option<Duration>) -> io::Result<bool> {
        self.shared.inner.closed(Deadline::after(limit))
    }

    /// Returns the credentials of the peer.
    ///
    /// # Errors
    ///
    /// Windows: the peer is gone; or Windows does not report a foreign client before its first
    /// bytes ([`Reason::PeerNotToldYet`](crate::Reason::PeerNotToldYet)); or the client connected
    /// anonymously, as go-winio's clients do
    /// ([`Reason::AnonymousPeer`](crate::Reason::AnonymousPeer)). Unix: none, because the kernel
    /// recorded the credentials when the connection was made.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.shared.inner.peer_credentials()
    }

    /// Returns the transport that carries the bytes: [`Transport::SharedMemory`] once both
    /// directions have moved into memory, as [`SharedMemory`](crate::SharedMemory) describes.
    #[cfg(feature = "shared-memory")]
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::of(self.shared.inner.uses_memory())
    }

    pub(crate) fn from_imp(inner: imp::Stream) -> Self {
        let (read_timeout, write_timeout) = (AtomicU64::default(), AtomicU64::default());
        Self { shared: Arc::new(Shared { inner, read_timeout, write_timeout }) }
    }

    #[inline]
    pub(crate) fn read_limit(&self) -> Limit {
        Limit::load(&self.shared.read_timeout)
    }

    #[inline]
    pub(crate) fn write_limit(&self) -> Limit {
        Limit::load(&self.shared.write_timeout)
    }

    pub(crate) fn inner(&self) -> &imp::Stream {
        &self.shared.inner
    }

    /// Returns the backend's stream if this is the last handle.
    pub(crate) fn into_inner(self) -> io::Result<imp::Stream> {
        let shared = Arc::try_unwrap(self.shared).map_err(|_| {
            let what = "the stream has other handles, from try_clone: drop them first";
            io::Error::new(ErrorKind::ResourceBusy, what)
        })?;
        Ok(shared.inner)
    }
}

fn set(place: &AtomicU64, timeout: Option<Duration>) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        let what = "timeout must not be zero; use None for no timeout";
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    Limit::new(timeout).store(place);
    Ok(())
}

impl Read for &Stream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.shared.inner.read(buf, self.read_limit())
    }
}

impl Write for &Stream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.shared.inner.write(buf, self.write_limit())
    }

    #[inline]
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.shared.inner.write_vectored(bufs, self.write_limit())
    }

    /// Returns at once: the crate buffers nothing above the OS.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    #[inline]
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("inner", &self.shared.inner).finish()
    }
}
