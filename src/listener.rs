//! The trait of listeners, and the listener of this OS.

mod credentials;
mod exchanges;
pub(crate) mod timed;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::{spawn_blocking, unconstrained};

use crate::candidate::Candidate;
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::error::events::ListenerStats;
use crate::error::{Error, Operation, Reason, accept_failed, during};
use crate::imp;
use crate::options::ListenOptions;
use crate::runtime::enter;
use crate::stream::{LocalStream, Stream};
use crate::wait::WaitForName;

pub use self::credentials::WithCredentials;

/// A source of local connections: a [`Listener`], a [`memory::Listener`](crate::memory::Listener),
/// on Unix tokio's `UnixListener`, or a type of your own.
///
/// [`serve`](crate::serve()) and the adapters for frameworks accept any of them. [Testing your
/// program](crate::docs::testing) shows how to run a server without the OS's sockets.
pub trait LocalListener: Send + 'static {
    /// The type of an accepted connection.
    type Stream: LocalStream;

    /// Waits for the next connection and returns it.
    ///
    /// # Errors
    ///
    /// An error is permanent. Implementations retry transient failures, such as a client that
    /// disconnects early or a lack of file descriptors.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Returns the address that clients use.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) if the listener has no address.
    fn endpoint(&self) -> io::Result<Endpoint>;

    /// Stops listening and returns the pending connections.
    ///
    /// A graceful shutdown serves these connections, because their clients have connected already.
    /// The name stays taken until the listener is dropped. From then on [`accept`](Self::accept)
    /// fails.
    ///
    /// The default implementation returns the connections that `accept` yields without waiting, and
    /// goes on listening.
    fn stop_listening(&mut self) -> Vec<Self::Stream>
    where
        Self: Sized,
    {
        waiting(self)
    }

    /// Stops listening and releases the name, as a drop does, and returns the error that a drop
    /// cannot report.
    ///
    /// A graceful shutdown calls it at its end and returns the error in
    /// [`Drained::release_error`](crate::Drained::release_error).
    ///
    /// The default implementation leaves it to the drop.
    ///
    /// # Errors
    ///
    /// The name could not be released and is left behind.
    fn release(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the connections that `accept` yields without waiting.
pub(crate) fn waiting<L: LocalListener>(listener: &mut L) -> Vec<L::Stream> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut streams = Vec::new();
    // The number is limited, because clients that connect meanwhile could keep this loop going.
    while streams.len() < usize::from(u16::MAX) {
        // Unconstrained, so that a task whose budget is used up does not find the backlog empty.
        let accept = pin!(unconstrained(listener.accept()));
        let Poll::Ready(Ok(stream)) = accept.poll(&mut cx) else { break };
        streams.push(stream);
    }
    streams
}

