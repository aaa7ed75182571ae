//! The jobs that a client does on one connection, and how it checks them.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use crate::connection::{Connection, Echo};
use crate::pattern::Pattern;
use crate::server::{ECHO, END_FIRST, FIRST_BYTE, FRAME, FRAMES, GIVE, PIECE, SUM};

/// The longest echo.
const LARGEST: u64 = 64 << 20;

/// Why a job did not finish.
pub(crate) enum Fault {
    /// The connection ended, as it does when a process is killed.
    Ended(io::Error),
    /// A fault of the crate.
    Wrong(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => Self::Ended(error),
            kind => Self::Wrong(format!("an error that a stream never has: {kind:?}: {error}")),
        }
    }
}

fn cut_off() -> Fault {
    Fault::Ended(ErrorKind::UnexpectedEof.into())
}

fn wrong<T>(what: String) -> Result<T, Fault> {
    Err(Fault::Wrong(what))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    Echo,
    HalfClose,
    ServerEndsFirst,
    Frames,
    Take,
    Slow,
    Cancel,
    Abandon,
    Silent,
}

impl Job {
    pub(crate) const ALL: [Self; 9] = [
        Self::Echo,
        Self::HalfClose,
        Self::ServerEndsFirst,
        Self::Frames,
        Self::Take,
        Self::Slow,
        Self::Cancel,
        Self::Abandon,
        Self::Silent,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::HalfClose => "half-close",
            Self::ServerEndsFirst => "server-ends-first",
            Self::Frames => "frames",
            Self::Take => "take",
            Self::Slow => "slow",
            Self::Cancel => "cancel",
            Self::Abandon => "abandon",
            Self::Silent => "silent",
        }
    }

    pub(crate) fn choose(rng: &mut Rng) -> Self {
        match rng.u32(..100) {
            0..30 => Self::Echo,
            30..45 => Self::HalfClose,
            45..55 => Self::ServerEndsFirst,
            55..70 => Self::Frames,
            70..80 => Self::Take,
            80..86 => Self::Slow,
            86..93 => Self::Cancel,
            93..99 => Self::Abandon,
            _ => Self::Silent,
        }
    }

    /// Does the job. Returns how many bytes went in both directions, each of which was checked.
    pub(crate) async fn run(self, stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
        match self {
            Self::Echo => echo(stream, rng).await,
            Self::HalfClose => half_close(stream, rng).await,
            Self::ServerEndsFirst => server_ends_first(stream, rng).await,
            Self::Frames => frames(stream, rng).await,
            Self::Take => take(stream, rng).await,
            Self::Slow => slow(stream, rng).await,
            Self::Cancel => cancel(stream, rng).await,
            Self::Abandon => abandon(stream, rng).await,
            Self::Silent => silent(stream).await,
        }
    }
}

/// Returns a size from 0 to `most`. Small sizes are as frequent as large ones.
fn size(rng: &mut Rng, most: u64) -> u64 {
    match rng.u32(..32) {
        0 | 1 => 0,
        2 => most,
        _ => {
            let top = 1 << rng.u32(..=most.ilog2());
            rng.u64(top / 2..=top).min(most)
        }
    }
}

pub(crate) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    seed: u64,
    length: u64,
    piece: usize,
) -> io::Result<()> {
    let (mut pattern, mut left) = (Pattern::new(seed), length);
    let mut buffer = vec![0; piece.min(length as usize)];
    while left > 0 {
        let now = left.min(piece as u64) as usize;
        pattern.fill(&mut buffer[..now]);
        to.write_all(&buffer[..now]).await?;
        left -= now as u64;
    }
    Ok(())
}

/// Reads to the end, which has to follow `length` bytes of the pattern.
pub(crate) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    seed: u64,
    length: u64,
) -> Result<(), Fault> {
    let (mut pattern, mut total) = (Pattern::new(seed), 0);
    let mut buffer = vec![0; PIECE.min(length as usize + 1)];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return if total == length { Ok(()) } else { Err(cut_off()) };
        }
        if !pattern.is_next(&buffer[..read]) {
            return wrong(format!("other bytes after {total} of {length}"));
        }
        total += read as u64;
        if total > length {
            return wrong(format!("{total} bytes where {length} were to be"));
        }
    }
}

