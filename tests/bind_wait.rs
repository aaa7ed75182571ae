//! `bind_wait` on a name that another server holds.

mod common;

use std::time::{Duration, Instant};

use common::{Backend, Os, assert_reason, within};
use sockpipe::{ListenOptions, Listener, Reason, Stream};

async fn wait_for(backend: &Os, limit: Duration) -> std::io::Result<Listener> {
    within(Listener::bind_wait(backend.endpoint(), &ListenOptions::new(), limit)).await
}

#[tokio::test]
async fn bind_wait_takes_a_free_name_at_once() {
    let backend = Os::new();
    let listener = wait_for(&backend, Duration::ZERO).await.expect("a free name");
    let bound = wait_for(&backend, Duration::ZERO).await;
    assert_reason!(bound, Reason::Deadline, backend.endpoint());
    drop(listener);
}

#[tokio::test]
async fn bind_wait_binds_once_the_server_releases_the_name() {
    let backend = Os::new();
    let first = backend.bind().expect("a free name");
    let waiting = tokio::spawn({
        let endpoint = backend.endpoint().to_owned();
        async move { Listener::bind_wait(endpoint, &ListenOptions::new(), common::PATIENCE).await }
    });
    // Whether or not the task has tried to bind by now, it must wait until `first` is dropped.
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    let mut second = within(waiting).await.expect("no panic").expect("the name");
    let (client, server) =
        within(async { tokio::join!(Stream::connect(backend.endpoint()), second.accept()) }).await;
    client.expect("a connection");
    server.expect("a connection");
}

#[tokio::test]
async fn bind_wait_times_out_at_a_server_that_stays() {
    let backend = Os::new();
    let mut first = backend.bind().expect("a free name");
    let (limit, started) = (Duration::from_millis(200), Instant::now());
    assert_reason!(wait_for(&backend, limit).await, Reason::Deadline, backend.endpoint());
    assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
    let (client, server) = within(async { tokio::join!(backend.connect(), first.accept()) }).await;
    client.expect("the first server's connection");
    server.expect("a connection");
}

#[tokio::test]
async fn bind_wait_returns_other_errors_at_once() {
    let (options, started) = (ListenOptions::new(), Instant::now());
    // An endpoint that only other systems support.
    let foreign = if cfg!(windows) { "abstract:name" } else { r"\\.\pipe\name" };
    let bound = within(Listener::bind_wait(foreign, &options, common::PATIENCE / 2)).await;
    assert_reason!(bound, Reason::Unsupported, foreign);
    assert!(started.elapsed() < common::PATIENCE / 4, "{:?}", started.elapsed());
}
