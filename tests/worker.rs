//! A child process with a stream to the process that started it.

mod common;

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{assert_kind, helper_command, within};
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The program of the child.
#[tokio::test]
async fn helper_worker() {
    let Some(behaviour) = common::argument() else { return };
    let stream = Stream::from_parent();
    if behaviour == "by hand" {
        let error = assert_kind(stream, ErrorKind::InvalidInput);
        // On Windows the error has no operation.
        if cfg!(unix) {
            let error = sockpipe::Error::of(&error).expect("an error of the crate");
            assert_eq!(error.operation(), sockpipe::Operation::Adopt, "{error}");
            assert!(error.advice().is_some(), "{error}");
        }
        return;
    }
    let mut stream = stream.expect("an end");
    let mut byte = [0];
    within(stream.read_exact(&mut byte)).await.expect("a request");
    within(stream.write_all(&byte)).await.expect("an answer");
    if behaviour == "goes on" {
        // The worker's own child does not inherit the stream.
        let mut command = helper_command("helper_that_outlives_the_worker", "");
        command.stdin(Stdio::inherit()).stdout(Stdio::null());
        let mut child = command.spawn().expect("a process");
        drop(stream);
        child.wait().expect("an end");
    }
}

/// The program of the worker's own child.
#[test]
fn helper_that_outlives_the_worker() {
    if common::argument().is_some() {
        std::thread::sleep(Duration::from_secs(20));
    }
}

fn command(behaviour: &str) -> Command {
    let mut command = helper_command("helper_worker", behaviour);
    command.stdout(Stdio::null());
    command
}

#[tokio::test]
async fn a_child_answers_its_parent_and_the_stream_ends_when_it_exits() {
    let mut command = command("ends");
    let (mut stream, mut child) = Stream::pair_with_child(&mut command).expect("a child");
    within(stream.write_all(b"x")).await.expect("a write");
    assert_eq!(within(common::read_all(&mut stream)).await, b"x");
    assert!(child.wait().expect("an end").success());
    drop(command);
}

#[tokio::test]
async fn the_stream_ends_when_the_child_drops_it_and_keeps_running() {
    let (mut stream, mut child) =
        Stream::pair_with_child(&mut command("goes on")).expect("a child");
    within(stream.write_all(b"x")).await.expect("a write");
    assert_eq!(within(common::read_all(&mut stream)).await, b"x");
    assert!(child.try_wait().expect("a child").is_none(), "it ended");
    child.kill().expect("a child");
    child.wait().expect("an end");
}

#[test]
fn from_parent_fails_in_a_program_started_by_hand() {
    let mut command = command("by hand");
    assert!(command.stdin(Stdio::null()).status().expect("a process").success());
}

#[cfg(feature = "blocking")]
#[test]
fn a_blocking_parent_gets_an_answer_from_its_child() {
    use std::io::{Read, Write};

    use sockpipe::blocking;

    let mut command = command("ends");
    let (mut stream, mut child) = blocking::Stream::pair_with_child(&mut command).expect("a child");
    stream.write_all(b"x").expect("a write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an end");
    assert_eq!(answer, b"x");
    assert!(child.wait().expect("an end").success());
}
