//! The runtime that every pipe of the process is registered with.
//!
//! It is not the user's runtime: on Windows a closed pipe's handle is released by the event loop it
//! belongs to, so a stream that outlives its runtime would leave its peer without an end of file.
//!
//! Users' wakers run on its thread. A waker that panics ends the thread, as it would end any
//! runtime of tokio's.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::error::Elapsed;

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

/// The number of turns after which the reactor has closed the handles of the pipes that were
/// dropped before. Their I/O was cancelled on the drop, and the reactor learns of that in its next
/// turn. The other turns are for tasks.
const TURNS: usize = 8;
/// How long a thread may wait for these turns, if a waker or a busy machine delays the reactor.
const SETTLED: Duration = Duration::from_secs(1);

/// Returns a task that is ready when the pipes that were dropped by now are closed. A write that
/// the peer does not read keeps its pipe open for longer.
pub(super) fn settled() -> io::Result<Task<()>> {
    Task::spawn(turns())
}

async fn turns() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

/// Waits until the pipes that were dropped by now are closed. This waits only for the reactor's own
/// work.
pub(super) fn settle() {
    let Some(reactor) = REACTOR.get() else { return };
    if reactor.thread == thread::current().id() {
        return;
    }
    let (sender, receiver) = channel::<()>();
    reactor.handle.spawn(async move {
        turns().await;
        drop(sender);
    });
    // Nothing is sent: the call returns when the sender is dropped.
    let _ = receiver.recv_timeout(SETTLED);
}

/// Always succeeds: accepting needs no runtime of the user's.
#[allow(clippy::unnecessary_wraps, reason = "elsewhere one is")]
pub(crate) fn can_accept() -> io::Result<()> {
    Ok(())
}

/// A sleep for any thread, with or without a runtime.
pub(crate) fn sleep(duration: Duration) -> io::Result<impl Future<Output = ()>> {
    let _context = handle()?.enter();
    Ok(tokio::time::sleep(duration))
}

/// A timeout for any thread, with or without a runtime.
pub(super) fn timeout<F: Future>(
    limit: Duration,
    future: F,
) -> io::Result<impl Future<Output = Result<F::Output, Elapsed>>> {
    let _context = handle()?.enter();
    Ok(tokio::time::timeout(limit, future))
}

pub(crate) fn shutdown_signal() -> impl Future<Output = io::Result<()>> + Send + 'static {
    // Logoff is left out: only services receive it, when any user logs off.
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
