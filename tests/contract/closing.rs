//! Row 11: closing with bytes in flight.

use std::thread;
use std::time::Duration;

use sockpipe::Reason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::common::{
    Backend, Memory, Os, PATIENCE, argument, assert_reason, read_late, spawn_helper, within,
};
use crate::{connected, read_all};

const ANSWER: usize = 1024 * 1024;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn noise(at: usize) -> u8 {
    (at % 251) as u8
}

/// Writes until the OS takes no more, and returns how much it took.
async fn write_until_full(stream: &mut (impl AsyncWrite + Unpin)) -> usize {
    let mut written = 0;
    loop {
        let chunk: Vec<u8> = (written..written + 10_000).map(noise).collect();
        // A write that takes longer than this finds the buffers full. A dropped write has written
        // nothing (row 14). The first one has room, so it may take as long as a busy machine needs.
        let limit = if written == 0 { PATIENCE } else { Duration::from_millis(200) };
        match tokio::time::timeout(limit, stream.write(&chunk)).await {
            Ok(length) => written += length.expect("a write"),
            Err(_) => return written,
        }
    }
}

async fn assert_arrives(stream: &mut (impl AsyncRead + Unpin), length: usize) {
    let bytes = read_all(stream).await;
    assert_eq!(bytes.len(), length);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == noise(at)), "other bytes");
}

type Ending<B> = fn(Runtime, <B as Backend>::Stream);

/// The bytes arrive wherever the stream is dropped.
fn a_plain_drop_loses_nothing<B: Backend>() {
    let ways: [(&str, Ending<B>); 3] = [
        ("in its runtime, which ends", |runtime, stream| {
            runtime.block_on(async { drop(stream) });
            drop(runtime);
        }),
        ("outside its runtime, which lives on for a while", |runtime, stream| {
            drop(stream);
            drop(runtime);
        }),
        ("on a thread, when its runtime is gone", |runtime, stream| {
            drop(runtime);
            thread::spawn(move || drop(stream)).join().expect("no panic");
        }),
    ];
    let reader = runtime();
    for (way, end) in ways {
        let backend = B::new();
        let mut listener = {
            let _context = reader.enter();
            backend.bind().expect("a free name")
        };
        let writer = runtime();
        let connecting = async {
            let mut client = within(backend.connect()).await.expect("a connection");
            let written = write_until_full(&mut client).await;
            (client, written)
        };
        let (client, written) = writer.block_on(connecting);
        assert!(written > 0, "{way}");
        println!("{way}: {written} bytes");
        end(writer, client);
        reader.block_on(async {
            let mut server =
                within(sockpipe::LocalListener::accept(&mut listener)).await.expect("a connection");
            assert_arrives(&mut server, written).await;
        });
    }
}

#[test]
fn row_11_a_plain_drop_in_memory_loses_nothing() {
    a_plain_drop_loses_nothing::<Memory>();
}

#[test]
fn row_11_a_plain_drop_loses_nothing() {
    a_plain_drop_loses_nothing::<Os>();
}

/// Neither end of a connection nor the listener needs a runtime when it is dropped.
#[test]
fn row_11_everything_can_be_dropped_without_a_runtime() {
    let first = runtime();
    let backend = Os::new();
    let (listener, client, server, pair) = first.block_on(async {
        let mut listener = backend.bind().expect("a free name");
        let client = within(backend.connect()).await.expect("a connection");
        let server = within(listener.accept()).await.expect("a connection");
        (listener, client, server, sockpipe::Stream::pair().expect("a pair"))
    });
    drop(first);
    drop((client, server, pair, listener));
    runtime().block_on(async { drop(backend.bind().expect("a free name")) });
}

/// The helper of row 11: writes [`ANSWER`] bytes to the endpoint in its argument, closes, and
/// exits.
#[tokio::test]
async fn helper_answers_and_exits() {
    let Some(endpoint) = argument() else { return };
    let mut stream = within(sockpipe::Stream::connect(endpoint)).await.expect("a connection");
    let answer: Vec<u8> = (0..ANSWER).map(noise).collect();
    stream.write_all(&answer).await.expect("a write");
    stream.close(PATIENCE).await.expect("the OS has every byte");
    std::process::exit(10);
}

#[tokio::test]
async fn row_11_after_close_even_an_exit_loses_nothing() {
    let backend = Os::new();
    let mut listener = backend.bind().expect("a free name");
    let mut child = spawn_helper("contract::closing::helper_answers_and_exits", backend.endpoint());
    let mut stream = within(listener.accept()).await.expect("a connection");
    let bytes = read_late(&mut stream).await;
    assert_eq!(bytes.len(), ANSWER);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == noise(at)), "other bytes");
    let ended = tokio::task::spawn_blocking(move || child.wait().expect("an end"));
    assert_eq!(within(ended).await.expect("an end").code(), Some(10));
}

#[tokio::test]
async fn row_11_close_ends_at_its_deadline_and_loses_nothing() {
    let (mut client, mut server) = connected(&Os::new()).await;
    let written = write_until_full(&mut client).await;
    let closed = within(client.close(Duration::from_millis(100))).await;
    if cfg!(windows) {
        // The system has a pipe's last write only once the peer has made room.
        assert_reason!(closed, Reason::Deadline);
    } else {
        closed.expect("the kernel has what a write reported");
    }
    assert_arrives(&mut server, written).await;
}
