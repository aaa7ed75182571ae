//! `bind` leaves live servers alone, however busy they are. It also leaves other kinds of file
//! alone, at the path and in place of its lock.
#![cfg(unix)] // A pipe's name is not a file.

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use common::process::Running;
use common::unix::{
    STRANGER, Standing, bind_over_the_dead, command, finish, helper, listening, on_linux, output,
    strace, with_linux_backend,
};
use common::{Backend, Os, assert_kind, assert_reason, assert_says, failed};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
use rustix::process::{Signal, geteuid};
use sockpipe::{Endpoint, Listener, Reason};

/// Connects clients until the backlog is full. Each of them has written.
fn fill(path: &str) -> Vec<UnixStream> {
    let address = SocketAddrUnix::new(path).expect("an address");
    let mut clients = Vec::new();
    loop {
        let client = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        ioctl_fionbio(&client, true).expect("a mode");
        match connect(&client, &address) {
            Ok(()) => {}
            // macOS and the BSDs return the second error.
            Err(Errno::AGAIN | Errno::CONNREFUSED) => return clients,
            Err(errno) => panic!("{errno}"),
        }
        ioctl_fionbio(&client, false).expect("a mode");
        let mut client = UnixStream::from(client);
        client.write_all(b"eping").expect("room");
        clients.push(client);
    }
}

fn assert_served(clients: Vec<UnixStream>, answer: &[u8]) {
    for mut client in clients {
        client.shutdown(std::net::Shutdown::Write).expect("a half-close");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("an answer");
        assert_eq!(got, answer);
    }
}

/// Suspends a server and fills its backlog. It answers nobody, but it is alive.
fn a_stopped_server_keeps_its_name(server: &[&str], os: &Os, answer: &[u8]) {
    let (server, _) = listening(helper(server));
    server.signal(Signal::STOP);
    let clients = fill(os.endpoint());
    let before = (Standing::at(Path::new(os.endpoint())), os.files());
    let starters = (0..20).map(|_| Running::start(helper(&["server", os.endpoint()])));
    for starter in starters.collect::<Vec<_>>() {
        let (_, out, err) = starter.wait();
        assert!(out[0].starts_with("AddrInUse LiveServer: "), "{out:?} {err:?}");
    }
    assert_eq!((Standing::at(Path::new(os.endpoint())), os.files()), before);
    println!("20 starters refused, {} clients in the queue", clients.len());
    server.signal(Signal::CONT);
    // The server answers every client, so no starter has connected.
    assert_served(clients, answer);
    assert_served(fill_one(os.endpoint()), answer);
}

fn fill_one(path: &str) -> Vec<UnixStream> {
    let mut client = UnixStream::connect(path).expect("a connection");
    client.write_all(b"eping").expect("room");
    vec![client]
}

#[test]
fn a_suspended_server_with_a_full_backlog_keeps_its_name() {
    let os = Os::new();
    let server = ["server", os.endpoint(), "--backlog", "8"];
    a_stopped_server_keeps_its_name(&server, &os, b"ping");
}

/// Such a server has no lock, so only its socket shows that it lives.
#[test]
fn a_suspended_foreign_server_with_a_full_backlog_keeps_its_name() {
    if on_linux("a full queue that differs from a dead socket") {
        let os = Os::new();
        a_stopped_server_keeps_its_name(&["raw-server", os.endpoint(), "8"], &os, b"eping");
    }
}

/// A descriptor that keeps a file at a path open.
type Made = Option<OwnedFd>;

fn special(path: &Path, kind: SocketType) -> Made {
    let socket = socket(AddressFamily::UNIX, kind, None).expect("a socket");
    bind(&socket, &SocketAddrUnix::new(path).expect("an address")).expect("a free name");
    Some(socket)
}

fn fifo(path: &Path) {
    // Some systems have no mkfifoat(2).
    let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success(), "{made}");
}

