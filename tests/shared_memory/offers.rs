//! A server that makes invalid offers. Its own stream may suffer; the client's process may not.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, ftruncate, memfd_create};
use rustix::io::Errno;

use super::by_hand::*;
use super::*;

/// Returns a client that takes offers, and the socket of a server that may make some.
pub(crate) async fn client_and_socket() -> (Stream, UnixStream) {
    let os = Os::new();
    let listener = UnixListener::bind(os.endpoint()).expect("a free name");
    let options = connecting(SharedMemory::Eager);
    let client = within(Stream::connect_with(os.endpoint(), &options)).await.expect("a server");
    (client, listener.accept().expect("a client").0)
}

pub(crate) fn bell() -> (UnixStream, UnixStream) {
    let pair = UnixStream::pair().expect("a pair");
    pair.0.set_nonblocking(true).expect("a flag");
    pair
}

/// A stream that took an offer, and the other side's parts.
pub(crate) struct Taken {
    pub(crate) client: Stream,
    pub(crate) socket: UnixStream,
    pub(crate) bell: UnixStream,
    pub(crate) file: OwnedFd,
    pub(crate) memory: Mapped,
}

pub(crate) async fn taken() -> Taken {
    let (mut client, mut socket) = client_and_socket().await;
    let byte = mark_of_peer(&socket).expect("a mark");
    let file = memory(SIZE, SEALS);
    let memory = Mapped::new(&file).expect("a mapping");
    let (here, there) = bell();
    assert!(send_with(&socket, &[byte], &[file.as_fd(), there.as_fd()]));
    socket.write_all(b"x").expect("a write");
    assert_eq!(within(client.read_u8()).await.expect("a byte"), b'x');
    assert_eq!(memory.get(STATE), ACCEPTED);
    assert_eq!(memory.get(ON_RING - CLIENT), 1, "the client's direction has switched");
    Taken { client, socket, bell: here, file, memory }
}

pub(crate) type Fds = (OwnedFd, OwnedFd);

/// Returns descriptors that do not look like an offer, so the byte with them is data.
fn other_descriptors() -> Vec<(&'static str, Fds)> {
    let socket = || OwnedFd::from(bell().1);
    let file = |path: &str| OwnedFd::from(std::fs::File::open(path).expect(path));
    let on_disk = tempfile::tempfile().expect("a file");
    on_disk.set_len(SIZE as u64).expect("a size");
    let huge = memfd_create("huge", MemfdFlags::HUGETLB | MemfdFlags::ALLOW_SEALING);
    let huge = huge.and_then(|huge| ftruncate(&huge, 2 << 20).map(|()| huge));
    let mut all = vec![
        ("a device", (file("/dev/null"), socket())),
        ("a directory", (file("/"), socket())),
        ("a file on a disk", (on_disk.into(), socket())),
        ("too short", (memory(SIZE - RINGS, SEALS), socket())),
        ("empty", (memory(0, SEALS), socket())),
        ("too long", (memory(SIZE + RINGS, SEALS), socket())),
        ("not sealed", (memory(SIZE, SealFlags::empty()), socket())),
        ("may shrink", (memory(SIZE, SealFlags::GROW), socket())),
        ("may grow", (memory(SIZE, SealFlags::SHRINK), socket())),
        ("two sockets", (socket(), socket())),
        ("in the other order", (socket(), memory(SIZE, SEALS))),
        ("two memories", (memory(SIZE, SEALS), memory(SIZE, SEALS))),
        ("a pipe for a bell", (memory(SIZE, SEALS), rustix::pipe::pipe().expect("a pipe").0)),
        (
            "datagrams for a bell",
            (memory(SIZE, SEALS), UnixDatagram::unbound().expect("a socket").into()),
        ),
        (
            "the internet for a bell",
            (
                memory(SIZE, SEALS),
                std::net::TcpListener::bind("127.0.0.1:0").expect("a port").into(),
            ),
        ),
    ];
    if let Ok(huge) = huge {
        all.push(("huge pages", (huge, socket())));
    }
    all
}

