use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, split};
use tokio::time::sleep;

use super::*;
use crate::memory;
use crate::memory::tests::at_once;

const SECOND: Duration = Duration::from_secs(1);

async fn accepted(first_byte: u64, idle: u64) -> (memory::Stream, TimedStream<memory::Stream>) {
    let (listener, connector) = memory::pair();
    let mut listener = TimedListener::new(listener)
        .first_byte_deadline(SECOND * first_byte as u32)
        .idle_deadline(SECOND * idle as u32);
    let client = connector.connect().await.expect("a connection");
    (client, listener.accept().await.expect("a connection"))
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_times_out() {
    let (_client, mut server) = accepted(10, 60).await;
    let started = Instant::now();
    let error = server.read(&mut [0]).await.expect_err("nothing was said");
    assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, 10));
}

#[tokio::test(start_paused = true)]
async fn the_error_names_the_deadline_that_passed() {
    for (first_byte, idle, said) in [
        (10, 60, "the client sent nothing before the deadline for its first byte"),
        (60, 10, "no data went in either direction for 10s"),
    ] {
        let (_client, mut server) = accepted(first_byte, idle).await;
        let error = server.read(&mut [0]).await.expect_err("nothing was said");
        assert_eq!(error.to_string(), said);
    }
    // A blocked write counts against the idle deadline only.
    let (_client, mut server) = accepted(10, 60).await;
    let error = server.write_all(&vec![0; 1 << 20]).await.expect_err("no room");
    assert_eq!(error.to_string(), "no data went in either direction for 60s");
}

#[tokio::test(start_paused = true)]
async fn bytes_extend_the_deadline() {
    let (mut client, mut server) = accepted(10, 60).await;
    let started = Instant::now();
    let talk = async {
        for pause in [9, 59, 59] {
            sleep(SECOND * pause).await;
            client.write_u8(1).await.expect("a write");
        }
        client
    };

    let listen = async {
        for _ in 0..3 {
            server.read_u8().await.expect("in time");
        }
        server.read_u8().await.expect_err("nothing more was said")
    };
    let (_client, error) = tokio::join!(talk, listen);
    assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, 187));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_times_out_in_both_directions() {
    let (mut client, server) = accepted(10, 60).await;
    client.write_u8(1).await.expect("a write");
    let (mut from, mut to) = split(server);
    from.read_u8().await.expect("a byte");
    let started = Instant::now();
    let reader = async { from.read_u8().await.expect_err("nothing more was said").kind() };
    let writer = async { to.write_all(&vec![0; 1 << 20]).await.expect_err("no room").kind() };
    assert_eq!(tokio::join!(reader, writer), (ErrorKind::TimedOut, ErrorKind::TimedOut));
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_read_without_deadlines_waits() {
    let (listener, connector) = memory::pair();
    let mut listener = TimedListener::new(listener);
    let mut client = connector.connect().await.expect("a connection");
    let mut server = listener.accept().await.expect("a connection");
    let late = async {
        sleep(SECOND * 100_000).await;
        client.write_u8(7).await.expect("a write");
    };
    let (got, ()) = tokio::join!(server.read_u8(), late);
    assert_eq!(got.expect("a byte"), 7);
}

#[tokio::test(start_paused = true)]
async fn an_empty_read_or_write_extends_no_deadline() {
    for (first_byte, idle, limit) in [(4, 60, 4), (10, 4, 4)] {
        let (_client, mut server) = accepted(first_byte, idle).await;
        let started = Instant::now();
        sleep(SECOND * 3).await;
        assert_eq!(at_once(server.read(&mut [])).expect("an empty read"), 0);
        assert_eq!(at_once(server.write(&[])).expect("an empty write"), 0);
        let error = server.read(&mut [0]).await.expect_err("nothing was said");
        assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, limit));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_changes_the_idle_deadline_of_both_halves() {
    let (mut client, mut server) = accepted(10, 60).await;
    client.write_u8(1).await.expect("a write");
    server.read_u8().await.expect("a byte");
    server.set_idle_deadline(None);
    let waited = tokio::time::timeout(SECOND * 600, server.read_u8()).await;
    waited.expect_err("it has no deadline");

    // The second deadline is earlier than the running timer.
    for limit in [60, 5] {
        server.set_idle_deadline(Some(SECOND * limit));
        let started = Instant::now();
        let waited = tokio::time::timeout(SECOND * 30, server.read_u8()).await;
        let late = waited.map(|read| read.expect_err("nothing was said").kind());
        assert_eq!(late.ok(), (limit == 5).then_some(ErrorKind::TimedOut));
        assert_eq!(started.elapsed().as_secs(), u64::from(limit.min(30)));
    }
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn http_has_an_idle_deadline_between_requests_only() {
    let (mut client, server) = accepted(10, 60).await;
    let mut server = server.for_http();
    let mut request = *b"GET / HTTP/1.1\r\n\r\n";
    client.write_all(&request).await.expect("a write");
    server.read_exact(&mut request).await.expect("a request");
    let response = *b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let (body, rest) = (&response[response.len() - 2..], &response[9..response.len() - 2]);
    // The second write has two parts.
    for parts in [[&response[..9], b""], [rest, body]] {
        let waited = tokio::time::timeout(SECOND * 600, server.read_u8()).await;
        waited.expect_err("the client waits for the rest");
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let parts = parts.map(IoSlice::new);
        assert_eq!(server.write_vectored(&parts).await.expect("an answer"), length);
    }

    let answered = Instant::now();
    let ended = tokio::time::timeout(SECOND * 600, server.read_u8()).await.expect("a deadline");
    let error = ended.expect_err("nothing more was asked");
    assert_eq!((error.kind(), answered.elapsed().as_secs()), (ErrorKind::TimedOut, 60));
}

#[test]
fn what_the_stream_buffers_goes_out_at_a_flush() {
    let (near, mut far) = tokio::io::duplex(16);
    let mut stream = TimedStream::new(BufStream::new(near), None, None);
    at_once(stream.write_all(b"abc")).expect("room");
    at_once(stream.flush()).expect("a flush");
    let mut bytes = [0; 3];
    at_once(far.read_exact(&mut bytes)).expect("all of them");
    assert_eq!(bytes, *b"abc");
    at_once(stream.shutdown()).expect("an end");
    assert_eq!(at_once(far.read(&mut bytes)).expect("the end"), 0);
}

#[test]
fn a_deadline_without_timers_is_an_error() {
    let (listener, connector) = memory::pair();
    let mut listener = TimedListener::new(listener).idle_deadline(SECOND);
    let mut client = at_once(connector.connect()).expect("a connection");
    let mut server = at_once(listener.accept()).expect("a connection");
    let error = at_once(server.read_u8()).expect_err("nothing was said");
    assert_eq!(error.kind(), ErrorKind::Other, "{error}");
    at_once(client.write_u8(7)).expect("a write");
    assert_eq!(at_once(server.read_u8()).expect("it need not wait"), 7);
}
