//! `relay` connects local endpoints, loopback TCP, and standard input and output.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{Backend, Os, PATIENCE, Tool, noise, run, run_with, unique_name};

const MIB: usize = 1024 * 1024;

fn tcp(address: &str) -> TcpStream {
    let address = address.strip_prefix("tcp:").expect("a TCP address");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

fn accept(server: &TcpListener) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    server.set_nonblocking(true).expect("a mode");
    loop {
        match server.accept() {
            Ok((stream, _)) => {
                // On the BSDs and Windows an accepted socket inherits the nonblocking mode.
                stream.set_nonblocking(false).expect("a mode");
                stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
                stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "no client");
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends `bytes` and an end, and returns what comes back.
fn ask(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut back = Vec::new();
    thread::scope(|scope| {
        let mut to = stream.try_clone().expect("a handle");
        scope.spawn(move || {
            to.write_all(bytes).expect("a write");
            to.shutdown(Shutdown::Write).expect("a half-close");
        });
        stream.read_to_end(&mut back).expect("an end");
    });
    back
}

#[test]
fn a_relay_carries_bytes_between_endpoints() {
    let (front, behind) = (Os::new(), Os::new());
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let _relay = Tool::listening(&["relay", front.endpoint(), behind.endpoint()]);
    let bytes = noise(2 * MIB + 1);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Tool::start(&["connect", front.endpoint()]);
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

/// The relay reads the user database only if it prints the users.
#[cfg(unix)]
#[test]
fn a_relay_looks_up_its_clients_only_to_report_them() {
    use common::unix::strace;
    use rustix::process::{Pid, Signal, kill_process};

    let (front, behind) = (Os::new(), Os::new());
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let log = behind.dir().join("log");
    for (flag, looks) in [("-q", 0), ("-v", 1)] {
        let mut relay = common::tool();
        relay.args(["relay", flag, front.endpoint(), behind.endpoint()]);
        let Some(relay) = strace(&log, &["-e", "trace=execve,openat"], &relay) else { return };
        let relay = Tool::of(relay);
        for _ in 0..3 {
            let client = ["connect", "--wait", front.endpoint()];
            assert_eq!(run_with(&client, b"hello").assert_succeeds().text(), "hello");
        }
        // Each line begins with the number of its process.
        let said = std::fs::read_to_string(&log).expect("a log");
        let pid = said.split(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), Signal::TERM).expect("a signal");
        relay.wait();
        let log = std::fs::read_to_string(&log).expect("a log");
        // Only the relay was started.
        assert_eq!(log.matches("execve(").count(), 1, "{flag}: {log}");
        // Both sides have one user, and three clients connect.
        assert_eq!(log.matches("/etc/passwd").count(), looks, "{flag}: {log}");
    }
}

/// The relay passes on each end by itself, in both directions.
#[test]
fn a_relay_carries_a_half_close_across() {
    let (front, behind) = (Os::new(), Os::new());
    let mut server = Tool::listening(&["listen", behind.endpoint()]);
    let _relay = Tool::listening(&["relay", front.endpoint(), behind.endpoint()]);
    let mut client = Tool::start(&["connect", front.endpoint()]);
    client.type_in("question");
    server.await_out("question");
    server.type_in("before, ");
    client.await_out("before, ");
    client.end_input();
    server.type_in("and after");
    client.await_out("before, and after");
    server.end_input();
    client.wait().assert_succeeds();
    server.wait().assert_succeeds();
    // Here the server ends its direction first.
    let mut server = Tool::listening(&["listen", behind.endpoint()]);
    let mut client = Tool::start(&["connect", front.endpoint()]);
    client.type_in("a");
    server.await_out("a");
    server.end_input();
    client.type_in("b");
    server.await_out("ab");
    client.end_input();
    client.wait().assert_succeeds();
    server.wait().assert_succeeds();
}

/// The other side ends even if it neither reads nor writes.
#[test]
fn a_relay_ends_both_sides_when_one_leaves() {
    let (front, behind) = (Os::new(), Os::new());
    let _relay = Tool::listening(&["relay", front.endpoint(), behind.endpoint()]);
    for client_leaves in [true, false] {
        let mut server = Tool::listening(&["listen", behind.endpoint()]);
        let mut client = Tool::start(&["connect", front.endpoint()]);
        client.type_in("hello");
        server.await_out("hello");
        let other = if client_leaves {
            client.crash();
            server
        } else {
            server.crash();
            client
        };
        other.wait().assert_succeeds();
    }
}

#[test]
fn a_relay_carries_bytes_from_tcp_to_an_endpoint() {
    let behind = Os::new();
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let mut relay = Tool::start(&["relay", "-v", "tcp:127.0.0.1:0", behind.endpoint()]);
    let address = relay.await_listening();
    relay.await_err("every user of this machine can connect");
    let bytes = noise(MIB + 1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(ask(tcp(&address), &bytes) == bytes));
        }
    });
}