/// A listener on a local endpoint: a Unix domain socket or a Windows named pipe.
///
/// The listener holds the name from [`bind`](Self::bind) until it is dropped. `bind` takes over a
/// name that a crashed server left behind. It never takes a live server's name, even if that server
/// does not answer. [Which address do I get?](crate::docs::which_address) describes where a name
/// leads, and [How it works](crate::docs::how_it_works) how it is claimed.
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// let mut listener = sockpipe::Listener::bind("org.example.tool")?;
/// println!("listening on {}", listener.endpoint());
/// loop {
///     let stream = listener.accept().await?;
///     # let _ = stream;
/// }
/// # }
/// ```
///
/// # Platform-specific behavior
///
/// Unix: the listener holds a lock file, `.NAME.lock` beside the socket, and removes it when it is
/// dropped. The kernel releases the lock however the process ends. While a listener waits in
/// `accept`, it checks at least every 10 seconds whether its socket was removed. It then binds the
/// name again, unless the directory was removed too or another server has the name.
///
/// Windows: at least four instances of the pipe wait for clients at any time. Accepted streams keep
/// the name alive until the last one is closed, and `bind` fails with `AddrInUse` until then.
pub struct Listener {
    pub(crate) inner: imp::Listener,
    endpoint: Endpoint,
    stopped: bool,
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
    /// | `Other` | there is no tokio runtime here, or it lacks I/O or timers (Unix) |
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
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn bind_wait<E>(
        endpoint: E,
        options: &ListenOptions,
        limit: Duration,
    ) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        let mut wait = WaitForName::new(limit);
        loop {
            match Self::bind_with::<Endpoint>(endpoint.clone(), options) {
                Err(error) if is_unproven(&error) => prove(error, &mut wait).await?,
                Err(error) => imp::sleep(wait.after(error)?)?.await,
                bound => return bound,
            }
        }
    }

    /// Waits for the next connection and returns it.
    ///
    /// # Errors
    ///
    /// An error is permanent: bind a new listener. `accept` retries transient failures. It skips
    /// clients that disconnected early, and while the process or the system lacks descriptors or
    /// memory it retries after 5 ms to 1 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Polls for the next connection: [`accept`](Self::accept) for poll-based callers.
    ///
    /// Only the task of the last call is woken.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        if self.stopped {
            let stopped =
                Error::new(Reason::Stopping { process: None }, "the listener was stopped");
            return Poll::Ready(Err(accept_failed(&self.endpoint, stopped.into())));
        }
        imp::can_accept().map_err(|error| accept_failed(&self.endpoint, error))?;
        match self.inner.poll_accept(cx) {
            Poll::Ready(Ok(stream)) => Poll::Ready(Ok(Stream::from_imp(stream))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(accept_failed(&self.endpoint, error))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Stops listening and returns the pending connections.
    ///
    /// The name stays taken until the listener is dropped, and [`accept`](Self::accept) fails from
    /// now on.
    ///
    /// Until then, a client that connects fails with [`Reason::Stopping`]. With
    /// [`wait_for_server`](crate::ConnectOptions::wait_for_server) it waits for the next server.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: the open connections hold the name, both these and those accepted before, until the
    /// last is closed. A client that connects until then finds the pipe busy and waits. Unix: an
    /// inherited socket returns no connections, because another process may accept them.
    pub fn stop_listening(&mut self) -> Vec<Stream> {
        if std::mem::replace(&mut self.stopped, true) {
            return Vec::new();
        }
        self.inner.take_pending().into_iter().map(Stream::from_imp).collect()
    }

    /// Stops listening and returns when the OS has released the name, so that another process can
    /// bind it. Connections that were not accepted are closed.
    ///
    /// A drop stops listening too and does not wait. `bind` in this process succeeds right after
    /// either.
    ///
    /// ```no_run
    /// # async fn run() -> std::io::Result<()> {
    /// let listener = sockpipe::Listener::bind("org.example.tool")?;
    /// // Serve, until a newer version is to take over.
    /// listener.close().await?;
    /// std::process::Command::new("tool").arg("serve").spawn()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The listener is closed, but its name is not released: `AddrInUse` on Windows, the OS's error
    /// on Unix.
    ///
    /// # Cancel safety
    ///
    /// The listener is closed even if the future is dropped.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: accepted streams hold the name until they are closed, and `close` fails while one
    /// is open. Unix: `close` never waits. It fails if the socket cannot be removed, for example
    /// because the process may no longer write to the directory; a drop reports that to `tracing`.
    pub async fn close(self) -> io::Result<()> {
        let Self { inner, endpoint, .. } = self;
        inner.close().await.map_err(|error| during(Operation::Release, endpoint, error))
    }

    /// Returns counts of the clients that `accept` handled without yielding them.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        self.inner.stats()
    }

    /// Returns the address that clients use, with a portable name resolved: a path or a pipe.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

fn is_unproven(error: &io::Error) -> bool {
    matches!(Error::of(error).map(Error::reason), Some(Reason::UnprovenSocket))
}

/// Removes the socket that made `bind` fail, if it turns out to be dead. That takes a while, so it
/// runs on a thread for blocking calls.
async fn prove(error: io::Error, wait: &mut WaitForName) -> io::Result<()> {
    let address = Error::of(&error).and_then(Error::endpoint).cloned();
    let pause = wait.after(error)?;
    let remove = move || -> io::Result<bool> {
        let places = address.as_ref().map_or(Ok(Vec::new()), Endpoint::resolve)?;
        places.first().map_or(Ok(false), Candidate::remove_stale)
    };
    let removed = enter(|| spawn_blocking(remove))?.await;
    if !matches!(removed, Ok(Ok(true))) {
        imp::sleep(pause)?.await;
    }
    Ok(())
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Listener {
    pub(crate) fn from_imp((inner, endpoint): (imp::Listener, Endpoint)) -> Self {
        Self { inner, endpoint, stopped: false }
    }
}

impl LocalListener for Listener {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<Stream> {
        Self::accept(self).await
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(self.endpoint.clone())
    }

    fn stop_listening(&mut self) -> Vec<Stream> {
        Self::stop_listening(self)
    }

    fn release(&mut self) -> io::Result<()> {
        self.stopped = true;
        let released = self.inner.release();
        released.map_err(|error| during(Operation::Release, &self.endpoint, error))
    }
}
