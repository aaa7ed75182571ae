//! `connect` with a full backlog, with interrupted calls, and with names that appear and vanish.
#![cfg(unix)] // A named pipe has instances instead of a backlog.

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use common::unix::{
    bind_over_the_dead, full, helper, listening, output, strace, with_linux_backend,
};
use common::{Backend, Os, PATIENCE, assert_reason, within};
use sockpipe::os::unix::{ListenOptionsExt, ListenerExt};
use sockpipe::{ConnectOptions, ExpectServer, ListenOptions, Listener, Reason, Stream, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

fn with_a_short_queue(os: &Os, length: u32) -> Listener {
    let options = ListenOptions::new().backlog(length);
    Listener::bind_with(os.endpoint(), &options).expect("a free name")
}

/// Connects clients until the backlog is full.
async fn fill(os: &Os) -> Vec<Stream> {
    let at_once = ConnectOptions::new().deadline(Duration::ZERO);
    let mut clients = Vec::new();
    loop {
        match within(os.connect_with(&at_once)).await {
            Ok(client) => clients.push(client),
            Err(error) => {
                assert_reason!(Err::<(), _>(error), Reason::Deadline, os.endpoint());
                return clients;
            }
        }
    }
}

/// Five hundred clients connect to a backlog of eight while the server is busy for a second.
#[tokio::test]
async fn clients_beyond_the_backlog_wait_and_connect() {
    const CLIENTS: u32 = 500;
    let os = Os::new();
    let mut listener = with_a_short_queue(&os, 8);
    let mut clients = JoinSet::new();
    let started = Instant::now();
    for number in 0..CLIENTS {
        let endpoint = os.endpoint().to_owned();
        clients.spawn(async move {
            let options = ConnectOptions::new().deadline(PATIENCE);
            let stream = Stream::connect_with(endpoint, &options).await;
            let mut stream = stream.expect("a connection");
            stream.write_u32(number).await.expect("a write");
            assert_eq!(stream.read_u32().await.expect("an answer"), number);
        });
    }
    // This is the pause of the busy server.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(clients.try_join_next().is_none(), "nobody has accepted, and somebody was served");
    let serve = async {
        for _ in 0..CLIENTS {
            let mut stream = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let number = stream.read_u32().await.expect("a number");
                stream.write_u32(number).await.expect("a write");
            });
        }
    };
    within(serve).await;
    within(async {
        while let Some(done) = clients.join_next().await {
            done.expect("a client that was served");
        }
    })
    .await;
    println!("{CLIENTS} of {CLIENTS} served, {:.1?}, a second of it the pause", started.elapsed());
}

/// No client gets a stream, and no client fails before its deadline.
#[tokio::test]
async fn connect_to_a_busy_server_times_out() {
    let os = Os::new();
    let _listener = with_a_short_queue(&os, 8);
    let clients = fill(&os).await;
    let started = Instant::now();
    let mut late = JoinSet::new();
    for _ in 0..if full() { 50 } else { 5 } {
        let endpoint = os.endpoint().to_owned();
        late.spawn(async move { (Stream::connect(endpoint).await.map(drop), Instant::now()) });
    }
    while let Some(outcome) = within(late.join_next()).await {
        let (outcome, ended) = outcome.expect("no panic");
        assert_reason!(outcome, Reason::Deadline, os.endpoint());
        let took = ended - started;
        assert!((5..10).contains(&took.as_secs()), "{took:?}");
    }
    println!("{} in the queue; the others TimedOut after {:.2?}", clients.len(), started.elapsed());
}

#[tokio::test]
async fn a_waiting_client_takes_a_free_place_in_the_backlog() {
    let os = Os::new();
    let mut listener = with_a_short_queue(&os, 1);
    let mut first = fill(&os).await;
    let waits = tokio::spawn({
        let endpoint = os.endpoint().to_owned();
        async move { Stream::connect(endpoint).await }
    });
    for client in &mut first {
        within(client.write_all(b"x")).await.expect("it is connected");
        let mut server = within(listener.accept()).await.expect("a connection");
        within(server.read_u8()).await.expect("a byte");
    }
    let mut last = within(waits).await.expect("no panic").expect("a connection");
    within(last.write_all(b"x")).await.expect("it is connected");
    let mut server = within(listener.accept()).await.expect("a connection");
    within(server.read_u8()).await.expect("a byte");
}