/// Returns descriptors that look like an offer and cannot be taken.
fn bad_offers() -> Vec<(&'static str, OwnedFd)> {
    let with = |at: usize, word: u64| {
        let file = memory(SIZE, SealFlags::empty());
        rustix::io::pwrite(&file, &word.to_ne_bytes(), at as u64).expect("a write");
        rustix::fs::fcntl_add_seals(&file, SEALS).expect("seals");
        file
    };
    vec![
        ("another magic", with(MAGIC, 7)),
        ("another version", with(VERSION, 2)),
        ("longer rings", with(LENGTH, RING * 2)),
        ("no rings", with(LENGTH, 0)),
        ("withdrawn", with(STATE, WITHDRAWN)),
        ("accepted by nobody", with(STATE, ACCEPTED)),
        ("a state that there is not", with(STATE, u64::MAX)),
        ("read only", memory(SIZE, SEALS | SealFlags::FUTURE_WRITE)),
        ("no more seals", memory(SIZE, SEALS | SealFlags::SEAL)),
    ]
}

/// Sends `fds` in the middle of data, and returns which data the client read.
pub(crate) async fn between_data(
    client: &mut Stream,
    socket: &mut UnixStream,
    fds: &Fds,
) -> Vec<u8> {
    let byte = mark_of_peer(socket).expect("a mark");
    socket.write_all(b"before").expect("a write");
    assert!(send_with(socket, &[byte], &[fds.0.as_fd(), fds.1.as_fd()]));
    socket.write_all(b"after").expect("a write");
    let mut got = Vec::new();
    while !got.ends_with(b"after") {
        got.push(within(client.read_u8()).await.expect("a byte"));
    }
    assert_eq!(client.transport(), Transport::Socket);
    within(client.write_all(b"still a socket")).await.expect("a write");
    let mut heard = [0; 14];
    socket.read_exact(&mut heard).expect("a read");
    assert_eq!(&heard, b"still a socket");
    got
}

#[tokio::test]
async fn descriptors_that_are_no_offer_take_no_byte_away() {
    for (what, fds) in other_descriptors() {
        let (mut client, mut socket) = client_and_socket().await;
        let byte = mark_of_peer(&socket).expect("a mark");
        let got = between_data(&mut client, &mut socket, &fds).await;
        assert_eq!(got, [&b"before"[..], &[byte], b"after"].concat(), "{what}");
    }
}

#[tokio::test]
async fn an_offer_that_cannot_be_taken_leaves_the_stream_on_its_socket() {
    for (what, file) in bad_offers() {
        let (mut client, mut socket) = client_and_socket().await;
        let (mut here, there) = bell();
        let fds = (file, there.into());
        let got = between_data(&mut client, &mut socket, &fds).await;
        assert_eq!(got, b"beforeafter", "{what}");
        // The client has closed the descriptors.
        drop(fds);
        here.set_nonblocking(false).expect("a flag");
        assert_eq!(here.read(&mut [0]).expect("an end"), 0, "{what}");
    }
}

#[tokio::test]
async fn the_first_of_many_offers_is_taken() {
    let Taken { mut client, mut socket, memory: first, .. } = taken().await;
    let byte = mark_of_peer(&socket).expect("a mark");
    for _ in 0..100 {
        let file = memory(SIZE, SEALS);
        let (mut here, there) = bell();
        assert!(send_with(&socket, &[byte], &[file.as_fd(), there.as_fd()]));
        drop(there);
        socket.write_all(b"y").expect("a write");
        assert_eq!(within(client.read_u8()).await.expect("a byte"), b'y');
        assert_eq!(Mapped::new(&file).expect("a mapping").get(STATE), OFFERED);
        here.set_nonblocking(false).expect("a flag");
        assert_eq!(here.read(&mut [0]).expect("an end"), 0, "the client holds the bell");
    }
    // The first offer was taken, and its stream goes on.
    first.set(SOCKET_BYTES, 101);
    first.set(ON_RING, 1);
    first.set(TAIL, 3);
    socket.write_all(&[0]).expect("a bell");
    within(client.read_exact(&mut [0; 3])).await.expect("what is in the ring");
    assert_eq!(client.transport(), Transport::SharedMemory);
}