/// A file at the path: its name here, how it is made, and the reason of the error from `bind`.
type Case = (&'static str, fn(&Path) -> Made, fn(&Reason) -> bool);

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let exists = |reason: &Reason| *reason == Reason::NotASocket;
    let lives = |reason: &Reason| matches!(reason, Reason::LiveServer { .. });
    let foreign = |reason: &Reason| *reason == Reason::ForeignOwner;
    vec![
        ("file", |path| { fs::write(path, "data").expect("a file"); None }, exists),
        ("empty file", |path| { drop(File::create(path).expect("a file")); None }, exists),
        ("directory", |path| { fs::create_dir(path).expect("a directory"); None }, exists),
        ("fifo", |path| { fifo(path); None }, exists),
        ("link to a file", |path| { symlink("beside.txt", path).expect("a link"); None }, exists),
        ("link to a directory", |path| { symlink(".", path).expect("a link"); None }, exists),
        ("link to nothing", |path| { symlink("nothing", path).expect("a link"); None }, exists),
        ("link to itself", |path| { symlink(path, path).expect("a link"); None }, exists),
        ("link to a living socket", |path| {
            symlink("living.sock", path).expect("a link");
            None
        }, exists),
        ("datagram socket", |path| special(path, SocketType::DGRAM), lives),
        ("packet socket", |path| {
            let socket = special(path, SocketType::SEQPACKET);
            listen(socket.as_ref().expect("a socket"), 1).expect("a listener");
            socket
        }, lives),
        ("living server of others", |path| {
            Some(UnixListener::bind(path).expect("a free name").into())
        }, lives),
        ("another user's dead socket", |path| {
            drop(UnixListener::bind(path).expect("a free name"));
            chown(path, Some(STRANGER), Some(STRANGER)).expect("an owner");
            None
        }, foreign),
        ("another user's living socket", |path| {
            let socket = UnixListener::bind(path).expect("a free name");
            chown(path, Some(STRANGER), Some(STRANGER)).expect("an owner");
            Some(socket.into())
        }, foreign),
        ("another user's file", |path| {
            fs::write(path, "data").expect("a file");
            chown(path, Some(STRANGER), Some(STRANGER)).expect("an owner");
            None
        }, exists),
    ]
}

#[tokio::test]
async fn bind_leaves_files_of_every_kind_at_the_path_alone() {
    let os = Os::new();
    let living = UnixListener::bind(os.dir().join("living.sock")).expect("a free name");
    living.set_nonblocking(true).expect("a mode");
    fs::write(os.dir().join("beside.txt"), "data").expect("a file");
    let mut seen = 0;
    for (name, make, is) in cases() {
        if name.starts_with("another user's") && !geteuid().is_root() {
            println!("not run: only root can make {name}");
            continue;
        }
        if name == "packet socket" && cfg!(target_vendor = "apple") {
            println!("not run: there are no packet sockets here");
            continue;
        }
        let path = os.dir().join(name);
        let made = make(&path);
        // The directory's times may change, since the lock file is made in it and removed.
        let target = Standing::at(&os.dir().join("beside.txt"));
        let before = (Standing::at(&path), os.files());
        for _ in 0..2 {
            failed(Listener::bind(path.as_path()), is, name, &path.display().to_string());
            assert_eq!((Standing::at(&path), os.files()), before, "{name}");
            assert_eq!(Standing::at(&os.dir().join("beside.txt")), target, "{name}");
        }
        // The server at the path still receives.
        if let Some(socket) = made.filter(|_| name == "datagram socket") {
            let client = UnixDatagram::unbound().expect("a socket");
            client.send_to(b"x", &path).expect("a living socket");
            assert_eq!(UnixDatagram::from(socket).recv(&mut [0]).expect("a datagram"), 1);
        }
        seen += 1;
    }
    // `bind` has not followed the link and connected to the server.
    assert_eq!(living.accept().expect_err("nobody").kind(), ErrorKind::WouldBlock);
    println!("{seen} things at the path, two tries each: refused, and nothing changed");
}

/// A foreign server has called `bind` but not yet `listen`.
#[tokio::test]
async fn bind_leaves_a_socket_alone_that_does_not_listen_yet() {
    let os = Os::new();
    let path = Path::new(os.endpoint());
    let bound = special(path, SocketType::STREAM);
    let standing = Standing::at(path);
    assert_reason!(
        Listener::bind(path),
        Reason::LiveServer { .. } | Reason::UnprovenSocket,
        os.endpoint()
    );
    assert_eq!(Standing::at(path), standing);
    // The socket dies with its process. Some systems do not report that, so `bind` has to wait.
    drop(bound);
    drop(bind_over_the_dead(&os).await);
    assert_eq!(os.files(), [""; 0]);
}

