//! The server, with a service for each kind of job. A connection's first byte chooses the service.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use sockpipe::os::unix::{ListenOptionsExt, take_over};
use sockpipe::{
    Endpoint, Listener, LocalListener, Stream, TimedListener, TimedStream, Transport, echo, serve,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pattern::Pattern;
use crate::threads;
use crate::ways::Ways;

/// The deadline for a client's first byte.
pub(crate) const FIRST_BYTE: Duration = Duration::from_secs(3);
/// The idle deadline of a connection.
pub(crate) const IDLE: Duration = Duration::from_secs(4);
/// How long the next version of a server tries to take it over.
const TAKING: Duration = Duration::from_secs(20);
/// How long a server that was taken over lets its connections finish: longer than any job.
const FINISHING: Duration = Duration::from_secs(70);
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
static IN_MEMORY: AtomicU64 = AtomicU64::new(0);
static CUT: AtomicU64 = AtomicU64::new(0);
static GAVE_UP: AtomicU64 = AtomicU64::new(0);
static SOONEST: AtomicU64 = AtomicU64::new(u64::MAX);
static LATEST: AtomicU64 = AtomicU64::new(0);
static LOG: OnceLock<PathBuf> = OnceLock::new();

/// Serves until a signal, or until another version takes over if this one is `upgradable`.
pub(crate) async fn run(path: &Path, log: &Path, upgradable: bool) -> Result<()> {
    LOG.get_or_init(|| log.to_owned());
    let options = Ways::ours().listening();
    if Ways::ours().blocking {
        return threads::run(path, &options);
    }
    let stop = sockpipe::shutdown_signal();
    let listener = if upgradable {
        take_over(path, &options.upgradable(true), TAKING).await?
    } else {
        Listener::bind_with(path, &options)?
    };
    println!("listening");

    let listener = TimedListener::new(Impatient(listener));
    let listener = listener.first_byte_deadline(FIRST_BYTE).idle_deadline(IDLE);
    let serving = serve(listener, handle).with_graceful_shutdown(stop);
    let serving = if upgradable { serving.drain_deadline(FINISHING) } else { serving };
    let drained = serving.await?;
    println!("finished {} {}", drained.finished(), drained.cut());
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
    let Ok(service) = stream.read_u8().await else { return };
    serve_one(&mut stream, service).await;
    let in_memory = stream.get_ref().transport() == Transport::SharedMemory;
    IN_MEMORY.fetch_add(u64::from(in_memory), Ordering::Relaxed);
}

/// Serves a connection whose first byte was read.
pub(crate) async fn serve_one<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, service: u8) {
    let done = match service {
        ECHO => echo::echo(&mut *stream, |_| ()).await.map(drop),
        SUM => sum(stream).await,
        GIVE => give(stream).await,
        FRAMES => frames(stream).await,
        END_FIRST => end_first(stream).await,
        REPORT => report(stream).await,
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
            wrong(&format!("{service} ended with {:?}: {error}", error.kind()));
            0
        }
    };
}

/// Reads to the client's end, and then answers with the length and the checksum.
async fn sum(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
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
async fn give(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
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
    stream: &mut (impl AsyncWrite + Unpin),
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
/// two frames ends the connection; an end inside a frame is an error.
async fn frames(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
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
async fn end_first(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
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

async fn report(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let line = format!(
        "pid {} served {} in-memory {} cut {} gave-up {} soonest {} latest {}",
        id(),
        now(&SERVED),
        now(&IN_MEMORY),
        now(&CUT),
        now(&GAVE_UP),
        now(&SOONEST),
        now(&LATEST)
    );
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await
}

/// Writes a fault to a file, because the server may have no other output and may be killed before
/// it is asked.
pub(crate) fn wrong(what: &str) {
    let log = LOG.get().expect("set at the start");
    let file = OpenOptions::new().append(true).create(true).open(log);
    let _ = file.and_then(|mut file| writeln!(file, "server {}: {what}", id()));
}
