//! Streams that move into shared memory.
#![cfg(all(target_os = "linux", not(sockpipe_posix), feature = "shared-memory"))]

mod common;
mod shared_memory {
    use super::*;

    mod bells;
    mod by_hand;
    mod clients;
    mod floods;
    #[cfg(feature = "blocking")]
    mod forks;
    mod hostile;
    mod kills;
    mod offers;
    mod peers;
    mod plain;
    mod pressure;
    #[cfg(feature = "blocking")]
    mod storm;
    #[cfg(feature = "blocking")]
    mod threads;
    mod withdrawals;
}

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::{
    Backend, Os, argument, assert_kind, assert_reason, assert_says, helper_command, read_all,
    run_alone, spawn_helper, within,
};
use sockpipe::os::unix::AsyncPassFds;
use sockpipe::{
    ConnectOptions, ListenOptions, Listener, Reason, SharedMemory, SpinPolicy, Stream, Transport,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

fn listening(policy: SharedMemory) -> ListenOptions {
    ListenOptions::new().shared_memory(policy)
}

fn connecting(policy: SharedMemory) -> ConnectOptions {
    ConnectOptions::new().shared_memory(policy)
}

/// A connected client and server.
async fn connected(policy: SharedMemory, spin: SpinPolicy) -> (Stream, Stream) {
    let os = Os::new();
    let options = listening(policy).spin(spin);
    let mut listener = Listener::bind_with(os.endpoint(), &options).expect("a free name");
    let options = connecting(policy).spin(spin);
    let client = within(Stream::connect_with(os.endpoint(), &options)).await.expect("a server");
    (client, within(listener.accept()).await.expect("a client"))
}

async fn exchange(
    one: &mut (impl AsyncRead + AsyncWrite + Unpin),
    other: &mut (impl AsyncRead + AsyncWrite + Unpin),
    length: usize,
) {
    let (question, mut buffer) = (vec![7; length], vec![0; length]);
    let (asked, heard) = tokio::join!(one.write_all(&question), other.read_exact(&mut buffer));
    asked.expect("a write");
    heard.expect("a read");
    assert_eq!(buffer, question);
    let answer = vec![8; length];
    let (told, heard) = tokio::join!(other.write_all(&answer), one.read_exact(&mut buffer));
    told.expect("a write");
    heard.expect("a read");
    assert_eq!(buffer, answer);
}

async fn in_memory(policy: SharedMemory, spin: SpinPolicy) -> (Stream, Stream) {
    let (mut client, mut server) = connected(policy, spin).await;
    move_into_memory(&mut client, &mut server).await;
    (client, server)
}

async fn move_into_memory(client: &mut Stream, server: &mut Stream) {
    within(async {
        for _ in 0..1000 {
            exchange(client, server, 64).await;
            if (client.transport(), server.transport())
                == (Transport::SharedMemory, Transport::SharedMemory)
            {
                return;
            }
        }
        panic!("still on the socket: {client:?} {server:?}");
    })
    .await;
}

#[tokio::test]
async fn a_hot_conversation_moves_into_memory() {
    for spin in [SpinPolicy::Off, SpinPolicy::Auto] {
        for policy in [SharedMemory::Auto, SharedMemory::Eager] {
            let (mut client, mut server) = in_memory(policy, spin).await;
            for length in [1, 63, 64, 65, 5000, 300_000, 1_000_000] {
                within(exchange(&mut client, &mut server, length)).await;
                within(exchange(&mut server, &mut client, length)).await;
            }
            within(client.shutdown()).await.expect("an end");
            assert_eq!(within(read_all(&mut server)).await, b"");
            let refused = within(client.write_all(b"x")).await;
            assert_kind(refused, ErrorKind::BrokenPipe);
            within(server.write_all(b"answer")).await.expect("a write");
            drop(server);
            assert_eq!(within(read_all(&mut client)).await, b"answer");
        }
    }
}

#[tokio::test]
async fn a_short_conversation_stays_on_the_socket() {
    let (mut client, mut server) = connected(SharedMemory::Auto, SpinPolicy::Off).await;
    for _ in 0..8 {
        within(exchange(&mut client, &mut server, 64)).await;
    }
    assert_eq!(client.transport(), Transport::Socket);
    assert_eq!(server.transport(), Transport::Socket);
}

/// Sends numbers while it reads those of the peer.
async fn pour(stream: Stream, length: usize) -> Stream {
    let stream = std::sync::Arc::new(stream);
    let writer = std::sync::Arc::clone(&stream);
    let writing = tokio::spawn(async move {
        let bytes: Vec<u8> = (0..length).map(|at| (at / 3) as u8).collect();
        let mut rest = &bytes[..];
        let mut step = 1;
        while !rest.is_empty() {
            step = step * 7 % 100_003;
            let part = &rest[..rest.len().min(step)];
            (&*writer).write_all(part).await.expect("a write");
            rest = &rest[part.len()..];
        }
        (&*writer).shutdown().await.expect("an end");
    });
    let mut got = Vec::new();
    (&*stream).read_to_end(&mut got).await.expect("a read");
    writing.await.expect("no panic");
    assert!(got.iter().enumerate().all(|(at, byte)| *byte == (at / 3) as u8), "other bytes");
    std::sync::Arc::into_inner(stream).expect("the last")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_both_ways_moves_into_memory_meanwhile() {
    const LENGTH: usize = 10_000_000;
    for spin in [SpinPolicy::Off, SpinPolicy::Auto] {
        for policy in [SharedMemory::Auto, SharedMemory::Eager] {
            let (client, server) = connected(policy, spin).await;
            let (client, server) = (pour(client, LENGTH), pour(server, LENGTH));
            let (client, server) =
                within(async { tokio::join!(tokio::spawn(client), tokio::spawn(server)) }).await;
            let (client, server) = (client.expect("no panic"), server.expect("no panic"));
            println!("{spin:?} {policy:?} {:?} {:?}", client.transport(), server.transport());
            assert_eq!(client.transport(), Transport::SharedMemory);
        }
    }
}

/// One side writes and the other reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_in_one_direction_moves_into_memory() {
    const LENGTH: usize = 200_000_000;
    for download in [true, false] {
        let (client, server) = connected(SharedMemory::Auto, SpinPolicy::Off).await;
        let (mut from, mut to) = if download { (server, client) } else { (client, server) };
        let writing = tokio::spawn(async move {
            let block = vec![7; 64 * 1024];
            let mut left = LENGTH;
            while left > 0 {
                let part = left.min(block.len());
                from.write_all(&block[..part]).await.expect("a write");
                left -= part;
            }
            from.shutdown().await.expect("an end");
            from
        });
        let mut buffer = vec![0; 64 * 1024];
        let mut got = 0;
        within(async {
            loop {
                match to.read(&mut buffer).await.expect("a read") {
                    0 => break,
                    length => got += length,
                }
            }
        })
        .await;
        assert_eq!(got, LENGTH);
        let mut from = within(writing).await.expect("no panic");
        // One direction is in memory, and the other moves there with its first write.
        within(to.write_all(b"x")).await.expect("a write");
        assert_eq!(within(from.read(&mut buffer)).await.expect("a read"), 1);
        let transport = (from.transport(), to.transport());
        assert_eq!(transport, (Transport::SharedMemory, Transport::SharedMemory), "{download}");
    }
}

/// A client that only writes must find the server's offer behind bytes that it has not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_only_writes_moves_into_memory_despite_unread_bytes() {
    for policy in [SharedMemory::Auto, SharedMemory::Eager] {
        let (mut client, mut server) = connected(policy, SpinPolicy::Off).await;
        within(server.write_all(&[5; 1000])).await.expect("a write");
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            let mut got = 0;
            loop {
                match server.read(&mut buffer).await.expect("a read") {
                    0 => break,
                    length => got += length,
                }
            }
            server.write_all(&[6; 1000]).await.expect("a write");
            (server, got)
        });
        let block = vec![7; 64 * 1024];
        for _ in 0..1600 {
            within(client.write_all(&block)).await.expect("a write");
        }
        within(client.shutdown()).await.expect("an end");
        let (server, got) = within(reading).await.expect("no panic");
        assert_eq!(got, 1600 * block.len());
        let mut bytes = vec![0; 2000];
        within(client.read_exact(&mut bytes)).await.expect("a read");
        assert_eq!(bytes, [[5; 1000], [6; 1000]].concat());
        assert_eq!(client.transport(), Transport::SharedMemory, "{policy:?}");
        assert_eq!(server.transport(), Transport::SharedMemory, "{policy:?}");
    }
}

