//! The switch of a stream from its socket to rings in memory, and the stream's calls on both.
//!
//! A stream starts on the socket. Once the stream is hot, the side that connected marks its socket.
//! The side that accepted looks for the mark, creates the memory and offers it. Each direction then
//! switches independently: its writer records how many bytes went through the socket, and writes
//! the rest into a ring. The socket stays open. It carries the bells, which are bytes that wake a
//! reader, and its end shows that the peer is gone.
//!
//! No call in this module waits, and none depends on an OS: [`Wire`] and [`Link`] are the
//! operations that an OS has to provide.

mod header;
mod heat;
mod offer;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use self::header::Header;
use self::heat::Heat;
use self::offer::Open;
use crate::shared_memory::ring::{Bytes, Corrupt, Reader, Writer};

/// The side of the connection, which determines its part in the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The side that connected. It marks its socket, and accepts the offered memory.
    Taker,
    /// The side that accepted. It creates and owns the memory, because the side with more to lose
    /// should pay for it.
    Maker,
}

impl Role {
    /// The index of the direction in which this side writes.
    fn writes(self) -> usize {
        usize::from(self == Self::Maker)
    }

    fn reads(self) -> usize {
        1 - self.writes()
    }
}

/// The memory that the two sides share, and the writers' bells.
pub(crate) trait Link {
    fn header(&self) -> &Header;
    /// Returns the bytes of a direction.
    fn ring(&self, direction: usize) -> impl Bytes + '_;
    /// Wakes the peer's writer. The call never waits.
    fn ring_writer(&self);
}

/// The result of a receive.
#[derive(Debug)]
pub(crate) struct Received<O> {
    pub(crate) length: usize,
    pub(crate) came: Came<O>,
}

/// The control data that came with the bytes.
#[derive(Debug)]
pub(crate) enum Came<O> {
    Nothing,
    /// Control data of another kind. The kernel ends a read behind it.
    Other,
    /// Descriptors that may be an offer. `None` if this process had no room for them.
    Offer(Option<O>),
}

/// The socket of a stream. No call waits.
pub(crate) trait Wire {
    type Link: Link;
    /// An offer as it is received, before it is checked.
    type Offer;

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    fn receive(&self, buf: &mut [u8]) -> io::Result<Received<Self::Offer>>;
    fn receive_with_offer(&self, buf: &mut [u8]) -> io::Result<Received<Self::Offer>>;
    /// Returns the offer that comes with `byte`, if at most a few bytes of data precede it. The
    /// call consumes nothing.
    fn peek_offer(&self, byte: u8) -> Option<Self::Offer>;
    /// Wakes the peer's reader.
    fn ring_reader(&self) -> io::Result<()>;
    fn shut_down(&self) -> io::Result<()>;
    /// Reports whether the peer has closed its socket.
    fn is_gone(&self) -> bool;
    /// Returns the time of a coarse clock, which is cheap to read.
    fn ticks(&self) -> u64;

    /// Marks the socket as one that accepts an offer, and returns the byte that comes with an
    /// offer.
    fn mark(&self) -> Option<u8>;
    /// Returns the byte that comes with an offer, if the peer's socket is marked.
    fn mark_of_peer(&self) -> Option<u8>;
    /// Creates memory, and the offer to send for it. Returns `None` if there is no room for it.
    fn make(&self) -> Option<(Self::Link, Self::Offer)>;
    fn offer(&self, byte: u8, offer: &Self::Offer) -> io::Result<()>;
    /// Reports whether the descriptors have the form of an offer. If they do not, the byte that
    /// came with them is data.
    fn is_offer(&self, offer: &Self::Offer) -> bool;
    /// Checks the content of an offer, and maps its memory.
    fn take(&self, offer: Self::Offer) -> Option<Self::Link>;
}

/// The result of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    Done(T),
    /// The caller has to wait until the socket is ready.
    Socket,
    /// The caller has to wait for bytes or room in the ring. The flag is up if the caller passed
    /// [`Then::Sleep`].
    Ring,
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) length: usize,
    /// Whether the read found that the socket has no more bytes.
    pub(crate) emptied: bool,
}

/// Whether the caller sleeps if it has to wait, so that the peer must wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Sleep,
    LookAgain,
}

/// The state of one stream. Each direction has its own lock, which is held for at most one call
/// that does not wait. A thread that takes both locks takes `incoming` first. A task that has the
/// stream to itself writes into the ring without one: for a small message the lock is a fifth of
/// the cost.
#[derive(Debug)]
pub(crate) struct Lane<L, O> {
    common: Common<L>,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing<L, O>>,
}

