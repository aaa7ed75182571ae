//! Windows programs that know nothing of sockpipe, unchanged, at the other end of a pipe.
//!
//! `scripts/windows-peers.sh` fetches them and says where they are, in the variables that `program`
//! below names. One that is not here is skipped with a line that says so; with
//! `SOCKPIPE_REQUIRE_PEERS` set it is a failure if it is Node.js, which can be had everywhere.
//! `docs/windows_interop.md` sums up what these tests show.
#![cfg(windows)] // There are named pipes.

mod common;
mod windows_peers {
    mod dotnet;
    mod node;
    mod winio;
}

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, unique_name, within};
use sockpipe::os::windows::ListenOptionsExt;
use sockpipe::{ConnectOptions, ExpectServer, ListenOptions, Listener, Stream};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TRIPS: usize = 1000;
const MEGABYTE: usize = 1 << 20;
/// What a peer has echoed, or sent, after the exchange that every one of them makes.
const EXCHANGED: usize = TRIPS * 64 + MEGABYTE;

/// The program that a variable names.
fn program(variable: &str) -> Option<String> {
    let Ok(path) = env::var(variable) else {
        println!("not run: {variable} does not say where it is");
        return None;
    };
    // Wine shows the root of the other file system as a drive.
    let unix = path.starts_with('/');
    let path = if unix { format!("Z:{}", path.replace('/', r"\")) } else { path };
    assert!(Path::new(&path).is_file(), "{variable}: there is no {path}");
    Some(path)
}

/// A running program that tells what it sees, a line each, in a file of its own: under Wine its
/// standard output is not always to be had.
struct Peer {
    child: Child,
    dir: TempDir,
}

impl Peer {
    /// Its last arguments are what to do, the pipe to do it with, and the file.
    fn start(mut command: Command, role: &str, pipe: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let output = File::create(dir.path().join("output")).expect("a file");
        let child = command
            .args([role, pipe])
            .arg(dir.path().join("log"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a handle"))
            .stderr(output)
            .spawn()
            .expect("a program");
        Self { child, dir }
    }

    fn said(&self) -> Vec<String> {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let output = read("output");
        assert_eq!(output, "", "it failed");
        let log = read("log");
        assert!(!log.contains("failed: "), "{log}");
        log.lines().map(str::to_owned).collect()
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

impl Drop for Peer {
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

/// A thousand round trips, and a megabyte both ways at once, with a server that echoes.
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