#[test]
fn a_relay_carries_bytes_from_an_endpoint_to_tcp() {
    let front = Os::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", server.local_addr().expect("an address"));
    let _relay = Tool::listening(&["relay", front.endpoint(), &address]);
    let bytes = noise(MIB + 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = accept(&server);
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("the end of the question");
            stream.write_all(&got).expect("a write");
        });
        let ended = run_with(&["connect", front.endpoint()], &bytes).assert_succeeds();
        assert!(ended.out == bytes, "{} bytes", ended.out.len());
    });
}

#[test]
fn a_relay_carries_standard_input_and_output() {
    let (front, behind) = (Os::new(), Os::new());
    let bytes = noise(MIB);
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let ended = run_with(&["relay", "stdio:", behind.endpoint()], &bytes).assert_succeeds();
    assert!(ended.out == bytes, "{} bytes", ended.out.len());
    let mut relay = Tool::listening(&["relay", front.endpoint(), "stdio:"]);
    let writer = relay.feed(b"answer".to_vec());
    let ended = run_with(&["connect", front.endpoint()], b"question").assert_succeeds();
    assert_eq!(ended.text(), "answer");
    assert_eq!(relay.wait().assert_succeeds().text(), "question");
    writer.join().expect("no panic");
    assert_eq!(front.files(), [""; 0]);
    // The same with TCP.
    let mut relay = Tool::start(&["relay", "tcp:127.0.0.1:0", "stdio:"]);
    let address = relay.await_listening();
    let writer = relay.feed(b"answer".to_vec());
    assert_eq!(ask(tcp(&address), b"question"), b"answer");
    assert_eq!(relay.wait().assert_succeeds().text(), "question");
    writer.join().expect("no panic");
}

#[test]
fn a_relay_goes_on_when_no_server_is_behind_it() {
    let (front, behind) = (Os::new(), Os::new());
    let mut relay = Tool::listening(&["relay", front.endpoint(), behind.endpoint()]);
    run(&["connect", front.endpoint()]).assert_succeeds();
    relay.await_err("no server at");
    relay.await_err("--wait");
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let ended = run_with(&["connect", front.endpoint()], b"hello").assert_succeeds();
    assert_eq!(ended.text(), "hello");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", port.local_addr().expect("an address"));
    drop(port);
    run(&["relay", "stdio:", &address]).assert_fails(3, &["cannot connect to", &address]);
}

#[test]
fn tcp_to_other_machines_needs_the_remote_option() {
    let os = Os::new();
    for address in ["tcp:0.0.0.0:0", "tcp:[::]:0", "tcp:192.0.2.1:9"] {
        // The relay refuses the address before it listens, even if it would connect only for a
        // client.
        for arguments in [
            ["relay", address, os.endpoint()],
            ["relay", os.endpoint(), address],
            ["relay", "tcp:127.0.0.1:0", address],
            ["relay", "stdio:", address],
        ] {
            run(&arguments).assert_fails(2, &["not this machine's loopback", "--remote"]);
        }
    }
    let mut relay = Tool::start(&["relay", "--remote", "tcp:0.0.0.0:0", os.endpoint()]);
    relay.await_err("listening on tcp:0.0.0.0:");
    relay.await_err("warning: any machine that reaches this one");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", port.local_addr().expect("an address"));
    run(&["relay", &address, os.endpoint()]).assert_fails(4, &[&address, "another port"]);
}

/// Each client would connect to the relay again, until no descriptors are left.
#[test]
fn a_relay_to_itself_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = port.local_addr().expect("an address").port();
    drop(port);
    let (one, every) = (format!("tcp:127.0.0.1:{number}"), format!("tcp:0.0.0.0:{number}"));
    let (name, other) = (unique_name(), unique_name());
    for arguments in
        [&["relay", &name, &name][..], &["relay", &one, &one], &["relay", "--remote", &every, &one]]
    {
        run(arguments).assert_fails(2, &["would connect to itself", "another one"]);
    }
    // These two relays lead somewhere else.
    let next = format!("tcp:127.0.0.1:{}", number.wrapping_add(1));
    for arguments in [["relay", &name, &other], ["relay", "tcp:127.0.0.1:0", &next]] {
        Tool::listening(&arguments).crash();
    }
    run(&["clean", &name]);
}

