//! The echo service: what a first program, the tests and the examples talk to.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes read at a time: few for a client that sends little, since each connection has its own
/// buffer while it waits, and more for one that fills it.
const CHUNK: (usize, usize) = (1024, 64 * 1024);

/// Writes back what it reads until the peer ends its side, then ends its own. Gives the number of
/// bytes. `seen` is called with each chunk before it is written back.
///
/// The stream is not closed: pass `&mut stream` to [`close`](crate::Stream::close) it afterwards.
///
/// # Errors
///
/// What reading or writing reports, `BrokenPipe` for a peer that left before its answer.
pub async fn echo<S>(mut stream: S, mut seen: impl FnMut(&[u8])) -> io::Result<u64>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK.0];
    let mut total = 0;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        seen(&buffer[..length]);
        stream.write_all(&buffer[..length]).await?;
        total += length as u64;
        if length == buffer.len() && length < CHUNK.1 {
            buffer = vec![0; length * 4];
        }
    }
    match stream.shutdown().await {
        // The peer cannot be told the end by itself; it comes with the close.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(total),
        done => done.map(|()| total),
    }
}
