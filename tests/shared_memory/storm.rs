//! Many conversations move into memory at the same time, each in its own way. Every byte is
//! checked.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sockpipe::blocking;

use super::kills::pattern;
use super::*;

/// The course of a conversation, which its seed determines for both sides.
struct Course(u64);

impl Course {
    fn below(&mut self, limit: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit) as usize
    }
}

/// Reads `count` bytes of the pattern from position `at`, and gives up some of the reads.
async fn read_part(stream: &Stream, at: usize, count: usize, course: &mut Course) {
    let mut done = 0;
    while done < count {
        let mut buffer = vec![0; 1 + course.below(20_000).min(count - done - 1)];
        let read = async { (&*stream).read(&mut buffer).await };
        let limit = Duration::from_micros(course.below(300) as u64);
        let Ok(read) = tokio::time::timeout(limit, read).await else { continue };
        let length = read.expect("a read");
        assert!(length > 0, "an end after {done} of {count} bytes");
        let right = |(byte, at): (&u8, usize)| *byte == pattern(at);
        assert!(buffer[..length].iter().zip(at + done..).all(right), "other bytes");
        done += length;
    }
}

async fn write_part(stream: &Stream, at: usize, count: usize, course: &mut Course) {
    let mut done = 0;
    while done < count {
        let length = (1 + course.below(20_000)).min(count - done);
        let part: Vec<u8> = (at + done..at + done + length).map(pattern).collect();
        let limit = Duration::from_micros(course.below(300) as u64);
        let write = async { (&*stream).write(&part).await };
        let Ok(written) = tokio::time::timeout(limit, write).await else { continue };
        done += written.expect("a write");
    }
}

fn on_threads(
    mut stream: blocking::Stream,
    at: [usize; 2],
    count: [usize; 2],
    mut course: Course,
) -> blocking::Stream {
    let mut writer = stream.try_clone().expect("a handle");
    let mut pieces = Course(course.0 ^ 0x5555);
    let writing = std::thread::spawn(move || {
        let bytes: Vec<u8> = (at[0]..at[0] + count[0]).map(pattern).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = (1 + pieces.below(20_000)).min(rest.len());
            writer.write_all(&rest[..length]).expect("a write");
            rest = &rest[length..];
        }
    });
    let mut done = 0;
    while done < count[1] {
        let mut buffer = vec![0; 1 + course.below(20_000).min(count[1] - done - 1)];
        let length = stream.read(&mut buffer).expect("a read");
        assert!(length > 0, "an end after {done} of {} bytes", count[1]);
        let right = |(byte, at): (&u8, usize)| *byte == pattern(at);
        assert!(buffer[..length].iter().zip(at[1] + done..).all(right), "other bytes");
        done += length;
    }
    writing.join().expect("no panic");
    stream
}

/// Runs the parts of a conversation, each with the async or the blocking API as this side chooses,
/// and then one of the endings.
async fn converse(mut stream: Stream, seed: u64, side: usize) -> Transport {
    let mut common = Course(seed);
    let mut own = Course(seed ^ (0x9E37_79B9 << (side * 7)));
    let mut at = [0, 0];
    for _ in 0..1 + common.below(4) {
        let counts = [common.below(400_000), common.below(400_000)];
        let count = [counts[side], counts[1 - side]];
        if own.below(3) == 0 {
            let blocking = stream.into_blocking().expect("a stream that blocks");
            let course = Course(own.0);
            let talk = tokio::task::spawn_blocking(move || on_threads(blocking, at, count, course));
            stream = talk.await.expect("no panic").into_async().expect("an async stream");
        } else {
            let (mut one, mut other) = (Course(own.0), Course(own.0 ^ 0xAAAA));
            tokio::join!(
                write_part(&stream, at[0], count[0], &mut one),
                read_part(&stream, at[1], count[1], &mut other),
            );
        }
        own.below(2);
        at = [at[0] + count[0], at[1] + count[1]];
    }
    let transport = stream.transport();
    match (common.below(3), side) {
        // Both sides end, one after the other.
        (0, 0) | (1, 1) => {
            stream.shutdown().await.expect("an end");
            assert_eq!(read_all(&mut stream).await, b"last");
        }
        (0, _) | (1, _) => {
            assert_eq!(read_all(&mut stream).await, b"");
            stream.write_all(b"last").await.expect("a write");
            stream.close(common::PATIENCE).await.expect("an end");
        }
        // One side is dropped.
        (_, 0) => drop(stream),
        _ => assert_eq!(read_all(&mut stream).await, b""),
    }
    transport
}

/// Connects to the same server as a foreign client, and sends descriptors and out-of-band bytes.
fn disturb(endpoint: &str, stop: &AtomicBool) {
    let null = std::fs::File::open("/dev/null").expect("a file");
    while !stop.load(Ordering::Relaxed) {
        let mut socket = UnixStream::connect(endpoint).expect("a server");
        // These bytes show the server that the client is foreign.
        socket.write_all(&[0; 8]).expect("a write");
        for _ in 0..50 {
            by_hand::send_with(&socket, b"descriptors", &[null.as_fd(); 3]);
            let _ = rustix::net::send(&socket, b"!", rustix::net::SendFlags::OOB);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn seeds() -> u64 {
    if std::env::var_os("SOCKPIPE_FULL").is_some() { 1500 } else { 150 }
}

/// The helper has its own process because it counts what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn helper_storms_a_server() {
    if argument().is_none() {
        return;
    }
    let os = Os::new();
    let mut listener =
        Listener::bind_with(os.endpoint(), &listening(SharedMemory::Eager)).expect("a free name");
    let stop = Arc::new(AtomicBool::new(false));
    let disturbing = {
        let (stop, endpoint) = (Arc::clone(&stop), os.endpoint().to_owned());
        std::thread::spawn(move || disturb(&endpoint, &stop))
    };
    let serving = tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.expect("a client");
            tokio::spawn(async move {
                let seed = stream.read_u64().await.expect("a seed");
                if seed == 0 {
                    read_all(&mut stream).await;
                    return;
                }
                converse(stream, seed, 1).await;
            });
        }
    });

    // More conversations run at a time than may use memory.
    let (mut running, mut in_memory) = (tokio::task::JoinSet::new(), 0);
    for seed in 1..=seeds() {
        if running.len() >= 48 {
            let transport = running.join_next().await.expect("one of them").expect("no panic");
            in_memory += u32::from(transport == Transport::SharedMemory);
        }
        let endpoint = os.endpoint().to_owned();
        let policy = if seed % 5 == 0 { SharedMemory::Auto } else { SharedMemory::Eager };
        running.spawn(async move {
            let options = connecting(policy);
            let mut stream = Stream::connect_with(endpoint, &options).await.expect("a server");
            let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            stream.write_u64(seed).await.expect("a write");
            within(converse(stream, seed, 0)).await
        });
    }
    while let Some(ended) = running.join_next().await {
        in_memory += u32::from(ended.expect("no panic") == Transport::SharedMemory);
    }
    println!("{in_memory} of {} conversations ended in memory", seeds());
    assert!(u64::from(in_memory) > seeds() / 4);
    stop.store(true, Ordering::Relaxed);
    disturbing.join().expect("no panic");
    serving.abort();
    let _ = serving.await;
    common::unix::until("no memory is left", || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the process's memory");
        !maps.contains("memfd:sockpipe")
    });
}

#[test]
fn many_conversations_at_once_keep_their_bytes_on_their_way_into_memory() {
    run_alone("shared_memory::storm::helper_storms_a_server");
}
