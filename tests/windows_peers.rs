//! Windows programs that know nothing of sockpipe, unchanged, at the other end of a pipe.
//!
//! `SOCKPIPE_NODE_EXE` says where Node.js is; `scripts/windows-peers.sh` fetches it. A peer that is
//! not here is skipped with a line that says so; with `SOCKPIPE_REQUIRE_PEERS` set it is a failure.
//! `docs/windows_interop.md` tells what is known of those that cannot be had here.
#![cfg(windows)] // There are named pipes.

mod common;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, assert_error, unique_name, within};
use sockpipe::os::windows::ListenOptionsExt;
use sockpipe::{ConnectOptions, ExpectServer, ListenOptions, Listener, Stream, echo};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn node_exe() -> Option<String> {
    if let Ok(path) = std::env::var("SOCKPIPE_NODE_EXE") {
        // Wine shows the root of the other file system as a drive.
        let unix = path.starts_with('/');
        let path = if unix { format!("Z:{}", path.replace('/', r"\")) } else { path };
        assert!(Path::new(&path).is_file(), "SOCKPIPE_NODE_EXE: there is no {path}");
        return Some(path);
    }
    let required = std::env::var_os("SOCKPIPE_REQUIRE_PEERS").is_some();
    assert!(!required, "SOCKPIPE_NODE_EXE does not say where Node.js is");
    println!("not run: SOCKPIPE_NODE_EXE does not say where Node.js is");
    None
}

struct Node {
    child: Child,
    dir: TempDir,
}

impl Node {
    /// `None`, and a line that says so, where there is none.
    fn start(role: &str, pipe: &str) -> Option<Self> {
        let program = node_exe()?;
        let dir = tempfile::tempdir().expect("a directory");
        let output = File::create(dir.path().join("output")).expect("a file");
        let child = Command::new(program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pipe.js"))
            .args([role, pipe])
            .arg(dir.path().join("log"))
            // Wine may say that it is a Windows on which Node does not start by itself.
            .env("NODE_SKIP_PLATFORM_CHECK", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a handle"))
            .stderr(output)
            .spawn()
            .expect("Node.js");
        Some(Self { child, dir })
    }

    fn said(&self) -> Vec<String> {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let output = read("output");
        assert_eq!(output, "", "Node.js failed");
        read("log").lines().map(str::to_owned).collect()
    }

    async fn says(&self, line: &str) {
        let started = Instant::now();
        loop {
            let said = self.said();
            if said.iter().any(|said| said == line) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{line:?} is not in {said:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ends(mut self) -> Vec<String> {
        let started = Instant::now();
        loop {
            let status = self.child.try_wait().expect("a child");
            let said = self.said();
            if let Some(status) = status {
                assert!(status.success(), "{status}: {said:?}");
                return said;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end; it said {said:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(byte_type: bool) -> (Listener, String) {
    let options = ListenOptions::new().byte_type(byte_type);
    let listener = Listener::bind_with(unique_name(), &options).expect("a free name");
    let path = listener.endpoint().to_string();
    (listener, path)
}

async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.expect("an end, not an error");
    bytes
}

#[tokio::test]
async fn a_node_server() {
    let pipe = format!(r"\\.\pipe\{}", unique_name());
    let Some(node) = Node::start("serve", &pipe) else { return };
    node.says("listening").await;
    // Under Wine its pipe has no owner to check.
    let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
    let mut stream = within(Stream::connect_with(&pipe, &options)).await.expect("a connection");
    for trip in 0..1000 {
        let (sent, mut got) = ([trip as u8; 64], [0; 64]);
        within(stream.write_all(&sent)).await.expect("a write");
        within(stream.read_exact(&mut got)).await.expect("an echo");
        assert_eq!(got, sent);
    }
    let sent: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    let mut got = vec![0; sent.len()];
    let (mut from, mut to) = stream.split();
    let both = async { tokio::join!(to.write_all(&sent), from.read_exact(&mut got)) };
    let (wrote, read) = within(both).await;
    wrote.expect("a write");
    read.expect("an echo");
    assert!(got == sent, "other bytes came back");
    // Its pipe is of byte type.
    assert_error(stream.shutdown().await, ErrorKind::Unsupported, &["byte type"]);
    within(stream.close(PATIENCE)).await.expect("a close");
    node.says(&format!("end after {}", 64_000 + (1 << 20))).await;

    // Told to, the server ends first.
    let options = options.end_on_close(true);
    let mut stream = within(Stream::connect_with(&pipe, &options)).await.expect("a connection");
    within(stream.write_all(b"end")).await.expect("a write");
    stream.shutdown().await.expect("no half-close, but no error");
    assert_eq!(read_all(&mut stream).await, b"the end");
}

#[tokio::test]
async fn a_node_client_talks_and_ends() {
    for byte_type in [false, true] {
        let (mut listener, path) = listen(byte_type);
        let Some(node) = Node::start("talk", &path) else { return };
        let mut stream = within(listener.accept()).await.expect("a connection");
        let total = within(echo::echo(&mut stream, |_| ())).await;
        // To Node, to end is to close after a while: what comes back too late meets nobody.
        match total {
            Ok(total) => assert_eq!(total, 64_000 + (1 << 20) + 4),
            Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}"),
        }
        drop(stream);
        let expected = ["1000 round trips", "1048576 bytes both ways", "the end"];
        assert_eq!(node.ends().await, expected, "byte type: {byte_type}");
    }
}

/// What a listener of byte type is for.
#[tokio::test]
async fn an_empty_write_of_a_node_client_is_an_end_in_a_pipe_of_message_type_only() {
    for byte_type in [false, true] {
        let (mut listener, path) = listen(byte_type);
        let Some(node) = Node::start("empty", &path) else { return };
        let mut stream = within(listener.accept()).await.expect("a connection");
        let mut got = [0; 32];
        let length = within(stream.read(&mut got)).await.expect("a read");
        let expected: &[u8] = if byte_type { b"after nothing" } else { b"" };
        assert_eq!(&got[..length], expected, "byte type: {byte_type}");
        drop(stream);
        // Where it was taken to have ended it may still be writing, and fail.
        if byte_type {
            assert_eq!(node.ends().await, ["the end"]);
        }
    }
}

#[tokio::test]
async fn a_node_client_does_not_see_a_half_close() {
    let (mut listener, path) = listen(false);
    let Some(node) = Node::start("answer", &path) else { return };
    let mut stream = within(listener.accept()).await.expect("a connection");
    within(stream.write_all(b"question")).await.expect("a write");
    stream.shutdown().await.expect("a half-close");
    let mut answer = [0; 6];
    within(stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"answer");
    drop(stream);
    assert_eq!(node.ends().await, ["saw no end of one direction", "the end"]);
}

#[test]
fn dotnet_and_go_winio() {
    println!("not run: nothing here fetches .NET's runtime, nor builds go-winio for Windows");
}
