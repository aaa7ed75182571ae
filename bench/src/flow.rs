//! The workloads over an async transport.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use sockpipe::FrameSink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{FramedWrite, LengthDelimitedCodec};

use crate::measure::{Clock, Outcome, Times};
use crate::streams::Transport;
use crate::work::{BATCH, FRAME, IDLE, MESSAGE, PREFIX, Service, Sink, Work};
use crate::{beside, download, run};

pub async fn serve<T: Transport>(transport: &T, service: Service, address: &str) -> io::Result<()> {
    let (mut listener, at) = transport.bind(address)?;
    run::say_listening(at.as_deref().unwrap_or(address));
    loop {
        let stream = T::accept(&mut listener).await?;
        tokio::spawn(async move { drop(answer::<T>(stream, service).await) });
    }
}

async fn answer<T: Transport>(mut stream: T::Stream, service: Service) -> io::Result<()> {
    match service {
        Service::Echo(_) | Service::Think => {
            let size = if let Service::Echo(size) = service { size } else { 64 * 1024 };
            let mut buffer = vec![0; size];
            loop {
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    return Ok(());
                }
                if service == Service::Think {
                    let done = Instant::now() + Duration::from_micros(25);
                    while Instant::now() < done {
                        std::hint::spin_loop();
                    }
                }
                stream.write_all(&buffer[..length]).await?;
            }
        }
        // In a box, so that it makes no handler of another workload larger.
        Service::Send(size) => Box::pin(download::send(stream, size)).await,
        Service::Count { every, frames } => {
            let mut buffer = vec![0; 64 * 1024];
            let mut counter = Counter::new(every, frames);
            loop {
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    return Ok(());
                }
                for _ in 0..counter.take(&buffer[..length]) {
                    stream.write_all(&[1]).await?;
                }
            }
        }
    }
}

/// Counts bytes, and parses frames as a receiver of messages has to.
pub struct Counter {
    every: usize,
    frames: bool,
    seen: usize,
    /// How many bytes of the current frame are missing, and the known part of its prefix.
    left: usize,
    prefix: ([u8; PREFIX], usize),
}

impl Counter {
    pub fn new(every: usize, frames: bool) -> Self {
        Self { every, frames, seen: 0, left: 0, prefix: ([0; PREFIX], 0) }
    }

    /// Counts `bytes`, and returns how many receipts are due.
    pub fn take(&mut self, mut bytes: &[u8]) -> usize {
        let before = self.seen / self.every;
        self.seen += bytes.len();
        while self.frames && !bytes.is_empty() {
            if self.left == 0 {
                let (prefix, known) = &mut self.prefix;
                let more = (PREFIX - *known).min(bytes.len());
                prefix[*known..*known + more].copy_from_slice(&bytes[..more]);
                bytes = &bytes[more..];
                *known += more;
                if *known == PREFIX {
                    self.left = u32::from_be_bytes(*prefix) as usize;
                    assert_eq!(self.left, MESSAGE, "frames are not where they should be");
                    *known = 0;
                }
            }
            let more = self.left.min(bytes.len());
            bytes = &bytes[more..];
            self.left -= more;
        }
        self.seen / self.every - before
    }
}

pub fn frame() -> [u8; FRAME] {
    let mut frame = [7; FRAME];
    frame[..PREFIX].copy_from_slice(&(MESSAGE as u32).to_be_bytes());
    frame
}

/// Fills `batch` with as many whole frames as fit. The benchmark includes this work.
pub fn fill(batch: &mut Vec<u8>, payload: &[u8]) {
    batch.clear();
    while batch.len() + FRAME <= BATCH {
        batch.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        batch.extend_from_slice(payload);
    }
}

