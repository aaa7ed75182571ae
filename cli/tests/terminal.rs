//! Signals, terminals and other users, which tests can use on Unix only.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::process::{Users, is_here, tool};
use common::unix::{STRANGER, open_to_all, set_mode};
use common::{Backend, Os, Tool, run_with};
use rustix::process::Signal;

#[test]
fn a_signal_ends_a_server_and_releases_its_name() {
    for signal in [Signal::INT, Signal::TERM] {
        for (verb, code) in [("listen", 130), ("echo", 0)] {
            let os = Os::new();
            let server = Tool::listening(&[verb, os.endpoint()]);
            server.signal(signal);
            let ended = server.wait();
            assert_eq!((ended.code, ended.err.as_str()), (Some(code), ""), "{verb}");
            assert_eq!(os.files(), [""; 0]);
        }
        let (front, behind) = (Os::new(), Os::new());
        let _echo = Tool::listening(&["echo", behind.endpoint()]);
        let relay = Tool::listening(&["relay", front.endpoint(), behind.endpoint()]);
        // The open connection finishes.
        let mut client = Tool::start(&["connect", front.endpoint()]);
        client.type_in("before");
        client.await_out("before");
        relay.signal(signal);
        common::unix::until("the name is free", || front.files().is_empty());
        client.type_in(", after");
        client.await_out("before, after");
        client.end_input();
        client.wait().assert_succeeds();
        relay.wait().assert_succeeds();
    }
}

/// A server in a directory that the user named is not bound again in another one.
#[test]
fn a_server_warns_once_when_its_directory_is_replaced_and_reports_its_return() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("d");
    let make = || {
        fs::create_dir(&dir).expect("a directory");
        set_mode(&dir, 0o700);
    };
    make();
    let path = dir.join("s.sock").to_str().expect("UTF-8").to_owned();
    let mut server = Tool::listening(&["echo", &path]);
    let elsewhere = parent.path().join("elsewhere");
    fs::rename(&dir, &elsewhere).expect("a free name");
    make();
    server.await_err("removed or replaced; restart it\n");
    // The server checks again, and does not warn again.
    fs::remove_dir(&dir).expect("an empty directory");
    fs::rename(&elsewhere, &dir).expect("a free name");
    server.await_err("clients find this server again\n");
    assert_eq!(run_with(&["connect", &path], b"hello").assert_succeeds().text(), "hello");
    server.signal(Signal::TERM);
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.err.matches("warning: clients do not find this server").count(), 1);
    assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
}

#[test]
fn an_interrupted_ping_prints_its_results() {
    let os = Os::new();
    let echo = Tool::listening(&["echo", os.endpoint()]);
    let mut ping = Tool::start(&["ping", "-v", os.endpoint(), "-n", "100000000"]);
    ping.await_err("the first that is counted");
    ping.signal(Signal::INT);
    let ended = ping.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.text().contains(" round trips of 64 bytes"), "{}", ended.text());
    drop(echo);
    // There are no results: the server does not answer, or there is none.
    let _server = Tool::listening(&["listen", os.endpoint()]);
    let nobody = Os::new();
    for (arguments, says) in [
        (["ping", "-v", "--timeout=60", os.endpoint()], "connected to"),
        (["ping", "-v", "--wait", nobody.endpoint()], "connecting to"),
    ] {
        let mut ping = Tool::start(&arguments);
        ping.await_err(says);
        ping.signal(Signal::INT);
        let ended = ping.wait();
        assert_eq!((ended.code, ended.text().as_str()), (Some(130), ""), "{ended:?}");
    }
}

/// A client has nothing to clean up, so the signal keeps its default action.
#[test]
fn a_signal_ends_a_client() {
    for verb in [&["connect"][..], &["relay", "stdio:"]] {
        let os = Os::new();
        let _echo = Tool::listening(&["echo", os.endpoint()]);
        let mut client = Tool::start(&[verb, &[os.endpoint()]].concat());
        client.type_in("hello");
        client.await_out("hello");
        client.signal(Signal::TERM);
        let status = client.child.wait().expect("an end");
        assert_eq!(status.signal(), Some(15), "{verb:?}: {status}");
    }
}

/// A server that exits with 0 still reports the connections that it cut.
#[test]
fn connections_that_are_cut_are_counted() {
    let behind = Os::new();
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let os = [(); 3].map(|()| Os::new());
    let arguments = [
        &["echo", os[0].endpoint()][..],
        &["relay", os[1].endpoint(), behind.endpoint()],
        &["listen", "--keep", os[2].endpoint(), "--exec", "cat"],
    ];
    // The servers stop at the same time, because each waits its full grace period.
    let mut ending = Vec::new();
    for (number, (os, arguments)) in os.iter().zip(arguments).enumerate() {
        let server = Tool::listening(arguments);
        let clients: Vec<_> = (0..=number)
            .map(|_| {
                let mut client = Tool::start(&["connect", os.endpoint()]);
                client.type_in("hello");
                client.await_out("hello");
                client
            })
            .collect();
        server.signal(Signal::INT);
        ending.push((server, clients));
    }
    let says = ["1 connection was cut", "2 connections were cut", "3 connections were cut"];
    for ((server, clients), says) in ending.into_iter().zip(says) {
        let ended = server.wait();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.err.contains(says), "{says:?}: {ended:?}");
        drop(clients);
    }
}

