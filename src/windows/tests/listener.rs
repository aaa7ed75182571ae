//! Listeners, their names and their clients.

use super::*;

#[test]
fn the_bytes_of_a_client_that_left_before_accept_arrive() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    run(async {
        for round in 0..6 {
            let mut client = Stream::connect(&path).await.expect("a server");
            client.write_all(&[round; 5]).await.expect("a write");
        }
        let mut heard = Vec::new();
        for _ in 0..6 {
            heard.push(read_all(&mut listener.accept().await.expect("a client")).await);
        }
        heard.sort();
        assert_eq!(heard, [0, 1, 2, 3, 4, 5].map(|round| vec![round; 5]));
    });
}

#[test]
fn two_hundred_clients_at_once_are_served() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let server = async {
        for _ in 0..200 {
            let mut stream = listener.accept().await.expect("a client");
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("a byte");
            stream.write_all(&byte).await.expect("a write");
        }
    };

    let client = |number: u8| {
        let path = path.clone();
        async move {
            let options = ConnectOptions::new().deadline(PATIENCE);
            let mut stream = Stream::connect_with(path, &options).await.expect("a server");
            stream.write_all(&[number]).await.expect("a write");
            assert_eq!(read_all(&mut stream).await, [number]);
        }
    };

    let clients =
        (0..200).map(|number| Box::pin(client(number)) as Pin<Box<dyn Future<Output = _>>>);
    let (done, ()) = run(async { tokio::join!(all(clients.collect()), server) });
    assert_eq!(done.len(), 200);
}

/// Keeps the reactor's thread busy for this time, starting now.
fn keep_busy(time: Duration) -> reactor::Task<()> {
    let (sender, begun) = std::sync::mpsc::channel();
    let busy = reactor::Task::spawn(async move {
        sender.send(()).expect("a test that waits");
        thread::sleep(time);
    });
    begun.recv().expect("a reactor at work");
    busy.expect("a reactor")
}

#[test]
fn a_dropped_name_can_be_bound_at_once() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    for round in 0..50 {
        let mut busy = None;
        run(async {
            let mut client = Stream::connect(&path).await.expect("a server");
            let mut server = listener.accept().await.expect("a client");
            client.write_all(b"x").await.expect("a write");
            server.read_exact(&mut [0]).await.expect("a byte");

            let waiting = Stream::connect(&path).await.expect("a server");
            // The reactor is busy when it should close the handles.
            if round % 10 == 0 {
                busy = Some(keep_busy(Duration::from_millis(50)));
            }
            drop((client, server, waiting));
        });
        drop(listener);
        listener = Listener::bind(&path).expect("a free name again");
        drop(busy);
    }

    let mut waiting = run(Stream::connect(&path)).expect("a server");
    drop(listener);
    assert_eq!(run(read_all(&mut waiting)), b"", "no server accepted it");
    let error = assert_reason!(run(Stream::connect(&path)), NotFound, Reason::NoServer);
    assert_eq!(Error::of(&error).and_then(Error::endpoint), path.parse().ok().as_ref());
}

#[test]
fn stop_listening_returns_every_connected_client() {
    for clients in [0, 1, 6, 20] {
        let path = unique();
        let mut listener = Listener::bind(&path).expect("a free name");
        run(async {
            let mut connected = Vec::new();
            for _ in 0..clients {
                connected.push(Stream::connect(&path).await.expect("a server"));
            }

            let pending = listener.stop_listening();
            assert_eq!(pending.len(), clients);
            for mut server in pending {
                server.write_all(b"x").await.expect("a write");
                server.close(PATIENCE).await.expect("an end");
            }
            for client in &mut connected {
                assert_eq!(read_all(client).await, b"x");
            }
        });
        let error = assert_reason!(run(Stream::connect(&path)), NotFound, Reason::NoServer);
        assert_eq!(Error::of(&error).and_then(Error::endpoint), path.parse().ok().as_ref());
    }
}

#[test]
fn stop_listening_returns_a_client_that_has_just_connected() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let (sender, opened) = std::sync::mpsc::channel();
    let busy = reactor::Task::spawn(async move {
        let client = pipe::open(&path).expect("a server");
        sender.send(()).expect("a test that waits");
        // Keeps the reactor from completing the connection before the listener ends.
        thread::sleep(Duration::from_millis(50));
        client
    });
    opened.recv().expect("a client");
    assert_eq!(listener.stop_listening().len(), 1);
    run(busy.expect("a reactor")).expect("no panic");
}

#[test]
fn a_listener_dropped_by_the_reactor_waits_for_nothing() {
    let path = unique();
    let listener = Listener::bind(&path).expect("a free name");
    let took = on_reactor(async move {
        let started = Instant::now();
        drop(listener);
        started.elapsed()
    });
    assert!(took < Duration::from_millis(200), "{took:?}: the reactor waited for itself");
    // The reactor closes the instances; then the name is gone.
    while run(Stream::connect(&path)).is_ok() {}
}

#[test]
fn errors_have_their_reason_and_advice() {
    let path = unique();
    let error = assert_reason!(run(Stream::connect(&path)), NotFound, Reason::NoServer);
    let advice = Error::of(&error).and_then(Error::advice).expect("advice");
    assert!(advice.starts_with("start it first"), "{advice}");
    let listener = Listener::bind(&path).expect("a free name");
    assert_reason!(Listener::bind(&path), AddrInUse, Reason::LiveServer { .. });
    let expect = |user| ConnectOptions::new().expect_server(ExpectServer::User(user));
    let connect = |options| run(Stream::connect_with(&path, &options));
    assert_reason!(connect(expect(UserId::Uid(0))), Unsupported, Reason::Unsupported);
    let system = expect(UserId::Sid(SYSTEM.to_owned()));
    let error = assert_reason!(connect(system), PermissionDenied, Reason::UnexpectedServer);
    assert!(Error::of(&error).is_some_and(|error| error.what().contains(SYSTEM)), "{error}");
    let own = own_sid().expect("a user").to_lowercase();
    connect(expect(UserId::Sid(own))).expect("the right server");
    drop(listener);

    let long = format!(r"\\.\pipe\{}", "n".repeat(248));
    assert_reason!(Listener::bind(&long), InvalidInput, Reason::NameTooLong);
    assert_reason!(run(Stream::connect(&long)), InvalidInput, Reason::NameTooLong);
    drop(Listener::bind(&long[..256]).expect("not too long"));
}

#[test]
fn a_busy_server_is_waited_for_until_the_deadline() {
    let path = unique();
    let first = path.clone();
    let _only = on_reactor(async move {
        let server = ServerOptions::new().max_instances(1).create(&first).expect("a free name");
        (pipe::open(&first).expect("a server"), server)
    });
    let started = Instant::now();
    let options = ConnectOptions::new().deadline(Duration::from_millis(200));
    let outcome = run(Stream::connect_with(&path, &options));
    assert_reason!(outcome, TimedOut, Reason::Deadline);
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_reason!(Listener::bind(&path), AddrInUse, Reason::LiveServer { .. });
}
