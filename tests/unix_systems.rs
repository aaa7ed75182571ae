//! Behaviour on which the kernels of Unix systems differ and the crate does not. Linux itself
//! passes these tests; `scripts/kernels.sh` runs them with the answers of the other kernels.
#![cfg(unix)]

mod common;

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::task::Poll;

use common::{Backend, Os, argument, assert_reason, spawn_helper, within};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sockpipe::os::unix::AsyncPassFds;
use sockpipe::{ConnectOptions, ListenOptions, Listener, Reason, SpinPolicy, Stream};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Sends `data` with `count` copies of `fd`.
fn send_with(socket: BorrowedFd<'_>, data: &[u8], fd: BorrowedFd<'_>, count: usize) {
    let fds = vec![fd; count];
    let mut room = vec![MaybeUninit::uninit(); 4096];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(socket, &[IoSlice::new(data)], &mut control, SendFlags::empty());
    assert_eq!(sent.expect("room"), data.len());
}

/// Waits until every descriptor of the other socket is closed. A child of another test may hold one
/// until its exec.
fn is_closed(ours: &UnixStream) -> bool {
    let mut end = [PollFd::new(ours, PollFlags::IN)];
    let patience = Timespec::try_from(common::PATIENCE).expect("a time");
    poll(&mut end, Some(&patience)).expect("an end");
    ours.set_nonblocking(true).expect("a mode");
    let mut byte = [0];
    matches!((&*ours).read(&mut byte), Ok(0))
}

/// The first read ends before the descriptor, and does not report it.
#[tokio::test]
async fn bytes_behind_an_unrequested_descriptor_are_read() {
    let (mut reader, peer) = Stream::pair().expect("a pair");
    let null = std::fs::File::open("/dev/null").expect("a device");
    assert_eq!(send(&peer, &[b'a'; 100], SendFlags::empty()).expect("room"), 100);
    send_with(peer.as_fd(), &[b'b'; 100], null.as_fd(), 1);
    let mut received = Vec::with_capacity(4096);
    while received.len() < 200 {
        let length = within(reader.read_buf(&mut received)).await.expect("a read");
        assert_ne!(length, 0, "the end came after {} bytes", received.len());
    }
    assert_eq!(received, [[b'a'; 100], [b'b'; 100]].concat());
}

#[tokio::test]
async fn a_busy_polling_stream_closes_unrequested_descriptors() {
    let os = Os::new();
    let listen = ListenOptions::new().spin(SpinPolicy::Auto);
    let mut listener = Listener::bind_with(os.endpoint(), &listen).expect("a name");
    let connect = ConnectOptions::new().spin(SpinPolicy::Auto);
    let peer = within(Stream::connect_with(os.endpoint(), &connect)).await.expect("a server");
    let mut reader = within(listener.accept()).await.expect("a client");
    for _ in 0..20 {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        send_with(peer.as_fd(), b"x", theirs.as_fd(), 3);
        drop(theirs);
        within(reader.read_exact(&mut [0])).await.expect("a byte");
        assert!(is_closed(&ours), "a descriptor stayed open");
    }
}

#[cfg(feature = "blocking")]
#[test]
fn a_blocking_stream_closes_unrequested_descriptors() {
    use std::time::Duration;

    let (reader, peer) = sockpipe::blocking::Stream::pair().expect("a pair");
    for timeout in [None, Some(Duration::from_secs(60))] {
        reader.set_read_timeout(timeout).expect("a timeout");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        send_with(peer.as_fd(), b"x", theirs.as_fd(), 3);
        drop(theirs);
        assert_eq!((&reader).read(&mut [0; 8]).expect("a byte"), 1);
        assert!(is_closed(&ours), "a descriptor stayed open");
    }
}