/// This client echoes over shared memory until the test kills it.
#[tokio::test]
async fn helper_echoes_until_killed() {
    let Some(endpoint) = argument() else { return };
    let mut stream =
        Stream::connect_with(endpoint, &connecting(SharedMemory::Eager)).await.expect("a server");
    let mut buffer = [0; 64];
    loop {
        let length = stream.read(&mut buffer).await.expect("a read");
        stream.write_all(&buffer[..length]).await.expect("a write");
    }
}

#[tokio::test]
async fn reads_end_and_writes_break_when_the_peer_is_killed() {
    for writes in [false, true] {
        let os = Os::new();
        let mut listener =
            Listener::bind_with(os.endpoint(), &listening(SharedMemory::Eager)).expect("a name");
        let mut child = spawn_helper("helper_echoes_until_killed", os.endpoint());
        let mut stream = within(listener.accept()).await.expect("a client");
        let mut byte = [7; 64];
        while stream.transport() != Transport::SharedMemory {
            within(stream.write_all(&byte)).await.expect("a write");
            within(stream.read_exact(&mut byte)).await.expect("a read");
        }
        if !writes {
            // The reader sleeps while the peer dies.
            let mut buffer = [0; 8];
            let (read, ()) = within(async {
                tokio::join!(stream.read(&mut buffer), async {
                    tokio::task::yield_now().await;
                    child.kill().expect("a kill");
                })
            })
            .await;
            assert_eq!(read.expect("an end"), 0);
        } else {
            child.kill().expect("a kill");
        }
        child.wait().expect("an end");
        let written = writes_until_broken(&mut stream).await;
        assert!(written < 2, "the peer has been gone for {written} writes");
    }
}

