//! What is Windows' own, beside the contract's rows. No test has a runtime of its own unless it is
//! about one: the backend needs none.
#![allow(unsafe_code, reason = "asks the system about handles")]

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWrite as _, AsyncWriteExt};
use tokio::net::windows::named_pipe::ServerOptions;
use windows_sys::Win32::System::Pipes::{GetNamedPipeHandleStateW, PIPE_READMODE_MESSAGE};

use super::security::{SYSTEM, own_sid};
use super::{pipe, reactor};
use crate::{ConnectOptions, ExpectServer, ListenOptions, Listener, Stream, UserId};

/// Only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(r"\\.\pipe\sockpipe-unit-{}-{count}", std::process::id())
}

/// Runs `future` on this thread, without a runtime.
#[track_caller]
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    let started = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let left = PATIENCE.saturating_sub(started.elapsed());
        assert!(!left.is_zero(), "no end after {PATIENCE:?}");
        thread::park_timeout(left);
    }
}

async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    let mut outputs = Vec::new();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(output) => {
                outputs.push(output);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs
}

/// Client and server.
fn connected() -> (Stream, Stream) {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    run(async {
        let client = Stream::connect(&path).await.expect("a server");
        (client, listener.accept().await.expect("a client"))
    })
}

async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("an end, not an error");
    bytes
}

/// Writes until the system takes no more; returns how many bytes it took. One write is in flight.
async fn write_until_full(stream: &mut Stream) -> usize {
    let mut written = 0;
    loop {
        let chunk = [written as u8; 64 * 1024];
        match tokio::time::timeout(Duration::from_millis(300), stream.write(&chunk)).await {
            Ok(length) => written += length.expect("a write"),
            Err(_) => return written,
        }
    }
}

fn on_reactor<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    run(reactor::Task::spawn(future).expect("a reactor")).expect("no panic")
}

