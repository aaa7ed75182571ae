//! Helpers that the tests of the blocking API share.

use std::io::{Read, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use sockpipe::blocking::{Listener, Stream};

use super::unique_name;

/// The limit of a whole test. Only a test that fails waits this long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `test` on a thread, and fails when it does not end.
#[track_caller]
pub fn bounded<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let running = thread::spawn(move || {
        let output = test();
        let _ = sender.send(());
        output
    });
    match receiver.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => panic!("no end after {PATIENCE:?}"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            running.join().unwrap_or_else(|panic| resume_unwind(panic))
        }
    }
}

/// Returns a connected client and the server's end.
pub fn connected() -> (Stream, Stream) {
    let name = unique_name();
    let listener = Listener::bind(&name).expect("a free name");
    let client = Stream::connect(&name).expect("a server");
    (client, listener.accept().expect("a client"))
}

pub fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an end, not an error");
    bytes
}

/// Sends bytes in both directions, and then both ends.
pub fn exchange(mut one: impl Read + Write, mut other: impl Read + Write) {
    let mut buffer = [0; 4];
    one.write_all(b"ping").expect("a write");
    other.read_exact(&mut buffer).expect("a read");
    assert_eq!(&buffer, b"ping");
    other.write_all(b"pong").expect("a write");
    one.read_exact(&mut buffer).expect("a read");
    assert_eq!(&buffer, b"pong");
}
