//! Windows only: pipes of byte type cannot carry the end of one direction, and sockets have no
//! descriptor numbers.
#![cfg(windows)]

mod common;

use std::time::Duration;

use common::{Backend, Os, Tool, run, within};
use sockpipe::os::windows::ListenOptionsExt;
use sockpipe::{ListenOptions, Listener, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn byte_type(os: &Os) -> Listener {
    let options = ListenOptions::new().byte_type(true);
    Listener::bind_with(os.endpoint(), &options).expect("a free name")
}

async fn read(stream: &mut Stream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    within(stream.read_exact(&mut got)).await.expect("bytes");
    assert_eq!(got, expected);
}

async fn wait(tool: Tool) -> common::Ended {
    let ended = tokio::task::spawn_blocking(|| tool.wait());
    within(ended).await.expect("no panic")
}

/// The server does not learn that the input has ended. The warning says that it may still answer.
#[tokio::test]
async fn connect_warns_when_a_pipe_cannot_carry_the_end_of_input() {
    let os = Os::new();
    let mut listener = byte_type(&os);
    let mut client = Tool::start(&["connect", os.endpoint()]);
    client.type_in("question");
    client.end_input();
    let mut stream = within(listener.accept()).await.expect("a client");
    read(&mut stream, b"question").await;
    client.await_err("--close");
    stream.write_all(b"answer").await.expect("a write");
    stream.close(Duration::from_secs(5)).await.expect("a close");
    let ended = wait(client).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "answer"), "{ended:?}");
    assert!(ended.err.starts_with("warning: the server's pipe cannot carry"), "{ended:?}");
}

#[tokio::test]
async fn close_ends_a_pipe_that_has_no_half_close() {
    let os = Os::new();
    let mut listener = byte_type(&os);
    let mut client = Tool::start(&["connect", "--close", os.endpoint()]);
    client.type_in("last words");
    client.end_input();
    let mut stream = within(listener.accept()).await.expect("a client");
    read(&mut stream, b"last words").await;
    assert_eq!(within(stream.read(&mut [0])).await.expect("an end"), 0);
    wait(client).await.assert_succeeds();
}

#[tokio::test]
async fn a_relay_closes_a_pipe_without_half_close_once_it_is_quiet() {
    let (front, behind) = (Os::new(), Os::new());
    let mut listener = byte_type(&behind);
    let mut relay = Tool::listening(&["relay", front.endpoint(), behind.endpoint()]);
    let mut client = Tool::start(&["connect", front.endpoint()]);
    client.type_in("question");
    client.end_input();
    let mut stream = within(listener.accept()).await.expect("a client");
    read(&mut stream, b"question").await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        stream.write_all(b"answer").await.expect("a write");
    }
    assert_eq!(within(stream.read(&mut [0])).await.expect("an end"), 0);
    let ended = wait(client).await.assert_succeeds();
    assert_eq!(ended.text(), "answer".repeat(5));
    relay.await_err("--linger waits longer");
}

#[tokio::test]
async fn a_relay_that_lingers_waits_for_a_late_answer() {
    let (front, behind) = (Os::new(), Os::new());
    let mut listener = byte_type(&behind);
    let arguments = ["relay", "--linger", "30", front.endpoint(), behind.endpoint()];
    let _relay = Tool::listening(&arguments);
    let mut client = Tool::start(&["connect", front.endpoint()]);
    client.type_in("question");
    client.end_input();
    let mut stream = within(listener.accept()).await.expect("a client");
    read(&mut stream, b"question").await;
    // This is longer than the default wait.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stream.write_all(b"answer").await.expect("a write");
    stream.close(Duration::from_secs(5)).await.expect("a close");
    let ended = wait(client).await.assert_succeeds();
    assert_eq!(ended.text(), "answer");
}

/// For each verb the message names what to use instead.
#[test]
fn a_descriptor_number_is_a_usage_error() {
    let os = Os::new();
    for arguments in [
        &["listen", "fd:3"][..],
        &["echo", "fd:3"],
        &["connect", "fd:3"],
        &["relay", "fd:3", os.endpoint()],
        &["relay", "stdio:", "fd:3"],
    ] {
        run(arguments).assert_fails(2, &["fd:3", "on Unix only", "use a name or a pipe"]);
    }
}
