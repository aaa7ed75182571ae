use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::memory::tests::at_once;
use crate::{echo, memory};

fn ends(drained: Drained) -> (usize, usize) {
    (drained.finished(), drained.cut())
}

/// A signal that comes when the other end is dropped or sends.
async fn ended(stopped: oneshot::Receiver<()>) {
    let _ = stopped.await;
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_lets_connections_finish_and_cuts_the_rest_at_the_deadline() {
    let (listener, connector) = memory::pair();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(
        serve(listener, |mut stream| async move {
            let seconds = stream.read_u8().await.unwrap_or(0);
            sleep(Duration::from_secs(seconds.into())).await;
            let _ = stream.write_u8(seconds).await;
        })
        .with_graceful_shutdown(ended(stopped))
        .drain_deadline(Duration::from_secs(10))
        .into_future(),
    );
    let mut quick = connector.connect().await.expect("a connection");
    let mut slow = connector.connect().await.expect("a connection");
    quick.write_u8(3).await.expect("a write");
    slow.write_u8(60).await.expect("a write");
    // Both handlers must have their byte before the stop.
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    stop.send(()).expect("a server");
    assert_eq!(quick.read_u8().await.expect("an answer"), 3);
    let drained = server.await.expect("no panic").expect("no error");
    assert_eq!(ends(drained), (1, 1));
    assert_eq!(asked.elapsed().as_secs(), 10);
    assert_eq!(slow.read(&mut [0]).await.expect("an end"), 0);
    let refused = connector.connect().await.expect_err("the listener is gone");
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_handler_ends_its_own_connection_only() {
    let (listener, connector) = memory::pair();
    let calls = Arc::new(AtomicUsize::new(0));
    let server = tokio::spawn(
        serve(listener, async move |stream| {
            let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(!first, "the first handler panics, as it should in this test");
            echo::echo(stream, |_| ()).await.expect("an echo");
        })
        .into_future(),
    );
    let mut first = connector.connect().await.expect("a connection");
    assert_eq!(first.read(&mut [0]).await.expect("an end"), 0);
    let mut second = connector.connect().await.expect("a connection");
    second.write_all(b"still here").await.expect("a write");
    second.shutdown().await.expect("a shutdown");
    let mut text = String::new();
    second.read_to_string(&mut text).await.expect("an answer");
    assert_eq!(text, "still here");
    // With the last connector gone, accept fails for good, and serve reports it.
    drop(connector);
    let error = server.await.expect("no panic").expect_err("serve ends only by an error");
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_wait_until_one_is_done() {
    let (listener, connector) = memory::pair();
    let running = Arc::new(AtomicUsize::new(0));
    let server = tokio::spawn(
        serve(listener, {
            let running = running.clone();
            async move |mut stream| {
                assert!(running.fetch_add(1, Ordering::SeqCst) < 2, "more than the limit");
                let _ = stream.read_u8().await;
                running.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .max_connections(2)
        .into_future(),
    );
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(connector.connect().await.expect("a connection"));
    }
    // Time stands still until there is nothing left to do.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.load(Ordering::SeqCst), 2);
    for mut client in clients {
        client.write_u8(1).await.expect("a write");
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    }
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_users_connections_beyond_the_limit_are_closed() {
    let (listener, connector) = memory::pair();
    let server = tokio::spawn(
        serve(listener, |stream| echo::echo(stream, |_| ()))
            .max_connections_per_user(2)
            .into_future(),
    );
    let mut first = connector.connect().await.expect("a connection");
    let mut second = connector.connect().await.expect("a connection");
    let mut third = connector.connect().await.expect("a connection");
    // In memory users are not told: all are one.
    assert_eq!(third.read(&mut [0]).await.expect("an end"), 0);
    for client in [&mut first, &mut second] {
        client.write_u8(7).await.expect("a write");
        assert_eq!(client.read_u8().await.expect("an answer"), 7);
    }
    // A place that is given back is another's.
    drop(first);
    sleep(Duration::from_secs(1)).await;
    let mut fourth = connector.connect().await.expect("a connection");
    fourth.write_u8(7).await.expect("a write");
    assert_eq!(fourth.read_u8().await.expect("an answer"), 7);
    server.abort();
}

#[tokio::test]
async fn a_limit_of_nothing_is_an_error() {
    async fn nobody(_: memory::Stream) {}
    let error = serve(memory::pair().0, nobody).max_connections(0).await;
    assert_eq!(error.expect_err("no server").kind(), io::ErrorKind::InvalidInput);
    let error = serve(memory::pair().0, nobody).max_connections_per_user(0).await;
    assert_eq!(error.expect_err("no server").kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_before_its_future_ends_its_own_connection_only() {
    for per_user in [None, Some(1)] {
        let (listener, connector) = memory::pair();
        let calls = Arc::new(AtomicUsize::new(0));
        let server = serve(listener, move |stream| {
            let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(!first, "the first handler panics, as it should in this test");
            echo::echo(stream, |_| ())
        });
        let server = match per_user {
            Some(limit) => server.max_connections_per_user(limit),
            None => server,
        };
        let server = tokio::spawn(server.into_future());
        let mut first = connector.connect().await.expect("a connection");
        assert_eq!(first.read(&mut [0]).await.expect("an end"), 0);
        let mut second = connector.connect().await.expect("a connection");
        second.write_u8(7).await.expect("a write");
        assert_eq!(second.read_u8().await.expect("an answer"), 7);
        server.abort();
    }
}

#[test]
fn without_a_runtime_or_timers_to_stop_with_it_is_an_error() {
    let graceful = || {
        let (listener, connector) = memory::pair();
        // With somebody who could connect, it would listen for ever.
        let never = async move {
            pending::<()>().await;
            drop(connector);
        };
        serve(listener, async |_| ()).with_graceful_shutdown(never).into_future()
    };
    let error = at_once(graceful()).expect_err("no runtime");
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert!(error.to_string().contains("await it inside one"), "{error}");
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let error = runtime.block_on(async { at_once(graceful()) }).expect_err("no timers");
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert!(error.to_string().contains("enable_time()"), "{error}");
    // One that never stops needs none.
    let (listener, connector) = memory::pair();
    drop(connector);
    let error = runtime.block_on(serve(listener, async |_| ()).into_future());
    assert_eq!(error.expect_err("nobody can connect").kind(), io::ErrorKind::NotConnected);
}

/// How many run at a time, and the most that ever did.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    /// Until the client says a byte, or ends.
    async fn handle(self: Arc<Self>, mut stream: memory::Stream) {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _ = stream.read_u8().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_those_beyond_the_limit_wait_for_their_turn() {
    for talking in [5, 4, 0] {
        let (listener, connector) = memory::pair();
        let (stop, stopped) = oneshot::channel::<()>();
        let gauge = Arc::new(Gauge::default());
        let handler = gauge.clone();
        let server = tokio::spawn(
            serve(listener, move |stream| handler.clone().handle(stream))
                .max_connections(2)
                .with_graceful_shutdown(ended(stopped))
                .drain_deadline(Duration::from_secs(10))
                .into_future(),
        );
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(connector.connect().await.expect("a connection"));
        }
        // Time stands still until there is nothing left to do.
        sleep(Duration::from_secs(1)).await;
        drop(stop);
        let asked = Instant::now();
        for client in &mut clients[..talking] {
            sleep(Duration::from_secs(1)).await;
            client.write_u8(1).await.expect("a write");
            assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
        }
        let drained = server.await.expect("no panic").expect("no error");
        assert_eq!(ends(drained), (talking, 5 - talking));
        assert_eq!(gauge.most.load(Ordering::SeqCst), 2);
        assert_eq!(asked.elapsed().as_secs(), if talking == 5 { 5 } else { 10 });
        for client in &mut clients[talking..] {
            assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_a_users_connections_beyond_the_limit_are_closed() {
    let (listener, connector) = memory::pair();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connector.connect().await.expect("a connection"));
    }
    let gauge = Arc::new(Gauge::default());
    let server = tokio::spawn(
        serve(listener, move |stream| gauge.clone().handle(stream))
            .max_connections_per_user(2)
            .with_graceful_shutdown(async {})
            .into_future(),
    );
    assert_eq!(clients[2].read(&mut [0]).await.expect("an end"), 0);
    drop(clients);
    let drained = server.await.expect("no panic").expect("no error");
    assert_eq!(ends(drained), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_does_not_hold_up_the_stop() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (listener, connector) = memory::pair();
    let (stop, stopped) = oneshot::channel::<()>();
    let (begin, begun) = oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let once = Arc::new(Mutex::new(Some((begin, released))));
    let server = tokio::spawn(
        serve(listener, async move |_stream| {
            let taken = once.lock().expect("no panic").take();
            let (begin, released) = taken.expect("one client");
            begin.send(()).expect("a test");
            // The test lets go of it, also where it fails.
            let _ = released.recv();
        })
        .with_graceful_shutdown(ended(stopped))
        .drain_deadline(Duration::ZERO)
        .into_future(),
    );
    let mut client = connector.connect().await.expect("a connection");
    timeout(PATIENCE, begun).await.expect("in time").expect("a handler");
    drop(stop);
    let drained = timeout(PATIENCE, server).await.expect("in time").expect("no panic");
    assert_eq!(ends(drained.expect("no error")), (0, 1));
    drop(release);
    let read = timeout(PATIENCE, client.read(&mut [0])).await.expect("in time");
    assert_eq!(read.expect("an end"), 0);
}

#[tokio::test]
async fn an_async_closure_shares_its_state_among_connections() {
    let (listener, connector) = memory::pair();
    let served = Arc::new(AtomicUsize::new(0));
    let counted = served.clone();
    let server = tokio::spawn(
        serve(listener, async move |mut stream: memory::Stream| {
            let before = counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_u64(before as u64).await;
        })
        .into_future(),
    );
    for number in 0..3 {
        let mut client = connector.connect().await.expect("a connection");
        assert_eq!(client.read_u64().await.expect("a number"), number);
    }
    assert_eq!(served.load(Ordering::SeqCst), 3);
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_handlers_error_is_told_and_ends_its_own_connection_only() {
    let (listener, connector) = memory::pair();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(
        serve(listener, async |mut stream| {
            let said = stream.read_u8().await?;
            if said == b'!' {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it shouts"));
            }
            stream.write_u8(said).await
        })
        .on_error(move |error| tell.send(error).expect("a test"))
        .into_future(),
    );
    let mut loud = connector.connect().await.expect("a connection");
    loud.write_u8(b'!').await.expect("a write");
    let error = timeout(Duration::from_secs(9), told.recv()).await.expect("in time");
    let error = error.expect("an error");
    assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::InvalidData, "it shouts"));
    assert_eq!(loud.read(&mut [0]).await.expect("an end"), 0);
    let mut quiet = connector.connect().await.expect("a connection");
    quiet.write_u8(b'.').await.expect("a write");
    assert_eq!(quiet.read_u8().await.expect("an answer"), b'.');
    server.abort();
    assert!(told.recv().await.is_none(), "an answer succeeds");
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_fails_stops_the_server_with_its_error() {
    let (listener, connector) = memory::pair();
    let (fail, failed) = oneshot::channel::<io::Error>();
    let server = tokio::spawn(
        serve(listener, |stream| echo::echo(stream, |_| ()))
            .with_graceful_shutdown(async { Err(failed.await.expect("an error")) })
            .into_future(),
    );
    let mut client = connector.connect().await.expect("a connection");
    // Time stands still until there is nothing left to do.
    sleep(Duration::from_secs(1)).await;
    fail.send(io::Error::new(io::ErrorKind::Unsupported, "no signals here")).expect("a server");
    sleep(Duration::from_secs(1)).await;
    // Who is connected is served, as at any stop.
    client.write_u8(7).await.expect("a write");
    assert_eq!(client.read_u8().await.expect("an answer"), 7);
    drop(client);
    let error = server.await.expect("no panic").expect_err("the signal failed");
    let said = (error.kind(), error.to_string());
    assert_eq!(said, (io::ErrorKind::Unsupported, "no signals here".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_hears_of_a_stop_and_ends() {
    let (listener, connector) = memory::pair();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(
        serve_with(listener, async |mut stream: memory::Stream, stopping: Stopping| {
            assert!(!stopping.is_requested(), "before it is");
            tokio::select! {
                _ = stream.read_u8() => panic!("the client says nothing"),
                () = stopping.requested() => {}
            }
            // At once, however often.
            stopping.clone().requested().await;
            assert!(stopping.is_requested());
            stream.write_all(b"bye").await
        })
        .with_graceful_shutdown(ended(stopped))
        .into_future(),
    );
    let mut client = connector.connect().await.expect("a connection");
    // Time stands still until there is nothing left to do.
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    drop(stop);
    let drained = server.await.expect("no panic").expect("no error");
    assert_eq!(ends(drained), (1, 0));
    assert_eq!(asked.elapsed(), Duration::ZERO);
    let mut said = String::new();
    client.read_to_string(&mut said).await.expect("an end");
    assert_eq!(said, "bye");
}

async fn tell(mut stream: memory::Stream, why: Refusal) -> io::Result<()> {
    stream.write_all(format!("{why:?}").as_bytes()).await
}

async fn said(mut stream: memory::Stream) -> String {
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an end");
    said
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_hears_why_and_is_counted() {
    let (listener, connector) = memory::pair();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, |stream| echo::echo(stream, |_| ()))
        .max_connections_per_user(1)
        .on_refused(tell)
        .with_graceful_shutdown(ended(stopped))
        .drain_deadline(Duration::from_secs(10));
    let counters = server.counters();
    let server = tokio::spawn(server.into_future());
    let mut first = connector.connect().await.expect("a connection");
    let second = connector.connect().await.expect("a connection");
    assert_eq!(said(second).await, "UserLimit");
    assert_eq!((counters.active(), counters.accepted()), (1, 1));
    drop(stop);
    sleep(Duration::from_secs(1)).await;
    // It came after the stop, and hears of that and not of its user's limit.
    let third = connector.connect().await.expect("a connection");
    assert_eq!(said(third).await, "Stopping");
    // A client accepted before the stop is served.
    first.write_u8(7).await.expect("a write");
    assert_eq!(first.read_u8().await.expect("an answer"), 7);
    let drained = server.await.expect("no panic").expect("no error");
    assert_eq!(ends(drained), (0, 1));
    let refused = [Refusal::UserLimit, Refusal::Stopping].map(|why| counters.refused(why));
    assert_eq!((refused, counters.cut(), counters.active()), ([1, 1], 1, 0));
    connector.connect().await.expect_err("the listener is gone");
}

#[tokio::test(start_paused = true)]
async fn those_whose_turn_does_not_come_hear_that_it_stops() {
    let (listener, connector) = memory::pair();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connector.connect().await.expect("a connection"));
    }
    let server = serve(listener, |stream| echo::echo(stream, |_| ()))
        .max_connections(1)
        .on_refused(tell)
        .with_graceful_shutdown(async {})
        .await;
    assert_eq!(ends(server.expect("no error")), (0, 3));
    let mut said_to_all = Vec::new();
    for client in clients {
        said_to_all.push(said(client).await);
    }
    assert_eq!(said_to_all, ["", "Stopping", "Stopping"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_to_be_told_holds_nothing_up() {
    let (listener, connector) = memory::pair();
    let server = serve(listener, |stream| echo::echo(stream, |_| ()))
        .max_connections_per_user(1)
        .on_refused(async |mut stream: memory::Stream, _| stream.write_all(&[0; 1 << 20]).await)
        .into_future();
    let server = tokio::spawn(server);
    let _first = connector.connect().await.expect("a connection");
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(connector.connect().await.expect("a connection"));
    }
    // The 65th is not told at all, and the others have a second.
    assert_eq!(slow[99].read(&mut [0]).await.expect("an end"), 0);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(2)).await;
    let mut told = Vec::new();
    slow[0].read_to_end(&mut told).await.expect("an end");
    assert!(told.len() < 1 << 20, "{} bytes, though nobody read", told.len());
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_nobody_needs_stops() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (listener, connector) = memory::pair();
    let begun = Instant::now();
    let server = serve(listener, |stream| echo::echo(stream, |_| ())).stop_when_idle(MINUTE);
    let server = tokio::spawn(server.into_future());
    sleep(Duration::from_secs(50)).await;
    // A client is served for longer than the limit, which counts again from the client's end.
    let client = connector.connect().await.expect("a connection");
    sleep(2 * MINUTE).await;
    drop(client);
    let drained = server.await.expect("no panic").expect("no error");
    assert_eq!(ends(drained), (0, 0));
    assert_eq!(begun.elapsed(), Duration::from_secs(50) + 3 * MINUTE);
    connector.connect().await.expect_err("the listener is gone");

    // With a signal, whichever comes first; from the start on.
    for (signal, end) in [(30, 30), (90, 60)] {
        let (listener, _connector) = memory::pair();
        let begun = Instant::now();
        serve(listener, |stream| echo::echo(stream, |_| ()))
            .with_graceful_shutdown(sleep(Duration::from_secs(signal)))
            .stop_when_idle(MINUTE)
            .await
            .expect("no error");
        assert_eq!(begun.elapsed().as_secs(), end);
    }
}

/// A listener that cannot be told to stop.
struct Plain(memory::Listener);

impl LocalListener for Plain {
    type Stream = memory::Stream;

    async fn accept(&mut self) -> io::Result<memory::Stream> {
        self.0.accept().await
    }

    fn endpoint(&self) -> io::Result<crate::Endpoint> {
        self.0.endpoint()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_serves_those_that_wait_at_any_listener() {
    let (listener, connector) = memory::pair();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connector.connect().await.expect("a connection"));
    }
    let server = serve(Plain(listener), |stream| echo::echo(stream, |_| ()));
    let server = tokio::spawn(server.with_graceful_shutdown(async {}).into_future());
    tokio::task::yield_now().await;
    let mut late = connector.connect().await.expect("it goes on listening");
    assert_eq!(late.read(&mut [0]).await.expect("an end"), 0);
    for client in &mut clients {
        client.write_u8(7).await.expect("a write");
        assert_eq!(client.read_u8().await.expect("an answer"), 7);
    }
    drop(clients);
    let drained = server.await.expect("no panic").expect("no error");
    assert_eq!(ends(drained), (20, 0));
    connector.connect().await.expect_err("the listener is gone");
}
