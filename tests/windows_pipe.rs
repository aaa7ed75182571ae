//! Named pipes with foreign programs and under load, as far as Wine supports it. `contract.rs` has
//! the rows of the contract, and `windows_real.rs` the tests that need a real Windows.
#![cfg(windows)] // Only Windows has named pipes.

mod common;

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsHandle, AsRawHandle, OwnedHandle};
use std::time::Duration;

use common::{
    PATIENCE, argument, assert_kind, assert_reason, assert_says, read_late, spawn_helper,
    unique_name, within,
};
use sockpipe::os::windows::{IntegrityLevel, ListenOptionsExt, StreamExt};
use sockpipe::{ConnectOptions, ExpectServer, ListenOptions, Listener, Reason, Stream, echo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::windows::named_pipe::{ClientOptions, PipeMode, ServerOptions};
use tokio::task::JoinSet;

const FILE_FLAG_OVERLAPPED: u32 = 0x4000_0000;

fn listen(options: &ListenOptions) -> (Listener, String) {
    let listener = Listener::bind_with(unique_name(), options).expect("a free name");
    let path = listener.endpoint().to_string();
    (listener, path)
}

async fn connected(options: &ListenOptions) -> (Stream, Stream) {
    let (mut listener, path) = listen(options);
    let client = within(Stream::connect(path)).await.expect("a connection");
    (client, within(listener.accept()).await.expect("a connection"))
}

fn anyone() -> ConnectOptions {
    ConnectOptions::new().expect_server(ExpectServer::Anyone)
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.expect("an end, not an error");
    bytes
}

fn serve(mut listener: Listener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.expect("a connection");
            tokio::spawn(echo::echo(stream, |_| ()));
        }
    })
}

#[tokio::test]
async fn a_foreign_client_sees_the_chosen_options() {
    let chosen = ListenOptions::new().byte_type(true).buffer_size(8192).instances(2);
    let usual = ListenOptions::new();
    for (options, mode, size) in
        [(usual, PipeMode::Message, 256 * 1024), (chosen, PipeMode::Byte, 8192)]
    {
        let (_listener, path) = listen(&options);
        let info = ClientOptions::new().open(path).expect("a server").info().expect("its kind");
        assert_eq!(info.mode, mode);
        assert_eq!((info.in_buffer_size, info.out_buffer_size), (size, size));
        // 255 means unlimited on Windows; Wine has another number for it.
        assert!(info.max_instances >= 255, "{}", info.max_instances);
    }
}

#[tokio::test]
async fn an_invalid_security_descriptor_is_refused_and_leaves_nothing() {
    let name = unique_name();
    for sddl in ["", "nonsense", "O:SY", "D:P(A;;GA;;;WD"] {
        let options = ListenOptions::new().security_descriptor(sddl);
        let outcome = Listener::bind_with(&name, &options);
        assert_says(&assert_kind(outcome, ErrorKind::InvalidInput), &["security descriptor"]);
        assert_reason!(within(Stream::connect(&name)).await, Reason::NoServer, name);
    }
}

#[tokio::test]
async fn a_listener_with_one_waiting_instance_serves_many_clients() {
    let (listener, path) = listen(&ListenOptions::new().instances(0));
    let _serving = serve(listener);
    let mut clients = JoinSet::new();
    for number in 0..20_u8 {
        let path = path.clone();
        clients.spawn(async move {
            let mut client = Stream::connect(path).await.expect("a connection");
            client.write_all(&[number]).await.expect("a write");
            assert_eq!(client.read_u8().await.expect("an answer"), number);
        });
    }
    within(clients.join_all()).await;
}

#[tokio::test]
async fn a_listener_of_byte_type_has_no_half_close_and_no_false_end() {
    let (mut listener, path) = listen(&ListenOptions::new().byte_type(true));
    // The listener does not take an empty write of a foreign client for an end.
    let mut foreign = ClientOptions::new().open(&path).expect("a server");
    let mut server = within(listener.accept()).await.expect("a connection");
    within(foreign.write(&[])).await.expect("nothing");
    within(foreign.write_all(b"data")).await.expect("a write");
    drop(foreign);
    assert_eq!(read_all(&mut server).await, b"data");

    let client = within(Stream::connect(&path)).await.expect("a connection");
    let mut server = within(listener.accept()).await.expect("a connection");
    for stream in [&client, &server] {
        let error = assert_reason!((&mut &*stream).shutdown().await, Reason::NoHalfClose);
        assert_says(&error, &["ConnectOptions::end_on_close"]);
    }
    within(server.write_all(b"still open")).await.expect("a write");
    within(server.close(PATIENCE)).await.expect("a close");
    assert_eq!(read_all(&mut &client).await, b"still open");
}

