//! Every way in which bytes go over a stream, as often as asked: what it costs is counted from
//! outside. The same code for sockpipe's streams and for tokio's own.

use std::io::IoSlice;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// More than a socket takes at once.
const LARGE: usize = 300_000;

pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    one: &mut S,
    other: &mut S,
    count: u32,
) {
    let (message, mut room, mut exact) = ([7; 64], [0; 1024], [0; 64]);
    let (block, mut whole) = (vec![7; LARGE], vec![0; LARGE]);
    for round in 0..count {
        // What is there already, with room for more, and with none.
        one.write_all(&message).await.expect("a write");
        assert_eq!(other.read(&mut room).await.expect("a read"), 64);
        one.write_all(&message).await.expect("a write");
        other.read_exact(&mut exact).await.expect("a read");
        // What is waited for.
        let (read, written) = tokio::join!(other.read(&mut room), one.write_all(&message));
        assert_eq!(read.expect("a read"), 64);
        written.expect("a write");
        // In pieces.
        let pieces = [IoSlice::new(&message[..4]), IoSlice::new(&message[4..])];
        assert_eq!(one.write_vectored(&pieces).await.expect("a write"), 64);
        assert_eq!(other.read(&mut room).await.expect("a read"), 64);
        // What has to wait for room.
        if round % 16 == 0 {
            let (written, read) = tokio::join!(one.write_all(&block), other.read_exact(&mut whole));
            written.expect("a write");
            assert_eq!(read.expect("a read"), LARGE);
        }
    }
}
