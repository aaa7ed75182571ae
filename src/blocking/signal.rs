//! Being told to end, without a runtime.

use std::io;

use crate::imp::signal;

/// Listens for the signals that ask a process to end. They are heard from the call on:
/// [`wait`](ShutdownSignal::wait) returns at once if one came in between.
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
/// One signal is heard in all. The next one finds what was there before the first call, so that a
/// second Ctrl-C ends the process, as a rule.
///
/// # Errors
///
/// That the OS does not let us listen for signals.
///
/// # Platform-specific behavior
///
/// Unix: SIGINT (Ctrl-C) and SIGTERM; handlers that were there before are called too. Windows:
/// Ctrl-C, Ctrl-Break, the console's closing, logoff and shutdown; the last three end the process a
/// few seconds later in any case.
pub fn shutdown_signal() -> io::Result<ShutdownSignal> {
    signal::listen()?;
    Ok(ShutdownSignal(()))
}

/// From [`shutdown_signal`].
#[derive(Debug)]
pub struct ShutdownSignal(());

impl ShutdownSignal {
    /// Blocks until the process is asked to end. Any number of threads may wait.
    ///
    /// # Errors
    ///
    /// What the OS reports.
    pub fn wait(&self) -> io::Result<()> {
        signal::wait()
    }
}
