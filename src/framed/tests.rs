use std::pin::pin;
use std::task::Waker;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, duplex};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::*;

/// A writer that counts the writes, and takes at most `most` bytes in each.
struct Counting {
    writes: usize,
    bytes: Vec<u8>,
    most: usize,
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = buf.len().min(self.most);
        self.writes += 1;
        self.bytes.extend_from_slice(&buf[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn counting(most: usize) -> FrameSink<Counting> {
    FrameSink::new(Counting { writes: 0, bytes: Vec::new(), most })
}

#[tokio::test]
async fn fed_messages_are_batched_and_a_sent_one_is_written_at_once() {
    let mut sink = counting(usize::MAX);
    for _ in 0..10_000 {
        sink.feed([7; 64]).await.expect("a message");
    }
    sink.flush().await.expect("a flush");
    assert_eq!(sink.get_ref().bytes.len(), 10_000 * 68);
    assert_eq!(sink.get_ref().writes, 11, "one for each 64 KiB, and the rest");
    assert_eq!(sink.buffer.capacity(), 0, "a flushed sink holds no buffer");
    sink.send("alone").await.expect("a message");
    assert_eq!((sink.get_ref().writes, sink.buffer.capacity()), (12, 0));
    assert!(sink.get_ref().bytes.ends_with(b"\0\0\0\x05alone"));
}

#[tokio::test]
async fn forward_flushes_when_its_source_is_empty() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    let messages =
        stream::unfold(receiver, async |mut receiver| Some((Ok(receiver.recv().await?), receiver)));
    let (one, mut other) = duplex(1 << 20);
    let forwarding = tokio::spawn(Box::pin(messages).forward(FrameSink::new(one)));
    let mut bytes = [0; 9];
    sender.send("alone".to_owned()).expect("a receiver");
    other.read_exact(&mut bytes).await.expect("it did not wait for more");
    assert_eq!(&bytes, b"\0\0\0\x05alone");
    drop(sender);
    forwarding.await.expect("no panic").expect("an end");
    assert_eq!(other.read(&mut bytes).await.expect("an end"), 0);
}

#[tokio::test]
async fn tokio_utils_codec_reads_the_frames() {
    let (one, other) = duplex(100);
    let lengths = [0, 1, 64, 70_000, 5, 200_000];
    let send = async {
        let mut sink = FrameSink::new(one);
        for length in lengths {
            sink.feed(vec![length as u8; length]).await.expect("a message");
        }
        SinkExt::<&[u8]>::close(&mut sink).await.expect("an end");
    };

    let receive = async {
        let frames = FramedRead::new(other, LengthDelimitedCodec::new());
        let frames: Vec<_> = frames.map(|frame| frame.expect("a frame")).collect().await;
        assert_eq!(frames.iter().map(|frame| frame.len()).collect::<Vec<_>>(), lengths);
        assert!(frames.iter().all(|frame| frame.iter().all(|byte| *byte == frame.len() as u8)));
    };

    tokio::join!(send, receive);
}

#[tokio::test]
async fn short_writes_and_dropped_futures_lose_nothing() {
    let mut sink = counting(7);
    for _ in 0..2000 {
        sink.feed([7; 64]).await.expect("a message");
    }
    sink.flush().await.expect("a flush");
    assert_eq!(sink.get_ref().bytes, [&[0, 0, 0, 64][..], &[7; 64]].concat().repeat(2000));

    // The peer reads nothing, so the flush is dropped half-way. A later flush resumes it.
    let (one, mut other) = duplex(10);
    let mut sink = FrameSink::new(one);
    sink.feed("a message").await.expect("room");
    let mut cx = Context::from_waker(Waker::noop());
    let flush = Sink::<&str>::poll_flush(Pin::new(&mut sink), &mut cx);
    assert!(flush.is_pending());
    sink.feed("another").await.expect("room");
    let mut bytes = vec![0; 24];
    let (flushed, read) = tokio::join!(sink.flush(), other.read_exact(&mut bytes));
    flushed.expect("a flush");
    read.expect("a read");
    assert_eq!(bytes, b"\0\0\0\x09a message\0\0\0\x07another");

    // The same with a message that does not fit, which is then not queued.
    let large = vec![5; BOUNDARY - PREFIX];
    sink.feed(&large).await.expect("room");
    {
        let mut feed = pin!(sink.feed("dropped"));
        assert!(feed.as_mut().poll(&mut cx).is_pending());
    }
    let mut bytes = vec![0; BOUNDARY + 8];
    let more = async {
        sink.feed("last").await.expect("room");
        sink.flush().await.expect("a flush");
    };
    let both = async { tokio::join!(more, other.read_exact(&mut bytes)) };
    let ((), read) = timeout(Duration::from_secs(60), both).await.expect("all of it, in time");
    read.expect("a read");
    assert_eq!(bytes[PREFIX..BOUNDARY], large);
    assert_eq!(&bytes[BOUNDARY..], b"\0\0\0\x04last");
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused() {
    let mut sink = counting(usize::MAX);
    let error = sink.feed(vec![0; LIMIT + 1]).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    sink.feed(vec![0; LIMIT]).await.expect("the longest");
}
