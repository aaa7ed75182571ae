//! Blocking streams, with each other and with async ones.

use std::io::{Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use sockpipe::blocking;
use tokio::runtime::{Builder, Runtime};

use super::*;

fn connected_threads(
    policy: SharedMemory,
    spin: SpinPolicy,
) -> (blocking::Stream, blocking::Stream) {
    let os = Os::new();
    let options = listening(policy).spin(spin);
    let listener = blocking::Listener::bind_with(os.endpoint(), &options).expect("a free name");
    let options = connecting(policy).spin(spin);
    let client = blocking::Stream::connect_with(os.endpoint(), &options).expect("a server");
    (client, listener.accept().expect("a client"))
}

fn echo(mut stream: blocking::Stream) -> blocking::Stream {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).expect("a read") {
            0 => {
                stream.shutdown().expect("an end");
                return stream;
            }
            length => stream.write_all(&buffer[..length]).expect("a write"),
        }
    }
}

fn until_in_memory(stream: &mut blocking::Stream) {
    let mut buffer = [7; 64];
    for _ in 0..1000 {
        stream.write_all(&buffer).expect("a write");
        stream.read_exact(&mut buffer).expect("a read");
        if stream.transport() == Transport::SharedMemory {
            return;
        }
    }
    panic!("still on the socket");
}

/// Returns two ends in memory. Neither has unread bytes, and neither waits.
pub(crate) fn threads_in_memory() -> (blocking::Stream, blocking::Stream) {
    let (mut client, server) = connected_threads(SharedMemory::Eager, SpinPolicy::Off);
    let mut handle = server.try_clone().expect("a handle");
    let echoing = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while handle.read_exact(&mut buffer).is_ok() && buffer[0] != 0 {
            handle.write_all(&buffer).expect("a write");
        }
    });
    until_in_memory(&mut client);
    client.write_all(&[0; 64]).expect("a write");
    echoing.join().expect("no panic");
    (client, server)
}

#[test]
fn blocking_streams_move_into_memory() {
    for spin in [SpinPolicy::Off, SpinPolicy::Auto] {
        for policy in [SharedMemory::Auto, SharedMemory::Eager] {
            let (mut client, server) = connected_threads(policy, spin);
            client.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
            let echoing = std::thread::spawn(move || echo(server));
            until_in_memory(&mut client);
            let bytes: Vec<u8> = (0..3_000_000).map(|at| (at / 5) as u8).collect();
            let mut writer = client.try_clone().expect("a handle");
            let sent = bytes.clone();
            let writing = std::thread::spawn(move || writer.write_all(&sent).expect("a write"));
            let mut got = vec![0; bytes.len()];
            client.read_exact(&mut got).expect("a read");
            assert!(got == bytes, "other bytes");
            writing.join().expect("no panic");
            client.shutdown().expect("an end");
            assert_eq!(client.read(&mut got).expect("a read"), 0, "the echo ends too");
            drop(echoing.join().expect("no panic"));
            assert_kind(client.write(b"x"), ErrorKind::BrokenPipe);
        }
    }
}

#[test]
fn timeouts_hold_in_memory() {
    let (mut client, mut server) = threads_in_memory();
    let limit = Duration::from_millis(50);
    client.set_read_timeout(Some(limit)).expect("a timeout");
    client.set_write_timeout(Some(limit)).expect("a timeout");
    let started = Instant::now();
    assert_kind(client.read(&mut [0]), ErrorKind::TimedOut);
    let filled = loop {
        if let Err(error) = client.write(&[1; 10_000]) {
            break error;
        }
    };
    assert_eq!(filled.kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() >= 2 * limit);
    // The stream works as before.
    let mut buffer = vec![0; 100_000];
    while server.read(&mut buffer).expect("a read") == buffer.len() {}
    client.write_all(&[2; 8]).expect("there is room again");
    server.write_all(&[3; 8]).expect("a write");
    client.read_exact(&mut [0; 8]).expect("a read");
}

