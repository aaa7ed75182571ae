//! Programs without shared memory exchange the same bytes with this crate, whether its option is on
//! or off.
//!
//! strace records the calls of this crate's side. What it sends is what the peer receives, with the
//! control data, which most programs never ask for. Each side compares the bytes themselves.
//!
//! The echo examples stand for an older sockpipe. They leave the option off, so they neither mark
//! their sockets nor look for a mark, as a version without the feature. A mark of another version
//! is one of those in `clients.rs`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::common::process::{Running, example, is_here, is_in_path};
use crate::common::unix::strace;

const POLICIES: [SharedMemory; 3] = [SharedMemory::Off, SharedMemory::Auto, SharedMemory::Eager];
const CHUNK: usize = 64 * 1024;
/// The rounds of a peer that is a client, each with a chunk in each direction. This is many times
/// what makes a stream hot.
const ROUNDS: usize = 128;
const LENGTH: usize = ROUNDS * CHUNK;

/// Returns the text that goes through a peer that is a server. Each chunk is a line with a number.
fn text() -> Vec<u8> {
    let lines: Vec<_> =
        (0..ROUNDS).map(|number| format!("{number:width$}\n", width = CHUNK - 1)).collect();
    lines.concat().into_bytes()
}

/// The helper is this crate's side of a conversation.
#[tokio::test]
async fn helper_talks_to_a_plain_peer() {
    let Some(argument) = argument() else { return };
    let words: Vec<_> = argument.splitn(3, ' ').collect();
    let [role, policy, endpoint] = words[..] else { panic!("{argument}") };
    let policy = POLICIES.into_iter().find(|known| format!("{known:?}") == policy);
    let policy = policy.expect("a policy");
    if role == "client" {
        let options = connecting(policy).wait_for_server(common::PATIENCE);
        let stream = within(Stream::connect_with(endpoint, &options)).await.expect("a server");
        return within(send_and_receive(stream)).await;
    }

    let mut listener = Listener::bind_with(endpoint, &listening(policy)).expect("a name");
    println!("\nlistening");
    if role == "engine" {
        let mut input = String::new();
        thread::spawn(move || {
            std::io::stdin().read_line(&mut input).expect("an end");
            std::process::exit(0);
        });
        return engine(listener).await;
    }
    let mut stream = within(listener.accept()).await.expect("a client");
    within(sockpipe::echo::echo(&mut stream, |_| ())).await.expect("an echo");
    assert_eq!(stream.transport(), Transport::Socket);
    stream.close(common::PATIENCE).await.expect("an end");
}

/// Sends the text and receives it from the peer.
async fn send_and_receive(mut stream: Stream) {
    let (text, mut got) = (text(), vec![0; LENGTH]);
    let (mut from, mut to) = stream.split();
    let send = async {
        for chunk in text.chunks(CHUNK) {
            to.write_all(chunk).await.expect("a write");
        }
    };
    let (read, ()) = tokio::join!(from.read_exact(&mut got), send);
    read.expect("a read");
    assert!(got == text, "other bytes");
    // netcat exits when its client ends, even if netcat has more to send.
    stream.shutdown().await.expect("an end");
    assert_eq!(read_all(&mut stream).await, b"");
    assert_eq!(stream.transport(), Transport::Socket);
}

