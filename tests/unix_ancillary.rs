//! A peer may send descriptors or out-of-band bytes. A read ends there, and the bytes that follow
//! still arrive.
#![cfg(unix)]

mod common;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;
use std::time::Duration;

use common::{Backend, Os, within};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use sockpipe::os::unix::{AsyncPassFds, AsyncPeek};
use sockpipe::{ConnectOptions, ListenOptions, Listener, SpinPolicy, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const FIRST: [u8; 155] = [b'a'; 155];
const SECOND: [u8; 1000] = [b'b'; 1000];

/// Sends `data` with a descriptor of this process.
fn send_with_descriptor(socket: BorrowedFd<'_>, data: &[u8]) {
    let null = std::fs::File::open("/dev/null").expect("a device");
    let fds = [null.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(socket, &[IoSlice::new(data)], &mut control, SendFlags::empty());
    assert_eq!(sent.expect("room"), data.len());
}

/// Sends everything before the first read, so that no later bytes wake the reader.
fn send_both(socket: BorrowedFd<'_>) {
    send_with_descriptor(socket, &FIRST);
    assert_eq!(send(socket, &SECOND, SendFlags::empty()).expect("room"), SECOND.len());
}

async fn assert_both_arrive(mut reader: impl AsyncRead + Unpin) {
    let mut received = Vec::with_capacity(4096);
    while received.len() < FIRST.len() + SECOND.len() {
        let length = within(reader.read_buf(&mut received)).await.expect("a read");
        assert_ne!(length, 0, "the end came after {} bytes", received.len());
    }
    assert_eq!(received, [&FIRST[..], &SECOND].concat());
}

#[tokio::test]
async fn bytes_behind_a_descriptor_are_read() {
    let (reader, peer) = Stream::pair().expect("a pair");
    send_both(peer.as_fd());
    assert_both_arrive(reader).await;
}

/// A stream whose reads have filled their buffers receives by a call that does not report
/// descriptors.
#[tokio::test]
async fn bytes_behind_a_descriptor_are_read_after_messages_of_a_known_length() {
    let (mut reader, mut peer) = Stream::pair().expect("a pair");
    for _ in 0..20 {
        within(peer.write_all(&SECOND)).await.expect("a write");
        within(reader.read_exact(&mut [0; SECOND.len()])).await.expect("a read");
    }
    // This read finds the socket empty, so the next one waits for the reactor.
    timeout(Duration::ZERO, reader.read(&mut [0; 1])).await.expect_err("nothing to read");
    send_both(peer.as_fd());
    assert_both_arrive(reader).await;
}

#[tokio::test]
async fn bytes_behind_a_descriptor_are_read_by_halves() {
    let (mut reader, peer) = Stream::pair().expect("a pair");
    send_both(peer.as_fd());
    assert_both_arrive(reader.split().0).await;
    let (owned, _writer) = reader.into_split();
    send_both(peer.as_fd());
    assert_both_arrive(owned).await;
}

#[tokio::test]
async fn bytes_behind_a_descriptor_are_read_by_a_busy_polling_stream() {
    let os = Os::new();
    let listen = ListenOptions::new().spin(SpinPolicy::Auto);
    let mut listener = Listener::bind_with(os.endpoint(), &listen).expect("a name");
    let connect = ConnectOptions::new().spin(SpinPolicy::Auto);
    let peer = within(Stream::connect_with(os.endpoint(), &connect)).await;
    let peer = peer.expect("a server");
    let mut reader = within(listener.accept()).await.expect("a client");
    for _ in 0..20 {
        send_both(peer.as_fd());
        assert_both_arrive(&mut reader).await;
    }
}

/// On Linux a read also ends at an out-of-band byte and, where the socket reports senders, at a
/// change of sender. The stream leaves out an out-of-band byte that no caller asks for.
#[cfg(target_os = "linux")]
mod linux {
    use std::future::poll_fn;
    #[cfg(feature = "blocking")]
    use std::io::Read;
    use std::process::{Command, Stdio};

    use common::unix::with_linux_backend;
    use rustix::net::sockopt::set_socket_passcred;
    use sockpipe::{LocalListener, TimedListener};
    use tokio::io::{BufReader, ReadBuf};

    use super::*;

    #[derive(Clone, Copy)]
    enum Part {
        Bytes(usize),
        WithDescriptor(usize),
        OutOfBand,
        OfAnotherProcess(usize),
    }
    use Part::{Bytes, OfAnotherProcess, OutOfBand, WithDescriptor};

    const MARK: u8 = b'!';

    /// All pairs and triples of parts from one process that can follow each other.
    const MIXED: [&[Part]; 9] = [
        &[Bytes(155), OutOfBand, Bytes(1000)],
        &[OutOfBand, Bytes(7)],
        &[Bytes(1), OutOfBand, OutOfBand, Bytes(2)],
        &[Bytes(9), OutOfBand, Bytes(8), OutOfBand, Bytes(7)],
        &[WithDescriptor(5), OutOfBand, Bytes(6)],
        &[WithDescriptor(5), OutOfBand, WithDescriptor(6), Bytes(1)],
        &[Bytes(3), WithDescriptor(5), Bytes(4), OutOfBand, Bytes(6)],
        &[Bytes(3), OutOfBand, WithDescriptor(5), WithDescriptor(4), OutOfBand, Bytes(6)],
        &[WithDescriptor(200), Bytes(100), WithDescriptor(10), Bytes(1)],
    ];
    const OF_TWO_PROCESSES: [&[Part]; 3] = [
        &[Bytes(155), OfAnotherProcess(1000)],
        &[Bytes(1), OfAnotherProcess(2), OutOfBand, Bytes(3)],
        &[OutOfBand, OfAnotherProcess(2), WithDescriptor(3), OfAnotherProcess(4), Bytes(5)],
    ];

    /// Sends `parts` and returns the number of their bytes in the stream.
    fn send_parts(socket: BorrowedFd<'_>, parts: &[Part]) -> usize {
        let mut length = 0;
        for part in parts {
            length += match *part {
                OutOfBand => {
                    let sent = send(socket, &[MARK], SendFlags::OOB);
                    assert_eq!(sent.expect("room"), 1);
                    0
                }
                Bytes(count) => send(socket, &vec![0; count], SendFlags::empty()).expect("room"),
                WithDescriptor(count) => {
                    send_with_descriptor(socket, &vec![0; count]);
                    count
                }
                OfAnotherProcess(count) => {
                    let output = socket.try_clone_to_owned().expect("a descriptor");
                    let mut other = Command::new("head");
                    other.args(["-c", &count.to_string(), "/dev/zero"]).stdout(Stdio::from(output));
                    assert!(other.status().expect("a process").success());
                    count
                }
            };
        }
        length
    }

    async fn assert_arrive(mut reader: impl AsyncRead + Unpin, expected: usize, parts: usize) {
        let mut received = Vec::with_capacity(4096);
        while received.iter().filter(|byte| **byte != MARK).count() < expected {
            let length = within(reader.read_buf(&mut received)).await.expect("a read");
            assert_ne!(length, 0, "{parts}: the end came after {} bytes", received.len());
        }
    }

    #[tokio::test]
    async fn bytes_behind_out_of_band_ones_are_read() {
        if !with_linux_backend("what tells out-of-band bytes") {
            return;
        }
        for (index, parts) in MIXED.into_iter().enumerate() {
            for reports_senders in [false, true] {
                let (mut reader, peer) = Stream::pair().expect("a pair");
                set_socket_passcred(&reader, reports_senders).expect("an option");
                // Some bytes come before the first read, and others while the reader waits.
                for _ in 0..3 {
                    let expected = send_parts(peer.as_fd(), parts);
                    assert_arrive(&mut reader, expected, index).await;
                    let wait = assert_arrive(&mut reader, 1, index);
                    let send = async {
                        tokio::task::yield_now().await;
                        send_parts(peer.as_fd(), &[OutOfBand, Bytes(1)]);
                    };
                    tokio::join!(wait, send);
                }
            }
        }
    }

    #[tokio::test]
    async fn an_out_of_band_byte_does_not_complete_closed() {
        let (reader, peer) = Stream::pair().expect("a pair");
        let mut closed = std::pin::pin!(reader.closed());
        for _ in 0..3 {
            send_parts(peer.as_fd(), &[Bytes(1), OutOfBand]);
            let early = timeout(Duration::from_millis(20), &mut closed).await;
            assert!(early.is_err(), "the peer is there, and {early:?}");
        }
        drop(peer);
        within(closed).await.expect("the peer is gone");
    }

    /// The reactor knows of the first bytes, but not yet of the byte behind them.
    #[tokio::test]
    async fn an_out_of_band_byte_that_comes_just_before_a_read_hides_nothing() {
        if !with_linux_backend("what tells out-of-band bytes") {
            return;
        }
        let (mut reader, peer) = Stream::pair().expect("a pair");
        for _ in 0..20 {
            send_parts(peer.as_fd(), &[Bytes(10)]);
            within(reader.read_exact(&mut [0])).await.expect("a byte");
            send_parts(peer.as_fd(), &[Bytes(10), OutOfBand, Bytes(5)]);
            assert_arrive(&mut reader, 24, 0).await;
        }
    }

    #[tokio::test]
    async fn bytes_behind_a_change_of_sender_are_read() {
        for (index, parts) in OF_TWO_PROCESSES.into_iter().enumerate() {
            if index > 0 && !with_linux_backend("what tells out-of-band bytes") {
                return;
            }
            let (reader, peer) = Stream::pair().expect("a pair");
            set_socket_passcred(&reader, true).expect("an option");
            let expected = send_parts(peer.as_fd(), parts);
            assert_arrive(reader, expected, index).await;
        }
    }

    #[tokio::test]
    async fn every_way_to_read_reads_on_behind_an_out_of_band_byte() {
        if !with_linux_backend("what tells out-of-band bytes") {
            return;
        }
        for (index, parts) in MIXED.into_iter().enumerate() {
            let (mut reader, peer) = Stream::pair().expect("a pair");
            let sent = || send_parts(peer.as_fd(), parts);
            let expected = sent();
            assert_arrive(reader.split().0, expected, index).await;
            let expected = sent();
            assert_arrive(BufReader::new(&mut reader), expected, index).await;
            let expected = sent();
            assert_arrive((&mut reader).take(5000), expected, index).await;
            let (owned, writer) = reader.into_split();
            let expected = sent();
            assert_arrive(owned, expected, index).await;
            drop(writer);
        }
    }

    #[tokio::test]
    async fn a_busy_polling_stream_with_deadlines_reads_on_behind_an_out_of_band_byte() {
        if !with_linux_backend("what tells out-of-band bytes") {
            return;
        }
        let os = Os::new();
        let listen = ListenOptions::new().spin(SpinPolicy::Auto);
        let listener = Listener::bind_with(os.endpoint(), &listen).expect("a name");
        let mut listener = TimedListener::new(listener).idle_deadline(Duration::from_secs(3600));
        let connect = ConnectOptions::new().spin(SpinPolicy::Auto);
        let peer = within(Stream::connect_with(os.endpoint(), &connect)).await;
        let peer = peer.expect("a server");
        let mut reader = within(listener.accept()).await.expect("a client");
        for _ in 0..20 {
            for (index, parts) in MIXED.into_iter().enumerate() {
                let expected = send_parts(peer.as_fd(), parts);
                assert_arrive(&mut reader, expected, index).await;
                // The stream polls now, so the reactor does not know of the next bytes.
                let mut byte = [0];
                let mut byte = ReadBuf::new(&mut byte);
                let nothing = poll_fn(|cx| {
                    Poll::Ready(std::pin::Pin::new(&mut reader).poll_read(cx, &mut byte))
                });
                assert!(nothing.await.is_pending());
            }
        }
    }

    /// It reads with and without a timeout, and into several buffers.
    #[cfg(feature = "blocking")]
    #[test]
    fn a_blocking_stream_reads_on_behind_an_out_of_band_byte() {
        use std::io::IoSliceMut;

        for parts in MIXED {
            let (mut reader, peer) = sockpipe::blocking::Stream::pair().expect("a pair");
            for timeout in [None, Some(common::PATIENCE)] {
                reader.set_read_timeout(timeout).expect("a timeout");
                let expected = send_parts(peer.as_fd(), parts);
                let mut received = 0;
                while received < expected {
                    let (mut one, mut other) = ([0; 3], [0; 4096]);
                    let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
                    let length = reader.read_vectored(&mut bufs).expect("a read");
                    assert_ne!(length, 0);
                    let bytes = [&one[..length.min(3)], &other[..length.saturating_sub(3)]];
                    received += bytes.concat().iter().filter(|byte| **byte != MARK).count();
                }
            }
        }
    }
}

/// The kernel closes descriptors for which a read has no room.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn descriptors_that_come_with_a_plain_read_are_closed() {
    let (mut reader, peer) = Stream::pair().expect("a pair");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let fds = [theirs.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(&peer, &[IoSlice::new(b"x")], &mut control, SendFlags::empty());
    assert_eq!(sent.expect("room"), 1);
    drop(theirs);
    within(reader.read_exact(&mut [0])).await.expect("a byte");
    // The peer of a pair reads the end once every descriptor of the other socket is closed.
    ours.set_nonblocking(true).expect("a mode");
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut &ours, &mut byte).expect("an end"), 0);
}

