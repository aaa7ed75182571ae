//! Bytes in one direction, from the server to a client that only reads.

use std::io;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::measure::{Clock, Outcome};

/// How many bytes the client reads before it looks at the clock.
const EVERY: usize = 32 << 20;

/// Writes blocks of `size` bytes until the client closes the connection.
pub async fn send(mut stream: impl AsyncWrite + Unpin, size: usize) -> io::Result<()> {
    let block = vec![7; size];
    loop {
        stream.write_all(&block).await?;
    }
}

/// Reads until the time is over, with a buffer like that of a server that counts.
pub async fn receive(
    mut stream: impl AsyncRead + Unpin,
    size: usize,
    millis: u64,
) -> io::Result<Outcome> {
    let end = Clock::new(millis).end;
    let start = Instant::now();
    let (mut buffer, mut received) = (vec![0; 64 * 1024], 0);
    while Instant::now() < end {
        let due = received + EVERY;
        while received < due {
            match stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => received += length,
            }
        }
    }
    let blocks = received as f64 / size as f64;
    Ok(Outcome::counted(blocks, start.elapsed().as_secs_f64()))
}