#[test]
fn a_second_signal_cuts_connections() {
    let (os, far) = (Os::new(), Os::new());
    let _far = Tool::listening(&["echo", far.endpoint()]);
    for arguments in [
        &["echo", os.endpoint()][..],
        &["relay", os.endpoint(), far.endpoint()],
        &["listen", "--keep", os.endpoint(), "--exec", "cat"],
    ] {
        let mut server = Tool::listening(arguments);
        let mut client = Tool::start(&["connect", os.endpoint()]);
        client.type_in("hello");
        client.await_out("hello");
        server.signal(Signal::INT);
        server.await_err("a second Ctrl-C ends them at once");
        assert!(!Path::new(os.endpoint()).exists(), "the name is still there");
        server.signal(Signal::INT);
        assert_eq!(server.wait().code, Some(130), "{arguments:?}");
        assert_eq!(os.files(), [""; 0], "{arguments:?}");
        client.wait().assert_succeeds();
    }
}

/// timeout(1) sends one signal to its child and one to the child's group. That counts as one
/// request, so clients may finish.
#[test]
fn signals_that_arrive_together_count_once() {
    let (os, far) = (Os::new(), Os::new());
    let _far = Tool::listening(&["echo", far.endpoint()]);
    for arguments in [
        &["echo", os.endpoint()][..],
        &["relay", os.endpoint(), far.endpoint()],
        &["listen", "--keep", os.endpoint(), "--exec", "cat"],
    ] {
        loop {
            let server = Tool::listening(arguments);
            let mut client = Tool::start(&["connect", os.endpoint()]);
            client.type_in("hello");
            client.await_out("hello");
            let started = Instant::now();
            server.signal(Signal::TERM);
            // The server has time to handle the first signal, which the test is about.
            thread::sleep(Duration::from_millis(5));
            server.signal(Signal::TERM);
            let come_together = started.elapsed() < Duration::from_millis(50);
            client.end_input();
            let ended = server.wait();
            // If the signals were further apart, this process was not scheduled in between.
            if come_together {
                assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
                assert_eq!(os.files(), [""; 0], "{arguments:?}");
                client.wait().assert_succeeds();
                break;
            }
        }
    }
}

#[test]
fn a_signal_ends_a_server_whose_output_is_not_read() {
    let os = Os::new();
    let mut command = tool();
    command.args(["listen", os.endpoint()]).stdin(Stdio::piped());
    let mut server = command.spawn().expect("a process");
    common::unix::until("a server", || !os.files().is_empty());
    let client = run_with(&["connect", "--wait", "--close", os.endpoint()], &[7; 200 * 1024]);
    client.assert_succeeds();
    assert_eq!(server.try_wait().expect("a child"), None);
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), Signal::TERM)
        .expect("a signal");
    let mut status = None;
    common::unix::until("an end", || {
        status = server.try_wait().expect("a child");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(130));
}

