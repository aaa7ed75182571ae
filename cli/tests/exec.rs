//! `listen --exec`: when a command ends, and that the tool leaves none behind.
#![cfg(unix)]

mod common;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::unix::until;
use common::{Backend, Os, Tool, run_with, tool};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};

/// Starts a client, and returns it with the process id that its command prints.
fn client(os: &Os) -> (Tool, Pid) {
    let mut client = Tool::start(&["connect", os.endpoint()]);
    client.await_out("\n");
    let pid = client.output_so_far().trim().parse().ok().and_then(Pid::from_raw);
    (client, pid.expect("a number"))
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

/// strace delays the server in the call that starts the thread which waits for the command.
#[cfg(target_os = "linux")] // It needs strace.
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
    until("the name is released", || !Path::new(os.endpoint()).exists());
    client.type_in("well\n");
    client.await_out("finished well\n");
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn the_command_of_a_client_that_has_left_ends() {
    for script in [
        // The commands do not read, ignore the signal, are stopped, or have closed their input.
        "echo $$; exec sleep 60",
        "trap '' TERM; echo $$; while :; do sleep 1; done",
        "echo $$; kill -STOP $$; sleep 60",
        "exec <&-; echo $$; exec sleep 60",
    ] {
        let os = Os::new();
        let _server =
            Tool::listening(&["listen", "-k", os.endpoint(), "--exec", "sh", "-c", script]);
        let (mut client, pid) = client(&os);
        // The command does not read this, and the buffers cannot hold it.
        let writer = client.feed(vec![7; 1024 * 1024]);
        client.crash();
        writer.join().expect("no panic");
        until(script, || is_gone(pid));
    }
}

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
                    // Connections may finish until a second signal arrives.
                    server.await_err("a second Ctrl-C ends them at once");
                    assert!(!Path::new(os.endpoint()).exists(), "the name is still there");
                    assert!(!is_gone(pid), "{signal:?}");
                    server.signal(signal);
                }
                assert_eq!(server.wait().code, Some(130), "{signal:?}, {keep}");
                assert!(is_gone(pid), "{signal:?}, {keep}, {script}");
            }
        }
    }
}

/// A shell has background commands of a script ignore SIGINT.
#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let os = Os::new();
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let mut server = Command::new("sh");
    server.args(["-c", "trap '' INT; exec \"$0\" echo \"$1\"", &program, os.endpoint()]);
    let mut server = Tool::of(server);
    server.await_listening();
    server.signal(Signal::INT);
    // A server that had caught the signal could still serve the first of these.
    for _ in 0..5 {
        let client = run_with(&["connect", os.endpoint()], b"hello").assert_succeeds();
        assert_eq!(client.text(), "hello");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code, Some(0));
}
