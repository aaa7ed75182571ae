//! The same transport without a runtime: calls that block the thread.
//!
//! [`Listener`] and [`Stream`] have the names, options, security, errors and contract of their async
//! namesakes, and talk to those. No tokio is needed:
//! `--no-default-features --features blocking` builds without it.
//!
//! ```no_run
//! use std::io::{self, Read, Write};
//! use std::thread;
//! use sockpipe::blocking::{Listener, Stream};
//!
//! fn server() -> io::Result<()> {
//!     let listener = Listener::bind("echo")?;
//!     loop {
//!         let stream = listener.accept()?; // an error here is final
//!         thread::spawn(move || io::copy(&mut &stream, &mut &stream));
//!     }
//! }
//!
//! fn client() -> io::Result<()> {
//!     let mut stream = Stream::connect("echo")?; // the same name on every OS
//!     stream.write_all("olá mundo".as_bytes())?;
//!     stream.shutdown()?; // the peer reads end of file and can still answer
//!     let mut answer = Vec::new();
//!     stream.read_to_end(&mut answer)?;
//!     Ok(())
//! }
//! ```
//!
//! # Platform-specific behavior
//!
//! Windows: the I/O is overlapped, so that a thread that is blocked in a read never blocks one that
//! writes. A listener has a thread of its own, that lets clients in. Writes with a timeout are begun
//! by one more thread of the crate's, which costs two changes of threads each, and return when the
//! system has the bytes in hand, as the async stream's do; without a timeout they return when the
//! pipe has had room for them.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::events::ListenerStats;
use crate::imp::blocking as imp;
use crate::messages::{TAKEN, cannot, deaf, still_taken};
use crate::options::{ConnectOptions, ListenOptions};
use crate::peer::PeerCredentials;

/// Listens on a local endpoint: a Unix domain socket, or a Windows named pipe.
///
/// As the async `Listener`, it owns the name from [`bind`](Self::bind) to drop.
/// Any number of threads may be in [`accept`](Self::accept) at once.
///
/// ```no_run
/// # fn handle(_: sockpipe::blocking::Stream) {}
/// # fn run() -> std::io::Result<()> {
/// let listener = sockpipe::blocking::Listener::bind("org.example.tool")?;
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| {
///             while let Ok(stream) = listener.accept() {
///                 handle(stream);
///             }
///         });
///     }
/// });
/// # Ok(())
/// # }
/// ```
pub struct Listener {
    inner: imp::Listener,
    endpoint: Endpoint,
}

impl Listener {
    /// Listens on `endpoint` with the default options: own user only.
    ///
    /// When it returns, clients can connect. It does not wait for a name to become free.
    ///
    /// # Errors
    ///
    /// | kind | when |
    /// |---|---|
    /// | `AddrInUse` | a living server holds the name |
    /// | `AlreadyExists` | something that is not a socket stands at the path |
    /// | `PermissionDenied` | the directory or what stands in it is another user's, or others could replace the socket in it |
    /// | `NotFound` | the directory does not exist |
    /// | `InvalidInput` | the endpoint does not parse, or is too long for the OS |
    /// | `Unsupported` | this OS has no such endpoint, or the file system no locks |
    pub fn bind<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        Self::bind_with(endpoint, &ListenOptions::default())
    }

    /// Listens on `endpoint` with `options`.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind).
    pub fn bind_with<E>(endpoint: E, options: &ListenOptions) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        let bound = imp::Listener::bind(&endpoint, options);
        bound.map(Self::from_imp).map_err(|error| cannot("listen on", endpoint, error))
    }

    /// Listens on `endpoint` as soon as the server that has it lets it go, for up to `limit`: for a
    /// restart in which the old server may still be finishing. It is not a queue: of several that
    /// wait, any may be the next.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ErrorKind::TimedOut) when the name is still taken after `limit`; else as for
    /// [`bind`](Self::bind), and then at once.
    pub fn bind_wait<E>(endpoint: E, options: &ListenOptions, limit: Duration) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        let (started, mut pause) = (Instant::now(), TAKEN.0);
        loop {
            let taken = match Self::bind_with::<Endpoint>(endpoint.clone(), options) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => error,
                bound => return bound,
            };
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(still_taken(limit, &taken));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(TAKEN.1);
        }
    }

    /// The next connection. Blocks until there is one.
    ///
    /// # Errors
    ///
    /// An error is final. Clients that left again, and a process or system out of descriptors or
    /// memory, are handled inside: the latter by waiting 5 ms to 1 s between tries.
    pub fn accept(&self) -> io::Result<Stream> {
        let accepted = self.inner.accept().map(Stream::from_imp);
        accepted.map_err(|error| deaf(&self.endpoint, &error))
    }

    /// The connections, one after another, for a `for` loop. It ends after an error.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: Some(self) }
    }

    /// Stops listening, releases the name, and gives the connections that were made and not
    /// accepted yet.
    ///
    /// # Platform-specific behavior
    ///
    /// On Windows they keep the name alive until the last is closed, as accepted ones do.
    #[must_use]
    pub fn into_pending(self) -> Vec<Stream> {
        self.inner.into_pending().into_iter().map(Stream::from_imp).collect()
    }

    /// What has happened to clients that `accept` never returned.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        self.inner.stats()
    }

    /// The address that clients use, with a portable name resolved: a path or a pipe.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn from_imp((inner, endpoint): (imp::Listener, Endpoint)) -> Self {
        Self { inner, endpoint }
    }

    /// For what only one OS has.
    #[allow(dead_code, reason = "not every OS has something")]
    pub(crate) fn imp_ref(&self) -> &imp::Listener {
        &self.inner
    }

    #[allow(dead_code, reason = "not every OS has something")]
    pub(crate) fn imp(&mut self) -> &mut imp::Listener {
        &mut self.inner
    }

    #[allow(dead_code, reason = "not every OS has something")]
    pub(crate) fn into_imp(self) -> imp::Listener {
        self.inner
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// The connections of a [`Listener`], from [`Listener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    /// `None` after an error, which is final.
    listener: Option<&'a Listener>,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<Stream>;

    fn next(&mut self) -> Option<io::Result<Stream>> {
        let accepted = self.listener?.accept();
        if accepted.is_err() {
            self.listener = None;
        }
        Some(accepted)
    }
}

