//! The parts of the blocking API that the contract does not cover: threads, timeouts, handles. They
//! need no tokio: `cargo test --no-default-features --features blocking --test blocking`.
#![cfg(feature = "blocking")]
#![allow(unreachable_pub, reason = "the modules of one test")]

mod blocking {
    mod accept;
    mod convert;
    mod examples;
    #[cfg(unix)]
    mod fork;
    mod loops;
    #[cfg(unix)]
    mod pass;
    #[cfg(unix)]
    mod signal;
    pub(crate) mod timeouts;
    mod unblock;
}
mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::assert_reason;
use common::bounded::{PATIENCE, bounded, connected, read_all};
use common::unique_name;
use sockpipe::blocking::{Listener, SingleInstance, Stream};
use sockpipe::{ConnectOptions, ListenOptions, Reason, SpinPolicy};

fn echo(mut stream: &Stream) {
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer).expect("a read");
        if length == 0 {
            return;
        }
        stream.write_all(&buffer[..length]).expect("a write");
    }
}

/// One thread writes while another shuts the same direction down.
#[test]
fn shutdown_sends_the_end_after_the_bytes_of_a_concurrent_writer() {
    for round in 0..50 {
        bounded(move || {
            let (client, server) = connected();
            let written = AtomicUsize::new(0);
            let read = thread::scope(|scope| {
                scope.spawn(|| {
                    while let Ok(length) = (&client).write(&[7; 100]) {
                        written.fetch_add(length, Ordering::Relaxed);
                    }
                });
                scope.spawn(|| {
                    while written.load(Ordering::Relaxed) < round * 100 {
                        thread::yield_now();
                    }
                    client.shutdown().expect("a half-close");
                });
                read_all(&server).len()
            });
            assert_eq!(read, written.into_inner());
        });
    }
}

#[test]
fn sixty_four_threads_echo_a_thousand_times_each() {
    const CLIENTS: usize = 64;
    const ECHOES: usize = 1000;
    let count = bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            // Four threads share the listener.
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..CLIENTS / 4 {
                        let stream = listener.accept().expect("a client");
                        scope.spawn(move || echo(&stream));
                    }
                });
            }
            for client in 0..CLIENTS {
                let (name, count) = (&name, &count);
                scope.spawn(move || {
                    let mut stream = Stream::connect(name).expect("a server");
                    for round in 0..ECHOES {
                        let said = [(client + round) as u8; 64];
                        stream.write_all(&said).expect("a write");
                        let mut heard = [0; 64];
                        stream.read_exact(&mut heard).expect("a read");
                        assert_eq!(heard, said);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        count.into_inner()
    });
    assert_eq!(count, CLIENTS * ECHOES);
}

#[test]
fn a_thread_that_is_blocked_in_a_read_never_blocks_a_writer() {
    bounded(|| {
        let (client, server) = connected();
        thread::scope(|scope| {
            let reader = scope.spawn(|| read_all(&client));
            // The data exceeds the buffer, so the writes wait for the peer too.
            let writer = scope.spawn(|| {
                (&client).write_all(&vec![7; 1 << 20]).expect("a write");
                client.shutdown().expect("a half-close");
            });
            // The reader is blocked in its read, since the server has sent nothing yet.
            assert_eq!(read_all(&server).len(), 1 << 20);
            writer.join().expect("no panic");
            (&server).write_all(b"now").expect("a write");
            drop(server);
            assert_eq!(reader.join().expect("no panic"), b"now");
        });
    });
}

#[test]
fn threads_that_share_a_stream_all_read_its_end() {
    bounded(|| {
        let (client, server) = connected();
        thread::scope(|scope| {
            let readers = [(); 3].map(|()| scope.spawn(|| read_all(&client).len()));
            (&server).write_all(b"abc").expect("a write");
            server.shutdown().expect("a half-close");
            let read: usize = readers.map(|reader| reader.join().expect("no panic")).iter().sum();
            assert_eq!(read, 3);
        });
    });
}

#[test]
fn a_stream_stays_open_until_its_last_handle_is_closed() {
    bounded(|| {
        let (client, server) = connected();
        let other = client.try_clone().expect("a handle");
        (&other).write_all(b"from the other").expect("a write");
        drop(other);
        client.shutdown().expect("a half-close, though the other handle is closed");
        assert_eq!(read_all(&server), b"from the other");
        let other = client.try_clone().expect("a handle");
        drop(client);
        (&server).write_all(b"still open").expect("a write");
        drop(server);
        assert_eq!(read_all(&other), b"still open");
    });
}

#[test]
fn shutdown_fails_a_waiting_writer_and_keeps_what_it_wrote() {
    bounded(|| {
        let (client, server) = connected();
        thread::scope(|scope| {
            let (sender, started) = std::sync::mpsc::channel();
            let client = &client;
            let writer = scope.spawn(move || {
                let mut written = 0;
                loop {
                    match (&*client).write(&[7; 10_000]) {
                        Ok(length) => written += length,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
                            return written;
                        }
                    }
                    let _ = sender.send(());
                }
            });
            started.recv().expect("a write");
            client.shutdown().expect("a half-close");
            // The server reads every byte that the writer reported as written, and then the end.
            let read = read_all(&server).len();
            assert_eq!(read, writer.join().expect("no panic"));
        });
    });
}

