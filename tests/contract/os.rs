//! The rows on the OS's transport: those of every backend, and those of the OS only.

use crate::*;

#[tokio::test]
async fn row_1_bind_listens_when_it_returns() {
    crate::row_1_bind_listens_when_it_returns::<Os>().await;
}

#[tokio::test]
async fn row_1_clients_connect_to_a_portable_name_and_to_its_address() {
    let name = common::unique_name();
    let mut listener = Listener::bind(&name).expect("a free name");
    let client = within(Stream::connect(&name)).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a connection");
    let own = client.peer_credentials().expect("credentials");
    assert_eq!(server.peer_credentials().expect("credentials").user(), own.user());
    // Clients can use the printed address.
    let resolved = listener.endpoint().to_string();
    assert_ne!(resolved, name);
    within(Stream::connect(&resolved)).await.expect("a connection");
}

#[tokio::test]
async fn row_2_a_living_server_keeps_its_name() {
    let backend = Os::new();
    let mut listener = backend.bind().expect("a free name");
    let before = backend.files();
    for _ in 0..3 {
        assert_reason!(backend.bind(), Reason::LiveServer { .. }, listener.endpoint());
    }
    assert_eq!(backend.files(), before);
    // The first accepted connection is the client's, so `bind` has not connected to probe the
    // server.
    let mut client = within(backend.connect()).await.expect("a connection");
    within(client.write_all(b"first")).await.expect("a write");
    client.shutdown().await.expect("a half-close");
    let mut server = within(listener.accept()).await.expect("a connection");
    assert_eq!(read_all(&mut server).await, b"first");
}

/// If a server limits its connections, a client out of order could keep an earlier one waiting.
#[tokio::test]
async fn clients_are_accepted_in_the_order_in_which_they_connected() {
    let backend = Os::new();
    for _ in 0..20 {
        let mut listener = backend.bind().expect("a free name");
        let mut clients = Vec::new();
        for number in 0..4 {
            let mut client = within(backend.connect()).await.expect("a connection");
            within(client.write_all(&[number])).await.expect("a write");
            clients.push(client);
        }
        for number in 0..4 {
            let mut server = within(listener.accept()).await.expect("a connection");
            assert_eq!(within(server.read_u8()).await.expect("a byte"), number);
        }
    }
}

/// The helper of rows 2 and 3: holds the name in its argument until it is killed.
#[tokio::test]
async fn helper_holds_the_name() {
    let Some(endpoint) = argument() else { return };
    let mut listener = Listener::bind(endpoint).expect("a free name");
    println!("\nholding");
    loop {
        let stream = listener.accept().await.expect("a connection");
        tokio::spawn(sockpipe::echo::echo(stream, |_| ()));
    }
}

fn holder(endpoint: &str) -> std::process::Child {
    let mut child = spawn_helper("contract::os::helper_holds_the_name", endpoint);
    let mut said = String::new();
    let out = child.stdout.as_mut().expect("a pipe");
    while !said.ends_with("holding\n") {
        let mut byte = [0];
        let length = out.read(&mut byte).expect("a read");
        assert_eq!(length, 1, "the helper ended; it said {said:?}");
        if byte != *b"\r" {
            said.push(byte[0] as char);
        }
    }
    child
}

#[tokio::test]
async fn row_3_a_crashed_server_leaves_the_name_to_the_next() {
    let backend = Os::new();
    for _ in 0..3 {
        let mut child = holder(backend.endpoint());
        assert_reason!(backend.bind(), Reason::LiveServer { .. }, backend.endpoint());
        let mut client = within(backend.connect()).await.expect("a connection");
        child.kill().expect("a kill");
        child.wait().expect("an end");
        // No server is left, so the client reads its end.
        assert_eq!(within(client.read(&mut [0])).await.expect("an end"), 0);
        // On Windows the client still holds the name, and `bind` takes it over.
        let mut listener = backend.bind().expect("the name of the dead");
        drop(client);
        let mut client = within(backend.connect()).await.expect("a connection");
        let mut server = within(listener.accept()).await.expect("a connection");
        exchange(&mut client, &mut server).await;
    }
}

