//! Adapters for frameworks: HTTP, gRPC and RPC over a local endpoint.
//!
//! | feature | for | what |
//! |---|---|---|
//! | `axum` | [axum] 0.8 servers | `axum::serve(listener, app)`, and [`PeerInfo`] for handlers |
//! | `hyper-util` | clients of [hyper] 1 and [hyper-util] 0.1, and other code that takes a `tower_service::Service<Uri>` | [`Connector`] implements it |
//! | `tonic` | [tonic] 0.14 servers and clients | an [`Incoming`] of connections, [`PeerInfo`] for services, and the [`Connector`] |
//! | `tokio-util` | functions that take a `tokio_util::net::Listener` | [`Listener`] and [`Incoming`] implement it |
//! | `futures-core` | functions that take a stream of connections | [`Incoming`] is a `futures_core::Stream` |
//! | `interprocess` | programs that use [interprocess] 2 | its tokio listener and stream implement [`LocalListener`] and [`LocalStream`] |
//!
//! No adapter is on by default. The oldest Rust of a feature is that of its framework: 1.88 for
//! tonic, 1.85 for the others. Types of a crate that is not stable yet are in the API only with the
//! feature of that name. `tonic` enables `futures-core` and `hyper-util`, which its servers and
//! clients need.
//!
//! hyper's own servers and `tokio_util::codec` need no adapter: they take a
//! [`Stream`](crate::Stream), through `hyper_util::rt::TokioIo` or directly.
//!
//! [How to embed it](crate::docs::embedding) shows each adapter in a program.
//!
//! [`Connector`]: crate::Connector
//! [`Listener`]: crate::Listener
//! [`LocalListener`]: crate::LocalListener
//! [`LocalStream`]: crate::LocalStream
//! [axum]: https://docs.rs/axum
//! [hyper]: https://docs.rs/hyper
//! [hyper-util]: https://docs.rs/hyper-util
//! [interprocess]: https://docs.rs/interprocess
//! [tonic]: https://docs.rs/tonic

// The table links to items that exist only with some features.
#![cfg_attr(
    not(all(feature = "axum", feature = "futures-core", feature = "hyper-util")),
    allow(rustdoc::broken_intra_doc_links)
)]

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
pub use crate::instance::connector::Connector;
