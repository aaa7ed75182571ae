//! What remains after a stream is closed or dropped.

use super::*;

#[test]
fn a_drop_after_the_end_of_the_runtime_loses_nothing() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (stream, written) = runtime.expect("a runtime").block_on(async {
        let mut client = Stream::connect(&path).await.expect("a server");
        let written = write_until_full(&mut client).await;
        (client, written)
    });
    assert!(written > 256 * 1024, "{written}");
    thread::spawn(move || drop(stream)).join().expect("no panic");
    let mut server = run(listener.accept()).expect("a client");
    assert_eq!(run(read_all(&mut server)).len(), written);
}

#[test]
fn close_waits_for_the_system_until_its_deadline() {
    let (mut client, mut server) = connected();
    let written = on_reactor(async move {
        let written = write_until_full(&mut client).await;
        let deadline = Duration::from_millis(100);
        assert_reason!(client.close(deadline).await, TimedOut, Reason::Deadline);
        written
    });
    assert_eq!(run(read_all(&mut server)).len(), written);

    let (mut client, mut server) = connected();
    let (client, written) = on_reactor(async move {
        let written = write_until_full(&mut client).await;
        (client, written)
    });
    run(async {
        let (closed, read) = tokio::join!(client.close(PATIENCE), read_all(&mut server));
        closed.expect("an end");
        assert_eq!(read.len(), written);
    });
}

#[test]
fn close_reports_a_peer_that_left_too_early() {
    let (mut client, server) = connected();
    let client = on_reactor(async move {
        write_until_full(&mut client).await;
        client
    });
    drop(server);
    assert_kind(run(client.close(PATIENCE)), ErrorKind::BrokenPipe);

    let (mut client, mut server) = connected();
    run(async {
        client.write_all(b"all of it").await.expect("a write");
        assert_eq!(server.read(&mut [0; 16]).await.expect("data"), 9);
        drop(server);
        assert_eq!(read_all(&mut client).await, b"");
        client.close(PATIENCE).await.expect("the system had every byte");
    });
}

/// Only the blocking API has several handles of one stream.
#[cfg(feature = "blocking")]
#[test]
fn close_through_another_handle_has_the_same_outcome() {
    let short = Duration::from_millis(100);
    let (mut client, mut server) = connected();
    let (client, written) = on_reactor(async move {
        let written = write_until_full(&mut client).await;
        (client, written)
    });
    let one = client.into_blocking().expect("a stream");
    let (two, three) = (one.try_clone().expect("a handle"), one.try_clone().expect("a handle"));
    for handle in [one, two] {
        assert_reason!(handle.close(short), TimedOut, Reason::Deadline);
    }
    assert_eq!(run(read_all(&mut server)).len(), written);
    three.close(PATIENCE).expect("the system has it all now");

    let (mut client, server) = connected();
    let client = on_reactor(async move {
        write_until_full(&mut client).await;
        client
    });
    let one = client.into_blocking().expect("a stream");
    let two = one.try_clone().expect("a handle");
    drop(server);
    for handle in [one, two] {
        assert_kind(handle.close(PATIENCE), ErrorKind::BrokenPipe);
    }
}
