//! Neither the end of a stream nor the bytes before it get lost on a named pipe: in messages, in
//! full pipes, or when a runtime or a process ends. These tests run on Wine and on Windows.
#![cfg(windows)] // Only Windows has named pipes.

mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, argument, assert_kind, assert_reason, read_late, spawn_helper, unique_name, within,
};
use sockpipe::{ConnectOptions, ExpectServer, ListenOptions, Listener, Reason, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::windows::named_pipe::{ClientOptions, PipeMode, ServerOptions};
use tokio::runtime::Builder;

fn listen() -> (Listener, String) {
    let listener = Listener::bind_with(unique_name(), &ListenOptions::new()).expect("a free name");
    let path = listener.endpoint().to_string();
    (listener, path)
}

async fn connected() -> (Stream, Stream) {
    let (mut listener, path) = listen();
    let client = within(Stream::connect(path)).await.expect("a connection");
    (client, within(listener.accept()).await.expect("a connection"))
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.expect("an end, not an error");
    bytes
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Writes until a write takes a second, which means that the pipe is full. One write is in flight
/// then. A machine under load must not seem to have a full pipe.
async fn write_until_full(stream: &mut Stream) -> usize {
    let mut written = 0;
    let chunk = noise(251 * 40);
    while let Ok(length) = tokio::time::timeout(Duration::from_secs(1), stream.write(&chunk)).await
    {
        written += length.expect("a write");
        // The next write then continues the pattern.
        assert_eq!(written % 251, 0);
    }
    written
}

/// Pairs of a foreign end, which writes plain messages, and ours: first our server, then our
/// client.
async fn with_foreign_ends() -> [(Box<dyn AsyncWrite + Unpin + Send>, Stream); 2] {
    let (mut listener, path) = listen();
    let foreign_client = ClientOptions::new().open(path).expect("a server");
    let ours = within(listener.accept()).await.expect("a connection");

    let path = format!(r"\\.\pipe\{}", unique_name());
    let mut options = ServerOptions::new();
    options.pipe_mode(PipeMode::Message).out_buffer_size(2 << 20);
    let foreign_server = options.create(&path).expect("a free name");
    let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
    let ours_too = within(Stream::connect_with(&path, &options)).await.expect("a connection");
    within(foreign_server.connect()).await.expect("a client");
    [(Box::new(foreign_client), ours), (Box::new(foreign_server), ours_too)]
}

#[tokio::test]
async fn messages_of_every_size_are_read_whole_with_every_buffer() {
    let all = [1, 4095, 4096, 4097, 65_536, 100_000, 1 << 20];
    for size in [1, 7, 4096, 65_536, 1 << 20] {
        // To read a megabyte byte by byte would take long.
        let lengths = if size < 4096 { &all[..5] } else { &all };
        for (mut foreign, mut ours) in with_foreign_ends().await {
            let write = async {
                for length in lengths {
                    // Each write is one message, however long it is.
                    let wrote = foreign.write(&noise(*length)).await.expect("a write");
                    assert_eq!(wrote, *length);
                }
                assert_eq!(foreign.write(&[]).await.expect("an end"), 0);
                foreign
            };
            let read = async {
                let (mut bytes, mut buffer) = (Vec::new(), vec![0; size]);
                loop {
                    match ours.read(&mut buffer).await.expect("a read") {
                        0 => return bytes,
                        length => bytes.extend_from_slice(&buffer[..length]),
                    }
                }
            };
            let (foreign, bytes) = within(async { tokio::join!(write, read) }).await;
            let expected: Vec<u8> = lengths.iter().flat_map(|length| noise(*length)).collect();
            assert!(bytes == expected, "{} bytes with a buffer of {size}", bytes.len());
            drop(foreign);
        }
    }
}

/// The reader starts only after all messages have been sent.
#[tokio::test]
async fn the_first_empty_message_ends_a_stream_wherever_it_stands() {
    let cases: [&[usize]; 5] = [&[3, 0], &[3, 3, 0], &[70_000, 0], &[3, 0, 2], &[0, 0, 5]];
    for lengths in cases {
        for (mut foreign, mut ours) in with_foreign_ends().await {
            for length in lengths {
                let wrote = within(foreign.write(&vec![1; *length])).await.expect("a write");
                assert_eq!(wrote, *length);
            }
            let before = lengths.iter().take_while(|length| **length > 0).sum();
            assert_eq!(read_all(&mut ours).await.len(), before, "{lengths:?}");
            assert_eq!(within(ours.read(&mut [0; 8])).await.expect("it stays"), 0, "{lengths:?}");
            drop(foreign);
        }
    }
}

/// The reader sees each other write as one message.
#[tokio::test]
async fn a_foreign_reader_of_messages_sees_no_empty_write() {
    let (mut listener, path) = listen();
    let mut foreign = ClientOptions::new().pipe_mode(PipeMode::Message).open(path).expect("one");
    let mut ours = within(listener.accept()).await.expect("a connection");
    for bytes in [&b""[..], b"ab", b"", b"cde"] {
        assert_eq!(within(ours.write(bytes)).await.expect("a write"), bytes.len());
    }
    ours.shutdown().await.expect("a half-close");
    let mut lengths = Vec::new();
    for _ in 0..3 {
        lengths.push(within(foreign.read(&mut [0; 16])).await.expect("a read"));
    }
    assert_eq!(lengths, [2, 3, 0]);
}

/// A reader that still had bytes to read may miss the first end. Wine shows the repetition only,
/// not the need for it.
#[tokio::test]
async fn the_end_is_sent_again_to_a_foreign_reader_in_byte_mode() {
    let (mut listener, path) = listen();
    let mut foreign = ClientOptions::new().open(path).expect("a server");
    let mut ours = within(listener.accept()).await.expect("a connection");
    within(ours.write_all(&noise(200_000))).await.expect("a write");
    ours.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut foreign).await, noise(200_000));
    for _ in 0..3 {
        assert_eq!(within(foreign.read(&mut [0; 16])).await.expect("an end again"), 0);
    }
    // The reader can still answer, and the name is free after the last stream.
    within(foreign.write_all(b"answer")).await.expect("a write");
    let mut answer = [0; 6];
    within(ours.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"answer");
    drop(listener);
    drop(ours);
    assert_eq!(read_all(&mut foreign).await, b"", "the pipe is closed");
}

