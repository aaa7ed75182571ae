//! A local transport for every OS: [`Listener`] and [`Stream`] are Unix domain sockets on Linux,
//! macOS and the BSDs and named pipes on Windows, and behave the same on all of them.
//!
//! ```no_run
//! use sockpipe::{Listener, Stream, echo};
//! use tokio::io::AsyncWriteExt;
//!
//! async fn server() -> std::io::Result<()> {
//!     // $XDG_RUNTIME_DIR/echo.sock, or \\.\pipe\SID.echo on Windows
//!     let mut listener = Listener::bind("echo")?;
//!     loop {
//!         let stream = listener.accept().await?; // an error here is permanent
//!         tokio::spawn(echo::echo(stream, |_| ()));
//!     }
//! }
//!
//! async fn client() -> std::io::Result<()> {
//!     let mut stream = Stream::connect("echo").await?; // the same name on every OS
//!     stream.write_all("olá mundo".as_bytes()).await
//! }
//! ```
//!
//! `examples/` has an echo server and its client, a graceful shutdown, a daemon that its clients
//! start, a program with one instance, messages, and HTTP and gRPC over a local endpoint. Each is
//! the same source on every OS.
//!
//! # Where to go next
//!
//! | to | see |
//! |---|---|
//! | serve connections until a signal comes | [`serve()`], [`shutdown_signal`] |
//! | use threads and no runtime | [`blocking`](blocking/index.html), with the feature of that name |
//! | choose who may connect, and which server a client accepts | [`Access`], [`ExpectServer`], [access and trust](docs::access_and_trust) |
//! | start a daemon from its clients | [`connect_or_spawn`], [daemons](docs::daemons) |
//! | run one instance of a program | [`SingleInstance`], [`hand_over`] |
//! | set deadlines for silent clients | [`TimedListener`] |
//! | test a server without a name | [`memory`], [testing your program](docs::testing) |
//! | serve HTTP, gRPC or JSON-RPC | [`adapters`](adapters/index.html), [embedding](docs::embedding) |
//! | know the address of a name | [`Endpoint::resolve`], [which address do I get?](docs::which_address) |
//! | understand an error | [`Reason`], [troubleshooting](docs::troubleshooting) |
//! | port a program to sockpipe | [moving from other crates](docs::moving), [a comparison](docs::comparison) |
//! | talk to programs on Windows | [notes on Windows](docs::windows), [its other programs](docs::windows_interop) |
//!
//! [Across machines](docs::across_machines), [other languages](docs::other_languages), [sandboxes
//! and containers](docs::sandboxes), [a tour](docs::tour), [closing](docs::closing), [how it
//! works](docs::how_it_works), [performance](docs::performance) and [versions](docs::versions)
//! complete the guide.
//!
//! # The contract
//!
//! Every OS has the pieces of a local transport, but leaves the hard part to each program. A
//! crashed server leaves a socket file on which the next one fails. A server that removes the file
//! it finds can steal a live server's name. Other users can open a socket until its mode is set. A
//! pipe has no half-close, and loses data that was written just before the process exits. A client
//! trusts whichever process took the name first. sockpipe promises the following on every OS:
//!
#![doc = include_str!("../docs/contract.md")]
//!
//! # Errors
//!
//! Errors are [`std::io::Error`]s. Their kinds are the same on every OS, and their messages name
//! the endpoint and the next step. The errors of listening, connecting, accepting and cleaning
//! carry an [`Error`], which [`Error::of`] returns. It has the [`Operation`], the endpoint, a
//! [`Reason`] to match, and the OS's error. Its code is in [`Error::raw_os_error`], because
//! [`std::io::Error::raw_os_error`] is `None` for these errors.
//!
//! | kind | situation |
//! |---|---|
//! | `AddrInUse` | a live server holds the name |
//! | `AlreadyExists` | the path exists and is not a socket |
//! | `PermissionDenied` | a socket or directory of another user, a server of another user, or a client that may not connect |
//! | `NotFound`, `ConnectionRefused` | no server is listening, a crashed server left its socket behind, or a server is stopping |
//! | `TimedOut` | the deadline expired |
//! | `InvalidInput` | a bad endpoint (the source is a [`ParseEndpointError`]), or one too long for the OS |
//! | `Unsupported` | this OS or this peer does not support the operation |
//! | `BrokenPipe` | a write to a peer that is gone; reads then return `Ok(0)` |
//! | `ResourceBusy` | a blocking stream with several handles cannot become an async one, a descriptor or a handle |
//! | `Other` | there is no tokio runtime here, or it lacks I/O or timers. If it lacks them, tokio's panic is printed and caught; with `panic = "abort"` it ends the process |
//!
//! [`Listener::accept`] retries transient failures, such as a client that disconnects early or a
//! lack of file descriptors. An error from it is permanent. A write to a peer that is gone never
//! raises a signal, and no behavior of a peer causes a panic.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `tokio` (default) | the async API |
//! | `blocking` | the core API for threads, in the module `blocking`; it does not need tokio |
//! | `tracing` | events for what a listener handles by itself |
//! | `serde` | [`Endpoint`] in configuration files |
//! | `framed` | `FrameSink`, which combines small messages into one write |
//! | `shared-memory` | hot connections in [memory that both processes map](docs::shared_memory) |
//! | `axum`, `futures-core`, `hyper-util`, `interprocess`, `tokio-util`, `tonic` | `adapters` for these crates |
//!
//! `tokio` or `blocking` is required.
// The text links to the async API, and without it these links lead nowhere.
#![cfg_attr(not(feature = "tokio"), allow(rustdoc::broken_intra_doc_links))]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings), allow(dead_code))))]