#[tokio::test]
async fn a_waiting_client_fails_when_the_busy_server_dies() {
    let os = Os::new();
    let listener = with_a_short_queue(&os, 1);
    let _clients = fill(&os).await;
    let waits = tokio::spawn({
        let endpoint = os.endpoint().to_owned();
        async move { Stream::connect(endpoint).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let started = Instant::now();
    drop(listener);
    let waited = within(waits).await.expect("no panic");
    assert_reason!(waited, Reason::NoServer, os.endpoint());
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
}

/// The first five calls fail: interrupted, with a full backlog, or still in progress.
#[test]
fn connect_retries_interrupted_calls() {
    let os = Os::new();
    let (_server, _) = listening(helper(&["server", os.endpoint()]));
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for error in ["EINTR", "EAGAIN", "EINPROGRESS"] {
        let inject = format!("inject=connect:error={error}:when=1..5");
        let client = helper(&["connect", os.endpoint()]);
        let Some(client) = strace(&log, &["-e", &inject], &client) else { return };
        let line = output(client).concat();
        assert!(line.starts_with("served by"), "{error}: {line}");
        let log = fs::read_to_string(&log).expect("a log");
        assert_eq!(log.matches(" connect(").count(), 6, "{error}: {log}");
    }
}

/// The kinds and reasons are those in the table of errors.
#[test]
fn connect_reports_each_error_of_the_kernel_with_its_kind() {
    let os = Os::new();
    let (_server, _) = listening(helper(&["server", os.endpoint()]));
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for (error, why) in [
        // The server still holds its lock.
        ("ENOENT", "TimedOut NameWithoutServer: "),
        ("EACCES", "PermissionDenied PeerRefused: "),
        ("EPERM", "PermissionDenied PeerRefused: "),
        ("EPROTOTYPE", "AlreadyExists NotASocket: "),
    ] {
        let inject = format!("inject=connect:error={error}");
        let client = helper(&["connect", os.endpoint()]);
        let Some(client) = strace(&log, &["-e", &inject], &client) else { return };
        let line = output(client).concat();
        assert!(line.starts_with(why) && line.contains(os.endpoint()), "{error}: {line}");
    }
}

/// At first no server comes; then one binds the name.
#[tokio::test]
async fn wait_for_server_waits_at_a_stale_socket() {
    let os = Os::new();
    drop(UnixListener::bind(os.endpoint()).expect("a free name"));
    assert_reason!(within(os.connect()).await, Reason::StaleSocket, os.endpoint());
    let short = ConnectOptions::new().deadline(Duration::ZERO);
    let short = short.wait_for_server(Duration::from_millis(200));
    let started = Instant::now();
    let refused = within(os.connect_with(&short)).await;
    assert_reason!(refused, Reason::StaleSocket, os.endpoint());
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());

    let long = ConnectOptions::new().wait_for_server(PATIENCE);
    let (client, listener) = tokio::join!(within(os.connect_with(&long)), async {
        tokio::task::yield_now().await;
        let mut listener = bind_over_the_dead(&os).await;
        let server = within(listener.accept()).await.expect("a connection");
        (listener, server)
    });
    client.expect("a connection");
    drop(listener);
}

/// A held lock shows that a server lives. It has lost its socket, or it may be busy where a full
/// backlog refuses connections.
#[tokio::test]
async fn connect_reports_no_stale_socket_while_the_lock_is_held() {
    let os = Os::new();
    let listener = Listener::bind(os.endpoint()).expect("a free name");
    fs::remove_file(os.endpoint()).expect("the socket");
    drop(UnixListener::bind(os.endpoint()).expect("a free name"));
    assert!(!listener.is_published());
    let options = ConnectOptions::new().deadline(Duration::from_millis(100));
    let refused = within(os.connect_with(&options)).await;
    assert_reason!(refused, Reason::NameWithoutServer { .. } | Reason::Deadline, os.endpoint());
    drop(listener);
    assert!(Path::new(os.endpoint()).exists(), "it was not the listener's");
}

/// Unix users have no SIDs.
#[tokio::test]
async fn expecting_a_server_with_a_sid_is_unsupported() {
    let os = Os::new();
    let _listener = os.bind().expect("a free name");
    let expect = ExpectServer::User(UserId::Sid("S-1-5-18".to_owned()));
    let options = ConnectOptions::new().expect_server(expect);
    let connected = within(os.connect_with(&options)).await;
    assert_reason!(connected, Reason::Unsupported, os.endpoint());
}

/// An abstract name has no directory for the lock on the server's start.
#[tokio::test]
async fn connect_or_spawn_of_an_abstract_name_is_unsupported() {
    if !with_linux_backend("abstract sockets") {
        return;
    }
    let name = format!("abstract:{}", common::unique_name());
    let command = std::process::Command::new("true");
    let connected = within(sockpipe::connect_or_spawn(name.as_str(), command)).await;
    assert_reason!(connected, Reason::Unsupported, name);
}
