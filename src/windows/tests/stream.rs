//! The two directions of a stream, and their ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::AtomicBool;

use windows_sys::Win32::Foundation::GetHandleInformation;
use windows_sys::Win32::System::Pipes::{
    GetNamedPipeHandleStateW, GetNamedPipeInfo, PIPE_READMODE_MESSAGE,
};

use super::pipe::Instance;
use super::*;
use crate::Access;

/// In byte read mode Windows loses the end of the stream. Wine does not, so only this test shows
/// the mode.
#[test]
fn both_ends_are_of_message_type_and_read_messages() {
    let (client, server) = connected();
    let (one, other) = Stream::pair().expect("a pair");
    for stream in [client, server, one, other] {
        let handle = system::raw(&stream);
        let mut state = 0;
        let (none, nobody) = (null_mut(), null_mut());
        // SAFETY: the handle is open, and null means not wanted.
        let known = unsafe {
            GetNamedPipeHandleStateW(handle, &mut state, none, null_mut(), null_mut(), nobody, 0)
        };
        assert_ne!(known, 0);
        assert_eq!(state, PIPE_READMODE_MESSAGE);
        assert!(pipe::is_of_message_type(&stream).expect("flags"));
    }
}

/// Wine ignores some of these flags, so the test compares the numbers themselves.
#[test]
fn the_first_instance_alone_claims_the_name_and_all_refuse_the_network() {
    const FIRST: u32 = 0x0008_0000;
    const OVERLAPPED_BOTH_WAYS: u32 = 0x4000_0003;
    const NO_NETWORK: u32 = 0x8;
    const MESSAGES: u32 = 0x4 | 0x2;
    let first = OVERLAPPED_BOTH_WAYS | FIRST;
    for (messages, mode) in [(true, NO_NETWORK | MESSAGES), (false, NO_NETWORK)] {
        assert_eq!(pipe::modes(Instance::First, messages), (first, mode, 255));
        assert_eq!(pipe::modes(Instance::Further, messages), (OVERLAPPED_BOTH_WAYS, mode, 255));
        assert_eq!(pipe::modes(Instance::Only, messages), (first, mode, 1));
    }
}

/// The test asks the system about the handles, for each access.
#[test]
fn pipe_handles_have_the_requested_properties() {
    const SERVER_END: u32 = 0x1;
    const OF_MESSAGE_TYPE: u32 = 0x4;
    for access in [Access::Owner, Access::Everyone] {
        let path = unique();
        let options = ListenOptions::new().access(access);
        let mut listener = Listener::bind_with(&path, &options).expect("a free name");
        // The armed instances, and the instances that replace these.
        for _ in 0..6 {
            let client = run(Stream::connect(&path)).expect("a server");
            let server = run(listener.accept()).expect("a client");
            for (stream, end) in [(client, 0), (server, SERVER_END)] {
                let (mut flags, mut out, mut into, mut most, mut inherited) = (0, 0, 0, 0, 1);
                let handle = system::raw(&stream);
                // SAFETY: the handle is open, and the others are places for numbers.
                let known =
                    unsafe { GetNamedPipeInfo(handle, &mut flags, &mut out, &mut into, &mut most) };
                assert_ne!(known, 0);
                assert_eq!((flags, out, into), (end | OF_MESSAGE_TYPE, 256 * 1024, 256 * 1024));
                // Wine reports "unlimited" by another number.
                assert_eq!(most, if wine::is_wine() { u32::MAX } else { 255 });
                // SAFETY: the handle is open, and the other is a place for a number.
                let known = unsafe { GetHandleInformation(handle, &mut inherited) };
                assert_ne!(known, 0);
                assert_eq!(inherited, 0, "no child gets it");
            }
        }
    }
}

#[test]
fn a_half_close_leaves_the_other_direction_open() {
    for length in [0, 1, 300_000] {
        let (client, server) = connected();
        for (mut one, mut other) in [connected(), (server, client)] {
            run(async {
                let question = vec![7; length];

                let ask = async {
                    one.write_all(&question).await.expect("a write");
                    one.shutdown().await.expect("a half-close");
                    one.shutdown().await.expect("again");
                    read_all(&mut one).await
                };

                let answer = async {
                    assert_eq!(read_all(&mut other).await, question);
                    assert_eq!(other.read(&mut [0]).await.expect("the end stays"), 0);
                    other.write_all(&question).await.expect("the other direction is open");
                    other.close(PATIENCE).await.expect("an end");
                };

                let (answer, ()) = tokio::join!(ask, answer);
                assert_eq!(answer, question);
                assert_kind(one.write(&[1]).await, ErrorKind::BrokenPipe);
            });
        }
    }
}

#[test]
fn an_empty_write_does_not_end_the_stream() {
    let (mut client, mut server) = connected();
    run(async {
        assert_eq!(client.write(&[]).await.expect("nothing"), 0);
        assert_eq!(client.write_vectored(&[]).await.expect("nothing"), 0);
        let empty = io::IoSlice::new(&[]);
        assert_eq!(client.write_vectored(&[empty, empty]).await.expect("nothing"), 0);
        client.write_all(b"data").await.expect("a write");
        let mut buffer = [0; 8];
        assert_eq!(server.read(&mut buffer).await.expect("data"), 4);
    });
}