/// Answers what Docker's client asks for a version.
async fn engine(mut listener: Listener) {
    let version = r#"{"Version": "1.0", "ApiVersion": "1.41", "MinAPIVersion": "1.24"}"#;
    // White space makes the answer long enough for a stream to be hot. It comes first, because the
    // client stops behind the last brace.
    let version = format!("{}{version}", " ".repeat(LENGTH));
    loop {
        let mut stream = listener.accept().await.expect("a client");
        let version = version.clone();
        tokio::spawn(async move {
            let mut request = Vec::new();
            while stream.read_buf(&mut request).await.expect("a read") > 0 {
                if !request.ends_with(b"\r\n\r\n") {
                    continue;
                }

                let asked = String::from_utf8(std::mem::take(&mut request)).expect("UTF-8");
                let body = if asked.contains("/version ") { &*version } else { "OK" };
                let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n";
                let length = body.len();
                let body = if asked.starts_with("HEAD") { "" } else { body };

                let kind = "Content-Type: application/json";
                let head = format!("{head}{kind}\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.expect("a write");
                stream.write_all(body.as_bytes()).await.expect("a write");
            }
        });
    }
}

/// What this crate's side sent and received.
#[derive(Debug, PartialEq, Eq)]
struct Traffic {
    sent: u64,
    received: u64,
    /// The calls with control data.
    control: Vec<String>,
}

/// The calls that strace recorded of this crate's side.
struct Calls(String);

impl Calls {
    fn at(log: &Path) -> Self {
        Self(fs::read_to_string(log).expect("a log"))
    }

    fn traffic(&self) -> Traffic {
        let mut traffic = Traffic { sent: 0, received: 0, control: Vec::new() };
        for call in self.0.lines().filter(|call| !call.contains("MSG_PEEK")) {
            let result = call.rsplit_once(" = ").map_or("", |(_, result)| result);
            let length = result.parse().unwrap_or(0);
            if call.contains(" sendto(") || call.contains(" sendmsg(") {
                traffic.sent += length;
            } else if call.contains(" recvfrom(") || call.contains(" recvmsg(") {
                traffic.received += length;
            }
            if call.contains("cmsg_type") {
                traffic.control.push(call.to_owned());
            }
        }
        traffic
    }

    /// Reports whether this side tried to move into memory: as a client it marked its socket, and
    /// as a server it looked for the mark.
    fn tried(&self) -> bool {
        self.0.lines().any(|call| {
            call.contains(" getpeername(")
                || (call.contains(" bind(") && call.contains("sockpipe-lane-1-"))
        })
    }
}

/// Starts this crate's side, whose calls go to `log`. Returns `None` if it cannot be traced.
fn ours(role: &str, policy: SharedMemory, os: &Os, log: &Path) -> Option<Running> {
    let argument = format!("{role} {policy:?} {}", os.endpoint());
    let helper = helper_command("shared_memory::peers::helper_talks_to_a_plain_peer", &argument);
    let calls = "trace=sendto,sendmsg,recvfrom,recvmsg,bind,getpeername";
    let mut command = strace(log, &["-e", calls], &helper)?;
    command.env("SOCKPIPE_TEST_HELPER", &argument);
    let running = Running::start(command);
    while role != "client" && running.next_line() != "listening" {}
    Some(running)
}

/// Runs a conversation with each policy. Each has the same traffic, and a side tries to move into
/// memory only if its option is on.
#[track_caller]
fn assert_same_traffic(
    what: &str,
    mut conversation: impl FnMut(SharedMemory, &Os, &Path) -> Option<()>,
) {
    let logs = tempfile::tempdir().expect("a directory");
    let mut expected = None;
    for policy in POLICIES {
        let (os, log) = (Os::new(), logs.path().join(format!("{policy:?}")));
        if conversation(policy, &os, &log).is_none() {
            return;
        }

        let calls = Calls::at(&log);
        let traffic = calls.traffic();
        println!("{what} {policy:?}: {traffic:?}");
        assert_eq!(calls.tried(), policy != SharedMemory::Off, "{what} {policy:?}");
        assert_eq!(traffic.control, [""; 0], "{what} {policy:?}");
        assert!(traffic.sent >= LENGTH as u64, "{what} {policy:?}: {traffic:?}");
        let expected = expected.get_or_insert(traffic);
        assert_eq!(calls.traffic(), *expected, "{what} {policy:?}");
    }
}

/// Starts `command` with `input`, which is written by a thread.
fn given(mut command: Command, input: Vec<u8>) -> Running {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    let mut keyboard = running.child.stdin.take().expect("a pipe");
    // A program that exits before it has read everything shows that in its exit code.
    thread::spawn(move || drop(keyboard.write_all(&input)));
    running
}

/// Waits for the end of a program, and returns what it printed.
#[track_caller]
fn printed(running: Running) -> String {
    let (status, out, err) = running.wait();
    assert!(status.success(), "{status}: {err:?}, {} lines", out.len());
    out.join("\n")
}

/// The peer is a server that echoes.
#[track_caller]
fn assert_same_for_server(mut peer: impl FnMut(&str) -> Running) {
    assert_same_traffic("a client", |policy, os, log| {
        let theirs = peer(os.endpoint());
        printed(ours("client", policy, os, log)?);
        printed(theirs);
        Some(())
    });
}

/// The peer is a client, which prints `expected`.
#[track_caller]
fn assert_same_for_client(mut peer: impl FnMut(&str) -> Running, expected: &[u8]) {
    assert_same_traffic("a server", |policy, os, log| {
        let ours = ours("server", policy, os, log)?;
        let out = printed(peer(os.endpoint()));
        assert!(out.as_bytes() == expected.trim_ascii_end(), "other bytes");
        printed(ours);
        Some(())
    });
}

/// Tests a peer that has an echo server and an echo client.
#[track_caller]
fn assert_same_both_ways(program: &str, arguments: &[&str]) {
    let run = |role: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).args(role);
        given(command, Vec::new())
    };
    assert_same_for_server(|endpoint| run(&["server", endpoint]));
    let rounds = ROUNDS.to_string();
    let expected = format!("ok {LENGTH}");
    assert_same_for_client(|endpoint| run(&["client", endpoint, &rounds]), expected.as_bytes());
}

