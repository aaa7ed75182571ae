//! The portability contract, row by row, against each backend that a row can apply to.
//!
//! On the OS this file tests rows 1, 2, 3, 6, 7, 9, 10, 11, 12, 14 and 18, and row 19 where `/proc`
//! lists a child's descriptors. In memory it tests rows 1, 6, 7, 10, 12 and 18, and the part of row
//! 11 that a plain drop loses nothing. The other rows do not apply in memory: no server can take
//! the name (2), no process crashes or exits (3, 11), and no child inherits anything (19).
//! docs/contract.md lists on which systems each row is tested. With the feature `blocking`,
//! `contract/blocking.rs` tests blocking streams and listeners against each other and against the
//! async ones, and lists its rows.

mod common;
mod contract {
    #[cfg(feature = "blocking")]
    mod blocking;
    mod closing;
    mod leaving;
    mod os;
}

use std::io::{ErrorKind, Read as _, Write as _};
use std::pin::pin;
use std::time::{Duration, Instant};

use common::{
    Backend, Memory, Os, argument, assert_kind, assert_reason, assert_says, spawn_helper, within,
};
use sockpipe::{ConnectOptions, Listener, LocalListener, Reason, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

async fn connected<B: Backend>(backend: &B) -> (B::Stream, B::Stream) {
    let mut listener = backend.bind().expect("a free name");
    let client = within(backend.connect()).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a connection");
    (client, server)
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.expect("an end, not an error");
    bytes
}

async fn exchange(
    one: &mut (impl AsyncRead + AsyncWrite + Unpin),
    other: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    let mut buffer = [0; 4];
    within(one.write_all(b"ping")).await.expect("a write");
    within(other.read_exact(&mut buffer)).await.expect("a read");
    assert_eq!(&buffer, b"ping");
    within(other.write_all(b"pong")).await.expect("a write");
    within(one.read_exact(&mut buffer)).await.expect("a read");
    assert_eq!(&buffer, b"pong");
}

async fn row_1_bind_listens_when_it_returns<B: Backend>() {
    let backend = B::new();
    let mut listener = backend.bind().expect("a free name");
    let mut client = within(backend.connect()).await.expect("a connection");
    let mut server = within(listener.accept()).await.expect("a connection");
    exchange(&mut client, &mut server).await;
}

async fn row_6_drop_releases_the_name<B: Backend>() {
    let backend = B::new();
    drop(backend.bind().expect("a free name"));
    assert_kind(within(backend.connect()).await, ErrorKind::NotFound);
}

async fn row_7_connect_without_a_server_fails_at_once<B: Backend>() {
    let backend = B::new();
    drop(backend.bind().expect("a free name"));
    let started = Instant::now();
    assert_kind(within(backend.connect()).await, ErrorKind::NotFound);
    // Half of the default deadline, which applies to busy servers only.
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
}

async fn row_10_shutdown_ends_one_direction_only<B: Backend>() {
    for length in [0, 1, 300_000] {
        let (mut client, mut server) = connected(&B::new()).await;
        half_close(&mut client, &mut server, length).await;
    }
}

/// `one` shuts its write side down and reads the answer that `other` sends after that end.
async fn half_close(
    one: &mut (impl AsyncRead + AsyncWrite + Unpin),
    other: &mut (impl AsyncRead + AsyncWrite + Unpin),
    length: usize,
) {
    let question = vec![7; length];
    let ask = async {
        one.write_all(&question).await.expect("a write");
        one.shutdown().await.expect("a half-close");
        read_all(one).await
    };
    let answer = async {
        assert_eq!(read_all(other).await, question);
        // Later reads return the end again.
        assert_eq!(other.read(&mut [0; 8]).await.expect("an end"), 0);
        assert_eq!(other.read(&mut [0; 8]).await.expect("an end"), 0);
        other.write_all(&question).await.expect("the other direction is open");
        other.write_all(b"answer").await.expect("the other direction is open");
        other.shutdown().await.expect("a half-close");
    };
    let (got, ()) = within(async { tokio::join!(ask, answer) }).await;
    assert_eq!(got, [&question[..], b"answer"].concat());
    let refused = within(one.write_all(b"x")).await;
    assert_kind(refused, ErrorKind::BrokenPipe);
}

async fn row_12_reads_end_and_writes_break_when_the_peer_leaves<B: Backend>() {
    let backend = B::new();
    let (mut client, mut server) = connected(&backend).await;
    // Bytes that the peer never reads must not turn its end into an error.
    within(client.write_all(b"unread")).await.expect("a write");
    within(server.write_all(b"last words")).await.expect("a write");
    drop(server);
    assert_eq!(read_all(&mut client).await, b"last words");
    assert_eq!(within(client.read(&mut [0; 8])).await.expect("an end"), 0);
    let refused = within(async {
        loop {
            client.write_all(&[0; 1024]).await?;
        }
    });
    assert_kind::<()>(refused.await, ErrorKind::BrokenPipe);
    let refused = within(client.write_all(b"again")).await;
    assert_kind(refused, ErrorKind::BrokenPipe);

    // A writer notices the same without a read.
    let (mut client, server) = connected(&B::new()).await;
    within(client.write_all(b"unread")).await.expect("a write");
    drop(server);
    let refused = within(async {
        loop {
            client.write_all(&[0; 1024]).await?;
        }
    });
    assert_kind::<()>(refused.await, ErrorKind::BrokenPipe);
    assert_eq!(read_all(&mut client).await, b"");
}

/// Returns both ends, for a test that looks at how the bytes were carried.
async fn row_18_a_flood_both_ways_does_not_deadlock<B: Backend>() -> (B::Stream, B::Stream) {
    const LENGTH: usize = 8 * 1024 * 1024;
    const CHUNK: usize = 64 * 1024;
    async fn flood<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> S {
        let (mut from, mut to) = split(stream);
        let send = async {
            for chunk in 0..LENGTH / CHUNK {
                to.write_all(&vec![chunk as u8; CHUNK]).await.expect("a write");
            }
            to.shutdown().await.expect("a half-close");
        };
        let ((), bytes) = tokio::join!(send, read_all(&mut from));
        assert_eq!(bytes.len(), LENGTH);
        let right = bytes.iter().enumerate().all(|(at, byte)| *byte == (at / CHUNK) as u8);
        assert!(right, "the bytes are not those that were sent");
        from.unsplit(to)
    }
    let backend = B::new();
    let (client, server) = connected(&backend).await;
    within(async { tokio::join!(flood(client), flood(server)) }).await
}

mod memory {
    use super::*;

    #[tokio::test]
    async fn row_1_bind_listens_when_it_returns() {
        super::row_1_bind_listens_when_it_returns::<Memory>().await;
    }

    #[tokio::test]
    async fn row_6_drop_releases_the_name() {
        super::row_6_drop_releases_the_name::<Memory>().await;
    }

    #[tokio::test]
    async fn row_7_connect_without_a_server_fails_at_once() {
        super::row_7_connect_without_a_server_fails_at_once::<Memory>().await;
    }

    #[tokio::test]
    async fn row_10_shutdown_ends_one_direction_only() {
        super::row_10_shutdown_ends_one_direction_only::<Memory>().await;
    }

    #[tokio::test]
    async fn row_12_reads_end_and_writes_break_when_the_peer_leaves() {
        super::row_12_reads_end_and_writes_break_when_the_peer_leaves::<Memory>().await;
    }

    #[tokio::test]
    async fn row_18_a_flood_both_ways_does_not_deadlock() {
        super::row_18_a_flood_both_ways_does_not_deadlock::<Memory>().await;
    }
}

/// Runs every row again in a separate process with busy polling on.
#[test]
fn the_contract_holds_with_busy_polling() {
    again(&[(common::SPIN, "1")]);
}

/// Runs every row again in shared memory: from the first byte on (`eager`), and once a stream is
/// busy (`auto`).
#[cfg(feature = "shared-memory")]
#[test]
fn the_contract_holds_in_shared_memory() {
    again(&[(common::MEMORY, "eager")]);
    again(&[(common::MEMORY, "eager"), (common::SPIN, "1")]);
    again(&[(common::MEMORY, "auto")]);
}

fn again(variables: &[(&str, &str)]) {
    let is_set = |name| std::env::var_os(name).is_some();
    if argument().is_some() || is_set(common::SPIN) || is_set(common::MEMORY) {
        return;
    }
    let program = std::env::current_exe().expect("the test's own program");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        let run = command.args(arguments).envs(variables.iter().copied()).output().expect("a run");
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
        said
    };
    let listed = run(&["os::", "closing::", "blocking::", "--list", "--format", "terse"]);

    // A row that this run skips cannot hold there either. With `--exact`, as the scripts skip rows,
    // only the row of that name is skipped.
    let arguments: Vec<_> = std::env::args().collect();
    let is_exact = arguments.iter().any(|argument| argument == "--exact");
    let is_skipped = |row: &str| {
        arguments.windows(2).filter(|pair| pair[0] == "--skip").any(|pair| match is_exact {
            true => row == pair[1],
            false => row.contains(&pair[1]),
        })
    };
    let rows = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let rows: Vec<_> = rows.filter(|row| !is_skipped(row)).collect();

    // The scripts run one test at a time where threads disturb a fork.
    let mut threads = Vec::new();
    for (at, argument) in arguments.iter().enumerate() {
        if argument == "--test-threads" {
            threads = arguments[at..].iter().take(2).map(String::as_str).collect();
        } else if argument.starts_with("--test-threads=") {
            threads = vec![argument];
        }
    }
    let said = run(&[&["--exact"], &threads[..], &rows[..]].concat());
    let ran = said.lines().filter(|line| line.ends_with("... ok")).count();
    println!("{ran} tests of the contract with {variables:?}");
    assert!(ran > 20 && ran == rows.len(), "{} rows: {said}", rows.len());
}