/// An access to a missing page would raise SIGBUS.
#[tokio::test]
async fn mapped_memory_can_be_neither_cut_nor_written_by_calls() {
    let Taken { client, file, memory: _memory, .. } = taken().await;
    assert_eq!(ftruncate(&file, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&file, 2 * SIZE as u64), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(&file, punch, 0, SIZE as u64), Err(Errno::PERM));
    assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
    assert_eq!(Mapped::new(&file).err(), Some(Errno::PERM), "a third who maps it");
    drop(client);
}

/// Puts each kind of value into each word of the header, while the client reads, writes and ends.
#[tokio::test]
async fn a_corrupt_header_harms_its_own_stream_only() {
    let values = [0, 1, 3, 10, 11, RING, RING + 1, u64::from(u32::MAX), 1 << 63, u64::MAX];
    for (number, value) in (0..WORDS).flat_map(|at| values.map(|value| (at, value))) {
        let Taken { mut client, socket, bell, memory, .. } = taken().await;
        memory.set(SOCKET_BYTES, 1);
        memory.set(TAIL, 10);
        memory.set(ON_RING, 1);
        if value % 2 == 0 {
            let mut buffer = [0; 4];
            within(client.read(&mut buffer)).await.expect("what is in the ring");
        }
        memory.set(number * 128, value);
        let limit = Duration::from_millis(2);
        let mut outcomes = Vec::new();
        for _ in 0..2 {
            let read = async { client.read(&mut [0; 100]).await };
            outcomes.push(tokio::time::timeout(limit, read).await);
            let write = async { client.write(&[7; 300_000]).await };
            outcomes.push(tokio::time::timeout(limit, write).await);
        }
        for error in outcomes.into_iter().flatten().filter_map(Result::err) {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::InvalidData | ErrorKind::BrokenPipe), "{error}");
        }
        // Whatever the value, the stream ends once the peer is gone.
        let _ = client.shutdown().await;
        drop((socket, bell));
        let end = async {
            let mut buffer = vec![0; 64 * 1024];
            while client.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        };
        within(end).await;
    }
}

/// For each step, the server closes, and the client reads the bytes sent before.
#[tokio::test]
async fn a_server_that_closes_at_any_step_is_an_end_of_file() {
    for step in 0..6 {
        let Taken { mut client, mut socket, bell, memory, .. } = taken().await;
        let expected = match step {
            0 => 0,
            1 => {
                socket.write_all(b"abc").expect("a write");
                3
            }
            2 => {
                memory.set(SOCKET_BYTES, 1);
                memory.set(ON_RING, 1);
                0
            }
            3 => {
                // The server has published three bytes and sent no bell.
                memory.set(SOCKET_BYTES, 1);
                memory.set(TAIL, 3);
                memory.set(ON_RING, 1);
                3
            }
            4 => {
                // The server announces more bytes through the socket than it sends.
                socket.write_all(b"abc").expect("a write");
                memory.set(SOCKET_BYTES, 1000);
                memory.set(TAIL, 3);
                memory.set(ON_RING, 1);
                3
            }
            _ => {
                // Without a switch these bytes are data and not bells.
                socket.write_all(&[0; 5]).expect("bells");
                5
            }
        };
        drop((socket, bell));
        assert_eq!(within(read_all(&mut client)).await.len(), expected, "step {step}");
        let broken = async {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(broken).await;
    }
}
