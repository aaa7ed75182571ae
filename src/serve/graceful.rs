//! A server that shuts down: on a signal, or when it has been idle for a while.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::handlers::{Ended, Handlers};
use super::{Counters, HandlerOutput, Serve, SignalOutput, Stopping};
use crate::error::{Error, Reason};
use crate::listener::LocalListener;
use crate::runtime::sleep;

/// The default drain deadline.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// A [`Serve`] that shuts down on a signal or when it is idle. Its output reports how the
/// connections ended.
#[must_use = "nothing is served until it is awaited"]
pub struct GracefulServe<L: LocalListener, H, E, S> {
    serve: Serve<L, H, E>,
    signal: S,
    idle: Option<Duration>,
    deadline: Duration,
    release_name_first: bool,
}

impl<L: LocalListener, H, E, S> GracefulServe<L, H, E, S> {
    pub(super) fn new(serve: Serve<L, H, E>, signal: S) -> Self {
        let deadline = DRAIN_DEADLINE;
        Self { serve, signal, idle: None, deadline, release_name_first: false }
    }

    /// Returns the counters of this server. See [`Serve::counters`].
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.serve.counters()
    }

    /// Sets how long open connections have to finish after the signal. Default: 5 seconds.
    ///
    /// Connections that are still open then are cut.
    ///
    /// A handler is cut at its next `await`. A handler that blocks its thread counts as cut, and
    /// the server leaves it behind after another second: its connection stays open until it awaits
    /// or returns. On a runtime with one thread nothing else can run meanwhile, this shutdown
    /// included.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Shuts down also when no connection has been served for `limit`, counted from the start. See
    /// [`Serve::stop_when_idle`].
    pub fn stop_when_idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Releases the name when the shutdown begins, so that a successor can listen while the last
    /// connections finish. Default: the name is released after the last connection.
    ///
    /// Use it to replace a server if both may work at the same time. Clients do not learn that this
    /// server is stopping: a client that connects meanwhile reaches the successor, or no server.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: it changes nothing, because open connections hold the name.
    pub fn release_name_first(mut self) -> Self {
        self.release_name_first = true;
        self
    }
}

impl<L, H, F, E, S> IntoFuture for GracefulServe<L, H, E, S>
where
    L: LocalListener,
    H: FnOnce(L::Stream, Stopping) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
    E: fmt::Display + 'static,
    S: Future<Output: SignalOutput> + Send + 'static,
{
    type Output = io::Result<Drained>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { serve, signal, idle, deadline, release_name_first } = self;
            let Serve { mut listener, settings } = serve;
            let mut handlers = Handlers::new(settings)?;
            // Reports a runtime without timers now, because a server could not stop without them.
            drop(sleep(Duration::ZERO)?);
            let signal = async { signal.await.into_result() };
            let mut idle = IdleClock::new(idle);
            let idle = |cx: &mut Context<'_>, is_idle| idle.poll(cx, is_idle);

            let heard = match handlers.accept_until(&mut listener, signal, idle).await {
                Ended::Stopped(heard) | Ended::Idle(heard) => heard,
                Ended::Failed(error) => {
                    drop(listener);
                    let drained = handlers.drain::<L>(None, Vec::new(), deadline).await?;
                    return if is_taken_over(&error) { Ok(drained) } else { Err(error) };
                }
            };

            let drained = if release_name_first {
                let pending = listener.stop_listening();
                let released = listener.release();
                drop(listener);
                let drained = handlers.drain::<L>(None, pending, deadline).await?;
                Drained { release_error: released.err(), ..drained }
            } else {
                let pending = handlers.last(&mut listener);
                handlers.drain(Some(listener), pending, deadline).await?
            };

            heard.map(|()| drained)
        })
    }
}

/// Reports whether the listener failed because another process took it over, which serves its
/// clients from now on.
fn is_taken_over(error: &io::Error) -> bool {
    matches!(Error::of(error).map(Error::reason), Some(Reason::TakenOver { .. }))
}

/// The time for which no connection has been served.
struct IdleClock {
    limit: Option<Duration>,
    /// Runs while no connection is served.
    over: Option<Pin<Box<Sleep>>>,
}

impl IdleClock {
    fn new(limit: Option<Duration>) -> Self {
        Self { limit, over: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, is_idle: bool) -> Poll<io::Result<()>> {
        let Some(limit) = self.limit.filter(|_| is_idle) else {
            self.over = None;
            return Poll::Pending;
        };
        let over = match &mut self.over {
            Some(over) => over,
            none => none.insert(Box::pin(sleep(limit)?)),
        };
        over.as_mut().poll(cx).map(Ok)
    }
}

/// Counts of how connections ended that were open or pending when a graceful shutdown began.
/// Refused connections are not counted.
#[derive(Debug)]
pub struct Drained {
    pub(super) finished: usize,
    pub(super) cut: usize,
    pub(super) release_error: Option<io::Error>,
}

impl Drained {
    /// Returns how many handlers finished before the deadline.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// Returns how many connections were cut at the deadline, or had not been served by then.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// Returns the error if the listener's name is left behind: on Unix a socket that the process
    /// may not remove.
    #[must_use]
    pub fn release_error(&self) -> Option<&io::Error> {
        self.release_error.as_ref()
    }
}

impl<L: LocalListener, H, E, S> fmt::Debug for GracefulServe<L, H, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GracefulServe").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
