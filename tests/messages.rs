//! The examples that exchange messages. A peer that sends nonsense ends its own connection only.

mod common;

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::process::{Running, example, text};
use common::{Backend, Os, argument, helper_command, within};
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The length of the longest message that the examples accept.
const LONGEST: usize = 1 << 20;

/// Whether to run the full counts, which take longer.
fn full() -> bool {
    std::env::var_os("SOCKPIPE_FULL").is_some()
}

struct Server {
    os: Os,
    running: Running,
    name: &'static str,
}

impl Server {
    fn start(name: &'static str) -> Self {
        let os = Os::new();
        let mut command = example(name);
        command.arg("serve").env("SOCKPIPE_ENDPOINT", os.endpoint());
        let running = Running::start(command);
        assert!(running.next_line().starts_with("listening on "));
        Self { os, running, name }
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = example(self.name);
        let output = command.args(arguments).env("SOCKPIPE_ENDPOINT", self.os.endpoint()).output();
        let output = output.expect("a process");
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The next error that the server printed about a connection.
    #[track_caller]
    fn next_error(&self) -> String {
        self.running.err.recv_timeout(common::PATIENCE).expect("a line")
    }

    async fn connect(&self) -> Stream {
        within(self.os.connect()).await.expect("a connection")
    }

    /// The memory in use by the server, where the system reports it.
    fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.of_the_system("status")?).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        Some(kib * 1024)
    }

    /// The number of descriptors that the server has open, where the system reports it.
    fn descriptors(&self) -> Option<usize> {
        Some(std::fs::read_dir(self.of_the_system("fd")?).ok()?.count())
    }

    /// A file of proc(5) about the server. Under Wine the process has the same number there.
    fn of_the_system(&self, file: &str) -> Option<String> {
        cfg!(unix).then(|| format!("/proc/{}/{file}", self.running.child.id()))
    }
}

/// Sends `bytes`, or as many as the server accepts, and reads the answer until the end.
async fn send(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = server.connect().await;
    if within(stream.write_all(bytes)).await.is_ok() {
        let _ = within(stream.shutdown()).await;
    }
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.expect("an end");
    answer
}

fn frame(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text].concat()
}

/// A connection that stays open during a test and must not be affected.
struct Bystander(Stream);

impl Bystander {
    async fn of(server: &Server) -> Self {
        let mut bystander = Self(server.connect().await);
        bystander.is_served().await;
        bystander
    }

