//! A process dies at a system call while it starts a daemon, hands a launch over, or takes a server
//! over. The next process succeeds, and no file is left.
#![cfg(unix)] // These tests need strace.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitStatus};

use common::calls::{is_killed, traced};
use common::process::Running;
use common::unix::{full, helper, output, until};
use common::{Backend, Os};
use rustix::process::{Pid, Signal, kill_process};

/// The calls that `command` makes, each with its number among the calls of its name. It is a
/// sample, except in a full run. `None` where nothing can be traced.
fn calls(command: Command) -> Option<Vec<(String, u32)>> {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let (status, out, err) = Running::start(traced(&log, &["-e", "signal=none"], &command)?).wait();
    assert!(status.success(), "{out:?} {err:?}");
    let log = fs::read_to_string(&log).expect("a log");
    let names = log.lines().filter_map(|line| line.split_once('(').map(|(name, _)| name));
    let mut seen = BTreeMap::new();
    let calls = names.map(|name| {
        let count = seen.entry(name.to_owned()).or_insert(0);
        *count += 1;
        (name.to_owned(), *count)
    });
    let calls: Vec<_> = calls.collect();
    // The first calls are those of the loader and the standard library.
    let ours = calls.iter().position(|(name, _)| name == "epoll_create1").expect("a runtime");
    let step = if full() { 1 } else { 9 };
    // Each run samples other calls.
    let first = std::process::id() as usize % step;
    let chosen = calls[ours..].iter().skip(first).step_by(step);
    Some(chosen.filter(|(name, _)| name != "exit_group").cloned().collect())
}

fn lines(log: &Path) -> usize {
    fs::read_to_string(log).expect("a log").lines().count()
}

/// The calls after the first `before` lines of a process's log, each with its number among the
/// calls of its name.
fn calls_since(before: usize, log: &Path) -> Vec<(String, u32)> {
    let log = fs::read_to_string(log).expect("a log");
    let mut seen = BTreeMap::new();
    let mut calls = Vec::new();
    for (at, line) in log.lines().enumerate() {
        let Some((name, _)) = line.split_once('(') else { continue };
        let count = seen.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if at >= before && name != "exit_group" {
            calls.push((name.to_owned(), *count));
        }
    }
    calls
}

/// Runs `command` and kills it at its `number`-th call of `name`. Returns whether that occurred:
/// the process does not always wait equally often, so some calls do not.
fn killed_at(name: &str, number: u32, command: &Command) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = format!("trace={name}");
    let inject = format!("inject={name}:signal=KILL:when={number}");
    let options = ["-e", &trace, "-e", &inject];
    let command = traced(&dir.path().join("log"), &options, command).expect("strace, as before");
    is_killed(Running::start(command).wait().0)
}

/// Ends the process by closing its standard input, and returns its end and its remaining output.
fn ended(mut running: Running) -> (ExitStatus, Vec<String>) {
    drop(running.child.stdin.take());
    let (status, out, _) = running.wait();
    (status, out)
}

fn process(pid: &str) -> Pid {
    Pid::from_raw(pid.parse().unwrap_or_else(|_| panic!("{pid:?}"))).expect("an id")
}

#[test]
fn a_client_killed_while_it_starts_a_daemon_does_not_hinder_the_next() {
    let temporary = tempfile::tempdir().expect("a directory");
    let client = |os: &Os| {
        let mut command = helper(&["spawning", os.endpoint()]);
        command.env("TMPDIR", temporary.path());
        command
    };
    let os = Os::new();
    let Some(calls) = calls(client(&os)) else { return };
    let pid = output(client(&os))[0].clone();
    kill_process(process(&pid), Signal::KILL).expect("the daemon");
    let mut killed = 0;
    for (name, number) in &calls {
        let os = Os::new();
        killed += usize::from(killed_at(name, *number, &client(&os)));

        let pid = output(client(&os))[0].clone();
        let again = output(client(&os))[0].clone();
        assert_eq!(pid, again, "{name} {number}: two daemons");
        let mut left = os.files();
        left.retain(|file| file != "s.sock" && file != ".s.sock.lock");
        assert_eq!(left, [""; 0], "{name} {number}");
        kill_process(process(&pid), Signal::KILL).expect("the daemon");
    }

    let left = fs::read_dir(temporary.path()).expect("a directory").count();
    assert_eq!(left, 0, "files in the temporary directory");
    assert!(killed > 0, "none of {calls:?} occurred again");
    println!("killed at {killed} calls: the next client is served, and nothing is left");
}

#[test]
fn a_later_start_killed_in_its_hand_over_leaves_the_first_serving() {
    let os = Os::new();
    let first = Running::start(helper(&["instance", os.endpoint(), ""]));
    assert_eq!(first.next_line(), "first");
    let Some(calls) = calls(helper(&["instance", os.endpoint(), "counted"])) else { return };
    assert_eq!(first.next_line(), "counted");
    let mut killed = 0;
    for (name, number) in &calls {
        let later = helper(&["instance", os.endpoint(), "killed"]);
        killed += usize::from(killed_at(name, *number, &later));
        assert_eq!(output(helper(&["instance", os.endpoint(), "next"])), ["done 0"]);
        // The first instance may or may not have received the launch of the killed process.
        let mut line = first.next_line();
        if line == "killed" {
            line = first.next_line();
        }
        assert_eq!(line, "next", "{name} {number}");
    }
    first.crash();
    assert!(killed > 0, "none of {calls:?} occurred again");
    println!("killed at {killed} calls: the first goes on");
}

