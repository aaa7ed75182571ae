//! Unchanged Windows programs without sockpipe at the other end of a pipe.
//!
//! `scripts/windows-peers.sh` fetches the programs and sets the variables with their paths, which
//! `windows_peers/*.rs` name. A test prints that it skips a program that is missing. With
//! `SOCKPIPE_REQUIRE_PEERS` set it fails for Node.js, which is available everywhere.
//! `docs/windows_interop.md` sums up the results.
#![cfg(windows)] // Only Windows has named pipes.

mod common;
mod windows_peers {
    mod dotnet;
    mod node;
    mod winio;
}

use common::{unique_name, within};
use sockpipe::os::windows::ListenOptionsExt;
use sockpipe::{ConnectOptions, ExpectServer, ListenOptions, Listener, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TRIPS: usize = 1000;
const MEGABYTE: usize = 1 << 20;
/// The number of bytes that each peer has echoed after [`exchange`].
const EXCHANGED: usize = TRIPS * 64 + MEGABYTE;

fn listen(byte_type: bool) -> (Listener, String) {
    let options = ListenOptions::new().byte_type(byte_type);
    let listener = Listener::bind_with(unique_name(), &options).expect("a free name");
    let path = listener.endpoint().to_string();
    (listener, path)
}

fn unused_pipe() -> String {
    format!(r"\\.\pipe\{}", unique_name())
}

/// Under Wine the pipe of a foreign server has no owner to check.
fn foreign() -> ConnectOptions {
    ConnectOptions::new().expect_server(ExpectServer::Anyone)
}

async fn connect(pipe: &str, options: &ConnectOptions) -> Stream {
    within(Stream::connect_with(pipe, options)).await.expect("a connection")
}

async fn accept(listener: &mut Listener) -> Stream {
    within(listener.accept()).await.expect("a connection")
}

async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.expect("an end, not an error");
    bytes
}

/// Makes a thousand round trips with an echo server, and sends a megabyte while it reads the echo.
async fn exchange(stream: &mut Stream) {
    for trip in 0..TRIPS {
        let (sent, mut got) = ([trip as u8; 64], [0; 64]);
        within(stream.write_all(&sent)).await.expect("a write");
        within(stream.read_exact(&mut got)).await.expect("an echo");
        assert_eq!(got, sent);
    }
    let sent: Vec<u8> = (0..MEGABYTE).map(|at| (at % 251) as u8).collect();
    let mut got = vec![0; sent.len()];
    let (mut from, mut to) = stream.split();
    let both = async { tokio::join!(to.write_all(&sent), from.read_exact(&mut got)) };
    let (wrote, read) = within(both).await;
    wrote.expect("a write");
    read.expect("an echo");
    assert!(got == sent, "other bytes came back");
}
