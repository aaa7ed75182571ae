//! The blocking listener.

use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use super::Stream;
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::error::events::ListenerStats;
use crate::error::{Error, Operation, Reason, accept_failed, during, no_client};
use crate::imp::blocking as imp;
use crate::options::ListenOptions;
use crate::wait::{Deadline, WaitForName};

/// A listener on a local endpoint: a Unix domain socket or a Windows named pipe.
///
/// Like the async `Listener`, it holds the name from [`bind`](Self::bind) until it is dropped. Any
/// number of threads may call [`accept`](Self::accept) at once.
///
/// Unix: a child of fork(2) has a copy. While the process that bound the listener lives, the name
/// and the socket stay when the child drops its copy. After that process has ended, the child's
/// copy is the listener, and dropping it releases the name.
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
    pub(crate) inner: imp::Listener,
    endpoint: Endpoint,
}

impl Listener {
    /// Binds `endpoint` with the default options, open to this process's user only.
    ///
    /// Clients can connect as soon as `bind` returns. It does not wait for a name to become free:
    /// [`bind_wait`](Self::bind_wait) does.
    ///
    /// # Errors
    ///
    /// | kind | when |
    /// |---|---|
    /// | `AddrInUse` | a live server holds the name |
    /// | `AlreadyExists` | the path exists and is not a socket |
    /// | `PermissionDenied` | the directory, the socket or its lock file belongs to another user, or other users could replace the socket |
    /// | `NotFound` | the directory does not exist |
    /// | `InvalidInput` | the endpoint does not parse, or is too long for the OS |
    /// | `Unsupported` | this OS has no such endpoint, or the file system has no locks |
    pub fn bind<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        Self::bind_with(endpoint, &ListenOptions::default())
    }

    /// Binds `endpoint` with `options`.
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
        bound.map(Self::from_imp).map_err(|error| during(Operation::Bind, endpoint, error))
    }

    /// Binds `endpoint`, and waits up to `limit` for the server that holds it to release it.
    ///
    /// Use it for a restart in which the old server may still be finishing. If several processes
    /// wait, any of them may be the next.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) if the name is still taken after `limit`. Any other
    /// error is that of [`bind`](Self::bind), and is returned at once.
    pub fn bind_wait<E>(endpoint: E, options: &ListenOptions, limit: Duration) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        let mut wait = WaitForName::new(limit);
        loop {
            match Self::bind_with::<Endpoint>(endpoint.clone(), options) {
                Err(error) => thread::sleep(wait.after(error)?),
                bound => return bound,
            }
        }
    }

    /// Blocks until a client connects, and returns the connection.
    ///
    /// # Errors
    ///
    /// An error is permanent: bind a new listener. `accept` retries transient failures. It skips
    /// clients that disconnected early, and while the process or the system lacks descriptors or
    /// memory it retries after 5 ms to 1 s.
    pub fn accept(&self) -> io::Result<Stream> {
        loop {
            if let Some(stream) = self.accept_until(Deadline::after(None))? {
                return Ok(stream);
            }
        }
    }

    /// Blocks for up to `limit` until a client connects, and returns the connection.
    ///
    /// With a limit of zero it returns a pending connection and never waits. Use it in a thread
    /// that has to check something else from time to time, such as a flag to stop:
    ///
    /// ```no_run
    /// # fn handle(_: sockpipe::blocking::Stream) {}
    /// use std::io::{self, ErrorKind};
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use std::time::Duration;
    /// use sockpipe::blocking::Listener;
    ///
    /// fn run(listener: Listener, stop: &AtomicBool) -> io::Result<()> {
    ///     while !stop.load(Ordering::Relaxed) {
    ///         match listener.accept_timeout(Duration::from_millis(200)) {
    ///             Ok(stream) => handle(stream),
    ///             Err(error) if error.kind() == ErrorKind::TimedOut => {}
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    ///     // Who came before the stop is served too.
    ///     listener.into_pending().into_iter().for_each(handle);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) if no client connected; the listener stays usable.
    /// Else as for [`accept`](Self::accept).
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the first call puts the socket of the listener into nonblocking mode, and threads in
    /// `accept` wait by poll(2). Other owners of the socket see that mode, for example a supervisor
    /// that passed it on.
    pub fn accept_timeout(&self, limit: Duration) -> io::Result<Stream> {
        self.accept_until(Deadline::after(Some(limit)))?
            .ok_or_else(|| no_client(&self.endpoint, limit))
    }

    /// Returns `None` once the deadline is past.
    fn accept_until(&self, deadline: Deadline) -> io::Result<Option<Stream>> {
        let accepted =
            self.inner.accept(deadline).map_err(|error| accept_failed(&self.endpoint, error))?;
        Ok(accepted.map(Stream::from_imp))
    }

    /// Returns an iterator over the connections, for a `for` loop. It ends after an error.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: Some(self) }
    }

    /// Stops [`accept`](Self::accept) and [`incoming`](Self::incoming) at once and permanently, in
    /// every thread.
    ///
    /// From now on `accept` fails with [`Reason::Stopped`](crate::Reason::Stopped). The name is
    /// released when the listener is dropped, which discards the pending connections, or by
    /// [`into_pending`](Self::into_pending), which returns them.
    pub fn unblock(&self) {
        self.inner.unblock();
    }

    /// Stops listening, releases the name, and returns the pending connections.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: these connections hold the name until the last is closed, as accepted ones do.
    #[must_use]
    pub fn into_pending(self) -> Vec<Stream> {
        self.inner.into_pending().into_iter().map(Stream::from_imp).collect()
    }

    /// Stops listening and releases the name. Connections that were not accepted are closed.
    ///
    /// A drop does the same and cannot report what failed.
    ///
    /// # Errors
    ///
    /// The listener is closed, but its name is not released.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: `AddrInUse`, because accepted streams hold the name until they are closed. Unix:
    /// the OS's error, if the socket cannot be removed.
    pub fn close(self) -> io::Result<()> {
        let Self { inner, endpoint } = self;
        inner.close().map_err(|error| during(Operation::Release, endpoint, error))
    }

    /// Returns counts of the clients that `accept` handled without returning them.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        self.inner.stats()
    }

    /// Returns the address that clients use, with a portable name resolved: a path or a pipe.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn from_imp((inner, endpoint): (imp::Listener, Endpoint)) -> Self {
        Self { inner, endpoint }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Reports whether `accept` failed because of [`Listener::unblock`].
pub(super) fn is_stopped(error: &io::Error) -> bool {
    Error::of(error).map(Error::reason) == Some(&Reason::Stopped)
}

/// An iterator over the connections of a [`Listener`], from [`Listener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    /// `None` after an error, which is permanent.
    listener: Option<&'a Listener>,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<Stream>;

    fn next(&mut self) -> Option<io::Result<Stream>> {
        let accepted = self.listener?.accept();
        if let Err(error) = &accepted {
            self.listener = None;
            if is_stopped(error) {
                return None;
            }
        }
        Some(accepted)
    }
}