#[test]
fn closed_standard_streams_have_their_exit_codes() {
    let os = Os::new();
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let endpoint = os.endpoint();
    let _echo = Tool::listening(&["echo", endpoint]);
    for (script, code) in [
        ("connect ENDPOINT <&-", 0),
        ("connect ENDPOINT <&- >&-", 0),
        ("connect ENDPOINT <&- >&- 2>&-", 0),
        ("listen ENDPOINT 2>&-", 4),
        ("info ENDPOINT >&-", 1),
        ("ping -n 3 ENDPOINT >&-", 1),
        ("completions bash >&-", 1),
        ("--help >&-", 1),
        ("connect ENDPOINT < /dev/null > /dev/full", 0),
        ("info ENDPOINT > /dev/full", 1),
        ("ping -n 3 ENDPOINT > /dev/full", 1),
        ("completions bash > /dev/full", 1),
        ("--help > /dev/full", 1),
        ("--version > /dev/full", 1),
        ("info --help > /dev/full", 1),
    ] {
        if script.contains("/dev/full") && !cfg!(target_os = "linux") {
            continue;
        }
        let script = format!("'{program}' {}", script.replace("ENDPOINT", endpoint));
        let mut command = Command::new("sh");
        let ended = Tool::of({
            command.args(["-c", &script]).stdin(Stdio::null());
            command
        })
        .wait();
        assert_eq!(ended.code, Some(code), "{script}: {ended:?}");
        assert!(!ended.err.contains("panicked"), "{script}: {ended:?}");
        assert_eq!(code == 1, ended.err.contains("cannot write to standard output"), "{ended:?}");
    }
    let script = format!("echo hello | '{program}' connect {endpoint} | head -c 1");
    let mut command = Command::new("bash");
    command
        .args(["-c", &format!("{script}; code=${{PIPESTATUS[1]}}; echo; echo $code")])
        .stdin(Stdio::null());
    let ended = Tool::of(command).wait();
    // The tool writes the five bytes before or after `head` ends.
    assert!(["h\n0\n", "h\n141\n"].contains(&ended.text().as_str()), "{ended:?}");
    run_with(&["connect", endpoint], b"hello").assert_succeeds();
    for (output, says) in [(">&-", "Bad file descriptor"), ("> /dev/full", "No space left")] {
        if output.contains("full") && !cfg!(target_os = "linux") {
            continue;
        }
        let script = format!("echo hello | '{program}' connect {endpoint} {output}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let says = format!("cannot write to standard output: {says}");
        Tool::of(command).wait().assert_fails(1, &[&says]);
    }
}

/// script(1) runs the tool on a terminal of its own.
#[test]
fn colours_and_progress_appear_on_a_terminal_only() {
    if !is_here("script") || !cfg!(target_os = "linux") {
        return;
    }
    let os = Os::new();
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let on_terminal = |arguments: &str, no_color: bool| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("'{program}' {arguments}"), "/dev/null"]);
        command.env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::null());
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let ended = Tool::of(command).wait();
        (ended.code, ended.text())
    };
    let connect = format!("connect {}", os.endpoint());
    let (code, text) = on_terminal(&connect, false);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("\u{1b}[") && text.contains("error: "), "{text:?}");
    let (_, text) = on_terminal(&connect, true);
    assert!(!text.contains('\u{1b}') && text.contains("error: no server"), "{text:?}");
    // Neither appears on a pipe, where the other tests compare whole lines.
    let _echo = Tool::listening(&["echo", os.endpoint()]);
    let ping = format!("ping -n 40 --rate 100 {}", os.endpoint());
    let (code, text) = on_terminal(&ping, false);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" of 40, the last took "), "{text:?}");
    let (_, text) = on_terminal(&format!("-q {ping}"), false);
    assert!(!text.contains(" of 40, "), "{text:?}");
}

#[test]
fn every_verb_refuses_other_users_by_default() {
    let Some(users) = Users::new() else { return };
    let as_stranger = |arguments: &[&str]| Tool::as_stranger(&users, arguments);
    let os = open_to_all();
    let _server = Tool::listening(&["echo", os.endpoint()]);
    for verb in ["connect", "ping"] {
        as_stranger(&[verb, os.endpoint()]).wait().assert_fails(5, &["refuse this user"]);
    }
    as_stranger(&["clean", os.endpoint()]).wait().assert_fails(5, &["cannot"]);
    for verb in ["listen", "echo"] {
        as_stranger(&[verb, os.endpoint()]).wait().assert_fails(5, &["cannot listen on"]);
    }
    let info = as_stranger(&["info", os.endpoint()]).wait();
    assert_eq!(info.code, Some(0), "{info:?}");
    assert!(info.text().contains("owner     uid 0"), "{}", info.text());
    assert!(
        info.text().contains("next      the server refuses connections of this user"),
        "{}",
        info.text()
    );

    // The server is open to everyone, and runs as another user than the client expects.
    let os = open_to_all();
    set_mode(&os.dir(), 0o1777);
    let mut server = as_stranger(&["echo", "--everyone", os.endpoint()]);
    server.await_listening();
    assert_eq!(
        fs::metadata(os.endpoint())
            .map(|it| std::os::unix::fs::MetadataExt::mode(&it) & 0o777)
            .ok(),
        Some(0o666)
    );
    let refused = run_with(&["connect", os.endpoint()], b"secret");
    refused.assert_fails(5, &["refused the server", &format!("uid {STRANGER}"), "--any-server"]);
    let told = run_with(&["connect", "--any-server", os.endpoint()], b"hello").assert_succeeds();
    assert_eq!(told.text(), "hello");
    let info = common::run(&["info", "--connect", os.endpoint()]).assert_succeeds().text();
    assert!(
        info.contains("every user may connect") && info.contains(&STRANGER.to_string()),
        "{info}"
    );
}

#[test]
fn a_command_gets_the_user_and_process_of_its_client() {
    let os = Os::new();
    let script = "echo $SOCKPIPE_PEER_USER $SOCKPIPE_PEER_PID";
    let server = Tool::listening(&["listen", os.endpoint(), "--exec", "sh", "-c", script]);
    let client = Tool::start(&["connect", os.endpoint()]);
    let id = client.child.id();
    let ended = client.wait().assert_succeeds();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(ended.text(), format!("{uid} {id}\n"));
    server.wait().assert_succeeds();
}