#[tokio::test]
async fn row_6_drop_releases_the_name() {
    crate::row_6_drop_releases_the_name::<Os>().await;
}

#[tokio::test]
async fn row_6_drop_leaves_nothing_and_frees_the_name_at_once() {
    let backend = Os::new();
    for _ in 0..50 {
        let mut listener = backend.bind().expect("a free name");
        let client = within(backend.connect()).await.expect("a connection");
        drop(within(listener.accept()).await.expect("a connection"));
        drop(client);
        drop(listener);
        assert_eq!(backend.files(), [""; 0]);
    }
}

#[tokio::test]
async fn row_6_another_process_can_bind_the_name_of_a_closed_listener() {
    let backend = Os::new();
    for _ in 0..5 {
        let mut listener = backend.bind().expect("a free name");
        let client = within(backend.connect()).await.expect("a connection");
        let accepted = within(listener.accept()).await.expect("a connection");
        let mut waiting = within(backend.connect()).await.expect("a connection");
        drop((client, accepted));
        let closed = within(listener.close()).await;
        assert_eq!(backend.files(), [""; 0]);
        // The pending client reads its end.
        assert_eq!(within(waiting.read(&mut [0])).await.expect("an end"), 0);
        drop(waiting);
        match closed {
            // On Windows the pending client held the name until now.
            closed if cfg!(windows) && closed.is_err() => {
                assert_reason!(closed, Reason::HeldByConnections, backend.endpoint());
            }
            closed => closed.expect("a free name"),
        }
        let mut child = holder(backend.endpoint());
        child.kill().expect("a kill");
        child.wait().expect("an end");
    }
}

/// The accepted streams go on. Whether they hold the name depends on the system.
#[tokio::test]
async fn row_6_accepted_streams_outlive_a_closed_listener() {
    let backend = Os::new();
    let mut listener = backend.bind().expect("a free name");
    let mut client = within(backend.connect()).await.expect("a connection");
    let mut server = within(listener.accept()).await.expect("a connection");
    let closed = within(listener.close()).await;
    if cfg!(windows) {
        assert_reason!(closed, Reason::HeldByConnections, backend.endpoint());
    } else {
        closed.expect("a free name");
    }
    exchange(&mut client, &mut server).await;
}

/// Outside a runtime, or in one without I/O or timers, `bind` fails and leaves nothing.
#[test]
fn row_6_a_bind_that_fails_leaves_nothing() {
    let backend = Os::new();
    let io_only = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let io_only = io_only.expect("a runtime");
    let neither = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    if cfg!(windows) {
        // Pipes need no runtime.
        drop(backend.bind().expect("a listener"));
        drop(neither.block_on(async { backend.bind() }).expect("a listener"));
        return;
    }
    assert_reason!(backend.bind(), Reason::NoRuntime);
    for runtime in [neither, io_only] {
        let bound = runtime.block_on(async { backend.bind() });
        assert_says(&assert_reason!(bound, Reason::NoRuntime), &["enable_all()"]);
    }
    assert_eq!(backend.files(), [""; 0]);
}

#[tokio::test]
async fn row_7_connect_without_a_server_fails_at_once() {
    crate::row_7_connect_without_a_server_fails_at_once::<Os>().await;
}

#[tokio::test]
async fn row_7_the_message_names_the_endpoint_and_the_next_step() {
    let backend = Os::new();
    let connected = within(backend.connect()).await;
    let error = assert_reason!(connected, Reason::NoServer, backend.endpoint());
    let says = ["no server at ", backend.endpoint(), "start it first", "wait_for_server"];
    assert_says(&error, &says);
}

