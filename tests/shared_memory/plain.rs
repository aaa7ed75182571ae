//! Nothing changes for peers that do not use shared memory.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};

use super::*;

/// Receives bytes, and asserts that no control data comes with them.
fn receive(socket: &UnixStream, buf: &mut [u8]) -> usize {
    let mut room = [MaybeUninit::uninit(); 256];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let message = recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::empty());
    assert_eq!(control.drain().count(), 0, "control data came");
    message.expect("bytes").bytes
}

/// Echoes until the end, and returns all the bytes.
fn echo(mut socket: &UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = receive(socket, &mut buffer);
        if length == 0 {
            return all;
        }
        all.extend(&buffer[..length]);
        socket.write_all(&buffer[..length]).expect("a write");
    }
}

/// Makes enough traffic of each kind for the stream to be hot.
async fn talk(stream: &mut Stream) -> Vec<u8> {
    let mut sent = Vec::new();
    for turn in 0..2000_usize {
        let length = if turn % 100 == 0 { 100_000 } else { 64 };
        let question = vec![turn as u8; length];
        let mut answer = vec![0; length];
        let (mut from, mut to) = stream.split();
        let (written, read) =
            within(async { tokio::join!(to.write_all(&question), from.read_exact(&mut answer)) })
                .await;
        written.expect("a write");
        read.expect("a read");
        assert!(answer == question, "other bytes");
        sent.extend(question);
    }
    stream.shutdown().await.expect("an end");
    assert_eq!(stream.transport(), Transport::Socket);
    sent
}

#[tokio::test]
async fn a_plain_server_receives_nothing_but_the_bytes() {
    for policy in [SharedMemory::Auto, SharedMemory::Eager] {
        let os = Os::new();
        let listener = UnixListener::bind(os.endpoint()).expect("a free name");
        let server = std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("a client");
            echo(&socket)
        });
        let mut stream = within(Stream::connect_with(os.endpoint(), &connecting(policy)))
            .await
            .expect("a server");
        let sent = talk(&mut stream).await;
        assert!(server.join().expect("no panic") == sent, "other bytes");
    }
}

#[tokio::test]
async fn a_plain_client_receives_nothing_but_the_bytes() {
    for policy in [SharedMemory::Auto, SharedMemory::Eager] {
        let os = Os::new();
        let mut listener =
            Listener::bind_with(os.endpoint(), &listening(policy)).expect("a free name");
        let socket = UnixStream::connect(os.endpoint()).expect("a server");
        let mut stream = within(listener.accept()).await.expect("a client");
        let client = std::thread::spawn(move || echo(&socket));
        let sent = talk(&mut stream).await;
        assert!(client.join().expect("no panic") == sent, "other bytes");
    }
}

#[tokio::test]
async fn a_stream_moves_only_if_both_sides_allow_it() {
    for (here, there) in
        [(SharedMemory::Auto, SharedMemory::Off), (SharedMemory::Off, SharedMemory::Auto)]
    {
        let os = Os::new();
        let mut listener =
            Listener::bind_with(os.endpoint(), &listening(there)).expect("a free name");
        let client = within(Stream::connect_with(os.endpoint(), &connecting(here))).await;
        let (mut client, mut server) =
            (client.expect("a server"), within(listener.accept()).await.expect("a client"));
        for _ in 0..200 {
            within(exchange(&mut client, &mut server, 64)).await;
        }
        assert_eq!(client.transport(), Transport::Socket);
        assert_eq!(server.transport(), Transport::Socket);
    }
}

/// Descriptors of a foreign server are not an offer, so the bytes that come with them are data.
#[tokio::test]
async fn descriptors_of_a_plain_server_leave_its_bytes_unchanged() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    let os = Os::new();
    let listener = UnixListener::bind(os.endpoint()).expect("a free name");
    let options = connecting(SharedMemory::Eager);
    let connect = Stream::connect_with(os.endpoint(), &options);
    let mut client = within(connect).await.expect("a server");
    let (mut socket, _) = listener.accept().expect("a client");
    within(client.write_all(b"hello")).await.expect("a write");
    socket.read_exact(&mut [0; 5]).expect("a read");
    let null = std::fs::File::open("/dev/null").expect("a file");
    for count in [1, 2, 3] {
        let fds = vec![null.as_fd(); count];
        let mut room = [MaybeUninit::uninit(); 256];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        // Two bytes, because a single one could be the mark's byte by chance.
        let sent = sendmsg(&socket, &[IoSlice::new(b"ab")], &mut control, SendFlags::empty());
        assert_eq!(sent.expect("a write"), 2);
    }
    socket.write_all(b"end").expect("a write");
    drop(socket);
    let got = within(read_all(&mut client)).await;
    assert_eq!(got.len(), 9, "{got:?}");
}
