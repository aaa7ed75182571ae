//! These tests check who may watch, and do not depend on timing: a watch that must not expire lasts
//! an hour.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use rustix::io::write;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::*;
use crate::unix::stream::Stream;

const HOUR: Duration = Duration::from_secs(3600);

impl Thread {
    /// Resets the thread's state, because tests may share a thread.
    pub(in crate::unix) fn start() {
        THREAD.with(|thread| {
            for number in [&thread.reads, &thread.streams, &thread.streams_before] {
                number.set(0);
            }
            thread.owner.set(0);
        });
        Self::set_credit(0, 0, Credit::FIRST);
    }

    pub(in crate::unix) fn set_credit(score: i8, skip: u16, interval: u16) {
        THREAD.with(|thread| thread.credit.set(Credit { score, skip, interval }));
    }

    fn credit() -> Credit {
        THREAD.with(|thread| thread.credit.get())
    }

    pub(in crate::unix) fn score() -> i8 {
        Self::credit().score
    }

    fn owner() -> u64 {
        THREAD.with(|thread| thread.owner.get())
    }

    /// Sets the remaining time of the stream that watches.
    fn give(time: Duration) {
        THREAD.with(|thread| {
            thread.until.set(Some(Instant::now() + time));
            thread.owned_until.set(Some(Instant::now() + time));
        });
    }
}

fn spin(only_after_write: bool) -> Spin {
    let spin = Spin::new(SpinPolicy::Auto).expect("one that spins");
    Spin { only_after_write, ..*spin }
}

/// Polls a read. `directly` specifies whether the direct receive finds data, and `reactor` whether
/// the read through the reactor does.
fn poll(spin: &Spin, directly: bool, reactor: bool) -> Poll<()> {
    let found = |something| if something { Poll::Ready(()) } else { Poll::Pending };
    let mut cx = Context::from_waker(Waker::noop());
    spin.poll(&mut cx, &mut (), |()| found(directly), |_, ()| found(reactor))
}

fn watches(spin: &Spin) -> bool {
    spin.watches.load(Relaxed) && Thread::owner() == spin.id
}

#[test]
fn the_policy_off_creates_no_spin() {
    assert!(Spin::new(SpinPolicy::Off).is_none());
}

#[test]
fn an_answer_in_time_is_a_hit() {
    Thread::start();
    let spin = spin(false);
    assert_eq!(poll(&spin, true, false), Poll::Pending, "received before it watches");
    assert!(watches(&spin));
    Thread::give(HOUR);
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    assert!(watches(&spin));
    assert_eq!(poll(&spin, true, false), Poll::Ready(()));
    assert_eq!((Thread::score(), Thread::owner()), (1, 0));
    // Data that the reactor reports is a hit as well.
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    Thread::give(HOUR);
    assert_eq!(poll(&spin, false, true), Poll::Ready(()));
    assert_eq!((Thread::score(), Thread::owner()), (2, 0));
}

/// The number of tries does not depend on the remaining time, because other tasks wait.
#[test]
fn a_turn_ends_after_a_few_tries() {
    Thread::start();
    let spin = spin(false);
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    for _ in 0..3 {
        Thread::give(HOUR);
        let tries = Cell::new(0);
        let receive = |_: &mut ()| {
            tries.set(tries.get() + 1);
            Poll::Pending::<()>
        };
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(spin.poll(&mut cx, &mut (), receive, |_, ()| Poll::Pending), Poll::Pending);
        assert_eq!(tries.get(), 4);
    }
}

#[test]
fn a_miss_ends_the_watch() {
    Thread::start();
    let spin = spin(false);
    Thread::set_credit(0, 0, 64);
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    Thread::give(Duration::ZERO);
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    assert!(!watches(&spin));
    assert_eq!(Thread::credit(), Credit { score: -1, skip: 64, interval: 128 });
    assert_eq!(poll(&spin, true, false), Poll::Pending, "received although it does not watch");
    assert!(!watches(&spin));
    assert_eq!(Thread::credit().skip, 63);
}