/// A connection between two processes of one machine, bytes both ways.
///
/// It reads and writes as the standard library's streams do, and `&Stream` does too: one thread may
/// read while another writes. [`try_clone`](Self::try_clone) gives each a handle of its own.
///
/// * [`shutdown`](Self::shutdown) ends the write side: the peer reads end of file and can still
///   answer.
/// * When the peer is gone, reads give what had arrived and then end of file (`Ok(0)`), and writes
///   fail with [`BrokenPipe`](ErrorKind::BrokenPipe), on every OS; there is never a signal.
/// * Reads and writes fail with [`TimedOut`](ErrorKind::TimedOut) when their time is over, on every
///   OS, and the stream is as it was before. They are not interrupted by signals.
/// * Dropping the last handle never blocks; what was written, and the end of file, still arrive as
///   long as the process lives. [`close`](Self::close) before the process ends makes sure of it.
pub struct Stream {
    shared: Arc<Shared>,
}

/// What all handles of a stream have in common.
struct Shared {
    inner: imp::Stream,
    read_timeout: Mutex<Option<Duration>>,
    write_timeout: Mutex<Option<Duration>>,
}

impl Stream {
    /// Connects to the server at `endpoint` with the default options: it fails at once when nobody
    /// listens, waits up to 5 seconds for a busy server, and talks to no other user's server.
    ///
    /// # Errors
    ///
    /// | kind | when |
    /// |---|---|
    /// | `NotFound` | nobody is there |
    /// | `ConnectionRefused` | a socket is there, and no server behind it (Unix) |
    /// | `TimedOut` | the server was busy until the deadline |
    /// | `PermissionDenied` | the server refuses this user, or is another user's than expected |
    /// | `AlreadyExists` | what stands at the path is not a socket |
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
    /// [`wait_for_server`](ConnectOptions::wait_for_server), `NotFound` and `ConnectionRefused`
    /// come only when that time is over.
    pub fn connect_with<E>(endpoint: E, options: &ConnectOptions) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        let connected = imp::Stream::connect(&endpoint, options);
        connected.map(Self::from_imp).map_err(|error| cannot("connect to", endpoint, error))
    }

    /// Two streams connected to each other, without a name.
    ///
    /// # Errors
    ///
    /// What the OS reports.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = imp::Stream::pair()?;
        Ok((Self::from_imp(one), Self::from_imp(other)))
    }

    /// How long a read may wait for bytes before it fails with
    /// [`TimedOut`](ErrorKind::TimedOut); `None`, the default: for ever. It counts for all handles
    /// of the stream, and for the reads that begin after it.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a time of zero, as in the standard library.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set(&self.shared.read_timeout, timeout)
    }

    /// How long a write may wait for room before it fails with [`TimedOut`](ErrorKind::TimedOut),
    /// having written nothing; `None`, the default: for ever. It counts for all handles of the
    /// stream, and for the writes that begin after it.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a time of zero, as in the standard library.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set(&self.shared.write_timeout, timeout)
    }

    /// What [`set_read_timeout`](Self::set_read_timeout) has set.
    #[must_use]
    pub fn read_timeout(&self) -> Option<Duration> {
        get(&self.shared.read_timeout)
    }

    /// What [`set_write_timeout`](Self::set_write_timeout) has set.
    #[must_use]
    pub fn write_timeout(&self) -> Option<Duration> {
        get(&self.shared.write_timeout)
    }

    /// Another handle of the same stream, for another thread. The stream is closed with the last.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: Arc::clone(&self.shared) })
    }

    /// Ends the write side, of all handles, without waiting: the peer reads end of file and can
    /// still answer. Writes fail with [`BrokenPipe`](ErrorKind::BrokenPipe) from then on.
    ///
    /// # Errors
    ///
    /// What the OS reports.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: [`Unsupported`](ErrorKind::Unsupported) on a pipe of byte type, unless
    /// [`ConnectOptions::end_on_close`] has left it to the closing of the stream.
    pub fn shutdown(&self) -> io::Result<()> {
        self.shared.inner.shutdown()
    }

    /// Ends the write side and returns when the OS has every byte: after that even
    /// [`std::process::exit`] loses nothing that was written.
    ///
    /// That the OS has the bytes does not mean that the peer has read them. Other handles of the
    /// stream can go on reading.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ErrorKind::TimedOut) when the peer did not take enough of them within
    /// `deadline`; they still arrive while the process lives. [`BrokenPipe`](ErrorKind::BrokenPipe)
    /// when the peer left with bytes outstanding.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the kernel has every byte as soon as a write returns, so this does not wait. Windows:
    /// it waits until the pipe's buffer has taken the last write.
    pub fn close(self, deadline: Duration) -> io::Result<()> {
        self.shared.inner.close(deadline)
    }

    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// Windows: that the peer cannot be asked, as when it is gone. Unix: none, they were read when
    /// the connection was made.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        self.shared.inner.peer_credentials()
    }

    /// The same connection, for a tokio runtime. The timeouts do not go with it.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](ErrorKind::ResourceBusy) when there are other handles of the stream; `Other`
    /// where there is no tokio runtime with I/O (Unix). The stream is closed then.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: it waits for a write that is still under way, as the next write would.
    #[cfg(feature = "tokio")]
    pub fn into_async(self) -> io::Result<crate::Stream> {
        self.into_imp()?.into_async().map(crate::Stream::from_imp)
    }

    pub(crate) fn from_imp(inner: imp::Stream) -> Self {
        let (read_timeout, write_timeout) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { inner, read_timeout, write_timeout }) }
    }

    /// For what only one OS has.
    #[allow(dead_code, reason = "not every OS has something")]
    pub(crate) fn imp_ref(&self) -> &imp::Stream {
        &self.shared.inner
    }

    /// The stream of the last handle.
    #[allow(dead_code, reason = "not every conversion needs it whole")]
    pub(crate) fn into_imp(self) -> io::Result<imp::Stream> {
        let shared = Arc::try_unwrap(self.shared).map_err(|_| {
            let what = "the stream has other handles, from try_clone: drop them first";
            io::Error::new(ErrorKind::ResourceBusy, what)
        })?;
        Ok(shared.inner)
    }
}

fn set(place: &Mutex<Option<Duration>>, timeout: Option<Duration>) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        let what = "a time of zero would let nothing through; None is for no limit";
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    *place.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    Ok(())
}

fn get(place: &Mutex<Option<Duration>>) -> Option<Duration> {
    *place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.shared.inner.read(buf, self.read_timeout())
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.shared.inner.write(buf, self.write_timeout())
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.shared.inner.write_vectored(bufs, self.write_timeout())
    }

    /// Nothing is buffered above the OS.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

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
