//! The server, with a service for each kind of job. A connection's first byte chooses the service.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use sockpipe::{
    Endpoint, ListenOptions, Listener, LocalListener, Stream, TimedListener, TimedStream, echo,
    serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pattern::Pattern;
use crate::process;

/// The deadline for a client's first byte.
pub(crate) const FIRST_BYTE: Duration = Duration::from_secs(3);
/// The idle deadline of a connection.
pub(crate) const IDLE: Duration = Duration::from_secs(4);
/// How much of an answer the server buffers for a client that does not read.
pub(crate) const PIECE: usize = 64 * 1024;
/// The longest frame.
pub(crate) const FRAME: usize = 1 << 20;

// The first byte of a connection, which chooses the service.
pub(crate) const ECHO: u8 = b'e';
pub(crate) const SUM: u8 = b's';
pub(crate) const GIVE: u8 = b'g';
pub(crate) const FRAMES: u8 = b'f';
pub(crate) const END_FIRST: u8 = b'h';
pub(crate) const REPORT: u8 = b'r';

static SERVED: AtomicU64 = AtomicU64::new(0);
static CUT: AtomicU64 = AtomicU64::new(0);
static GAVE_UP: AtomicU64 = AtomicU64::new(0);
static SOONEST: AtomicU64 = AtomicU64::new(u64::MAX);
static LATEST: AtomicU64 = AtomicU64::new(0);
static LOG: OnceLock<PathBuf> = OnceLock::new();

pub(crate) async fn run(path: &Path, log: &Path) -> Result<()> {
    LOG.get_or_init(|| log.to_owned());
    let stop = sockpipe::shutdown_signal();
    let options = ListenOptions::new().shared_memory(process::shared_memory());
    let listener = Impatient(Listener::bind_with(path, &options)?);
    println!("listening");
    let listener = TimedListener::new(listener).first_byte_deadline(FIRST_BYTE).idle_deadline(IDLE);
    serve(listener, handle).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// A listener that often drops its `accept` call and starts another.
struct Impatient(Listener);

impl LocalListener for Impatient {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<Stream> {
        loop {
            let pause = Duration::from_micros(fastrand::u64(..5000));
            tokio::select! {
                accepted = self.0.accept() => return accepted,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(self.0.endpoint().clone())
    }

    fn stop_listening(&mut self) -> Vec<Stream> {
        self.0.stop_listening()
    }
}

async fn handle(mut stream: TimedStream<Stream>) {
    // The server does not report a client that sends nothing, or nothing more.
    let Ok(what) = stream.read_u8().await else { return };
    let done = match what {
        ECHO => echo::echo(&mut stream, |_| ()).await.map(drop),
        SUM => sum(&mut stream).await,
        GIVE => give(&mut stream).await,
        FRAMES => frames(&mut stream).await,
        END_FIRST => end_first(&mut stream).await,
        REPORT => report(&mut stream).await,
        other => {
            wrong(&format!("a connection began with {other}"));
            return;
        }
    };
    match done {
        Ok(()) => SERVED.fetch_add(1, Ordering::Relaxed),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            CUT.fetch_add(1, Ordering::Relaxed)
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            GAVE_UP.fetch_add(1, Ordering::Relaxed)
        }
        Err(error) if error.kind() == ErrorKind::BrokenPipe => 0,
        Err(error) => {
            wrong(&format!("{what} ended with {:?}: {error}", error.kind()));
            0
        }
    };
}

/// Reads to the client's end, and then answers with the length and the checksum.
async fn sum(stream: &mut TimedStream<Stream>) -> io::Result<()> {
    let (mut total, mut sum) = (0, crc32fast::Hasher::new());
    let mut buffer = vec![0; PIECE];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        total += length as u64;
        sum.update(&buffer[..length]);
    }
    stream.write_u64(total).await?;
    stream.write_u32(sum.finalize()).await?;
    stream.shutdown().await
}

/// Sends as many bytes as the client asks for.
async fn give(stream: &mut TimedStream<Stream>) -> io::Result<()> {
    let (seed, length) = (stream.read_u64().await?, stream.read_u64().await?);
    let mut last = Instant::now();
    match send_pattern(stream, seed, length, &mut last).await {
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            let waited = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
            SOONEST.fetch_min(waited, Ordering::Relaxed);
            LATEST.fetch_max(waited, Ordering::Relaxed);
            Err(error)
        }
        done => done,
    }
}

async fn send_pattern(
    stream: &mut TimedStream<Stream>,
    seed: u64,
    length: u64,
    last: &mut Instant,
) -> io::Result<()> {
    let (mut pattern, mut left) = (Pattern::new(seed), length);
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let piece = left.min(PIECE as u64) as usize;
        pattern.fill(&mut buffer[..piece]);
        *last = Instant::now();
        stream.write_all(&buffer[..piece]).await?;
        left -= piece as u64;
    }
    stream.shutdown().await
}

/// Reads frames of a length and as many bytes, and answers each with its checksum. An end between
/// two
/// frames ends the connection; an end inside a frame is an error.
async fn frames(stream: &mut TimedStream<Stream>) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        if stream.read(&mut length[..1]).await? == 0 {
            return stream.shutdown().await;
        }
        stream.read_exact(&mut length[1..]).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME {
            wrong(&format!("a frame of {length} bytes was announced"));
            return Ok(());
        }
        frame.resize(length, 0);
        stream.read_exact(&mut frame).await?;
        stream.write_u32(crc32fast::hash(&frame)).await?;
    }
}

/// Sends, ends its direction, and then reads what the client sends.
async fn end_first(stream: &mut TimedStream<Stream>) -> io::Result<()> {
    let (seed, length) = (stream.read_u64().await?, stream.read_u64().await?);
    send_pattern(stream, seed, length, &mut Instant::now()).await?;
    let (mut pattern, mut total) = (Pattern::new(!seed), 0);
    let mut buffer = vec![0; PIECE];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        total += read as u64;
        if !pattern.is_next(&buffer[..read]) {
            wrong("bytes after our end are not those that were sent");
            return Ok(());
        }
    }
    if total == length { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

async fn report(stream: &mut TimedStream<Stream>) -> io::Result<()> {
    let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let line = format!(
        "pid {} served {} cut {} gave-up {} soonest {} latest {}",
        id(),
        now(&SERVED),
        now(&CUT),
        now(&GAVE_UP),
        now(&SOONEST),
        now(&LATEST)
    );
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await
}

/// Writes a fault to a file, because the server may have no other output and may be killed before
/// it is
/// asked.
fn wrong(what: &str) {
    let log = LOG.get().expect("set at the start");
    let file = OpenOptions::new().append(true).create(true).open(log);
    let _ = file.and_then(|mut file| writeln!(file, "server {}: {what}", id()));
}
