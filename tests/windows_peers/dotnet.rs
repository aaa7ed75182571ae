//! .NET's `NamedPipeServerStream` and `NamedPipeClientStream`. By default they read in byte mode,
//! and they never write an empty message.

use std::process::Command;

use sockpipe::{Reason, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::foreign::{Peer, program};
use crate::common::{PATIENCE, assert_reason, within};
use crate::{EXCHANGED, accept, connect, exchange, foreign, listen, read_all, unused_pipe};

/// Starts the peer. Returns `None` and prints why, if it is not installed.
fn start(role: &str, pipe: &str) -> Option<Peer> {
    let (dotnet, peer) = (program("SOCKPIPE_DOTNET_EXE")?, program("SOCKPIPE_DOTNET_PEER")?);
    let mut command = Command::new(dotnet);
    command.args(["exec", &peer]);
    Some(Peer::start(command, role, pipe))
}

#[tokio::test]
async fn a_dotnet_server_of_byte_type_has_no_half_close() {
    let pipe = unused_pipe();
    let Some(dotnet) = start("serve", &pipe) else { return };
    dotnet.says("listening").await;
    let mut stream = connect(&pipe, &foreign()).await;
    exchange(&mut stream).await;
    assert_reason!(stream.shutdown().await, Reason::NoHalfClose);
    within(stream.close(PATIENCE)).await.expect("a close");
    assert_eq!(dotnet.ends().await, ["listening", &format!("end after {EXCHANGED}")]);
}

#[tokio::test]
async fn a_dotnet_server_of_message_type_sees_a_half_close_and_answers() {
    let pipe = unused_pipe();
    let Some(dotnet) = start("serve-messages", &pipe) else { return };
    dotnet.says("listening").await;
    let mut stream = connect(&pipe, &foreign()).await;
    exchange(&mut stream).await;
    within(stream.shutdown()).await.expect("a half-close");
    // The peer answers, waits until that is read, and closes.
    assert_eq!(read_all(&mut stream).await, b"bye");
    assert_eq!(dotnet.ends().await, ["listening", &format!("end after {EXCHANGED}")]);
}

#[tokio::test]
async fn a_dotnet_client_exchanges_bytes_and_closes() {
    for byte_type in [false, true] {
        let (mut listener, path) = listen(byte_type);
        let Some(dotnet) = start("talk", &path) else { return };
        let mut stream = accept(&mut listener).await;
        let total = within(echo::echo(&mut stream, |_| ())).await.expect("an end, not an error");
        assert_eq!(total, EXCHANGED as u64);
        let expected = ["1000 round trips", "1048576 bytes both ways"];
        assert_eq!(dotnet.ends().await, expected, "byte type: {byte_type}");
    }
}

#[tokio::test]
async fn a_dotnet_client_sees_a_half_close_and_answers() {
    for length in [8, 200_000] {
        let (mut listener, path) = listen(false);
        let Some(dotnet) = start("answer", &path) else { return };
        let mut stream = accept(&mut listener).await;
        within(stream.write_all(&vec![1; length])).await.expect("a write");
        stream.shutdown().await.expect("a half-close");
        let mut answer = [0; 6];
        within(stream.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"answer");
        assert_eq!(read_all(&mut stream).await, b"");
        assert_eq!(dotnet.ends().await, [format!("end after {length}")]);
    }
}
