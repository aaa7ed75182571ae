//! Listening: the trait, and the OS listener behind it.

mod credentials;

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

/// Something that yields local connections: a [`Listener`], a
/// [`memory::Listener`](crate::memory::Listener), on Unix tokio's `UnixListener`, or one of your own.
///
/// [`serve`](crate::serve()) and the adapters for frameworks take any of them.
pub trait LocalListener: Send + 'static {
    /// What [`accept`](Self::accept) yields.
    type Stream: LocalStream;

    /// The next connection.
    ///
    /// # Errors
    ///
    /// An error is final: what passes by itself (clients that left, a process out of descriptors)
    /// is handled inside.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The address clients use.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where there is none to print.
    fn endpoint(&self) -> io::Result<Endpoint>;

    /// Lets nobody else in, and returns the connections that were made and not accepted yet: a
    /// graceful stop serves them, for their clients have been let in. The name stays taken until the
    /// listener is dropped. From then on [`accept`](Self::accept) fails.
    ///
    /// Unless overridden, it returns what `accept` yields at once, and goes on listening.
    fn stop_listening(&mut self) -> Vec<Self::Stream>
    where
        Self: Sized,
    {
        waiting(self)
    }
}

/// What `accept` of `listener` yields at once.
pub(crate) fn waiting<L: LocalListener>(listener: &mut L) -> Vec<L::Stream> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut streams = Vec::new();
    // No more than these: clients who come meanwhile could keep this going.
    while streams.len() < usize::from(u16::MAX) {
        // It is not to look empty because the caller's task has had its turn.
        let accept = pin!(unconstrained(listener.accept()));
        let Poll::Ready(Ok(stream)) = accept.poll(&mut cx) else { break };
        streams.push(stream);
    }
    streams
}

/// Listens on a local endpoint: a Unix domain socket, or a Windows named pipe.
///
/// The name belongs to the listener from [`bind`](Self::bind) to drop. A name that a crashed server
/// left behind is taken over; a living server's never is, whether it answers or not.
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
/// Unix: a lock file, `.NAME.lock` beside the socket, is held as long as the listener lives and
/// removed with it; the kernel frees the lock however the process ends. A listener that waits in
/// `accept` looks every 10 seconds whether somebody removed its socket, and binds it anew, unless the
/// directory was removed too or another server has the name. Windows: at least four
/// instances of the pipe wait for clients at any time; streams already accepted keep the name alive
/// until the last is closed, so that a new `bind` in that time is refused with `AddrInUse`.
pub struct Listener {
    pub(crate) inner: imp::Listener,
    endpoint: Endpoint,
    stopped: bool,
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
    /// | `Other` | there is no tokio runtime here, or it lacks I/O or timers (Unix) |
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

    /// The next connection.
    ///
    /// # Errors
    ///
    /// An error is final. Clients that left again, and a process or system out of descriptors or
    /// memory, are handled inside: the latter by waiting 5 ms to 1 s between tries.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`accept`](Self::accept) for poll-based callers. One task at a time is woken.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        if self.stopped {
            let stopped = Error::new(Reason::Stopping { process: None }, "it has been stopped");
            return Poll::Ready(Err(accept_failed(&self.endpoint, stopped.into())));
        }
        imp::can_accept().map_err(|error| accept_failed(&self.endpoint, error))?;
        match self.inner.poll_accept(cx) {
            Poll::Ready(Ok(stream)) => Poll::Ready(Ok(Stream::from_imp(stream))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(accept_failed(&self.endpoint, error))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Lets nobody else in, and returns the connections that were made and not accepted yet. The name
    /// stays taken until the listener is dropped, and [`accept`](Self::accept) fails.
    ///
    /// Who tries to connect until then fails with [`Reason::Stopping`], and with
    /// [`wait_for_server`](crate::ConnectOptions::wait_for_server) waits for the next server.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: nobody holds the name but the connections, these and those accepted before, until the
    /// last is closed. Who tries to connect until then finds the pipe busy, and waits. Unix: of a socket
    /// that was inherited none are returned, for another process may accept them.
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
    /// `AddrInUse`: the listener is closed, and its name still taken.
    ///
    /// # Cancel safety
    ///
    /// The listener is closed even if the future is dropped.
    ///
    /// # Platform-specific behavior
    ///
    /// On Windows streams that were accepted hold the name until they are closed; then this fails. On
    /// Unix the name is free when a drop returns, so this never waits and never fails.
    pub async fn close(self) -> io::Result<()> {
        let Self { inner, endpoint, .. } = self;
        inner.close().await.map_err(|error| during(Operation::Release, endpoint, error))
    }

    /// What has happened to clients that `accept` never yielded.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        self.inner.stats()
    }

    /// The address that clients use, with a portable name resolved: a path or a pipe.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

fn is_unproven(error: &io::Error) -> bool {
    matches!(Error::of(error).map(Error::reason), Some(Reason::UnprovenSocket))
}

/// Removes the socket that kept `bind` from its name, if it turns out to be dead: which takes a while,
/// on a thread of its own.
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
}
