//! `serve` stops under load and when idle, on this OS's transport.

mod common;

use std::future::IntoFuture;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Backend, Os, within};
use sockpipe::{
    ConnectOptions, Drained, LocalListener, Refusal, Stream, TimedListener, echo, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinSet;

async fn plain(stream: Stream) -> io::Result<u64> {
    echo::echo(stream, |_| ()).await
}

enum Outcome {
    Served,
    /// `connect` failed at once: there is no server.
    Refused,
    /// The client connected and got no answer.
    Lost,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_serves_or_refuses_each_client() {
    const CLIENTS: usize = 200;
    let full = std::env::var_os("SOCKPIPE_FULL").is_some();
    let rounds = match (full, cfg!(windows)) {
        (true, _) => 200,
        (false, true) => 3,
        (false, false) => 20,
    };
    let (mut served, mut refused, mut lost) = (0, 0, 0);
    for round in 0..rounds {
        let os = Os::new();
        let listener = os.bind().expect("a free name");
        let (stop, stopped) = oneshot::channel::<()>();
        let begun = Arc::new(AtomicUsize::new(0));
        let mut stop = Some(stop);
        let server = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            serve(listener, plain).with_graceful_shutdown(stop).await
        });
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (endpoint, begun) = (os.endpoint().to_owned(), begun.clone());
            clients.spawn(async move {
                begun.fetch_add(1, Ordering::Relaxed);
                let mut stream = match Stream::connect(&endpoint).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        let kinds = [ErrorKind::NotFound, ErrorKind::ConnectionRefused];
                        assert!(kinds.contains(&error.kind()), "{error}");
                        return Outcome::Refused;
                    }
                };
                let question = vec![9; 5000];
                if stream.write_all(&question).await.is_err() || stream.shutdown().await.is_err() {
                    return Outcome::Lost;
                }
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.expect("an end");
                if answer == question { Outcome::Served } else { Outcome::Lost }
            });
        }
        // Each round stops the server after a different number of clients.
        within(async {
            while begun.load(Ordering::Relaxed) < (round * 37) % CLIENTS {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(stop.take());
        within(async {
            while let Some(client) = clients.join_next().await {
                match client.expect("no panic") {
                    Outcome::Served => served += 1,
                    Outcome::Refused => refused += 1,
                    Outcome::Lost => lost += 1,
                }
            }
        })
        .await;
        let drained = within(server).await.expect("no panic").expect("no error");
        assert_eq!(drained.cut(), 0);
        assert_eq!(os.files(), [""; 0]);
    }
    println!("{rounds} stops under load: {served} served, {refused} refused, {lost} lost");
    // A closed pipe may still accept a client for a moment, which then reads the end.
    assert!(cfg!(windows) || lost == 0, "{lost} connected and got no answer");
    assert!(served > 0 && refused > 0, "the stops were not under load");
}

#[tokio::test]
async fn a_stop_serves_pending_clients_within_the_limit_of_connections() {
    let os = Os::new();
    let listener = os.bind().expect("a free name");
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel::<()>();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (now.clone(), most.clone());
    let server = serve(listener, move |stream| {
        let (now, most) = counts.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _ = plain(stream).await;
            now.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .max_connections(1)
    .with_graceful_shutdown(async {
        let _ = stopped.await;
        drop(tell);
    })
    .drain_deadline(common::PATIENCE);
    let server = tokio::spawn(async move { server.await });
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = within(os.connect()).await.expect("a connection");
        within(client.write_all(b"?")).await.expect("a write");
        clients.push(client);
    }
    assert_eq!(within(clients[0].read_u8()).await.expect("an answer"), b'?');
    drop(stop);
    // This runtime has one thread, so the server has turned to the pending clients by now.
    within(told).await.expect_err("it is dropped, not sent");
    for (number, mut client) in clients.into_iter().enumerate() {
        within(client.shutdown()).await.expect("a shutdown");
        let answer = within(common::read_all(client)).await;
        assert_eq!(answer, if number == 0 { &b""[..] } else { b"?" });
    }
    let drained = within(server).await.expect("no panic").expect("no error");
    assert_eq!((drained.finished(), drained.cut()), (3, 0));
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

/// Starts a server with one client, and stops it while the client is connected.
async fn stopping_server(
    os: &Os,
    release_name_first: bool,
) -> (Stream, tokio::task::JoinHandle<io::Result<Drained>>) {
    let listener = os.bind().expect("a free name");
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel::<()>();
    let server = serve(listener, plain)
        .with_graceful_shutdown(async {
            let _ = stopped.await;
            drop(tell);
        })
        .drain_deadline(common::PATIENCE);
    let server = if release_name_first { server.release_name_first() } else { server };
    let server = tokio::spawn(server.into_future());
    let mut client = within(os.connect()).await.expect("a connection");
    within(client.write_all(b"?")).await.expect("a write");
    assert_eq!(within(client.read_u8()).await.expect("an answer"), b'?');
    drop(stop);
    // This runtime has one thread, so the server has stopped listening by now.
    within(told).await.expect_err("it is dropped, not sent");
    (client, server)
}

async fn ended(client: Stream, server: tokio::task::JoinHandle<io::Result<Drained>>) {
    drop(client);
    let drained = within(server).await.expect("no panic").expect("no error");
    assert_eq!((drained.finished(), drained.cut()), (1, 0));
}

#[tokio::test]
async fn a_server_that_stops_keeps_its_name_until_the_last_connection_has_ended() {
    let os = Os::new();
    let (client, server) = stopping_server(&os, false).await;
    let error = os.bind().expect_err("the name is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    // A client that waits for a server waits for the next one.
    let options = ConnectOptions::new().wait_for_server(common::PATIENCE);
    let mut waiting = std::pin::pin!(os.connect_with(&options));
    let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
    assert!(early.is_err(), "{early:?}");
    ended(client, server).await;
    let mut next = os.bind().expect("a free name");
    let (_client, _server) = (
        within(waiting).await.expect("the next server"),
        within(next.accept()).await.expect("a client"),
    );
}

#[cfg(unix)]
#[tokio::test]
async fn connect_to_a_stopping_server_fails_at_once() {
    use common::{assert_reason, assert_says};
    use sockpipe::Reason;
    let os = Os::new();
    let (client, server) = stopping_server(&os, false).await;
    let (connected, id) = (within(os.connect()).await, Some(std::process::id()));
    let error = assert_reason!(
        connected,
        Reason::Stopping { process, .. } if *process == id,
        os.endpoint()
    );
    assert_says(&error, &["wait_for_server"]);
    ended(client, server).await;
    assert_reason!(within(os.connect()).await, Reason::NoServer);
    assert_eq!(os.files(), [""; 0]);
}

#[cfg(unix)]
#[tokio::test]
async fn release_name_first_frees_the_name_while_connections_finish() {
    let os = Os::new();
    let (mut client, server) = stopping_server(&os, true).await;
    let mut next = os.bind().expect("a free name");
    let (_client, _server) = (
        within(os.connect()).await.expect("the next server"),
        within(next.accept()).await.expect("a client"),
    );
    // The old server still serves its client.
    within(client.write_all(b"!")).await.expect("a write");
    assert_eq!(within(client.read_u8()).await.expect("an answer"), b'!');
    ended(client, server).await;
}

#[tokio::test]
async fn on_refused_answers_a_client_of_a_stopping_server() {
    let os = Os::new();
    let listener = os.bind().expect("a free name");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, plain)
        .on_refused(async |mut stream: Stream, why| {
            stream.write_all(format!("{why:?}").as_bytes()).await
        })
        .with_graceful_shutdown(async {
            let _ = stopped.await;
        })
        .drain_deadline(common::PATIENCE);
    let counters = server.counters();
    let server = tokio::spawn(server.into_future());
    let mut client = within(os.connect()).await.expect("a connection");
    within(client.write_all(b"?")).await.expect("a write");
    assert_eq!(within(client.read_u8()).await.expect("an answer"), b'?');
    drop(stop);
    let late = within(async {
        loop {
            // Until the server has noticed the stop, it serves this client like any other.
            let late = os.connect().await.expect("a connection");
            if counters.refused(Refusal::Stopping) > 0 {
                break late;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(late);
    let late = within(os.connect()).await.expect("a connection");
    assert_eq!(within(common::read_all(late)).await, b"Stopping");
    drop(client);
    let drained = within(server).await.expect("no panic").expect("no error");
    assert_eq!(drained.cut(), 0);
    assert_eq!(os.files(), [""; 0]);
}

/// The server stops after half a millisecond without a client.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_connects_as_an_idle_server_stops_is_served() {
    let os = Os::new();
    let (mut served, mut late) = (0, 0);
    for round in 0..if cfg!(windows) { 20 } else { 200 } {
        let listener = os.bind().expect("a free name");
        let limit = Duration::from_micros(500);
        let server = tokio::spawn(serve(listener, plain).stop_when_idle(limit).into_future());
        tokio::time::sleep(Duration::from_micros(round * 37 % 1500)).await;
        let options = ConnectOptions::new().deadline(common::PATIENCE);
        match within(os.connect_with(&options)).await {
            Ok(mut client) => {
                let written = within(client.write_all(b"?")).await;
                assert!(cfg!(windows) || written.is_ok(), "{written:?}");
                match within(client.read(&mut [0])).await.expect("a read") {
                    0 if cfg!(windows) => late += 1,
                    length => {
                        assert_eq!(length, 1, "connected, and not served");
                        served += 1;
                    }
                }
            }
            Err(error) => {
                let kinds = [ErrorKind::NotFound, ErrorKind::ConnectionRefused];
                assert!(kinds.contains(&error.kind()), "{error}");
                late += 1;
            }
        }
        within(server).await.expect("no panic").expect("no error");
    }
    println!("{served} served, {late} late");
}

#[tokio::test]
async fn halves_of_a_timed_stream_share_a_deadline_and_end_one_side() {
    let os = Os::new();
    // The limit must be long enough for a machine that runs Wine.
    let limit = Duration::from_millis(if cfg!(windows) { 1000 } else { 200 });
    let mut listener = TimedListener::new(os.bind().expect("a free name")).idle_deadline(limit);
    let mut client = within(os.connect()).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a client");
    assert!(server.peer_credentials().expect("credentials").is_self());
    let (mut from, mut to) = server.into_split();
    // Each write comes before the deadline, while the reader waits longer than the deadline.
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(limit / 2).await;
            to.write_all(b"?").await.expect("a write");
        }
        client.write_all(b"!").await.expect("a write");
    };
    let (heard, ()) = within(async { tokio::join!(from.read_u8(), talk) }).await;
    assert_eq!(heard.expect("in time"), b'!');
    // Dropping the write half ends one direction, and the other stays open.
    drop(to);
    assert_eq!(within(common::read_late(&mut client)).await, b"?????");
    client.write_all(b".").await.expect("a write");
    assert_eq!(within(from.read_u8()).await.expect("a byte"), b'.');
    let error = within(from.read_u8()).await.expect_err("nothing more is said");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

/// The process that receives the signals of the test below.
#[cfg(unix)]
#[test]
fn helper_waits_for_a_signal() {
    use rustix::process::{Signal, getpid, kill_process};
    let Some(when) = common::argument() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let end = || kill_process(getpid(), Signal::TERM).expect("a signal");
    if when == "inside" {
        // The call itself installs the handler: the signal comes before the future is polled.
        runtime.block_on(async {
            let stop = sockpipe::shutdown_signal();
            end();
            within(stop).await.expect("a signal");
        });
    } else {
        // Without a runtime the call installs no handler, but the first poll does.
        let mut stop = Box::pin(sockpipe::shutdown_signal());
        runtime.block_on(async {
            let early = tokio::time::timeout(Duration::ZERO, &mut stop).await;
            assert!(early.is_err(), "{early:?}");
            end();
            within(stop).await.expect("a signal");
        });
    }
    println!("\nit was told");
}

#[cfg(unix)]
#[test]
fn shutdown_signal_receives_signals_sent_after_its_call() {
    for when in ["inside", "outside"] {
        let helper =
            common::helper_command("helper_waits_for_a_signal", when).output().expect("a process");
        let said = String::from_utf8_lossy(&helper.stdout);
        assert!(helper.status.success() && said.contains("it was told"), "{when}: {helper:?}");
    }
}

#[tokio::test]
async fn cancel_when_client_leaves_cancels_the_handler() {
    for cancel in [true, false] {
        let os = Os::new();
        let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let handle = async move |mut stream: Stream| {
            // `end` is dropped when the handler's future ends or is dropped.
            let (end, ended) = oneshot::channel::<()>();
            ends.send(ended).expect("a test");
            stream.write_all(b"at work").await.expect("a write");
            // The handler writes nothing meanwhile, so no write reports that the client left.
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(end);
        };
        let server = serve(os.bind().expect("a free name"), handle);
        let server = tokio::spawn(server.cancel_when_client_leaves(cancel).into_future());
        // The handler of a client that has only shut its write side down is not cancelled.
        let mut patient = within(os.connect()).await.expect("a connection");
        patient.shutdown().await.expect("a half-close");
        let mut patient_ended = within(ended.recv()).await.expect("a handler");
        let mut client = within(os.connect()).await.expect("a connection");
        let left_ended = within(ended.recv()).await.expect("a handler");
        within(client.read_exact(&mut [0; 7])).await.expect("it is at work");
        let begun = Instant::now();
        drop(client);
        within(left_ended).await.expect_err("an end");
        let early = begun.elapsed() < Duration::from_millis(2500);
        assert_eq!(early, cancel, "{:?}", begun.elapsed());
        if cancel {
            assert_eq!(patient_ended.try_recv(), Err(TryRecvError::Empty), "its client is there");
        }
        server.abort();
    }
}