/// Node's servers are of byte type, and .NET's by default.
#[tokio::test]
async fn a_foreign_server_of_byte_type_reads_the_end_when_the_stream_is_closed() {
    let path = format!(r"\\.\pipe\{}", unique_name());
    for dropped in [true, false] {
        let mut server = ServerOptions::new().create(&path).expect("a free name");
        let options = anyone().end_on_close(true);
        let mut client = within(Stream::connect_with(&path, &options)).await.expect("a connection");
        within(server.connect()).await.expect("a client");
        within(client.write_all(b"all")).await.expect("a write");
        client.shutdown().await.expect("no half-close, but no error");
        assert_kind(within(client.write_all(b"x")).await, ErrorKind::BrokenPipe);
        let mut buffer = [0; 8];
        assert_eq!(within(server.read(&mut buffer)).await.expect("a read"), 3);
        within(server.write_all(b"an answer")).await.expect("the other direction is open");
        let mut answer = [0; 9];
        within(client.read_exact(&mut answer)).await.expect("an answer");
        // The server has not read an end yet.
        let early = tokio::time::timeout(Duration::from_millis(50), server.read(&mut buffer));
        assert!(early.await.is_err(), "it came by itself");
        if dropped {
            drop(client);
        } else {
            within(client.close(PATIENCE)).await.expect("a close");
        }
        assert_eq!(read_all(&mut server).await, b"");
    }
}

/// A pipe of message type can carry the end of one direction.
#[tokio::test]
async fn end_on_close_changes_nothing_for_a_pipe_of_message_type() {
    let (mut listener, path) = listen(&ListenOptions::new());
    let options = ConnectOptions::new().end_on_close(true);
    let mut client = within(Stream::connect_with(&path, &options)).await.expect("a connection");
    let mut server = within(listener.accept()).await.expect("a connection");
    client.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut server).await, b"");
    drop(client);
}

#[tokio::test]
async fn a_handle_made_elsewhere_becomes_a_stream() {
    let (mut listener, path) = listen(&ListenOptions::new());
    let open = |flags| {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(flags).open(&path);
        OwnedHandle::from(file.expect("a server"))
    };
    let mut client = Stream::from_handle(open(FILE_FLAG_OVERLAPPED)).expect("a stream");
    let mut server = within(listener.accept()).await.expect("a connection");
    within(client.write_all(b"question")).await.expect("a write");
    client.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut server).await, b"question");
    within(server.write_all(b"answer")).await.expect("a write");
    drop(server);
    assert_eq!(read_all(&mut client).await, b"answer");

    // A handle in use is refused: its stream may have read bytes already.
    let other = client.as_handle().try_clone_to_owned().expect("a duplicate");
    let says = ["overlapped", "another event loop"];
    for handle in [other, open(0)] {
        assert_says(&assert_kind(Stream::from_handle(handle), ErrorKind::InvalidInput), &says);
    }
    let file = OwnedHandle::from(tempfile::tempfile().expect("a file"));
    let error = assert_kind(Stream::from_handle(file), ErrorKind::InvalidInput);
    assert_says(&error, &["not a pipe's"]);
}

#[tokio::test]
async fn the_session_and_level_of_the_peer_are_reported() {
    let (client, server) = connected(&ListenOptions::new()).await;
    // Both ends belong to this process.
    let session = server.peer_session().expect("the client's session");
    assert_eq!(client.peer_session().expect("the server's session"), session);
    let level = server.peer_integrity().expect("the client's level");
    assert!((IntegrityLevel::LOW..=IntegrityLevel::SYSTEM).contains(&level), "{level:?}");
    assert_kind(client.peer_integrity(), ErrorKind::Unsupported);
    // The queries have not left this thread impersonating the peer.
    let own = client.peer_credentials().expect("credentials");
    assert_eq!(server.peer_credentials().expect("credentials"), own);
}

/// The end is an empty message, which the system accepts even for a full pipe.
#[tokio::test]
async fn close_succeeds_on_a_full_pipe_that_nobody_reads() {
    let (mut client, mut server) = connected(&ListenOptions::new()).await;
    within(client.write_all(&[1; 256 * 1024])).await.expect("a write");
    // The peer has read nothing yet.
    within(client.close(Duration::from_secs(20))).await.expect("the system has every byte");
    assert_eq!(read_all(&mut server).await.len(), 256 * 1024);
}

/// Answers one client with a megabyte, closes the stream and exits.
#[tokio::test]
async fn helper_server_that_exits() {
    let Some(name) = argument() else { return };
    let mut listener = Listener::bind(name).expect("a free name");
    let mut stream = within(listener.accept()).await.expect("a connection");
    assert_eq!(read_all(&mut stream).await, b"question");
    stream.write_all(&vec![7; 1024 * 1024]).await.expect("a write");
    stream.close(PATIENCE).await.expect("the system has every byte");
    std::process::exit(10);
}

#[tokio::test]
async fn a_megabyte_then_close_then_exit_arrives_whole() {
    let name = unique_name();
    let mut child = spawn_helper("helper_server_that_exits", &name);
    let options = ConnectOptions::new().wait_for_server(PATIENCE);
    let mut client = within(Stream::connect_with(&name, &options)).await.expect("a connection");
    within(client.write_all(b"question")).await.expect("a write");
    client.shutdown().await.expect("a half-close");
    assert_eq!(read_late(&mut client).await.len(), 1024 * 1024);
    let ended = tokio::task::spawn_blocking(move || child.wait().expect("an end"));
    assert_eq!(within(ended).await.expect("an end").code(), Some(10));
}

