//! Node.js with its own `net` module.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use sockpipe::{LocalStream, Reason, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;

use crate::common::foreign::{Peer, program};
use crate::common::{PATIENCE, assert_reason, within};
use crate::{EXCHANGED, accept, connect, exchange, foreign, listen, read_all, unused_pipe};

/// Starts the peer. Returns `None` and prints why, if it is not installed.
fn start(role: &str, pipe: &str) -> Option<Peer> {
    let Some(node) = program("SOCKPIPE_NODE_EXE") else {
        let required = std::env::var_os("SOCKPIPE_REQUIRE_PEERS").is_some();
        assert!(!required, "SOCKPIPE_NODE_EXE does not say where Node.js is");
        return None;
    };
    let mut command = Command::new(node);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pipe.js"))
        // Wine may report a version of Windows on which Node refuses to start.
        .env("NODE_SKIP_PLATFORM_CHECK", "1");
    Some(Peer::start(command, role, pipe))
}

#[tokio::test]
async fn a_node_server_exchanges_bytes_and_has_no_half_close() {
    let pipe = unused_pipe();
    let Some(node) = start("serve", &pipe) else { return };
    node.says("listening").await;
    let mut stream = connect(&pipe, &foreign()).await;
    exchange(&mut stream).await;
    // Node's pipe has byte type.
    assert_reason!(stream.shutdown().await, Reason::NoHalfClose);
    within(stream.close(PATIENCE)).await.expect("a close");
    node.says(&format!("end after {EXCHANGED}")).await;

    // On request the server ends first.
    let mut stream = connect(&pipe, &foreign().end_on_close(true)).await;
    within(stream.write_all(b"end")).await.expect("a write");
    stream.shutdown().await.expect("no half-close, but no error");
    assert_eq!(read_all(&mut stream).await, b"the end");
}

#[tokio::test]
async fn a_node_client_exchanges_bytes_and_ends() {
    for byte_type in [false, true] {
        let (mut listener, path) = listen(byte_type);
        let Some(node) = start("talk", &path) else { return };
        let mut stream = accept(&mut listener).await;
        // Node names no impersonation level, so Windows identifies it only after a write.
        let told = stream.peer_told();
        let told = async {
            if let Some(told) = told {
                assert!(told.await.expect("a peer").is_self());
            }
        };
        let (total, ()) = within(async { join!(echo::echo(&mut stream, |_| ()), told) }).await;
        // After its end, Node closes soon. An echo that arrives later fails.
        match total {
            Ok(total) => assert_eq!(total, EXCHANGED as u64 + 4),
            Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}"),
        }
        drop(stream);
        let expected = ["1000 round trips", "1048576 bytes both ways", "the end"];
        assert_eq!(node.ends().await, expected, "byte type: {byte_type}");
    }
}

/// A listener of byte type exists for such clients.
#[tokio::test]
async fn an_empty_write_of_a_node_client_is_an_end_in_a_pipe_of_message_type_only() {
    for byte_type in [false, true] {
        let (mut listener, path) = listen(byte_type);
        let Some(node) = start("empty", &path) else { return };
        let mut stream = accept(&mut listener).await;
        let mut got = [0; 32];
        let length = within(stream.read(&mut got)).await.expect("a read");
        let expected: &[u8] = if byte_type { b"after nothing" } else { b"" };
        assert_eq!(&got[..length], expected, "byte type: {byte_type}");
        drop(stream);
        // On a pipe of message type the server takes this for an end, so the client's later writes
        // may fail.
        if byte_type {
            assert_eq!(node.ends().await, ["the end"]);
        }
    }
}

#[tokio::test]
async fn a_node_client_does_not_see_a_half_close() {
    let (mut listener, path) = listen(false);
    let Some(node) = start("answer", &path) else { return };
    let mut stream = accept(&mut listener).await;
    within(stream.write_all(b"question")).await.expect("a write");
    stream.shutdown().await.expect("a half-close");
    let mut answer = [0; 6];
    within(stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"answer");
    drop(stream);
    assert_eq!(node.ends().await, ["saw no end of one direction", "the end"]);
}
