//! Reads and writes with timeouts.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use sockpipe::blocking::Stream;

use crate::common::assert_kind;
use crate::common::bounded::{PATIENCE, bounded, connected, read_all};

pub const SHORT: Duration = Duration::from_millis(200);
const YEARS: [Duration; 3] =
    [Duration::from_secs(100 * 365 * 86_400), Duration::from_secs(u64::MAX / 1000), Duration::MAX];

/// Writes until the OS takes no more, and returns how much it took. The stream needs a write
/// timeout.
pub fn write_until_full(mut stream: &Stream) -> usize {
    let mut written = 0;
    loop {
        let chunk: Vec<u8> = (written..written + 10_000).map(|at| (at % 251) as u8).collect();
        match stream.write(&chunk) {
            Ok(length) => written += length,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                return written;
            }
        }
    }
}

/// Asserts that `wait` waits for `SHORT`. On a busy machine a single attempt may take longer.
pub fn assert_short(mut wait: impl FnMut()) {
    let mut took = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        wait();
        took = took.min(started.elapsed());
        assert!(took >= SHORT, "{took:?}");
        if took <= SHORT * 2 {
            println!("{took:?}");
            return;
        }
    }
    panic!("it took {took:?} at best, not {SHORT:?}");
}

#[test]
fn reads_and_writes_end_at_their_timeouts() {
    bounded(|| {
        let (client, server) = connected();
        client.set_read_timeout(Some(SHORT)).expect("a timeout");
        client.set_write_timeout(Some(SHORT)).expect("a timeout");
        assert_short(|| {
            assert_kind((&client).read(&mut [0; 8]), ErrorKind::TimedOut);
        });
        let written = write_until_full(&client);
        assert_short(|| {
            assert_kind((&client).write(&[0; 100_000]), ErrorKind::TimedOut);
        });
        // The stream works as before, and has lost nothing.
        (&server).write_all(b"answer").expect("a write");
        let mut answer = [0; 6];
        (&client).read_exact(&mut answer).expect("a read");
        assert_eq!(&answer, b"answer");
        drop(client);
        let bytes = read_all(&server);
        assert_eq!(bytes.len(), written);
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    });
}

/// A peer does not read past the end, so a later write would never be read.
#[test]
fn a_write_that_waits_fails_when_the_write_side_is_shut() {
    bounded(|| {
        for unlimited in [false, true] {
            let (client, server) = connected();
            client.set_write_timeout(Some(SHORT)).expect("a timeout");
            let written = write_until_full(&client);
            client.set_write_timeout((!unlimited).then_some(PATIENCE)).expect("a timeout");
            thread::scope(|scope| {
                let waiting = scope.spawn(|| (&client).write(&[0; 100]));
                // The thread has time to start its write, which nothing signals.
                thread::sleep(Duration::from_millis(50));
                client.shutdown().expect("a half-close");
                assert_eq!(read_all(&server).len(), written);
                let error = waiting.join().expect("a thread").expect_err("the write side is shut");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            });
        }
    });
}

#[test]
fn each_thread_waits_for_the_timeout_at_its_start() {
    bounded(|| {
        let (client, server) = connected();
        thread::scope(|scope| {
            let first = scope.spawn(|| (&client).read(&mut [0; 8]));
            // The thread has time to start its read, which nothing signals.
            thread::sleep(Duration::from_millis(50));
            client.set_read_timeout(Some(SHORT)).expect("a timeout");
            assert_short(|| {
                let error = (&client).read(&mut [0; 8]).expect_err("nothing was sent");
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            });
            assert!(!first.is_finished(), "it had no timeout when it began");
            drop(server);
            assert_eq!(first.join().expect("no panic").expect("an end"), 0);
        });
    });
}

/// A reader that takes a little at a time does not extend the timeout of a large write.
#[test]
fn a_write_in_parts_has_one_timeout() {
    bounded(|| {
        let (client, server) = connected();
        client.set_write_timeout(Some(SHORT)).expect("a timeout");
        let mut written = write_until_full(&client);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut read = 0;
                let mut buffer = vec![0; 8192];
                // Reads up to the end.
                loop {
                    thread::sleep(SHORT / 4);
                    match (&server).read(&mut buffer).expect("a read") {
                        0 => return read,
                        length => read += length,
                    }
                }
            });
            for _ in 0..5 {
                let started = Instant::now();
                if let Ok(length) = (&client).write(&vec![0; 4 << 20]) {
                    written += length;
                }
                let took = started.elapsed();
                assert!(took <= SHORT * 4, "{took:?}");
            }
            drop(client);
            assert_eq!(reader.join().expect("no panic"), written);
        });
    });
}

#[test]
fn a_timeout_of_zero_is_refused_and_one_of_years_accepted() {
    bounded(|| {
        let (client, server) = connected();
        for set in [Stream::set_read_timeout, Stream::set_write_timeout] {
            let error = set(&client, Some(Duration::ZERO)).expect_err("no time at all");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        assert_eq!((client.read_timeout(), client.write_timeout()), (None, None));
        for years in YEARS {
            client.set_read_timeout(Some(years)).expect("a timeout");
            client.set_write_timeout(Some(years)).expect("a timeout");
            let kept = Some(years.min(Duration::from_nanos(u64::MAX)));
            assert_eq!((client.read_timeout(), client.write_timeout()), (kept, kept));
            thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut byte = [0];
                    (&client).read_exact(&mut byte).map(|()| byte)
                });
                thread::sleep(Duration::from_millis(20));
                (&server).write_all(b"x").expect("a write");
                assert_eq!(&reader.join().expect("no panic").expect("a byte"), b"x");
                (&client).write_all(b"y").expect("a write");
            });
        }
        drop(client);
        assert_eq!(read_all(&server), b"yyy");
    });
}

/// Bytes that arrive while a read times out belong to the next read.
#[test]
fn a_read_that_times_out_loses_nothing() {
    const COUNT: usize = 2000;
    bounded(|| {
        let (client, server) = connected();
        client.set_read_timeout(Some(Duration::from_micros(300))).expect("a timeout");
        thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..COUNT {
                    (&server).write_all(&[at as u8, (at >> 8) as u8]).expect("a write");
                    if at % 3 == 0 {
                        thread::sleep(Duration::from_micros(300));
                    }
                }
                server.shutdown().expect("a half-close");
            });
            let (mut bytes, mut given_up) = (Vec::new(), 0);
            let mut buffer = [0; 64];
            loop {
                match (&client).read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                        given_up += 1;
                    }
                }
            }
            println!("{given_up} reads were given up");
            let expected = (0..COUNT).flat_map(|at| [at as u8, (at >> 8) as u8]);
            assert!(bytes.into_iter().eq(expected), "other bytes");
        });
    });
}
