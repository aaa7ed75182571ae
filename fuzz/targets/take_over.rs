//! A server hands over anything to the next version, and the next version answers anything to a
//! server. Neither may keep a descriptor, and a server serves until it is taken over.
#![no_main]

use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use sockpipe::os::unix::{ListenOptionsExt, take_over};
use sockpipe::{Error, ListenOptions, Listener, Reason, Stream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const VERSION: &[u8] = b"sockpipe upgrade 1";
/// How many next versions may ask while the server does not look.
const WAITING: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Arbitrary, Debug)]
enum Upgrade {
    Offer(Offer),
    Answers(Vec<Step>),
}

/// What a server sends to the next version.
#[derive(Arbitrary, Debug)]
struct Offer {
    version: Option<Vec<u8>>,
    id: Id,
    descriptors: Descriptors,
    more: Vec<u8>,
    stays: bool,
}

#[derive(Arbitrary, Debug)]
enum Id {
    Right,
    Other(u64, u64),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Descriptors {
    Right,
    Without(u8),
    Instead(u8, Descriptor),
    Any(Vec<Descriptor>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Descriptor {
    Listener,
    OtherListener,
    Lock,
    OtherLock,
    Byte,
    TakenByte,
    File,
}

/// What the next version does to a server.
#[derive(Arbitrary, Debug)]
enum Step {
    Ask,
    ReadByte,
    Answer(Vec<u8>),
    Leave,
    /// Lets the server look at what next versions do.
    Look,
    Client,
}

struct Place {
    runtime: Runtime,
    dir: PathBuf,
    name: PathBuf,
}

impl Place {
    fn file(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!(".s.{suffix}"))
    }
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = std::env::temp_dir().join(format!("sockpipe-fuzz-{}", std::process::id()));
        fs::create_dir(&dir).expect("a new directory");
        let name = dir.join("s");
        Place { runtime, dir, name }
    })
}

fn clear(dir: &Path) {
    for file in fs::read_dir(dir).expect("a directory") {
        fs::remove_file(file.expect("an entry").path()).expect("a file");
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

/// The files of a server that a target plays, and what it may send.
struct Server {
    listener: UnixListener,
    upgrades: UnixListener,
    other: UnixListener,
    lock: File,
    other_lock: File,
    null: File,
    byte: OwnedFd,
    taken: OwnedFd,
    _ends: [UnixStream; 2],
}

impl Server {
    fn new(place: &Place) -> Self {
        let bind = |name: &Path| UnixListener::bind(name).expect("a free name");
        let lock = File::create(place.file("lock")).expect("a lock");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("a free lock");
        let (byte, mut end) = UnixStream::pair().expect("a pair");
        end.write_all(b"1").expect("room");
        let (taken, other_end) = UnixStream::pair().expect("a pair");
        Self {
            listener: bind(&place.name),
            upgrades: bind(&place.file("upgrade")),
            other: bind(&place.dir.join("other")),
            lock,
            other_lock: File::create(place.dir.join("other.lock")).expect("a file"),
            null: File::open("/dev/null").expect("a file"),
            byte: byte.into(),
            taken: taken.into(),
            _ends: [end, other_end],
        }
    }

    fn of(&self, descriptor: Descriptor) -> BorrowedFd<'_> {
        match descriptor {
            Descriptor::Listener => self.listener.as_fd(),
            Descriptor::OtherListener => self.other.as_fd(),
            Descriptor::Lock => self.lock.as_fd(),
            Descriptor::OtherLock => self.other_lock.as_fd(),
            Descriptor::Byte => self.byte.as_fd(),
            Descriptor::TakenByte => self.taken.as_fd(),
            Descriptor::File => self.null.as_fd(),
        }
    }
}

impl Descriptors {
    fn all(&self) -> Vec<Descriptor> {
        let mut all = vec![Descriptor::Listener, Descriptor::Lock, Descriptor::Byte];
        match self {
            Self::Right => {}
            Self::Without(at) => drop(all.remove(usize::from(at % 3))),
            Self::Instead(at, descriptor) => all[usize::from(at % 3)] = *descriptor,
            Self::Any(any) => all = any[..any.len().min(32)].to_vec(),
        }
        all
    }
}

fn identity(name: &Path) -> (u64, u64) {
    let file = fs::symlink_metadata(name).expect("a file");
    (file.dev(), file.ino())
}

impl Offer {
    fn message(&self, place: &Place) -> Vec<u8> {
        let mut message = self.version.clone().unwrap_or_else(|| VERSION.to_vec());
        let of = |(device, number): (u64, u64)| u128::from(device) << 64 | u128::from(number);
        match &self.id {
            Id::Right => message.extend(of(identity(&place.name)).to_ne_bytes()),
            Id::Other(device, number) => message.extend(of((*device, *number)).to_ne_bytes()),
            Id::Bytes(bytes) => message.extend(bytes),
        }
        message.extend(&self.more);
        message
    }

    /// Whether the next version may take over.
    fn is_right(&self, place: &Place) -> bool {
        use Descriptor::*;
        let right = Self {
            version: None,
            id: Id::Right,
            descriptors: Descriptors::Right,
            more: Vec::new(),
            stays: false,
        };
        // The server has the same user, and is trusted to know which of its sockets has the name.
        self.message(place) == right.message(place)
            && matches!(self.descriptors.all()[..], [Listener | OtherListener, Lock, Byte])
    }
}

fn send(socket: &UnixStream, message: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut room = [MaybeUninit::uninit(); 1024];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let _ = sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL);
}

