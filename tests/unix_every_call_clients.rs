//! A client that starts a daemon, the daemon while it starts, and a single instance are killed or
//! paused at each of their system calls, or have each call fail. The next process is served, at
//! most one holds the name, and no file is left. `SOCKPIPE_FULL=1` tries every call, otherwise a
//! sample of them.
#![cfg(target_os = "linux")] // These tests need strace.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::calls::{Call, PAUSE, calls, is_killed, read, sample, start_with, traced};
use common::process::Running;
use common::unix::{finish, helper, output, strace, until};
use common::{Backend, Os, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A command of the shell: adds a line to a file, and becomes the daemon.
const NOTED: &str = r#"echo $$ >> "$0"; exec "$@""#;

/// The directory for the file of a daemon's standard error, and for the log of the calls.
struct Beside {
    temporary: TempDir,
    logs: TempDir,
}

impl Beside {
    fn new() -> Self {
        let dir = || tempfile::tempdir().expect("a directory");
        Self { temporary: dir(), logs: dir() }
    }

    fn log(&self) -> PathBuf {
        self.logs.path().join("log")
    }

    /// Returns a client that runs its daemon by `through`.
    fn client(&self, os: &Os, through: &[&str]) -> Command {
        let mut command = helper(&[&["spawning", os.endpoint()], through].concat());
        command.env("TMPDIR", self.temporary.path());
        command
    }

    /// Returns the calls that a client makes for the name.
    fn calls_of_a_client(&self) -> Option<Vec<Call>> {
        let os = Os::new();
        let log = self.log();
        output(traced(&log, &["-e", "signal=none"], &self.client(&os, &[]))?);
        end_daemons(&os);

        let text = read(&log);
        let lines: Vec<_> = text.lines().collect();
        // Its first attempt to connect fails. The name is also in its arguments.
        let first = lines.iter().position(|line| line.starts_with("connect("));
        let last = lines.iter().rposition(|line| line.contains("s.sock"));
        let (first, last) = first.zip(last).unwrap_or_else(|| panic!("{text}"));
        let mut calls = calls(&text);
        calls.retain(|call| (first..=last).contains(&call.before));
        Some(calls)
    }

    /// Returns the calls of a daemon, from its first own one until it accepts a client.
    fn calls_of_a_daemon(&self) -> Option<Vec<Call>> {
        let os = Os::new();
        let log = self.log();
        let daemon = traced(&log, &["-e", "trace=all"], &helper(&["daemon", os.endpoint()]))?;
        let _daemon = Running::start(daemon);
        until("the daemon listens", || UnixStream::connect(os.endpoint()).is_ok());
        let mut client = UnixStream::connect(os.endpoint()).expect("a server");
        client.set_read_timeout(Some(PATIENCE)).expect("a limit");
        client.read_exact(&mut [0]).expect("an answer");
        end_daemons(&os);

        let mut calls = calls(&read(&log));
        // The first calls are those of the loader and the standard library.
        let first = calls.iter().position(|call| call.name == "epoll_create1");
        let last = calls.iter().position(|call| call.name.starts_with("accept"));
        calls.truncate(last.expect("a client") + 1);
        Some(calls.split_off(first.expect("a runtime")))
    }

    /// Checks that the next clients are served by one daemon, the only one, and that only its files
    /// are left. Ends that daemon, and returns its process id.
    #[track_caller]
    fn assert_served(&self, os: &Os, after: &str) -> String {
        let [first, second] = [(); 2].map(|()| output(self.client(os, &[])).swap_remove(0));
        assert!(is_number(&first), "{after}: {first}");
        assert_eq!(first, second, "{after}");
        assert_eq!(end_daemons(os), [first.as_str()], "{after}");

        let mut left = os.files();
        left.retain(|file| file != "s.sock" && file != ".s.sock.lock");
        assert_eq!(left, [""; 0], "{after}");
        let left = fs::read_dir(self.temporary.path()).expect("a directory").count();
        assert_eq!(left, 0, "{after}: files in the temporary directory");
        first
    }
}

fn is_number(line: &str) -> bool {
    line.parse::<u32>().is_ok()
}

/// Returns the process ids of the daemons of the name that run.
fn daemons(os: &Os) -> Vec<String> {
    let sought = format!("\0daemon\0{}\0", os.endpoint());
    let entries = fs::read_dir("/proc").expect("a directory");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_one = |name: &String| {
        let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        line.ends_with(sought.as_bytes()) && !line.starts_with(b"strace\0")
    };
    names.filter(|name| is_number(name)).filter(is_one).collect()
}

/// Kills the daemons of the name, and returns their process ids.
fn end_daemons(os: &Os) -> Vec<String> {
    let running = daemons(os);
    for pid in &running {
        let pid = Pid::from_raw(pid.parse().expect("a number")).expect("an id");
        // It may have ended by itself meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
    running
}

#[test]
fn two_clients_get_one_daemon_though_one_pauses_at_any_call() {
    let beside = Beside::new();
    let log = beside.log();
    let starts = beside.logs.path().join("starts");
    let starts_path = starts.to_str().expect("UTF-8");
    let Some(calls) = beside.calls_of_a_client() else { return };
    let mut paused = 0;
    for call in sample(calls, 16) {
        let os = Os::new();
        let _ = fs::remove_file(&starts);
        let client = || beside.client(&os, &["sh", "-c", NOTED, starts_path]);
        let mut first = start_with(&log, &call, PAUSE, &client());
        call.reached_or_ended(&log, &mut first);
        let second = Running::start(client());

        let said = [first.next_line(), second.next_line()];
        let what = format!("paused at {call:?}: {said:?}");
        assert!(first.wait().0.success() && second.wait().0.success(), "{what}");
        assert_eq!(read(&starts).lines().count(), 1, "{what}: daemons that started");
        paused += usize::from(read(&log).contains("(DELAYED)"));

        let served = beside.assert_served(&os, &what);
        assert_eq!(said, [(); 2].map(|()| served.clone()), "{what}");
    }
    assert!(paused > 0, "no call occurred again");
    println!("paused at {paused} calls: both clients got one daemon");
}

/// The client reports an error that names the path, or is served.
#[test]
fn each_failing_call_of_a_client_that_starts_a_daemon_is_reported_or_harmless() {
    let beside = Beside::new();
    let log = beside.log();
    let Some(mut calls) = beside.calls_of_a_client() else { return };
    // The standard library reads by it whether the daemon's program runs, and panics if it fails.
    calls.retain(|call| !matches!(call.name.as_str(), "recv" | "recvfrom"));
    let (mut served, mut reported) = (0, 0);
    for call in sample(calls, 9) {
        for error in call.errors() {
            let os = Os::new();
            let inject = format!("error={error}");
            let client = start_with(&log, &call, &inject, &beside.client(&os, &[]));
            let (status, out, err) = client.wait();
            let what = format!("{error} of {call:?}: {out:?} {err:?}");
            assert!(status.success() && out.len() == 1, "{what}");

            let well = is_number(&out[0]);
            let dir = os.dir().display().to_string();
            assert!(well || out[0].contains(&dir), "{what}");
            let running = daemons(&os);
            assert!(running.len() <= 1 && (!well || running == out), "{what}: {running:?}");
            if read(&log).contains("(INJECTED)") {
                *(if well { &mut served } else { &mut reported }) += 1;
            }
            if call.name.starts_with("unlink") {
                // The next start of any daemon removes the file of the standard error.
                beside.assert_served(&Os::new(), &what);
            }
            beside.assert_served(&os, &what);
        }
    }
    assert!(served + reported > 0, "no call failed");
    println!("{served} errors were harmless, {reported} were reported");
}

/// Its client starts another daemon, reports it, or had connected to it.
#[test]
fn a_daemon_killed_while_it_starts_does_not_hinder_the_next() {
    let beside = Beside::new();
    let log = beside.log();
    let path = log.to_str().expect("UTF-8");
    let Some(calls) = beside.calls_of_a_daemon() else { return };
    let (mut reported, mut cut) = (0, 0);
    for call in sample(calls, 6) {
        let os = Os::new();
        let _ = fs::remove_file(&log);
        let kill = call.inject("signal=KILL");
        let through = ["strace", "-qq", "-o", path, "-e", "trace=all", "-e", &kill];
        let line = output(beside.client(&os, &through)).swap_remove(0);
        let what = format!("daemon killed at {call:?}: {line:?}");

        let killed = || read(&log).contains("killed by SIGKILL");
        let dir = os.dir().display().to_string();
        if line.starts_with("closed") || line.starts_with("cut off") {
            // The client sees it before strace.
            until("the daemon was killed", killed);
            cut += 1;
        } else if !is_number(&line) {
            assert!(line.contains(" ServerExited: ") && line.contains(&dir), "{what}");
            assert!(killed(), "{what}");
            reported += 1;
        }
        beside.assert_served(&os, &what);
    }
    assert!(reported > 0, "no daemon was killed before it listened");
    println!("{reported} clients reported the daemon's end, {cut} were cut off by it");
}

#[test]
fn a_daemon_killed_before_its_program_runs_is_reported() {
    let beside = Beside::new();
    // The backend of macOS and the BSDs does not make the second call.
    let calls = if cfg!(sockpipe_posix) { &["setsid"][..] } else { &["setsid", "close_range"] };
    for call in calls {
        let os = Os::new();
        let kill = format!("inject={call}:signal=KILL");
        let client = strace(&beside.log(), &["-e", &kill], &beside.client(&os, &[]));
        let Some(client) = client else { return };
        let client = Running::start(client);
        let line = client.next_line();

        let dir = os.dir().display().to_string();
        assert!(line.contains(" ServerExited: ") && line.contains(&dir), "{call}: {line:?}");
        client.wait();
        beside.assert_served(&os, call);
    }
}

/// A process that acquires a single instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It is the first.
    First,
    /// It is the first after another crashed.
    Successor,
    /// Another is the first.
    Later,
}

impl Role {
    /// Prepares the name, and returns the first instance if there is one.
    fn prepare(self, os: &Os) -> Option<Running> {
        if self == Self::First {
            return None;
        }
        let first = Running::start(single(os));
        assert_eq!(first.next_line(), format!("first {}", first.child.id()));
        if self == Self::Later {
            return Some(first);
        }
        first.crash();
        None
    }

    /// Returns the calls by which the process gets its role.
    fn calls(self, log: &Path) -> Option<Vec<Call>> {
        let os = Os::new();
        let first = self.prepare(&os);
        finish(Running::start(traced(log, &["-e", "trace=all"], &single(&os))?));
        first.map(finish);

        let text = read(log);
        let mut lines = text.lines();
        let begin = lines.position(|line| line.contains(".s.sock.lock")).expect("a lock");
        let is_end = |line: &str| line.contains("\"first ") || line.contains("\"later ");
        let end = begin + 1 + lines.position(is_end).expect("an end");
        let mut calls = calls(&text);
        calls.retain(|call| (begin..end).contains(&call.before));
        Some(calls)
    }
}

fn single(os: &Os) -> Command {
    helper(&["single", os.endpoint()])
}

/// Checks that `first` is still the first instance, or that the next one becomes it, and that no
/// file is left when it ends.
#[track_caller]
fn assert_acquirable(os: &Os, first: Option<Running>, after: &str) {
    let left = os.files();
    let known = |name: &String| name == "s.sock" || name == ".s.sock.lock";
    assert!(left.iter().all(known), "{after}: {left:?}");

    let first = first.unwrap_or_else(|| {
        let next = Running::start(single(os));
        assert_eq!(next.next_line(), format!("first {}", next.child.id()), "{after}");
        next
    });
    assert_eq!(output(single(os)), [format!("later {}", first.child.id())], "{after}");
    assert_eq!(finish(first), [""; 0], "{after}");
    assert_eq!(os.files(), [""; 0], "{after}");
}

#[test]
fn an_instance_killed_at_any_call_leaves_the_name_to_the_next() {
    let beside = Beside::new();
    let log = beside.log();
    for role in [Role::First, Role::Successor, Role::Later] {
        let Some(calls) = role.calls(&log) else { return };

        let mut killed = 0;
        for call in sample(calls, 4) {
            let os = Os::new();
            let first = role.prepare(&os);
            let mut instance = start_with(&log, &call, "signal=KILL", &single(&os));
            drop(instance.child.stdin.take());
            killed += usize::from(is_killed(instance.wait().0));
            assert_acquirable(&os, first, &format!("{role:?} killed at {call:?}"));
        }

        assert!(killed > 0, "{role:?}: no call occurred again");
        println!("{role:?}: killed at {killed} calls, 0 wrong");
    }
}

/// The process reports an error that names the path, or has its role.
#[test]
fn each_failing_call_of_an_instance_is_reported_or_harmless() {
    let beside = Beside::new();
    let log = beside.log();
    let mut failed = 0;
    for role in [Role::First, Role::Successor, Role::Later] {
        let Some(mut calls) = role.calls(&log) else { return };
        // A later instance reads the answer of the first by it, once it has its role.
        calls.retain(|call| call.name != "recvmsg");
        let (mut well, mut reported) = (0, 0);
        for call in sample(calls, 4) {
            for error in call.errors() {
                let os = Os::new();
                let first = role.prepare(&os);
                let inject = format!("error={error}");
                let mut instance = start_with(&log, &call, &inject, &single(&os));
                drop(instance.child.stdin.take());
                let (status, out, err) = instance.wait();
                let what = format!("{role:?}, {error} of {call:?}: {out:?} {err:?}");
                assert!(status.success() && out.len() == 1, "{what}");

                let dir = os.dir().display().to_string();
                let right = match &first {
                    None => out[0].starts_with("first "),
                    Some(first) => out[0] == format!("later {}", first.child.id()),
                };
                assert!(right || out[0].contains(&dir), "{what}");
                if read(&log).contains("(INJECTED)") {
                    *(if right { &mut well } else { &mut reported }) += 1;
                }
                assert_acquirable(&os, first, &what);
            }
        }
        failed += well + reported;
        println!("{role:?}: {well} errors were harmless, {reported} were reported");
    }
    assert!(failed > 0, "no call failed");
}

#[test]
fn a_pause_at_any_call_leaves_one_of_two_instances_the_first() {
    let beside = Beside::new();
    let log = beside.log();
    for role in [Role::First, Role::Successor] {
        let Some(calls) = role.calls(&log) else { return };
        let (mut paused, mut won) = (0, 0);
        for call in sample(calls, 6) {
            let os = Os::new();
            let _ = role.prepare(&os);
            let mut one = start_with(&log, &call, PAUSE, &single(&os));
            call.reached_or_ended(&log, &mut one);
            let other = Running::start(single(&os));
            let mut said = [one.next_line(), other.next_line()];
            let what = format!("{role:?} paused at {call:?}: {said:?}");
            paused += usize::from(read(&log).contains("(DELAYED)"));
            won += usize::from(said[0].starts_with("first "));

            said.sort();
            let first = said[0].strip_prefix("first ").unwrap_or_else(|| panic!("{what}"));
            assert_eq!(said[1], format!("later {first}"), "{what}");
            finish(one);
            finish(other);
            assert_acquirable(&os, None, &what);
        }
        assert!(paused > 0, "{role:?}: no call occurred again");
        println!("{role:?}: paused at {paused} calls, the paused one was the first {won} times");
    }
}
