//! The same transport without a runtime: calls that block the thread.
//!
//! [`Listener`] and [`Stream`] have the names, options, security, errors and contract of the async
//! types with the same names, and connect to them. They need no tokio: `--no-default-features
//! --features blocking` builds without it.
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
//! Unix: a listener and a stream implement `AsFd`, for `poll`, mio or the loop of a window system.
//! When a listener is readable, [`accept_timeout`](Listener::accept_timeout) with a limit of zero
//! returns the client, or `TimedOut` if another thread was faster. When a stream is readable, one
//! `read` does not wait.
//!
//! * mio and other edge-triggered loops report a descriptor once. Call `reregister` after each
//!   `accept_timeout` and each `read`, or the clients or bytes that are left are never reported.
//! * Also call `accept_timeout` with a limit of zero every few seconds: it binds the name again if
//!   another process removed it. The descriptor then refers to a new socket, which epoll and mio do
//!   not watch: register it again. poll(2) needs no such step.
//!
//! Windows cannot watch pipes: there, block a thread in `accept` or `read`, and let it send the
//! result through a channel and wake the loop. [`unblock`](Listener::unblock) ends the thread in
//! `accept`, and a [`shutdown`](Stream::shutdown) of the peer ends the one in `read`:
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
//!     move || -> io::Result<()> {
//!         for stream in listener.incoming() {
//!             // An error is final. `unblock` ends the loop without one.
//!             clients.send(stream?).map_err(io::Error::other)?;
//!         }
//!         Ok(())
//!     }
//! });
//! // In the loop, each time it is awake.
//! arrived.try_iter().for_each(handle);
//! // At its end.
//! listener.unblock();
//! acceptor.join().expect("no panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! Only the async API has `serve`'s limits for each user, drain deadline, notice of a stop,
//! counters and idle stop, `TimedListener`, `memory`, `Connector`, the adapters, and
//! `os::unix::take_over`.
//!
//! # Platform-specific behavior
//!
//! macOS and the BSDs: the socket of a stream is in nonblocking mode and the calls wait by poll(2),
//! because XNU has no other way to write with a timeout. Other users of the socket, for example by
//! its `AsFd`, see that mode; `os::unix::StreamExt::into_fd` and the conversions return a socket
//! that blocks.
//!
//! Windows: the I/O is overlapped, so a thread that is blocked in a read never blocks one that
//! writes. A listener has a thread of its own that accepts clients. One more thread of the crate
//! starts the writes that have a timeout. Each costs two thread switches, and returns when the
//! system has the data, as a write of the async stream does. Writes without a timeout return when
//! the data is in the pipe's buffer.

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