#[test]
fn a_killed_first_instance_confirms_only_what_it_did() {
    let os = Os::new();
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let command = helper(&["instance", os.endpoint(), ""]);
    let Some(watched) = traced(&log, &[], &command) else { return };
    let watched = Running::start(watched);
    assert_eq!(watched.next_line(), "first");
    let before = lines(&log);
    assert_eq!(output(helper(&["instance", os.endpoint(), "x"])), ["done 0"]);
    assert_eq!(watched.next_line(), "x");
    until("it waits again", || {
        let log = fs::read_to_string(&log).expect("a log");
        log.lines().last().is_some_and(|line| line.starts_with("epoll_"))
    });
    let calls = calls_since(before, &log);
    watched.crash();

    let step = if full() { 1 } else { 4 };
    let (mut became, mut told, mut done, mut killed) = (0, 0, 0, 0);
    let begin = std::process::id() as usize % step;
    for (name, number) in calls.iter().skip(begin).step_by(step) {
        let os = Os::new();
        let log = dir.path().join("killed");
        let inject = format!("inject={name}:signal=KILL:when={number}");
        let command = helper(&["instance", os.endpoint(), ""]);
        let trace = format!("trace={name}");
        let Some(first) = traced(&log, &["-e", &trace, "-e", &inject], &command) else { return };
        let first = Running::start(first);
        assert_eq!(first.next_line(), "first");

        let later = Running::start(helper(&["instance", os.endpoint(), "wish"]));
        let line = later.next_line();
        ended(later);
        let (status, out) = ended(first);
        killed += usize::from(is_killed(status));
        let opened = out.iter().any(|line| line == "wish");

        match line.as_str() {
            "first" => became += 1,
            "done 0" => {
                assert!(opened, "{name} {number}: {out:?}");
                done += 1;
            }
            other => {
                assert!(
                    other.contains("ended before it finished the launch"),
                    "{name} {number}: {other}"
                );
                told += 1;
            }
        }
    }

    assert!(killed > 0, "none of {calls:?} occurred again");
    println!(
        "killed at {killed} calls: {became} became the first, {told} were told that it ended, \
         {done} were done"
    );
}

fn upgrade(os: &Os) -> Running {
    let server = Running::start(helper(&["upgrade", os.endpoint()]));
    assert_eq!(server.next_line(), "serves");
    server
}

/// The id of the server process that answers.
fn ask(os: &Os) -> io::Result<u32> {
    let mut stream = UnixStream::connect(os.endpoint())?;
    stream.write_all(b"?")?;
    let mut process = [0; 4];
    stream.read_exact(&mut process)?;
    Ok(u32::from_be_bytes(process))
}

/// Checks that `server` answers every client.
fn serves_alone(os: &Os, server: &Running) {
    for _ in 0..4 {
        assert_eq!(ask(os).expect("an answer"), server.child.id());
    }
}

#[test]
fn a_next_version_killed_while_it_takes_over_leaves_the_name_to_one() {
    let os = Os::new();
    let old = upgrade(&os);
    let once = |os: &Os| helper(&["upgrade-once", os.endpoint()]);
    let Some(calls) = calls(once(&os)) else { return };
    assert_eq!(old.wait().1, ["taken over, 0 cut"]);
    let (mut stayed, mut went, mut killed) = (0, 0, 0);
    for (name, number) in &calls {
        let os = Os::new();
        let old = upgrade(&os);
        killed += usize::from(killed_at(name, *number, &once(&os)));
        // The old server still serves, or it has given the name up.
        let answers = ask(&os).is_ok_and(|process| process == old.child.id());
        *(if answers { &mut stayed } else { &mut went }) += 1;
        let next = upgrade(&os);
        assert_eq!(old.wait().1, ["taken over, 0 cut"], "{name} {number}");
        serves_alone(&os, &next);
    }
    assert!(killed > 0, "none of {calls:?} occurred again");
    println!("killed at {killed} calls: {stayed} times the old one stayed, {went} it went");
}

#[test]
fn an_old_version_killed_while_it_is_taken_over_leaves_the_name_to_the_new_one() {
    let os = Os::new();
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let command = |os: &Os| helper(&["upgrade", os.endpoint()]);
    let Some(watched) = traced(&log, &[], &command(&os)) else { return };
    let watched = Running::start(watched);
    assert_eq!(watched.next_line(), "serves");
    let before = lines(&log);
    let next = upgrade(&os);
    assert_eq!(watched.wait().1, ["taken over, 0 cut"]);
    drop(next);

    let calls = calls_since(before, &log);
    let step = if full() { 1 } else { 4 };
    let first = std::process::id() as usize % step;
    let mut killed = 0;
    for (name, number) in calls.iter().skip(first).step_by(step) {
        let os = Os::new();
        let log = dir.path().join("killed");
        let inject = format!("inject={name}:signal=KILL:when={number}");
        let options = ["-e", &format!("trace={name}"), "-e", &inject];
        let Some(old) = traced(&log, &options, &command(&os)) else { return };
        let old = Running::start(old);
        assert_eq!(old.next_line(), "serves", "{name} {number}");
        let next = upgrade(&os);
        killed += usize::from(is_killed(old.wait().0));
        serves_alone(&os, &next);
    }
    assert!(killed > 0, "none of {calls:?} occurred again");
    println!("killed at {killed} calls: the new one has the name");
}
