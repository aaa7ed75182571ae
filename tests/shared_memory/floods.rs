//! A server that wakes its client endlessly, without data to read or room to write.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::unconstrained;
use tokio::time::timeout;

use super::by_hand::*;
use super::offers::{Taken, taken};
use super::*;

const LIMIT: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
enum Flood {
    ReadersBells,
    WritersBells,
    Offers,
}

/// Ends the flood when it is dropped.
struct Flooding<'a>(&'a AtomicBool);

impl Drop for Flooding<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn flood(what: Flood, socket: &UnixStream, bell: &UnixStream, stop: &AtomicBool) {
    let byte = mark_of_peer(socket).expect("a mark");
    let file = memory(SIZE, SEALS);
    let (_here, there) = UnixStream::pair().expect("a pair");
    let bells = [0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let _ = match what {
            Flood::ReadersBells => (&*socket).write(&bells).is_ok(),
            Flood::WritersBells => (&*bell).write(&bells).is_ok(),
            Flood::Offers => send_with(socket, &[byte], &[file.as_fd(), there.as_fd()]),
        };
    }
}

/// Runs `body` during a flood of each kind.
async fn flooded(body: impl AsyncFn(Flood, Stream)) {
    for what in [Flood::ReadersBells, Flood::WritersBells, Flood::Offers] {
        let Taken { client, socket, bell, memory, .. } = taken().await;
        if !matches!(what, Flood::Offers) {
            memory.set(SOCKET_BYTES, 1);
            memory.set(ON_RING, 1);
        }
        socket.set_nonblocking(true).expect("a flag");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            // Several threads write, so that one of them is always ahead.
            for _ in 0..4 {
                scope.spawn(|| flood(what, &socket, &bell, &stop));
            }
            // This ends the threads also if the body panics. Otherwise the scope would wait for
            // ever.
            let _flooding = Flooding(&stop);
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(body(what, client)));
        });
    }
}

fn assert_in_time(started: Instant, what: Flood) {
    let took = started.elapsed();
    println!("{what:?} {took:?}");
    assert!(took >= LIMIT && took < LIMIT * 40, "{what:?}: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_have_their_turn_beside_a_peer_that_rings_without_end() {
    flooded(async |what, mut client| {
        let started = Instant::now();
        let mut byte = [0];
        let read = timeout(LIMIT, unconstrained(client.read(&mut byte))).await;
        assert!(read.is_err(), "{what:?}: {read:?}");
        assert_in_time(started, what);
        let started = Instant::now();
        let fill = async {
            loop {
                client.write_all(&[7; 100_000]).await.expect("a write");
            }
        };
        assert!(timeout(LIMIT, unconstrained(fill)).await.is_err(), "{what:?}");
        assert_in_time(started, what);
    })
    .await;
}

#[cfg(feature = "blocking")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_end_beside_a_peer_that_rings_without_end() {
    use std::io::Read;

    flooded(async |what, client| {
        let mut client = client.into_blocking().expect("a stream that blocks");
        client.set_read_timeout(Some(LIMIT)).expect("a timeout");
        client.set_write_timeout(Some(LIMIT)).expect("a timeout");
        let started = Instant::now();
        assert_kind(client.read(&mut [0]), ErrorKind::TimedOut);
        assert_in_time(started, what);
        let started = Instant::now();
        let filled = loop {
            if let Err(error) = client.write(&[7; 100_000]) {
                break error;
            }
        };
        assert_eq!(filled.kind(), ErrorKind::TimedOut, "{what:?}");
        assert_in_time(started, what);
    })
    .await;
}
