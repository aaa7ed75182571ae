//! The signals that ask a process to stop.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::ptr::null;
use std::task::Poll;

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first signal that asks the process to stop, a closed terminal included. Signals
/// are caught from now on. Signals that the parent process ignores stay ignored, as under `nohup`
/// and in the background of a shell script.
pub fn asked_to_stop() -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let heard = kinds.into_iter().filter(|kind| !is_ignored(kind.as_raw_value()));
    let signals: io::Result<Vec<_>> = heard.map(signal).collect();
    Box::pin(async move {
        let mut signals = signals?;
        let asked = poll_fn(|cx| {
            let asked = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if asked { Poll::Ready(()) } else { Poll::Pending }
        });
        asked.await;
        Ok(())
    })
}

/// Makes a write beyond the limit on file sizes fail instead of ending the process. It installs a
/// handler, because commands would inherit an ignored signal. Requires a runtime.
pub fn bear_file_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

#[allow(unsafe_code, reason = "rustix does not tell what a signal does")]
fn is_ignored(signal: i32) -> bool {
    let mut found = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no action is passed, so nothing changes, and `found` has room for the present one.
    let done = unsafe { libc::sigaction(signal, null(), found.as_mut_ptr()) };
    // SAFETY: the structure is numbers and a pointer that may be null, so the zeros that it started
    // with are valid.
    let found = unsafe { found.assume_init() };
    done == 0 && found.sa_sigaction == libc::SIG_IGN
}
