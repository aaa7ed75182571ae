//! The loop after `bind`: accept, a task per connection, and a stop that lets them finish.

mod connection;
mod counters;
mod graceful;
mod handlers;
mod output;
mod refusals;
mod stopping;
mod users;

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture, Pending, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use self::counters::Counters;
pub use self::graceful::{Drained, GracefulServe};
use self::handlers::{Ended, Handlers, Settings};
pub use self::output::{HandlerOutput, SignalOutput};
pub use self::refusals::Refusal;
pub use self::stopping::Stopping;
use crate::error::{Error, Reason};
use crate::imp;
use crate::listener::LocalListener;

/// Accepts connections and runs `handler` on each in a task of its own.
///
/// Await it to serve until the listener fails, or call
/// [`with_graceful_shutdown`](Serve::with_graceful_shutdown) first. A handler that panics, or that
/// returns an error, ends only its own connection. [`on_error`](Serve::on_error) receives the
/// error.
///
/// ```no_run
/// use sockpipe::{Listener, echo, serve};
///
/// # async fn run() -> std::io::Result<()> {
/// let listener = Listener::bind("echo")?;
/// let stop = sockpipe::shutdown_signal();
/// let drained = serve(listener, |stream| echo::echo(stream, |_| ()))
///     .on_error(|error| eprintln!("{error}"))
///     .with_graceful_shutdown(stop)
///     .await?;
/// println!("{} connections finished, {} were cut", drained.finished(), drained.cut());
/// # Ok(())
/// # }
/// ```
///
/// # State
///
/// Each connection gets a clone of the handler. Put shared state into an `Arc`: a plain number that
/// the handler increments belongs to one clone.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use sockpipe::{Listener, Stream, serve};
/// use tokio::io::AsyncWriteExt;
///
/// # async fn run() -> std::io::Result<()> {
/// let served = Arc::new(AtomicU64::new(0));
/// serve(Listener::bind("tickets")?, async move |mut stream: Stream| {
///     stream.write_u64(served.fetch_add(1, Ordering::Relaxed)).await
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # In a task
///
/// `tokio::spawn` takes a future. [`into_future`](IntoFuture::into_future) turns the server into
/// one:
///
/// ```no_run
/// use std::future::IntoFuture;
/// # async fn run() -> std::io::Result<()> {
/// # let listener = sockpipe::Listener::bind("echo")?;
/// # async fn handle(_: sockpipe::Stream) {}
/// let server = tokio::spawn(sockpipe::serve(listener, handle).into_future());
/// # server.abort();
/// # Ok(())
/// # }
/// ```
///
/// [`serve_with`] notifies its handlers of a shutdown. [`TimedListener`](crate::TimedListener) sets
/// deadlines for clients that send nothing. [Daemons](crate::docs::daemons) covers the life of a
/// server, and [embedding](crate::docs::embedding) other protocols.
///
/// # Errors
///
/// Once awaited: `Other` if there is no tokio runtime, or if the runtime has no timers and a
/// graceful shutdown or [`on_refused`](Serve::on_refused) needs them; `InvalidInput` for a limit of
/// 0; else the error of [`accept`](LocalListener::accept) or of the shutdown signal.
pub fn serve<L, H, F, E>(
    listener: L,
    handler: H,
) -> Serve<L, impl FnOnce(L::Stream, Stopping) -> F + Clone + Send + 'static, E>
where
    L: LocalListener,
    H: FnOnce(L::Stream) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
{
    serve_with(listener, move |stream, _| handler(stream))
}

/// Accepts connections as [`serve()`] does, and passes each handler a [`Stopping`] that reports a
/// shutdown.
///
/// ```no_run
/// use sockpipe::{Listener, Stopping, Stream, serve_with, shutdown_signal};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// async fn handle(mut stream: Stream, stopping: Stopping) -> std::io::Result<()> {
///     let mut request = [0; 16];
///     loop {
///         // Between two requests is where it can end; one that has begun is answered first.
///         let length = tokio::select! {
///             length = stream.read(&mut request) => length?,
///             () = stopping.requested() => 0,
///         };
///         if length == 0 {
///             return Ok(());
///         }
///         stream.write_all(&request[..length]).await?;
///     }
/// }
///
/// # async fn run() -> std::io::Result<()> {
/// let listener = Listener::bind("org.example.tool")?;
/// let stop = shutdown_signal();
/// serve_with(listener, handle).with_graceful_shutdown(stop).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As for [`serve()`].
pub fn serve_with<L, H, F, E>(listener: L, handler: H) -> Serve<L, H, E>
where
    L: LocalListener,
    H: FnOnce(L::Stream, Stopping) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
{
    let settings = Settings {
        handler,
        on_error: None,
        on_refused: None,
        max_connections: None,
        max_per_user: None,
        cancels: false,
        counters: Counters::default(),
    };
    Serve { listener, settings }
}

/// The server that [`serve()`] and [`serve_with`] return: await it to serve until the listener
/// fails.
///
/// Its output is `io::Result<Infallible>`: it returns only an error. Open connections continue when
/// the listener fails.
#[must_use = "nothing is served until it is awaited"]
pub struct Serve<L: LocalListener, H, E> {
    listener: L,
    settings: Settings<L::Stream, H, E>,
}

