//! Behaviour of Windows that the contract's rows do not cover. A test starts a runtime only if it
//! is about one, because the backend needs none.
#![allow(unsafe_code, reason = "asks the system about handles")]

mod close;
mod listener;
mod stream;
// The path is needed because the published package has its unit tests, but not our package for
// tests.
#[path = "../../tests/common/wine.rs"]
pub(super) mod wine;

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWrite as _, AsyncWriteExt};
use tokio::net::windows::named_pipe::ServerOptions;

use super::security::own_sid;
use super::{pipe, reactor, system};
use crate::peer::SYSTEM;
use crate::{ConnectOptions, Error, ExpectServer, ListenOptions, Listener, Reason, Stream, UserId};

/// Asserts that an outcome is an error of ours with this kind and reason, and returns the error.
macro_rules! assert_reason {
    ($outcome:expr, $kind:ident, $reason:pat) => {{
        let Err(error) = $outcome else { panic!("no error") };
        assert_eq!(error.kind(), std::io::ErrorKind::$kind, "{error}");
        let reason = $crate::Error::of(&error).map($crate::Error::reason);
        assert!(matches!(reason, Some($reason)), "{reason:?}: {error}");
        error
    }};
}
pub(super) use assert_reason;

/// Only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(r"\\.\pipe\sockpipe-unit-{}-{count}", std::process::id())
}

/// Runs `future` on this thread, without a runtime.
#[track_caller]
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    let started = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let left = PATIENCE.saturating_sub(started.elapsed());
        assert!(!left.is_zero(), "no end after {PATIENCE:?}");
        thread::park_timeout(left);
    }
}

async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    let mut outputs = Vec::new();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(output) => {
                outputs.push(output);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs
}

/// Returns a connected client and server.
fn connected() -> (Stream, Stream) {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    run(async {
        let client = Stream::connect(&path).await.expect("a server");
        (client, listener.accept().await.expect("a client"))
    })
}

async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("an end, not an error");
    bytes
}

/// Writes until the system takes no more, and returns how many bytes it took. One write stays in
/// flight.
async fn write_until_full(stream: &mut Stream) -> usize {
    let mut written = 0;
    loop {
        let chunk = [written as u8; 64 * 1024];
        match tokio::time::timeout(Duration::from_millis(300), stream.write(&chunk)).await {
            Ok(length) => written += length.expect("a write"),
            Err(_) => return written,
        }
    }
}

fn on_reactor<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    run(reactor::Task::spawn(future).expect("a reactor")).expect("no panic")
}

#[track_caller]
fn assert_kind<T>(outcome: io::Result<T>, kind: ErrorKind) {
    let Err(error) = outcome else { panic!("no error, where {kind:?} was to be") };
    assert_eq!(error.kind(), kind, "{error}");
}

#[test]
fn the_shutdown_signal_needs_no_runtime() {
    let mut signal = std::pin::pin!(reactor::shutdown_signal());
    let polled = signal.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}
