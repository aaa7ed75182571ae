//! A server with a fixed number of threads.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::listener::is_stopped;
use super::{Listener, Stream};

/// Serves each connection by `handler` in `threads` threads, the calling thread included.
///
/// When [`Listener::unblock`] is called, it waits for the running handlers and returns. It sets
/// them no deadline, and nothing in this process can end a waiting read: set a [read
/// timeout](Stream::set_read_timeout) in each handler, and check a flag of your own when it
/// expires.
///
/// It serves as many connections at a time as there are threads; further clients wait. A handler
/// that panics ends only its own connection. If the system has no more threads, fewer serve.
///
/// ```no_run
/// use std::io::{self, Write};
/// use std::num::NonZeroUsize;
/// use sockpipe::blocking::{Listener, serve};
///
/// # fn main() -> io::Result<()> {
/// let listener = Listener::bind("org.example.tool")?;
/// let threads = NonZeroUsize::new(8).expect("not zero");
/// std::thread::scope(|scope| {
///     let server = scope.spawn(|| {
///         serve(&listener, threads, |mut stream| {
///             if let Err(error) = stream.write_all(b"hello") {
///                 eprintln!("a connection ended: {error}");
///             }
///         })
///     });
///     io::stdin().read_line(&mut String::new())?;
///     listener.unblock();
///     server.join().expect("no panic")
/// })
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Listener::accept`] except that of `unblock`. The other threads end then too, and the
/// listener accepts no more connections.
pub fn serve(
    listener: &Listener,
    threads: NonZeroUsize,
    handler: impl Fn(Stream) + Sync,
) -> io::Result<()> {
    let accept = || loop {
        match listener.accept() {
            // A panic ends only this connection, and its message was printed.
            Ok(stream) => drop(catch_unwind(AssertUnwindSafe(|| handler(stream)))),
            Err(error) => {
                listener.unblock();
                return if is_stopped(&error) { Ok(()) } else { Err(error) };
            }
        }
    };
    thread::scope(|scope| {
        let further = (1..threads.get()).map_while(|_| {
            let thread = thread::Builder::new().name("sockpipe-serve".to_owned());
            thread.spawn_scoped(scope, accept).ok()
        });
        let further: Vec<_> = further.collect();
        let outcome = accept();
        further.into_iter().fold(outcome, |outcome, thread| {
            // Handlers' panics are caught above, and nothing else panics.
            outcome.and_then(|()| thread.join().unwrap_or(Ok(())))
        })
    })
}