fn offered(place: &Place, offer: &Offer) {
    let server = Server::new(place);
    let before = identity(&place.name);
    let right = offer.is_right(place);
    // A wrong offer is given up only after the limit.
    let limit = if right { PATIENCE } else { Duration::from_millis(1) };
    let options = ListenOptions::new().upgradable(true);
    server.upgrades.set_nonblocking(true).expect("a socket");
    let taken = place.runtime.block_on(async {
        let upgrades = server.upgrades.try_clone().expect("a descriptor");
        let upgrades = tokio::net::UnixListener::from_std(upgrades).expect("a listener");
        let sending = async {
            let mut sent = Vec::new();
            while let Ok((connection, _)) = upgrades.accept().await {
                let connection = connection.into_std().expect("a socket");
                let descriptors = offer.descriptors.all();
                let descriptors: Vec<_> = descriptors.iter().map(|one| server.of(*one)).collect();
                send(&connection, &offer.message(place), &descriptors);
                if offer.stays {
                    sent.push(connection);
                }
            }
            sent
        };
        let taking =
            timeout(PATIENCE + PATIENCE / 2, take_over(place.name.as_path(), &options, limit));
        tokio::select! {
            _ = sending => unreachable!("it accepts until it is dropped"),
            taken = taking => taken.expect("an end by the limit"),
        }
    });

    match taken {
        Ok(listener) => {
            assert!(right, "{offer:?}");
            assert!(is_empty(server.byte.as_fd()), "two servers have the name");
            assert_eq!(identity(&place.name), before);
            place.runtime.block_on(async { drop(listener) });
        }
        Err(error) => {
            assert!(!right, "{error}");
            let known = [ErrorKind::TimedOut, ErrorKind::InvalidData, ErrorKind::InvalidInput];
            assert!(known.contains(&error.kind()), "{error}");
            assert_eq!(identity(&place.name), before);
            assert!(!is_empty(server.byte.as_fd()), "no server has the name");
            let lock = File::open(place.file("lock")).expect("a lock");
            let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
            assert_eq!(locked, Err(Errno::WOULDBLOCK));
        }
    }
    assert!(place.dir.join("other").exists() && place.dir.join("other.lock").exists());
}

