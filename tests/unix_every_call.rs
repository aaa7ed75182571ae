//! A start, a takeover, a stop and a cleaning are killed at each of their system calls, are paused
//! there while a rival starts, and have each call fail. In every case the next server starts, at
//! most one process holds the name, and no file is left. `SOCKPIPE_FULL=1` tries every call,
//! otherwise a sample of them.
#![cfg(target_os = "linux")] // These tests need strace.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::ExitStatus;

use common::calls::{Call, PAUSE, calls, is_killed, read, sample, start_with, traced};
use common::process::Running;
use common::unix::{command, finish, helper, listening};
use common::{Backend, Os};

/// An operation on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Start,
    Takeover,
    Stop,
    Clean,
}

impl Deed {
    fn prepare(self, os: &Os) {
        if matches!(self, Self::Takeover | Self::Clean) {
            listening(helper(&["server", os.endpoint()])).0.crash();
        }
    }

    /// Runs it under strace with `options`, and returns its end and its output.
    fn run(self, os: &Os, log: &Path, options: &[&str]) -> Option<(ExitStatus, Vec<String>)> {
        let verb = if self == Self::Clean { "clean" } else { "server" };
        let mut running = Running::start(traced(log, options, &helper(&[verb, os.endpoint()]))?);
        let mut out = Vec::new();
        if self == Self::Stop {
            out.extend(running.out.recv_timeout(common::PATIENCE));
            if out.first().is_some_and(|line| line.starts_with("listening")) {
                // The write fails if the process was killed right after it printed that.
                let _ = running.child.stdin.as_mut().map(|input| writeln!(input, "drop"));
            }
        }

        drop(running.child.stdin.take());
        let (status, rest, err) = running.wait();
        assert!(!err.iter().any(|line| line.contains("panicked")), "{err:?}");
        out.extend(rest);
        Some((status, out))
    }

    /// Returns a sample of its calls, from the first to the last that concern the name.
    fn calls(self, log: &Path) -> Option<Vec<Call>> {
        let os = Os::new();
        self.prepare(&os);
        let (_, out) = self.run(&os, log, &["-e", "trace=all"])?;
        let text = read(log);
        let ours: Vec<_> = text.lines().collect();

        let first = match self {
            // A stop begins after the server has printed that it listens.
            Self::Stop => ours.iter().position(|line| line.contains("\"listening")),
            _ => ours.iter().position(|line| line.contains(".s.sock.lock")),
        };
        let last = match self {
            Self::Start | Self::Takeover => {
                ours.iter().position(|line| line.contains("\"listening"))
            }
            Self::Stop | Self::Clean => {
                ours.iter().rposition(|line| line.contains(".s.sock.lock\""))
            }
        };

        let (first, last) = first.zip(last).unwrap_or_else(|| panic!("{out:?} in {text}"));
        let mut calls = calls(&text);
        calls.retain(|call| (first..=last).contains(&call.before));
        calls.retain(|call| call.before > first || self != Self::Stop);
        Some(sample(calls, 4))
    }
}

/// Checks that the next server starts, and that no file is left when it stops.
#[track_caller]
fn assert_usable(os: &Os, after: &str) {
    let left = os.files();
    let known = |name: &String| name == "s.sock" || name == ".s.sock.lock";
    assert!(left.iter().all(known), "{after}: {left:?}");
    let (mut server, _) = listening(helper(&["server", os.endpoint()]));
    command(&mut server, "drop");
    assert_eq!(finish(server), ["dropped"], "{after}");
    assert_eq!(os.files(), [""; 0], "{after}");
}

#[test]
fn a_kill_at_any_call_leaves_the_name_usable() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for deed in [Deed::Start, Deed::Takeover, Deed::Stop, Deed::Clean] {
        let Some(calls) = deed.calls(&log) else { return };
        let mut killed = 0;
        for call in &calls {
            let os = Os::new();
            deed.prepare(&os);
            let kill = call.inject("signal=KILL");
            let (status, _) = deed.run(&os, &log, &["-e", &kill]).expect("as before");
            killed += usize::from(is_killed(status));
            assert_usable(&os, &format!("{deed:?} killed at {call:?}"));
        }

        assert!(killed > 0, "{deed:?}: none of {calls:?} occurred again");
        println!("{deed:?}: killed at {killed} calls, 0 wrong");
    }
}