#[track_caller]
fn assert_error<T>(outcome: io::Result<T>, kind: ErrorKind, says: &str) {
    let Err(error) = outcome else { panic!("no error, where {kind:?} was to be") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{says:?} is not in {error}");
}

/// Wine lets byte read mode pass, where Windows loses the end of the stream: only this shows it.
#[test]
fn both_ends_are_of_message_type_and_read_messages() {
    let endpoint = unique().parse().expect("an endpoint");
    let (mut listener, _) =
        super::listener::Listener::bind(&endpoint, &ListenOptions::new()).expect("a free name");
    let options = ConnectOptions::new();
    let client = run(super::stream::Stream::connect(&endpoint, &options)).expect("a server");
    let server = run(std::future::poll_fn(|cx| listener.poll_accept(cx))).expect("a client");
    let (one, other) = super::stream::Stream::pair().expect("a pair");
    for stream in [client, server, one, other] {
        let handle = pipe::raw(&*stream.pipe);
        let mut state = 0;
        let (none, nobody) = (null_mut(), null_mut());
        // SAFETY: the handle is open, and null means not wanted.
        let known = unsafe {
            GetNamedPipeHandleStateW(handle, &mut state, none, null_mut(), null_mut(), nobody, 0)
        };
        assert_ne!(known, 0);
        assert_eq!(state, PIPE_READMODE_MESSAGE);
        assert!(pipe::is_of_message_type(&*stream.pipe).expect("flags"));
    }
}

#[test]
fn half_close_both_ways() {
    for length in [0, 1, 300_000] {
        let (client, server) = connected();
        for (mut one, mut other) in [connected(), (server, client)] {
            run(async {
                let question = vec![7; length];
                let ask = async {
                    one.write_all(&question).await.expect("a write");
                    one.shutdown().await.expect("a half-close");
                    one.shutdown().await.expect("again");
                    read_all(&mut one).await
                };
                let answer = async {
                    assert_eq!(read_all(&mut other).await, question);
                    assert_eq!(other.read(&mut [0]).await.expect("the end stays"), 0);
                    other.write_all(&question).await.expect("the other direction is open");
                    other.close(PATIENCE).await.expect("an end");
                };
                let (answer, ()) = tokio::join!(ask, answer);
                assert_eq!(answer, question);
                assert_error(one.write(&[1]).await, ErrorKind::BrokenPipe, "");
            });
        }
    }
}

#[test]
fn an_empty_write_is_no_end() {
    let (mut client, mut server) = connected();
    run(async {
        assert_eq!(client.write(&[]).await.expect("nothing"), 0);
        assert_eq!(client.write_vectored(&[]).await.expect("nothing"), 0);
        let empty = io::IoSlice::new(&[]);
        assert_eq!(client.write_vectored(&[empty, empty]).await.expect("nothing"), 0);
        client.write_all(b"data").await.expect("a write");
        let mut buffer = [0; 8];
        assert_eq!(server.read(&mut buffer).await.expect("data"), 4);
    });
}

#[test]
fn vectored_writes_keep_the_order_and_the_limit() {
    let (mut client, mut server) = connected();
    let (large, limit) = (vec![2; 100_000], 64 * 1024);
    let slice = |bytes| io::IoSlice::new(bytes);
    run(async {
        assert!(client.is_write_vectored());
        for (bufs, length) in [
            (vec![slice(b"ab"), slice(b""), slice(b"cd")], 4),
            (vec![slice(b""), slice(&large), slice(b"cd")], limit),
            (vec![slice(b"ab"), slice(b"c"), slice(&large)], 3),
            (vec![slice(b"ab"), slice(&large)], 2),
        ] {
            let given: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            assert_eq!(client.write_vectored(&bufs).await.expect("a write"), length);
            let mut got = vec![0; length];
            server.read_exact(&mut got).await.expect("data");
            assert_eq!(got, given[..length]);
        }
    });
}

#[test]
fn a_client_that_came_wrote_and_left_is_heard() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    run(async {
        for round in 0..6 {
            let mut client = Stream::connect(&path).await.expect("a server");
            client.write_all(&[round; 5]).await.expect("a write");
        }
        let mut heard = Vec::new();
        for _ in 0..6 {
            heard.push(read_all(&mut listener.accept().await.expect("a client")).await);
        }
        heard.sort();
        assert_eq!(heard, [0, 1, 2, 3, 4, 5].map(|round| vec![round; 5]));
    });
}

#[test]
fn a_drop_after_the_runtime_s_end_loses_nothing() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (stream, written) = runtime.expect("a runtime").block_on(async {
        let mut client = Stream::connect(&path).await.expect("a server");
        let written = write_until_full(&mut client).await;
        (client, written)
    });
    assert!(written > 256 * 1024, "{written}");
    thread::spawn(move || drop(stream)).join().expect("no panic");
    let mut server = run(listener.accept()).expect("a client");
    assert_eq!(run(read_all(&mut server)).len(), written);
}

#[test]
fn close_waits_for_the_system_and_not_longer_than_said() {
    let (mut client, mut server) = connected();
    let written = on_reactor(async move {
        let written = write_until_full(&mut client).await;
        let deadline = Duration::from_millis(100);
        assert_error(client.close(deadline).await, ErrorKind::TimedOut, "within 0.1 s");
        written
    });
    assert_eq!(run(read_all(&mut server)).len(), written);

    let (mut client, mut server) = connected();
    let (client, written) = on_reactor(async move {
        let written = write_until_full(&mut client).await;
        (client, written)
    });
    run(async {
        let (closed, read) = tokio::join!(client.close(PATIENCE), read_all(&mut server));
        closed.expect("an end");
        assert_eq!(read.len(), written);
    });
}