#[tokio::test]
async fn peek_takes_neither_bytes_nor_descriptors() {
    let (reader, peer) = Stream::pair().expect("a pair");
    send_both(peer.as_fd());
    let before = std::fs::read_dir("/dev/fd").expect("a listing").count();
    let mut buffer = [0; 4096];
    for _ in 0..50 {
        let length = within(reader.peek(&mut buffer)).await.expect("a look");
        assert!(length > 0 && length <= FIRST.len(), "{length}");
        assert_eq!(buffer[..length], FIRST[..length]);
    }
    let grown = std::fs::read_dir("/dev/fd").expect("a listing").count().saturating_sub(before);
    assert!(grown < 40, "{grown} descriptors more; those of tests beside this one are among them");
    let (length, fds) = within(reader.recv_with_fds(&mut buffer, 1)).await.expect("a read");
    assert_eq!((&buffer[..length], fds.len()), (&FIRST[..], 1));
    let length = within(reader.peek(&mut buffer[..3])).await.expect("a look");
    assert_eq!(buffer[..length], SECOND[..3]);
    let mut reader = reader;
    let mut rest = [0; SECOND.len()];
    within(reader.read_exact(&mut rest)).await.expect("the bytes");
    assert_eq!(rest, SECOND);
}

#[tokio::test]
async fn peek_waits_for_bytes_and_loses_none_when_dropped() {
    let (reader, mut peer) = Stream::pair().expect("a pair");
    let mut buffer = [0; 8];
    let error = within(reader.peek(&mut [])).await.expect_err("no room");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    {
        let mut dropped = std::pin::pin!(reader.peek(&mut buffer));
        let pending =
            std::future::poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_pending()));
        assert!(within(pending).await);
    }
    let looking = async {
        let length = reader.peek(&mut buffer).await.expect("a look");
        assert_eq!(&buffer[..length], b"first");
    };
    let writing = async { peer.write_all(b"first").await.expect("a write") };
    within(async { tokio::join!(looking, writing) }).await;
    drop(peer);
    let mut reader = reader;
    let mut all = Vec::new();
    within(reader.read_to_end(&mut all)).await.expect("an end");
    assert_eq!(all, b"first");
    assert_eq!(within(reader.peek(&mut buffer)).await.expect("the end"), 0);
}