#[tokio::test]
async fn row_7_connect_waits_for_a_server_when_asked_to() {
    let backend = Os::new();
    let options = ConnectOptions::new().wait_for_server(common::PATIENCE);
    let mut connecting = pin!(backend.connect_with(&options));
    // The connect is polled before there is a server.
    let early = tokio::time::timeout(Duration::from_millis(20), &mut connecting).await;
    assert!(early.is_err(), "connected to nobody");
    let mut listener = backend.bind().expect("a free name");
    let mut client = within(connecting).await.expect("a connection");
    let mut server = within(listener.accept()).await.expect("a connection");
    exchange(&mut client, &mut server).await;
}

#[tokio::test]
async fn row_7_waiting_for_a_server_ends_at_its_limit() {
    let backend = Os::new();
    let wait = Duration::from_millis(200);
    let options = ConnectOptions::new().deadline(Duration::ZERO).wait_for_server(wait);
    let started = Instant::now();
    assert_reason!(within(backend.connect_with(&options)).await, Reason::NoServer);
    assert!(started.elapsed() >= wait, "{:?}", started.elapsed());
}

#[tokio::test]
async fn row_9_the_bytes_of_a_client_that_left_still_arrive() {
    let backend = Os::new();
    let mut listener = backend.bind().expect("a free name");
    for length in [0, 10, 30_000] {
        let mut client = within(backend.connect()).await.expect("a connection");
        within(client.write_all(&vec![1; length])).await.expect("a write");
        drop(client);
        let mut server = within(listener.accept()).await.expect("a connection");
        assert_eq!(read_all(&mut server).await.len(), length);
    }
}

#[tokio::test]
async fn row_10_shutdown_ends_one_direction_only() {
    crate::row_10_shutdown_ends_one_direction_only::<Os>().await;
}

#[tokio::test]
async fn row_10_borrowed_halves_and_shared_streams_half_close() {
    let (mut client, server) = connected(&Os::new()).await;
    let (mut client_from, mut client_to) = client.split();
    within(client_to.write_all(b"ping")).await.expect("a write");
    client_to.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut &server).await, b"ping");
    within((&server).write_all(b"pong")).await.expect("a write");
    (&server).shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut client_from).await, b"pong");
}

#[tokio::test]
async fn row_10_a_shutdown_or_drop_of_the_owned_write_half_ends_it() {
    for shut_down in [true, false] {
        let (client, mut server) = connected(&Os::new()).await;
        let (mut from, mut to) = client.into_split();
        within(to.write_all(b"question")).await.expect("a write");
        if shut_down {
            to.shutdown().await.expect("a half-close");
            assert_eq!(read_all(&mut server).await, b"question");
            // The reunited stream works, and its write side is still ended.
            let mut stream = from.reunite(to).expect("halves of one stream");
            within(server.write_all(b"answer")).await.expect("a write");
            drop(server);
            assert_eq!(read_all(&mut stream).await, b"answer");
        } else {
            drop(to);
            assert_eq!(read_all(&mut server).await, b"question");
            within(server.write_all(b"answer")).await.expect("a write");
            drop(server);
            assert_eq!(read_all(&mut from).await, b"answer");
        }
    }
}

#[tokio::test]
async fn halves_of_two_streams_do_not_reunite() {
    let (one, other) = Stream::pair().expect("a pair");
    let (one_from, one_to) = one.into_split();
    let (other_from, other_to) = other.into_split();
    let sockpipe::ReuniteError(from, to) = one_from.reunite(other_to).expect_err("no stream");
    let mut one = other_from.reunite(to).expect("a stream");
    let mut other = from.reunite(one_to).expect("a stream");
    // Both streams are still open.
    exchange(&mut one, &mut other).await;
}

#[tokio::test]
async fn row_12_reads_end_and_writes_break_when_the_peer_leaves() {
    crate::row_12_reads_end_and_writes_break_when_the_peer_leaves::<Os>().await;
}