async fn echo(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    let (seed, length) = (rng.u64(..), size(rng, LARGEST));
    let piece = rng.usize(1..=PIECE).max(length as usize / 4096);
    stream.write_u8(ECHO).await?;
    stream.echo(rng.u8(..3), Echo { seed, length, piece }).await?;
    Ok(length)
}

/// The answer depends on the whole question, so it can follow only its end.
async fn half_close(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    let (seed, length) = (rng.u64(..), size(rng, LARGEST / 8));
    let (mut pattern, mut left, mut sum) = (Pattern::new(seed), length, crc32fast::Hasher::new());
    let mut buffer = vec![0; PIECE];
    stream.write_u8(SUM).await?;
    while left > 0 {
        let piece = left.min(PIECE as u64) as usize;
        pattern.fill(&mut buffer[..piece]);
        sum.update(&buffer[..piece]);
        stream.write_all(&buffer[..piece]).await?;
        left -= piece as u64;
    }
    stream.shutdown().await?;
    let answer = (stream.read_u64().await?, stream.read_u32().await?);
    if stream.read(&mut [0]).await? != 0 {
        return wrong("more than the answer".to_owned());
    }
    let right = (length, sum.finalize());
    if answer == right { Ok(length) } else { wrong(format!("{answer:?} instead of {right:?}")) }
}

async fn server_ends_first(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    let (seed, length) = (rng.u64(..), size(rng, 1 << 20));
    ask(&mut stream, END_FIRST, seed, length).await?;
    receive(&mut stream, seed, length).await?;
    // The server checks these bytes.
    send(&mut stream, !seed, length, PIECE).await?;
    stream.close().await?;
    Ok(length)
}

async fn frames(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    stream.write_u8(FRAMES).await?;
    let mut total = 0;
    for _ in 0..rng.u32(1..20) {
        let mut frame = vec![0; size(rng, FRAME as u64) as usize];
        Pattern::new(rng.u64(..)).fill(&mut frame);
        stream.write_u32(frame.len() as u32).await?;
        stream.write_all(&frame).await?;
        let (answer, right) = (stream.read_u32().await?, crc32fast::hash(&frame));
        if answer != right {
            return wrong(format!("a frame's checksum is {answer:x}, not {right:x}"));
        }
        total += frame.len() as u64;
    }
    stream.shutdown().await?;
    if stream.read(&mut [0]).await? == 0 { Ok(total) } else { wrong("more than answers".into()) }
}

pub(crate) async fn ask(
    stream: &mut impl Connection,
    what: u8,
    seed: u64,
    length: u64,
) -> io::Result<()> {
    stream.write_u8(what).await?;
    stream.write_u64(seed).await?;
    stream.write_u64(length).await
}

async fn take(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    let (seed, length) = (rng.u64(..), size(rng, LARGEST / 4));
    ask(&mut stream, GIVE, seed, length).await?;
    receive(&mut stream, seed, length).await?;
    Ok(length)
}

/// Reads the bytes that it asked for in small pieces, with pauses.
async fn slow(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    let (seed, length) = (rng.u64(..), size(rng, 1 << 20));
    ask(&mut stream, GIVE, seed, length).await?;
    let (mut pattern, mut total) = (Pattern::new(seed), 0);
    // The server can write on only when most of its send buffer is read, about 200 KiB on Linux.
    // Pieces of 4 KiB and the longest pauses take half of the idle deadline for that.
    let mut buffer = vec![0; rng.usize(4096..PIECE)];
    loop {
        sleep(Duration::from_millis(rng.u64(1..30))).await;
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return if total == length { Ok(total) } else { Err(cut_off()) };
        }
        if !pattern.is_next(&buffer[..read]) {
            return wrong(format!("other bytes after {total} of {length}, taken slowly"));
        }
        total += read as u64;
    }
}

