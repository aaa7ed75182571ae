//! `listen`, `connect` and `echo` pass bytes in both directions, and end in each possible way.

mod common;

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Backend, Os, PATIENCE, Tool, noise, run, run_with, tool, within};
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;

#[test]
fn all_bytes_arrive_in_both_directions() {
    let os = Os::new();
    for (length, back) in [(0, 0), (1, 3 * MIB + 1), (3 * MIB + 1, 1)] {
        let (there, back) = (noise(length), noise(back));
        let mut server = Tool::listening(&["listen", os.endpoint()]);
        let writer = server.feed(back.clone());
        let client = run_with(&["connect", os.endpoint()], &there).assert_succeeds();
        let server = server.wait().assert_succeeds();
        writer.join().expect("no panic");
        assert!(client.out == back, "{} of {} bytes", client.out.len(), back.len());
        assert!(server.out == there, "{} of {} bytes", server.out.len(), there.len());
    }
    assert_eq!(os.files(), [""; 0]);
}

#[test]
fn a_server_answers_after_its_client_ends_its_input() {
    let os = Os::new();
    let mut server = Tool::listening(&["listen", os.endpoint(), "-v"]);
    let mut client = Tool::start(&["connect", os.endpoint()]);
    client.type_in("question");
    server.await_out("question");
    client.end_input();
    // The server has read the end of the question, and can still answer.
    server.type_in("answer");
    client.await_out("answer");
    server.end_input();
    client.wait().assert_succeeds();
    let server = server.wait();
    assert_eq!(server.code, Some(0), "{server:?}");
    assert!(server.err.contains("sent 6 bytes, received 8"), "{server:?}");
}

/// A terminal stays open as input when the peer has gone.
#[test]
fn a_session_ends_with_its_peer_although_its_input_is_open() {
    let os = Os::new();
    let mut server = Tool::listening(&["listen", os.endpoint()]);
    let mut client = Tool::start(&["connect", os.endpoint()]);
    client.type_in("hello");
    server.await_out("hello");
    server.crash();
    client.wait().assert_succeeds();
    // The same with client and server exchanged.
    let mut server = Tool::listening(&["listen", os.endpoint()]);
    let mut client = Tool::start(&["connect", os.endpoint()]);
    client.type_in("hello");
    server.await_out("hello");
    client.crash();
    server.wait().assert_succeeds();
}