#[tokio::test]
async fn row_14_dropped_futures_lose_nothing() {
    let backend = Os::new();
    let mut listener = backend.bind().expect("a free name");
    for round in 0..50_u8 {
        // The accept is dropped while it waits, or while the client connects.
        let (client, cut) = tokio::join!(
            within(backend.connect()),
            tokio::time::timeout(Duration::from_micros(u64::from(round) * 20), listener.accept())
        );
        let mut client = client.expect("a connection");
        let mut server = match cut {
            Ok(server) => server.expect("a connection"),
            Err(_) => within(listener.accept()).await.expect("a connection"),
        };
        // The read is dropped while it waits.
        let cut = tokio::time::timeout(Duration::ZERO, server.read(&mut [0; 8])).await;
        assert!(cut.is_err(), "nothing was written yet");
        within(client.write_all(&[round])).await.expect("a write");
        assert_eq!(within(server.read_u8()).await.expect("a byte"), round);
        // The write is dropped when the buffers are full. The bytes that it reported arrive.
        let mut written = 0;
        let full = async {
            loop {
                written += client.write(&[round; 10_000]).await.expect("a write");
            }
        };
        let _: Result<(), _> = tokio::time::timeout(Duration::from_millis(1), full).await;
        client.shutdown().await.expect("a half-close");
        let bytes = read_all(&mut server).await;
        assert_eq!(bytes.len(), written);
        assert!(bytes.iter().all(|byte| *byte == round));
    }
}

#[tokio::test]
async fn row_18_a_flood_both_ways_does_not_deadlock() {
    let (client, server) = crate::row_18_a_flood_both_ways_does_not_deadlock::<Os>().await;
    // Without this the run of all rows in shared memory could pass on sockets.
    #[cfg(feature = "shared-memory")]
    for stream in [&client, &server] {
        common::assert_transport_of_this_run(stream.transport());
    }
    drop((client, server));
}

/// The helper of row 19: lives until its standard input ends.
#[test]
fn helper_lives_until_its_input_ends() {
    if argument().is_some() {
        println!("\nalive");
        let _ = std::io::stdin().read(&mut [0]);
    }
}

#[tokio::test]
async fn row_19_closed_handles_are_closed_although_a_child_lives() {
    let backend = Os::new();
    let mut listener = backend.bind().expect("a free name");
    let mut client = within(backend.connect()).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a connection");
    let (mut one, other) = Stream::pair().expect("a pair");
    let mut child = common::helper_command("contract::os::helper_lives_until_its_input_ends", "-");
    child.stderr(std::process::Stdio::piped());
    let mut child = common::process::Running::start(child);
    while child.next_line() != "alive" {}
    drop((server, other));
    assert_eq!(within(client.read(&mut [0])).await.expect("an end"), 0);
    assert_eq!(within(one.read(&mut [0])).await.expect("an end"), 0);
    drop(client);
    drop(listener);
    drop(backend.bind().expect("the name is free"));
    assert!(child.child.try_wait().expect("a child").is_none(), "it did not outlive them");
}

#[test]
fn row_19_a_child_inherits_nothing() {
    if cfg!(not(target_os = "linux")) {
        println!("not run: needs /proc to see what a child has");
        return;
    }
    common::run_alone("contract::os::helper_starts_a_child");
}

/// The helper of row 19. With macOS's calls a child that is started just after another thread has
/// created a socket inherits it, so no other test runs in its process.
#[tokio::test]
async fn helper_starts_a_child() {
    if argument().is_none() {
        return;
    }
    let backend = Os::new();
    let mut listener = backend.bind().expect("a free name");
    let client = within(backend.connect()).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a connection");
    let pair = Stream::pair().expect("a pair");
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a child");
    // Once the child has answered, it is past the exec.
    child.stdin.as_mut().expect("a pipe").write_all(b"x").expect("a write");
    child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("an answer");
    let open = format!("/proc/{}/fd", child.id());
    for entry in std::fs::read_dir(open).expect("the child's descriptors") {
        let entry = entry.expect("an entry");
        let number: u32 = entry.file_name().to_string_lossy().parse().expect("a number");
        let what = std::fs::read_link(entry.path()).expect("a descriptor");
        let what = what.display().to_string();
        assert!(!what.contains("socket:") && !what.contains(".lock"), "{number} is {what}");
    }
    child.kill().expect("a kill");
    child.wait().expect("an end");
    drop((client, server, pair));
}
