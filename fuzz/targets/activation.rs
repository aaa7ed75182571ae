//! A service manager's variables contain anything, and descriptors of any kind were passed or are
//! missing. What is reported must agree with both, and no descriptor may be closed.
#![no_main]

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::{Mutex, OnceLock};

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use sockpipe::os::unix::{ActivatedKind, activated_descriptors};
use sockpipe::{Error, Reason};

/// The first descriptor that a service manager passes.
const FIRST: RawFd = 3;
/// The originals are here and above.
const OWN: RawFd = 64;

#[derive(Arbitrary, Debug)]
struct Passed {
    pid: Variable,
    count: Variable,
    names: Option<Vec<u8>>,
    descriptors: Vec<Kind>,
}

#[derive(Arbitrary, Debug)]
enum Variable {
    Missing,
    True,
    Number(u64),
    Text(Vec<u8>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Listener,
    AutobindListener,
    Stream,
    StreamOfGonePeer,
    Unconnected,
    Datagram,
    File,
    Missing,
}

struct Originals {
    listener: OwnedFd,
    autobind: OwnedFd,
    stream: OwnedFd,
    _peer: OwnedFd,
    left: OwnedFd,
    unconnected: OwnedFd,
    datagram: OwnedFd,
    file: OwnedFd,
    /// Copies of the file at the numbers from 3, until the first run. Before that, libFuzzer opens
    /// files of its own.
    kept: Mutex<Vec<OwnedFd>>,
    room: usize,
}

fn originals() -> &'static Originals {
    static ORIGINALS: OnceLock<Originals> = OnceLock::new();
    ORIGINALS.get_or_init(|| {
        let name = env::temp_dir().join(format!("sockpipe-fuzz-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&name).expect("a free name");
        std::fs::remove_file(&name).expect("its name");
        let unconnected = || socket(AddressFamily::UNIX, SocketType::STREAM, None);
        let autobind = unconnected().expect("a socket");
        // The kernel chooses an abstract name.
        bind(&autobind, &SocketAddrUnix::new_unnamed()).expect("a name");
        listen(&autobind, 1).expect("a listener");
        let (stream, peer) = UnixStream::pair().expect("a pair");
        let (left, _) = UnixStream::pair().expect("a pair");
        let datagram = UnixDatagram::unbound().expect("a socket");
        let file = File::open("/dev/null").expect("a file");
        let mut originals = Originals {
            listener: high(listener),
            autobind: high(autobind),
            stream: high(stream),
            _peer: high(peer),
            left: high(left),
            unconnected: high(unconnected().expect("a socket")),
            datagram: high(datagram),
            file: high(file),
            kept: Mutex::default(),
            room: 0,
        };
        let kept = free(&originals.file);
        // A number stays free, so that a count can be too large.
        originals.room = kept.len().checked_sub(1).expect("descriptor 3 is closed at the start");
        originals.kept = Mutex::new(kept);
        originals
    })
}

/// Puts copies of the file at the numbers from 3 that are free. A shell may have left others open.
fn free(file: &OwnedFd) -> Vec<OwnedFd> {
    let mut copies = Vec::new();
    for number in FIRST..OWN {
        let copy = file.try_clone().expect("a descriptor");
        if copy.as_raw_fd() != number {
            break;
        }
        copies.push(copy);
    }
    copies
}

fn high(descriptor: impl AsFd) -> OwnedFd {
    fcntl_dupfd_cloexec(descriptor, OWN).expect("a descriptor")
}

impl Originals {
    fn of(&self, kind: Kind) -> &OwnedFd {
        match kind {
            Kind::Listener => &self.listener,
            Kind::AutobindListener => &self.autobind,
            Kind::Stream => &self.stream,
            Kind::StreamOfGonePeer => &self.left,
            Kind::Unconnected => &self.unconnected,
            Kind::Datagram => &self.datagram,
            Kind::File | Kind::Missing => &self.file,
        }
    }

    /// Puts copies at the numbers from 3, and closes those that are to be missing.
    fn passed(&self, kinds: &[Kind]) -> Vec<Option<OwnedFd>> {
        let mut passed = Vec::new();
        for (number, kind) in (FIRST..).zip(kinds) {
            let copy = self.of(*kind).try_clone().expect("a descriptor");
            assert_eq!(copy.as_raw_fd(), number);
            fcntl_setfd(&copy, FdFlags::empty()).expect("a flag");
            passed.push(Some(copy));
        }
        for (copy, kind) in passed.iter_mut().zip(kinds) {
            if matches!(kind, Kind::Missing) {
                *copy = None;
            }
        }
        passed
    }
}

impl Variable {
    fn text(&self, right: u64) -> Option<Vec<u8>> {
        let text = match self {
            Self::Missing => return None,
            Self::True => right.to_string().into_bytes(),
            Self::Number(number) => number.to_string().into_bytes(),
            Self::Text(text) => text.clone(),
        };
        Some(without_nul(text))
    }
}

/// A variable cannot contain a NUL.
fn without_nul(text: Vec<u8>) -> Vec<u8> {
    text.into_iter().filter(|byte| *byte != 0).collect()
}

#[allow(unsafe_code, reason = "the library reads the variables of its own process")]
fn set(name: &str, text: Option<&[u8]>) {
    match text {
        // SAFETY: the target has one thread that uses the environment: libFuzzer starts none that
        // does, and the blocking API none at all.
        Some(text) => unsafe { env::set_var(name, OsStr::from_bytes(text)) },
        // SAFETY: as above.
        None => unsafe { env::remove_var(name) },
    }
}

/// Returns the number that a variable contains, or `Err` if it contains something else.
fn number(text: Option<&[u8]>) -> Result<Option<u64>, ()> {
    let Some(text) = text else { return Ok(None) };
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).map(Some).ok_or(())
}

fuzz_target!(init: { originals(); }, |passed: Passed| {
    let originals = originals();
    originals.kept.lock().expect("copies").clear();
    let kinds = &passed.descriptors[..passed.descriptors.len().min(originals.room)];
    let descriptors = originals.passed(kinds);
    let open = descriptors.iter().take_while(|descriptor| descriptor.is_some()).count() as u64;

    let pid = passed.pid.text(std::process::id().into());
    let count = passed.count.text(open);
    let names = passed.names.map(without_nul);
    set("LISTEN_PID", pid.as_deref());
    set("LISTEN_FDS", count.as_deref());
    set("LISTEN_FDNAMES", names.as_deref());
    let found = activated_descriptors();

    match (number(pid.as_deref()), number(count.as_deref())) {
        (Ok(pid), Ok(count)) if pid != Some(std::process::id().into()) || count.is_none() => {
            assert_eq!(found.expect("nothing"), []);
        }
        (Ok(_), Ok(count)) if count <= Some(open) => {
            let found = found.expect("descriptors");
            assert_eq!(found.len() as u64, count.unwrap_or(0));
            let names = names.and_then(|names| String::from_utf8(names).ok()).unwrap_or_default();
            let names: Vec<&str> = names.split(':').collect();
            for (at, one) in found.iter().enumerate() {
                assert_eq!(one.number, FIRST + at as RawFd);
                let flags = fcntl_getfd(descriptors[at].as_ref().expect("it is open"));
                assert_eq!(flags, Ok(FdFlags::CLOEXEC));
                let name = names.get(at).filter(|name| !name.is_empty()).unwrap_or(&"unknown");
                assert_eq!(one.name, *name);
                let kind = match kinds[at] {
                    Kind::Listener | Kind::AutobindListener => ActivatedKind::Listener,
                    Kind::Stream | Kind::StreamOfGonePeer => ActivatedKind::Stream,
                    _ => ActivatedKind::Other,
                };
                assert_eq!(one.kind, kind, "{:?}", kinds[at]);
            }
        }
        _ => {
            let error = found.expect_err("no number, or a descriptor that is missing");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let reason = Error::of(&error).map(Error::reason);
            assert!(matches!(reason, Some(Reason::UnusableDescriptor)), "{error}");
        }
    }
    for descriptor in descriptors.iter().flatten() {
        fcntl_getfd(descriptor).expect("an open descriptor");
    }
});