impl<L: LocalListener, H, E> Serve<L, H, E> {
    /// Calls `hook` with the error of each handler that fails. Default: the error is discarded.
    ///
    /// Such an error ends only its own connection. With the feature `tracing` it is also an event.
    ///
    /// The hook runs in the connection's task, so it must not block.
    pub fn on_error(mut self, hook: impl Fn(E) + Send + Sync + 'static) -> Self {
        self.settings.on_error = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` with each refused client and the reason, to answer it in the protocol's own
    /// words.
    ///
    /// Default: the connection is closed at once.
    ///
    /// ```no_run
    /// use sockpipe::{Listener, Refusal, Stream, serve};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # async fn handle(_: Stream) {}
    /// # async fn run() -> std::io::Result<()> {
    /// serve(Listener::bind("org.example.tool")?, handle)
    ///     .max_connections_per_user(8)
    ///     .on_refused(async |mut stream: Stream, why| match why {
    ///         Refusal::UserLimit => stream.write_all(b"busy: close another connection\n").await,
    ///         _ => stream.write_all(b"stopping\n").await,
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The hook has one second for each client, and runs for at most 64 at a time; further clients
    /// are closed at once. An error of the hook is an event for `tracing`.
    ///
    /// The first write of a refused client may fail with `BrokenPipe`, and the client can still
    /// read the answer. So a client reads before it reports such an error.
    ///
    /// During a graceful shutdown, the hook receives clients that connect while the last
    /// connections finish, with [`Refusal::Stopping`]. For them,
    /// [`connect_or_spawn`](crate::connect_or_spawn) and
    /// [`wait_for_server`](crate::ConnectOptions::wait_for_server) return a connection and do not
    /// wait for the next server, so a client retries when it reads the answer.
    pub fn on_refused<R, G>(mut self, hook: R) -> Self
    where
        R: FnOnce(L::Stream, Refusal) -> G + Clone + Send + Sync + 'static,
        G: Future<Output: HandlerOutput> + Send + 'static,
    {
        self.settings.on_refused = Some(refusals::on_refused(hook));
        self
    }

    /// Serves at most `limit` connections at a time. Default: no limit.
    ///
    /// Further clients wait in the listener's backlog, and [`on_refused`](Self::on_refused) does
    /// not answer them. To answer that the server is busy, use
    /// [`max_connections_per_user`](Self::max_connections_per_user), or count in the handler.
    ///
    /// A limit of 0 is `InvalidInput` when the server is awaited.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.settings.max_connections = Some(limit);
        self
    }

    /// Serves at most `limit` connections of one user at a time and refuses further ones, so that
    /// one user cannot take all. Default: no limit.
    ///
    /// All connections of a transport that does not report users count as those of one user.
    ///
    /// A limit of 0 is `InvalidInput` when the server is awaited.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows reports the user of some foreign clients, such as Node.js's and .NET's, only after
    /// their first bytes, and the user of others never. Such a connection counts for its process
    /// until the user is known. If that user is over the limit by then, the connection is closed
    /// and its handler ends.
    pub fn max_connections_per_user(mut self, limit: usize) -> Self {
        self.settings.max_per_user = Some(limit);
        self
    }

    /// Drops the future of a handler whose client has left, even in the middle of its work.
    /// Default: `false`.
    ///
    /// By default only the handler's reads and writes report that the client is gone.
    ///
    /// Use it for protocols in which a client stays for its answer. The data of a client that
    /// writes and leaves may remain unread.
    ///
    /// ```no_run
    /// # async fn search(_: sockpipe::Stream) {}
    /// # async fn run() -> std::io::Result<()> {
    /// let listener = sockpipe::Listener::bind("org.example.daemon")?;
    /// // A search is dropped when its client has left.
    /// sockpipe::serve(listener, search).cancel_when_client_leaves(true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A handler that has dropped its stream is not cancelled. A handler also continues, with an
    /// event for `tracing`, if the transport does not report that a client left
    /// ([`LocalStream::closed`](crate::LocalStream::closed)) or the process has no descriptor left
    /// for that.
    ///
    /// # Platform-specific behavior
    ///
    /// As for [`Stream::closed`](crate::Stream::closed), each connection takes a second descriptor
    /// on Unix. On Windows a handler is cancelled up to a second later.
    pub fn cancel_when_client_leaves(mut self, cancel: bool) -> Self {
        self.settings.cancels = cancel;
        self
    }