fn is_empty(byte: BorrowedFd<'_>) -> bool {
    let peeked = rustix::net::recv(byte, &mut [0][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    !matches!(peeked, Ok((1, _)))
}

/// A next version that a target plays.
struct Next {
    connection: UnixStream,
    byte: Option<UnixStream>,
    answered: bool,
}

impl Next {
    /// Receives what the server sends, if it has sent it.
    fn receive(&mut self) {
        if self.byte.is_some() {
            return;
        }
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let (mut bytes, flags) = ([0; 64], RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC);
        let mut slices = [io::IoSliceMut::new(&mut bytes)];
        if recvmsg(&self.connection, &mut slices, &mut control, flags).is_err() {
            return;
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.byte = descriptors.last().map(UnixStream::from);
            }
        }
    }
}

fn taken_over(error: &io::Error, answered: bool) {
    let reason = Error::of(error).map(Error::reason);
    assert!(matches!(reason, Some(Reason::TakenOver { .. })), "{error}");
    assert!(answered, "nobody has taken it over");
}

/// Connects a client, and accepts it.
async fn served(name: &str, listener: &mut Listener) -> io::Result<Stream> {
    let _client = timeout(PATIENCE, Stream::connect(name)).await.expect("time")?;
    timeout(PATIENCE, listener.accept()).await.expect("time")
}

async fn answered(place: &Place, steps: &[Step]) {
    let options = ListenOptions::new().upgradable(true);
    let name = place.name.to_str().expect("UTF-8");
    let mut listener = Listener::bind_with(name, &options).expect("a free name");
    let mut next: Option<Next> = None;
    let (mut answered, mut has_read, mut asked) = (false, false, 0);
    for step in steps {
        match (step, &mut next) {
            (Step::Ask, None) if asked < WAITING => {
                let connection = UnixStream::connect(place.file("upgrade")).expect("a server");
                next = Some(Next { connection, byte: None, answered: false });
                asked += 1;
            }
            (Step::ReadByte, Some(next)) => {
                next.receive();
                if let Some(byte) = &mut next.byte {
                    byte.set_nonblocking(true).expect("a socket");
                    has_read |= matches!(byte.read(&mut [0]), Ok(1));
                }
            }
            (Step::Answer(bytes), Some(next)) => {
                let _ = rustix::net::send(&next.connection, bytes, SendFlags::NOSIGNAL);
                next.answered |= !bytes.is_empty();
                answered |= next.answered;
            }
            (Step::Leave, one) => *one = None,
            (Step::Look, _) => {
                asked = 0;
                let looked = timeout(Duration::from_millis(1), listener.accept()).await;
                match looked {
                    Err(_) => {}
                    Ok(Err(error)) => return taken_over(&error, answered),
                    Ok(Ok(stream)) => panic!("{stream:?}"),
                }
            }
            (Step::Client, _) => {
                asked = 0;
                if let Err(error) = served(name, &mut listener).await {
                    return taken_over(&error, answered);
                }
            }
            _ => {}
        }
    }
    if next.is_some_and(|next| next.answered && next.byte.is_some()) {
        let accepted = timeout(PATIENCE, listener.accept()).await.expect("time");
        return taken_over(&accepted.expect_err("it is taken over"), answered);
    }
    if !answered {
        served(name, &mut listener).await.expect("a client");
    }
    drop(listener);
    if !answered && !has_read {
        assert_eq!(fs::read_dir(&place.dir).expect("a directory").count(), 0);
    }
}

fuzz_target!(|upgrade: Upgrade| {
    let place = place();
    clear(&place.dir);
    let before = open_descriptors();
    match &upgrade {
        Upgrade::Offer(offer) => offered(place, offer),
        Upgrade::Answers(steps) => place.runtime.block_on(answered(place, steps)),
    }
    // A task or a thread may still close one.
    place.runtime.block_on(async {
        let closed = async {
            while open_descriptors() > before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, closed).await.expect("no descriptor is left");
    });
});
