//! A server that accepts survives odd clients, exhausted descriptors and transient errors. A
//! listener counts them.
#![cfg(unix)] // These errors and limits are Unix's.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::process::{Running, is_here};
use common::unix::{
    ask, command, count, finish, helper, listening, on_linux, output, rounds, strace, until,
};
use common::{Backend, Os, within};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, socket};
use sockpipe::os::unix::{ListenerExt, StreamExt};
use sockpipe::{ListenOptions, Listener, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn echoed(stream: &mut Stream, text: &[u8]) {
    within(stream.write_all(text)).await.expect("a write");
    let mut answer = vec![0; text.len()];
    within(stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(answer, text);
}

/// A client whose socket has the address `from`.
fn client_from(from: Option<&SocketAddrUnix>, to: &str) -> OwnedFd {
    let client = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    if let Some(from) = from {
        bind(&client, from).expect("a free address");
    }
    connect(&client, &SocketAddrUnix::new(to).expect("an address")).expect("a connection");
    client
}

/// Addresses that a client may bind its socket to: none, short ones, and the longest possible.
fn odd_addresses(dir: &Path, turn: u32) -> Vec<Option<SocketAddrUnix>> {
    let longest = if cfg!(target_os = "linux") { 108 } else { 104 };
    let path = |length: usize| {
        let start = dir.join(format!("{turn}-"));
        let fill = length.saturating_sub(start.as_os_str().len());
        let path = [start.as_os_str().as_bytes(), &vec![b'x'; fill]].concat();
        SocketAddrUnix::new(path).expect("an address")
    };
    let paths = [None, Some(path(longest)), Some(path(longest - 1)), Some(path(0))];
    paths.into_iter().chain(names_without_a_file().into_iter().map(Some)).collect()
}

/// An address that the kernel chooses, and addresses that may contain any byte.
#[cfg(target_os = "linux")]
fn names_without_a_file() -> Vec<SocketAddrUnix> {
    let name = |text: &[u8]| SocketAddrUnix::new_abstract_name(text).expect("an address");
    let unique = common::unique_name();
    let long = [unique.as_bytes(), &[b'x'; 107]].concat();
    let odd = [unique.as_bytes(), b";uid=0;\0\n\xff"].concat();
    vec![SocketAddrUnix::new_unnamed(), name(&long[..107]), name(&odd)]
}

#[cfg(not(target_os = "linux"))]
fn names_without_a_file() -> Vec<SocketAddrUnix> {
    Vec::new()
}

#[tokio::test]
async fn accept_takes_clients_with_odd_addresses() {
    let os = Os::new();
    let mut listener = Listener::bind(os.endpoint()).expect("a free name");
    let mut accepted = 0;
    for turn in 0..100 {
        for address in odd_addresses(&os.dir(), turn) {
            let client = client_from(address.as_ref(), os.endpoint());
            let mut server = within(listener.accept()).await.expect("a connection");
            let own = Some(rustix::process::geteuid().as_raw());
            assert_eq!(server.peer_credentials().expect("credentials").uid(), own);
            let mut client = UnixStream::from(client);
            client.write_all(b"ping").expect("a write");
            within(server.read_exact(&mut [0; 4])).await.expect("a read");
            assert!(format!("{server:?}").contains("Stream"));
            accepted += 1;
        }
    }
    let mut client = within(os.connect()).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a connection");
    tokio::spawn(sockpipe::echo::echo(server, |_| ()));
    echoed(&mut client, b"as always").await;
    let stats = listener.stats();
    println!("{accepted} clients with odd addresses accepted: {stats:?}");
    assert_eq!((stats.refused, stats.pauses), (0, 0));
}

/// `from_fd` examines both addresses of a socket, and either may be odd.
#[tokio::test]
async fn from_fd_takes_sockets_with_odd_addresses() {
    let os = Os::new();
    let mut listener = Listener::bind(os.endpoint()).expect("a free name");
    for address in odd_addresses(&os.dir(), 0) {
        let client = client_from(address.as_ref(), os.endpoint());
        let server = within(listener.accept()).await.expect("a connection");
        let server = server.into_fd().expect("a socket");
        for end in [client, server] {
            let end = Stream::from_fd(end).expect("a stream");
            assert!(format!("{end:?}").contains("Stream"));
        }
    }
    for address in odd_addresses(&os.dir(), 1).into_iter().flatten() {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &address).expect("a free address");
        rustix::net::listen(&socket, 1).expect("a listener");
        // `from_fd` may refuse an address that no endpoint can express.
        match Listener::from_fd(socket, &ListenOptions::new()) {
            Ok(listener) => assert!(listener.is_published(), "{}", listener.endpoint()),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}"),
        }
    }
}

