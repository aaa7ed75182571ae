//! The switch of a stream from its socket to rings in memory, and the stream's calls on both.
//!
//! A stream starts on the socket. The side that connected marks its socket once the stream is hot;
//! the side that accepted looks for the mark, makes the memory and offers it. Each direction then
//! changes by itself: its writer records how many bytes went through the socket, and writes the
//! rest into a ring. The socket stays for the bells that wake a reader, and as the sign of life.
//!
//! Nothing here waits, and nothing here knows an OS: [`Wire`] and [`Link`] are what it needs of
//! one.

mod header;
mod heat;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use self::header::Header;
use self::heat::Heat;
use crate::shared_memory::ring::{Bytes, Corrupt, Reader, Writer};

/// Which side of the connection this is, and so who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It connected, marks its socket, and takes what is offered.
    Taker,
    /// It accepted, and makes the memory: the side with more to lose pays for it.
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

/// The memory that two sides share, and the bells of the writers.
pub(crate) trait Link {
    fn header(&self) -> &Header;
    /// The bytes of a direction.
    fn ring(&self, direction: usize) -> impl Bytes + '_;
    /// Wakes the peer's writer. It never waits.
    fn ring_writer(&self);
}

/// What a call that receives came upon.
#[derive(Debug)]
pub(crate) struct Received<O> {
    pub(crate) length: usize,
    pub(crate) came: Came<O>,
}

/// What came with the bytes.
#[derive(Debug)]
pub(crate) enum Came<O> {
    Nothing,
    /// Other control data, behind which the kernel ends a read.
    Other,
    /// What could be an offer. There is none in it where this process had no room for it.
    Offer(Option<O>),
}

/// The socket. No call waits.
pub(crate) trait Wire {
    type Link: Link;
    /// An offer as it came, before it is checked.
    type Offer;

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    fn receive(&self, buf: &mut [u8]) -> io::Result<Received<Self::Offer>>;
    fn receive_with_offer(&self, buf: &mut [u8]) -> io::Result<Received<Self::Offer>>;
    /// Returns the offer that comes with `byte`, if it waits behind no more than a few data. It
    /// takes nothing away.
    fn peek_offer(&self, byte: u8) -> Option<Self::Offer>;
    /// Wakes the peer's reader.
    fn ring_reader(&self) -> io::Result<()>;
    fn shut_down(&self) -> io::Result<()>;
    /// Reports whether the peer has closed its socket.
    fn is_gone(&self) -> bool;
    /// A clock that is read in no time.
    fn ticks(&self) -> u64;

    /// Marks the socket as one that takes an offer, and returns the byte that an offer comes with.
    fn mark(&self) -> Option<u8>;
    /// Returns that byte, if the peer's socket is marked.
    fn mark_of_peer(&self) -> Option<u8>;
    /// Makes what can be offered, and what is to be sent of it. `None`: there is no room for it.
    fn make(&self) -> Option<(Self::Link, Self::Offer)>;
    fn offer(&self, byte: u8, offer: &Self::Offer) -> io::Result<()>;
    /// Reports whether this has the form of an offer. Other descriptors come with bytes that are
    /// data.
    fn is_offer(&self, offer: &Self::Offer) -> bool;
    /// Checks what is in an offer, and maps it.
    fn take(&self, offer: Self::Offer) -> Option<Self::Link>;
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    Done(T),
    /// Nothing until the socket is ready.
    Socket,
    /// Nothing until there are bytes or room in the ring. The flag is raised if the caller wanted
    /// it.
    Ring,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) length: usize,
    /// The read found that the socket has no more.
    pub(crate) emptied: bool,
}

/// Whether the caller goes to sleep if there is nothing, and so has to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Sleep,
    LookAgain,
}

/// The state of one stream. The locks are per direction, and are held for no longer than one call
/// that does not wait. Where both are taken, `incoming` is first.
#[derive(Debug)]
pub(crate) struct Lane<L, O> {
    role: Role,
    /// The user at the other end, whose share the memory counts against.
    pub(crate) user: u32,
    link: OnceLock<Box<L>>,
    /// Seen once, and not looked at again: the peer could take it back.
    accepted: AtomicBool,
    /// A write since the last read.
    wrote: AtomicBool,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing<O>>,
}

#[derive(Debug)]
struct Incoming {
    /// The bytes of data that the socket has brought.
    received: u64,
    /// How many it brings in all, once that is known.
    last: Option<u64>,
    on_ring: bool,
    reader: Reader,
    /// The most bells that may wait in the socket: one for each time that the flag was raised, and
    /// one for a flag that was up before.
    bells: u32,
    /// The end of the socket was seen.
    socket_ended: bool,
    mark: Mark,
    heat: Heat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    NotYet,
    /// With the byte that an offer comes with.
    Made(u8),
    Never,
}

#[derive(Debug)]
struct Outgoing<O> {
    /// The bytes of data that the socket has taken.
    sent: u64,
    on_ring: bool,
    writer: Writer,
    ended: bool,
    /// The peer is gone.
    broken: bool,
    /// When the writer last looked whether it is.
    looked: u64,
    offer: Offering<O>,
    heat: Heat,
}

#[derive(Debug)]
enum Offering<O> {
    NotYet,
    /// Made, and not sent: there was no room in the socket.
    Made(u8, O),
    Done,
}

impl<L: Link, O> Lane<L, O> {
    /// `eager`: without waiting until the stream is hot.
    pub(crate) fn new(role: Role, user: u32, eager: bool) -> Self {
        let incoming = Incoming {
            received: 0,
            last: None,
            on_ring: false,
            reader: Reader::default(),
            bells: 1,
            socket_ended: false,
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
            offer: Offering::NotYet,
            heat: Heat::new(role, eager),
        };

        Self {
            role,
            user,
            link: OnceLock::new(),
            accepted: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            incoming: Mutex::new(incoming),
            outgoing: Mutex::new(outgoing),
        }
    }

    /// Reports whether both directions use the memory.
    pub(crate) fn is_upgraded(&self) -> bool {
        let mut incoming = lock(&self.incoming);
        self.latch(&mut incoming);
        incoming.last.is_some() && lock(&self.outgoing).on_ring
    }

    /// The link, also while the peer has not accepted it.
    pub(crate) fn link(&self) -> Option<&L> {
        self.link.get().map(|link| &**link)
    }

    /// The link, once the peer has it too.
    fn accepted(&self) -> Option<&L> {
        let link = self.link()?;
        if self.accepted.load(Ordering::Acquire) {
            return Some(link);
        }
        // The taker has a link only as it accepts.
        if !link.header().is_accepted() {
            return None;
        }
        self.accepted.store(true, Ordering::Release);
        Some(link)
    }

    /// Puts the same stream behind another kind of link, for another API.
    #[cfg(all(feature = "tokio", feature = "blocking"))]
    pub(crate) fn map<N: Link>(
        self,
        map: impl FnOnce(L) -> io::Result<N>,
    ) -> io::Result<Lane<N, O>> {
        let link = OnceLock::new();
        if let Some(old) = self.link.into_inner() {
            let _ = link.set(Box::new(map(*old)?));
        }
        Ok(Lane {
            role: self.role,
            user: self.user,
            link,
            accepted: self.accepted,
            wrote: self.wrote,
            incoming: self.incoming,
            outgoing: self.outgoing,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    tests::wait_for(|| mutex.try_lock().is_ok());
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<Corrupt> for io::Error {
    fn from(_: Corrupt) -> Self {
        let what = "the peer wrote a position into the shared memory that is not possible";
        Self::new(ErrorKind::InvalidData, what)
    }
}
