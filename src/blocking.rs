//! The same transport without a runtime: calls that block the thread.
//!
//! [`Listener`] and [`Stream`] have the names, options, security, errors and contract of their async
//! namesakes, and talk to those. No tokio is needed:
//! `--no-default-features --features blocking` builds without it.
//!
//! ```no_run
//! use std::io::{self, Read, Write};
//! use std::thread;
//! use sockpipe::blocking::{Listener, Stream};
//!
//! fn server() -> io::Result<()> {
//!     let listener = Listener::bind("echo")?;
//!     loop {
//!         let stream = listener.accept()?; // an error here is final
//!         thread::spawn(move || io::copy(&mut &stream, &mut &stream));
//!     }
//! }
//!
//! fn client() -> io::Result<()> {
//!     let mut stream = Stream::connect("echo")?; // the same name on every OS
//!     stream.write_all("olá mundo".as_bytes())?;
//!     stream.shutdown()?; // the peer reads end of file and can still answer
//!     let mut answer = Vec::new();
//!     stream.read_to_end(&mut answer)?;
//!     Ok(())
//! }
//! ```
//!
//! # With an event loop
//!
//! Unix: a listener and a stream have `AsFd`, for `poll`, mio or a window system's loop. When a
//! listener is readable, [`accept_timeout`](Listener::accept_timeout) with no time gives the client, or
//! `TimedOut` where another thread was faster. When a stream is readable, one `read` does not wait; where
//! readiness comes once for all that has come (mio), read on with a
//! [timeout](Stream::set_read_timeout) of a nanosecond, until `TimedOut`. A stream that may use shared
//! memory cannot be watched so.
//!
//! Without a descriptor, and on Windows, whose pipes cannot be watched: a thread blocks in `accept` or
//! `read` and sends what it gets through a channel, which wakes the loop.
//! [`unblock`](Listener::unblock) ends the one in `accept`, and [`shutdown`](Stream::shutdown) by the peer
//! the one in `read`:
//!
//! ```no_run
//! use std::sync::{Arc, mpsc};
//! use std::{io, thread};
//! use sockpipe::blocking::{Listener, Stream};
//!
//! # fn handle(_: Stream) {}
//! # fn main() -> io::Result<()> {
//! let listener = Arc::new(Listener::bind("org.example.gui")?);
//! let (clients, arrived) = mpsc::channel();
//! let acceptor = thread::spawn({
//!     let listener = listener.clone();
//!     // With winit, `send_event` of an `EventLoopProxy` in place of `send`.
//!     move || listener.incoming().map_while(Result::ok).try_for_each(|stream| clients.send(stream))
//! });
//! // In the loop, each time it is awake.
//! arrived.try_iter().for_each(handle);
//! // At its end.
//! listener.unblock();
//! drop(acceptor.join());
//! # Ok(())
//! # }
//! ```
//!
//! What there is for async only: `serve`'s limits for each user, counters and idle stop, `TimedListener`,
//! `memory`, `Connector`, the adapters, `os::unix::take_over`.
//!
//! # Platform-specific behavior
//!
//! macOS and the BSDs: the socket of a stream does not block, the calls wait by poll(2): XNU has no
//! other way to a write with a timeout. What else has the socket, as by its `AsFd`, sees that;
//! `os::unix::StreamExt::into_fd` and the conversions give one that blocks.
//!
//! Windows: the I/O is overlapped, so that a thread that is blocked in a read never blocks one that
//! writes. A listener has a thread of its own, that lets clients in. Writes with a timeout are begun
//! by one more thread of the crate's, which costs two changes of threads each, and return when the
//! system has the bytes in hand, as the async stream's do; without a timeout they return when the
//! pipe has had room for them.

#[cfg(feature = "tokio")]
mod convert;
mod handover;
mod instance;
mod listener;
mod serve;
mod signal;
mod stream;
mod way;

pub use handover::{HandOver, LaunchRequest, Reply, hand_over, hand_over_with};
pub use instance::{SingleInstance, connect_or_spawn, connect_or_spawn_with};
pub use listener::{Incoming, Listener};
pub use serve::serve;
pub use signal::{ShutdownSignal, shutdown_signal};
pub use stream::Stream;
