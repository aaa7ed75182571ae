//! Measures the rates of messages that docs/performance.md compares.
//!
//! ```text
//! cargo test --release --features framed,blocking --test framing -- --ignored --nocapture
//! ```
#![cfg(all(feature = "framed", feature = "blocking"))]

use std::future::Future;
use std::io::{BufReader, BufWriter, Read, Result, Write};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use sockpipe::{FrameSink, Stream, blocking};
use tokio::io::AsyncReadExt;
use tokio_util::bytes::Bytes;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

const MESSAGES: usize = if cfg!(debug_assertions) { 20_000 } else { 4_000_000 };
const MESSAGE: [u8; 64] = [7; 64];
const PREFIX: usize = 4;
const BUFFER: usize = 64 * 1024;

async fn frame_sink(stream: Stream) -> Result<()> {
    let mut sink = FrameSink::new(stream);
    for _ in 0..MESSAGES {
        sink.feed(&MESSAGE).await?;
    }
    sink.flush().await
}

async fn framed_write(stream: Stream) -> Result<()> {
    let mut sink = FramedWrite::new(stream, LengthDelimitedCodec::new());
    sink.set_backpressure_boundary(BUFFER);
    let message = Bytes::from_static(&MESSAGE);
    for _ in 0..MESSAGES {
        sink.feed(message.clone()).await?;
    }
    SinkExt::<Bytes>::flush(&mut sink).await
}

/// Reads bytes without parsing frames, so that the writer decides the rate.
async fn bytes(mut stream: Stream) -> usize {
    let (mut buffer, mut all) = (vec![0; BUFFER], 0);
    loop {
        match stream.read(&mut buffer).await.expect("a read") {
            0 => return all / (PREFIX + MESSAGE.len()),
            length => all += length,
        }
    }
}

async fn framed_read(stream: Stream) -> usize {
    let messages = FramedRead::new(stream, LengthDelimitedCodec::new());
    messages.map(|message| message.expect("a message")).count().await
}

async fn rate<W, R>(name: &str, write: fn(Stream) -> W, read: fn(Stream) -> R)
where
    W: Future<Output = Result<()>> + Send + 'static,
    R: Future<Output = usize> + Send + 'static,
{
    let (to, from) = Stream::pair().expect("a pair");
    let began = Instant::now();
    let writer = tokio::spawn(write(to));
    let read = tokio::spawn(read(from)).await.expect("no panic");
    writer.await.expect("no panic").expect("all written");
    report(name, read, began);
}

fn report(name: &str, read: usize, began: Instant) {
    assert_eq!(read, MESSAGES);
    println!("{name:32} {:6.2} M/s", read as f64 / began.elapsed().as_secs_f64() / 1e6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints rates, which mean something in a release build only"]
async fn messages_of_64_bytes_one_way_are_timed() {
    rate("FrameSink to read", frame_sink, bytes).await;
    rate("FramedWrite to read", framed_write, bytes).await;
    rate("FrameSink to FramedRead", frame_sink, framed_read).await;
    rate("FramedWrite to FramedRead", framed_write, framed_read).await;
}

/// docs/embedding.md shows this code.
#[test]
#[ignore = "prints rates, which mean something in a release build only"]
fn messages_of_64_bytes_between_threads_are_timed() {
    let (to, from) = blocking::Stream::pair().expect("a pair");
    let began = Instant::now();
    let writer = std::thread::spawn(move || -> Result<()> {
        let mut to = BufWriter::with_capacity(BUFFER, to);
        for _ in 0..MESSAGES {
            to.write_all(&(MESSAGE.len() as u32).to_be_bytes())?;
            to.write_all(&MESSAGE)?;
        }
        to.flush()
    });

    let mut from = BufReader::with_capacity(BUFFER, from);
    let (mut prefix, mut message, mut read) = ([0; PREFIX], MESSAGE, 0);
    while from.read_exact(&mut prefix).is_ok() {
        let length = u32::from_be_bytes(prefix) as usize;
        from.read_exact(&mut message[..length]).expect("a message");
        read += 1;
    }
    writer.join().expect("no panic").expect("all written");
    report("BufWriter to BufReader", read, began);
}