#[tokio::test]
async fn clients_that_come_and_go_do_not_stop_the_listener() {
    let (listener, path) = listen(&ListenOptions::new());
    let serving = serve(listener);
    for number in 0..1000 {
        let client = within(Stream::connect(&path)).await.expect("a connection");
        if number % 2 == 0 {
            // The client leaves bytes that nobody reads.
            within((&client).write_all(b"unread")).await.expect("a write");
        }
    }
    let mut client = within(Stream::connect(&path)).await.expect("a connection");
    within(client.write_all(b"x")).await.expect("a write");
    assert_eq!(within(client.read_u8()).await.expect("an answer"), b'x');
    assert!(!serving.is_finished());
}

/// Connects `count` clients at the same time, each of which exchanges `length` bytes.
async fn all_at_once(count: usize, length: usize) {
    let (listener, path) = listen(&ListenOptions::new());
    let _serving = serve(listener);
    let mut clients = JoinSet::new();
    for number in 0..count {
        let path = path.clone();
        clients.spawn(async move {
            let options = ConnectOptions::new().deadline(PATIENCE);
            let client = Stream::connect_with(path, &options).await.expect("a connection");
            let sent = vec![number as u8; length];
            let ask = async {
                (&client).write_all(&sent).await.expect("a write");
                (&client).shutdown().await.expect("a half-close");
            };
            let mut from = &client;
            let ((), got) = tokio::join!(ask, read_all(&mut from));
            assert_eq!(got, sent);
        });
    }
    assert_eq!(within(clients.join_all()).await.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_are_echoed_at_once() {
    all_at_once(200, 20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_a_thousand_clients_connects() {
    all_at_once(1000, 1).await;
}

/// The highest number of new handles. The system reuses numbers of closed handles, so this shows
/// how many are open. (Under Wine the system's own count is always 0.)
fn highest_handle() -> usize {
    let files: Vec<_> = (0..64).map(|_| File::open("NUL").expect("the null device")).collect();
    files.iter().map(|file| file.as_raw_handle() as usize / 4).max().expect("a handle")
}

/// This is a separate process, since other tests open handles too.
#[tokio::test]
async fn helper_many_connections() {
    let Some(count) = argument() else { return };
    let (mut listener, path) = listen(&ListenOptions::new());
    let mut round = async || {
        let mut client = within(Stream::connect(&path)).await.expect("a connection");
        let mut server = within(listener.accept()).await.expect("a connection");
        within(client.write_all(b"x")).await.expect("a write");
        client.shutdown().await.expect("a half-close");
        assert_eq!(read_all(&mut server).await, b"x");
        within(server.close(PATIENCE)).await.expect("a close");
    };
    for _ in 0..100 {
        round().await;
    }
    let before = highest_handle();
    for _ in 0..count.parse().expect("a number") {
        round().await;
    }
    let after = highest_handle();
    println!("after {count} connections: {before} handles, then {after}");
    // Windows grows its table of handles by 256.
    assert!(after < before + 512, "{before} handles, then {after}");
}

#[tokio::test]
async fn many_connections_leave_no_handle_open() {
    // Wine is too slow for the full count.
    let full = std::env::var_os("SOCKPIPE_FULL").is_some() || !common::wine::is_wine();
    let count = if full { "10000" } else { "2000" };
    let child = spawn_helper("helper_many_connections", count);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().expect("an end"));
    // Each connection has a timeout of its own.
    let output = tokio::time::timeout(10 * PATIENCE, output).await.expect("in time");
    let output = output.expect("an end");
    let said = common::process::text(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("after {count} connections")), "{said}");
}

/// Accepted streams are instances of the pipe, and the name exists as long as one of them.
#[tokio::test]
async fn a_name_stays_taken_while_an_accepted_stream_is_open() {
    let (mut listener, path) = listen(&ListenOptions::new());
    let client = within(Stream::connect(&path)).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a connection");
    drop(listener);
    let holds = Listener::bind(&path);
    assert_reason!(holds, Reason::LiveServer { .. } | Reason::HeldByConnections, path);
    // No listener accepts clients now. The instances that waited for clients may take a moment to
    // close.
    let options = ConnectOptions::new().deadline(Duration::from_millis(50));
    let outcome = async {
        loop {
            Stream::connect_with(&path, &options).await?;
        }
    };
    let outcome: std::io::Result<()> = within(outcome).await;
    assert_reason!(outcome, Reason::Deadline);
    drop((client, server));
    let free = async {
        while let Err(error) = Listener::bind(&path) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(free).await;
}

#[tokio::test]
async fn bind_refuses_the_name_of_a_foreign_server_without_connecting() {
    let path = format!(r"\\.\pipe\{}", unique_name());
    let server = ServerOptions::new().create(&path).expect("a free name");
    assert_reason!(Listener::bind(&path), Reason::LiveServer { .. }, path);
    // `bind` has not connected to the server.
    let untouched = tokio::time::timeout(Duration::from_millis(20), server.connect()).await;
    assert!(untouched.is_err());
}
