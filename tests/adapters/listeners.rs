//! tokio-util's `Listener` trait, and interprocess's types under ours.

use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, Name, ToFsName};
use sockpipe::adapters::Incoming;
use sockpipe::{
    ConnectOptions, ExpectServer, LocalListener, LocalStream, TimedListener, echo, memory, serve,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_util::net::Listener as UtilListener;

use crate::Failing;
use crate::common::{Backend, Os, assert_kind, assert_says, unique_name, within};

/// Accepts one client through the trait, as a library does that knows only the trait.
async fn greet<L: UtilListener>(mut listener: L) -> L::Addr
where
    L::Io: AsyncWrite + Unpin,
{
    let (mut stream, _) = within(listener.accept()).await.expect("a connection");
    stream.write_all(b"hello").await.expect("a write");
    stream.shutdown().await.expect("a half-close");
    listener.local_addr().expect("an address or none")
}

#[tokio::test]
async fn incoming_serves_as_a_listener_of_tokio_util() {
    let os = Os::new();
    let listener = os.bind().expect("a free name");
    let expected = listener.endpoint().clone();
    let greeted = async {
        let mut client = os.connect().await.expect("a connection");
        let mut text = String::new();
        within(client.read_to_string(&mut text)).await.expect("an end");
        text
    };
    let (address, text) = tokio::join!(greet(listener), greeted);
    assert_eq!((address, &text[..]), (Some(expected), "hello"));

    let (listener, connector) = memory::pair();
    let greeted = async {
        let mut client = connector.connect().await.expect("a connection");
        let mut text = String::new();
        within(client.read_to_string(&mut text)).await.expect("an end");
        text
    };
    let (address, text) = tokio::join!(greet(Incoming::new(listener)), greeted);
    assert_eq!((address, &text[..]), (None, "hello"));
}

#[tokio::test]
async fn incoming_accepts_no_more_after_a_failure() {
    let (listener, connector) = memory::pair();
    let mut incoming = Incoming::new(TimedListener::new(Failing::new(listener, 1)));
    let _client = connector.connect().await.expect("a connection");
    let first = within(UtilListener::accept(&mut incoming)).await;
    // The error is the listener's own.
    assert_says(&assert_kind(first, std::io::ErrorKind::Other), &["a failure of the test's"]);
    let later = within(UtilListener::accept(&mut incoming)).await;
    assert_kind(later, std::io::ErrorKind::NotConnected);
}

fn name() -> (Option<tempfile::TempDir>, String) {
    if cfg!(windows) {
        return (None, format!(r"\\.\pipe\{}", unique_name()));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.sock").to_str().expect("UTF-8").to_owned();
    (Some(dir), path)
}

fn interprocess_name(path: &str) -> Name<'_> {
    path.to_fs_name::<GenericFilePath>().expect("a name")
}

/// Connects to a pipe of interprocess, which has the default descriptor and no owner under Wine.
async fn connect(path: &str) -> sockpipe::Stream {
    let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
    within(sockpipe::Stream::connect_with(path, &options)).await.expect("a connection")
}

#[tokio::test]
async fn serve_takes_an_interprocess_listener() {
    let (_dir, path) = name();
    let listener = ListenerOptions::new().name(interprocess_name(&path)).create_tokio();
    let listener = listener.expect("a free name");
    match LocalListener::endpoint(&listener) {
        Ok(endpoint) => assert_eq!(endpoint.to_string(), path),
        Err(error) => assert!(cfg!(windows) && error.kind() == std::io::ErrorKind::Unsupported),
    }
    let (seen, mut who) = tokio::sync::mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, move |stream| {
        seen.send(stream.peer_credentials()).expect("a test that goes on");
        echo::echo(stream, |_| ())
    })
    .with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    // interprocess's client connects, and then ours.
    let stream = interprocess::local_socket::tokio::Stream::connect(interprocess_name(&path));
    let mut theirs = within(stream).await.expect("a connection");
    let mut ours = connect(&path).await;
    let mut buffer = [0; 5];
    theirs.write_all(b"hello").await.expect("a write");
    within(theirs.read_exact(&mut buffer)).await.expect("an answer");
    assert_eq!(&buffer, b"hello");
    ours.write_all(b"world").await.expect("a write");
    within(ours.read_exact(&mut buffer)).await.expect("an answer");
    assert_eq!(&buffer, b"world");

    for _ in 0..2 {
        let peer = within(who.recv()).await.expect("a peer").expect("credentials");
        assert_eq!(peer.pid(), Some(std::process::id()));
        assert_eq!(peer.uid().is_some(), cfg!(unix));
    }
    drop((theirs, ours, stop));
    let drained = within(server).await.expect("no panic").expect("a stop");
    assert_eq!(drained.cut(), 0);
}

/// The other adapters accept the listener as well, wrapped in a `TimedListener`.
#[tokio::test]
async fn incoming_takes_an_interprocess_listener() {
    let (_dir, path) = name();
    let listener = ListenerOptions::new().name(interprocess_name(&path)).create_tokio();
    let mut incoming = Incoming::new(TimedListener::new(listener.expect("a free name")));
    let (mut client, accepted) =
        tokio::join!(connect(&path), within(UtilListener::accept(&mut incoming)));
    let (mut server, _) = accepted.expect("a connection");
    client.write_all(b"x").await.expect("a write");
    assert_eq!(within(server.read_u8()).await.expect("a byte"), b'x');
}

/// Neither a client that leaves nor a cancelled `accept` does harm: the next `accept` goes on, on
/// Unix with a new call and on Windows with the pending one.
#[tokio::test]
async fn interprocess_accepts_after_a_cancelled_accept() {
    let (_dir, path) = name();
    let listener = ListenerOptions::new().name(interprocess_name(&path)).create_tokio();
    let mut listener = listener.expect("a free name");
    for _ in 0..20 {
        let none = tokio::time::timeout(
            std::time::Duration::from_millis(1),
            LocalListener::accept(&mut listener),
        );
        assert!(none.await.is_err(), "nobody has connected");
        let (client, server) =
            tokio::join!(connect(&path), within(LocalListener::accept(&mut listener)));
        drop((client, server.expect("a connection")));
    }
}
