//! The loop after `bind`: accept, a task per connection, and a stop that lets them finish.

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
use crate::imp;
use crate::listener::LocalListener;

/// Accepts connections and runs `handler` on each in a task of its own.
///
/// Await it to serve for ever, or give it [`with_graceful_shutdown`](Serve::with_graceful_shutdown)
/// first. A handler that panics ends its own connection only, be it in its future or in the call that
/// makes that; so does one that gives an error, of which [`on_error`](Serve::on_error) is told.
///
/// ```no_run
/// use sockpipe::{Listener, echo, serve};
///
/// # async fn run() -> std::io::Result<()> {
/// let stop = sockpipe::shutdown_signal();
/// let listener = Listener::bind("echo")?;
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
/// Each connection has a clone of the handler. What all share goes into an `Arc`; a plain number that
/// the handler counts up is each clone's own.
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
/// `tokio::spawn` takes a future, which [`into_future`](IntoFuture::into_future) makes of the server:
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
/// A handler that is to hear of a stop is [`serve_with`]'s. Deadlines for clients that say nothing come
/// with [`TimedListener`](crate::TimedListener).
///
/// # Errors
///
/// Once awaited: `Other` where there is no tokio runtime, and with a graceful stop or
/// [`on_refused`](Serve::on_refused) where the runtime has no timers; `InvalidInput` for a limit of 0;
/// else that of [`accept`](LocalListener::accept), or of the signal of a graceful stop.
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

/// As [`serve()`], for handlers that hear of a stop: they get a [`Stopping`] beside the stream.
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
/// let stop = shutdown_signal();
/// serve_with(Listener::bind("org.example.tool")?, handle).with_graceful_shutdown(stop).await?;
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

/// Return type of [`serve()`] and [`serve_with`]: await it to serve until the listener fails.
///
/// Its output is `io::Result<Infallible>`: it never ends well. When the listener fails, the
/// connections that are open go on by themselves.
#[must_use = "nothing is served until it is awaited"]
pub struct Serve<L: LocalListener, H, E> {
    listener: L,
    settings: Settings<L::Stream, H, E>,
}

impl<L: LocalListener, H, E> Serve<L, H, E> {
    /// Tells `hook` of each handler that gives an error, which has ended its own connection only.
    /// With the feature `tracing` it is an event too. Default: nobody is told.
    ///
    /// The hook runs in the connection's task, so it must not block.
    pub fn on_error(mut self, hook: impl Fn(E) + Send + Sync + 'static) -> Self {
        self.settings.on_error = Some(Arc::new(hook));
        self
    }

    /// Gives each client that is refused to `hook`, with the reason, so that it can be told in the
    /// protocol's own words. Default: its connection is closed at once.
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
    /// It has a second for each client. At most 64 are told at a time; those beyond are closed at once.
    /// An error that it gives is an event for `tracing`.
    ///
    /// At a graceful stop it is told of those who connect while the last connections finish, with
    /// [`Refusal::Stopping`].
    pub fn on_refused<R, G>(mut self, hook: R) -> Self
    where
        R: FnOnce(L::Stream, Refusal) -> G + Clone + Send + Sync + 'static,
        G: Future<Output: HandlerOutput> + Send + 'static,
    {
        self.settings.on_refused = Some(refusals::on_refused(hook));
        self
    }