#[cfg(not(any(feature = "tokio", feature = "blocking")))]
compile_error!(
    "sockpipe without its default features needs one of the features `tokio` and `blocking`"
);

#[cfg(any(
    feature = "axum",
    feature = "futures-core",
    feature = "hyper-util",
    feature = "interprocess",
    feature = "tokio-util",
    feature = "tonic",
))]
pub mod adapters;
#[cfg(feature = "blocking")]
pub mod blocking;
mod candidate;
#[cfg(feature = "tokio")]
pub mod echo;
mod endpoint;
mod error;
#[cfg(feature = "framed")]
mod framed;
mod instance;
#[cfg(feature = "tokio")]
mod listener;
#[cfg(feature = "tokio")]
pub mod memory;
mod options;
mod peer;
#[cfg(feature = "tokio")]
mod runtime;
#[cfg(feature = "tokio")]
mod serve;
#[cfg(feature = "tokio")]
mod stream;
mod wait;

pub use candidate::{Candidate, Occupancy};
pub use endpoint::{Endpoint, ParseEndpointError};
pub use error::events::ListenerStats;
pub use error::{Error, Operation, Reason};
pub use instance::command::DaemonCommand;
pub use instance::launch::Launch;
pub use options::{Access, ConnectOptions, ExpectServer, ListenOptions, SpinPolicy};
#[cfg(feature = "tokio")]
pub use peer::PeerTold;
pub use peer::{PeerCredentials, UserId};
#[cfg(feature = "shared-memory")]
pub use shared_memory::options::{SharedMemory, Transport};

#[cfg(feature = "framed")]
pub use framed::FrameSink;
#[cfg(feature = "tokio")]
pub use {
    instance::connector::{Connector, LocalConnector},
    instance::daemon::{connect_or_spawn, connect_or_spawn_with},
    instance::handover::{HandOver, LaunchRequest, Reply, hand_over, hand_over_with},
    instance::single::SingleInstance,
    listener::timed::{TimedListener, TimedStream},
    listener::{Listener, LocalListener, WithCredentials},
    serve::{
        Counters, Drained, GracefulServe, HandlerOutput, Refusal, Serve, SignalOutput, Stopping,
        serve, serve_with, shutdown_signal,
    },
    stream::{
        LocalStream, OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, Stream, WriteHalf,
    },
};