/// The test below runs this as a separate process, since the limit is per process.
#[tokio::test]
async fn helper_reads_without_descriptors() {
    let Some(_) = argument() else { return };
    let (mut reader, peer) = Stream::pair().expect("a pair");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    send_with(peer.as_fd(), b"plain", theirs.as_fd(), 2);
    send_with(peer.as_fd(), b"asked", theirs.as_fd(), 2);
    send_with(peer.as_fd(), b"again", theirs.as_fd(), 2);
    drop(theirs);
    let before = getrlimit(Resource::Nofile);
    let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, ..before });
    limit(Some(0)).expect("a limit");
    let mut five = [0; 5];
    within(reader.read_exact(&mut five)).await.expect("bytes");
    assert_eq!(&five, b"plain");
    let asked = within(reader.recv_with_fds(&mut five, 2)).await;
    let error = asked.expect_err("there is no room for them");
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    limit(before.current).expect("a limit");
    let (length, fds) = within(reader.recv_with_fds(&mut five, 2)).await.expect("the next");
    assert_eq!((&five[..length], fds.len()), (&b"again"[..], 2));
    drop(fds);
    assert!(is_closed(&ours), "a descriptor stayed open");
    println!("\nread");
}

#[test]
fn bytes_are_read_while_no_descriptor_is_free_for_those_beside_them() {
    let helper =
        spawn_helper("helper_reads_without_descriptors", "").wait_with_output().expect("a process");
    let out = String::from_utf8_lossy(&helper.stdout);
    assert!(helper.status.success() && out.contains("\nread\n"), "{out}");
}

/// Fills the socket until it takes no more.
fn fill(socket: BorrowedFd<'_>) -> usize {
    let mut filled = 0;
    while let Ok(length) = send(socket, &[b'x'; 4096], SendFlags::DONTWAIT) {
        filled += length;
    }
    filled
}

#[tokio::test]
async fn send_with_fds_waits_until_the_socket_has_room() {
    let (one, mut other) = Stream::pair().expect("a pair");
    let null = std::fs::File::open("/dev/null").expect("a device");
    let filled = fill(one.as_fd());
    let fds = [null.as_fd()];
    let mut sending = pin!(one.send_with_fds(b"late", &fds));
    let early = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
    assert!(early.is_pending(), "{early:?}");
    let reading = async {
        let mut bytes = vec![0; filled];
        other.read_exact(&mut bytes).await.expect("what was there");
        let mut four = [0; 4];
        let (length, fds) = other.recv_with_fds(&mut four, 1).await.expect("a message");
        assert_eq!((&four[..length], fds.len()), (&b"late"[..], 1));
    };
    let (sent, ()) = within(async { tokio::join!(sending, reading) }).await;
    assert_eq!(sent.expect("room"), 4);
}

#[cfg(feature = "blocking")]
#[test]
fn blocking_send_with_fds_waits_for_room_until_the_timeout() {
    use std::time::Duration;

    use sockpipe::os::unix::PassFds;

    let (one, other) = sockpipe::blocking::Stream::pair().expect("a pair");
    let null = std::fs::File::open("/dev/null").expect("a device");
    let filled = fill(one.as_fd());
    one.set_write_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let error = one.send_with_fds(b"late", &[null.as_fd()]).expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    (&other).read_exact(&mut vec![0; filled]).expect("what was there");
    assert_eq!(one.send_with_fds(b"late", &[null.as_fd()]).expect("room"), 4);
    let (length, fds) = other.recv_with_fds(&mut [0; 8], 1).expect("a message");
    assert_eq!((length, fds.len()), (4, 1));
}

/// The client wrote and left before the server's end was converted.
#[tokio::test]
async fn an_adopted_socket_whose_peer_has_left_keeps_its_bytes() {
    let os = Os::new();
    let listener = UnixListener::bind(os.endpoint()).expect("a name");
    let mut one = UnixStream::connect(os.endpoint()).expect("a server");
    one.write_all(b"before").expect("a write");
    drop(one);
    let (other, _) = listener.accept().expect("a client");
    let mut stream = Stream::try_from(other).expect("it was connected");
    assert_eq!(common::read_all(&mut stream).await, b"before");
    let uid = stream.peer_credentials().expect("a peer").user().to_string();
    assert_eq!(uid, format!("uid {}", rustix::process::geteuid().as_raw()));
    let error = within(stream.write_all(b"after")).await.expect_err("nobody reads it");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
}

