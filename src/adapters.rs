//! sockpipe in the frameworks that programs embed: HTTP, gRPC and RPC over a local endpoint.
//!
//! | feature | for | what |
//! |---|---|---|
//! | `axum` | [axum] 0.8 servers | `axum::serve(listener, app)`, and [`PeerInfo`] for handlers |
//! | `hyper-util` | [hyper-util] 0.1 clients | a [`Connector`] for `hyper_util::client::legacy::Client` |
//! | `tonic` | [tonic] 0.14 servers and clients | an [`Incoming`] of connections, [`PeerInfo`] for services, and the [`Connector`] |
//! | `tower` | clients of [hyper] 1 | the [`Connector`], a `tower_service::Service<Uri>` |
//! | `tokio-util` | what takes a `tokio_util::net::Listener` | [`Listener`] and [`Incoming`] are one |
//! | `interprocess` | programs that use [interprocess] 2 | its tokio listener and stream are a [`LocalListener`] and a [`LocalStream`] |
//!
//! None is on by default. A feature builds with the oldest Rust that its framework does: 1.88 for
//! tonic, 1.85 for the others. Types of a crate that is not stable yet are in the API only with the
//! feature that has its name; `tonic` brings futures-core's `Stream` besides, which tonic's servers
//! take.
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
#[cfg(feature = "tower")]
mod connector;
#[cfg(any(feature = "tokio-util", feature = "tonic"))]
mod incoming;
#[cfg(feature = "interprocess")]
mod interprocess;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod peer_info;
#[cfg(feature = "tokio-util")]
mod tokio_util;
#[cfg(feature = "tonic")]
mod tonic;

#[cfg(feature = "tower")]
pub use self::connector::{Connecting, Connector, HyperStream};
#[cfg(any(feature = "tokio-util", feature = "tonic"))]
pub use self::incoming::Incoming;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use self::peer_info::PeerInfo;