/// The delay doubles each time, so that a peer that never reads is not sent many ends.
#[tokio::test]
async fn the_end_is_sent_again_less_and_less_often() {
    let (mut listener, path) = listen();
    let mut foreign = ClientOptions::new().pipe_mode(PipeMode::Message).open(path).expect("one");
    let ours = within(listener.accept()).await.expect("a connection");
    let started = Instant::now();
    (&ours).shutdown().await.expect("a half-close");
    let mut ends = 0;
    while started.elapsed() < Duration::from_millis(300) {
        assert_eq!(within(foreign.read(&mut [0; 16])).await.expect("an end"), 0);
        ends += 1;
        // The ends come after 0, 10, 30, 70, ... ms.
        let most = 1 + (started.elapsed().as_millis() / 10 + 1).ilog2();
        assert!(ends <= most, "{ends} times in {:?}", started.elapsed());
    }
    println!("told {ends} times in {:?}", started.elapsed());
    drop(ours);
    let end = within(foreign.read(&mut [0; 16])).await;
    assert!(end.as_ref().is_ok_and(|length| *length == 0), "closed with the stream: {end:?}");
}

#[tokio::test]
async fn two_shutdowns_at_once_do_not_wait_for_each_other() {
    for length in [10, 200_000, 300_000] {
        let (mut client, mut server) = connected().await;
        let sent = noise(length);
        for stream in [&client, &server] {
            let mut stream = stream;
            // Neither end has read anything yet.
            within(stream.write_all(&sent)).await.expect("a write");
        }
        let started = Instant::now();
        let (one, other) = tokio::join!(client.shutdown(), server.shutdown());
        one.and(other).expect("two half-closes");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(read_all(&mut client).await == sent);
        assert!(read_all(&mut server).await == sent);
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_peer_that_does_not_read() {
    let (mut client, mut server) = connected().await;
    let written = write_until_full(&mut client).await;
    let started = Instant::now();
    client.shutdown().await.expect("a half-close");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_kind(client.write(b"x").await, ErrorKind::BrokenPipe);
    assert!(read_all(&mut server).await == noise(written));
    within(server.write_all(b"answer")).await.expect("a write");
    drop(server);
    assert_eq!(read_all(&mut client).await, b"answer");
}

/// A disconnect discards unread bytes, and the client reads an end.
#[tokio::test]
async fn a_server_that_disconnects_ends_reads_and_fails_writes() {
    let path = format!(r"\\.\pipe\{}", unique_name());
    let server = ServerOptions::new().pipe_mode(PipeMode::Message).create(&path).expect("free");
    let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
    let mut client = within(Stream::connect_with(&path, &options)).await.expect("a connection");
    within(server.connect()).await.expect("a client");
    server.disconnect().expect("a disconnect");
    assert_eq!(read_all(&mut client).await, b"");
    let refused = async {
        loop {
            client.write_all(b"x").await?;
        }
    };
    assert_kind::<()>(within(refused).await, ErrorKind::BrokenPipe);
    // The bytes that the server had not read are lost, which `close` reports.
    assert_kind(within(client.close(PATIENCE)).await, ErrorKind::BrokenPipe);
}

/// They do so with and without a write in flight.
#[test]
fn streams_outlive_the_end_of_their_runtime() {
    for (count, full) in [(100, true), (20, false)] {
        let (mut listener, path) = listen();
        let theirs = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let theirs = theirs.expect("a runtime");
        let ours = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let path = path.clone();
            clients.push(theirs.spawn(async move {
                let mut client = Stream::connect(path).await.expect("a connection");
                // This is more than the pipe holds, and less than it holds with one write in
                // flight.
                let written = if full { 300_000 } else { 1 };
                client.write_all(&noise(written)).await.expect("a write");
                (client, written)
            }));
            servers.push(ours.block_on(within(listener.accept())).expect("a connection"));
        }
        let clients: Vec<_> = clients
            .into_iter()
            .map(|client| ours.block_on(within(client)).expect("no panic"))
            .collect();
        theirs.shutdown_background();
        for ((client, written), mut server) in clients.into_iter().zip(servers) {
            drop(client);
            assert!(ours.block_on(read_all(&mut server)) == noise(written));
        }
    }
}

/// The last write of a dropped stream waits for a peer that does not read. When that peer leaves,
/// the pipe is released.
#[tokio::test]
async fn a_dropped_stream_is_released_when_a_peer_that_never_reads_leaves() {
    for shut in [false, true] {
        let (mut listener, path) = listen();
        let client = within(Stream::connect(&path)).await.expect("a connection");
        let mut server = within(listener.accept()).await.expect("a connection");
        write_until_full(&mut server).await;
        if shut {
            server.shutdown().await.expect("a half-close");
        }
        drop((server, listener));
        let holds = Listener::bind(&path);
        assert_reason!(holds, Reason::LiveServer { .. } | Reason::HeldByConnections, path);
        drop(client);
        let free = async {
            while Listener::bind(&path).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(free).await;
    }
}

/// Each write is one message.
#[tokio::test]
async fn many_small_writes_arrive_in_order() {
    let (mut client, mut server) = connected().await;
    let sent = noise(2000);
    let write = async {
        for byte in &sent {
            client.write_all(&[*byte]).await.expect("a write");
        }
    };
    let started = Instant::now();
    let mut got = vec![0; sent.len()];
    within(async { tokio::join!(write, server.read_exact(&mut got)) }).await.1.expect("a read");
    assert!(got == sent);
    println!("{} writes of a byte: {:?}", sent.len(), started.elapsed());

    let started = Instant::now();
    for _ in 0..200 {
        within(client.write_all(&[1; 64])).await.expect("a write");
        within(server.read_exact(&mut [0; 64])).await.expect("a read");
        within(server.write_all(&[1; 64])).await.expect("a write");
        within(client.read_exact(&mut [0; 64])).await.expect("a read");
    }
    println!("a round trip of 64 bytes: {:?}", started.elapsed() / 200);
}

const MEGABYTE: usize = 1_000_000;

/// Writes to a server and exits. Its argument is the way to exit and the server's path.
#[tokio::test]
async fn helper_client_that_exits() {
    let Some(argument) = argument() else { return };
    let (way, path) = argument.split_once(": ").expect("a way and a path");
    let mut stream = within(Stream::connect(path)).await.expect("a connection");
    let code = match way {
        "without a close" => {
            within(stream.write_all(&noise(MEGABYTE))).await.expect("a write");
            11
        }
        "after a close" => {
            stream.write_all(&noise(200_000)).await.expect("a write");
            within(stream.close(PATIENCE)).await.expect("the system has every byte");
            12
        }
        "after a close that was too short" => {
            write_until_full(&mut stream).await;
            let closed = stream.close(Duration::from_millis(100)).await;
            assert_reason!(closed, Reason::Deadline);
            13
        }
        _ => unreachable!("{way}"),
    };
    std::process::exit(code);
}

/// The server reads while the process exits, or afterwards.
#[tokio::test]
async fn bytes_written_before_an_exit_arrive() {
    for (way, code, least, most) in [
        // The system may not have the last write yet.
        ("without a close", 11, MEGABYTE - 64 * 1024, MEGABYTE),
        ("after a close", 12, 200_000, 200_000),
        ("after a close that was too short", 13, 256 * 1024 - 64 * 1024, 384 * 1024),
    ] {
        let (mut listener, path) = listen();
        let mut child = spawn_helper("helper_client_that_exits", &format!("{way}: {path}"));
        let mut server = within(listener.accept()).await.expect("a connection");
        let mut bytes = Vec::new();
        if code == 11 {
            bytes = read_late(&mut server).await;
        }
        let ended = tokio::task::spawn_blocking(move || child.wait().expect("an end"));
        assert_eq!(within(ended).await.expect("an end").code(), Some(code), "{way}");
        if code != 11 {
            bytes = read_all(&mut server).await;
        }
        println!("{way}: {} bytes", bytes.len());
        assert!((least..=most).contains(&bytes.len()), "{way}: {} bytes", bytes.len());
        assert!(bytes == noise(bytes.len()), "{way}: other bytes");
    }
}

#[tokio::test]
async fn accepts_dropped_at_random_lose_no_client() {
    let (mut listener, path) = listen();
    let (mut dropped, mut seed) = (0, 1_u32);
    for number in 0..200_u8 {
        let client = tokio::spawn({
            let path = path.clone();
            async move {
                let mut client = Stream::connect(path).await.expect("a connection");
                client.write_all(&[number]).await.expect("a write");
            }
        });
        let started = Instant::now();
        let mut server = loop {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let turns = async {
                for _ in 0..seed >> 29 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                server = listener.accept() => break server.expect("a connection"),
                () = turns => dropped += 1,
            }
            assert!(started.elapsed() < PATIENCE, "client {number} never comes");
        };
        assert_eq!(within(server.read_u8()).await.expect("a byte"), number);
        within(client).await.expect("no panic");
    }
    println!("{dropped} accepts dropped");
    assert!(dropped > 0, "none was dropped");
}

#[tokio::test]
async fn sixteen_megabytes_each_way_at_once_arrive() {
    let (client, server) = connected().await;
    let sent = noise(16 << 20);
    let flood = async |mut stream: &Stream| {
        let mut to = stream;
        let write = async {
            to.write_all(&sent).await.expect("a write");
            to.shutdown().await.expect("a half-close");
        };
        let ((), got) = tokio::join!(write, read_all(&mut stream));
        assert!(got == sent, "{} bytes", got.len());
    };
    let started = Instant::now();
    within(async { tokio::join!(flood(&client), flood(&server)) }).await;
    println!("{:?}", started.elapsed());
}
