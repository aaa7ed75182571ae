//! Servers and clients that do not use the crate, but the system's calls.

use std::io::{ErrorKind, Read, Write, stdin};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

/// Runs an echo server that has no lock file.
pub(crate) fn server(path: &str, backlog: u32) {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let address = SocketAddrUnix::new(path).expect("an address");
    bind(&socket, &address).expect("a free name");
    listen(&socket, i32::try_from(backlog).expect("a length")).expect("a listener");
    println!("listening {}", std::process::id());
    let listener = UnixListener::from(socket);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            thread::spawn(move || echo(stream));
        }
    });
    wait_for_the_end();
}

/// Sends back each byte, and prints how many there were.
fn echo(mut stream: UnixStream) {
    let mut total = 0;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                total += length;
                let _ = stream.write_all(&buffer[..length]);
            }
        }
    }
    println!("got {total}");
}

/// Connects `count` times, waits for the first byte, and counts the outcomes.
pub(crate) fn connects(path: &str, count: u32) {
    let (mut denied, mut closed, mut served, mut other) = (0, 0, 0, 0);
    for _ in 0..count {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => denied += 1,
            Err(_) => other += 1,
            Ok(mut stream) => match stream.read(&mut [0]) {
                Ok(1) => served += 1,
                Ok(_) => closed += 1,
                Err(_) => other += 1,
            },
        }
    }
    println!("denied {denied} closed {closed} served {served} other {other}");
}

/// Connects without a pause until standard input ends.
pub(crate) fn hammer(path: &str) {
    static STOP: AtomicBool = AtomicBool::new(false);

    println!("hammering");
    let stopper = thread::spawn(|| {
        wait_for_the_end();
        STOP.store(true, Ordering::Relaxed);
    });
    let (mut connected, mut refused, mut missing, mut denied, mut other) = (0, 0, 0, 0, 0);
    while !STOP.load(Ordering::Relaxed) {
        let outcome = UnixStream::connect(path);
        let count = match outcome.map_err(|error| error.kind()) {
            Ok(_) => &mut connected,
            Err(ErrorKind::ConnectionRefused) => &mut refused,
            Err(ErrorKind::NotFound) => &mut missing,
            Err(ErrorKind::PermissionDenied) => &mut denied,
            Err(_) => &mut other,
        };
        *count += 1;
    }
    stopper.join().expect("no panic");
    println!(
        "connected {connected} refused {refused} missing {missing} denied {denied} other {other}"
    );
}

pub(crate) fn wait_for_the_end() {
    let _ = std::io::copy(&mut stdin().lock(), &mut std::io::sink());
}
