//! A client that marks its socket, and then breaks the rules of the protocol.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::by_hand::*;
use super::*;

pub(crate) struct Offered {
    pub(crate) server: Stream,
    pub(crate) socket: UnixStream,
    pub(crate) bell: OwnedFd,
    pub(crate) file: OwnedFd,
    pub(crate) memory: Mapped,
}

async fn server_and_socket() -> (Stream, UnixStream) {
    let os = Os::new();
    let mut listener =
        Listener::bind_with(os.endpoint(), &listening(SharedMemory::Eager)).expect("a free name");
    let socket = UnixStream::connect(os.endpoint()).expect("a server");
    (within(listener.accept()).await.expect("a client"), socket)
}

/// Receives the next bytes, with the descriptors that come with them.
fn receive(socket: &UnixStream, buf: &mut [u8]) -> (usize, Vec<OwnedFd>) {
    let mut room = [MaybeUninit::uninit(); 256];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let message = recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::empty());
    let length = message.expect("a message").bytes;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    (length, fds)
}

pub(crate) async fn question_and_answer(
    server: &mut Stream,
    socket: &mut UnixStream,
) -> Vec<OwnedFd> {
    socket.write_all(b"question").expect("a write");
    within(server.read_exact(&mut [0; 8])).await.expect("a read");
    within(server.write_all(b"answer")).await.expect("a write");
    let (mut got, mut all) = (Vec::new(), Vec::new());
    let mut buf = [0; 64];
    while !got.starts_with(b"answer") {
        let (length, fds) = receive(socket, &mut buf);
        // The last byte that comes with descriptors belongs to the offer and not to the data.
        got.extend(&buf[..length - usize::from(!fds.is_empty())]);
        all.extend(fds);
    }
    all
}

pub(crate) async fn offered() -> Offered {
    let (mut server, mut socket) = server_and_socket().await;
    mark(&socket);
    let fds = question_and_answer(&mut server, &mut socket).await;
    let [file, bell] = fds.try_into().expect("two descriptors");
    let memory = Mapped::new(&file).expect("a mapping");
    assert_eq!(memory.get(STATE), OFFERED);
    Offered { server, socket, bell, file, memory }
}

#[tokio::test]
async fn an_invalid_mark_brings_no_offer() {
    for name in [
        "sockpipe-lane-1-",
        "sockpipe-lane-1-00000000000000",
        "sockpipe-lane-1-000000000000000000",
        "sockpipe-lane-1-00000000000000zz",
        "sockpipe-lane-2-00000000000000a5",
        "sockpipe-lane-1",
        "x",
    ] {
        let (mut server, mut socket) = server_and_socket().await;
        // Names belong to the whole system, so another process may have this one for a moment.
        if !mark_as(&socket, name) {
            continue;
        }
        for _ in 0..20 {
            let fds = question_and_answer(&mut server, &mut socket).await;
            assert_eq!(fds.len(), 0, "{name}");
        }
    }
}

#[tokio::test]
async fn an_offer_that_is_not_taken_changes_nothing() {
    let Offered { mut server, mut socket, memory, .. } = offered().await;
    for _ in 0..50 {
        assert_eq!(question_and_answer(&mut server, &mut socket).await.len(), 0, "one offer");
    }
    assert_eq!((server.transport(), memory.get(STATE)), (Transport::Socket, OFFERED));
    within(server.shutdown()).await.expect("an end");
    assert_eq!(memory.get(STATE), WITHDRAWN);
    assert_eq!(socket.read(&mut [0]).expect("an end"), 0);
    socket.write_all(b"rest").expect("a write");
    drop(socket);
    assert_eq!(within(read_all(&mut server)).await, b"rest");
}

