//! Stopping a threaded server.

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sockpipe::blocking::{Listener, Stream, serve};
use sockpipe::{Error, Reason};

use crate::common::bounded::{PATIENCE, bounded};
use crate::common::unique_name;

fn is_stopped(outcome: std::io::Result<Stream>) {
    let error = outcome.expect_err("it was ended");
    assert_eq!(Error::of(&error).expect("ours").reason(), &Reason::Stopped, "{error}");
}

#[test]
fn unblock_ends_accept_in_every_thread_for_good() {
    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for limit in [None, None, Some(PATIENCE), Some(Duration::MAX)] {
                let listener = &listener;
                threads.push(scope.spawn(move || {
                    loop {
                        let accepted = match limit {
                            Some(limit) => listener.accept_timeout(limit),
                            None => listener.accept(),
                        };
                        match accepted {
                            Ok(mut stream) => stream.write_all(b"x").expect("a write"),
                            ended => return is_stopped(ended),
                        }
                    }
                }));
            }
            for _ in 0..40 {
                let mut client = Stream::connect(&name).expect("a server");
                client.read_exact(&mut [0]).expect("a byte");
            }
            listener.unblock();
            for thread in threads {
                thread.join().expect("no panic");
            }
        });
        is_stopped(listener.accept());
        is_stopped(listener.accept_timeout(Duration::ZERO));
        assert_eq!(listener.incoming().count(), 0, "an end is no error");
        // The name stays until the listener is dropped.
        assert!(Listener::bind(&name).is_err());
        drop(listener);
        drop(Listener::bind(&name).expect("a free name"));
    });
}

#[test]
fn a_client_that_waits_at_unblock_can_still_be_served() {
    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        let mut client = Stream::connect(&name).expect("a server");
        listener.unblock();
        is_stopped(listener.accept());
        let mut pending = listener.into_pending();
        assert_eq!(pending.len(), 1);
        pending[0].write_all(b"x").expect("a write");
        client.read_exact(&mut [0]).expect("a byte");
    });
}

#[test]
fn serve_keeps_to_its_threads_and_lets_them_finish() {
    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        let threads = NonZeroUsize::new(3).expect("not zero");
        let (active, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                serve(&listener, threads, |mut stream| {
                    let now = active.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    let mut byte = [0];
                    let read = stream.read_exact(&mut byte);
                    active.fetch_sub(1, Ordering::SeqCst);
                    assert_ne!(byte, *b"!", "a handler that panics");
                    read.and_then(|()| stream.write_all(&byte)).expect("a client");
                })
            });
            for round in 0..4 {
                let mut clients: Vec<_> =
                    (0..9).map(|_| Stream::connect(&name).expect("a server")).collect();
                for client in &mut clients {
                    client.write_all(if round == 1 { b"!" } else { b"x" }).expect("a write");
                }
                for client in &mut clients {
                    assert_eq!(client.read(&mut [0]).expect("an end"), usize::from(round != 1));
                }
            }
            assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");

            let mut last = Stream::connect(&name).expect("a server");
            while active.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            listener.unblock();
            last.write_all(b"x").expect("a write");
            last.read_exact(&mut [0]).expect("it is served to its end");
            server.join().expect("no panic").expect("a stop is no error");
        });
    });
}

/// Another owner of the socket may shut it down, such as the supervisor that made it.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_socket_that_another_owner_shuts_down_is_an_error_of_every_accept() {
    use rustix::net::{Shutdown, shutdown};

    let is_failure = |error: std::io::Error| {
        let reason = Error::of(&error).expect("ours").reason();
        assert_ne!(reason, &Reason::Stopped, "{error}");
    };
    bounded(move || {
        for limit in [None, Some(PATIENCE)] {
            let listeners = [(); 3].map(|()| {
                let listener = Listener::bind(unique_name()).expect("a free name");
                if limit.is_some() {
                    // From now on the socket is nonblocking.
                    listener.accept_timeout(Duration::ZERO).expect_err("no client yet");
                }
                listener
            });
            // One kernel refuses this.
            if listeners.iter().any(|listener| shutdown(listener, Shutdown::Both).is_err()) {
                return;
            }
            let [first, second, third] = listeners;
            let mut incoming = first.incoming();
            is_failure(incoming.next().expect("an error").expect_err("no client"));
            assert!(incoming.next().is_none(), "the error is final");
            let threads = NonZeroUsize::new(2).expect("not zero");
            is_failure(serve(&second, threads, |_| ()).expect_err("no client"));
            let accepted = match limit {
                Some(limit) => third.accept_timeout(limit),
                None => third.accept(),
            };
            is_failure(accepted.expect_err("no client"));
        }
    });
}

/// A program with its own event loop does this.
#[cfg(unix)]
#[test]
fn a_listener_and_a_stream_are_watched_by_poll() {
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(what: &impl AsFd, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).expect("a time");
        poll(&mut [PollFd::new(what, PollFlags::IN)], Some(&limit)).expect("a number") == 1
    }

    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        assert!(!is_readable(&listener, Duration::ZERO));
        let mut client = Stream::connect(&name).expect("a server");
        assert!(is_readable(&listener, PATIENCE));
        let mut stream = listener.accept_timeout(Duration::ZERO).expect("a client");
        assert!(!is_readable(&listener, Duration::ZERO));
        assert!(!is_readable(&stream, Duration::ZERO));
        client.write_all(b"some bytes").expect("a write");
        assert!(is_readable(&stream, PATIENCE));
        assert_eq!(stream.read(&mut [0; 64]).expect("it does not wait"), 10);
        drop(client);
        assert!(is_readable(&stream, PATIENCE));
        assert_eq!(stream.read(&mut [0; 64]).expect("the end"), 0);
    });
}
