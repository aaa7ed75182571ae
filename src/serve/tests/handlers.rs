use super::*;

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
    // Without a connector `accept` fails permanently, and `serve` reports the error.
    drop(connector);
    let error = server.await.expect("no panic").expect_err("serve ends only by an error");
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
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
async fn a_handlers_error_is_reported_and_ends_its_own_connection_only() {
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
