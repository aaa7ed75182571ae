//! A peer writes anything into the memory of a stream and rings at any time, while the stream reads
//! and writes. Nothing may panic, and no call may outlast its timeout.
#![no_main]

#[path = "../../tests/shared_memory/by_hand.rs"]
#[allow(dead_code, reason = "the target uses a part")]
mod by_hand;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;
use std::time::Duration;

use by_hand::*;
use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::{arbitrary, fuzz_target};
use sockpipe::{ConnectOptions, SharedMemory, blocking};

#[derive(Arbitrary, Debug)]
enum Step {
    Word(u8, u64),
    /// Values near the limits of a ring, which random ones rarely are.
    Near(u8, i8, bool),
    Bells(u8),
    WritersBells(u8),
    Read(u16),
    Write(u16),
    Close,
}

fn server() -> &'static (UnixListener, String) {
    static SERVER: OnceLock<(UnixListener, String)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let name = std::env::temp_dir().join(format!("sockpipe-fuzz-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&name).expect("a free name");
        (listener, name.to_str().expect("UTF-8").to_owned())
    })
}

fn taken() -> (blocking::Stream, UnixStream, UnixStream, Mapped) {
    let (listener, name) = server();
    let options = ConnectOptions::new().shared_memory(SharedMemory::Eager);
    let mut client = blocking::Stream::connect_with(name.as_str(), &options).expect("a server");
    let (mut socket, _) = listener.accept().expect("a client");
    let byte = mark_of_peer(&socket).expect("a mark");
    let file: OwnedFd = memory(SIZE, SEALS);
    let mapped = Mapped::new(&file).expect("a mapping");
    let (bell, other) = UnixStream::pair().expect("a pair");
    other.set_nonblocking(true).expect("a flag");
    assert!(send_with(&socket, &[byte], &[file.as_fd(), other.as_fd()]));
    socket.write_all(b"x").expect("a write");
    client.read_exact(&mut [0]).expect("a byte");
    assert_eq!(mapped.get(STATE), ACCEPTED);
    let limit = Some(Duration::from_micros(50));
    client.set_read_timeout(limit).expect("a limit");
    client.set_write_timeout(limit).expect("a limit");
    socket.set_nonblocking(true).expect("a flag");
    bell.set_nonblocking(true).expect("a flag");
    (client, socket, bell, mapped)
}

fn check(outcome: std::io::Result<usize>) {
    if let Err(error) = outcome {
        let kind = error.kind();
        let known = [ErrorKind::TimedOut, ErrorKind::InvalidData, ErrorKind::BrokenPipe];
        assert!(known.contains(&kind), "{error}");
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let (mut client, socket, bell, mapped) = taken();
    let mut ends = Some((socket, bell));
    let mut buffer = vec![0; 1 << 17];
    for step in steps {
        match (step, &mut ends) {
            (Step::Word(at, word), _) => mapped.set(usize::from(at) % WORDS * 128, word),
            (Step::Near(at, by, ring), _) => {
                let word = if ring { RING } else { 0 }.wrapping_add_signed(i64::from(by));
                mapped.set(usize::from(at) % WORDS * 128, word);
            }
            (Step::Bells(count), Some((socket, _))) => {
                let _ = socket.write(&buffer[..usize::from(count)]);
            }
            (Step::WritersBells(count), Some((_, bell))) => {
                let _ = bell.write(&buffer[..usize::from(count)]);
            }
            (Step::Read(length), _) => check(client.read(&mut buffer[..usize::from(length)])),
            (Step::Write(length), _) => check(client.write(&buffer[..usize::from(length) * 2])),
            (Step::Close, _) => ends = None,
            (_, None) => {}
        }
    }
});
