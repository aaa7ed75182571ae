//! The rows of a stream's life: 10, 11, 12, 17 and 18.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use sockpipe::{Reason, blocking};

use super::{Api, ENDS, Side, World, connected, for_all_ends};
#[cfg(feature = "shared-memory")]
use crate::common::assert_transport_of_this_run;
use crate::common::bounded::{bounded, read_all};
use crate::common::{PATIENCE, argument, assert_kind, assert_reason, spawn_helper};

#[test]
fn row_10_shutdown_ends_one_direction_only() {
    for length in [0, 1, 300_000] {
        for_all_ends(move |client, server| {
            let question = vec![7; length];
            thread::scope(|scope| {
                let asking = scope.spawn(|| {
                    (&client).write_all(&question).expect("a write");
                    client.shutdown().expect("a half-close");
                    client.shutdown().expect("again");
                    read_all(&client)
                });
                assert_eq!(read_all(&server), question);
                // A later read returns the end again.
                assert_eq!((&server).read(&mut [0; 8]).expect("an end"), 0);
                (&server).write_all(&question).expect("the other direction is open");
                (&server).write_all(b"answer").expect("the other direction is open");
                server.shutdown().expect("a half-close");
                let answer = asking.join().expect("no panic");
                assert_eq!(answer, [&question[..], b"answer"].concat());
            });
            let refused = (&client).write_all(b"x");
            assert_kind(refused, ErrorKind::BrokenPipe);
        });
    }
}

const ANSWER: usize = 1024 * 1024;

/// The helper of row 11: writes [`ANSWER`] bytes to the endpoint in its argument, closes, and
/// exits.
#[test]
fn helper_answers_and_exits() {
    let Some(endpoint) = argument() else { return };
    let stream = blocking::Stream::connect(endpoint).expect("a server");
    // With a timeout the write may return before the system has the last bytes.
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let answer: Vec<u8> = (0..ANSWER).map(|at| (at % 251) as u8).collect();
    (&stream).write_all(&answer).expect("a write");
    stream.close(PATIENCE).expect("the OS has every byte");
    std::process::exit(10);
}

#[test]
fn row_11_after_close_even_an_exit_loses_nothing() {
    bounded(|| {
        let world = World::new();
        let mut listener = world.bind(Api::Blocking).expect("a free name");
        let mut child = spawn_helper(
            "contract::blocking::streams::helper_answers_and_exits",
            world.os.endpoint(),
        );
        let server = listener.accept();
        let mut bytes = Vec::new();
        // The reader is slow.
        while (&server).take(32 * 1024).read_to_end(&mut bytes).expect("a read") > 0 {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(bytes.len(), ANSWER);
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        assert_eq!(child.wait().expect("an end").code(), Some(10));
    });
}

#[test]
fn row_11_a_drop_loses_nothing_and_close_ends_at_its_deadline() {
    for close in [false, true] {
        bounded(move || {
            let (client, server) = connected(ENDS[0]);
            let (Side::Blocking(client), Side::Blocking(server)) = (client, server) else {
                return;
            };
            client.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            let mut written = 0;
            let error = loop {
                match (&client).write(&[7; 10_000]) {
                    Ok(length) => written += length,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            if close {
                let closed = client.close(Duration::from_millis(100));
                if cfg!(windows) {
                    // The system has a pipe's last write only once the peer has made room.
                    assert_reason!(closed, Reason::Deadline);
                } else {
                    closed.expect("the kernel has what a write reported");
                }
            } else {
                let started = Instant::now();
                drop(client);
                assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            }
            assert_eq!(read_all(&server).len(), written);
        });
    }
}

#[test]
fn row_12_reads_end_and_writes_break_when_the_peer_leaves() {
    for_all_ends(|client, server| {
        // Bytes that the peer never reads must not turn its end into an error.
        (&client).write_all(b"unread").expect("a write");
        (&server).write_all(b"last words").expect("a write");
        drop(server);
        assert_eq!(read_all(&client), b"last words");
        assert_eq!((&client).read(&mut [0; 8]).expect("an end"), 0);
        for _ in 0..2 {
            let refused: io::Result<()> =
                (0..1 << 20).try_for_each(|_| (&client).write_all(&[0; 1024]));
            assert_kind(refused, ErrorKind::BrokenPipe);
        }
    });
    // The same if the client writes first.
    for_all_ends(|client, server| {
        (&client).write_all(b"unread").expect("a write");
        drop(server);
        let refused: io::Result<()> =
            (0..1 << 20).try_for_each(|_| (&client).write_all(&[0; 1024]));
        assert_kind(refused, ErrorKind::BrokenPipe);
        assert_eq!(read_all(&client), b"");
    });
}

#[test]
fn row_12_closed_waits_only_for_the_peer_to_leave() {
    for_all_ends(|client, server| {
        let Side::Blocking(client) = client else { return };
        let is_gone = |limit| client.closed(Some(limit)).expect("a look");
        assert!(!is_gone(Duration::ZERO));
        (&server).write_all(b"unread").expect("a write");
        server.shutdown().expect("a half-close");
        (&client).write_all(b"unread too").expect("a write");
        let started = Instant::now();
        assert!(!is_gone(Duration::from_millis(50)));
        assert!(started.elapsed() >= Duration::from_millis(50), "{:?}", started.elapsed());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| client.closed(None).expect("a wait"));
            drop(server);
            assert!(waiting.join().expect("no panic"));
        });
        assert!(is_gone(Duration::ZERO));
        assert_eq!(read_all(&client), b"unread");
    });
    // A half-close of this side does not complete `closed` either.
    for_all_ends(|client, server| {
        let Side::Blocking(client) = client else { return };
        client.shutdown().expect("a half-close");
        assert!(!client.closed(Some(Duration::from_millis(50))).expect("a look"));
        drop(server);
        assert!(client.closed(None).expect("a wait"));
    });
}

#[test]
fn row_17_both_ends_report_their_peers_user_and_process() {
    for_all_ends(|client, server| {
        let of = |side: &Side| match side {
            Side::Blocking(stream) => stream.peer_credentials().expect("a peer"),
            Side::Async(stream, _) => stream.peer_credentials().expect("a peer"),
        };
        assert_eq!(of(&client), of(&server));
        assert_eq!(of(&client).pid(), Some(std::process::id()));
    });
}

#[test]
fn row_18_a_flood_both_ways_does_not_deadlock() {
    const LENGTH: usize = 8 * 1024 * 1024;
    const CHUNK: usize = 64 * 1024;
    for_all_ends(|client, server| {
        thread::scope(|scope| {
            for side in [&client, &server] {
                scope.spawn(move || {
                    for chunk in 0..LENGTH / CHUNK {
                        (&mut &*side).write_all(&vec![chunk as u8; CHUNK]).expect("a write");
                    }
                    side.shutdown().expect("a half-close");
                });
                scope.spawn(move || {
                    let bytes = read_all(side);
                    assert_eq!(bytes.len(), LENGTH);
                    let right =
                        bytes.iter().enumerate().all(|(at, byte)| *byte == (at / CHUNK) as u8);
                    assert!(right, "the bytes are not those that were sent");
                });
            }
        });
        // Without this the run of all rows in shared memory could pass on sockets.
        #[cfg(feature = "shared-memory")]
        for side in [&client, &server] {
            assert_transport_of_this_run(match side {
                Side::Blocking(stream) => stream.transport(),
                Side::Async(stream, _) => stream.transport(),
            });
        }
        client.close().expect("an end");
        server.close().expect("an end");
    });
}