pub async fn drive<T: Transport>(
    transport: T,
    work: Work,
    address: &str,
    millis: u64,
) -> io::Result<Outcome> {
    let transport = Arc::new(transport);
    match work {
        Work::Bursts => {
            let mut stream = transport.connect(address).await?;
            let bursts = async move {
                let (clock, mut times, mut answer) =
                    (Clock::new(millis), Times::default(), [0; 64]);
                while Instant::now() < clock.end {
                    for _ in 0..20 {
                        let now = Instant::now();
                        stream.write_all(&[7; 64]).await?;
                        stream.read_exact(&mut answer).await?;
                        times.push(&clock, now, Instant::now());
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                io::Result::Ok(times.outcome((Instant::now() - clock.start).as_secs_f64()))
            };
            tokio::spawn(bursts).await.expect("no panic")
        }
        Work::PingPong(_) | Work::Thinking => {
            let size = if let Work::PingPong(size) = work { size } else { 64 };
            let stream = transport.connect(address).await?;
            // This is a task, as the handlers of a server are. On a runtime with several threads
            // `block_on` runs on another thread, and each wake-up would switch threads.
            let talk = async move { ping_pong::<T>(stream, size, &Clock::new(millis)).await };
            let (times, seconds) = tokio::spawn(talk).await.expect("no panic")?;
            Ok(times.outcome(seconds))
        }
        Work::Beside(neighbour) => {
            let stream = transport.connect(address).await?;
            // The conversation takes longer than the neighbour, and is stopped with it.
            let clock = Clock::new(millis * 2);
            let talk = tokio::spawn(async move { ping_pong::<T>(stream, 64, &clock).await });
            let late = beside::measure(neighbour, millis).await;
            talk.abort();
            match talk.await {
                Err(cut) if cut.is_cancelled() => late,
                _ => Err(io::Error::other("nobody talked beside it")),
            }
        }
        Work::OneWay(size) => {
            let block = vec![7; size];
            pour::<T>(transport.connect(address).await?, work, millis, async |stream| {
                stream.write_all(&block).await?;
                Ok(size)
            })
            .await
        }
        Work::Download(size) => {
            let stream = transport.connect(address).await?;
            // The reader is a task here too, as it is where the server reads.
            tokio::spawn(download::receive(stream, size, millis)).await.expect("no panic")
        }
        Work::Messages(Sink::Each) => {
            let frame = frame();
            pour::<T>(transport.connect(address).await?, work, millis, async |stream| {
                stream.write_all(&frame).await?;
                Ok(FRAME)
            })
            .await
        }
        Work::Messages(Sink::Batch) => {
            let (payload, mut batch) = ([7; MESSAGE], Vec::with_capacity(BATCH));
            pour::<T>(transport.connect(address).await?, work, millis, async |stream| {
                fill(&mut batch, &payload);
                stream.write_all(&batch).await?;
                Ok(batch.len())
            })
            .await
        }
        Work::Messages(Sink::Own) => sink::<T>(transport.connect(address).await?, millis).await,
        Work::Messages(Sink::Framed) => {
            framed::<T>(transport.connect(address).await?, millis).await
        }
        Work::Echo => {
            let block = vec![7; 64 * 1024];
            there_and_back::<T>(transport.connect(address).await?, millis, 64 * 1024, |send| {
                send.extend_from_slice(&block)
            })
            .await
        }
        Work::MessagesEcho => {
            let payload = [7; MESSAGE];
            there_and_back::<T>(transport.connect(address).await?, millis, FRAME, |send| {
                fill(send, &payload)
            })
            .await
        }
        Work::Connect(at_once) => {
            let clock = Arc::new(Clock::new(millis));
            let mut running = Vec::new();
            for _ in 0..at_once {
                let (transport, clock, address) =
                    (transport.clone(), clock.clone(), address.to_owned());
                running.push(tokio::spawn(async move {
                    let mut times = Times::default();
                    let mut now = Instant::now();
                    while now < clock.end {
                        let mut stream = transport.connect(&address).await?;
                        stream.write_all(&[1]).await?;
                        stream.read_exact(&mut [0]).await?;
                        drop(stream);
                        let done = Instant::now();
                        times.push(&clock, now, done);
                        now = done;
                    }
                    io::Result::Ok(times)
                }));
            }
            gather(running, &clock).await
        }
        Work::Longest => {
            let (clock, mut times) = (Clock::new(millis), Times::default());
            while Instant::now() < clock.end {
                let stream = transport.connect(address).await?;
                longest::<T>(stream, &clock, &mut times).await?;
            }
            Ok(times.outcome((clock.end - clock.start).as_secs_f64()))
        }
        Work::Killed => panic!("{work:?} starts servers of its own"),
        Work::Many(count) | Work::Scale(count) => {
            run::allow_descriptors();
            let mut streams = Vec::new();
            for _ in 0..count {
                streams.push(transport.connect(address).await?);
            }
            let clock = Arc::new(Clock::new(millis));
            let talk = |stream| {
                let clock = clock.clone();
                tokio::spawn(async move { Ok(ping_pong::<T>(stream, 64, &clock).await?.0) })
            };
            gather(streams.into_iter().map(talk).collect(), &clock).await
        }
        Work::Idle => {
            let mut streams = Vec::new();
            for _ in 0..IDLE {
                let mut stream = transport.connect(address).await?;
                stream.write_all(&[7; 64]).await?;
                stream.read_exact(&mut [0; 64]).await?;
                streams.push(stream);
            }
            run::say_idle();
            Ok(Outcome::counted(IDLE as f64, 1.0))
        }
    }
}

async fn longest<T: Transport>(
    mut stream: T::Stream,
    clock: &Clock,
    times: &mut Times,
) -> io::Result<()> {
    let (mut bytes, mut longest) = ([7; 64], None);
    for _ in 0..256 {
        let from = Instant::now();
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
        let to = Instant::now();
        longest = longest.max(Some((to - from, from, to)));
    }
    if let Some((_, from, to)) = longest {
        times.push(clock, from, to);
    }
    Ok(())
}

async fn gather(
    running: Vec<tokio::task::JoinHandle<io::Result<Times>>>,
    clock: &Clock,
) -> io::Result<Outcome> {
    let mut all = Times::default();
    for task in running {
        all.extend(task.await.expect("no panic")?);
    }
    Ok(all.outcome((clock.end - clock.start).as_secs_f64()))
}

async fn ping_pong<T: Transport>(
    mut stream: T::Stream,
    size: usize,
    clock: &Clock,
) -> io::Result<(Times, f64)> {
    let (question, mut answer) = (vec![7; size], vec![0; size]);
    let mut times = Times::default();
    let mut now = Instant::now();
    while now < clock.end {
        stream.write_all(&question).await?;
        stream.read_exact(&mut answer).await?;
        let done = Instant::now();
        times.push(clock, now, done);
        now = done;
    }
    let seconds = (now - clock.start).as_secs_f64();
    Ok((times, seconds))
}

/// Writes until the time is over and the last receipt has arrived.
async fn pour<T: Transport>(
    mut stream: T::Stream,
    work: Work,
    millis: u64,
    mut write: impl AsyncFnMut(&mut T::Stream) -> io::Result<usize>,
) -> io::Result<Outcome> {
    let Service::Count { every, .. } = work.service() else { panic!("nobody counts") };
    let end = Clock::new(millis).end;
    let start = Instant::now();
    let (mut sent, mut unit, mut due) = (0, 0, every);
    loop {
        unit = write(&mut stream).await?.max(unit);
        sent += unit;
        // Reading the clock costs as much as a small message, so it is read only when a receipt is
        // due.
        if sent >= due {
            due += every;
            if Instant::now() >= end {
                break;
            }
        }
    }
    stream.read_exact(&mut vec![0; sent / every]).await?;
    Ok(poured(sent / every * every, work, unit, start))
}

pub fn poured(bytes: usize, work: Work, unit: usize, start: Instant) -> Outcome {
    let unit = if matches!(work, Work::Messages(_)) { FRAME } else { unit };
    Outcome::counted((bytes / unit) as f64, start.elapsed().as_secs_f64())
}

/// Sends through tokio-util's sink: feeds the available messages, and then flushes.
async fn framed<T: Transport>(stream: T::Stream, millis: u64) -> io::Result<Outcome> {
    let work = Work::Messages(Sink::Framed);
    let Service::Count { every, .. } = work.service() else { panic!("nobody counts") };
    let message = Bytes::from_static(&[7; MESSAGE]);
    let mut sink = FramedWrite::new(stream, LengthDelimitedCodec::new());
    sink.set_backpressure_boundary(BATCH);
    let end = Clock::new(millis).end;
    let start = Instant::now();
    let (mut sent, mut due) = (0, every);
    loop {
        sink.feed(message.clone()).await?;
        sent += FRAME;
        if sent >= due {
            due += every;
            if Instant::now() >= end {
                break;
            }
        }
    }
    SinkExt::<Bytes>::flush(&mut sink).await?;
    sink.get_mut().read_exact(&mut vec![0; sent / every]).await?;
    Ok(poured(sent / every * every, work, FRAME, start))
}

/// Sends through sockpipe's own sink in the same way.
async fn sink<T: Transport>(stream: T::Stream, millis: u64) -> io::Result<Outcome> {
    let work = Work::Messages(Sink::Own);
    let Service::Count { every, .. } = work.service() else { panic!("nobody counts") };
    let message = [7; MESSAGE];
    let mut sink = FrameSink::new(stream);
    let end = Clock::new(millis).end;
    let start = Instant::now();
    let (mut sent, mut due) = (0, every);
    loop {
        sink.feed(&message).await?;
        sent += FRAME;
        if sent >= due {
            due += every;
            if Instant::now() >= end {
                break;
            }
        }
    }
    sink.flush().await?;
    sink.get_mut().read_exact(&mut vec![0; sent / every]).await?;
    Ok(poured(sent / every * every, work, FRAME, start))
}

/// Writes and reads at the same time, in units of `unit` bytes.
async fn there_and_back<T: Transport>(
    stream: T::Stream,
    millis: u64,
    unit: usize,
    mut fill: impl FnMut(&mut Vec<u8>),
) -> io::Result<Outcome> {
    let (mut from, mut to) = T::split(stream);
    let clock = Clock::new(millis);
    let start = Instant::now();
    let total = Cell::new(usize::MAX);
    let write = async {
        let (mut send, mut sent) = (Vec::new(), 0);
        loop {
            send.clear();
            fill(&mut send);
            sent += send.len();
            let last = Instant::now() >= clock.end;
            if last {
                // The total is set before the write, so that the reader does not wait for more
                // after it.
                total.set(sent);
            }
            to.write_all(&send).await?;
            if last {
                return io::Result::Ok(());
            }
        }
    };
    let read = async {
        let (mut buffer, mut read) = (vec![0; 64 * 1024], 0);
        while read < total.get() {
            read += from.read(&mut buffer).await?;
        }
        Ok(read)
    };
    let ((), read) = tokio::try_join!(write, read)?;
    Ok(Outcome::counted((read / unit) as f64, start.elapsed().as_secs_f64()))
}
