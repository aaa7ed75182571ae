use super::*;

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
    // The paused clock advances only once every task is idle.
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
    // In memory all clients count as one user.
    assert_eq!(third.read(&mut [0]).await.expect("an end"), 0);
    for client in [&mut first, &mut second] {
        client.write_u8(7).await.expect("a write");
        assert_eq!(client.read_u8().await.expect("an answer"), 7);
    }
    // A client that leaves makes room for one other.
    drop(first);
    sleep(Duration::from_secs(1)).await;
    let mut fourth = connector.connect().await.expect("a connection");
    fourth.write_u8(7).await.expect("a write");
    assert_eq!(fourth.read_u8().await.expect("an answer"), 7);
    let mut fifth = connector.connect().await.expect("a connection");
    let end = timeout(Duration::from_secs(1), fifth.read(&mut [0])).await.expect("no place");
    assert_eq!(end.expect("an end"), 0);
    server.abort();
}

#[tokio::test]
async fn a_limit_of_zero_is_an_error() {
    async fn nobody(_: memory::Stream) {}
    let error = serve(memory::pair().0, nobody).max_connections(0).await;
    assert_eq!(error.expect_err("no server").kind(), io::ErrorKind::InvalidInput);
    let error = serve(memory::pair().0, nobody).max_connections_per_user(0).await;
    assert_eq!(error.expect_err("no server").kind(), io::ErrorKind::InvalidInput);
}

/// Counts the handlers that run now, and the most that ever ran at the same time.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    /// Runs until the client sends a byte or ends.
    async fn handle(self: Arc<Self>, mut stream: memory::Stream) {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _ = stream.read_u8().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_serves_clients_beyond_the_limit_in_turn() {
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
        // The paused clock advances only once every task is idle.
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
