use super::*;

async fn tell(mut stream: memory::Stream, why: Refusal) -> io::Result<()> {
    stream.write_all(format!("{why:?}").as_bytes()).await
}

async fn said(mut stream: memory::Stream) -> String {
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an end");
    said
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_receives_the_reason_and_is_counted() {
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
    // The client arrives after the stop, so it receives that reason instead of its user's limit.
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
async fn clients_not_served_before_a_stop_receive_the_reason() {
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
async fn a_refused_client_that_reads_slowly_delays_no_other() {
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
    // Only 64 clients receive the reason at a time, so further ones are closed at once. The others
    // have a second to read it.
    for client in &mut slow[64..] {
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(2)).await;
    let mut told = Vec::new();
    slow[0].read_to_end(&mut told).await.expect("an end");
    assert!(told.len() < 1 << 20, "{} bytes, though nobody read", told.len());
    server.abort();
}
