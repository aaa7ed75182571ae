//! The tool exchanges bytes with nc and socat, as client and as server.
//!
//! A test without its peer prints that it was skipped. It fails if `SOCKPIPE_REQUIRE_PEERS` is set.
#![cfg(unix)] // nc and socat use Unix domain sockets.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use common::process::is_here;
use common::unix::until;
use common::{Backend, Os, Tool, noise, run, run_with};

const LENGTH: usize = 300_000;

fn peer(program: &str, arguments: &[&str]) -> Tool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped());
    Tool::of(command)
}

/// Both programs send, and both read until the other's end.
#[track_caller]
fn exchange(mut one: Tool, mut other: Tool) {
    let (from_one, from_other) = (noise(LENGTH), noise(LENGTH + 1));
    let writers = [one.feed(from_one.clone()), other.feed(from_other.clone())];
    let (one, other) = (one.wait(), other.wait());
    assert_eq!((one.code, other.code), (Some(0), Some(0)), "{} {}", one.err, other.err);
    assert!(one.out == from_other, "{} bytes of {}", one.out.len(), from_other.len());
    assert!(other.out == from_one, "{} bytes of {}", other.out.len(), from_one.len());
    for writer in writers {
        writer.join().expect("no panic");
    }
}

#[test]
fn connect_exchanges_bytes_with_an_nc_server() {
    if !is_here("nc") {
        return;
    }
    let os = Os::new();
    let mut server = peer("nc", &["-l", "-N", "-U", os.endpoint()]);
    until("a socket", || Path::new(os.endpoint()).exists());
    let mut client = Tool::start(&["connect", "--wait=5", os.endpoint()]);
    let (from_server, from_client) = (noise(LENGTH), noise(LENGTH + 1));
    let fed = server.feed(from_server.clone());
    let mut input = client.input();
    let sent = from_client.clone();
    let typed = thread::spawn(move || input.write_all(&sent).map(|()| input));
    // With -l, nc exits when we end our direction, even if it still has input. So its input has to
    // be sent first.
    fed.join().expect("no panic");
    until("all of it", || client.output_length() == LENGTH);
    drop(typed.join().expect("no panic").expect("a write"));
    let (server, client) = (server.wait(), client.wait().assert_succeeds());
    assert_eq!(server.code, Some(0), "{}", server.err);
    assert!(client.out == from_server, "{} bytes of {LENGTH}", client.out.len());
    assert!(server.out == from_client, "{} bytes of {}", server.out.len(), from_client.len());
}

#[test]
fn listen_exchanges_bytes_with_an_nc_client() {
    if !is_here("nc") {
        return;
    }
    let os = Os::new();
    let server = Tool::listening(&["listen", os.endpoint()]);
    exchange(server, peer("nc", &["-N", "-U", os.endpoint()]));
    assert_eq!(os.files(), [""; 0]);
}

/// Without -N, nc does not send an end, and exits when the other side closes.
#[test]
fn nc_without_half_close_ends_when_the_other_side_does() {
    if !is_here("nc") {
        return;
    }
    let os = Os::new();
    let mut server = Tool::listening(&["listen", os.endpoint()]);
    let mut client = peer("nc", &["-U", os.endpoint()]);
    client.type_in("question");
    server.await_out("question");
    server.type_in("answer");
    client.await_out("answer");
    server.end_input();
    client.end_input();
    assert_eq!(client.wait().code, Some(0));
    server.wait().assert_succeeds();
    // This nc server never sends an end.
    let path = os.dir().join("nc");
    let path = path.to_str().expect("UTF-8");
    let mut server = peer("nc", &["-l", "-U", path]);
    until("a socket", || Path::new(path).exists());
    run_with(&["connect", "--wait=5", "--close", path], b"last words").assert_succeeds();
    server.await_out("last words");
    server.end_input();
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn info_does_not_use_up_an_nc_server() {
    if !is_here("nc") || !cfg!(target_os = "linux") {
        return;
    }
    let os = Os::new();
    let mut server = {
        let mut command = Command::new("nc");
        // nc gets a relative path, as a user would type it.
        command.current_dir(os.dir()).args(["-l", "-N", "-U", "s.sock"]).stdin(Stdio::piped());
        Tool::of(command)
    };
    until("a socket", || Path::new(os.endpoint()).exists());
    let pid = format!("pid {} (", server.child.id());
    until("it listens", || run(&["info", os.endpoint()]).code == Some(0));
    let info = run(&["info", os.endpoint()]).assert_succeeds().text();
    assert!(info.contains("live: a socket listens there") && info.contains(&pid), "{info}");
    let client = Tool::start(&["connect", os.endpoint()]);
    server.type_in("still here");
    exchange_after(server, client);
}

#[track_caller]
fn exchange_after(mut server: Tool, mut client: Tool) {
    client.await_out("still here");
    client.end_input();
    server.end_input();
    client.wait().assert_succeeds();
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn connect_exchanges_bytes_with_a_socat_server() {
    if !is_here("socat") {
        return;
    }
    let os = Os::new();
    let server = peer("socat", &["-t", "30", &format!("UNIX-LISTEN:{}", os.endpoint()), "-"]);
    until("a socket", || Path::new(os.endpoint()).exists());
    exchange(server, Tool::start(&["connect", "--wait=5", os.endpoint()]));
}

#[test]
fn listen_exchanges_bytes_with_a_socat_client() {
    if !is_here("socat") {
        return;
    }
    let os = Os::new();
    let server = Tool::listening(&["listen", os.endpoint()]);
    exchange(server, peer("socat", &["-t", "30", "-", &format!("UNIX-CONNECT:{}", os.endpoint())]));
}

/// First socat's TCP client connects through our relay to our server, then our client through
/// socat's relay.
#[test]
fn bytes_pass_through_our_relay_and_through_socats() {
    if !is_here("socat") {
        return;
    }
    let os = Os::new();
    let server = Tool::listening(&["listen", os.endpoint()]);
    let mut relay = Tool::start(&["relay", "tcp:127.0.0.1:0", os.endpoint()]);
    let address = relay.await_listening().replacen("tcp:", "TCP:", 1);
    exchange(server, peer("socat", &["-t", "30", "-", &address]));
    let middle = os.dir().join("middle");
    let middle = middle.to_str().expect("UTF-8");
    let server = Tool::listening(&["listen", os.endpoint()]);
    let from = format!("UNIX-LISTEN:{middle}");
    let to = format!("UNIX-CONNECT:{}", os.endpoint());
    let _relay = peer("socat", &["-t", "30", &from, &to]);
    until("a socket", || Path::new(middle).exists());
    exchange(server, Tool::start(&["connect", "--wait=5", middle]));
}
