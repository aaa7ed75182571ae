//! The echo service, for first programs, tests and examples.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How many bytes a read takes at most.
const CHUNK: usize = 64 * 1024;

/// Writes received data back until the peer ends its side, then ends its own. Returns the number of
/// bytes.
///
/// It calls `seen` with each chunk before it writes the chunk back.
///
/// A connection that waits for data holds no buffer.
///
/// The stream is not closed: pass `&mut stream`, and [`close`](crate::Stream::close) the stream
/// afterwards.
///
/// # Errors
///
/// The error of the read or write; `BrokenPipe` if the peer disconnects before its answer.
#[expect(clippy::manual_async_fn, reason = "an `async fn` holds its arguments twice")]
pub fn echo<S>(mut stream: S, mut seen: impl FnMut(&[u8])) -> impl Future<Output = io::Result<u64>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    async move {
        let mut total = 0;
        loop {
            let chunk = read(&mut stream).await?;
            if chunk.is_empty() {
                break;
            }
            seen(&chunk);
            stream.write_all(&chunk).await?;
            total += chunk.len() as u64;
        }
        match stream.shutdown().await {
            // The transport has no half-close. The peer reads the end when the stream is closed.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(total),
            done => done.map(|()| total),
        }
    }
}

/// Reads the next chunk, which is empty at the end. Each poll allocates a buffer and frees it if
/// there is no data yet, so that a connection that waits holds none.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        let mut chunk = Vec::with_capacity(CHUNK);
        let length = pin!(stream.read_buf(&mut chunk)).poll(cx);
        length.map_ok(|_| chunk)
    })
    .await
}
