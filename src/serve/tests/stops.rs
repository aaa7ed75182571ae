use super::*;

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_cuts_unfinished_connections_at_the_deadline() {
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

#[test]
fn a_graceful_stop_without_a_runtime_or_timers_is_an_error() {
    let graceful = || {
        let (listener, connector) = memory::pair();
        // The connector stays, because `accept` fails without one.
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
    // A server without a shutdown signal needs neither.
    let (listener, connector) = memory::pair();
    drop(connector);
    let error = runtime.block_on(serve(listener, async |_| ()).into_future());
    assert_eq!(error.expect_err("nobody can connect").kind(), io::ErrorKind::NotConnected);
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
            // The test releases the thread, also when it fails.
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
    // The paused clock advances only once every task is idle.
    sleep(Duration::from_secs(1)).await;
    fail.send(io::Error::new(io::ErrorKind::Unsupported, "no signals here")).expect("a server");
    sleep(Duration::from_secs(1)).await;
    // Connected clients are served, as at any stop.
    client.write_u8(7).await.expect("a write");
    assert_eq!(client.read_u8().await.expect("an answer"), 7);
    drop(client);
    let error = server.await.expect("no panic").expect_err("the signal failed");
    let said = (error.kind(), error.to_string());
    assert_eq!(said, (io::ErrorKind::Unsupported, "no signals here".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_handler_is_notified_of_a_stop_and_ends() {
    let (listener, connector) = memory::pair();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(
        serve_with(listener, async |mut stream: memory::Stream, stopping: Stopping| {
            assert!(!stopping.is_requested(), "before it is");
            tokio::select! {
                _ = stream.read_u8() => panic!("the client says nothing"),
                () = stopping.requested() => {}
            }
            // After a stop, each later call completes at once.
            stopping.clone().requested().await;
            assert!(stopping.is_requested());
            stream.write_all(b"bye").await
        })
        .with_graceful_shutdown(ended(stopped))
        .into_future(),
    );
    let mut client = connector.connect().await.expect("a connection");
    // The paused clock advances only once every task is idle.
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

#[tokio::test(start_paused = true)]
async fn an_idle_server_stops_after_its_limit() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (listener, connector) = memory::pair();
    let begun = Instant::now();
    let server = serve(listener, |stream| echo::echo(stream, |_| ())).stop_when_idle(MINUTE);
    let server = tokio::spawn(server.into_future());
    sleep(Duration::from_secs(50)).await;
    // A client is served for longer than the limit. Its end starts the limit again.
    let client = connector.connect().await.expect("a connection");
    sleep(2 * MINUTE).await;
    drop(client);
    let drained = server.await.expect("no panic").expect("no error");
    assert_eq!(ends(drained), (0, 0));
    assert_eq!(begun.elapsed(), Duration::from_secs(50) + 3 * MINUTE);
    connector.connect().await.expect_err("the listener is gone");

    // With a signal as well, the server stops at whichever comes first, also before the first
    // client.
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

/// A listener with the default `stop_listening`.
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
async fn a_stop_serves_clients_that_wait_at_any_listener() {
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
