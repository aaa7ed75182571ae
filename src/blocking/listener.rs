//! Accepting connections.

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

/// Listens on a local endpoint: a Unix domain socket, or a Windows named pipe.
///
/// As the async `Listener`, it owns the name from [`bind`](Self::bind) to drop.
/// Any number of threads may be in [`accept`](Self::accept) at once.
///
/// Unix: a child by fork(2) has a copy. While the process that listened lives, what the child drops
/// leaves the name and the socket as they are; once that is gone, the child's end is the listener's.
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
        bound.map(Self::from_imp).map_err(|error| during(Operation::Bind, endpoint, error))
    }

    /// Listens on `endpoint` as soon as the server that has it lets it go, for up to `limit`: for a
    /// restart in which the old server may still be finishing. It is not a queue: of several that
    /// wait, any may be the next.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) when the name is still taken after `limit`; else as for
    /// [`bind`](Self::bind), and then at once.
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

    /// The next connection. Blocks until there is one.
    ///
    /// # Errors
    ///
    /// An error is final. Clients that left again, and a process or system out of descriptors or
    /// memory, are handled inside: the latter by waiting 5 ms to 1 s between tries.
    pub fn accept(&self) -> io::Result<Stream> {
        loop {
            if let Some(stream) = self.accept_until(Deadline::after(None))? {
                return Ok(stream);
            }
        }
    }

    /// The next connection, if there is one within `limit`; with a limit of zero, one that is there
    /// already. For a thread that has to look at something else from time to time, such as whether
    /// the server is to stop:
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
    /// [`TimedOut`](io::ErrorKind::TimedOut) when none came; the listener is as it was before. Else as
    /// for [`accept`](Self::accept).
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: from the first call on, the socket of the listener does not block, and threads in
    /// `accept` wait by poll(2). What else has the socket, as a supervisor that it was inherited
    /// from, sees that.
    pub fn accept_timeout(&self, limit: Duration) -> io::Result<Stream> {
        self.accept_until(Deadline::after(Some(limit)))?
            .ok_or_else(|| no_client(&self.endpoint, limit))
    }

    /// `None` once the deadline is past.
    fn accept_until(&self, deadline: Deadline) -> io::Result<Option<Stream>> {
        let accepted =
            self.inner.accept(deadline).map_err(|error| accept_failed(&self.endpoint, error))?;
        Ok(accepted.map(Stream::from_imp))
    }

    /// The connections, one after another, for a `for` loop. It ends after an error.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: Some(self) }
    }

    /// Ends [`accept`](Self::accept), and [`incoming`](Self::incoming), at once in every thread that is
    /// in it, and for good: `accept` fails with [`Reason::Stopped`](crate::Reason::Stopped) from now
    /// on. The name is released when the listener is dropped, which gives up the clients that wait, or
    /// by [`into_pending`](Self::into_pending), which gives them out.
    pub fn unblock(&self) {
        self.inner.unblock();
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
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Whether `accept` failed because [`Listener::unblock`] has ended it.
pub(super) fn is_stopped(error: &io::Error) -> bool {
    Error::of(error).map(Error::reason) == Some(&Reason::Stopped)
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
        if let Err(error) = &accepted {
            self.listener = None;
            if is_stopped(error) {
                return None;
            }
        }
        Some(accepted)
    }
}
