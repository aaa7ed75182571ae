//! The adapters with the frameworks that they serve, and the examples that show them.
//!
//! `cargo test --all-features --test adapters`, after `cargo build --all-features --examples`.

mod adapters {
    mod docker;
    mod http;
    mod listeners;
}
mod common;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sockpipe::adapters::Connector;
use sockpipe::{Endpoint, LocalListener, memory};

type HttpClient = Client<Connector, Full<Bytes>>;

/// A client that keeps one connection open and uses no other.
fn client(endpoint: &str) -> HttpClient {
    let connector = Connector::new(endpoint).expect("an endpoint");
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector)
}

/// A listener whose `accept` fails for the first `limit` calls.
struct Failing {
    inner: memory::Listener,
    failures: AtomicU32,
    limit: u32,
}

impl Failing {
    fn new(inner: memory::Listener, limit: u32) -> Self {
        Self { inner, failures: AtomicU32::new(0), limit }
    }
}

impl LocalListener for Failing {
    type Stream = memory::Stream;

    async fn accept(&mut self) -> io::Result<memory::Stream> {
        if self.failures.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Err(io::Error::other("a failure of the test's"));
        }
        self.inner.accept().await
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        LocalListener::endpoint(&self.inner)
    }
}
