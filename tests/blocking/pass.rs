//! Passing descriptors.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_getfd};
use sockpipe::blocking::Stream;
use sockpipe::os::unix::{MAX_FDS, PassFds, Peek};

use crate::common::assert_kind;
use crate::common::bounded::{bounded, read_all};

/// A message on OpenBSD carries fewer descriptors.
const OPENBSD: bool = cfg!(any(target_os = "openbsd", sockpipe_posix = "openbsd"));

fn file_with(text: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text).expect("a write");
    file.into()
}

fn text_of(fd: OwnedFd) -> Vec<u8> {
    let mut file = File::from(fd);
    file.rewind().expect("a start");
    read_all(&file)
}

/// Returns how many descriptors this process has open, including those of tests that run at the
/// same time.
fn open_files() -> usize {
    fs::read_dir("/dev/fd").expect("a listing").count()
}

#[test]
fn descriptors_arrive_with_their_bytes() {
    bounded(|| {
        let (one, other) = Stream::pair().expect("a pair");
        let files = [&b"first"[..], b"second"].map(file_with);
        let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        assert_eq!(one.send_with_fds(b"two files", &fds).expect("a write"), 9);
        drop(files);
        // Without descriptors this is a plain write.
        assert_eq!(one.send_with_fds(b"none", &[]).expect("a write"), 4);

        let mut buffer = [0; 9];
        let (length, fds) = other.recv_with_fds(&mut buffer, 2).expect("a read");
        assert_eq!((&buffer[..length], fds.len()), (&b"two files"[..], 2));
        for fd in &fds {
            assert!(fcntl_getfd(fd).expect("flags").contains(FdFlags::CLOEXEC));
        }
        let texts: Vec<_> = fds.into_iter().map(text_of).collect();
        assert_eq!(texts, [&b"first"[..], b"second"]);
        let (length, fds) = other.recv_with_fds(&mut buffer, 2).expect("a read");
        assert_eq!((&buffer[..length], fds.len()), (&b"none"[..], 0));
        drop(one);
        let (length, fds) = other.recv_with_fds(&mut buffer, 2).expect("an end");
        assert_eq!((length, fds.len()), (0, 0));
    });
}

/// The kernel puts the credentials before the descriptors.
#[cfg(target_os = "linux")]
#[test]
fn received_credentials_take_no_room_from_descriptors() {
    use rustix::net::sockopt::set_socket_passcred;

    bounded(|| {
        let (one, other) = Stream::pair().expect("a pair");
        set_socket_passcred(&other, true).expect("an option");
        let file = file_with(b"");
        for count in [1, 2, if OPENBSD { 127 } else { MAX_FDS }] {
            one.send_with_fds(b"x", &vec![file.as_fd(); count]).expect("a write");
            let (length, fds) = other.recv_with_fds(&mut [0; 8], count).expect("a read");
            assert_eq!((length, fds.len()), (1, count));
        }
        one.send_with_fds(b"none", &[]).expect("a write");
        let (length, fds) = other.recv_with_fds(&mut [0; 8], 0).expect("a read");
        assert_eq!((length, fds.len()), (4, 0));
    });
}

#[test]
fn passes_without_a_byte_or_beyond_the_limit_are_refused() {
    bounded(|| {
        let (one, other) = Stream::pair().expect("a pair");
        let file = file_with(b"");
        let too_many = vec![file.as_fd(); MAX_FDS + 1];
        let refused = [
            one.send_with_fds(b"", &[file.as_fd()]).map(drop),
            one.send_with_fds(b"x", &too_many).map(drop),
            one.recv_with_fds(&mut [], 1).map(drop),
            one.recv_with_fds(&mut [0], MAX_FDS + 1).map(drop),
        ];
        for outcome in refused {
            let error = outcome.expect_err("a refusal");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        let most = if OPENBSD { 127 } else { MAX_FDS };
        assert_eq!(one.send_with_fds(b"x", &too_many[..most]).expect("the most"), 1);
        let (length, fds) = other.recv_with_fds(&mut [0; 8], MAX_FDS).expect("all of them");
        assert_eq!((length, fds.len()), (1, most));
        let one_more = one.send_with_fds(b"x", &too_many[..most + 1]).expect_err("too many");
        assert_eq!(one_more.kind(), ErrorKind::InvalidInput, "{one_more}");

        other.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let error = other.recv_with_fds(&mut [0], 1).expect_err("nothing was sent");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    });
}

/// This is one test, because several that count descriptors would see each other's.
#[test]
fn truncated_and_failed_passes_leak_no_descriptors() {
    bounded(|| {
        let (one, other) = Stream::pair().expect("a pair");
        let file = file_with(b"");
        let fds = vec![file.as_fd(); 10];
        let before = open_files();

        // More descriptors than the receiver asked for, by one or by many.
        let truncated = [(10, 1), (10, 9), (2, 1), (1, 0), (3, 2), (4, 3)];
        // The rounds are many, so that a leak shows beside the descriptors of other tests.
        for (sent, limit) in truncated.repeat(100) {
            one.send_with_fds(b"truncated", &fds[..sent]).expect("a write");
            assert_kind(other.recv_with_fds(&mut [0; 64], limit), ErrorKind::InvalidData);
            one.send_with_fds(b"next", &[]).expect("a write");
            let (length, none) = other.recv_with_fds(&mut [0; 64], 1).expect("the next message");
            assert_eq!((length, none.len()), (4, 0));
        }
        // A plain read discards the descriptors.
        one.send_with_fds(b"plain", &fds).expect("a write");
        assert_eq!((&other).read(&mut [0; 64]).expect("a read"), 5);

        const PASSES: usize = 10_000;
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..PASSES {
                    assert_eq!(one.send_with_fds(b"x", &fds[..1]).expect("a write"), 1);
                }
            });
            for _ in 0..PASSES {
                let (length, fds) = other.recv_with_fds(&mut [0], 1).expect("a read");
                assert_eq!((length, fds.len()), (1, 1));
            }
        });
        // The receiver never reads this message.
        one.send_with_fds(b"unread", &fds).expect("a write");
        drop((one, other));
        let after = open_files();
        assert!(after < before + 500, "{before} before, {after} after {PASSES} passes");
    });
}

#[test]
fn peek_takes_nothing_and_keeps_the_timeout() {
    bounded(|| {
        let (mut one, other) = Stream::pair().expect("a pair");
        let mut buffer = [0; 8];
        other.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let error = other.peek(&mut buffer).expect_err("nothing came");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        let error = other.peek(&mut []).expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        one.write_all(b"GET /").expect("a write");
        for _ in 0..3 {
            assert_eq!(other.peek(&mut buffer).expect("a look"), 5);
            assert_eq!(&buffer[..5], b"GET /");
        }
        drop(one);
        assert_eq!(read_all(&other), b"GET /");
        assert_eq!(other.peek(&mut buffer).expect("the end"), 0);
    });
}