#[test]
fn close_tells_whether_the_peer_left_too_early() {
    let (mut client, server) = connected();
    let client = on_reactor(async move {
        write_until_full(&mut client).await;
        client
    });
    drop(server);
    assert_error(run(client.close(PATIENCE)), ErrorKind::BrokenPipe, "");

    let (mut client, mut server) = connected();
    run(async {
        client.write_all(b"all of it").await.expect("a write");
        assert_eq!(server.read(&mut [0; 16]).await.expect("data"), 9);
        drop(server);
        assert_eq!(read_all(&mut client).await, b"");
        client.close(PATIENCE).await.expect("the system had every byte");
    });
}

#[test]
fn two_hundred_clients_at_once() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let server = async {
        for _ in 0..200 {
            let mut stream = listener.accept().await.expect("a client");
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("a byte");
            stream.write_all(&byte).await.expect("a write");
        }
    };
    let client = |number: u8| {
        let path = path.clone();
        async move {
            let options = ConnectOptions::new().deadline(PATIENCE);
            let mut stream = Stream::connect_with(path, &options).await.expect("a server");
            stream.write_all(&[number]).await.expect("a write");
            assert_eq!(read_all(&mut stream).await, [number]);
        }
    };
    let clients =
        (0..200).map(|number| Box::pin(client(number)) as Pin<Box<dyn Future<Output = _>>>);
    let (done, ()) = run(async { tokio::join!(all(clients.collect()), server) });
    assert_eq!(done.len(), 200);
}

#[test]
fn a_dropped_name_can_be_bound_at_once() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    for _ in 0..50 {
        run(async {
            let mut client = Stream::connect(&path).await.expect("a server");
            let mut server = listener.accept().await.expect("a client");
            client.write_all(b"x").await.expect("a write");
            server.read_exact(&mut [0]).await.expect("a byte");
            let waiting = Stream::connect(&path).await.expect("a server");
            drop((client, server, waiting));
        });
        drop(listener);
        listener = Listener::bind(&path).expect("a free name again");
    }
    let mut waiting = run(Stream::connect(&path)).expect("a server");
    drop(listener);
    assert_eq!(run(read_all(&mut waiting)), b"", "nobody accepted it");
    assert_error(run(Stream::connect(&path)), ErrorKind::NotFound, &path);
}

#[test]
fn whoever_connected_is_given_out_at_the_end() {
    for clients in [0, 1, 6, 20] {
        let path = unique();
        let listener = Listener::bind(&path).expect("a free name");
        run(async {
            let mut connected = Vec::new();
            for _ in 0..clients {
                connected.push(Stream::connect(&path).await.expect("a server"));
            }
            let pending = listener.into_pending();
            assert_eq!(pending.len(), clients);
            for mut server in pending {
                server.write_all(b"x").await.expect("a write");
                server.close(PATIENCE).await.expect("an end");
            }
            for client in &mut connected {
                assert_eq!(read_all(client).await, b"x");
            }
        });
        assert_error(run(Stream::connect(&path)), ErrorKind::NotFound, &path);
    }
}

#[test]
fn whoever_connected_just_now_is_given_out_too() {
    let path = unique();
    let listener = Listener::bind(&path).expect("a free name");
    let (sender, opened) = std::sync::mpsc::channel();
    let busy = reactor::Task::spawn(async move {
        let client = pipe::open(&path).expect("a server");
        sender.send(()).expect("a test that waits");
        // Keeps the reactor from completing the connection before the listener ends.
        thread::sleep(Duration::from_millis(50));
        client
    });
    opened.recv().expect("a client");
    assert_eq!(listener.into_pending().len(), 1);
    run(busy.expect("a reactor")).expect("no panic");
}

#[test]
fn a_listener_dropped_by_the_reactor_waits_for_nothing() {
    let path = unique();
    let listener = Listener::bind(&path).expect("a free name");
    let took = on_reactor(async move {
        let started = Instant::now();
        drop(listener);
        started.elapsed()
    });
    assert!(took < Duration::from_millis(200), "{took:?}: the reactor waited for itself");
    // The instances are on their way out; the name is gone once they are.
    while run(Stream::connect(&path)).is_ok() {}
}