/// A connection could use up a server that serves a single client, as `nc -l` does.
#[tokio::test]
async fn bind_and_clean_do_not_connect_to_a_foreign_server() {
    let os = Os::new();
    let server = UnixListener::bind(os.endpoint()).expect("a socket");
    server.set_nonblocking(true).expect("a mode");
    let standing = Standing::at(Path::new(os.endpoint()));
    let path = Endpoint::try_from(Path::new(os.endpoint())).expect("a path");
    let place = &path.resolve().expect("a place")[0];
    for _ in 0..3 {
        assert_reason!(Listener::bind(os.endpoint()), Reason::LiveServer { .. }, os.endpoint());
        assert_reason!(place.remove_stale(), Reason::LiveServer { .. }, os.endpoint());
    }
    assert_eq!(Standing::at(Path::new(os.endpoint())), standing);
    if with_linux_backend("a way to ask who has a socket") {
        assert_kind(server.accept(), ErrorKind::WouldBlock);
    }
    assert_eq!(os.files(), ["s.sock"]);
}

#[tokio::test]
async fn bind_leaves_files_of_every_kind_in_place_of_the_lock_alone() {
    let os = Os::new();
    let lock = os.dir().join(".s.sock.lock");
    let target = os.dir().join("target");
    let remove = |path: &Path| match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir(path).expect("a directory"),
        Ok(_) => fs::remove_file(path).expect("a file"),
        Err(_) => {}
    };
    type InPlace = (&'static str, fn(&Path, &Path));
    let cases: [InPlace; 5] = [
        ("a link to a file", |lock, target| symlink(target, lock).expect("a link")),
        ("a link to nothing", |lock, _| symlink("nothing", lock).expect("a link")),
        ("a FIFO", |lock, _| fifo(lock)),
        ("a directory", |lock, _| fs::create_dir(lock).expect("a directory")),
        ("another user's file", |lock, _| {
            fs::write(lock, "data").expect("a file");
            chown(lock, Some(STRANGER), None).expect("an owner");
        }),
    ];
    for (name, make) in cases {
        if name.starts_with("another user's") && !geteuid().is_root() {
            println!("not run: only root can make {name}");
            continue;
        }
        fs::write(&target, "data").expect("a file");
        make(&lock, &target);
        let before = (Standing::at(&lock), Standing::at(&target), os.files());
        let shown = lock.display().to_string();
        let error =
            assert_reason!(Listener::bind(os.endpoint()), Reason::ForeignOwner, os.endpoint());
        // The error names the file.
        assert_says(&error, &[&shown]);
        let after = (Standing::at(&lock), Standing::at(&target), os.files());
        assert_eq!(after, before, "{name}");
        remove(&lock);
        remove(&target);
    }
    // A lock file that a crash left behind is sockpipe's own, whatever its content is.
    fs::write(&lock, "not a number at all, and longer than one").expect("a file");
    drop(Listener::bind(os.endpoint()).expect("a free name"));
    assert_eq!(os.files(), [""; 0]);
}

/// Some network file systems have no locks.
#[test]
fn bind_fails_on_a_file_system_without_locks() {
    let os = Os::new();
    let logs = tempfile::tempdir().expect("a directory");
    for error in ["ENOLCK", "EOPNOTSUPP", "ENOSYS"] {
        let inject = format!("inject=flock:error={error}");
        let log = logs.path().join("log");
        let start = || {
            let server = helper(&["server", os.endpoint()]);
            strace(&log, &["-e", &inject], &server).map(|server| output(server).concat())
        };
        let Some(line) = start() else { return };
        assert!(line.starts_with("Unsupported NoLocks: "), "{error}: {line}");
        assert!(line.contains("choose a directory on a local file system"), "{line}");
        assert_eq!(os.files(), [""; 0], "{error}");

        // `bind` does not remove a lock file that it did not make.
        let lock = os.dir().join(".s.sock.lock");
        fs::write(&lock, "data").expect("a file");
        start();
        assert_eq!(fs::read(&lock).expect("the file"), b"data", "{error}");
        fs::remove_file(&lock).expect("the file");
    }
    let (mut server, _) = listening(helper(&["server", os.endpoint()]));
    command(&mut server, "drop");
    assert_eq!(finish(server), ["dropped"]);
    assert_eq!(os.files(), [""; 0]);
}