// The seam: the code above it is the same on every OS, the code below it is for one OS. Here and in
// `unix.rs`, modules are declared by plain `#[cfg]`, because cargo-mutants does not find modules
// that a macro declares.
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as imp;
#[cfg(not(any(unix, windows)))]
compile_error!("sockpipe needs Unix domain sockets or Windows named pipes");

/// Streams in shared memory. They are on neither side of the seam: the ring and the switch to it do
/// not depend on the OS, but so far only the Linux backend provides the memory.
#[cfg(feature = "shared-memory")]
mod shared_memory {
    #[cfg(all(target_os = "linux", not(sockpipe_posix)))]
    pub(crate) mod lane;
    pub(crate) mod options;
    #[cfg(all(target_os = "linux", not(sockpipe_posix)))]
    pub(crate) mod ring;
}

/// Seals traits: only types of this crate implement them, so a new method breaks no other crate.
mod sealed {
    #[allow(unnameable_types, reason = "nobody else is to name it")]
    pub trait Sealed {}

    impl Sealed for crate::ListenOptions {}
    impl Sealed for crate::DaemonCommand {}
    #[cfg(feature = "tokio")]
    impl Sealed for crate::Listener {}
    #[cfg(feature = "tokio")]
    impl Sealed for crate::Stream {}
    #[cfg(feature = "blocking")]
    impl Sealed for crate::blocking::Listener {}
    #[cfg(feature = "blocking")]
    impl Sealed for crate::blocking::Stream {}
}

/// Extensions for one OS. Their paths show that a program depends on that OS.
pub mod os {
    #[cfg(unix)]
    pub use crate::imp::ext as unix;
    #[cfg(windows)]
    pub use crate::imp::ext as windows;
}

/// Guide pages.
pub mod docs {
    #[doc = include_str!("../docs/across_machines.md")]
    pub mod across_machines {}

    #[doc = include_str!("../docs/access_and_trust.md")]
    pub mod access_and_trust {}

    #[doc = include_str!("../docs/closing.md")]
    pub mod closing {}

    #[doc = include_str!("../docs/comparison.md")]
    pub mod comparison {}

    #[doc = include_str!("../docs/daemons.md")]
    pub mod daemons {}

    #[doc = include_str!("../docs/how_it_works.md")]
    pub mod how_it_works {}

    #[doc = include_str!("../docs/moving.md")]
    pub mod moving {}

    #[doc = include_str!("../docs/other_languages.md")]
    pub mod other_languages {}

    #[doc = include_str!("../docs/sandboxes.md")]
    pub mod sandboxes {}

    #[doc = include_str!("../docs/testing.md")]
    pub mod testing {}

    #[doc = include_str!("../docs/tour.md")]
    pub mod tour {}

    #[doc = include_str!("../docs/troubleshooting.md")]
    pub mod troubleshooting {}

    #[doc = include_str!("../docs/versions.md")]
    pub mod versions {}

    #[doc = include_str!("../docs/windows.md")]
    pub mod windows {}

    #[doc = include_str!("../docs/which_address.md")]
    #[allow(clippy::module_inception, reason = "a page, no code")]
    pub mod which_address {}

    // The page links to items that exist only with the feature `framed`.
    #[cfg_attr(not(feature = "framed"), allow(rustdoc::broken_intra_doc_links))]
    #[doc = include_str!("../docs/embedding.md")]
    pub mod embedding {}

    #[doc = include_str!("../docs/performance.md")]
    pub mod performance {}

    #[doc = include_str!("../docs/shared_memory.md")]
    pub mod shared_memory {}

    #[doc = include_str!("../docs/windows_interop.md")]
    pub mod windows_interop {}
}

/// The types that every backend must have, checked by the compiler on each OS. `listener.rs`,
/// `stream.rs` and `blocking.rs` document what they must do, beside their callers.
const _: () = {
    const fn shared<T: Send + Sync + Unpin + 'static>() {}
    #[cfg(feature = "tokio")]
    shared::<(imp::Listener, imp::Stream)>();
    #[cfg(feature = "blocking")]
    shared::<(imp::blocking::Listener, imp::blocking::Stream)>();
};

#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