#[test]
fn one_stream_of_a_thread_watches_at_a_time() {
    Thread::start();
    let (one, other) = (spin(false), spin(false));
    assert_eq!(poll(&one, false, false), Poll::Pending);
    Thread::give(HOUR);
    assert_eq!(poll(&other, false, false), Poll::Pending);
    assert!(watches(&one) && !watches(&other));
    // Data for the other stream is a hit too, because watching kept the thread awake for it.
    assert_eq!(poll(&other, false, true), Poll::Ready(()));
    assert_eq!(Thread::score(), 0);
    Thread::give(Duration::ZERO);
    assert_eq!(poll(&one, false, false), Poll::Pending);
    assert!(watches(&one));
    assert_eq!(Thread::score(), 1);
    // Once the time of a stream has expired, another stream may watch, even if the first is never
    // polled again.
    Thread::give(Duration::ZERO);
    assert_eq!(poll(&other, false, false), Poll::Pending);
    assert!(watches(&other));
}

#[test]
fn a_stream_from_another_thread_starts_over() {
    Thread::start();
    let spin = spin(false);
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(poll(&spin, true, false), Poll::Pending);
            assert!(!watches(&spin), "the other thread does not know this stream yet");
            assert_eq!(poll(&spin, false, false), Poll::Pending);
            assert!(watches(&spin));
        });
    });
}

#[test]
fn many_busy_streams_stop_watching() {
    Thread::start();
    let streams: Vec<_> = (0..5).map(|_| spin(false)).collect();
    for stream in &streams[..4] {
        assert_eq!(poll(stream, false, true), Poll::Ready(()));
    }
    assert_eq!(poll(&streams[0], false, false), Poll::Pending);
    assert!(watches(&streams[0]));
    assert_eq!(poll(&streams[0], true, false), Poll::Ready(()));
    assert_eq!(poll(&streams[4], false, true), Poll::Ready(()));
    assert_eq!(poll(&streams[0], false, false), Poll::Pending);
    assert!(!watches(&streams[0]), "the fifth busy stream ends it");
    // The stream may watch again once the others have been silent for two windows.
    for _ in 0..2 * (WINDOW + 1) {
        assert_eq!(poll(&streams[0], false, true), Poll::Ready(()));
    }
    assert_eq!(poll(&streams[0], false, false), Poll::Pending);
    assert!(watches(&streams[0]));
}

#[test]
fn many_streams_that_become_busy_end_the_watch() {
    Thread::start();
    let streams: Vec<_> = (0..6).map(|_| spin(false)).collect();
    assert_eq!(poll(&streams[0], false, false), Poll::Pending);
    assert!(watches(&streams[0]));
    for stream in &streams[1..] {
        assert_eq!(poll(stream, false, true), Poll::Ready(()));
    }
    assert_eq!(poll(&streams[0], false, false), Poll::Pending);
    assert!(!watches(&streams[0]), "still watches although many streams are busy");
}

#[test]
fn on_many_threads_a_stream_watches_only_after_its_write() {
    Thread::start();
    let spin = spin(true);
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    assert!(!watches(&spin));
    spin.wrote();
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    assert!(watches(&spin));
    assert_eq!(poll(&spin, true, false), Poll::Ready(()));
    assert_eq!(poll(&spin, false, false), Poll::Pending);
    assert!(!watches(&spin));
}

#[test]
fn only_a_multi_thread_runtime_watches_only_after_a_write() {
    let only_after_write =
        async || Spin::new(SpinPolicy::Auto).expect("one that spins").only_after_write;
    let one = Builder::new_current_thread().build().expect("a runtime");
    assert!(!one.block_on(only_after_write()));
    let many = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    assert!(many.block_on(only_after_write()));
}