/// Several paths can name one socket.
#[cfg(unix)]
#[test]
fn a_relay_to_another_path_to_itself_is_refused() {
    use common::unix::linked;

    let os = Os::new();
    let dir = linked(&os, "dir", &os.dir()).join("s.sock");
    let link = linked(&os, "link", "s.sock".as_ref());
    let elsewhere = os.dir().join("elsewhere").to_str().expect("UTF-8").to_owned();
    for to in
        ["./s.sock", os.endpoint(), dir.to_str().expect("UTF-8"), link.to_str().expect("UTF-8")]
    {
        let mut relay = common::tool();
        relay.current_dir(os.dir()).args(["relay", os.endpoint(), to]);
        Tool::of(relay).wait().assert_fails(2, &["would connect to itself"]);
    }
    Tool::listening(&["relay", os.endpoint(), &elsewhere]).crash();
    run(&["relay", &elsewhere, r"\\.\pipe\x"]).assert_fails(2, &["cannot use", "only Windows"]);
    run(&["clean", os.endpoint()]);
    assert_eq!(os.files(), ["dir", "link"]);
}

/// The client resets the connection, and then the server does.
#[test]
fn a_tcp_reset_ends_one_connection_of_a_relay() {
    #[cfg(windows)]
    if common::wine::skipped("a reset is read as an end like any other") {
        return;
    }
    let behind = Os::new();
    let mut server = Tool::listening(&["listen", "--keep", behind.endpoint()]);
    let mut relay = Tool::start(&["relay", "-v", "tcp:127.0.0.1:0", behind.endpoint()]);
    let address = relay.await_listening();
    for number in 0..3 {
        let mut client = tcp(&address);
        writeln!(client, "client {number}").expect("a write");
        server.await_out(&format!("client {number}\n"));
        // The peer closes with unread bytes, which resets the connection.
        server.type_in("unread");
        let mut peeked = [0; 1];
        client.peek(&mut peeked).expect("a byte");
        drop(client);
        relay.await_err(&format!("client {}: done", number + 1));
    }
}

/// Each end receives the bytes before the reset, and then a reset instead of an end.
#[test]
fn a_relay_passes_a_reset_on() {
    #[cfg(windows)]
    if common::wine::skipped("a reset is read as an end like any other") {
        return;
    }
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let behind = format!("tcp:{}", server.local_addr().expect("an address"));
    let mut relay = Tool::start(&["relay", "tcp:127.0.0.1:0", &behind]);
    let front = relay.await_listening();
    for server_resets in [true, false] {
        let client = tcp(&front);
        let other = accept(&server);
        let (mut resets, mut reads) = if server_resets { (other, client) } else { (client, other) };
        resets.write_all(b"half of it").expect("a write");
        let mut got = [0; 10];
        reads.read_exact(&mut got).expect("what came");
        reads.write_all(b"unread").expect("a write");
        resets.peek(&mut [0]).expect("a byte");
        drop(resets);
        let error = reads.read(&mut got).expect_err("no end of file");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        if server_resets {
            relay.await_err("client 1: the server reset the connection");
        }
    }
}

/// After a reset some data may be missing, so a script needs the failure. The data that arrived is
/// printed.
#[test]
fn a_tcp_reset_is_a_failure_of_a_relay_to_stdio() {
    #[cfg(windows)]
    if common::wine::skipped("a reset is read as an end like any other") {
        return;
    }
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", server.local_addr().expect("an address"));
    let relay = Tool::start(&["relay", "stdio:", &address]);
    let peer = accept(&server);
    reset(relay, peer);
    let mut relay = Tool::start(&["relay", "tcp:127.0.0.1:0", "stdio:"]);
    let peer = tcp(&relay.await_listening());
    reset(relay, peer);
}

#[track_caller]
fn reset(mut relay: Tool, mut peer: TcpStream) {
    peer.write_all(b"half of it").expect("a write");
    relay.await_out("half of it");
    // The peer closes with unread bytes, which resets the connection.
    relay.type_in("unread");
    peer.peek(&mut [0]).expect("a byte");
    drop(peer);
    let ended = relay.wait();
    assert_eq!((ended.code, ended.text().as_str()), (Some(1), "half of it"), "{ended:?}");
    assert!(ended.err.contains("error: the peer reset the connection"), "{ended:?}");
}
