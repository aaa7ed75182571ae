//! Tests when a reader watches, and when it lets messages accumulate, by the stream's counters.

use std::future::poll_fn;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::task::Waker;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::time::timeout;

use super::*;
use crate::shared_memory::options::SharedMemory;
use crate::unix::runtime::register_for;
use crate::unix::spin::tasks::Thread;

const PATIENCE: Duration = Duration::from_secs(60);
/// The number of consecutive reads after which a reader begins to wait.
const STREAM: usize = 16;
const MESSAGE: [u8; 64] = [7; 64];

struct End {
    socket: AsyncFd<OwnedFd>,
    lane: Lane,
    filled: Filled,
    spin: Box<Spin>,
}

impl End {
    fn new(socket: UnixStream, role: Role) -> Self {
        socket.set_nonblocking(true).expect("a flag");
        let socket = register_for(socket.into(), platform::STREAM_INTEREST).expect("a reactor");
        let options =
            StreamOptions { shared_memory: SharedMemory::Eager, ..StreamOptions::default() };
        let user = rustix::process::geteuid().as_raw();
        let lane = Lane::new(role, &socket, user, options).expect("a lane");
        let spin = Spin::new(SpinPolicy::Auto).expect("one that spins");
        Self { socket, lane, filled: Filled::default(), spin }
    }

    fn poll_read(&self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<usize> {
        let mut buf = ReadBuf::new(bytes);
        let read = self.lane.poll_read(&self.socket, &self.filled, Some(&self.spin), cx, &mut buf);
        read.map(|read| {
            read.expect("a read");
            buf.filled().len()
        })
    }

    async fn read(&self, bytes: &mut [u8]) {
        let length = poll_fn(|cx| self.poll_read(cx, bytes)).await;
        assert_eq!(length, bytes.len());
    }

    /// Reads without waiting.
    fn try_read(&self, length: usize) -> Poll<usize> {
        self.poll_read(&mut Context::from_waker(Waker::noop()), &mut vec![0; length])
    }

    async fn write(&self, bytes: &[u8]) {
        let bufs = [IoSlice::new(bytes)];
        let write =
            |cx: &mut Context<'_>| self.lane.poll_write(&self.socket, Some(&self.spin), cx, &bufs);
        assert_eq!(poll_fn(write).await.expect("a write"), bytes.len());
    }

    fn waits(&self) -> bool {
        self.lane.bell().expect("a stream in memory").pace.pause()
    }
}

/// Returns two ends in memory. The first has read `count` messages one after the other.
async fn after_reads(count: usize) -> (End, End) {
    let (taker, maker) = UnixStream::pair().expect("a pair");
    let (taker, maker) = (End::new(taker, Role::Taker), End::new(maker, Role::Maker));
    for _ in 0..1000 {
        if taker.lane.is_upgraded() && maker.lane.is_upgraded() {
            break;
        }
        maker.write(b"?").await;
        taker.read(&mut [0]).await;
        taker.write(b"!").await;
        maker.read(&mut [0]).await;
    }

    assert!(taker.lane.is_upgraded() && maker.lane.is_upgraded(), "still on the socket");
    Thread::start();
    taker.write(b"x").await;
    read_at_once(&taker, &maker, count).await;
    (taker, maker)
}

async fn read_at_once(to: &End, from: &End, count: usize) {
    for _ in 0..count {
        from.write(&MESSAGE).await;
    }
    for _ in 0..count {
        assert_eq!(to.try_read(MESSAGE.len()), Poll::Ready(MESSAGE.len()));
    }
}

#[tokio::test]
async fn a_reader_waits_after_many_messages_until_it_writes() {
    let (one, other) = after_reads(STREAM - 1).await;
    assert!(!one.waits());
    read_at_once(&one, &other, 1).await;
    assert!(one.waits());
    one.write(&MESSAGE).await;
    assert!(!one.waits(), "it answers");
}

#[tokio::test]
async fn a_reader_that_finds_nothing_starts_to_count_again() {
    let (one, other) = after_reads(STREAM - 1).await;
    assert_eq!(one.try_read(1), Poll::Pending);
    assert!(one.spin.watches.load(Relaxed));
    read_at_once(&one, &other, 1).await;
    assert!(!one.waits(), "it watched");

    let (one, other) = after_reads(STREAM - 1).await;
    Thread::set_credit(-1, 16, 16);
    assert_eq!(one.try_read(1), Poll::Pending);
    assert!(!one.spin.watches.load(Relaxed));
    read_at_once(&one, &other, 1).await;
    assert!(!one.waits(), "it slept");
}

#[tokio::test]
async fn a_reader_does_not_wait_after_a_long_message() {
    let (one, other) = after_reads(STREAM).await;
    other.write(&[7; 8192]).await;
    assert_eq!(one.try_read(8192), Poll::Ready(8192));
    assert!(!one.waits());
}

/// Returns an end whose peer has no shared memory, and the peer's socket.
fn on_its_socket() -> (End, UnixStream) {
    let (peer, socket) = UnixStream::pair().expect("a pair");
    Thread::start();
    (End::new(socket, Role::Maker), peer)
}

#[tokio::test]
async fn a_stream_that_stays_on_its_socket_watches_it() {
    let (end, mut peer) = on_its_socket();
    for _ in 0..3 {
        end.write(&MESSAGE).await;
        assert_eq!(end.try_read(MESSAGE.len()), Poll::Pending);
        assert!(end.spin.watches.load(Relaxed));
        peer.write_all(&MESSAGE).expect("room");
        // The reactor has not run since.
        assert_eq!(end.try_read(MESSAGE.len()), Poll::Ready(MESSAGE.len()));
    }
}

#[tokio::test]
async fn a_stream_on_its_socket_reads_behind_descriptors_after_messages_of_a_known_length() {
    let (end, mut peer) = on_its_socket();
    Thread::set_credit(-1, u16::MAX, u16::MAX);
    for _ in 0..20 {
        peer.write_all(&MESSAGE).expect("room");
        end.read(&mut [0; MESSAGE.len()]).await;
    }
    assert_eq!(end.try_read(1), Poll::Pending);

    let null = std::fs::File::open("/dev/null").expect("a device");
    let fds = [null.as_fd()];
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(&peer, &[IoSlice::new(b"ab")], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(2));
    peer.write_all(b"end").expect("room");
    for length in [2, 3] {
        let read = poll_fn(|cx| end.poll_read(cx, &mut [0; 8]));
        assert_eq!(timeout(PATIENCE, read).await, Ok(length));
    }
}