/// The server reads the word once, so later values change nothing.
#[tokio::test]
async fn an_accepted_offer_cannot_be_taken_back() {
    for later in [0, OFFERED, WITHDRAWN, u64::MAX] {
        let Offered { mut server, socket, memory, bell, .. } = offered().await;
        memory.set(STATE, ACCEPTED);
        within(server.write_all(b"in the ring")).await.expect("a write");
        assert_eq!(memory.get(SOCKET_BYTES), 6, "the answer");
        assert_eq!((memory.get(ON_RING), memory.get(TAIL)), (1, 11));
        memory.set(STATE, later);
        within(server.write_all(b"as well")).await.expect("a write");
        assert_eq!(memory.get(TAIL), 18);
        // In the client's direction, the question came through the socket, and the rest comes
        // through the ring.
        memory.set(SOCKET_BYTES - CLIENT, 8);
        memory.set(TAIL - CLIENT, 4);
        memory.set(ON_RING - CLIENT, 1);
        within(server.read_exact(&mut [0; 4])).await.expect("what is in the ring");
        memory.set(ON_RING - CLIENT, 0);
        memory.set(SOCKET_BYTES - CLIENT, 1 << 40);
        memory.set(TAIL - CLIENT, 5);
        within(server.read_exact(&mut [0; 1])).await.expect("what is in the ring");
        assert_eq!(server.transport(), Transport::SharedMemory);
        drop((socket, bell));
        assert_eq!(within(read_all(&mut server)).await, b"");
    }
}

#[tokio::test]
async fn an_end_cannot_be_taken_back() {
    let Offered { mut server, socket, memory, bell, .. } = offered().await;
    memory.set(STATE, ACCEPTED);
    within(server.write_all(b"in the ring")).await.expect("a write");
    memory.set(SOCKET_BYTES - CLIENT, 8);
    memory.set(ON_RING - CLIENT, 1);
    memory.set(ENDED - CLIENT, 1);
    assert_eq!(within(server.read(&mut [0])).await.expect("an end"), 0);
    memory.set(ENDED - CLIENT, 0);
    assert_eq!(within(server.read(&mut [0])).await.expect("the same end"), 0);
    drop((socket, bell));
}

/// The client may punch holes until it seals the memory. A missing page reads as zeros.
#[tokio::test]
async fn holes_in_the_memory_end_no_server() {
    let Offered { mut server, socket, memory, file, .. } = offered().await;
    assert_eq!(ftruncate(&file, 0), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    memory.set(STATE, ACCEPTED);
    for round in 0..20_usize {
        fallocate(&file, punch, RINGS as u64, 2 * RING).expect("holes in both rings");
        within(server.write_all(&[7; 1000])).await.expect("a write");
        memory.set(HEAD, 1000 * (round as u64 + 1));
    }
    // To write this, the server has to read the client's position.
    within(server.write(&[7; 300_000])).await.expect("a write");
    fallocate(&file, punch, 0, SIZE as u64).expect("a hole in the header");
    // The client's position went back.
    let written = within(server.write(&[7; 300_000])).await;
    // The position causes the error, and nothing else that hostile peers do.
    assert_says(&assert_kind(written, ErrorKind::InvalidData), &["a position", "not possible"]);
    drop(socket);
}

#[tokio::test]
async fn a_client_that_closes_at_any_step_is_an_end_of_file() {
    for step in 0..5 {
        let Offered { mut server, mut socket, memory, bell, .. } = offered().await;
        let expected = match step {
            0 => 0,
            1 => {
                memory.set(STATE, ACCEPTED);
                0
            }
            2 => {
                // The client accepts, and does not switch its direction.
                memory.set(STATE, ACCEPTED);
                socket.write_all(b"abc").expect("a write");
                3
            }
            3 => {
                memory.set(SOCKET_BYTES - CLIENT, 8 + 3);
                memory.set(TAIL - CLIENT, 3);
                memory.set(ON_RING - CLIENT, 1);
                memory.set(STATE, ACCEPTED);
                socket.write_all(b"abc and bells").expect("a write");
                6
            }
            _ => {
                memory.set(STATE, ACCEPTED);
                drop(bell.try_clone().expect("a descriptor"));
                0
            }
        };
        drop((socket, bell));
        assert_eq!(within(read_all(&mut server)).await.len(), expected, "step {step}");
        let broken = async {
            while server.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(broken).await;
    }
}