    async fn is_served(&mut self) {
        let question = frame(br#"{"Sum":{"numbers":[1,2,39]}}"#);
        within(self.0.write_all(&question)).await.expect("a write");
        let expected = frame(br#"{"Sum":42}"#);
        let mut answer = vec![0; expected.len()];
        within(self.0.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(answer, expected);
    }
}

#[test]
fn the_typed_messages_example_answers_requests() {
    let server = Server::start("typed_messages");
    assert_eq!(server.ask(&["sum", "1", "2", "39"]).expect("an answer"), "Sum(42)\n");
    assert_eq!(server.ask(&["greet", "mundo"]).expect("an answer"), "Greeting(\"olá mundo\")\n");
    let most = i64::MAX.to_string();
    let refused = server.ask(&["sum", &most, "1"]).expect("an answer");
    assert_eq!(refused, "Refused(\"the sum is too large\")\n");
    let usage = server.ask(&[]).expect_err("no request");
    assert!(usage.contains("usage: typed_messages"), "{usage}");
}

#[test]
fn the_json_rpc_example_answers_calls() {
    let server = Server::start("json_rpc");
    assert_eq!(server.ask(&["add", "[1, 2, 39]"]).expect("an answer"), "42.0\n");
    let error = server.ask(&["subtract", "[]"]).expect_err("no such method");
    assert!(error.contains("-32601"), "{error}");
    let error = server.ask(&["add", "[\"one\"]"]).expect_err("no number");
    assert!(error.contains("-32602"), "{error}");
}

/// The server refuses such a frame without allocating memory for it.
#[tokio::test]
async fn a_frame_that_is_too_long_is_refused_at_its_header() {
    let server = Server::start("typed_messages");
    let mut bystander = Bystander::of(&server).await;
    // The memory in use after one such connection is the baseline.
    send(&server, &frame(b"no JSON")).await;
    server.next_error();
    let before = server.memory();
    let max = LONGEST as u64;
    for announced in [0, max, max + 1, (1 << 31) - 1, (1 << 32) - 1, 1 << 63, u64::MAX] {
        let mut header: Vec<u8> = match u32::try_from(announced) {
            Ok(length) => length.to_be_bytes().to_vec(),
            // This length does not fit the header, so its first four bytes are taken as the length.
            Err(_) => announced.to_be_bytes().to_vec(),
        };
        header.push(b'x');
        // With 50 connections an allocation for each would show.
        for _ in 0..50 {
            let mut stream = server.connect().await;
            within(stream.write_all(&header)).await.expect("a write");
            let _ = within(stream.shutdown()).await;
            let mut answer = Vec::new();
            within(stream.read_to_end(&mut answer)).await.expect("an end");
            assert!(answer.is_empty(), "{announced}: {answer:?}");
            let error = server.next_error();
            // An empty message is incomplete JSON, which is an early end too.
            let kind = if announced <= max { "UnexpectedEof" } else { "InvalidData" };
            assert!(error.contains(kind), "{announced}: {error}");
        }
        bystander.is_served().await;
    }
    if let (Some(before), Some(after)) = (before, server.memory()) {
        let more = after.saturating_sub(before);
        println!("{} KiB more in use after 350 headers", more / 1024);
        assert!(more < LONGEST as u64, "{more} bytes more");
    }
    // The server reads the longest allowed message.
    let text = [r#"{"Greet":{"name":""#, &"x".repeat(LONGEST - 100), r#""}}"#].concat();
    let answer = send(&server, &frame(text.as_bytes())).await;
    assert_eq!(answer.len(), 4 + r#"{"Greeting":"olá "}"#.len() + LONGEST - 100);
    bystander.is_served().await;
}

/// The bytes come with and without a valid frame around them.
#[tokio::test]
async fn random_bytes_end_their_own_connection_only() {
    let server = Server::start("typed_messages");
    let mut bystander = Bystander::of(&server).await;
    let seeds = if full() { 1000 } else { 100 };
    let mut bytes = vec![0; 1_000_000];
    for seed in 1..=seeds {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        for chunk in bytes.chunks_mut(8) {
            // xorshift64, Marsaglia 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        match seed % 3 {
            0 => {}
            // A valid frame around random bytes.
            1 => bytes[..4].copy_from_slice(&999_996_u32.to_be_bytes()),
            // A valid frame that begins like a message.
            _ => {
                bytes[..4].copy_from_slice(&999_996_u32.to_be_bytes());
                bytes[4..22].copy_from_slice(br#"{"Greet":{"name":""#);
            }
        }
        assert!(send(&server, &bytes).await.is_empty(), "seed {seed}");
        let error = server.next_error();
        assert!(error.starts_with("a connection ended, InvalidData"), "seed {seed}: {error}");
    }
    bystander.is_served().await;
    assert_eq!(server.ask(&["sum", "1"]).expect("an answer"), "Sum(1)\n");
}

/// A client that the test kills while it sends a message of 1 MiB.
#[tokio::test]
async fn helper_sends_half_a_message() {
    let Some(endpoint) = argument() else { return };
    let mut stream = Stream::connect(&endpoint).await.expect("a connection");
    let message = frame(&vec![b' '; LONGEST]);
    stream.write_all(&message[..LONGEST / 2]).await.expect("a write");
    println!("\nsent");
    // It sends on byte by byte and never finishes.
    for byte in &message[LONGEST / 2..LONGEST] {
        stream.write_all(&[*byte]).await.expect("a write");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("nobody killed it");
}

#[tokio::test]
async fn clients_killed_in_the_middle_of_a_message_leave_no_descriptor_open() {
    let server = Server::start("typed_messages");
    let mut bystanders = Vec::new();
    for _ in 0..10 {
        bystanders.push(Bystander::of(&server).await);
    }
    let before = server.descriptors();
    // Wine takes a second to start a client.
    let (rounds, batch) = if full() { (20, 25) } else { (2, if cfg!(windows) { 5 } else { 25 }) };
    for _ in 0..rounds {
        let clients: Vec<_> = (0..batch)
            .map(|_| {
                let mut command: Command =
                    helper_command("helper_sends_half_a_message", server.os.endpoint());
                command.stderr(Stdio::null());
                command.spawn().expect("a process")
            })
            .collect();
        for mut client in clients {
            let out = client.stdout.as_mut().expect("a pipe");
            let mut said = Vec::new();
            while !said.ends_with(b"\nsent") {
                let mut byte = [0];
                out.read_exact(&mut byte).expect("a client that lives");
                said.push(byte[0]);
                said.retain(|byte| *byte != b'\r');
            }
            client.kill().expect("a kill");
            client.wait().expect("an end");
            let error = server.next_error();
            assert!(error.starts_with("a connection ended, UnexpectedEof"), "{error}");
        }
        for bystander in &mut bystanders {
            bystander.is_served().await;
        }
    }
    let started = Instant::now();
    while server.descriptors() != before {
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "{before:?} {:?}",
            server.descriptors()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{} clients killed, descriptors {before:?} as before", rounds * batch);
    assert!(server.running.err.try_recv().is_err(), "another connection ended too");
}

/// This example uses the framing of the Language Server Protocol.
#[tokio::test]
async fn a_wrong_header_ends_its_own_connection_only() {
    let server = Server::start("json_rpc");
    let request = br#"{"jsonrpc":"2.0","id":7,"method":"add","params":[1]}"#;
    let mut bystander = server.connect().await;
    let before = server.memory();
    for (header, kind, says) in [
        ("Content-Length: 1048577\r\n\r\n", "InvalidData", "the message is too long"),
        ("Content-Length: 18446744073709551615\r\n\r\n", "InvalidData", "the message is too long"),
        ("Content-Length: 18446744073709551616\r\n\r\n", "InvalidData", "has no Content-Length"),
        ("Content-Length: -1\r\n\r\n", "InvalidData", "has no Content-Length"),
        ("Content-Type: x\r\n\r\n", "InvalidData", "has no Content-Length"),
        ("no header\r\n\r\n", "InvalidData", "not NAME: VALUE"),
        ("Content-Length: 5\n\nhello", "InvalidData", "CR LF"),
        (&"x".repeat(5000), "InvalidData", "the header is too long"),
        ("Content-Len", "UnexpectedEof", ""),
        ("Content-Length: 5\r\n", "UnexpectedEof", ""),
        ("Content-Length: 1048576\r\n\r\nhalf", "UnexpectedEof", ""),
    ] {
        let shown: String = header.chars().take(40).collect();
        assert!(send(&server, header.as_bytes()).await.is_empty(), "{shown}");
        let error = server.next_error();
        assert!(error.contains(kind) && error.contains(says), "{shown}: {error}");

        let question = format!("content-length: {}\r\nX: y\r\n\r\n", request.len());
        within(bystander.write_all(question.as_bytes())).await.expect("a write");
        within(bystander.write_all(request)).await.expect("a write");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\"result\":1.0}") {
            answer.push(within(bystander.read_u8()).await.expect("an answer"));
        }
    }
    if let (Some(before), Some(after)) = (before, server.memory()) {
        assert!(after.saturating_sub(before) < LONGEST as u64, "{before} {after}");
    }
    // The server answers an invalid request with an error and keeps the connection.
    let answer = send(&server, b"Content-Length: 1\r\n\r\n{Content-Length: 2\r\n\r\n{}").await;
    let answer = text(&answer);
    assert!(answer.contains("-32700") && answer.contains("-32600"), "{answer}");
}
