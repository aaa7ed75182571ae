//! tokio's own listener keeps the promises of `LocalListener::accept` too.
#![cfg(unix)] // tokio has this type on Unix only.

mod common;

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use common::{Backend, Os, argument, spawn_helper, within};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sockpipe::{LocalListener, LocalStream, TimedListener, echo, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

fn bound() -> (Os, UnixListener) {
    let os = Os::new();
    let listener = UnixListener::bind(os.endpoint()).expect("a free name");
    (os, listener)
}

async fn next(listener: &mut UnixListener) -> UnixStream {
    within(LocalListener::accept(listener)).await.expect("a connection")
}

#[tokio::test]
async fn a_tokio_listener_reports_its_endpoint_and_its_clients_credentials() {
    let (os, mut listener) = bound();
    // `endpoint` must not change the flags: the owner may want children to inherit the listener.
    rustix::io::fcntl_setfd(&listener, FdFlags::empty()).expect("flags");
    assert_eq!(LocalListener::endpoint(&listener).expect("a path").to_string(), os.endpoint());
    assert!(rustix::io::fcntl_getfd(&listener).expect("flags").is_empty());
    let client = within(os.connect()).await.expect("a connection");
    let peer = LocalStream::peer_credentials(&next(&mut listener).await).expect("credentials");
    assert_eq!(peer.uid(), Some(rustix::process::geteuid().as_raw()));
    assert_eq!(peer.gid(), Some(rustix::process::getegid().as_raw()));
    assert_eq!(peer, client.peer_credentials().expect("credentials"));
}

#[tokio::test]
async fn a_dropped_accept_loses_no_client() {
    let (os, mut listener) = bound();
    for _ in 0..20 {
        let none = tokio::time::timeout(Duration::ZERO, LocalListener::accept(&mut listener)).await;
        assert!(none.is_err(), "nobody has connected");
        let mut client = within(os.connect()).await.expect("a connection");
        client.write_all(b"x").await.expect("a write");
        assert_eq!(within(next(&mut listener).await.read_u8()).await.expect("a byte"), b'x');
    }
}

/// A client that connected before the call is accepted at once, and a later one wakes the call.
#[tokio::test]
async fn a_tokio_listener_wakes_for_later_clients() {
    let (os, mut listener) = bound();
    let waiting = tokio::spawn(async move {
        next(&mut listener).await;
        next(&mut listener).await;
    });
    for _ in 0..2 {
        tokio::task::yield_now().await;
        drop(within(os.connect()).await.expect("a connection"));
    }
    within(waiting).await.expect("no panic");
}

#[tokio::test]
async fn accept_of_a_tokio_listener_ignores_the_addresses_of_clients() {
    let (os, mut listener) = bound();
    let longest = if cfg!(target_os = "linux") { 108 } else { 104 };
    for length in [longest, longest - 1, 80] {
        let start = os.dir().join("client-").into_os_string().into_encoded_bytes();
        let path = [&start[..], &vec![b'x'; length - start.len()]].concat();
        let client = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        bind(&client, &SocketAddrUnix::new(path).expect("an address")).expect("a free address");
        let server = SocketAddrUnix::new(os.endpoint()).expect("an address");
        connect(&client, &server).expect("a connection");
        std::os::unix::net::UnixStream::from(client).write_all(b"x").expect("a write");
        assert_eq!(within(next(&mut listener).await.read_u8()).await.expect("a byte"), b'x');
    }
}

#[tokio::test]
async fn a_stop_serves_the_clients_that_have_connected() {
    let (os, listener) = bound();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = within(os.connect()).await.expect("a connection");
        client.write_all(b"hello").await.expect("a write");
        client.shutdown().await.expect("a half-close");
        clients.push(client);
    }
    let pending = TimedListener::new(listener).stop_listening();
    assert_eq!(pending.len(), 3);
    for (mut client, server) in clients.into_iter().zip(pending) {
        tokio::spawn(echo::echo(server, |_| ()));
        assert_eq!(common::read_late(&mut client).await, b"hello");
    }
}

#[tokio::test]
async fn serve_limits_and_stops_a_tokio_listener() {
    let (os, listener) = bound();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, |stream| echo::echo(stream, |_| ()))
        .max_connections_per_user(1)
        .with_graceful_shutdown(async {
            let _ = stopped.await;
        });
    let server = tokio::spawn(async move { server.await });
    let mut client = within(os.connect()).await.expect("a connection");
    client.write_all(b"hello").await.expect("a write");
    within(client.read_exact(&mut [0; 5])).await.expect("an answer");
    // The limit counts connections per user, which the stream reports.
    let mut second = within(os.connect()).await.expect("a connection");
    assert_eq!(within(second.read(&mut [0])).await.expect("an end"), 0);
    drop((stop, client));
    let drained = within(server).await.expect("no panic").expect("a stop");
    assert_eq!((drained.finished(), drained.cut()), (1, 0));
}

/// The test below runs this as a separate process, since the limit is per process.
#[tokio::test]
async fn helper_accepts_without_descriptors() {
    let Some(path) = argument() else { return };
    let mut listener = UnixListener::bind(&path).expect("a free name");
    let client = UnixStream::connect(&path).await.expect("a connection");
    let before = getrlimit(Resource::Nofile);
    let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, ..before });
    limit(Some(0)).expect("a limit");
    let refused = UnixStream::connect(&path).await.expect_err("no descriptor is left");
    assert_eq!(refused.raw_os_error(), Some(24), "{refused}");
    let mut accepting = Box::pin(LocalListener::accept(&mut listener));
    let early = tokio::time::timeout(Duration::from_millis(100), accepting.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    limit(before.current).expect("a limit");
    within(accepting).await.expect("the client that waited");
    drop(client);
    // The same holds while it waits for a client, which needs a descriptor too.
    limit(Some(0)).expect("a limit");
    let mut accepting = Box::pin(LocalListener::accept(&mut listener));
    let early = tokio::time::timeout(Duration::from_millis(100), accepting.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    limit(before.current).expect("a limit");
    let connecting = UnixStream::connect(&path);
    let (accepted, connected) = within(async { tokio::join!(accepting, connecting) }).await;
    accepted.expect("a connection");
    connected.expect("a connection");
    println!("\nserved");
}

#[test]
fn accept_of_a_tokio_listener_waits_until_a_descriptor_is_free() {
    let os = Os::new();
    let helper = spawn_helper("helper_accepts_without_descriptors", os.endpoint())
        .wait_with_output()
        .expect("a process");
    let out = String::from_utf8_lossy(&helper.stdout);
    assert!(helper.status.success() && out.contains("\nserved\n"), "{out}");
}

/// A listening socket that was shut down does not recover.
#[tokio::test]
async fn accept_of_a_tokio_listener_returns_a_permanent_error() {
    let (_os, mut listener) = bound();
    let shut = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
    if shut.is_err() || cfg!(not(target_os = "linux")) {
        println!("not run: a socket that listens cannot be shut down here");
        return;
    }
    let error = within(LocalListener::accept(&mut listener)).await.expect_err("no listener");
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
}