#[test]
fn errors_have_their_kind_and_the_next_step() {
    let path = unique();
    assert_error(run(Stream::connect(&path)), ErrorKind::NotFound, "start it first");
    let listener = Listener::bind(&path).expect("a free name");
    assert_error(Listener::bind(&path), ErrorKind::AddrInUse, "already listening there");
    let expect = |user| ConnectOptions::new().expect_server(ExpectServer::User(user));
    let connect = |options| run(Stream::connect_with(&path, &options));
    assert_error(connect(expect(UserId::Uid(0))), ErrorKind::Unsupported, "no uids");
    let system = expect(UserId::Sid(SYSTEM.to_owned()));
    assert_error(connect(system), ErrorKind::PermissionDenied, "not as S-1-5-18");
    let own = own_sid().expect("a user").to_lowercase();
    connect(expect(UserId::Sid(own))).expect("the right server");
    drop(listener);

    let long = format!(r"\\.\pipe\{}", "n".repeat(248));
    assert_error(Listener::bind(&long), ErrorKind::InvalidInput, "at most 256 characters");
    assert_error(run(Stream::connect(&long)), ErrorKind::InvalidInput, "at most 256");
    drop(Listener::bind(&long[..256]).expect("not too long"));
}

#[test]
fn a_busy_server_is_waited_for_until_the_deadline() {
    let path = unique();
    let first = path.clone();
    let _only = on_reactor(async move {
        let server = ServerOptions::new().max_instances(1).create(&first).expect("a free name");
        (pipe::open(&first).expect("a server"), server)
    });
    let started = Instant::now();
    let options = ConnectOptions::new().deadline(Duration::from_millis(200));
    let outcome = run(Stream::connect_with(&path, &options));
    assert_error(outcome, ErrorKind::TimedOut, "within 0.2 s");
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_error(Listener::bind(&path), ErrorKind::AddrInUse, "already listening there");
}

/// As Node's servers are, and .NET's by default.
#[test]
fn a_pipe_of_byte_type_has_no_half_close() {
    let path = unique();
    let name = path.clone();
    let server = on_reactor(async move { ServerOptions::new().create(name) });
    let mut server = server.expect("a free name");
    run(async {
        let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
        let mut client = Stream::connect_with(&path, &options).await.expect("a server");
        server.connect().await.expect("a client");
        client.write_all(b"ab").await.expect("a write");
        assert_error(client.shutdown().await, ErrorKind::Unsupported, "of byte type");
        client.write_all(b"cd").await.expect("the write side is still open");
        client.close(PATIENCE).await.expect("the system has every byte");
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await.expect("an end");
        assert_eq!(bytes, b"abcd");
    });
}

#[test]
fn both_ends_know_each_other() {
    let own = UserId::Sid(own_sid().expect("a user").to_owned());
    let (client, server) = connected();
    let (one, other) = Stream::pair().expect("a pair");
    for stream in [&client, &server, &one, &other] {
        let peer = stream.peer_credentials().expect("a peer");
        assert_eq!((peer.user(), peer.pid()), (&own, Some(std::process::id())));
    }
}

#[test]
fn a_pair_talks_and_its_name_goes() {
    let (mut one, mut other) = Stream::pair().expect("a pair");
    run(async {
        one.write_all(b"ping").await.expect("a write");
        let mut buffer = [0; 4];
        other.read_exact(&mut buffer).await.expect("a read");
        other.write_all(b"pong").await.expect("a write");
        one.read_exact(&mut buffer).await.expect("a read");
        assert_eq!(&buffer, b"pong");
        drop(one);
        assert_eq!(read_all(&mut other).await, b"");
    });
}

#[test]
fn the_shutdown_signal_needs_no_runtime() {
    let mut signal = std::pin::pin!(reactor::shutdown_signal());
    let polled = signal.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}
