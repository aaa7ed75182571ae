//! A running server is killed or paused at each of the system calls by which it serves a client, or
//! has each of them fail. No client hangs, and the same server or the next one serves the next
//! client. `SOCKPIPE_FULL=1` tries every error of a call, otherwise one of them.
#![cfg(target_os = "linux")] // These tests need strace.

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use common::calls::{Call, PAUSE, calls, is_killed, read, start_with, traced};
use common::process::Running;
use common::unix::{command, finish, helper, listening, until};
use common::{Backend, Os, PATIENCE};
use tempfile::TempDir;

/// A server that makes more calls than this after a client has left does not wait, but spins.
const FEW: usize = 200;

/// The log of a server's calls.
struct Log(TempDir);

impl Log {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn text(&self) -> String {
        read(&self.path())
    }

    fn lines(&self) -> usize {
        self.text().lines().count()
    }

    /// Waits until the server waits for its next event, or has ended.
    #[track_caller]
    fn settles(&self, server: &mut Running, is_done: impl Fn(&str) -> bool) {
        until("the server waits", || {
            let text = self.text();
            let ended = server.child.try_wait().expect("a child").is_some();
            ended || waits(&text) && is_done(&text)
        });
    }

    /// Starts a server with `what` done at `call`, and waits until it waits for clients.
    #[track_caller]
    fn server_with(&self, os: &Os, call: &Call, what: &str) -> Running {
        let mut server = start_with(&self.path(), call, what, &helper(&["server", os.endpoint()]));
        self.settles(&mut server, |text| text.contains("\"listening "));
        assert!(server.next_line().starts_with("listening "));
        server
    }

    /// Returns the calls from a client's connection to its end.
    fn calls(&self) -> Option<Vec<Call>> {
        let os = Os::new();
        let server = helper(&["server", os.endpoint()]);
        let mut server = Running::start(traced(&self.path(), &["-e", "trace=all"], &server)?);
        self.settles(&mut server, |text| text.contains("\"listening "));
        let before = self.lines();
        ask(&connect(&os).expect("a server")).expect("an answer");
        self.settles(&mut server, |text| ends_after(text, before));

        let mut calls = calls(&self.text());
        calls.retain(|call| call.before >= before);
        finish(server);
        assert!(calls.len() > 5, "{calls:?}");
        Some(calls)
    }
}

/// Reports whether the server waits for its next event.
fn waits(text: &str) -> bool {
    let last = text.lines().last().unwrap_or_default();
    last.starts_with("epoll_") && !last.contains(" = ")
}

/// Reports whether a connection was closed after the first `before` calls.
fn ends_after(text: &str, before: usize) -> bool {
    text.lines().skip(before).any(|line| line.starts_with("close("))
}

fn connect(os: &Os) -> io::Result<UnixStream> {
    let client = UnixStream::connect(os.endpoint())?;
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}

/// Sends four bytes, and reads them back from the server.
fn ask(mut client: &UnixStream) -> io::Result<()> {
    client.write_all(b"eping")?;
    let mut answer = [0; 4];
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

/// Returns whether the client got its answer. Otherwise it got an end or an error, in time.
#[track_caller]
fn is_served(os: &Os, what: &str) -> bool {
    let outcome = connect(os).and_then(|client| ask(&client));
    if let Err(error) = &outcome {
        let kind = error.kind();
        let late = matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!late, "{what}: the client hangs");
    }
    outcome.is_ok()
}

/// Checks that the next server serves, and that no file is left when it stops.
#[track_caller]
fn assert_usable(os: &Os, after: &str) {
    let (mut server, _) = listening(helper(&["server", os.endpoint()]));
    assert!(is_served(os, after), "{after}");
    command(&mut server, "drop");
    assert_eq!(finish(server), ["dropped"], "{after}");
    assert_eq!(os.files(), [""; 0], "{after}");
}

#[test]
fn a_server_killed_while_it_serves_lets_no_client_hang() {
    let log = Log::new();
    let Some(calls) = log.calls() else { return };
    let (mut killed, mut served) = (0, 0);
    for call in &calls {
        let os = Os::new();
        let what = format!("killed at {call:?}");
        let mut server = log.server_with(&os, call, "signal=KILL");
        let before = log.lines();
        served += usize::from(is_served(&os, &what));
        log.settles(&mut server, |text| ends_after(text, before));
        drop(server.child.stdin.take());
        killed += usize::from(is_killed(server.wait().0));
        assert_usable(&os, &what);
    }

    assert!(killed > 0, "none of {calls:?} occurred again");
    println!("killed at {killed} calls: {served} clients had their answer, 0 hung");
}

/// The client may lose its connection. The server serves all others, and waits again.
#[test]
fn each_failing_call_of_a_server_costs_one_client_at_most() {
    let log = Log::new();
    let Some(mut calls) = log.calls() else { return };
    // A system without accept4 sets the flags of a new socket by these. No error of theirs occurs
    // there, and one ends the listener.
    calls.retain(|call| !matches!(call.name.as_str(), "fcntl" | "ioctl"));
    let (mut failed, mut lost) = (0, 0);
    for call in &calls {
        for error in call.errors() {
            let os = Os::new();
            let mut server = log.server_with(&os, call, &format!("error={error}"));
            let before = log.lines();
            let what = format!("{error} of {call:?}");

            let lost_now = (0..3).filter(|_| !is_served(&os, &what)).count();
            log.settles(&mut server, |_| true);
            failed += usize::from(log.text().contains("(INJECTED)"));
            let made = log.lines() - before;
            assert!(made < FEW, "{what}: {made} calls for three clients");

            drop(server.child.stdin.take());
            let (status, out, err) = server.wait();
            assert!(status.success() && out.is_empty(), "{what}: {out:?} {err:?}");
            assert!(lost_now <= 1, "{what}: {lost_now} clients are lost: {out:?}");
            lost += lost_now;
            assert_usable(&os, &what);
        }
    }
    assert!(failed > 0, "none of {calls:?} occurred again");
    println!("{failed} errors: {lost} clients lost their connection, no server ended");
}

#[test]
fn a_server_that_pauses_while_it_serves_loses_no_client() {
    let log = Log::new();
    let Some(calls) = log.calls() else { return };
    let mut paused = 0;
    for call in &calls {
        let os = Os::new();
        let what = format!("paused at {call:?}");
        let mut server = log.server_with(&os, call, PAUSE);
        let before = log.lines();
        let one = connect(&os).expect("a server");
        let asking = thread::spawn(move || ask(&one));
        until("the server is at that call, or has done without it", || {
            let text = log.text();
            text.lines().count() >= call.before || waits(&text) && ends_after(&text, before)
        });
        assert!(is_served(&os, &what), "{what}: the other client is lost");
        let answer = asking.join().expect("no panic");
        answer.unwrap_or_else(|error| panic!("{what}: {error}"));

        log.settles(&mut server, |_| true);
        paused += usize::from(log.text().contains("(DELAYED)"));
        command(&mut server, "stats");
        assert_eq!(server.next_line(), "accepted 2 refused 0 pauses 0", "{what}");
        finish(server);
        assert_usable(&os, &what);
    }
    assert!(paused > 0, "none of {calls:?} occurred again");
    println!("paused at {paused} calls: both clients had their answers");
}