    /// Serves at most `limit` connections at a time. Others wait to be accepted, in the backlog of
    /// the listener. Default: no limit.
    ///
    /// A limit of 0 is `InvalidInput` when the server is awaited.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.settings.max_connections = Some(limit);
        self
    }

    /// Serves at most `limit` connections of one user at a time, and refuses those beyond at once,
    /// so that one user cannot take all. Those whose user is not told count as one: all, where the
    /// transport tells none, and on Windows foreign clients that do not let themselves be identified.
    /// Default: no limit.
    ///
    /// A limit of 0 is `InvalidInput` when the server is awaited.
    pub fn max_connections_per_user(mut self, limit: usize) -> Self {
        self.settings.max_per_user = Some(limit);
        self
    }

    /// Drops the future of a handler whose client has left, be it in the middle of its work. Default:
    /// `false`, a handler learns of it by its reads and writes.
    ///
    /// It is for protocols in which a client stays for its answer. One that writes and leaves may find
    /// that nobody has read what it wrote.
    ///
    /// ```no_run
    /// # async fn search(_: sockpipe::Stream) {}
    /// # async fn run() -> std::io::Result<()> {
    /// let listener = sockpipe::Listener::bind("org.example.daemon")?;
    /// // A search for whose result nobody waits any more is given up.
    /// sockpipe::serve(listener, search).cancel_when_client_leaves(true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A handler that has dropped its stream is not cancelled. Where the transport does not tell
    /// ([`LocalStream::closed`](crate::LocalStream::closed)), or the process has no descriptor left to
    /// hear it by, the handler goes on, and with the feature `tracing` there is an event.
    ///
    /// # Platform-specific behavior
    ///
    /// As of [`Stream::closed`](crate::Stream::closed): on Unix each connection takes a second
    /// descriptor, on Windows a handler is cancelled up to a second later.
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

    /// Stops when `signal` completes: nobody else is let in. Open connections, and those that were made
    /// and not accepted yet, have the [drain deadline](GracefulServe::drain_deadline) to finish. The
    /// limits hold to the end: those beyond [`max_connections`](Self::max_connections) wait until
    /// others have finished. Handlers of [`serve_with`] hear of it.
    ///
    /// The name stays taken until the last connection has ended, so that no second server works beside
    /// one that finishes; [`release_name_first`](GracefulServe::release_name_first) changes that. A
    /// client that comes meanwhile is told at once: connecting fails with
    /// [`Reason::Stopping`](crate::Reason::Stopping), or the hook of [`on_refused`](Self::on_refused)
    /// answers it, if there is one.
    ///
    /// [`shutdown_signal()`] can be given as it is. A signal that fails stops the server in the same way,
    /// and its error is the server's.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: without a hook, a client that comes meanwhile finds the pipe busy, and waits until its
    /// deadline or the end of the server. There the open connections keep the name, so that it is free
    /// as soon as the last of them is closed, be its handler still at work.
    pub fn with_graceful_shutdown<S>(self, signal: S) -> GracefulServe<L, H, E, S>
    where
        S: Future<Output: SignalOutput> + Send + 'static,
    {
        GracefulServe::new(self, signal)
    }

    /// Stops when no connection has been served for `limit`, from the start on, as
    /// [`with_graceful_shutdown`](Self::with_graceful_shutdown) does on a signal. Where both are to
    /// stop it, the other has [a method of the same name](GracefulServe::stop_when_idle).
    ///
    /// Nobody is lost to it: who was let in just then is served before the server ends.
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

/// Completes when the process is asked to end, the signal for
/// [`with_graceful_shutdown`](Serve::with_graceful_shutdown).
///
/// It is heard from the call on, not only from the first `await`: called before the server says that
/// it listens, it misses nothing. (A call outside the runtime that the future is then given to hears
/// from the first poll on.) From then on the OS no longer ends the process by itself on these
/// signals: wait for a second one to let an impatient user out.
///
/// # Errors
///
/// That the OS does not let us listen for signals; `Other` when it is awaited outside a tokio runtime
/// with I/O.
///
/// # Platform-specific behavior
///
/// Unix: SIGINT (Ctrl-C) and SIGTERM. Windows: Ctrl-C, Ctrl-Break, the console's closing, logoff
/// and shutdown.
pub fn shutdown_signal() -> impl Future<Output = io::Result<()>> + Send + 'static {
    let signal = imp::shutdown_signal();
    async {
        signal.await.map_err(|error| {
            let what = format!("cannot listen for the signals that ask a process to end: {error}");
            io::Error::new(error.kind(), what)
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
