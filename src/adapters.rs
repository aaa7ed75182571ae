//! sockpipe in the frameworks that programs embed: HTTP, gRPC and RPC over a local endpoint.
//!
//! | feature | for | what |
//! |---|---|---|
//! | `axum` | [axum] 0.8 servers | `axum::serve(listener, app)`, and [`PeerInfo`] for handlers |
//! | `hyper-util` | clients of [hyper] 1 and [hyper-util] 0.1, and what else takes a `tower_service::Service<Uri>` | [`Connector`] is one |
//! | `tonic` | [tonic] 0.14 servers and clients | an [`Incoming`] of connections, [`PeerInfo`] for services, and the [`Connector`] |
//! | `tokio-util` | what takes a `tokio_util::net::Listener` | [`Listener`] and [`Incoming`] are one |
//! | `futures-core` | what takes a stream of connections | [`Incoming`] is a `futures_core::Stream` |
//! | `interprocess` | programs that use [interprocess] 2 | its tokio listener and stream are a [`LocalListener`] and a [`LocalStream`] |
//!
//! None is on by default. A feature builds with the oldest Rust that its framework does: 1.88 for
//! tonic, 1.85 for the others. Types of a crate that is not stable yet are in the API only with the
//! feature that has its name; `tonic` brings `futures-core` and `hyper-util` with it, which its servers
//! and its clients take.
//!
//! hyper's own servers and `tokio_util::codec` need no adapter: a [`Stream`](crate::Stream) is what
//! they take, through `hyper_util::rt::TokioIo` or as it is.
//!
//! [How to embed it](crate::docs::embedding) shows them at work.
//!
//! [`Listener`]: crate::Listener
//! [`LocalListener`]: crate::LocalListener
//! [`LocalStream`]: crate::LocalStream
//! [axum]: https://docs.rs/axum
//! [hyper]: https://docs.rs/hyper
//! [hyper-util]: https://docs.rs/hyper-util
//! [interprocess]: https://docs.rs/interprocess
//! [tonic]: https://docs.rs/tonic

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "hyper-util")]
mod connector;
#[cfg(any(feature = "futures-core", feature = "tokio-util"))]
mod incoming;
#[cfg(feature = "interprocess")]
mod interprocess;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod peer_info;
#[cfg(feature = "tokio-util")]
mod tokio_util;
#[cfg(feature = "tonic")]
mod tonic;

#[cfg(feature = "hyper-util")]
pub use self::connector::{Connecting, HyperStream};
#[cfg(any(feature = "futures-core", feature = "tokio-util"))]
pub use self::incoming::Incoming;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use self::peer_info::PeerInfo;
#[cfg(feature = "hyper-util")]
pub use crate::connector::Connector;
