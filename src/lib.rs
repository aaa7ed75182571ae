//! One local transport for every OS: [`Listener`] and [`Stream`] are Unix domain sockets on Linux,
//! macOS and the BSDs, named pipes on Windows, and behave the same on all of them.
//!
//! # Purpose
//!
//! Programs on one machine talk to each other over a name: an editor to its language server, a tool to
//! its daemon, a client to Docker. The OS has the pieces, and leaves the hard part to each program: a
//! server that crashed leaves a socket file on which the next one fails; a server that removes what it
//! finds steals a running one's name; a socket is readable by others until its mode is set; a pipe has
//! no half-close, and loses what was written just before the process ended; a client talks to whoever
//! took the name first. Each of these is settled here once, and the same way on every OS.
//!
//! # The contract
//!
#![doc = include_str!("../docs/contract.md")]
//!
//! # When it fails
//!
//! Errors are [`std::io::Error`]s. Their kinds are the same on every OS, and their messages name the
//! endpoint and the next step. Those of listening, connecting, accepting and cleaning carry an
//! [`Error`], which [`Error::of`] returns: the [`Operation`], the endpoint, a [`Reason`] to match, and
//! the OS's error with its code, which [`std::io::Error::raw_os_error`] does not return for them.
//!
//! | kind | situation |
//! |---|---|
//! | `AddrInUse` | a living server has the name |
//! | `AlreadyExists` | what stands at the path is no socket |
//! | `PermissionDenied` | another user's socket or directory, a server of somebody else, a client that may not connect |
//! | `NotFound`, `ConnectionRefused` | no server is listening; a crashed server left its socket behind, or one stops |
//! | `TimedOut` | the deadline is over |
//! | `InvalidInput` | a bad endpoint (the source is a [`ParseEndpointError`]), or one too long for the OS |
//! | `Unsupported` | this OS or this peer cannot |
//! | `BrokenPipe` | written to a peer that is gone; reads give `Ok(0)` then |
//! | `ResourceBusy` | a blocking stream that has other handles is to become an async one, a descriptor or a handle |
//! | `Other` | there is no tokio runtime here; or it lacks I/O or timers, in which case tokio's message is printed first, and with `panic = "abort"` the process ends |
//!
//! What passes by itself is no error: [`Listener::accept`] handles clients that left and a lack of
//! descriptors inside, and its error is final. There is never a signal for a write to a peer that is
//! gone, and never a panic for what a peer does.
//!
//! # Examples
//!
//! ```no_run
//! use sockpipe::{Listener, Stream, echo};
//! use tokio::io::AsyncWriteExt;
//!
//! async fn server() -> std::io::Result<()> {
//!     let mut listener = Listener::bind("echo")?; // $XDG_RUNTIME_DIR/echo.sock, \\.\pipe\SID.echo
//!     loop {
//!         let stream = listener.accept().await?; // an error here is final
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
//! An echo server and its client are in `examples/`, the same source on every OS; so are a
//! graceful stop, a daemon that its clients start, one instance of a program, messages, and HTTP and
//! gRPC over a local endpoint. The pages of [`docs`] are a guide: [which address a name
//! has](docs::which_address), [access and trust](docs::access_and_trust), [closing and one
//! side](docs::closing), [daemons](docs::daemons), [embedding](docs::embedding) HTTP and gRPC, [notes
//! on Windows](docs::windows) and [its other programs](docs::windows_interop), [moving from other
//! crates](docs::moving), [a comparison](docs::comparison) with them, [performance](docs::performance),
//! and [how it works](docs::how_it_works).
//!
//! # Features
//!
//! `tokio` (default): the async API. `blocking`: the same without a runtime, in the module
//! `blocking`; tokio is not needed for it. One of the two is needed.
//!
//! `tracing`: events for what a listener otherwise handles in silence. `serde`: [`Endpoint`] in
//! configuration files. `framed`: `FrameSink`, which puts small messages together. `shared-memory`: hot
//! connections in [memory that both processes map](docs::shared_memory).
//!
//! `axum`, `futures-core`, `hyper-util`, `interprocess`, `tokio-util`, `tonic`: sockpipe in these frameworks,
//! which `adapters` describes.
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
mod connector;
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
#[cfg(feature = "shared-memory")]
mod shared_memory;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
mod timed;
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
pub use shared_memory::{SharedMemory, Transport};

#[cfg(feature = "framed")]
pub use framed::FrameSink;
#[cfg(feature = "tokio")]
pub use {
    connector::{Connector, LocalConnector},
    instance::daemon::{connect_or_spawn, connect_or_spawn_with},
    instance::handover::{HandOver, LaunchRequest, Reply, hand_over, hand_over_with},
    instance::single::SingleInstance,
    listener::{Listener, LocalListener, WithCredentials},
    serve::{
        Counters, Drained, GracefulServe, HandlerOutput, Refusal, Serve, SignalOutput, Stopping,
        serve, serve_with, shutdown_signal,
    },
    stream::{
        LocalStream, OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, Stream, WriteHalf,
    },
    timed::{TimedListener, TimedStream},
};

// The seam: everything above it is neutral, everything below it is one OS's.
cfg_if::cfg_if! {
    if #[cfg(unix)] { mod unix; use unix as imp; }
    else if #[cfg(windows)] { mod windows; use windows as imp; }
    else { compile_error!("sockpipe needs Unix domain sockets or Windows named pipes"); }
}

// The lane of shared memory, which only Linux has so far.
cfg_if::cfg_if! {
    if #[cfg(all(feature = "shared-memory", target_os = "linux", not(sockpipe_posix)))] {
        mod lane;
        mod ring;
    }
}

/// Keeps traits to the types of this crate, so that a method can be added to them.
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

/// What only one OS has. A program that uses it says so by the name.
pub mod os {
    #[cfg(unix)]
    pub use crate::imp::ext as unix;
    #[cfg(windows)]
    pub use crate::imp::ext as windows;
}

/// Guide pages.
pub mod docs {
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

    #[doc = include_str!("../docs/tour.md")]
    pub mod tour {}

    #[doc = include_str!("../docs/versions.md")]
    pub mod versions {}

    #[doc = include_str!("../docs/windows.md")]
    pub mod windows {}

    #[doc = include_str!("../docs/which_address.md")]
    #[allow(clippy::module_inception, reason = "a page, no code")]
    pub mod which_address {}

    #[doc = include_str!("../docs/embedding.md")]
    pub mod embedding {}

    #[doc = include_str!("../docs/performance.md")]
    pub mod performance {}

    #[doc = include_str!("../docs/shared_memory.md")]
    pub mod shared_memory {}

    #[doc = include_str!("../docs/windows_interop.md")]
    pub mod windows_interop {}
}

/// What every backend has, checked by the compiler on each OS; what the items must do is written in
/// `listener.rs`, `stream.rs` and `blocking.rs` beside their callers.
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
