//! ZeroMQ over `ipc://`, with its C library if that is installed.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::time::Instant;

use libloading::Library;

use crate::flow::poured;
use crate::measure::{Clock, Outcome, Times};
use crate::run;
use crate::work::{FRAME, MESSAGE, Service, Work};

/// The type of a socket for one peer.
const PAIR: c_int = 0;
/// The options that limit the lengths of the socket's two queues, in messages.
const QUEUE: [c_int; 2] = [23, 24];

pub fn library() -> Option<Library> {
    let names = ["libzmq.so.5", "libzmq.5.dylib"];
    // SAFETY: the library's initialisers are those of ZeroMQ, which require nothing of their
    // caller.
    names.iter().find_map(|name| unsafe { Library::new(name) }.ok())
}

struct Socket {
    // The socket stays open until the process ends.
    socket: *mut c_void,
    send: unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int,
    receive: unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_int) -> c_int,
}

type New = unsafe extern "C" fn() -> *mut c_void;
type Make = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void;
type At = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;
type Set = unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int;

impl Socket {
    fn new(address: &str, binds: bool) -> io::Result<Self> {
        let library: &'static Library =
            Box::leak(Box::new(library().ok_or(io::ErrorKind::NotFound)?));
        let address = CString::new(format!("ipc://{address}"))?;
        let at = if binds { &b"zmq_bind"[..] } else { b"zmq_connect" };
        // SAFETY: the names and types are those of zmq.h, and the arguments live through the calls.
        unsafe {
            let socket = library.get::<Make>(b"zmq_socket").map_err(io::Error::other)?(
                library.get::<New>(b"zmq_ctx_new").map_err(io::Error::other)?(),
                PAIR,
            );
            let set = library.get::<Set>(b"zmq_setsockopt").map_err(io::Error::other)?;
            for option in QUEUE {
                let unlimited: c_int = 0;
                set(socket, option, (&raw const unlimited).cast(), size_of::<c_int>());
            }
            if library.get::<At>(at).map_err(io::Error::other)?(socket, address.as_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                socket,
                send: *library.get(b"zmq_send").map_err(io::Error::other)?,
                receive: *library.get(b"zmq_recv").map_err(io::Error::other)?,
            })
        }
    }

    fn send(&self, message: &[u8]) {
        // SAFETY: the socket is open and belongs to this thread, and the message is live.
        let sent = unsafe { (self.send)(self.socket, message.as_ptr().cast(), message.len(), 0) };
        assert!(sent >= 0, "{}", io::Error::last_os_error());
    }

    fn receive(&self, buffer: &mut [u8]) -> usize {
        // SAFETY: as above, and the call writes no more than the buffer has room for.
        let length =
            unsafe { (self.receive)(self.socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(length).expect("a message")
    }
}

pub fn serve(service: Service, address: &str) -> io::Result<()> {
    let socket = Socket::new(address, true)?;
    run::say_listening(address);
    let (mut buffer, mut seen) = (vec![0; 128 * 1024], 0);
    loop {
        let length = socket.receive(&mut buffer);
        match service {
            Service::Echo(_) | Service::Think => socket.send(&buffer[..length]),
            Service::Send(_) => panic!("no client asks ZeroMQ for {service:?}"),
            Service::Count { every, .. } => {
                let before = seen / every;
                // Counts each message with a length prefix, so that all competitors count the same.
                seen += length + FRAME - MESSAGE;
                if seen / every > before {
                    socket.send(&[1]);
                }
            }
        }
    }
}

pub fn drive(work: Work, address: &str, millis: u64) -> io::Result<Outcome> {
    let socket = Socket::new(address, false)?;
    let mut buffer = vec![0; 128 * 1024];
    match work {
        Work::PingPong(size) => {
            let question = vec![7; size];
            let clock = Clock::new(millis);
            let (mut times, mut now) = (Times::default(), Instant::now());
            while now < clock.end {
                socket.send(&question);
                socket.receive(&mut buffer);
                let done = Instant::now();
                times.push(&clock, now, done);
                now = done;
            }
            Ok(times.outcome((now - clock.start).as_secs_f64()))
        }
        Work::Messages(_) => {
            let Service::Count { every, .. } = work.service() else { panic!("nobody counts") };
            let end = Clock::new(millis).end;
            let start = Instant::now();
            let mut sent = 0;
            // The client waits for each receipt one batch later. ZeroMQ's queues have no limit, and
            // the benchmark would otherwise measure only them.
            loop {
                let receipts = sent / every;
                socket.send(&[7; MESSAGE]);
                sent += FRAME;
                if sent / every > receipts {
                    if receipts > 0 {
                        socket.receive(&mut buffer);
                    }
                    if Instant::now() >= end {
                        break;
                    }
                }
            }
            socket.receive(&mut buffer);
            Ok(poured(sent / every * every, work, FRAME, start))
        }
        other => panic!("{} is not for ZeroMQ", other.name()),
    }
}
