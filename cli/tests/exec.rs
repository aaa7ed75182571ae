//! `listen --exec`: when its commands end, and that none is left behind.
#![cfg(unix)]

mod common;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::unix::until;
use common::{Backend, Os, Tool, run_with, tool};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};

/// A client whose command has said its process's number.
fn client(os: &Os) -> (Tool, Pid) {
    let mut client = Tool::start(&["connect", os.endpoint()]);
    client.await_out("\n");
    let pid = client.output_so_far().trim().parse().ok().and_then(Pid::from_raw);
    (client, pid.expect("a number"))
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

/// The terminal signals all processes of its foreground group.
/// The server is kept from running while it starts a thread that waits for the command.
#[cfg(target_os = "linux")] // For strace.
#[test]
fn the_output_of_a_command_that_ends_at_once_arrives() {
    let (os, logs) = (Os::new(), tempfile::tempdir().expect("a directory"));
    let mut server = tool();
    server.args(["listen", os.endpoint(), "--exec", "echo", "hello"]);
    let delayed = ["-e", "trace=clone,clone3", "-e", "inject=clone,clone3:delay_exit=300000"];
    let Some(server) = common::unix::strace(&logs.path().join("log"), &delayed, &server) else {
        return;
    };
    let mut server = Tool::of(server);
    server.await_listening();
    let client = Tool::start(&["connect", os.endpoint()]);
    assert_eq!(client.wait().assert_succeeds().text(), "hello\n");
    server.wait().assert_succeeds();
}

#[test]
fn ctrl_c_lets_commands_finish() {
    let os = Os::new();
    let script = "echo started; read line; echo finished $line";
    let mut server = tool();
    server.args(["listen", "--keep", os.endpoint(), "--exec", "sh", "-c", script]);
    server.process_group(0).stdin(Stdio::piped());
    let mut server = Tool::of(server);
    server.await_listening();
    let mut client = Tool::start(&["connect", os.endpoint()]);
    client.await_out("started\n");
    kill_process_group(Pid::from_child(&server.child), Signal::INT).expect("a signal");
    until("nobody is let in", || !Path::new(os.endpoint()).exists());
    client.type_in("well\n");
    client.await_out("finished well\n");
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn the_command_of_a_client_that_has_left_ends() {
    for script in [
        // It does not read, ignores what it is told, is stopped, and does no longer have an input.
        "echo $$; exec sleep 60",
        "trap '' TERM; echo $$; while :; do sleep 1; done",
        "echo $$; kill -STOP $$; sleep 60",
        "exec <&-; echo $$; exec sleep 60",
    ] {
        let os = Os::new();
        let _server =
            Tool::listening(&["listen", "-k", os.endpoint(), "--exec", "sh", "-c", script]);
        let (mut client, pid) = client(&os);
        // More than it could be given.
        let writer = client.feed(vec![7; 1024 * 1024]);
        client.crash();
        writer.join().expect("no panic");
        until(script, || is_gone(pid));
    }
}

/// It is not cut off from what it was sent.
#[test]
fn a_command_reads_all_that_a_client_has_sent_before_it_left() {
    let os = Os::new();
    let sizes = os.dir().join("sizes");
    let script = format!("wc -c > '{}'", sizes.display());
    let _server = Tool::listening(&["listen", "-k", os.endpoint(), "--exec", "sh", "-c", &script]);
    run_with(&["connect", "--close", os.endpoint()], &[7; 300_000]).assert_succeeds();
    let read = || std::fs::read_to_string(&sizes).unwrap_or_default();
    until("all is read", || read().trim() == "300000");
}

#[test]
fn no_command_outlives_its_server() {
    for script in ["echo $$; exec sleep 60", "trap '' TERM; echo $$; while :; do sleep 1; done"] {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            for keep in [true, false] {
                let os = Os::new();
                let mut arguments = vec!["listen", os.endpoint()];
                arguments.extend(keep.then_some("--keep"));
                arguments.extend(["--exec", "sh", "-c", script]);
                let mut server = Tool::listening(&arguments);
                let (_client, pid) = client(&os);
                server.signal(signal);
                if keep {
                    // Its connections may finish, until it is asked a second time.
                    server.await_err("a second Ctrl-C ends them at once");
                    assert!(!Path::new(os.endpoint()).exists(), "nobody is let in");
                    assert!(!is_gone(pid), "{signal:?}");
                    server.signal(signal);
                }
                assert_eq!(server.wait().code, Some(130), "{signal:?}, {keep}");
                assert!(is_gone(pid), "{signal:?}, {keep}, {script}");
            }
        }
    }
}

/// As of what a script runs in the background.
#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let os = Os::new();
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let mut server = Command::new("sh");
    server.args(["-c", "trap '' INT; exec \"$0\" echo \"$1\"", &program, os.endpoint()]);
    let mut server = Tool::of(server);
    server.await_listening();
    server.signal(Signal::INT);
    // One that had heard it might still serve the first.
    for _ in 0..5 {
        let client = run_with(&["connect", os.endpoint()], b"hello").assert_succeeds();
        assert_eq!(client.text(), "hello");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code, Some(0));
}