/// Returns a stream that watches, and its peer.
async fn watching() -> (Stream, UnixStream) {
    let (one, peer) = UnixStream::pair().expect("a pair");
    let socket = one.into_std().expect("a socket").into();
    let options = crate::options::StreamOptions { spin: SpinPolicy::Auto, ..Default::default() };
    let stream = Stream::from_socket(socket, options).expect("a stream");
    Thread::start();
    poll_fn(|cx| {
        let mut byte = [0];
        assert!(stream.poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(watches(stream.spin.as_ref().expect("one that spins")));
    Thread::give(HOUR);
    (stream, peer)
}

/// Returns the result of a direct receive. The reactor has not been polled, so it reports nothing.
fn receive(stream: &Stream, buf: &mut ReadBuf<'_>) -> Poll<Result<(), ErrorKind>> {
    let mut cx = Context::from_waker(Waker::noop());
    let received = stream.poll_read(&mut cx, buf).map_err(|error| error.kind());
    assert!(received.is_pending() || Thread::score() == 1, "not received directly");
    received
}

#[tokio::test]
async fn poll_read_returns_bytes_and_an_end_also_after_a_reset() {
    let (stream, peer) = watching().await;
    assert_eq!(write(&peer, b"answer").expect("a write"), 6);
    let mut bytes = [0; 16];
    let mut buf = ReadBuf::new(&mut bytes);
    buf.put_slice(b"the ");
    assert_eq!(receive(&stream, &mut buf), Poll::Ready(Ok(())));
    assert_eq!(buf.filled(), b"the answer");

    let (stream, peer) = watching().await;
    drop(peer);
    assert_eq!(receive(&stream, &mut ReadBuf::new(&mut [0; 16])), Poll::Ready(Ok(())));

    // The peer closes with unread data, which Linux reports to this side as ECONNRESET.
    let (stream, peer) = watching().await;
    write(&stream, b"unread").expect("a write");
    drop(peer);
    let mut bytes = [0; 16];
    let mut buf = ReadBuf::new(&mut bytes);
    assert_eq!(receive(&stream, &mut buf), Poll::Ready(Ok(())));
    assert_eq!(buf.filled(), b"");
}

#[tokio::test]
async fn a_large_buffer_is_not_initialized_for_a_small_answer() {
    let (stream, peer) = watching().await;
    assert_eq!(write(&peer, &[7; 10_000]).expect("a write"), 10_000);
    let mut bytes = vec![std::mem::MaybeUninit::uninit(); 1 << 20];
    let mut buf = ReadBuf::uninit(&mut bytes);
    assert_eq!(receive(&stream, &mut buf), Poll::Ready(Ok(())));
    assert_eq!((buf.filled().len(), buf.initialized().len()), (4096, 4096));
    assert!(buf.filled().iter().all(|byte| *byte == 7));
}

/// While a stream watches, tasks, timers and other connections of the same thread make progress.
#[tokio::test]
async fn other_work_has_its_turn_while_a_stream_watches() {
    let (stream, mut peer) = watching().await;
    let order = Rc::new(RefCell::new(Vec::new()));
    let record = |what: &'static str| order.borrow_mut().push(what);
    let (mut one, mut other) = UnixStream::pair().expect("a pair");

    LocalSet::new()
        .run_until(async {
            let read = async {
                let mut byte = [0];
                poll_fn(|cx| {
                    Thread::give(HOUR);
                    stream.poll_read(cx, &mut ReadBuf::new(&mut byte))
                })
                .await
                .expect("a read");
                record("answer");
            };
            // Another task, a timer and another connection run before the answer is sent.
            let rest = async {
                yield_now().await;
                record("task");
                tokio::time::sleep(Duration::from_millis(5)).await;
                record("timer");
                one.write_u8(1).await.expect("a write");
                record("connection");
                peer.write_u8(1).await.expect("a write");
            };

            let echo = async {
                other.read_u8().await.expect("a read");
            };
            tokio::join!(Box::pin(read) as Pin<Box<dyn Future<Output = ()>>>, rest, echo);
        })
        .await;
    assert_eq!(*order.borrow(), ["task", "timer", "connection", "answer"]);
}