#[test]
fn a_socket_that_was_never_connected_does_not_convert_to_a_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _context = runtime.enter();
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let error = Stream::try_from(socket).expect_err("it has no peer");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// Where the system refuses a buffer of that size, `bind` reports it, and no client fails.
#[tokio::test]
async fn bind_refuses_an_impossible_send_buffer() {
    const MIB: u32 = 1 << 20;
    for size in [MIB / 8, 4 * MIB, 8 * MIB, 9 * MIB, 64 * MIB] {
        let os = Os::new();
        let options = ListenOptions::new().send_buffer_size(size);
        let mut listener = match Listener::bind_with(os.endpoint(), &options) {
            Ok(listener) => listener,
            Err(error) => {
                assert_reason!(Err::<(), _>(error), Reason::Os);
                continue;
            }
        };
        let _client = within(os.connect()).await.expect("a server");
        within(listener.accept()).await.unwrap_or_else(|error| panic!("{size}: {error}"));
        assert_eq!(listener.stats().refused, 0, "{size}");
    }
}

async fn assert_one_write(mut writer: impl AsyncWrite + Unpin, reader: &mut Stream) {
    assert!(writer.is_write_vectored());
    let parts = [IoSlice::new(b"a"), IoSlice::new(b"bc")];
    assert_eq!(within(writer.write_vectored(&parts)).await.expect("a write"), 3);
    let mut bytes = [0; 3];
    within(reader.read_exact(&mut bytes)).await.expect("what was written");
    assert_eq!(bytes, *b"abc");
}

#[tokio::test]
async fn a_stream_and_its_halves_write_several_parts_at_once() {
    let (mut one, mut other) = Stream::pair().expect("a pair");
    assert_one_write(&one, &mut other).await;
    assert_one_write(&mut one, &mut other).await;
    assert_one_write(one.split().1, &mut other).await;
    assert_one_write(one.into_split().1, &mut other).await;
}

#[cfg(target_pointer_width = "64")]
#[tokio::test]
async fn a_write_beyond_the_limit_of_one_call_is_partial() {
    let (mut one, mut other) = Stream::pair().expect("a pair");
    let mut many = vec![0_u8; 3 << 30];
    let written = within(one.write(&many)).await.expect("a write");
    let read = within(other.read(&mut many)).await.expect("a read");
    assert!(0 < read && read <= written, "{read} of {written}");
    within(other.read_exact(&mut many[..written - read])).await.expect("the rest");

    for bufs in [&[&many[..], b"x"][..], &[b"x", &many[..]]] {
        let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        let written = within(one.write_vectored(&bufs)).await.expect("a write");
        assert!(written > 0);
        within(other.read_exact(&mut vec![0; written])).await.expect("what was written");
    }
}

#[cfg(all(feature = "blocking", target_pointer_width = "64"))]
#[test]
fn a_blocking_write_beyond_the_limit_of_one_call_is_partial() {
    use std::time::Duration;

    let (one, other) = sockpipe::blocking::Stream::pair().expect("a pair");
    let mut many = vec![0_u8; 3 << 30];
    // Without a timeout the call would wait until everything is written.
    one.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    for _ in 0..2 {
        let written = (&one).write(&many).expect("a write");
        let read = (&other).read(&mut many).expect("a read");
        assert!(0 < read && read <= written, "{read} of {written}");
        (&other).read_exact(&mut many[..written - read]).expect("the rest");
    }
    let bufs = [IoSlice::new(&many), IoSlice::new(b"x")];
    let written = (&one).write_vectored(&bufs).expect("a write");
    assert!(written > 0);
    (&other).read_exact(&mut vec![0; written]).expect("what was written");
}

/// The default backlog is the longest that the system allows.
#[tokio::test]
async fn the_default_backlog_holds_several_clients() {
    let os = Os::new();
    let mut listener = Listener::bind(os.endpoint()).expect("a name");
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(within(os.connect()).await.expect("room in the queue"));
    }
    for _ in clients {
        within(listener.accept()).await.expect("a client");
    }
}

/// This holds even where the system does not report the peers of a pair.
#[tokio::test]
async fn each_peer_in_a_pair_is_this_process() {
    let (one, other) = Stream::pair().expect("a pair");
    for end in [one, other] {
        let peer = end.peer_credentials().expect("a peer");
        assert_eq!(peer.pid(), Some(std::process::id()));
        let uid = format!("uid {}", rustix::process::geteuid().as_raw());
        assert_eq!(peer.user().to_string(), uid);
    }
}