fn limit_descriptors(process: u32, soft: usize) {
    let (process, limit) = (process.to_string(), format!("--nofile={soft}:"));
    let set = Command::new("prlimit").args(["--pid", &process, &limit]).status();
    assert!(set.expect("prlimit").success());
}

fn descriptors(process: u32) -> BTreeSet<usize> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).expect("its descriptors");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().parse().expect("a number")).collect()
}

#[tokio::test]
async fn accept_waits_while_no_descriptor_is_left() {
    let exhausted = Duration::from_secs(2);
    if !on_linux("prlimit") || !is_here("prlimit") {
        return;
    }
    let os = Os::new();
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let server = helper(&["server", os.endpoint()]);
    let Some(server) = strace(&log, &["-e", "trace=accept4,accept"], &server) else { return };
    let (mut server, process) = listening(server);
    let open = descriptors(process);
    let next = (0..).find(|number| !open.contains(number)).expect("a number");
    limit_descriptors(process, next);

    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = within(os.connect()).await.expect("room in the queue");
        within(client.write_all(b"e")).await.expect("a write");
        clients.push(client);
    }
    // The test needs a lack of descriptors that lasts for some time.
    tokio::time::sleep(exhausted).await;
    let pauses = count(&ask(&mut server, "stats"), "pauses");
    let tries = fs::read_to_string(&log).expect("a log").matches("EMFILE").count();
    limit_descriptors(process, 1024);
    let restored = Instant::now();
    for client in &mut clients {
        echoed(client, b"ping").await;
    }
    let took = restored.elapsed();
    println!("{tries} tries in {exhausted:?}, {pauses} pauses; then 50 served in {took:.1?}");
    // The bound has room for two failed calls per attempt.
    assert!((1..200).contains(&tries), "{tries}");
    assert!((1..=tries as u64).contains(&pauses), "{pauses} of {tries}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let line = ask(&mut server, "stats");
    assert_eq!((count(&line, "accepted"), count(&line, "refused")), (50, 0));
}

/// Every second call of `accept` fails.
#[test]
fn accept_retries_transient_errors() {
    let clients = u64::from(rounds(100, 1000));
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for (error, pauses) in [
        ("ECONNABORTED", false),
        ("EINTR", false),
        ("EPROTO", false),
        // A sandbox on macOS returns this error and leaves the client in the queue.
        ("EPERM", true),
        ("EMFILE", true),
        ("ENFILE", true),
        ("ENOBUFS", true),
        ("ENOMEM", true),
    ] {
        let os = Os::new();
        let inject = format!("inject=accept4,accept:error={error}:when=1+2");
        let server = helper(&["server", os.endpoint()]);
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let (mut server, _) = listening(server);
        let started = Instant::now();
        let times = format!("--times={clients}");
        let lines = output(helper(&["connect", os.endpoint(), &times]));
        let served = lines.iter().filter(|line| line.starts_with("served by")).count() as u64;
        assert_eq!(served, clients, "{error}: {lines:?}");
        let injected = fs::read_to_string(&log).expect("a log").matches("(INJECTED)").count();
        let line = ask(&mut server, "stats");
        println!("{error}: {injected} times, {line}, {:.1?}", started.elapsed());
        assert!(injected as u64 >= clients / 2, "{error} was injected {injected} times");
        assert_eq!((count(&line, "accepted"), count(&line, "refused")), (clients, 0), "{error}");
        let counted = if pauses { injected as u64 } else { 0 };
        assert_eq!(count(&line, "pauses"), counted, "{error}");
        command(&mut server, "drop");
        assert_eq!(finish(server), ["dropped"]);
        assert_eq!(os.files(), [""; 0]);
    }
}

