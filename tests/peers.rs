//! Unchanged programs without sockpipe exchange bytes with the echo examples.
//!
//! A test prints that it skips a program that is not installed. With `SOCKPIPE_REQUIRE_PEERS` set
//! it fails instead.
#![cfg(unix)] // The peers here speak Unix domain sockets.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::process::{Running, client, example, is_here, server, text};
use common::{Backend, Os, PATIENCE};

fn peer(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `command` with `input` and returns its exit code and output.
#[track_caller]
fn talk(mut command: Command, input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("a process");
    let mut keyboard = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // A program that exits before it has read everything shows that in its exit code.
        scope.spawn(move || drop(keyboard.write_all(input)));
        child.wait_with_output().expect("an end")
    });
    println!("$ {command:?}, given {} bytes: {}", input.len(), text(&output.stdout).len());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Runs our client with `input` once the peer listens.
#[track_caller]
fn our_client(endpoint: &str, input: &[u8]) -> (Option<i32>, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = example("echo_client");
        command.args([endpoint, "--stdin"]);
        let (code, out, err) = talk(command, input);
        if !err.contains("no server at ") {
            assert_eq!(err, "");
            return (code, out);
        }
        assert!(Instant::now() < deadline, "the peer does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tests a peer that has an echo server and an echo client, each against ours.
fn both_ways(
    mut as_server: impl FnMut(&str) -> Command,
    mut as_client: impl FnMut(&str) -> Command,
) {
    let os = Os::new();
    let theirs = Running::start(as_server(os.endpoint()));
    let sent = "olá mundo\n".repeat(20_000);
    assert_eq!(our_client(os.endpoint(), sent.as_bytes()), (Some(0), sent));
    let (status, ..) = theirs.wait();
    assert!(status.success(), "{status}");

    let os = Os::new();
    let ours = server(os.endpoint(), &["--quiet"]);
    assert_eq!(
        talk(as_client(os.endpoint()), b""),
        (Some(0), "ok 65536\n".to_owned(), String::new())
    );
    ours.crash();
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

#[test]
fn python_exchanges_bytes_as_server_and_client() {
    if is_here("python3") {
        let path = source("peer.py");
        let run = |role: &str, endpoint: &str| {
            peer("python3", &[path.to_str().expect("UTF-8"), role, endpoint])
        };
        both_ways(|endpoint| run("server", endpoint), |endpoint| run("client", endpoint));
    }
}

#[test]
fn node_exchanges_bytes_as_server_and_client() {
    if is_here("node") {
        let path = source("peer.js");
        let run = |role: &str, endpoint: &str| {
            peer("node", &[path.to_str().expect("UTF-8"), role, endpoint])
        };
        both_ways(|endpoint| run("server", endpoint), |endpoint| run("client", endpoint));
    }
}

#[test]
fn go_exchanges_bytes_as_server_and_client() {
    if is_here("go") {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("peer");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(source("peer.go"))
            .env("GO111MODULE", "off")
            .env("GOFLAGS", "")
            .output()
            .expect("a process");
        assert!(built.status.success(), "{}", text(&built.stderr));
        let program = program.to_str().expect("UTF-8");
        let run = |role: &str, endpoint: &str| peer(program, &[role, endpoint]);
        both_ways(|endpoint| run("server", endpoint), |endpoint| run("client", endpoint));
    }
}

#[test]
fn socat_exchanges_bytes_as_server_and_client() {
    if is_here("socat") {
        let listen = |endpoint: &str| {
            peer("socat", &["-t", "30", &format!("UNIX-LISTEN:{endpoint}"), "EXEC:cat"])
        };
        // socat is not an echo client: it prints what it receives.
        let os = Os::new();
        let theirs = Running::start(listen(os.endpoint()));
        let sent = "olá mundo\n".repeat(20_000);
        assert_eq!(our_client(os.endpoint(), sent.as_bytes()), (Some(0), sent.clone()));
        assert!(theirs.wait().0.success());

        let os = Os::new();
        let _ours = server(os.endpoint(), &["--quiet"]);
        let connect = peer("socat", &["-t", "30", "-", &format!("UNIX-CONNECT:{}", os.endpoint())]);
        assert_eq!(talk(connect, sent.as_bytes()), (Some(0), sent, String::new()));
    }
}

#[test]
fn netcat_exchanges_lines_as_server_and_client() {
    if is_here("nc") {
        // Netcat does not echo: our client receives what netcat reads from its standard input.
        let os = Os::new();
        let mut theirs = Running::start(peer("nc", &["-l", "-U", os.endpoint()]));
        let mut keyboard = theirs.child.stdin.take().expect("a pipe");
        keyboard.write_all(b"pong\n").expect("a write");
        drop(keyboard);
        assert_eq!(our_client(os.endpoint(), b"ping\n"), (Some(0), "pong\n".to_owned()));
        assert_eq!(theirs.next_line(), "ping");
        assert!(theirs.wait().0.success());

        let os = Os::new();
        let ours = server(os.endpoint(), &[]);
        let typed = peer("nc", &["-N", "-U", os.endpoint()]);
        assert_eq!(talk(typed, b"hello\n"), (Some(0), "hello\n".to_owned(), String::new()));
        assert_eq!(ours.next_line(), "echo: hello");
        // The server still serves after netcat has left.
        assert!(client(os.endpoint(), &["--count", "1"]).status.success());
    }
}