fn source(name: &str) -> String {
    format!("{}/tests/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn python_has_the_same_traffic_with_the_option_on() {
    if is_here("python3") {
        assert_same_both_ways("python3", &[&source("peer.py")]);
    }
}

#[test]
fn node_has_the_same_traffic_with_the_option_on() {
    if is_here("node") {
        assert_same_both_ways("node", &[&source("peer.js")]);
    }
}

#[test]
fn go_has_the_same_traffic_with_the_option_on() {
    if is_here("go") {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("peer").to_str().expect("UTF-8").to_owned();
        let mut build = Command::new("go");
        build.args(["build", "-o", &program, &source("peer.go")]);
        let built = build.env("GO111MODULE", "off").env("GOFLAGS", "").output().expect("go");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        assert_same_both_ways(&program, &[]);
    }
}

#[test]
fn socat_has_the_same_traffic_with_the_option_on() {
    if is_here("socat") {
        let run = |arguments: &[&str], input: Vec<u8>| {
            let mut command = Command::new("socat");
            command.args(["-t", "30"]).args(arguments);
            given(command, input)
        };
        let listen = |endpoint: &str| format!("UNIX-LISTEN:{endpoint}");
        assert_same_for_server(|endpoint| run(&[&listen(endpoint), "EXEC:cat"], Vec::new()));
        let connect = |endpoint: &str| format!("UNIX-CONNECT:{endpoint}");
        assert_same_for_client(|endpoint| run(&["-", &connect(endpoint)], text()), &text());
    }
}

/// netcat does not echo: as a server it sends its own text.
#[test]
fn netcat_has_the_same_traffic_with_the_option_on() {
    if is_here("nc") {
        let run = |arguments: &[&str]| {
            let mut command = Command::new("nc");
            command.args(arguments);
            given(command, text())
        };
        assert_same_traffic("a client", |policy, os, log| {
            let theirs = run(&["-l", "-U", os.endpoint()]);
            printed(ours("client", policy, os, log)?);
            assert!(printed(theirs).as_bytes() == text().trim_ascii_end(), "other bytes");
            Some(())
        });
        assert_same_for_client(|endpoint| run(&["-N", "-U", endpoint]), &text());
    }
}

#[test]
fn a_sockpipe_without_the_option_has_the_same_traffic() {
    assert_same_traffic("a client", |policy, os, log| {
        let mut command = example("echo_server");
        command.args([os.endpoint(), "--quiet"]);
        let theirs = given(command, Vec::new());
        printed(ours("client", policy, os, log)?);
        theirs.crash();
        Some(())
    });
    let connect = |endpoint: &str| {
        let mut command = example("echo_client");
        command.args([endpoint, "--stdin"]);
        given(command, text())
    };
    assert_same_for_client(connect, &text());
}

#[test]
fn dockers_client_has_the_same_traffic_with_the_option_on() {
    // The lanes do not install Docker.
    if !is_in_path("docker") {
        println!("not run: docker is not on this machine");
        return;
    }
    assert_same_traffic("an engine", |policy, os, log| {
        let mut ours = ours("engine", policy, os, log)?;
        let mut docker = Command::new("docker");
        docker.arg("--host").arg(format!("unix://{}", os.endpoint()));
        docker.args(["version", "--format", "{{.Server.Version}}"]);
        docker.env("DOCKER_CONFIG", os.dir()).env_remove("DOCKER_CONTEXT");
        assert_eq!(printed(given(docker, Vec::new())), "1.0");
        drop(ours.child.stdin.take());
        printed(ours);
        Some(())
    });
}

/// The helper is the peer that uses tokio alone. As a server it echoes.
#[tokio::test]
async fn helper_is_a_plain_peer() {
    let Some(argument) = argument() else { return };
    let (role, endpoint) = argument.split_once(' ').expect("a role and a name");
    if role == "server" {
        let listener = UnixListener::bind(endpoint).expect("a free name");
        let (mut stream, _) = within(listener.accept()).await.expect("a client");
        let (mut from, mut to) = stream.split();
        within(tokio::io::copy(&mut from, &mut to)).await.expect("an echo");
        return;
    }

    let mut stream = UnixStream::connect(endpoint).await.expect("a server");
    for round in 0..ROUNDS {
        within(send(&mut stream, round)).await;
        within(receive(&mut stream, round)).await;
    }
    within(stream.shutdown()).await.expect("an end");
    assert_eq!(within(read_all(&mut stream)).await, b"");
}

#[test]
fn tokio_has_the_same_traffic_with_the_option_on() {
    let run = |role: &str, endpoint: &str| {
        let argument = format!("{role} {endpoint}");
        let helper = helper_command("shared_memory::peers::helper_is_a_plain_peer", &argument);
        given(helper, Vec::new())
    };
    assert_same_for_server(|endpoint| run("server", endpoint));
    assert_same_traffic("a server", |policy, os, log| {
        let ours = ours("server", policy, os, log)?;
        printed(run("client", os.endpoint()));
        printed(ours);
        Some(())
    });
}

/// Sends a head, which has the length of the body, and the body in one write.
async fn send(stream: &mut (impl AsyncWrite + Unpin), round: usize) {
    let mut message = vec![round as u8; CHUNK];
    message[..4].copy_from_slice(&(CHUNK as u32 - 4).to_be_bytes());
    stream.write_all(&message).await.expect("a write");
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), round: usize) {
    let length = stream.read_u32().await.expect("a head") as usize;
    assert_eq!(length, CHUNK - 4, "round {round}");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    assert!(body == vec![round as u8; length], "round {round}");
}