/// What both directions use.
#[derive(Debug)]
struct Common<L> {
    role: Role,
    /// The user at the other end. The memory counts against that user's share.
    user: u32,
    /// The memory, once this side has seen that both sides have accepted it.
    link: OnceLock<Box<L>>,
    /// Whether there is an open offer. It changes only while the lock of `outgoing` is held.
    offered: AtomicBool,
    /// Whether this side has written since its last read.
    wrote: AtomicBool,
}

#[derive(Debug)]
struct Incoming {
    /// The number of data bytes received through the socket.
    received: u64,
    /// The total number of data bytes that come through the socket, once it is known.
    last: Option<u64>,
    on_ring: bool,
    reader: Reader,
    /// The most bells that may be pending in the socket: one for each time that the reader raised
    /// its flag, and one for a flag that was already up.
    bells: u32,
    /// Whether the peer has ended its write side. It cannot take that back.
    ended: bool,
    mark: Mark,
    heat: Heat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    NotYet,
    /// The socket is marked. An offer comes with this byte.
    Made(u8),
    Never,
}

#[derive(Debug)]
struct Outgoing<L, O> {
    /// The number of data bytes sent through the socket.
    sent: u64,
    on_ring: bool,
    writer: Writer,
    ended: bool,
    /// Whether the peer is gone.
    broken: bool,
    /// The tick at which the writer last checked whether the peer is gone.
    looked: u64,
    offer: Option<Box<Open<L, O>>>,
    /// The number of offers that this side has made.
    offers: u8,
    heat: Heat,
}

impl<L: Link, O> Lane<L, O> {
    /// Creates the state of a stream. An `eager` stream moves without waiting until it is hot.
    pub(crate) fn new(role: Role, user: u32, eager: bool) -> Self {
        let incoming = Incoming {
            received: 0,
            last: None,
            on_ring: false,
            reader: Reader::default(),
            bells: 1,
            ended: false,
            mark: Mark::NotYet,
            heat: Heat::new(role, eager),
        };

        let outgoing = Outgoing {
            sent: 0,
            on_ring: false,
            writer: Writer::default(),
            ended: false,
            broken: false,
            looked: 0,
            offer: None,
            offers: 0,
            heat: Heat::new(role, eager),
        };

        let common = Common {
            role,
            user,
            link: OnceLock::new(),
            offered: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
        };

        Self { common, incoming: Mutex::new(incoming), outgoing: Mutex::new(outgoing) }
    }

    /// Reports whether both directions use the memory.
    pub(crate) fn is_upgraded(&self) -> bool {
        let mut incoming = lock(&self.incoming);
        self.latch(&mut incoming);
        incoming.last.is_some() && lock(&self.outgoing).on_ring
    }

    /// Returns the user at the other end.
    pub(crate) fn user(&self) -> u32 {
        self.common.user
    }

    /// Returns the link, once this side has seen that the peer has it too.
    pub(crate) fn link(&self) -> Option<&L> {
        self.common.link()
    }

    /// Converts the stream's link into another type, for another API.
    #[cfg(all(feature = "tokio", feature = "blocking"))]
    pub(crate) fn map<N: Link>(
        self,
        mut map: impl FnMut(L) -> io::Result<N>,
    ) -> io::Result<Lane<N, O>> {
        let Common { role, user, link: old, offered, wrote } = self.common;
        let link = OnceLock::new();
        if let Some(old) = old.into_inner() {
            let _ = link.set(Box::new(map(*old)?));
        }

        let outgoing = self.outgoing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Outgoing { sent, on_ring, writer, ended, broken, looked, offer, offers, heat } =
            outgoing;
        let offer = offer.map(|open| {
            let Open { link, unsent, patience } = *open;
            io::Result::Ok(Box::new(Open { link: Box::new(map(*link)?), unsent, patience }))
        });
        let offer = offer.transpose()?;

        let outgoing =
            Outgoing { sent, on_ring, writer, ended, broken, looked, offer, offers, heat };
        Ok(Lane {
            common: Common { role, user, link, offered, wrote },
            incoming: self.incoming,
            outgoing: Mutex::new(outgoing),
        })
    }
}

impl<L: Link> Common<L> {
    fn link(&self) -> Option<&L> {
        self.link.get().map(|link| &**link)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    tests::retry(|| mutex.try_lock().is_ok());
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<Corrupt> for io::Error {
    fn from(_: Corrupt) -> Self {
        let what = "the peer wrote a position into the shared memory that is not possible";
        Self::new(ErrorKind::InvalidData, what)
    }
}
