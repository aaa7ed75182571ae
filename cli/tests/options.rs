//! Options of servers, and the server that a client expects.
#![cfg(unix)]

mod common;

use std::fs::{Permissions, metadata, set_permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use common::process::Users;
use common::unix::STRANGER;
use common::{Backend, Os, Tool, run, run_with, tool};

#[test]
fn servers_give_their_socket_a_mode_and_a_group() {
    let own = rustix::process::getgid().as_raw().to_string();
    for verb in ["listen", "echo", "relay"] {
        for (options, mode) in [
            (&["--mode", "660", "--group", &own][..], 0o660),
            (&["--group", &own], 0o660),
            (&["--mode", "0606"], 0o606),
            (&["--backlog", "7", "--spin", "--linger", "1"], 0o600),
        ] {
            let os = Os::new();
            let mut server = tool();
            server.arg(verb).args(options).arg(os.endpoint());
            if verb == "relay" {
                server.arg("tcp:127.0.0.1:9");
            }
            let mut server = Tool::of(server);
            server.await_listening();
            let data = metadata(os.endpoint()).expect("a socket");
            assert_eq!(data.mode() & 0o777, mode, "{verb} {options:?}");
        }
    }
    let os = Os::new();
    run(&["echo", "--group", "no such group", os.endpoint()])
        .assert_fails(2, &["no group no such group", "number"]);
    run(&["echo", "--mode", "660", "--everyone", os.endpoint()]).assert_usage();
    run(&["echo", "--mode", "799", os.endpoint()]).assert_usage();
}

#[test]
fn an_unsafe_directory_is_allowed_by_a_flag() {
    let os = Os::new();
    set_permissions(os.dir(), Permissions::from_mode(0o777)).expect("a mode");
    run(&["echo", os.endpoint()]).assert_fails(5, &["--unsafe-directory"]);
    let mut server = Tool::start(&["echo", "--unsafe-directory", os.endpoint()]);
    server.await_listening();
}

#[test]
fn everyone_warns_about_a_directory_closed_to_others() {
    let os = Os::new();
    set_permissions(os.dir(), Permissions::from_mode(0o700)).expect("a mode");
    let mut server = Tool::listening(&["echo", "--everyone", os.endpoint()]);
    server.await_err("no other user can connect: the directory ");
}

#[test]
fn expect_user_refuses_the_servers_of_other_users() {
    let Some(users) = Users::new() else { return };
    let os = Os::new();
    // The server runs as another user than root, whom every client accepts.
    set_permissions(os.dir(), Permissions::from_mode(0o1777)).expect("a mode");
    let mut echo = Tool::as_stranger(&users, &["echo", "--everyone", os.endpoint()]);
    echo.await_listening();
    let (right, wrong) = (STRANGER.to_string(), (STRANGER + 1).to_string());
    let ended = run_with(&["connect", "--expect-user", &right, os.endpoint()], b"hello");
    assert_eq!(ended.assert_succeeds().text(), "hello");
    for verb in ["connect", "ping"] {
        run(&[verb, "--expect-user", &wrong, os.endpoint()]).assert_fails(5, &[&wrong]);
    }
}

#[test]
fn a_server_listens_on_a_passed_socket() {
    let os = Os::new();
    let listener = UnixListener::bind(os.endpoint()).expect("a socket");
    let mut server = Command::new("sh");
    let program = tool().get_program().to_owned();
    // The shell passes the socket as number 7, which std does not close.
    server.args(["-c", "exec \"$0\" echo fd:7 7<&0"]).arg(program).stdin(OwnedFd::from(listener));
    let mut server = Tool::of(server);
    server.await_listening();
    let ended = run_with(&["connect", os.endpoint()], b"hello");
    assert_eq!(ended.assert_succeeds().text(), "hello");
    run(&["echo", "fd:99"]).assert_fails(2, &["fd:99", "passes it"]);
    run(&["echo", "fd:"]).assert_usage();
}

/// Returns the tool as a command that has `socket` as descriptor 7.
fn with_passed(arguments: &str, socket: OwnedFd) -> Command {
    let mut command = Command::new("sh");
    // The shell moves the socket from standard input to 7.
    command.args(["-c", &format!("exec \"$0\" {arguments} 7<&0 </dev/null")]);
    command.arg(tool().get_program()).stdin(socket);
    command
}

#[test]
fn connect_uses_a_passed_connection() {
    let own = rustix::process::getuid().as_raw();
    let expecting = format!("connect --expect-user {own} fd:7");
    for verb in ["connect fd:7", "relay stdio: fd:7", &expecting] {
        let (mut near, far) = UnixStream::pair().expect("sockets");
        near.write_all(b"hello").expect("a write");
        near.shutdown(Shutdown::Write).expect("an end");
        let ended = Tool::of(with_passed(verb, far.into())).wait();
        assert_eq!(ended.assert_succeeds().text(), "hello", "{verb}");
        assert_eq!(near.read(&mut [0]).expect("an end"), 0, "{verb}");
    }
}

#[test]
fn a_passed_connection_that_blocked_blocks_again_at_the_end() {
    let blocks = |socket: &OwnedFd| {
        let flags = rustix::fs::fcntl_getfl(socket).expect("flags");
        !flags.contains(rustix::fs::OFlags::NONBLOCK)
    };
    for verb in ["connect fd:7", "relay fd:7 stdio:"] {
        let (near, far) = UnixStream::pair().expect("sockets");
        let shared: OwnedFd = far.try_clone().expect("a descriptor").into();
        near.shutdown(Shutdown::Both).expect("an end");
        Tool::of(with_passed(verb, far.into())).wait().assert_succeeds();
        assert!(blocks(&shared), "{verb}");
    }

    // A socket that is nonblocking already stays so.
    let (near, far) = UnixStream::pair().expect("sockets");
    far.set_nonblocking(true).expect("a mode");
    let shared: OwnedFd = far.try_clone().expect("a descriptor").into();
    near.shutdown(Shutdown::Both).expect("an end");
    Tool::of(with_passed("connect fd:7", far.into())).wait().assert_succeeds();
    assert!(!blocks(&shared));
}

#[test]
fn a_relay_takes_a_passed_connection_on_either_side() {
    let os = Os::new();
    let mut echo = Tool::listening(&["echo", os.endpoint()]);
    let (mut near, far) = UnixStream::pair().expect("sockets");
    let relay = Tool::of(with_passed(&format!("relay fd:7 {}", os.endpoint()), far.into()));
    near.write_all(b"hello").expect("a write");
    near.shutdown(Shutdown::Write).expect("an end");
    let mut heard = String::new();
    near.read_to_string(&mut heard).expect("an end");
    assert_eq!((heard.as_str(), relay.wait().code), ("hello", Some(0)));
    echo.end_input();

    let front = Os::new();
    let (mut near, far) = UnixStream::pair().expect("sockets");
    let mut relay = Tool::of(with_passed(&format!("relay {} fd:7", front.endpoint()), far.into()));
    relay.await_listening();
    let mut client = UnixStream::connect(front.endpoint()).expect("a connection");
    client.write_all(b"question").expect("a write");
    client.shutdown(Shutdown::Write).expect("an end");
    let mut heard = String::new();
    near.read_to_string(&mut heard).expect("an end");
    near.write_all(b"answer").expect("a write");
    near.shutdown(Shutdown::Write).expect("an end");
    let mut answered = String::new();
    client.read_to_string(&mut answered).expect("an end");
    assert_eq!((heard.as_str(), answered.as_str()), ("question", "answer"));
    assert_eq!(relay.wait().code, Some(0));
}

#[test]
fn a_passed_socket_of_the_wrong_kind_is_refused_with_advice() {
    let os = Os::new();
    let listener: OwnedFd = UnixListener::bind(os.endpoint()).expect("a socket").into();
    let ended = Tool::of(with_passed("connect fd:7", listener)).wait();
    ended.assert_fails(2, &["fd:7", "not connected", "pass a connected"]);
    let (_near, far) = UnixStream::pair().expect("sockets");
    let ended = Tool::of(with_passed("echo fd:7", far.into())).wait();
    ended.assert_fails(2, &["fd:7", "is connected", "`connect`"]);
    let (_near, far) = UnixStream::pair().expect("sockets");
    let ended = Tool::of(with_passed("connect --expect-user 4294967294 fd:7", far.into())).wait();
    ended.assert_fails(5, &["fd:7", "4294967294"]);
    // The tool is passed no descriptors, and has its own under some of these numbers.
    let closed = "exec \"$0\" \"$@\" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";
    for number in 3..=9 {
        let passed = format!("fd:{number}");
        for verb in [&["listen"][..], &["connect"], &["relay", "tcp:127.0.0.1:0"]] {
            let mut command = Command::new("sh");
            command.args(["-c", closed]).arg(tool().get_program()).args(verb).arg(&passed);
            command.stdin(Stdio::null());
            let says = [&passed, "Bad file descriptor", "passes it"];
            Tool::of(command).wait().assert_fails(2, &says);
        }
    }
    // An address that cannot be connected is reported before the first client.
    let file = std::fs::File::open("/dev/null").expect("a file");
    let ended = Tool::of(with_passed("relay tcp:127.0.0.1:0 fd:7", file.into())).wait();
    ended.assert_fails(2, &["fd:7", "pass a connected"]);
}

/// A parent that is killed leaves its child without a reader and a writer.
#[test]
fn a_client_whose_output_has_no_reader_ends_with_its_input() {
    for verb in [&["connect"][..], &["relay", "stdio:"]] {
        let os = Os::new();
        let listener = UnixListener::bind(os.endpoint()).expect("a socket");
        let mut client = Tool::with_closed_output(&[verb, &[os.endpoint()]].concat());
        let (mut silent, _) = listener.accept().expect("the client");
        client.type_in("last words");
        client.end_input();
        assert_eq!(client.wait().code, Some(141));
        let mut heard = String::new();
        silent.read_to_string(&mut heard).expect("an end");
        assert_eq!(heard, "last words");
    }
}
