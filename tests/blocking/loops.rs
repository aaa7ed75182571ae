//! Listeners and streams in the event loops of programs.

use std::io::Write;
use std::sync::{Arc, mpsc};
use std::thread;

use sockpipe::blocking::{Listener, Stream};

use crate::common::bounded::{PATIENCE, bounded, read_all};
use crate::common::unique_name;

/// The module's page shows this loop.
#[test]
fn a_thread_sends_clients_through_a_channel_until_it_is_ended() {
    bounded(|| {
        let name = unique_name();
        let listener = Arc::new(Listener::bind(&name).expect("a free name"));
        let (clients, arrived) = mpsc::channel();
        let acceptor = thread::spawn({
            let listener = listener.clone();
            move || {
                listener
                    .incoming()
                    .map_while(Result::ok)
                    .try_for_each(|stream| clients.send(stream))
            }
        });
        for _ in 0..3 {
            let client = Stream::connect(&name).expect("a server");
            let mut stream = arrived.recv_timeout(PATIENCE).expect("a client");
            stream.write_all(b"hello").expect("a write");
            drop(stream);
            assert_eq!(read_all(client), b"hello");
        }
        listener.unblock();
        acceptor.join().expect("no panic").expect("an open channel");
        arrived.recv().expect_err("it has ended");
        drop(listener);
        Listener::bind(&name).expect("a free name");
    });
}

#[cfg(unix)]
mod unix {
    use std::io::{ErrorKind, Read};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(fd: BorrowedFd<'_>, wait: bool) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let limit = Timespec { tv_sec: if wait { 60 } else { 0 }, tv_nsec: 0 };
        poll(&mut fds, Some(&limit)).expect("an answer") == 1
    }

    /// Returns all the bytes that have arrived.
    fn drained(mut stream: &Stream) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return all,
                Ok(length) => all.extend_from_slice(&buffer[..length]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                    return all;
                }
            }
        }
    }

    #[test]
    fn a_loop_that_polls_accepts_and_reads_without_waiting() {
        bounded(|| {
            let name = unique_name();
            let listener = Listener::bind(&name).expect("a free name");
            let none = listener.accept_timeout(Duration::ZERO).expect_err("nobody came");
            assert_eq!(none.kind(), ErrorKind::TimedOut);
            assert!(!is_readable(listener.as_fd(), false));
            let mut client = Stream::connect(&name).expect("a server");
            assert!(is_readable(listener.as_fd(), true));
            let stream = listener.accept_timeout(Duration::ZERO).expect("a client");
            assert!(!is_readable(listener.as_fd(), false));

            stream.set_read_timeout(Some(Duration::from_nanos(1))).expect("a limit");
            assert!(!is_readable(stream.as_fd(), false));
            assert_eq!(drained(&stream), b"");
            client.write_all(b"more than one read").expect("a write");
            assert!(is_readable(stream.as_fd(), true));
            assert_eq!(drained(&stream), b"more than one read");
            assert!(!is_readable(stream.as_fd(), false));
            drop(client);
            assert!(is_readable(stream.as_fd(), true));
            assert_eq!((&stream).read(&mut [0]).expect("an end"), 0);
        });
    }
}