    /// Returns the counters of this server, to be read while it serves.
    ///
    /// ```no_run
    /// # async fn handle(_: sockpipe::Stream) {}
    /// # async fn run() -> std::io::Result<()> {
    /// let server = sockpipe::serve(sockpipe::Listener::bind("org.example.tool")?, handle);
    /// let counters = server.counters();
    /// tokio::spawn(async move {
    ///     loop {
    ///         tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    ///         println!("{} of {} connections", counters.active(), counters.accepted());
    ///     }
    /// });
    /// server.await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.settings.counters.clone()
    }

    /// Shuts down gracefully when `signal` completes: the server accepts no new connections and
    /// finishes the others.
    ///
    /// Open and pending connections have the [drain deadline](GracefulServe::drain_deadline) to
    /// finish. The limits hold to the end: connections beyond
    /// [`max_connections`](Self::max_connections) wait until others have finished. Handlers of
    /// [`serve_with`] are notified.
    ///
    /// The name stays taken until the last connection has ended, so no second server works beside
    /// one that finishes; [`release_name_first`](GracefulServe::release_name_first) changes that.
    /// Until then a client that connects fails with [`Reason::Stopping`](crate::Reason::Stopping),
    /// or the hook of [`on_refused`](Self::on_refused) answers it.
    ///
    /// Pass [`shutdown_signal()`] or any other future. A signal that fails stops the server in the
    /// same way, and the server returns its error. For a server without a signal, pass
    /// [`pending::<()>()`](std::future::pending).
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: without a hook, a client that connects meanwhile finds the pipe busy. It waits
    /// until its deadline or the end of the server. The open connections hold the name there: it is
    /// free as soon as the last of them is closed, even if its handler still runs.
    pub fn with_graceful_shutdown<S>(self, signal: S) -> GracefulServe<L, H, E, S>
    where
        S: Future<Output: SignalOutput> + Send + 'static,
    {
        GracefulServe::new(self, signal)
    }

    /// Shuts down gracefully when no connection has been served for `limit`, counted from the
    /// start.
    ///
    /// To stop on a signal too, call [the method of the same name](GracefulServe::stop_when_idle)
    /// after [`with_graceful_shutdown`](Self::with_graceful_shutdown).
    ///
    /// No client is lost: a connection that is made at that moment is served before the server
    /// ends.
    ///
    /// ```no_run
    /// # async fn handle(_: sockpipe::Stream) {}
    /// # async fn run() -> std::io::Result<()> {
    /// use std::time::Duration;
    ///
    /// let listener = sockpipe::Listener::bind("org.example.daemon")?;
    /// sockpipe::serve(listener, handle).stop_when_idle(Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_when_idle(self, limit: Duration) -> GracefulServe<L, H, E, Pending<()>> {
        GracefulServe::new(self, pending()).stop_when_idle(limit)
    }
}

impl<L, H, F, E> IntoFuture for Serve<L, H, E>
where
    L: LocalListener,
    H: FnOnce(L::Stream, Stopping) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
    E: fmt::Display + 'static,
{
    type Output = io::Result<Infallible>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { mut listener, settings } = self;
            let mut handlers = Handlers::new(settings)?;
            let (signal, idle) = (pending::<Infallible>(), Poll::<Infallible>::Pending);
            let ended = handlers.accept_until(&mut listener, signal, |_, _| idle).await;
            handlers.leave();
            match ended {
                Ended::Failed(error) => Err(error),
                Ended::Stopped(never) | Ended::Idle(never) => match never {},
            }
        })
    }
}

/// Waits until the process is asked to end. Pass the future to
/// [`with_graceful_shutdown`](Serve::with_graceful_shutdown).
///
/// Call it when the listener is bound, before the program reports that it listens. The signal is
/// caught from the call on, not only from the first `await`:
///
/// * Before the call a signal terminates the process. That is right for a program that still waits
///   in [`Listener::bind_wait`](crate::Listener::bind_wait), `os::unix::take_over` or
///   [`hand_over`](crate::hand_over). The next server replaces a socket that it leaves behind.
/// * After the call only the future reports a signal, so wait for nothing else before the server.
///
/// A call outside the runtime catches signals from the first poll on.
///
/// A second call catches only later signals. Use it to let an impatient user quit:
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// use sockpipe::{Listener, echo, serve, shutdown_signal};
///
/// let listener = Listener::bind("org.example.tool")?;
/// let first = shutdown_signal();
/// let stop = async {
///     first.await?;
///     tokio::spawn(async {
///         let _ = shutdown_signal().await;
///         std::process::exit(130);
///     });
///     Ok::<_, std::io::Error>(())
/// };
/// serve(listener, |stream| echo::echo(stream, |_| ())).with_graceful_shutdown(stop).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The OS's error if the signals cannot be caught; `Other` if it is awaited outside a tokio runtime
/// with I/O.
///
/// # Platform-specific behavior
///
/// Unix: SIGINT (Ctrl-C) and SIGTERM, even if they were ignored at the start, as SIGINT is in a
/// shell script's background jobs. Windows: Ctrl-C, Ctrl-Break, the console's closing and shutdown.
/// A service goes on when a user logs off.
pub fn shutdown_signal() -> impl Future<Output = io::Result<()>> + Send + 'static {
    let signal = imp::shutdown_signal();
    async {
        signal.await.map_err(|error| {
            let what = format!("cannot catch the signals that ask a process to end: {error}");
            Error::new(Reason::Os, what).caused_by(error).into()
        })
    }
}

impl<L: LocalListener, H, E> fmt::Debug for Serve<L, H, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
