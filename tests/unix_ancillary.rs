//! What a peer sends beside bytes: a read ends behind it, and the bytes that follow still arrive.
#![cfg(unix)]

mod common;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use common::{Backend, Os, within};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use sockpipe::{ConnectOptions, ListenOptions, Listener, SpinPolicy, Stream};
use tokio::io::{AsyncRead, AsyncReadExt};

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

/// All is in the socket before the first read, so that no later arrival wakes the reader.
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
async fn bytes_behind_a_descriptor_are_read_by_a_stream_that_spins() {
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

/// The kernel ends a read where the sender changes, if the socket reports senders.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn bytes_behind_a_change_of_sender_are_read() {
    use std::process::{Command, Stdio};

    let (reader, peer) = Stream::pair().expect("a pair");
    rustix::net::sockopt::set_socket_passcred(&reader, true).expect("an option");
    assert_eq!(send(&peer, &FIRST, SendFlags::empty()).expect("room"), FIRST.len());
    let output = peer.as_fd().try_clone_to_owned().expect("a descriptor");
    let mut other = Command::new("head");
    other.args(["-c", "1000", "/dev/zero"]).stdout(Stdio::from(output));
    assert!(other.status().expect("a process").success());
    let mut reader = reader;
    let mut received = vec![0; FIRST.len() + SECOND.len()];
    within(reader.read_exact(&mut received)).await.expect("both parts");
}

/// Without room for them the kernel closes them.
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
    // It was the last one: the other end reads the end.
    ours.set_nonblocking(true).expect("a mode");
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut &ours, &mut byte).expect("an end"), 0);
}