#[test]
fn vectored_writes_keep_the_order_and_the_limit() {
    let (mut client, mut server) = connected();
    let (large, limit) = (vec![2; 100_000], 64 * 1024);
    let slice = |bytes| io::IoSlice::new(bytes);
    run(async {
        assert!(client.is_write_vectored());

        for (bufs, length) in [
            (vec![slice(b"ab"), slice(b""), slice(b"cd")], 4),
            (vec![slice(b""), slice(&large), slice(b"cd")], limit),
            (vec![slice(b"ab"), slice(b"c"), slice(&large)], 3),
            (vec![slice(b"ab"), slice(&large)], 2),
        ] {
            let given: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            assert_eq!(client.write_vectored(&bufs).await.expect("a write"), length);

            let mut got = vec![0; length];
            server.read_exact(&mut got).await.expect("data");
            assert_eq!(got, given[..length]);
        }
    });
}

/// Node's servers make such pipes, and .NET's do by default.
#[test]
fn a_pipe_of_byte_type_has_no_half_close() {
    let path = unique();
    let name = path.clone();
    let server = on_reactor(async move { ServerOptions::new().create(name) });
    let mut server = server.expect("a free name");

    run(async {
        let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
        let mut client = Stream::connect_with(&path, &options).await.expect("a server");
        server.connect().await.expect("a client");
        client.write_all(b"ab").await.expect("a write");
        assert_reason!(client.shutdown().await, Unsupported, Reason::NoHalfClose);

        client.write_all(b"cd").await.expect("the write side is still open");
        client.close(PATIENCE).await.expect("the system has every byte");
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await.expect("an end");
        assert_eq!(bytes, b"abcd");
    });
}

#[test]
fn both_ends_report_their_peers_user_and_process() {
    let own = UserId::Sid(own_sid().expect("a user").to_owned());
    let (client, server) = connected();
    let (one, other) = Stream::pair().expect("a pair");
    for stream in [&client, &server, &one, &other] {
        let peer = stream.peer_credentials().expect("a peer");
        assert_eq!((peer.user(), peer.pid()), (&own, Some(std::process::id())));
    }
}

/// NT identifies a client that named no impersonation level only after a write. Wine identifies it
/// at once.
#[test]
fn a_client_is_identified_by_its_write_before_a_byte_is_read() {
    let (mut client, mut server) = connected();
    run(async {
        let mut told = pin!(server.inner.told_when_readable());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(told.as_mut().poll(cx).is_pending());
        client.write_all(b"question").await.expect("a write");
        // A read of the same stream is under way.
        let mut question = [0; 8];
        assert!(told.await.expect("a peer").is_self());
        server.read_exact(&mut question).await.expect("a read");
        assert_eq!(&question, b"question");
        // A task that waits for the client's identity does not keep the connection open.
        let (mut client, server) = connected();
        let told = server.inner.told_when_readable();
        let waits = reactor::Task::spawn(told).expect("a reactor");
        drop(server);
        assert_eq!(read_all(&mut client).await, b"");
        assert_kind(waits.await.expect("no panic"), ErrorKind::NotConnected);
    });
}

#[test]
fn the_ends_of_a_pair_exchange_bytes() {
    let (mut one, mut other) = Stream::pair().expect("a pair");
    run(async {
        one.write_all(b"ping").await.expect("a write");
        let mut buffer = [0; 4];
        other.read_exact(&mut buffer).await.expect("a read");
        other.write_all(b"pong").await.expect("a write");
        one.read_exact(&mut buffer).await.expect("a read");
        assert_eq!(&buffer, b"pong");
        drop(one);
        assert_eq!(read_all(&mut other).await, b"");
    });
}

/// One thread writes while another ends the stream. The end comes after every byte that a write
/// reported.
#[test]
fn nothing_is_written_after_the_end() {
    let written = |stream: &Stream, first: &AtomicBool| {
        let mut written = 0;
        // With more bytes the writer would wait for the peer, which reads later.
        while written < 100_000 {
            let context = &mut Context::from_waker(Waker::noop());
            match Pin::new(&mut &*stream).poll_write(context, &[7; 16]) {
                Poll::Ready(Ok(length)) => written += length,
                Poll::Ready(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
                    break;
                }
                Poll::Pending => {}
            }

            first.store(true, Ordering::Relaxed);
        }
        written
    };
    for round in 0..300 {
        let (stream, mut peer) = Stream::pair().expect("a pair");
        let first = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            let writer = scope.spawn(|| written(&stream, &first));
            while !first.load(Ordering::Relaxed) {
                thread::yield_now();
            }

            for _ in 0..round * 37 % 2000 {
                std::hint::spin_loop();
            }

            let mut end = pin!(&stream);
            run(poll_fn(|cx| end.as_mut().poll_shutdown(cx))).expect("an end");
            writer.join().expect("no panic")
        });
        assert_eq!(run(read_all(&mut peer)).len(), written, "round {round}");
    }
}
