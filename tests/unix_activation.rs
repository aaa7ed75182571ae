//! Sockets that a service manager passes: by systemd's activation, or as standard input by inetd.
#![cfg(unix)] // Windows has no such managers.

mod common;

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use common::unix::{helper, on_linux, output, through};
use common::{Backend, Os, unique_name};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

/// The test helper as a service manager starts it, with `sockets` as descriptors 3 and 4. `set`
/// holds the variables, where `$$` is the id of the process.
fn activated(sockets: [Option<OwnedFd>; 2], set: &str) -> Command {
    started(&helper(&["activated"]), sockets, set)
}

fn started(helper: &Command, sockets: [Option<OwnedFd>; 2], set: &str) -> Command {
    let mut shell = Command::new("sh");
    let [third, fourth] = sockets;
    let taken = match (&third, &fourth) {
        (Some(_), Some(_)) => "exec 3<&0 4<&2 2>/dev/null",
        (Some(_), None) => "exec 3<&0",
        _ => ":",
    };
    let script = format!("{taken}; exec </dev/null; export {set}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(helper.get_program()).args(helper.get_args());
    shell.env_remove("LISTEN_PID").env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
    shell.stdin(third.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped());
    shell.stderr(fourth.map_or_else(Stdio::piped, Stdio::from));
    shell
}

fn listener(path: &Path) -> OwnedFd {
    UnixListener::bind(path).expect("a free name").into()
}

#[test]
fn activation_serves_every_passed_socket() {
    let os = Os::new();
    let (web, admin) = (os.dir().join("web"), os.dir().join("admin"));
    let mut command = activated(
        [Some(listener(&web)), Some(listener(&admin))],
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:",
    );
    let mut child = command.spawn().expect("a process");
    drop(command);
    let stdout = child.stdout.take().expect("a pipe");
    for path in [&web, &admin] {
        let mut client = UnixStream::connect(path).expect("a connection");
        client.write_all(b"ping").expect("a write");
        client.shutdown(Shutdown::Write).expect("a half-close");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an answer");
        assert_eq!(answer, b"ping");
    }
    let mut lines = String::new();
    BufReader::new(stdout).read_to_string(&mut lines).expect("text");
    assert!(child.wait().expect("an end").success(), "{lines}");
    let mut lines = lines.lines();
    let mut next = || lines.next().expect("a line");
    assert_eq!(next(), "first 2");
    // An empty name counts as no name.
    for (name, path) in [("web", &web), ("unknown", &admin)] {
        assert_eq!(next(), format!("{name} {}", path.display()));
        assert_eq!(next(), "a child has 0 sockets");
    }
    // A second call returns nothing, and the variables are unchanged.
    assert_eq!(next(), "second 0");
    assert_eq!(next(), "environment 2 web:");
    // The sockets belong to the service manager and stay in place.
    assert_eq!(os.files(), ["admin", "web"]);
}

#[test]
fn sockets_passed_to_another_process_are_ignored() {
    let os = Os::new();
    for (number, set) in [
        "LISTEN_PID=1 LISTEN_FDS=1",
        "LISTEN_FDS=1",
        "LISTEN_PID=$$",
        "LISTEN_PID=$$ LISTEN_FDS=0",
        "NOTHING=1",
    ]
    .into_iter()
    .enumerate()
    {
        let socket = listener(&os.dir().join(number.to_string()));
        let lines = output(activated([Some(socket), None], set));
        assert_eq!(lines[..2], ["first 0", "second 0"], "{set}");
    }
    assert_eq!(os.files(), ["0", "1", "2", "3", "4"]);
}

/// The program may have opened a file under that number since, which must stay open.
#[test]
fn a_descriptor_that_was_not_passed_is_left_alone() {
    if !on_linux("a shell that passes a closed descriptor") {
        return;
    }
    let lines = output(activated([None, None], "LISTEN_PID=$$ LISTEN_FDS=1"));
    assert_eq!(lines[..2], ["first 0", "second 0"]);
}

#[test]
fn activation_fails_with_invalid_variables() {
    if !on_linux("a shell that passes a closed descriptor") {
        return;
    }
    let os = Os::new();
    let bound = || listener(&os.dir().join(unique_name()));
    for (socket, set, says) in [
        (Some(bound()), "LISTEN_PID=$$ LISTEN_FDS=many", "LISTEN_FDS is \"many\""),
        (Some(bound()), "LISTEN_PID=$$ LISTEN_FDS=-1", "LISTEN_FDS is \"-1\""),
        (Some(bound()), "LISTEN_PID=me LISTEN_FDS=1", "LISTEN_PID is \"me\""),
        (None, "LISTEN_PID=$$ LISTEN_FDS=99999999999", "LISTEN_FDS is 99999999999"),
    ] {
        let line = output(activated([socket, None], set)).swap_remove(0);
        assert!(
            line.starts_with("first InvalidInput UnusableDescriptor: ") && line.contains(says),
            "{set}: {line}"
        );
    }
}

#[test]
fn descriptors_that_are_no_local_listeners_stay_open_and_are_listed() {
    let os = Os::new();
    let (datagrams, _peer) = UnixDatagram::pair().expect("a pair");
    let (fifo, _end) = rustix::pipe::pipe().expect("a pipe");
    let packets = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    // The children of other tests must not inherit them.
    for inherited in [&fifo, &packets] {
        fcntl_setfd(inherited, FdFlags::CLOEXEC).expect("flags");
    }
    let path = os.dir().join("packets");
    bind(&packets, &SocketAddrUnix::new(&path).expect("an address")).expect("a free name");
    listen(&packets, 1).expect("a listener");
    let others: [(&str, OwnedFd); 5] = [
        ("a TCP listener", TcpListener::bind("127.0.0.1:0").expect("a port").into()),
        ("datagrams", datagrams.into()),
        ("a FIFO", fifo),
        ("packets", packets),
        ("a stored file", File::open("/dev/null").expect("a file").into()),
    ];
    for (what, other) in others {
        let ours = listener(&os.dir().join(unique_name()));
        let set = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:local";
        let mut command = started(&helper(&["passed"]), [Some(other), Some(ours)], set);
        let found = command.output().expect("a process");
        assert!(found.status.success(), "{what}");
        let lines = String::from_utf8(found.stdout).expect("text");
        let expected = "3 web Other\n4 local Listener\ntaken local\n3 web Other, open\n";
        assert_eq!(lines, expected, "{what}");
    }
}

fn echoes(client: &mut UnixStream) {
    client.write_all(b"ping").expect("a write");
    client.shutdown(Shutdown::Write).expect("a half-close");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an answer and an end");
    assert_eq!(answer, b"ping");
}

#[test]
fn activated_stream_serves_the_connection_that_systemd_passes() {
    let (mut client, server) = UnixStream::pair().expect("a pair");
    let set = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=connection";
    let mut command = started(&helper(&["served"]), [Some(server.into()), None], set);
    let mut child = command.spawn().expect("a process");
    drop(command);
    echoes(&mut client);
    assert!(child.try_wait().expect("a process").is_none(), "the end was the process's");
    child.kill().expect("a process");
    child.wait().expect("an end");
}

/// The client reads the end while the process still runs: no standard stream keeps the connection
/// open.
#[test]
fn activated_stream_serves_the_connection_that_inetd_passes() {
    let (mut client, server) = UnixStream::pair().expect("a pair");
    let copy = || Stdio::from(OwnedFd::from(server.try_clone().expect("a copy")));
    let mut command = helper(&["served"]);
    command.env_remove("LISTEN_PID").stdin(copy()).stdout(copy()).stderr(copy());
    let mut child = command.spawn().expect("a process");
    drop((command, server));
    echoes(&mut client);
    assert!(child.try_wait().expect("a process").is_none(), "the end was the process's");
    child.kill().expect("a process");
    child.wait().expect("an end");
}

/// A chroot or a minimal container lacks both.
#[test]
fn a_passed_socket_is_used_without_proc_and_dev_fd() {
    if !on_linux("mount namespaces") || !rustix::process::geteuid().is_root() {
        return;
    }
    let os = Os::new();
    let path = os.dir().join("web");
    let dev = os.dir().join("dev");
    std::fs::create_dir(&dev).expect("a directory");
    // Root of a user namespace cannot make a device.
    let bare = format!(
        "cd {} && mount -t tmpfs t . && cd . && : >null && mount --bind /dev/null null && \
         mount --rbind . /dev && mount -t tmpfs t /proc && exec \"$0\" \"$@\"",
        dev.display()
    );
    let helper = helper(&["passed"]);
    // Each of these programs replaces itself by the next, so the process id stays the same.
    let helper = through("unshare", &["-m", "sh", "-c", &bare], &helper);
    let set = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web";
    let lines = output(started(&helper, [Some(listener(&path)), None], set));
    assert_eq!(lines, ["3 web Listener", "taken web"]);
}
