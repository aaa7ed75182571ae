//! Work over the crate's streams and over tokio's own, whose costs a test counts from outside.

use std::io::{IoSlice, Read, Write};

use sockpipe::{ConnectOptions, ListenOptions, Listener, SpinPolicy, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::talk::talk;

/// Runs `count` rounds over the streams that `whose` names.
pub(crate) async fn bytes(whose: &str, path: &str, count: u32) {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>((mut one, mut other): (S, S), count: u32) {
        talk(&mut one, &mut other, count).await;
    }
    match whose {
        "tokio" => run(UnixStream::pair().expect("a pair"), count).await,
        "sockpipe" => run(Stream::pair().expect("a pair"), count).await,
        "sockpipe-spin" => run(pair(path, SpinPolicy::Auto).await, count).await,
        "std" => talk_blocking(std::os::unix::net::UnixStream::pair().expect("a pair"), count),
        #[cfg(feature = "blocking")]
        "blocking" => talk_blocking(sockpipe::blocking::Stream::pair().expect("a pair"), count),
        other => panic!("no such streams: {other}"),
    }
}

/// Runs `count` rounds in which each read fills its buffer.
pub(crate) async fn exact(whose: &str, count: u32) {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>((mut one, mut other): (S, S), count: u32) {
        exchange(&mut one, &mut other, count).await;
    }
    match whose {
        "tokio" => run(UnixStream::pair().expect("a pair"), count).await,
        "sockpipe" => run(Stream::pair().expect("a pair"), count).await,
        other => panic!("no such streams: {other}"),
    }
}

/// Sends messages of a known length to and fro. Each read starts before the write.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(one: &mut S, other: &mut S, count: u32) {
    let (message, mut exact) = ([7; 64], [0; 64]);
    for _ in 0..count {
        let (read, written) = tokio::join!(other.read_exact(&mut exact), one.write_all(&message));
        assert_eq!(read.expect("a read"), 64);
        written.expect("a write");
        let (read, written) = tokio::join!(one.read_exact(&mut exact), other.write_all(&message));
        assert_eq!(read.expect("a read"), 64);
        written.expect("a write");
    }
}

/// Runs rounds on one thread in which no call waits. It makes each call itself, because `write_all`
/// and `read_exact` are loops of the standard library.
fn talk_blocking<S: Read + Write>((mut one, mut other): (S, S), count: u32) {
    let (message, mut room, mut exact) = ([7; 64], [0; 1024], [0; 64]);
    for _ in 0..count {
        assert_eq!(one.write(&message).expect("a write"), 64);
        assert_eq!(other.read(&mut room).expect("a read"), 64);
        assert_eq!(one.write(&message).expect("a write"), 64);
        assert_eq!(other.read(&mut exact).expect("a read"), 64);
        let pieces = [IoSlice::new(&message[..4]), IoSlice::new(&message[4..])];
        assert_eq!(one.write_vectored(&pieces).expect("a write"), 64);
        assert_eq!(other.read(&mut room).expect("a read"), 64);
    }
}

/// Returns the two ends of a connection with this policy.
pub(crate) async fn pair(path: &str, policy: SpinPolicy) -> (Stream, Stream) {
    let mut listener =
        Listener::bind_with(path, &ListenOptions::new().spin(policy)).expect("a free name");
    let options = ConnectOptions::new().spin(policy);
    let (client, server) = tokio::join!(Stream::connect_with(path, &options), listener.accept());
    (client.expect("a connection"), server.expect("a connection"))
}

/// Connects `count` times to a listener of tokio's, with the client that `whose` names.
pub(crate) async fn connects(whose: &str, path: &str, count: u32) {
    let listener = UnixListener::bind(path).expect("a free name");
    for _ in 0..count {
        match whose {
            "tokio" => drop(UnixStream::connect(path).await.expect("a connection")),
            "sockpipe" => drop(Stream::connect(path).await.expect("a connection")),
            other => panic!("no such client: {other}"),
        }
        drop(listener.accept().await.expect("a connection"));
    }
}