#[test]
fn accept_returns_a_permanent_error_once() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for error in ["EBADF", "EINVAL", "ENOTSOCK", "EOPNOTSUPP", "EFAULT"] {
        let os = Os::new();
        let inject = format!("inject=accept4,accept:error={error}:when=1");
        let server = helper(&["server", os.endpoint()]);
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let (server, _) = listening(server);
        let client = UnixStream::connect(os.endpoint()).expect("a connection");
        let line = server.next_line();
        assert!(line.starts_with("fatal "), "{error}: {line}");
        assert!(line.contains(os.endpoint()), "{error}: which listener? {line}");
        let (status, out, _) = server.wait();
        assert!(status.success() && out.is_empty(), "more than once: {out:?}");
        let log = fs::read_to_string(&log).expect("a log");
        let calls = log.matches(" accept4(").count() + log.matches(" accept(").count();
        // One call failed; the others empty the queue, so that pending clients read an end.
        assert!((1..=4).contains(&calls), "{error}: {calls} calls");
        assert_eq!(os.files(), [""; 0], "{error}: the name is given back");
        drop(client);
    }
}

/// Every call of `accept` fails, and the other tasks of the thread still run.
#[test]
fn accept_yields_to_other_tasks_while_an_error_repeats() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for error in ["ECONNABORTED", "EMFILE"] {
        let os = Os::new();
        let inject = format!("inject=accept4,accept:error={error}");
        let server = helper(&["server", os.endpoint()]);
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let (mut server, _) = listening(server);
        let _client = UnixStream::connect(os.endpoint()).expect("a queue");
        until("errors", || fs::read_to_string(&log).is_ok_and(|log| log.contains(error)));
        for _ in 0..3 {
            let line = ask(&mut server, "stats");
            assert_eq!((count(&line, "accepted"), count(&line, "refused")), (0, 0));
        }
    }
}

#[tokio::test]
async fn clients_killed_while_they_write_end_their_own_connections_only() {
    if !on_linux("looking at the server's descriptors in /proc") {
        return;
    }
    let killed = rounds(50, 500) as usize;
    let os = Os::new();
    let (mut server, process) = listening(helper(&["server", os.endpoint()]));
    let mut others = Vec::new();
    for _ in 0..5 {
        let mut other = within(os.connect()).await.expect("a connection");
        within(other.write_all(b"e")).await.expect("a write");
        echoed(&mut other, b"before").await;
        others.push(other);
    }
    let before = descriptors(process).len();

    let start = |_| Running::start(helper(&["sink", os.endpoint()]));
    let clients: Vec<_> = (0..killed).map(start).collect();
    for client in &clients {
        assert_eq!(client.next_line(), "writing");
    }
    assert_eq!(descriptors(process).len(), before + killed);
    for other in &mut others {
        echoed(other, b"during").await;
    }
    clients.into_iter().for_each(Running::crash);
    let ended = Instant::now();
    command(&mut server, "drain");
    let mut bytes = 0;
    for _ in 0..killed {
        let line = server.next_line();
        assert!(line.ends_with(" then the end"), "{line}");
        let sank = count(&line, "sank");
        assert!((1..1024 * 1024).contains(&sank), "{line}");
        bytes += sank;
    }
    until("the descriptors of the dead are closed", || descriptors(process).len() == before);
    let took = ended.elapsed();
    println!("{killed} clients killed, {bytes} bytes of theirs read, all closed after {took:.1?}");
    for other in &mut others {
        echoed(other, b"after").await;
    }
    let line = ask(&mut server, "stats");
    assert_eq!(count(&line, "accepted"), killed as u64 + 5);
}