/// The process reports an error that names the path, or succeeds. It never reports a live server,
/// and it never listens where clients cannot find it.
#[test]
fn each_failing_call_is_reported_or_harmless() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for deed in [Deed::Start, Deed::Takeover, Deed::Stop, Deed::Clean] {
        let Some(mut calls) = deed.calls(&log) else { return };
        // With musl the test helper starts its thread by it, as with glibc by clone3.
        calls.retain(|call| call.name != "clone");
        let mut tried = 0;
        for call in &calls {
            for error in call.errors() {
                let os = Os::new();
                deed.prepare(&os);
                let inject = call.inject(&format!("error={error}"));
                let (_, out) = deed.run(&os, &log, &["-e", &inject]).expect("as before");
                let what = format!("{deed:?}, {error} of {call:?}: {out:?}");

                let line = out.first().unwrap_or_else(|| panic!("{what}"));
                let well = line.starts_with("listening") || line.starts_with("cleaned");
                let dir = os.dir().display().to_string();
                assert!(well || line.contains(&dir), "{what}");
                assert!(!line.contains(" LiveServer: "), "{what}");
                assert_nothing_more_is_left(&os, deed, &call.name, well, &what);
                assert_usable(&os, &what);
                tried += usize::from(read(&log).contains("(INJECTED)"));
            }
        }

        assert!(tried > 0, "{deed:?}: none of {calls:?} failed");
        println!("{deed:?}: {tried} errors, 0 wrong");
    }
}

/// Checks the files that are left. A process that failed leaves the files that it found, or none. A
/// process that succeeded leaves only a file whose removal failed.
#[track_caller]
fn assert_nothing_more_is_left(os: &Os, deed: Deed, call: &str, well: bool, after: &str) {
    let left = os.files();
    let (nothing, lock) = (left.is_empty(), left == [".s.sock.lock"]);
    let both = left == [".s.sock.lock", "s.sock"];
    let removes = matches!(call, "unlinkat" | "newfstatat" | "fstat" | "statx");
    let right = match deed {
        Deed::Start => nothing,
        Deed::Takeover => nothing || both && !well,
        Deed::Clean if well => nothing || lock && removes,
        Deed::Clean => both,
        Deed::Stop => nothing || removes && (lock || both),
    };
    assert!(right, "{after}: {left:?}");
}

/// One server pauses at each of its calls while another starts.
#[test]
fn a_pause_at_any_call_leaves_the_name_to_one_of_two() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for deed in [Deed::Start, Deed::Takeover] {
        let Some(calls) = deed.calls(&log) else { return };
        let (mut paused, mut first_won) = (0, 0);
        for call in &calls {
            let os = Os::new();
            deed.prepare(&os);
            let mut first = start_with(&log, call, PAUSE, &helper(&["server", os.endpoint()]));
            call.reached_or_ended(&log, &mut first);
            let second = Running::start(helper(&["server", os.endpoint()]));
            let said = [second.next_line(), first.next_line()];
            let winners = said.iter().filter(|line| line.starts_with("listening ")).count();
            let losers =
                said.iter().filter(|line| line.starts_with("AddrInUse LiveServer: ")).count();
            assert_eq!((winners, losers), (1, 1), "{deed:?} paused at {call:?}: {said:?}");
            paused += usize::from(read(&log).contains("(DELAYED)"));
            first_won += usize::from(said[1].starts_with("listening"));
            std::os::unix::net::UnixStream::connect(os.endpoint()).expect("the winner listens");
            for mut running in [first, second] {
                drop(running.child.stdin.take());
                running.wait();
            }
            assert_usable(&os, &format!("{deed:?} paused at {call:?}"));
        }
        assert!(paused > 0, "{deed:?}: none of {calls:?} occurred again");
        println!(
            "{deed:?}: paused at {paused} calls, the paused one won {first_won} times, 0 wrong"
        );
    }
}
