//! The loop after `bind`: accept, a task per connection, and a stop that lets them finish.

mod handlers;
mod output;

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use self::handlers::{Ended, Handlers, Limits, OnError};
pub use self::output::{HandlerOutput, SignalOutput};
use crate::imp;
use crate::listener::LocalListener;
use crate::runtime::sleep;

/// How long a graceful stop lets connections finish, unless told otherwise.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

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
/// Handlers hear of a stop through what you give them: a clone of tokio-util's `CancellationToken`
/// whose `cancelled_owned()` is also the signal, as the example `graceful` shows.
///
/// Deadlines for clients that say nothing come with [`TimedListener`](crate::TimedListener).
///
/// # Errors
///
/// Once awaited: `Other` where there is no tokio runtime, and with a graceful stop where the runtime has
/// no timers; `InvalidInput` for a limit of 0; else that of [`accept`](LocalListener::accept), or of
/// the signal of a graceful stop.
pub fn serve<L, H, F, E>(listener: L, handler: H) -> Serve<L, H, E>
where
    L: LocalListener,
    H: FnOnce(L::Stream) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
{
    Serve { listener, handler, on_error: None, limits: Limits::default() }
}

/// Return type of [`serve()`]: await it to serve until the listener fails.
///
/// Its output is `io::Result<Infallible>`: it never ends well. When the listener fails, the
/// connections that are open go on by themselves.
#[must_use = "nothing is served until it is awaited"]
pub struct Serve<L, H, E> {
    listener: L,
    handler: H,
    on_error: Option<OnError<E>>,
    limits: Limits,
}

impl<L, H, E> Serve<L, H, E> {
    /// Tells `hook` of each handler that gives an error, which has ended its own connection only.
    /// With the feature `tracing` it is an event too. Default: nobody is told.
    ///
    /// The hook runs in the connection's task, so it must not block.
    pub fn on_error(mut self, hook: impl Fn(E) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(hook));
        self
    }

    /// Serves at most `limit` connections at a time. Others wait to be accepted, in the backlog of
    /// the listener. Default: no limit.
    ///
    /// A limit of 0 is `InvalidInput` when the server is awaited.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.limits.connections = Some(limit);
        self
    }

    /// Serves at most `limit` connections of one user at a time, and closes those beyond at once,
    /// so that one user cannot take all. Those whose user is not told count as one: all, where the
    /// transport tells none, and on Windows foreign clients that do not let themselves be identified.
    /// Default: no limit.
    ///
    /// A limit of 0 is `InvalidInput` when the server is awaited.
    pub fn max_connections_per_user(mut self, limit: usize) -> Self {
        self.limits.per_user = Some(limit);
        self
    }

    /// Stops when `signal` completes: the listener is dropped, so that its name is free. Open
    /// connections, and those that were made and not accepted yet, have the [drain
    /// deadline](GracefulServe::drain_deadline) to finish. The limits hold to the end: those beyond
    /// [`max_connections`](Self::max_connections) wait until others have finished.
    ///
    /// [`shutdown_signal()`] can be given as it is. A signal that fails stops the server in the same way,
    /// and its error is the server's.
    pub fn with_graceful_shutdown<S>(self, signal: S) -> GracefulServe<L, H, E, S>
    where
        S: Future<Output: SignalOutput> + Send + 'static,
    {
        GracefulServe { serve: self, signal, deadline: DRAIN_DEADLINE }
    }
}

impl<L, H, F, E> IntoFuture for Serve<L, H, E>
where
    L: LocalListener,
    H: FnOnce(L::Stream) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
    E: fmt::Display + 'static,
{
    type Output = io::Result<Infallible>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { listener, handler, on_error, limits } = self;
            let mut handlers = Handlers::new(handler, on_error, limits)?;
            let never = std::future::pending::<Infallible>();
            let ended = handlers.accept_until(listener, never).await;
            handlers.leave();
            match ended {
                Ended::Failed(error) => Err(error),
                Ended::Stopped(never, _) => match never {},
            }
        })
    }
}

/// A [`Serve`] that stops on a signal. Its output says how the connections ended.
#[must_use = "nothing is served until it is awaited"]
pub struct GracefulServe<L, H, E, S> {
    serve: Serve<L, H, E>,
    signal: S,
    deadline: Duration,
}

impl<L, H, E, S> GracefulServe<L, H, E, S> {
    /// How long open connections have to finish after the signal. Default: 5 seconds. What is still
    /// open then is cut.
    ///
    /// A handler hears of that where it awaits something. One that blocks its thread counts as cut, and
    /// after another second it is left behind: its connection stays open until it awaits or returns. On
    /// a runtime with one thread nothing can go on in the meantime, this stop included.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<L, H, F, E, S> IntoFuture for GracefulServe<L, H, E, S>
where
    L: LocalListener,
    H: FnOnce(L::Stream) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
    E: fmt::Display + 'static,
    S: Future<Output: SignalOutput> + Send + 'static,
{
    type Output = io::Result<Drained>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { serve, signal, deadline } = self;
            let Serve { listener, handler, on_error, limits } = serve;
            let mut handlers = Handlers::new(handler, on_error, limits)?;
            // Without timers it could not stop: now is the time to say so.
            drop(sleep(Duration::ZERO)?);
            let signal = async { signal.await.into_result() };
            match handlers.accept_until(listener, signal).await {
                Ended::Stopped(heard, pending) => {
                    let drained = handlers.drain(pending, deadline).await?;
                    heard.map(|()| drained)
                }
                Ended::Failed(error) => {
                    handlers.drain::<L::Stream, F>(Vec::new(), deadline).await?;
                    Err(error)
                }
            }
        })
    }
}

/// How the connections ended that were open, or made and not accepted yet, when a graceful stop began.
/// Those closed for [`max_connections_per_user`](Serve::max_connections_per_user) are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    finished: usize,
    cut: usize,
}

impl Drained {
    /// Connections whose handlers finished before the deadline.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// Connections that were cut at the deadline, or whose turn had not come by then.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.cut
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

impl<L, H, E> fmt::Debug for Serve<L, H, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

impl<L, H, E, S> fmt::Debug for GracefulServe<L, H, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GracefulServe").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
