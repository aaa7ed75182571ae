//! Accepting clients with a time limit.

use std::io::{ErrorKind, Read, Write};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use sockpipe::Reason;
use sockpipe::blocking::{Listener, Stream};

use super::timeouts::{SHORT, assert_short};
use crate::common::assert_reason;
use crate::common::bounded::{PATIENCE, bounded};
use crate::common::unique_name;

const YEARS: Duration = Duration::MAX;

fn assert_nobody(listener: &Listener, limit: Duration) {
    assert_reason!(listener.accept_timeout(limit), Reason::Deadline, listener.endpoint());
}

fn assert_talk(mut client: &Stream, mut server: &Stream) {
    client.write_all(b"x").expect("a write");
    let mut byte = [0];
    server.read_exact(&mut byte).expect("a read");
    assert_eq!(&byte, b"x");
}

#[test]
fn accept_timeout_ends_at_its_limit() {
    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        assert_short(|| assert_nobody(&listener, SHORT));
        // A client that connects later is accepted, with each limit and without one.
        for limit in [None, Some(PATIENCE), Some(YEARS)] {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| match limit {
                    Some(limit) => listener.accept_timeout(limit),
                    None => listener.accept(),
                });
                let client = Stream::connect(&name).expect("a server");
                assert_talk(&client, &waiting.join().expect("no panic").expect("a client"));
            });
        }
        // With a limit of zero, a client that is already connected is accepted.
        assert_nobody(&listener, Duration::ZERO);
        let client = Stream::connect(&name).expect("a server");
        let started = Instant::now();
        let server = loop {
            match listener.accept_timeout(Duration::ZERO) {
                Ok(server) => break server,
                // On Windows a thread accepts clients, and may not have got to this one yet.
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}"),
            }
            assert!(started.elapsed() < PATIENCE, "the client is not accepted");
        };
        assert_talk(&client, &server);
    });
}

/// A client wakes every thread, and one of them accepts it. The others wait again, and must still
/// end at their limit.
#[test]
fn one_of_many_accepting_threads_gets_the_client() {
    const THREADS: usize = 8;
    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        for _ in 0..20 {
            let ready = Barrier::new(THREADS + 1);
            let accepted = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS)
                    .map(|_| {
                        scope.spawn(|| {
                            ready.wait();
                            listener.accept_timeout(SHORT)
                        })
                    })
                    .collect();
                ready.wait();
                let _client = Stream::connect(&name).expect("a server");
                let ended = threads.into_iter().map(|thread| thread.join().expect("no panic"));
                ended.collect::<Vec<_>>()
            });
            let errors: Vec<_> = accepted.into_iter().filter_map(Result::err).collect();
            assert_eq!(errors.len(), THREADS - 1);
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            }
        }
    });
}

/// The documentation promises that the socket blocks.
#[cfg(unix)]
#[test]
fn a_socket_that_is_given_away_blocks() {
    use std::os::fd::{AsFd, BorrowedFd};

    use rustix::fs::{OFlags, fcntl_getfl};
    use sockpipe::os::unix::ListenerExt;

    bounded(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s.sock");
        let listener = Listener::bind(&*path).expect("a free name");
        let blocks = |socket: BorrowedFd<'_>| {
            !fcntl_getfl(socket).expect("flags").contains(OFlags::NONBLOCK)
        };
        // Outside Linux only a second descriptor can end a blocked accept, so the listener polls.
        let polls = cfg!(any(not(any(target_os = "linux", target_os = "android")), sockpipe_posix));
        assert_eq!(blocks(listener.as_fd()), !polls, "before any limit");
        assert_nobody(&listener, Duration::ZERO);
        assert!(!blocks(listener.as_fd()), "after a limit");
        assert!(blocks(listener.into_fd().expect("a socket").as_fd()), "for others");
    });
}