/// tokio takes a short read for a sign that the socket is empty, and then waits for more. A read
/// ends behind descriptors, so an offer could make tokio wait for ever.
#[tokio::test]
async fn tokio_receives_heads_and_bodies_in_each_of_fifty_conversations() {
    for (policy, conversation) in [SharedMemory::Auto, SharedMemory::Eager]
        .into_iter()
        .flat_map(|policy| (0..50).map(move |number| (policy, number)))
    {
        let os = Os::new();
        let (mut ours, mut theirs) = if conversation % 2 == 0 {
            let mut listener =
                Listener::bind_with(os.endpoint(), &listening(policy)).expect("a free name");
            let theirs = UnixStream::connect(os.endpoint()).await.expect("a server");
            (within(listener.accept()).await.expect("a client"), theirs)
        } else {
            let listener = UnixListener::bind(os.endpoint()).expect("a free name");
            let options = connecting(policy);
            let ours = within(Stream::connect_with(os.endpoint(), &options)).await;
            (ours.expect("a server"), within(listener.accept()).await.expect("a client").0)
        };
        for round in 0..20 {
            let exchange = async {
                tokio::join!(send(&mut ours, round), receive(&mut theirs, round));
                tokio::join!(send(&mut theirs, round), receive(&mut ours, round));
            };
            within(exchange).await;
        }
        assert_eq!(ours.transport(), Transport::Socket);
    }
}
