//! The signals that ask a process to end, without a runtime.

use std::io;

use crate::imp::signal;

/// Starts catching the signals that ask a process to end.
///
/// [`wait`](ShutdownSignal::wait) returns at once if a signal has arrived since this call.
///
/// Call it when the listener is bound, before the program reports that it listens: until the call a
/// signal terminates the process.
///
/// ```no_run
/// use std::io::Write;
/// use std::num::NonZeroUsize;
/// use sockpipe::blocking::{Listener, serve, shutdown_signal};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = Listener::bind("org.example.tool")?;
/// let stop = shutdown_signal()?;
/// let threads = NonZeroUsize::new(8).expect("not zero");
/// std::thread::scope(|scope| {
///     let server = scope.spawn(|| {
///         serve(&listener, threads, |mut stream| {
///             if let Err(error) = stream.write_all(b"hello") {
///                 eprintln!("a connection ended: {error}");
///             }
///         })
///     });
///     stop.wait()?;
///     listener.unblock();
///     server.join().expect("no panic")
/// })
/// # }
/// ```
///
/// Only the first signal is caught, so a second Ctrl-C usually ends the process.
///
/// # Errors
///
/// The OS's error if the signals cannot be caught.
///
/// # Platform-specific behavior
///
/// Unix: SIGINT (Ctrl-C) and SIGTERM, even if they were ignored at the start, as SIGINT is in a
/// shell script's background jobs. The first one restores the handling from before
/// this call. Handlers that were installed before are called too.
///
/// Windows: Ctrl-C, Ctrl-Break, the console's closing and shutdown. The last two end the process a
/// few seconds later in any case. A second Ctrl-C reaches the handlers that were installed before.
/// A service goes on when a user logs off.
pub fn shutdown_signal() -> io::Result<ShutdownSignal> {
    signal::listen()?;
    Ok(ShutdownSignal(()))
}

/// A way to wait for the signals that [`shutdown_signal`] catches.
#[derive(Debug)]
pub struct ShutdownSignal(());

impl ShutdownSignal {
    /// Blocks until the process is asked to end. Any number of threads may wait.
    ///
    /// # Errors
    ///
    /// The error that the OS reports.
    pub fn wait(&self) -> io::Result<()> {
        signal::wait()
    }
}