/// As with tasks, the first write fails only if the peer waited for it.
#[test]
fn the_second_write_of_a_thread_fails_at_the_latest_after_an_idle_peer_has_left() {
    for waits in [false, true] {
        let (mut client, mut server) = threads_in_memory();
        if waits {
            server.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            assert_kind(server.read(&mut [0]), ErrorKind::TimedOut);
        }
        drop(server);
        let mut written = 0;
        let refused = loop {
            match client.write(b"x") {
                Ok(_) => written += 1,
                refused => break refused,
            }
            assert!(written < 10, "no write fails");
            std::thread::sleep(BETWEEN_CHECKS);
        };
        assert_kind(refused, ErrorKind::BrokenPipe);
        assert_eq!(written, usize::from(!waits), "the peer waits: {waits}");
    }
}

#[test]
fn a_stream_takes_its_memory_to_the_other_api() {
    let runtime: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (client, server) = runtime.block_on(in_memory_pair());
    let mut client = client.into_blocking().expect("a stream that blocks");
    let echoing = {
        let server = server.into_blocking().expect("a stream that blocks");
        std::thread::spawn(move || echo(server))
    };
    assert_eq!(client.transport(), Transport::SharedMemory);
    until_in_memory(&mut client);
    runtime.block_on(async {
        let mut client = client.into_async().expect("an async stream");
        let mut bytes = vec![5; 1_000_000];
        let (mut from, mut to) = client.split();
        let (read, written) = within(async {
            tokio::join!(from.read_exact(&mut bytes), to.write_all(&[6; 1_000_000]))
        })
        .await;
        read.expect("a read");
        written.expect("a write");
        assert!(bytes == [6; 1_000_000]);
        client.shutdown().await.expect("an end");
        assert_eq!(within(client.read(&mut bytes)).await.expect("an end"), 0);
    });
    echoing.join().expect("no panic");
}

/// Starts two threads, each with a handle to the stream. They begin each round together with the
/// caller, and report the end of `act`.
fn two_threads(
    stream: &blocking::Stream,
    start: &Arc<Barrier>,
    rounds: usize,
    said: &Sender<()>,
    act: fn(&mut blocking::Stream),
) {
    for _ in 0..2 {
        let mut handle = stream.try_clone().expect("a handle");
        let (start, said) = (start.clone(), said.clone());
        std::thread::spawn(move || {
            for _ in 0..rounds {
                start.wait();
                act(&mut handle);
                said.send(()).expect("the test waits");
            }
        });
    }
}

/// Streams of threads in memory: a client's and a server's.
fn blocking_in_memory() -> (blocking::Stream, blocking::Stream) {
    let runtime: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (client, server) = runtime.block_on(in_memory_pair());
    let blocking = |stream: Stream| stream.into_blocking().expect("a stream that blocks");
    (blocking(client), blocking(server))
}

#[test]
fn two_threads_that_wait_for_a_message_get_one_each() {
    const ROUNDS: usize = 1000;
    let (client, mut server) = blocking_in_memory();
    let (start, (said, told)) = (Arc::new(Barrier::new(3)), channel());
    two_threads(&client, &start, ROUNDS, &said, |handle| {
        handle.read_exact(&mut [0]).expect("a byte");
    });
    for round in 0..ROUNDS {
        start.wait();
        for which in ["first", "second"] {
            server.write_all(b"x").expect("a write");
            let read = told.recv_timeout(common::PATIENCE);
            read.unwrap_or_else(|_| panic!("round {round}: nobody reads the {which} message"));
        }
    }
}

#[test]
fn two_threads_that_wait_for_room_both_get_it() {
    const ROUNDS: usize = 100;
    const LENGTH: usize = 600_000;
    let (client, mut server) = blocking_in_memory();
    server.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    let (start, (said, told)) = (Arc::new(Barrier::new(3)), channel());
    two_threads(&client, &start, ROUNDS, &said, |handle| {
        handle.write_all(&[7; LENGTH]).expect("a write");
    });
    let mut bytes = vec![0; 2 * LENGTH];
    for round in 0..ROUNDS {
        start.wait();
        let read = server.read_exact(&mut bytes);
        read.unwrap_or_else(|error| panic!("round {round}: {error}"));
        for _ in 0..2 {
            told.recv_timeout(common::PATIENCE).expect("each has written");
        }
    }
}
