//! The loop after `bind`: accept, a task per connection, and a stop that lets them finish.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::imp;
use crate::listener::LocalListener;

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
/// let listener = Listener::bind("echo")?;
/// let drained = serve(listener, async |stream| {
///     if let Err(error) = echo::echo(stream, |_| ()).await {
///         eprintln!("{error}");
///     }
/// })
/// .with_graceful_shutdown(async { drop(sockpipe::shutdown_signal().await) })
/// .await?;
/// println!("{} connections finished, {} were cut", drained.finished(), drained.cut());
/// # Ok(())
/// # }
/// ```
///
/// It needs a tokio runtime; a graceful stop needs its timers.
pub fn serve<L, H, F>(listener: L, handler: H) -> Serve<L, H>
where
    L: LocalListener,
    H: FnMut(L::Stream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    Serve { listener, handler }
}

/// Return type of [`serve()`]: await it to serve until the listener fails.
///
/// Its output is `io::Result<Infallible>`: it never ends well. When the listener fails, the
/// connections that are open go on by themselves.
#[must_use = "nothing is served until it is awaited"]
pub struct Serve<L, H> {
    listener: L,
    handler: H,
}

impl<L, H> Serve<L, H> {
    /// Stops when `signal` completes: the listener is dropped, so that its name is free, and open
    /// connections have the [drain deadline](GracefulServe::drain_deadline) to finish.
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
            let ended = accept_until(self.listener, self.handler, never, &mut tasks).await;
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
            let ended = accept_until(serve.listener, serve.handler, signal, &mut tasks).await;
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
/// Once it has been called, the OS no longer ends the process by itself on these signals: wait for
/// a second one to let an impatient user out.
///
/// # Errors
///
/// That the OS does not let us listen for signals; `Other` outside a tokio runtime with I/O.
///
/// # Platform-specific behavior
///
/// Unix: SIGINT (Ctrl-C) and SIGTERM. Windows: Ctrl-C, Ctrl-Break, the console's closing, logoff
/// and shutdown.
pub async fn shutdown_signal() -> io::Result<()> {
    imp::shutdown_signal().await
}

enum Ended<T> {
    /// The signal's output.
    Stopped(T),
    Failed(io::Error),
}

async fn accept_until<L, H, F, S>(
    mut listener: L,
    mut handler: H,
    signal: S,
    tasks: &mut JoinSet<()>,
) -> Ended<S::Output>
where
    L: LocalListener,
    H: FnMut(L::Stream) -> F,
    F: Future<Output = ()> + Send + 'static,
    S: Future,
{
    if Handle::try_current().is_err() {
        return Ended::Failed(io::Error::other("serve needs a tokio runtime to run handlers on"));
    }
    let mut signal = pin!(signal);
    loop {
        let mut accept = pin!(listener.accept());
        let next = poll_fn(|cx| {
            if let Poll::Ready(output) = signal.as_mut().poll(cx) {
                return Poll::Ready(Err(Ended::Stopped(output)));
            }
            // A finished task is let go of here, so that their results do not pile up.
            while let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {}
            accept.as_mut().poll(cx).map(|accepted| accepted.map_err(Ended::Failed))
        });
        match next.await {
            Ok(stream) => drop(tasks.spawn(handler(stream))),
            Err(ended) => return ended,
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::{echo, memory};

    #[tokio::test(start_paused = true)]
    async fn a_graceful_stop_lets_connections_finish_and_cuts_the_rest_at_the_deadline() {
        let (listener, connector) = memory::pair();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(
            serve(listener, |mut stream| async move {
                let seconds = stream.read_u8().await.unwrap_or(0);
                sleep(Duration::from_secs(seconds.into())).await;
                let _ = stream.write_u8(seconds).await;
            })
            .with_graceful_shutdown(async { drop(stopped.await) })
            .drain_deadline(Duration::from_secs(10))
            .into_future(),
        );
        let mut quick = connector.connect().await.expect("a connection");
        let mut slow = connector.connect().await.expect("a connection");
        quick.write_u8(3).await.expect("a write");
        slow.write_u8(60).await.expect("a write");
        // Both handlers must have their byte before the stop.
        sleep(Duration::from_secs(1)).await;
        let asked = Instant::now();
        stop.send(()).expect("a server");
        assert_eq!(quick.read_u8().await.expect("an answer"), 3);
        let drained = server.await.expect("no panic").expect("no error");
        assert_eq!(drained, Drained { finished: 1, cut: 1 });
        assert_eq!(asked.elapsed().as_secs(), 10);
        assert_eq!(slow.read(&mut [0]).await.expect("an end"), 0);
        let refused = connector.connect().await.expect_err("the listener is gone");
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_handler_ends_its_own_connection_only() {
        let (listener, connector) = memory::pair();
        let calls = AtomicUsize::new(0);
        let server = tokio::spawn(
            serve(listener, move |stream| {
                let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
                async move {
                    assert!(!first, "the first handler panics, as it should in this test");
                    echo::echo(stream, |_| ()).await.expect("an echo");
                }
            })
            .into_future(),
        );
        let mut first = connector.connect().await.expect("a connection");
        assert_eq!(first.read(&mut [0]).await.expect("an end"), 0);
        let mut second = connector.connect().await.expect("a connection");
        second.write_all(b"still here").await.expect("a write");
        second.shutdown().await.expect("a shutdown");
        let mut text = String::new();
        second.read_to_string(&mut text).await.expect("an answer");
        assert_eq!(text, "still here");
        // With the last connector gone, accept fails for good, and serve says so.
        drop(connector);
        let error = server.await.expect("no panic").expect_err("serve ends only by an error");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}