/// On Windows a write may still be in flight when it returns, and Windows cancels other I/O of a
/// thread that exits.
#[test]
fn bytes_arrive_after_the_thread_that_wrote_them_has_ended() {
    bounded(|| {
        let (client, server) = connected();
        client.set_write_timeout(Some(blocking::timeouts::SHORT)).expect("a timeout");
        let writer = client.try_clone().expect("a handle");
        let written = thread::spawn(move || blocking::timeouts::write_until_full(&writer));
        let written = written.join().expect("no panic");
        assert!(written > 0);
        drop(client);
        assert_eq!(read_all(&server).len(), written);
    });
}

#[test]
fn empty_writes_and_reads_do_nothing() {
    bounded(|| {
        let (client, server) = connected();
        assert_eq!((&client).write(&[]).expect("nothing"), 0);
        assert_eq!((&client).write_vectored(&[]).expect("nothing"), 0);
        assert_eq!((&client).read(&mut []).expect("nothing"), 0);
        let bufs = [&b""[..], b"ab", b"", b"cd"].map(std::io::IoSlice::new);
        assert_eq!((&client).write_vectored(&bufs).expect("a write"), 4);
        drop(client);
        assert_eq!(read_all(&server), b"abcd");
    });
}

#[test]
fn into_pending_returns_every_connected_client() {
    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        let clients = [(); 3].map(|()| Stream::connect(&name).expect("a server"));
        let pending = listener.into_pending();
        assert_eq!(pending.len(), clients.len());
        for server in pending {
            (&server).write_all(b"x").expect("a write");
        }
        for client in &clients {
            assert_eq!(read_all(client), b"x");
        }
        let error = Stream::connect(&name).expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    });
}

#[test]
fn both_ends_report_their_peers_user_and_process() {
    bounded(|| {
        let (client, server) = connected();
        let (one, other) = Stream::pair().expect("a pair");
        let peers = [&client, &server, &one, &other].map(|stream| {
            let peer = stream.peer_credentials().expect("a peer");
            (peer.user().clone(), peer.pid())
        });
        assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");
        assert_eq!(peers[0].1, Some(std::process::id()));
        assert!(format!("{client:?}").starts_with("Stream"));
    });
}

/// A read of such a stream may poll for its bytes or block for them.
#[test]
fn a_busy_polling_stream_behaves_like_any_other() {
    bounded(|| {
        let name = unique_name();
        let listen = ListenOptions::new().spin(SpinPolicy::Auto).send_buffer_size(64 * 1024);
        let listener = Listener::bind_with(&name, &listen).expect("a free name");
        let connect = ConnectOptions::new().spin(SpinPolicy::Auto).send_buffer_size(64 * 1024);
        let connected = || {
            let client = Stream::connect_with(&name, &connect).expect("a connection");
            (client, listener.accept().expect("a connection"))
        };
        let (mut client, server) = connected();
        thread::scope(|scope| {
            scope.spawn(|| echo(&server));
            for number in 0..2000_u32 {
                client.write_all(&number.to_le_bytes()).expect("a write");
                let mut answer = [0; 4];
                client.read_exact(&mut answer).expect("an answer");
                assert_eq!(u32::from_le_bytes(answer), number);
            }
            // The server sends nothing until the timeout has passed.
            client.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
            let started = Instant::now();
            let error = client.read(&mut [0]).expect_err("nothing was sent");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(started.elapsed() >= Duration::from_millis(20), "{:?}", started.elapsed());
            client.shutdown().expect("a half-close");
        });
        // A polling reader sees the end, whether or not the server has read the client's bytes.
        for unread in [&b""[..], b"unread"] {
            let (mut client, server) = connected();
            client.write_all(unread).expect("a write");
            let waiting = thread::spawn(move || client.read(&mut [0; 8]).expect("an end"));
            drop(server);
            assert_eq!(waiting.join().expect("no panic"), 0);
        }
    });
}

#[test]
fn bind_wait_waits_while_a_server_has_the_name() {
    bounded(|| {
        let (name, options) = (unique_name(), ListenOptions::new());
        let first = Listener::bind(&name).expect("a free name");
        let (limit, started) = (Duration::from_millis(200), Instant::now());
        let bound = Listener::bind_wait(&name, &options, limit);
        assert_reason!(bound, Reason::Deadline, name);
        assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| Listener::bind_wait(&name, &options, PATIENCE));
            drop(first);
            waiting.join().expect("no panic").expect("the name");
        });
        // An endpoint that only other systems support.
        let (foreign, started) =
            (if cfg!(windows) { "abstract:name" } else { r"\\.\pipe\name" }, Instant::now());
        let error = Listener::bind_wait(foreign, &options, PATIENCE / 2).expect_err("not here");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(started.elapsed() < PATIENCE / 4, "only a taken name is waited for");
    });
}

#[test]
fn the_second_instance_is_connected_to_the_first() {
    bounded(|| {
        let name = unique_name();
        let acquire = || SingleInstance::acquire(&name).expect("an instance");
        let SingleInstance::Primary(listener) = acquire() else { panic!("nobody had the name") };
        let SingleInstance::Secondary(mut later) = acquire() else { panic!("it is the first's") };
        let mut first = listener.accept().expect("a later start");
        later.write_all(b"open").expect("a write");
        let mut asked = [0; 4];
        first.read_exact(&mut asked).expect("a read");
        assert_eq!(&asked, b"open");

        // The name is free again, so the next caller becomes the primary.
        drop((listener, first, later));
        assert!(matches!(acquire(), SingleInstance::Primary(_)));
    });
}