#[tokio::test]
async fn input_that_the_peer_did_not_read_is_a_failure() {
    let os = Os::new();
    let mut listener = os.bind().expect("a free name");
    let mut client = Tool::start(&["connect", os.endpoint()]);
    let peer = within(listener.accept()).await.expect("a client");
    let given = Arc::new(AtomicUsize::new(0));
    let mut input = client.input();
    let writer = thread::spawn({
        let given = Arc::clone(&given);
        move || {
            while input.write_all(&[7; 64 * 1024]).is_ok() {
                given.fetch_add(64 * 1024, Ordering::Relaxed);
            }
        }
    });
    // This is more than the system buffers, so the client has read some of it.
    within(async {
        while given.load(Ordering::Relaxed) < MIB / 2 {
            assert!(!writer.is_finished(), "the client is gone");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(peer);
    client.wait().assert_fails(1, &["before it had taken all of the input"]);
    writer.join().expect("no panic");
}

#[test]
fn close_does_not_wait_for_an_answer() {
    let os = Os::new();
    let bytes = noise(MIB);
    // The server's own input does not end.
    let server = Tool::listening(&["listen", os.endpoint()]);
    let client = run_with(&["connect", os.endpoint(), "--close"], &bytes).assert_succeeds();
    assert_eq!(client.text(), "");
    let server = server.wait().assert_succeeds();
    assert!(server.out == bytes, "{} bytes", server.out.len());
    // Here the server closes.
    let mut server = Tool::listening(&["listen", os.endpoint(), "--close"]);
    let client = Tool::start(&["connect", os.endpoint()]);
    let writer = server.feed(bytes.clone());
    server.wait().assert_succeeds();
    let client = client.wait().assert_succeeds();
    assert!(client.out == bytes, "{} bytes", client.out.len());
    writer.join().expect("no panic");
}

#[tokio::test]
async fn received_bytes_are_written_before_the_session_ends() {
    // The tool, its pipe and the system can hold all of it, so the server finishes before anyone
    // reads.
    let bytes = noise(300 * 1024);
    for input_ends in [true, false] {
        let os = Os::new();
        let mut listener = os.bind().expect("a free name");
        let mut command = tool();
        command.args(["connect", os.endpoint(), "--close"]).stdin(Stdio::piped());
        let mut client = command.spawn().expect("a process");
        let mut peer = within(listener.accept()).await.expect("a client");
        within(peer.write_all(&bytes)).await.expect("a write");
        if input_ends {
            drop(client.stdin.take());
            // A client that does not wait for its reader would end within this time. On Windows the
            // pipes may hold everything.
            let mut byte = [0];
            let closed = timeout(Duration::from_millis(200), peer.read(&mut byte)).await;
            assert!(closed.is_err() || cfg!(windows), "it is closed before all is passed on");
        } else {
            within(peer.close(PATIENCE)).await.expect("a close");
        }
        let ended = tokio::task::spawn_blocking(|| client.wait_with_output());
        let ended = within(ended).await.expect("no panic").expect("an end");
        assert!(ended.stdout == bytes, "{} of {} bytes", ended.stdout.len(), bytes.len());
        assert_eq!((ended.status.code(), &ended.stderr[..]), (Some(0), &b""[..]));
    }
}

#[tokio::test]
async fn close_ends_although_the_server_never_stops_sending() {
    for (size, pause) in [(1, Duration::from_millis(5)), (64 * 1024, Duration::ZERO)] {
        let os = Os::new();
        let mut listener = os.bind().expect("a free name");
        let mut client = Tool::start(&["connect", os.endpoint(), "--close"]);
        let mut peer = within(listener.accept()).await.expect("a client");
        client.end_input();
        // The client ends after 0.2 s.
        let sent = timeout(Duration::from_secs(5), async {
            while peer.write_all(&vec![7; size]).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        });
        sent.await.expect("an end");
        let ended = tokio::task::spawn_blocking(|| client.wait());
        within(ended).await.expect("no panic").assert_succeeds();
    }
}

#[test]
fn wait_waits_for_a_server_that_starts_later() {
    let os = Os::new();
    let mut client = Tool::start(&["connect", "--wait", os.endpoint()]);
    client.type_in("early");
    let mut server = Tool::listening(&["listen", os.endpoint()]);
    server.await_out("early");
    server.end_input();
    client.end_input();
    client.wait().assert_succeeds();
    server.wait().assert_succeeds();
    let started = Instant::now();
    run(&["connect", "--wait=0.3", os.endpoint()]).assert_fails(3, &["no server at", "--wait"]);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300) && took < PATIENCE, "{took:?}");
}

#[test]
fn listen_keep_serves_one_client_after_another() {
    let os = Os::new();
    let mut server = Tool::listening(&["listen", "--keep", os.endpoint()]);
    for number in 0..3 {
        let mut client = Tool::start(&["connect", os.endpoint()]);
        client.type_in(&format!("from {number}\n"));
        server.await_out(&format!("from {number}\n"));
        server.type_in(&format!("to {number}\n"));
        client.await_out(&format!("to {number}\n"));
        client.crash();
    }
    // Every later client sees the end of the input.
    server.end_input();
    for _ in 0..2 {
        run_with(&["connect", os.endpoint()], b"more\n").assert_succeeds();
    }
    server.await_out("from 0\nfrom 1\nfrom 2\nmore\nmore\n");
    server.crash();
}

/// The command is the tool itself, because it exists on every OS.
#[test]
fn exec_runs_a_command_for_each_client() {
    let os = Os::new();
    let behind = Os::new();
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let command = ["--exec", &program, "-q", "connect", behind.endpoint()];
    let arguments = [&["listen", os.endpoint(), "--keep"][..], &command].concat();
    let _server = Tool::listening(&arguments);
    let bytes = noise(MIB);
    // The two run at the same time: the first ends after the second.
    let mut first = Tool::start(&["connect", os.endpoint()]);
    first.type_in("first");
    first.await_out("first");
    let second = run_with(&["connect", os.endpoint()], &bytes).assert_succeeds();
    assert!(second.out == bytes, "{} bytes", second.out.len());
    first.type_in(", and still there");
    first.await_out("first, and still there");
    first.end_input();
    first.wait().assert_succeeds();
}

/// The command ends while the buffers still hold bytes for the client.
#[tokio::test]
async fn the_output_of_a_command_reaches_a_client_that_reads_slowly() {
    let (os, behind) = (Os::new(), Os::new());
    let bytes = noise(MIB);
    let mut source = Tool::listening(&["listen", behind.endpoint()]);
    let fed = source.feed(bytes.clone());
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let command = ["--exec", &program, "-q", "connect", behind.endpoint()];
    let server = Tool::listening(&[&["listen", os.endpoint()][..], &command].concat());

    let mut client = within(Stream::connect(os.endpoint())).await.expect("a server");
    within(client.shutdown()).await.expect("a half-close");
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = within(client.read(&mut part)).await.expect("bytes, or the end");
        if length == 0 {
            break;
        }
        read.extend_from_slice(&part[..length]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(read == bytes, "{} of {} bytes", read.len(), bytes.len());
    drop(client);
    fed.join().expect("no panic");
    source.wait().assert_succeeds();
    server.wait().assert_succeeds();
}

#[test]
fn exec_reports_a_command_that_fails_or_does_not_exist() {
    let os = Os::new();
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let nobody = Os::new();
    let arguments = ["listen", os.endpoint(), "--exec", &program, "connect", nobody.endpoint()];
    let server = Tool::listening(&arguments);
    run(&["connect", os.endpoint()]).assert_succeeds();
    let ended = server.wait();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("no server at") && ended.err.contains("ended with exit"),
        "{ended:?}"
    );
    let server = Tool::listening(&["listen", os.endpoint(), "--exec", "no-such-program-1"]);
    run(&["connect", os.endpoint()]).assert_succeeds();
    server.wait().assert_fails(1, &["cannot run no-such-program-1"]);
    assert_eq!(os.files(), [""; 0]);
}

#[test]
fn echo_returns_all_bytes_to_each_client() {
    let os = Os::new();
    let _server = Tool::listening(&["echo", os.endpoint()]);
    let bytes = noise(2 * MIB + 1);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Tool::start(&["connect", os.endpoint()]);
            let writer = client.feed(bytes.clone());
            (client, writer)
        })
        .collect();
    for (client, writer) in clients {
        let ended = client.wait().assert_succeeds();
        assert!(ended.out == bytes, "{} bytes", ended.out.len());
        writer.join().expect("no panic");
    }
}

#[test]
fn a_closed_standard_output_ends_the_tool_with_141() {
    let os = Os::new();
    let _echo = Tool::listening(&["echo", os.endpoint()]);
    for arguments in [
        &["connect", os.endpoint()][..],
        &["info", os.endpoint()],
        &["info", "--json", os.endpoint()],
        &["ping", "-n", "3", os.endpoint()],
        &["completions", "bash"],
    ] {
        let mut client = Tool::with_closed_output(arguments);
        // The client writes some of this after its reader has gone.
        let writer = client.feed(noise(MIB));
        let ended = client.wait();
        assert_eq!((ended.code, ended.err.as_str()), (Some(141), ""), "{arguments:?}");
        writer.join().expect("no panic");
    }
    let server = Os::new();
    let mut listening = Tool::with_closed_output(&["listen", server.endpoint()]);
    listening.await_err("listening on");
    let client = run_with(&["connect", server.endpoint()], &noise(MIB));
    assert!(matches!(client.code, Some(0 | 1)), "{client:?}");
    assert_eq!(listening.wait().code, Some(141));
}
