//! Listeners and streams convert from and to file descriptors. `from_fd` verifies a descriptor, and
//! an adopted listener leaves its socket in place, since the owner removes it.
#![cfg(unix)] // Windows' handles have tests of their own.

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use common::process::{Running, example};
use common::unix::{Standing, bind_over_the_dead};
use common::{Backend, Os, assert_kind, assert_reason, assert_says, within};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use sockpipe::os::unix::{ListenerExt, StreamExt};
use sockpipe::{ListenOptions, Listener, Reason, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn from_fd(socket: impl Into<OwnedFd>) -> std::io::Result<Listener> {
    Listener::from_fd(socket.into(), &ListenOptions::new())
}

/// A descriptor as other programs leave it: it blocks, and children inherit it.
fn as_others_leave_it(socket: impl Into<OwnedFd>) -> OwnedFd {
    let socket = socket.into();
    fcntl_setfd(&socket, FdFlags::empty()).expect("flags");
    ioctl_fionbio(&socket, false).expect("a mode");
    socket
}

fn assert_ready(socket: impl AsFd) {
    assert!(fcntl_getfd(&socket).expect("flags").contains(FdFlags::CLOEXEC));
    assert!(fcntl_getfl(&socket).expect("flags").contains(OFlags::NONBLOCK));
}

fn of_type(kind: SocketType) -> OwnedFd {
    socket(AddressFamily::UNIX, kind, None).expect("a socket")
}

#[tokio::test]
async fn from_fd_refuses_a_descriptor_that_is_not_a_listener() {
    let os = Os::new();
    let (pipe, _other) = rustix::pipe::pipe().expect("a pipe");
    let bound = of_type(SocketType::STREAM);
    bind(&bound, &SocketAddrUnix::new(os.endpoint()).expect("an address")).expect("a free name");
    let (pair, _peer) = UnixStream::pair().expect("a pair");
    let (packets, _peer) = UnixDatagram::pair().expect("a pair");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let cases: Vec<(&str, OwnedFd, &str)> = vec![
        ("a file", File::open("/dev/null").expect("a file").into(), "it is not a socket"),
        ("a directory", File::open("/").expect("a directory").into(), "it is not a socket"),
        ("a pipe", pipe, "it is not a socket"),
        ("a TCP listener", tcp.into(), "it is not a Unix domain socket"),
        ("datagrams", packets.into(), "it is not a stream socket"),
        ("not bound", of_type(SocketType::STREAM), "it does not listen"),
        ("bound only", bound, "it does not listen"),
        ("a connection", pair.into(), "it does not listen"),
    ];
    for (name, wrong, why) in cases {
        let error = assert_reason!(from_fd(wrong), Reason::UnusableDescriptor);
        println!("{name}: {error}");
        assert_says(&error, &[why]);
    }
    #[cfg(target_os = "linux")]
    {
        let packets = of_type(SocketType::SEQPACKET);
        let path = os.dir().join("packets");
        bind(&packets, &SocketAddrUnix::new(&path).expect("an address")).expect("a free name");
        rustix::net::listen(&packets, 1).expect("a listener");
        assert_reason!(from_fd(packets), Reason::UnusableDescriptor);
    }
    assert!(Path::new(os.endpoint()).exists(), "it was not ours to remove");
}

#[tokio::test]
async fn from_fd_refuses_a_descriptor_that_is_not_a_stream() {
    let os = Os::new();
    let (pipe, _other) = rustix::pipe::pipe().expect("a pipe");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tcp = TcpStream::connect(tcp.local_addr().expect("an address")).expect("a connection");
    let (packets, _peer) = UnixDatagram::pair().expect("a pair");
    let listener = UnixListener::bind(os.endpoint()).expect("a free name");
    let cases: Vec<(&str, OwnedFd, &str)> = vec![
        ("a file", File::open("/dev/null").expect("a file").into(), "it is not a socket"),
        ("a pipe", pipe, "it is not a socket"),
        ("a TCP connection", tcp.into(), "it is not a Unix domain socket"),
        ("datagrams", packets.into(), "it is not a stream socket"),
        ("a listener", listener.into(), "it is not connected"),
        ("not connected", of_type(SocketType::STREAM), "it is not connected"),
    ];
    for (name, wrong, why) in cases {
        let error = assert_reason!(Stream::from_fd(wrong), Reason::UnusableDescriptor);
        println!("{name}: {error}");
        assert_says(&error, &["cannot make a stream: unusable descriptor", why]);
    }
}

/// Its owner can still accept clients after the adopted listener is dropped.
#[tokio::test]
async fn an_adopted_listener_leaves_its_name_in_place() {
    let os = Os::new();
    let theirs = UnixListener::bind(os.endpoint()).expect("a free name");
    let before = Standing::at(Path::new(os.endpoint()));
    let ours = as_others_leave_it(theirs.try_clone().expect("a copy"));
    let mut listener = from_fd(ours).expect("a listener");
    assert_eq!(listener.endpoint().to_string(), os.endpoint());
    assert_ready(&listener);
    assert!(listener.is_published());
    assert_kind(listener.republish(), ErrorKind::Unsupported);
    let mut client = within(os.connect()).await.expect("a connection");
    let mut server = within(listener.accept()).await.expect("a connection");
    within(client.write_all(b"ping")).await.expect("a write");
    within(server.read_exact(&mut [0; 4])).await.expect("a read");

    // The drop must neither refuse pending clients nor shut the socket down.
    let mut waiting = UnixStream::connect(os.endpoint()).expect("a connection");
    drop(listener);
    assert_eq!(Standing::at(Path::new(os.endpoint())), before);
    theirs.set_nonblocking(false).expect("a mode");
    let (mut other, _) = theirs.accept().expect("the client that waited");
    other.write_all(b"x").expect("a write");
    waiting.read_exact(&mut [0]).expect("an answer");
    UnixStream::connect(os.endpoint()).expect("it still listens");

    let listener = from_fd(theirs).expect("a listener");
    fs::remove_file(os.endpoint()).expect("the socket");
    assert!(!listener.is_published());
    drop(listener);
    assert_eq!(os.files(), [""; 0]);
}

#[tokio::test]
async fn clients_connect_to_an_adopted_abstract_listener() {
    if !common::unix::with_linux_backend("abstract names") {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        let name = common::unique_name();
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let theirs = UnixListener::bind_addr(&address).expect("a free name");
        let mut listener = from_fd(theirs).expect("a listener");
        assert_eq!(listener.endpoint().to_string(), format!("abstract:{name}"));
        assert!(listener.is_published());
        let endpoint = listener.endpoint().clone();
        within(Stream::connect(&endpoint)).await.expect("a connection");
        within(listener.accept()).await.expect("a connection");
    }
}

/// The socket file stays, and the next server removes it when its listener has died.
#[tokio::test]
async fn a_listener_given_away_leaves_its_name_in_place() {
    let os = Os::new();
    let listener = Listener::bind(os.endpoint()).expect("a free name");
    let before = Standing::at(Path::new(os.endpoint()));
    let mut waiting = within(os.connect()).await.expect("a connection");
    let socket = listener.into_fd().expect("a socket");
    assert_ready(&socket);
    assert_eq!(os.files(), ["s.sock"]);
    assert_eq!(Standing::at(Path::new(os.endpoint())), before);

    // The next process receives the listener as its standard input.
    let mut receiver = example("test_helper");
    receiver.arg("inherited").stdin(Stdio::from(socket));
    let receiver = Running::start(receiver);
    // The receiver reports the path that clients use.
    assert_eq!(receiver.next_line(), format!("listening {}", os.endpoint()));
    within(waiting.write_all(b"ping")).await.expect("a write");
    waiting.shutdown().await.expect("a half-close");
    let mut answer = Vec::new();
    within(waiting.read_to_end(&mut answer)).await.expect("an answer");
    assert_eq!(answer, b"ping");
    let (status, out, _) = receiver.wait();
    assert!(status.success() && out == ["served"], "{out:?}");
    // The receiver left the socket file; the next server finds that it is dead.
    assert_eq!(os.files(), ["s.sock"]);
    drop(bind_over_the_dead(&os).await);
    assert_eq!(os.files(), [""; 0]);
}

/// The name looks like one of sockpipe's temporary files.
#[tokio::test]
async fn an_adopted_listener_keeps_a_name_that_looks_temporary() {
    let os = Os::new();
    let path = os.dir().join(".s.sock.1.0123abcd");
    let listener = from_fd(UnixListener::bind(&path).expect("a free name")).expect("a listener");
    assert_eq!(listener.endpoint().to_string(), path.to_str().expect("UTF-8"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_abstract_name_of_any_bytes_is_served_and_found() {
    if cfg!(sockpipe_posix) {
        println!("not run: the code of the other systems has no abstract names");
        return;
    }
    for (name, shown) in [(&b"\xff"[..], "%FF"), (b"a\0b", "a%00b"), (b"%", "%25")] {
        let socket = of_type(SocketType::STREAM);
        let unique = common::unique_name();
        let name = [unique.as_bytes(), name].concat();
        let address = SocketAddrUnix::new_abstract_name(&name).expect("a name");
        bind(&socket, &address).expect("a free name");
        rustix::net::listen(&socket, 1).expect("it listens");
        let mut listener = from_fd(socket).expect("a listener");
        let endpoint = listener.endpoint().to_string();
        assert_eq!(endpoint, format!("abstract:{unique}{shown}"));
        let client = within(Stream::connect(endpoint)).await.expect("a connection");
        drop((client, within(listener.accept()).await.expect("a client")));
    }
}

#[tokio::test]
async fn a_name_stays_live_while_its_listener_is_a_descriptor() {
    let os = Os::new();
    let listener = Listener::bind(os.endpoint()).expect("a free name");
    let socket = listener.into_fd().expect("a socket");
    assert_reason!(Listener::bind(os.endpoint()), Reason::LiveServer { .. }, os.endpoint());
    let mut again = from_fd(socket).expect("a listener");
    assert_eq!(again.endpoint().to_string(), os.endpoint());
    assert!(again.is_published());
    // Where the system does not report who holds a socket, `bind` connected to find out, and is the
    // first client.
    if !cfg!(target_os = "linux") || cfg!(sockpipe_posix) {
        drop(within(again.accept()).await.expect("a connection"));
    }
    let client = within(os.connect()).await.expect("a connection");
    let server = within(again.accept()).await.expect("a connection");
    drop((client, server, again));
    assert_eq!(os.files(), ["s.sock"]);
}

#[tokio::test]
async fn descriptors_convert_to_streams_and_back() {
    let (one, other) = UnixStream::pair().expect("a pair");
    let mut one = Stream::from_fd(as_others_leave_it(one)).expect("a stream");
    assert_ready(&one);
    let peer = one.peer_credentials().expect("credentials");
    assert_eq!(peer.uid(), Some(rustix::process::geteuid().as_raw()));
    let mut other = Stream::from_fd(other.into()).expect("a stream");
    within(one.write_all(b"unread")).await.expect("a write");
    // Unread bytes and the end of the stream stay in the socket.
    one.shutdown().await.expect("a half-close");
    let mut socket = UnixStream::from(other_half(&mut other).await);
    socket.set_nonblocking(false).expect("a mode");
    let mut text = Vec::new();
    socket.read_to_end(&mut text).expect("an end");
    assert_eq!(text, b"read");
    socket.write_all(b"answer").expect("a write");
    drop(socket);
    let mut answer = Vec::new();
    within(one.read_to_end(&mut answer)).await.expect("an answer");
    assert_eq!(answer, b"answer");
}

/// Reads two bytes, and converts the stream to its descriptor.
async fn other_half(stream: &mut Stream) -> OwnedFd {
    within(stream.read_exact(&mut [0; 2])).await.expect("two bytes");
    let (placeholder, _) = Stream::pair().expect("a pair");
    let stream = std::mem::replace(stream, placeholder);
    let socket = stream.into_fd().expect("a socket");
    assert_ready(&socket);
    socket
}
