//! The runtime that every pipe of the process is registered with.
//!
//! Not the user's: on Windows a closed pipe's handle is released by the event loop it belongs to,
//! so a stream that outlives its runtime would leave its peer without an end of file.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;

use super::wakers::guarded;

struct Reactor {
    handle: Handle,
    thread: ThreadId,
}

static REACTOR: OnceLock<Reactor> = OnceLock::new();

fn reactor() -> io::Result<&'static Reactor> {
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(reactor) = REACTOR.get() {
        return Ok(reactor);
    }
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reactor) = REACTOR.get() {
        return Ok(reactor);
    }
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new()
        .name("sockpipe-io".to_owned())
        .spawn(move || runtime.block_on(pending::<()>()))?;
    Ok(REACTOR.get_or_init(|| Reactor { handle, thread: thread.thread().id() }))
}

/// # Errors
///
/// The reactor could not be started.
pub(super) fn handle() -> io::Result<&'static Handle> {
    reactor().map(|reactor| &reactor.handle)
}

/// Whether this is the thread that completes I/O, which must not wait for any.
pub(super) fn is_current_thread() -> bool {
    REACTOR.get().is_some_and(|reactor| reactor.thread == thread::current().id())
}

/// Anywhere: no runtime of the user's is needed.
#[allow(clippy::unnecessary_wraps, reason = "elsewhere one is")]
pub(crate) fn can_accept() -> io::Result<()> {
    Ok(())
}

/// A sleep for any thread, with or without a runtime.
pub(crate) fn sleep(duration: Duration) -> io::Result<impl Future<Output = ()>> {
    let _context = handle()?.enter();
    Ok(guarded(tokio::time::sleep(duration)))
}

/// A timeout for any thread, with or without a runtime.
pub(super) fn timeout<F: Future>(
    limit: Duration,
    future: F,
) -> io::Result<impl Future<Output = Result<F::Output, Elapsed>>> {
    let _context = handle()?.enter();
    Ok(guarded(tokio::time::timeout(limit, future)))
}

pub(crate) fn shutdown_signal() -> impl Future<Output = io::Result<()>> + Send + 'static {
    let signals = || io::Result::Ok((ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?));
    let signals = signals();
    async {
        let (mut c, mut end, mut close, mut shutdown) = signals?;
        poll_fn(|cx| {
            let came =
                [c.poll_recv(cx), end.poll_recv(cx), close.poll_recv(cx), shutdown.poll_recv(cx)];
            if came.iter().any(Poll::is_ready) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(())
    }
}

/// A task on the reactor that ends when this is dropped.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(future: impl Future<Output = T> + Send + 'static) -> io::Result<Self> {
        Ok(Self(handle()?.spawn(future)))
    }

    /// Its outcome, if it ends before `limit`. Blocks this thread, which must not be the reactor's.
    pub(super) fn wait(&mut self, limit: Duration) -> Option<T> {
        let started = Instant::now();
        while !self.0.is_finished() {
            if started.elapsed() >= limit {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
        match Pin::new(&mut self.0).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome.ok(),
            Poll::Pending => None,
        }
    }
}

impl<T> Future for Task<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        Pin::new(&mut self.0).poll(cx).map_err(io::Error::other)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
