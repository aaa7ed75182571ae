//! The other examples, run as their headers say.
//!
//! The examples use fixed names, so each test gives them a runtime directory of its own.
#![cfg(target_os = "linux")] // Elsewhere the runtime directory cannot be chosen.

mod common;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::process::{Running, example, text};
use rustix::process::Signal;
use sockpipe::Stream;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn runtime_dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn in_dir(dir: &TempDir, name: &str, arguments: &[&str]) -> Command {
    let mut command = example(name);
    command.env("XDG_RUNTIME_DIR", dir.path()).args(arguments);
    command
}

#[test]
fn the_daemon_example_starts_one_daemon() {
    let dir = runtime_dir();
    let ask = || {
        let output = in_dir(&dir, "daemon", &[]).output().expect("a process");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let first = ask();
    let pid = first.strip_prefix("hello from the daemon, process ").expect("a greeting").trim();
    assert_eq!(ask(), first, "a second daemon answered");
    // The daemon would exit by itself, but too late for a test.
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, Signal::KILL).expect("a signal");
}

#[test]
fn the_single_instance_example_passes_its_files_to_the_first() {
    let dir = runtime_dir();
    let first = Running::start(in_dir(&dir, "single_instance", &["a.txt"]));
    assert!(first.next_line().starts_with(r#"the first; opening ["a.txt"]"#));
    let output = in_dir(&dir, "single_instance", &["b.txt", "c.txt"]).output();
    let output = output.expect("a process");
    assert_eq!(text(&output.stdout), "it runs already; it opens [\"b.txt\", \"c.txt\"]\n");
    assert!(first.next_line().starts_with(r#"opening ["b.txt", "c.txt"] from "#));
    first.crash();
}

#[test]
fn the_graceful_example_ends_an_idle_client_at_a_signal() {
    let dir = runtime_dir();
    let server = Running::start(in_dir(&dir, "graceful", &[]));
    assert!(server.next_line().starts_with("listening on "));
    let client = Running::start(in_dir(&dir, "echo_client", &["--interval", "600000"]));
    while !client.next_line().starts_with("received: ") {}
    server.signal(Signal::INT);
    // An idle client does not delay the stop until the deadline.
    let (status, out, err) = server.wait();
    assert_eq!(out, ["1 connections finished, 0 were cut"], "{err:?}");
    assert!(status.success());
    assert!(client.wait().0.success());
}

#[test]
fn the_worker_example_answers_each_line() {
    let output = in_dir(&runtime_dir(), "worker", &[]).output().expect("a process");
    assert_eq!(text(&output.stdout), "ONE\nTWO\nTHREE\n", "{}", text(&output.stderr));
}

#[test]
fn the_upgrade_example_hands_its_name_over() {
    let dir = runtime_dir();
    let old = Running::start(in_dir(&dir, "upgrade", &[]));
    assert!(old.next_line().contains(" listens on "));
    let client = ["sockpipe-example-upgrade", "--interval", "600000"];
    let client = Running::start(in_dir(&dir, "echo_client", &client));
    while !client.next_line().starts_with("received: ") {}
    let new = Running::start(in_dir(&dir, "upgrade", &[]));
    assert!(new.next_line().contains(" listens on "));
    // The old process exits once its client has left.
    client.crash();
    let (status, out, err) = old.wait();
    assert_eq!(out, ["1 connections finished, 0 were cut"], "{err:?}");
    assert!(status.success());
    new.signal(Signal::TERM);
    assert!(new.wait().0.success());
}

/// systemd passes the socket as descriptor 3 and sets variables that say so.
#[tokio::test]
async fn the_activated_example_serves_a_passed_socket() {
    let dir = runtime_dir();
    let path = dir.path().join("given.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).expect("a free name");
    let mut command = Command::new("sh");
    // The shell replaces itself by the program, which therefore has the shell's process id.
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=given exec "$0" 3<&0 </dev/null"#;
    command
        .args(["-c", script])
        .arg(example("activated").get_program())
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let server = Running::start(command);
    assert_eq!(server.next_line(), format!("listening on {}", path.display()));
    let mut stream = common::within(Stream::connect(path.as_path())).await.expect("a connection");
    stream.write_all(b"hello").await.expect("a write");
    stream.shutdown().await.expect("a half-close");
    let mut answer = String::new();
    common::within(stream.read_to_string(&mut answer)).await.expect("an end");
    assert_eq!(answer, "hello");
    server.signal(Signal::TERM);
    assert!(server.wait().0.success());
    // The socket belongs to the service manager, so the program leaves it in place.
    assert!(path.exists());
}

/// A server that prints its address has installed its signal handlers before.
#[test]
fn a_signal_right_after_the_listening_line_stops_the_server() {
    let rounds = if std::env::var_os("SOCKPIPE_FULL").is_some() { 1000 } else { 50 };
    for _ in 0..rounds {
        let dir = runtime_dir();
        let server = Running::start(in_dir(&dir, "echo_server", &[]));
        assert!(server.next_line().starts_with("listening on "));
        server.signal(Signal::TERM);
        let (status, ..) = server.wait();
        assert!(status.success(), "{status}");
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
