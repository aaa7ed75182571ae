//! Drops futures at each point where they can be dropped.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use sockpipe::os::unix::ListenOptionsExt;
use sockpipe::{ListenOptions, Listener, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::open_descriptors;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((self.0 >> 33) as u32) % limit
    }
}

/// Polls `future` once and up to `polls` times more, and then drops it. Returns `None` if it has
/// not completed.
async fn cut<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..=polls {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Runs `count` futures of each kind, and drops most of them before their end. Prints how many it
/// dropped, how many connections and bytes arrived, and what was lost, which has to be nothing.
pub(crate) async fn run(path: &str, count: u32) {
    let mut random = Random(count.into());
    let before = open_descriptors();
    let (connects, accepts, connected, lost) = connections(path, count, &mut random).await;
    let (reads, writes, bytes, wrong) = bytes(count, &mut random).await;
    // The dropped sockets are closed by now. The runtime keeps its own.
    let leaked = open_descriptors().abs_diff(before);
    println!("dropped {connects} connects {accepts} accepts {reads} reads {writes} writes");
    println!("connected {connected} lost {lost} bytes {bytes} wrong {wrong} leaked {leaked}");
}

/// Each connection carries its number. Each connection that was made has to arrive once.
async fn connections(path: &str, count: u32, random: &mut Random) -> (u32, u32, usize, usize) {
    // The queue has room for two, so most connects have to wait.
    let options = ListenOptions::new().backlog(1);
    let mut listener = Listener::bind_with(path, &options).expect("a free name");
    let (mut connects, mut accepts) = (0, 0);
    let (mut made, mut arrived) = (BTreeSet::new(), BTreeSet::new());
    let mut twice = 0;
    for number in 0..count {
        match cut(random.below(4), Stream::connect(path)).await {
            Some(stream) => {
                let mut stream = stream.expect("a connection");
                stream.write_all(&number.to_be_bytes()).await.expect("a write");
                made.insert(number);
            }
            None => connects += 1,
        }
        // The listener accepts fewer than connect, so many have to wait.
        if random.below(5) < 2 {
            match cut(random.below(2), listener.accept()).await {
                Some(stream) => {
                    let mut stream = stream.expect("a connection");
                    let number = stream.read_u32().await.expect("its number");
                    twice += u32::from(!arrived.insert(number));
                }
                None => accepts += 1,
            }
        }
        // Sometimes it accepts all that are pending.
        if random.below(8) == 0 {
            while let Some(stream) = cut(2, listener.accept()).await {
                let number = stream.expect("a connection").read_u32().await.expect("its number");
                twice += u32::from(!arrived.insert(number));
            }
            let idle = cut(random.below(3), listener.accept()).await;
            assert!(idle.is_none(), "nobody connected");
            accepts += 1;
        }
    }
    while let Some(stream) = cut(3, listener.accept()).await {
        let number = stream.expect("a connection").read_u32().await.expect("its number");
        twice += u32::from(!arrived.insert(number));
    }
    assert_eq!(twice, 0, "a connection came twice");
    (connects, accepts, made.len(), made.symmetric_difference(&arrived).count())
}

/// A dropped write must have written nothing, and a dropped read must have read nothing.
async fn bytes(count: u32, random: &mut Random) -> (u32, u32, usize, usize) {
    let (mut one, mut other) = Stream::pair().expect("a pair");
    let (mut reads, mut writes) = (0, 0);
    let (mut sent, mut received, mut wrong) = (0_usize, 0_usize, 0_usize);
    let value = |at: usize| (at % 251) as u8;
    let mut buffer = vec![0; 70_000];
    for _ in 0..count {
        let length = 1 + random.below(60_000) as usize;
        let chunk: Vec<u8> = (sent..sent + length).map(value).collect();
        match cut(random.below(3), one.write(&chunk)).await {
            Some(written) => sent += written.expect("a write"),
            None => writes += 1,
        }
        // For a while less is read than written, so writes have to wait.
        for _ in 0..random.below(3) {
            let room = 1 + random.below(70_000) as usize;
            match cut(random.below(3), other.read(&mut buffer[..room])).await {
                Some(length) => {
                    let length = length.expect("a read");
                    let right = |(at, byte): (usize, &u8)| *byte == value(received + at);
                    wrong += usize::from(!buffer[..length].iter().enumerate().all(right));
                    received += length;
                }
                None => reads += 1,
            }
        }
    }
    one.shutdown().await.expect("a half-close");
    let mut rest = Vec::new();
    other.read_to_end(&mut rest).await.expect("an end");
    wrong += usize::from(!rest.iter().enumerate().all(|(at, byte)| *byte == value(received + at)));
    wrong += (received + rest.len()).abs_diff(sent);
    (reads, writes, sent, wrong)
}
