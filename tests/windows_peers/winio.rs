//! go-winio, whose convention for the end of one direction we use. It reads in byte mode.

use std::process::Command;

use sockpipe::{Reason, Stream, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::foreign::{Peer, program};
use crate::common::wine::is_wine;
use crate::common::{PATIENCE, assert_reason, within};
use crate::{EXCHANGED, accept, connect, exchange, foreign, listen, read_all, unused_pipe};

/// Starts the peer. Returns `None` and prints why, if it is not installed.
fn start(role: &str, pipe: &str) -> Option<Peer> {
    Some(Peer::start(Command::new(program("SOCKPIPE_WINIO_PEER")?), role, pipe))
}

/// Starts a server. Returns it with a stream that has to be kept while it runs.
async fn serve(role: &str, pipe: &str) -> Option<(Peer, Option<Stream>)> {
    let winio = start(role, pipe)?;
    winio.says("listening").await;
    // The server's first handle only keeps the name. Wine lets a client have that one.
    let first = if is_wine() { Some(connect(pipe, &foreign()).await) } else { None };
    Some((winio, first))
}

#[tokio::test]
async fn a_winio_server_of_message_type_ends_each_direction() {
    let pipe = unused_pipe();
    let Some((winio, _first)) = serve("serve", &pipe).await else { return };
    let mut stream = connect(&pipe, &foreign()).await;
    exchange(&mut stream).await;
    within(stream.shutdown()).await.expect("a half-close");
    assert_eq!(read_all(&mut stream).await, b"the end");
    assert_eq!(winio.ends().await, ["listening", &format!("end after {EXCHANGED}")]);
}

#[tokio::test]
async fn a_winio_server_of_byte_type_has_no_half_close() {
    if is_wine() {
        println!("not run under Wine: it takes go-winio's refusal of the network for message type");
        return;
    }
    let pipe = unused_pipe();
    let Some((winio, _first)) = serve("serve-bytes", &pipe).await else { return };
    let mut stream = connect(&pipe, &foreign()).await;
    exchange(&mut stream).await;
    assert_reason!(stream.shutdown().await, Reason::NoHalfClose);
    within(stream.close(PATIENCE)).await.expect("a close");
    assert_eq!(winio.ends().await, ["listening", &format!("end after {EXCHANGED}")]);
}

#[tokio::test]
async fn a_winio_client_ends_its_direction_and_reads_ours_to_the_end() {
    let (mut listener, path) = listen(false);
    let Some(winio) = start("talk", &path) else { return };
    let mut stream = accept(&mut listener).await;
    // When the client ends its direction, the echo ends its own, and stays open.
    let total = within(echo::echo(&mut stream, |_| ())).await.expect("an end, not an error");
    assert_eq!(total, EXCHANGED as u64);
    let expected = ["1000 round trips", "1048576 bytes both ways", r#"the end, after """#];
    assert_eq!(winio.ends().await, expected);
}

#[tokio::test]
async fn a_winio_client_sees_a_half_close_and_answers() {
    for length in [8, 200_000] {
        let (mut listener, path) = listen(false);
        let Some(winio) = start("answer", &path) else { return };
        let mut stream = accept(&mut listener).await;
        within(stream.write_all(&vec![1; length])).await.expect("a write");
        stream.shutdown().await.expect("a half-close");
        let mut answer = [0; 6];
        within(stream.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"answer");
        assert_eq!(read_all(&mut stream).await, b"");
        assert_eq!(winio.ends().await, [format!("end after {length}")]);
    }
}