/// A writer checks at most once in this time whether its peer is gone. The check uses the coarse
/// clock, which advances every 10 ms at the latest.
const BETWEEN_CHECKS: Duration = Duration::from_millis(20);

/// Returns how many writes succeed although the peer is gone.
async fn writes_until_broken(stream: &mut Stream) -> usize {
    let mut written = 0;
    within(async {
        loop {
            match stream.write(b"x").await {
                Ok(_) => written += 1,
                refused => {
                    assert_kind(refused, ErrorKind::BrokenPipe);
                    return written;
                }
            }
            tokio::time::sleep(BETWEEN_CHECKS).await;
        }
    })
    .await
}

/// No bytes are in flight when the peer leaves. The first write fails only if the peer waited for
/// it, because then it rings the peer's bell.
#[tokio::test]
async fn the_second_write_fails_at_the_latest_after_an_idle_peer_has_left() {
    for waits in [false, true] {
        let (mut client, mut server) = in_memory_pair().await;
        if waits {
            let read = tokio::time::timeout(Duration::ZERO, server.read(&mut [0])).await;
            assert!(read.is_err(), "{read:?}");
        }
        drop(server);
        let written = writes_until_broken(&mut client).await;
        assert_eq!(written, usize::from(!waits), "the peer waits: {waits}");
    }
}

/// A wake-up that finds the socket full is lost, and the smallest socket holds six of them.
#[tokio::test]
async fn each_message_wakes_its_reader_over_the_smallest_socket() {
    let os = Os::new();
    let options = listening(SharedMemory::Eager).send_buffer_size(1);
    let mut listener = Listener::bind_with(os.endpoint(), &options).expect("a free name");
    let options = connecting(SharedMemory::Eager).send_buffer_size(1);
    let client = within(Stream::connect_with(os.endpoint(), &options)).await;
    let (mut client, mut server) =
        (client.expect("a server"), within(listener.accept()).await.expect("a client"));
    move_into_memory(&mut client, &mut server).await;

    for number in 0..100 {
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (mut from, mut to) = (from, to);
            let (message, mut byte) = ([number], [0]);
            // The reader sleeps before there is anything to read.
            let (read, written) =
                within(async { tokio::join!(to.read(&mut byte), from.write_all(&message)) }).await;
            written.expect("a write");
            assert_eq!((read.expect("a read"), byte), (1, message));
        }
    }
}

#[tokio::test]
async fn a_stream_with_shared_memory_does_not_convert_to_a_socket() {
    let (client, server) = connected(SharedMemory::Auto, SpinPolicy::Off).await;
    let sent = within(client.send_with_fds(b"x", &[])).await;
    assert_reason!(sent, Reason::Unsupported);
    let received = within(client.recv_with_fds(&mut [0], 1)).await;
    assert_reason!(received, Reason::Unsupported);
    assert_reason!(OwnedFd::try_from(client), Reason::Unsupported);
    let converted = tokio::net::UnixStream::try_from(server);
    assert_reason!(converted, Reason::Unsupported);
}

/// Streams beyond the limit stay on their sockets and work. The helper is a separate process, since
/// the limit is per process and other tests use memory too.
#[test]
fn streams_beyond_the_limit_stay_on_their_sockets() {
    run_alone("helper_uses_more_memory_than_allowed");
}

/// The test above runs this in a separate process.
#[tokio::test]
async fn helper_uses_more_memory_than_allowed() {
    if argument().is_none() {
        return;
    }
    let mut streams = Vec::new();
    for _ in 0..80 {
        let (mut client, mut server) = connected(SharedMemory::Eager, SpinPolicy::Off).await;
        for _ in 0..16 {
            within(exchange(&mut client, &mut server, 64)).await;
        }
        streams.push((client, server));
    }
    // Both ends of each stream belong to this process, which may use 64.
    for (number, (client, server)) in streams.iter().enumerate() {
        let allowed = if number < 32 { Transport::SharedMemory } else { Transport::Socket };
        assert_eq!((client.transport(), server.transport()), (allowed, allowed), "{number}");
    }

    streams.drain(..40);
    let (mut client, mut server) = in_memory_pair().await;
    within(exchange(&mut client, &mut server, 64)).await;
}

async fn in_memory_pair() -> (Stream, Stream) {
    in_memory(SharedMemory::Eager, SpinPolicy::Off).await
}
