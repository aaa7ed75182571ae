//! A client sends bytes with any control data to a server that wants none. The server must read
//! exactly the bytes, and keep no descriptor.
#![no_main]

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, UCred, send, sendmsg};
use sockpipe::{ListenOptions, SharedMemory, blocking};

#[derive(Arbitrary, Debug)]
enum Message {
    Bytes(Vec<u8>),
    Descriptors(u8, Vec<u8>),
    /// The sender's own credentials, because the kernel accepts no others.
    Credentials(Vec<u8>),
    Both(u8, Vec<u8>),
    OutOfBand,
}

fn server() -> &'static (blocking::Listener, String) {
    static SERVER: OnceLock<(blocking::Listener, String)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let name = std::env::temp_dir().join(format!("sockpipe-fuzz-{}.sock", std::process::id()));
        let name = name.to_str().expect("UTF-8").to_owned();
        let options = ListenOptions::new().shared_memory(SharedMemory::Eager);
        (blocking::Listener::bind_with(name.as_str(), &options).expect("a free name"), name)
    })
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

/// Sends a message, and returns how many of its bytes were sent.
fn send_one(socket: &UnixStream, message: &Message) -> Option<usize> {
    let (fds, credentials, bytes) = match message {
        Message::Bytes(bytes) => (0, false, bytes),
        Message::Descriptors(count, bytes) => (count % 254, false, bytes),
        Message::Credentials(bytes) => (0, true, bytes),
        Message::Both(count, bytes) => (count % 254, true, bytes),
        // An out-of-band byte is not part of the stream, unless a second one follows it.
        Message::OutOfBand => {
            let _ = send(socket, b"!", SendFlags::OOB | SendFlags::DONTWAIT);
            return Some(0);
        }
    };
    let null = std::fs::File::open("/dev/null").expect("a file");
    let fds = vec![null.as_fd(); usize::from(fds)];
    let mut room = [MaybeUninit::uninit(); 2048];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    if credentials {
        let (pid, uid, gid) =
            (rustix::process::getpid(), rustix::process::getuid(), rustix::process::getgid());
        assert!(control.push(SendAncillaryMessage::ScmCredentials(UCred { pid, uid, gid })));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).ok()
}

fuzz_target!(|messages: Vec<Message>| {
    let (listener, name) = server();
    let before = open_descriptors();
    let socket = UnixStream::connect(name).expect("a server");
    let mut stream = listener.accept().expect("a client");
    let mut expected = Vec::new();
    let first = messages.iter().position(|message| matches!(message, Message::OutOfBand));
    for (at, message) in messages.iter().enumerate() {
        if matches!(message, Message::OutOfBand) && first != Some(at) {
            continue;
        }
        let sent = send_one(&socket, message);
        if let Message::Bytes(bytes)
        | Message::Descriptors(_, bytes)
        | Message::Credentials(bytes)
        | Message::Both(_, bytes) = message
        {
            expected.extend(&bytes[..sent.unwrap_or(0)]);
        }
    }
    drop(socket);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("bytes, and an end");
    assert_eq!(got, expected);
    drop(stream);
    assert_eq!(open_descriptors(), before);
});