/// Returns the length of the pieces in which a job sends `length` bytes: at most 4,096 pieces. A
/// call that is dropped takes a tick of tokio's clock, which is a millisecond or two on a busy
/// machine, and a job of a million calls would exceed its time limit.
fn piece_of(rng: &mut Rng, length: u64) -> usize {
    let least = usize::try_from(length.div_ceil(4096)).unwrap_or(PIECE);
    rng.usize(1..=PIECE).max(least)
}

/// An echo whose reads and writes are sometimes dropped before they complete.
async fn cancel(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    let (seed, length) = (rng.u64(..), size(rng, 4 << 20));
    stream.write_u8(ECHO).await?;
    let (mut sent, mut got, mut to_check) = (Pattern::new(seed), 0_u64, Pattern::new(seed));
    let (mut piece, mut from) = (vec![0; piece_of(rng, length)], 0);
    let (mut left, mut ended) = (length, false);
    let mut buffer = vec![0; PIECE];
    // The part of the piece that is not written yet begins at `from`.
    let mut filled = 0;
    loop {
        if from == filled && left > 0 {
            (from, filled) = (0, left.min(piece.len() as u64) as usize);
            sent.fill(&mut piece[..filled]);
            left -= filled as u64;
        }
        let moment = |rng: &mut Rng| Duration::from_micros(rng.u64(..300));
        stream.limit(Duration::from_micros(rng.u64(1..300)))?;
        if from < filled {
            let write = stream.write(&piece[from..filled]);
            if let Some(written) = in_time(timeout(moment(rng), write).await)? {
                from += written;
            }
        } else if !ended {
            stream.shutdown().await?;
            ended = true;
        }
        let read = timeout(moment(rng), stream.read(&mut buffer));
        if let Some(read) = in_time(read.await)? {
            if read == 0 {
                return if got == length { Ok(length) } else { Err(cut_off()) };
            }
            if !to_check.is_next(&buffer[..read]) {
                return wrong(format!("other bytes after {got} of {length}, with cancellations"));
            }
            got += read as u64;
        }
    }
}

/// Returns what a call gave that was not given up: by dropping it, or by its own limit.
fn in_time(called: Result<io::Result<usize>, Elapsed>) -> io::Result<Option<usize>> {
    match called {
        Err(_) => Ok(None),
        Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => Ok(None),
        Ok(done) => done.map(Some),
    }
}

/// Leaves in the middle of an echo.
async fn abandon(mut stream: impl Connection, rng: &mut Rng) -> Result<u64, Fault> {
    stream.write_u8(ECHO).await?;
    let length = size(rng, 1 << 20);
    let moment = Duration::from_micros(rng.u64(1..2000));
    stream.limit(moment)?;
    let sent = send(&mut stream, rng.u64(..), length, PIECE);
    let _ = timeout(moment, sent).await;
    Ok(0)
}

/// Sends nothing, and expects that the server disconnects it at its deadline.
async fn silent(mut stream: impl Connection) -> Result<u64, Fault> {
    let started = Instant::now();
    let read = stream.read(&mut [0]).await?;
    let waited = started.elapsed();
    if read > 0 {
        return wrong("a byte that nobody asked for".to_owned());
    }
    // A suspended client has waited for longer, and its server may have been killed meanwhile.
    let due = FIRST_BYTE.mul_f64(0.8)..FIRST_BYTE * 2;
    if due.contains(&waited) { Ok(0) } else { Err(cut_off()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_any_length_has_a_limited_number_of_pieces() {
        let mut rng = Rng::with_seed(1);
        for length in [0, 1, 4095, 4096, 100_000, 4 << 20] {
            for _ in 0..10_000 {
                let piece = piece_of(&mut rng, length);
                assert!((1..=PIECE).contains(&piece), "{piece}");
                assert!(
                    length.div_ceil(piece as u64) <= 4096,
                    "{length} bytes in pieces of {piece}"
                );
            }
        }
    }
}
