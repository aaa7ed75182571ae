//! Sends bytes over a stream in every way, as often as asked, while a test counts the costs from
//! outside. The same code runs over sockpipe's streams and over tokio's own.

use std::io::IoSlice;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// This is more than a socket takes at once.
const LARGE: usize = 300_000;

pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    one: &mut S,
    other: &mut S,
    count: u32,
) {
    let (message, mut room, mut exact) = ([7; 64], [0; 1024], [0; 64]);
    let (block, mut whole) = (vec![7; LARGE], vec![0; LARGE]);
    for round in 0..count {
        // The bytes are there before the read, which has room for more, or for exactly these.
        one.write_all(&message).await.expect("a write");
        assert_eq!(other.read(&mut room).await.expect("a read"), 64);
        one.write_all(&message).await.expect("a write");
        other.read_exact(&mut exact).await.expect("a read");
        // The read starts before the write.
        let (read, written) = tokio::join!(other.read(&mut room), one.write_all(&message));
        assert_eq!(read.expect("a read"), 64);
        written.expect("a write");
        // The write is vectored.
        let pieces = [IoSlice::new(&message[..4]), IoSlice::new(&message[4..])];
        assert_eq!(one.write_vectored(&pieces).await.expect("a write"), 64);
        assert_eq!(other.read(&mut room).await.expect("a read"), 64);
        // The write has to wait for room.
        if round % 16 == 0 {
            let (written, read) = tokio::join!(one.write_all(&block), other.read_exact(&mut whole));
            written.expect("a write");
            assert_eq!(read.expect("a read"), LARGE);
        }
    }
}
