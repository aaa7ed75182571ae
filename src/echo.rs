//! The echo service: what a first program, the tests and the examples talk to.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The most that is read at a time.
const CHUNK: usize = 64 * 1024;

/// Writes back what it reads until the peer ends its side, then ends its own. Gives the number of
/// bytes. `seen` is called with each chunk before it is written back.
///
/// A connection that waits for its peer to say something holds no buffer.
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
    let mut total = 0;
    loop {
        let chunk = poll_fn(|cx| Chunk::poll_read(Pin::new(&mut stream), cx)).await?;
        if chunk.bytes().is_empty() {
            break;
        }
        seen(chunk.bytes());
        stream.write_all(chunk.bytes()).await?;
        total += chunk.length as u64;
    }
    match stream.shutdown().await {
        // The peer cannot be told the end by itself; it comes with the close.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(total),
        done => done.map(|()| total),
    }
}

thread_local! {
    /// The buffer that the next read of this thread uses. One that finds nothing leaves it here.
    #[allow(clippy::missing_const_for_thread_local, reason = "it is; not seen for Windows")]
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What was read, in a buffer of the thread's that goes back when it is written.
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
}

impl Chunk {
    fn poll_read<S: AsyncRead>(
        stream: Pin<&mut S>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self>> {
        let buffer = SPARE.try_with(Cell::take).unwrap_or_default();
        let mut chunk = Self { buffer, length: 0 };
        if chunk.buffer.is_empty() {
            chunk.buffer = vec![0; CHUNK];
        }
        let mut buf = ReadBuf::new(&mut chunk.buffer);
        ready!(stream.poll_read(cx, &mut buf))?;
        chunk.length = buf.filled().len();
        Poll::Ready(Ok(chunk))
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Late in a thread's life there is none to leave it to.
        let _ = SPARE.try_with(|spare| spare.set(mem::take(&mut self.buffer)));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn one_buffer_serves_many_that_wait() {
        let mut clients = Vec::new();
        let mut servers = tokio::task::JoinSet::new();
        for number in 0..100_u8 {
            let (mut client, server) = duplex(16);
            servers.spawn(echo(server, |_| ()));
            client.write_u8(number).await.expect("a write");
            assert_eq!(client.read_u8().await.expect("an answer"), number);
            clients.push(client);
        }
        assert_eq!(SPARE.take().len(), CHUNK, "the buffer of all of them");
        drop(clients);
        while let Some(total) = servers.join_next().await {
            assert_eq!(total.expect("no panic").expect("an end"), 1);
        }
    }
}
