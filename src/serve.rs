//! The loop after `bind`: accept, a task per connection, and a stop that lets them finish.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::imp;
use crate::listener::LocalListener;
use crate::peer::UserId;
use crate::stream::LocalStream;

/// How long a graceful stop lets connections finish, unless told otherwise.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Accepts connections and runs `handler` on each in a task of its own.
///
/// Await it to serve for ever, or give it [`with_graceful_shutdown`](Serve::with_graceful_shutdown)
/// first. A handler that panics ends its own connection only.
///
/// ```no_run
/// use sockpipe::{Listener, echo, serve};
///
/// # async fn run() -> std::io::Result<()> {
/// let stop = sockpipe::shutdown_signal();
/// let listener = Listener::bind("echo")?;
/// let drained = serve(listener, async |stream| {
///     if let Err(error) = echo::echo(stream, |_| ()).await {
///         eprintln!("{error}");
///     }
/// })
/// .with_graceful_shutdown(async { drop(stop.await) })
/// .await?;
/// println!("{} connections finished, {} were cut", drained.finished(), drained.cut());
/// # Ok(())
/// # }
/// ```
///
/// Handlers hear of a stop through what you give them: a clone of tokio-util's `CancellationToken`
/// whose `cancelled_owned()` is also the signal, as the example `graceful` shows.
///
/// Deadlines for clients that say nothing come with [`TimedListener`](crate::TimedListener).
///
/// It needs a tokio runtime; a graceful stop needs its timers.
pub fn serve<L, H, F>(listener: L, handler: H) -> Serve<L, H>
where
    L: LocalListener,
    H: FnMut(L::Stream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    Serve { listener, handler, limits: Limits::default() }
}

/// Return type of [`serve()`]: await it to serve until the listener fails.
///
/// Its output is `io::Result<Infallible>`: it never ends well. When the listener fails, the
/// connections that are open go on by themselves.
#[must_use = "nothing is served until it is awaited"]
pub struct Serve<L, H> {
    listener: L,
    handler: H,
    limits: Limits,
}

/// How many connections are served at a time.
#[derive(Clone, Copy, Default)]
struct Limits {
    connections: Option<usize>,
    per_user: Option<usize>,
}

impl<L, H> Serve<L, H> {
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
    /// deadline](GracefulServe::drain_deadline) to finish.
    pub fn with_graceful_shutdown<S>(self, signal: S) -> GracefulServe<L, H, S>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        GracefulServe { serve: self, signal, deadline: DRAIN_DEADLINE }
    }
}

impl<L, H, F> IntoFuture for Serve<L, H>
where
    L: LocalListener,
    H: FnMut(L::Stream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    type Output = io::Result<Infallible>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut tasks = JoinSet::new();
            let never = std::future::pending::<Infallible>();
            let ended = accept_until(self, never, &mut tasks).await;
            tasks.detach_all();
            match ended {
                Ended::Failed(error) => Err(error),
                Ended::Stopped(never) => match never {},
            }
        })
    }
}

/// A [`Serve`] that stops on a signal. Its output says how the connections ended.
#[must_use = "nothing is served until it is awaited"]
pub struct GracefulServe<L, H, S> {
    serve: Serve<L, H>,
    signal: S,
    deadline: Duration,
}

impl<L, H, S> GracefulServe<L, H, S> {
    /// How long open connections have to finish after the signal. Default: 5 seconds. What is still
    /// open then is cut.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<L, H, F, S> IntoFuture for GracefulServe<L, H, S>
where
    L: LocalListener,
    H: FnMut(L::Stream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    type Output = io::Result<Drained>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { serve, signal, deadline } = self;
            let mut tasks = JoinSet::new();
            let ended = accept_until(serve, signal, &mut tasks).await;
            let drained = drain(tasks, deadline).await;
            match ended {
                Ended::Stopped(()) => Ok(drained),
                Ended::Failed(error) => Err(error),
            }
        })
    }
}

/// How the connections ended that were open when a graceful stop began.
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

    /// Connections that were cut at the deadline.
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
    imp::shutdown_signal()
}

enum Ended<T> {
    /// The signal's output.
    Stopped(T),
    Failed(io::Error),
}

async fn accept_until<L, H, F, S>(
    serve: Serve<L, H>,
    signal: S,
    tasks: &mut JoinSet<()>,
) -> Ended<S::Output>
where
    L: LocalListener,
    H: FnMut(L::Stream) -> F,
    F: Future<Output = ()> + Send + 'static,
    S: Future,
{
    let Serve { mut listener, mut handler, limits } = serve;
    if [limits.connections, limits.per_user].contains(&Some(0)) {
        let what = "a limit of 0 connections would serve nobody";
        return Ended::Failed(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    if Handle::try_current().is_err() {
        return Ended::Failed(io::Error::other("serve needs a tokio runtime to run handlers on"));
    }
    let most = limits.connections.unwrap_or(usize::MAX);
    let users = Users::default();
    let mut signal = pin!(signal);
    let mut start = |tasks: &mut JoinSet<()>, stream| {
        let Some(limit) = limits.per_user else {
            // As it is: a future inside another takes its room twice, for as long as a client stays.
            tasks.spawn(handler(stream));
            return;
        };
        let Some(seat) = users.seat(user_of(&stream), limit) else { return };
        let handled = handler(stream);
        tasks.spawn(async move {
            let _seat = seat;
            handled.await;
        });
    };
    let output = loop {
        let mut accept = pin!(listener.accept());
        let next = poll_fn(|cx| {
            if let Poll::Ready(output) = signal.as_mut().poll(cx) {
                return Poll::Ready(Err(Ended::Stopped(output)));
            }
            // A finished task is let go of here, so that their results do not pile up.
            while let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {}
            if tasks.len() >= most {
                // The next one to finish wakes us.
                return Poll::Pending;
            }
            accept.as_mut().poll(cx).map(|accepted| accepted.map_err(Ended::Failed))
        });
        match next.await {
            Ok(stream) => start(tasks, stream),
            Err(Ended::Stopped(output)) => break output,
            Err(failed) => return failed,
        }
    };
    // Their clients have been let in, and may have sent their questions.
    for stream in listener.into_pending() {
        start(tasks, stream);
    }
    Ended::Stopped(output)
}

fn user_of(stream: &impl LocalStream) -> Option<UserId> {
    stream.peer_credentials().ok().map(|peer| peer.user().clone())
}

/// The connections that each user has.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<Option<UserId>, usize>>>);

impl Users {
    /// `None` when `user` has as many as there may be.
    fn seat(&self, user: Option<UserId>, limit: usize) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(user.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Seat { users: self.clone(), user })
    }
}

/// Given back when the handler is done, however it ends.
struct Seat {
    users: Users,
    user: Option<UserId>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

async fn drain(mut tasks: JoinSet<()>, deadline: Duration) -> Drained {
    let mut finished = 0;
    let all = async {
        while tasks.join_next().await.is_some() {
            finished += 1;
        }
    };
    // Past the deadline the rest is cut.
    let _ = timeout(deadline, all).await;
    let cut = tasks.len();
    tasks.shutdown().await;
    Drained { finished, cut }
}

impl<L, H> fmt::Debug for Serve<L, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

impl<L, H, S> fmt::Debug for GracefulServe<L, H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GracefulServe").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
