//! Shared memory on Linux: the socket and the memory of a lane, for tasks and for threads.

mod copy;
mod limits;
mod mapping;
#[cfg(feature = "tokio")]
mod pace;
#[cfg(feature = "tokio")]
pub(super) mod tasks;
#[cfg(feature = "blocking")]
pub(super) mod threads;
#[cfg(feature = "blocking")]
mod turn;
#[cfg(feature = "tokio")]
mod watch;

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, bind, recv,
    recvmsg, send, sendmsg, socketpair,
};
use rustix::time::{ClockId, clock_gettime};

use self::limits::Share;
use self::mapping::Mapping;
use super::place::random;
use super::receive::receive_noting_control;
#[cfg(feature = "tokio")]
use super::receive::{Filled, receive_into};
use super::sockname::SockName;
use super::{platform, shut_down};
use crate::options::StreamOptions;
use crate::shared_memory::lane::{self, Came, Header, Received};
use crate::shared_memory::options::SharedMemory;
use crate::shared_memory::ring::Bytes;

/// The start of the abstract name that marks a socket. Random digits follow it.
const MARK: &[u8] = b"sockpipe-lane-1-";
/// A bell. The value of the byte has no meaning.
const BELL: &[u8] = &[0];
/// The most bells that one receive takes.
const BELLS: usize = 256;
/// The most unread bytes behind which a side that only writes finds an offer.
const AHEAD: usize = 4096;
/// The interval, in nanoseconds, at which a writer checks whether its peer has died without notice.
/// If a tick of the system's clock is longer, that is the interval.
const TICK: i64 = 1_000_000;

/// The descriptors of an offer.
#[derive(Debug)]
pub(super) struct Offer {
    memory: OwnedFd,
    bell: OwnedFd,
}

/// One end of the pair of sockets that wakes writers, in the form in which an API waits for it.
pub(super) trait Bell: Sized {
    fn new(socket: OwnedFd) -> io::Result<Self>;
    fn socket(&self) -> BorrowedFd<'_>;
}

/// The memory, and the writers' bells.
#[derive(Debug)]
pub(super) struct Link<B> {
    mapping: Mapping,
    bell: B,
    _share: Share,
}

impl<B: Bell> Link<B> {
    fn new(mapping: Mapping, bell: OwnedFd, share: Share) -> Option<Self> {
        Some(Self { mapping, bell: B::new(bell).ok()?, _share: share })
    }

    /// Converts the link for another API.
    #[cfg(all(feature = "tokio", feature = "blocking"))]
    fn convert<N: Bell>(self, bell: impl FnOnce(B) -> io::Result<N>) -> io::Result<Link<N>> {
        Ok(Link { mapping: self.mapping, bell: bell(self.bell)?, _share: self._share })
    }

    /// Takes the pending bells. Returns `false` if the peer has closed its end.
    fn hear(socket: BorrowedFd<'_>) -> io::Result<bool> {
        match recv(socket, &mut [0; BELLS], RecvFlags::DONTWAIT) {
            Ok((_, length)) => Ok(length > 0),
            Err(Errno::CONNRESET) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl<B: Bell> lane::Link for Link<B> {
    fn header(&self) -> &Header {
        self.mapping.header()
    }

    fn ring(&self, direction: usize) -> impl Bytes + '_ {
        self.mapping.ring(direction)
    }

    /// Ignores errors: a full socket already holds a bell, and a peer that is gone has no writer to
    /// wake.
    fn ring_writer(&self) {
        let _ = send(self.bell.socket(), BELL, SendFlags::DONTWAIT | platform::NO_SIGNAL);
    }
}

/// The stream's socket.
#[derive(Debug)]
pub(super) struct Wire<'a, B> {
    socket: BorrowedFd<'a>,
    /// The user at the other end.
    user: u32,
    /// What earlier reads tell about the next. `None` makes each read report its control data.
    #[cfg(feature = "tokio")]
    filled: Option<&'a Filled>,
    bell: PhantomData<B>,
}

impl<'a, B: Bell> Wire<'a, B> {
    pub(super) fn new(socket: &'a impl AsFd, user: u32) -> Self {
        Self {
            socket: socket.as_fd(),
            user,
            #[cfg(feature = "tokio")]
            filled: None,
            bell: PhantomData,
        }
    }

    /// Sets what earlier reads tell about the next.
    #[cfg(feature = "tokio")]
    pub(super) fn after(self, filled: &'a Filled) -> Self {
        Self { filled: Some(filled), ..self }
    }

    /// Receives bytes, and classifies the control data that came with them.
    fn receive_control(&self, buf: &mut [u8], flags: RecvFlags) -> Result<Received<Offer>, Errno> {
        // There is room for one descriptor more than an offer has, to recognize messages that have
        // too many.
        let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmCredentials(1), ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = flags | RecvFlags::DONTWAIT | platform::CLOSE_ON_EXEC;
        let message = recvmsg(self.socket, &mut [IoSliceMut::new(buf)], &mut control, flags)?;
        let truncated = message.flags.contains(ReturnFlags::CTRUNC);
        let mut fds = Vec::new();
        let mut other = truncated;
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                _ => other = true,
            }
        }

        let mut fds = fds.into_iter();
        let came = match (fds.next(), fds.next(), fds.next()) {
            (Some(memory), Some(bell), None) if !truncated => {
                Came::Offer(Some(Offer { memory, bell }))
            }
            // This process had no room for all descriptors.
            (_, None, None) if truncated => Came::Offer(None),
            (None, ..) if !other => Came::Nothing,
            _ => Came::Other,
        };
        Ok(Received { length: message.bytes, came })
    }
}

impl<B: Bell> lane::Wire for Wire<'_, B> {
    type Link = Link<B>;
    type Offer = Offer;

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | platform::NO_SIGNAL;
        Ok(match bufs {
            [buf] => send(self.socket, buf, flags)?,
            bufs => sendmsg(self.socket, bufs, &mut SendAncillaryBuffer::default(), flags)?,
        })
    }

    fn receive(&self, buf: &mut [u8]) -> io::Result<Received<Offer>> {
        #[cfg(feature = "tokio")]
        let received = match self.filled {
            Some(filled) => receive_after(filled, self.socket, buf),
            None => receive_noting_control(self.socket, buf, RecvFlags::DONTWAIT),
        };
        #[cfg(not(feature = "tokio"))]
        let received = receive_noting_control(self.socket, buf, RecvFlags::DONTWAIT);
        let (length, other) = received?;
        Ok(Received { length, came: if other { Came::Other } else { Came::Nothing } })
    }

    fn receive_with_offer(&self, buf: &mut [u8]) -> io::Result<Received<Offer>> {
        Ok(self.receive_control(buf, RecvFlags::empty())?)
    }

    fn peek_offer(&self, byte: u8) -> Option<Offer> {
        let mut ahead = [0; AHEAD];
        let Received { length, came } = self.receive_control(&mut ahead, RecvFlags::PEEK).ok()?;
        // The kernel ends a peek behind an offer, as it ends a read.
        match came {
            Came::Offer(offer) if ahead[..length].last() == Some(&byte) => offer,
            _ => None,
        }
    }

    fn ring_reader(&self) -> io::Result<()> {
        send(self.socket, BELL, SendFlags::DONTWAIT | platform::NO_SIGNAL)?;
        Ok(())
    }

    fn shut_down(&self) -> io::Result<()> {
        shut_down(self.socket)
    }

    fn is_gone(&self) -> bool {
        let mut socket = [PollFd::from_borrowed_fd(self.socket, PollFlags::empty())];
        let polled = poll(&mut socket, Some(&Timespec::default()));
        polled.is_ok() && socket[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    fn ticks(&self) -> u64 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        // The caller only checks whether the value has changed.
        (now.tv_sec as u64).wrapping_mul(1000).wrapping_add((now.tv_nsec / TICK) as u64)
    }

    fn mark(&self) -> Option<u8> {
        if !can_tell_offers(self.socket) {
            return None;
        }
        let name = [MARK, format!("{:016x}", random()).as_bytes()].concat();
        let address = rustix::net::SocketAddrUnix::new_abstract_name(&name).ok()?;
        bind(self.socket, &address).ok()?;
        byte_of_mark(&name)
    }

    fn mark_of_peer(&self) -> Option<u8> {
        byte_of_mark(SockName::peer(self.socket).ok()?.after_nul()?)
    }

    fn make(&self) -> Option<(Link<B>, Offer)> {
        let share = Share::take(self.user)?;
        let (mapping, memory) = Mapping::make()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (bell, other) = pair.ok()?;
        Some((Link::new(mapping, bell, share)?, Offer { memory, bell: other }))
    }

    fn offer(&self, byte: u8, offer: &Offer) -> io::Result<()> {
        let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let fds = [offer.memory.as_fd(), offer.bell.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::INVAL.into());
        }
        let flags = SendFlags::DONTWAIT | platform::NO_SIGNAL;
        sendmsg(self.socket, &[IoSlice::new(&[byte])], &mut control, flags)?;
        Ok(())
    }

    fn is_offer(&self, offer: &Offer) -> bool {
        socket_domain(&offer.bell) == Ok(AddressFamily::UNIX)
            && socket_type(&offer.bell) == Ok(SocketType::STREAM)
            && mapping::is_memory(&offer.memory)
    }

    fn take(&self, offer: Offer) -> Option<Link<B>> {
        let share = Share::take(self.user)?;
        Link::new(Mapping::take(&offer.memory)?, offer.bell, share)
    }
}

/// Receives into `buf`, and reports whether control data ended the read, or may have.
#[cfg(feature = "tokio")]
fn receive_after(
    filled: &Filled,
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
) -> Result<(usize, bool), Errno> {
    let room = buf.len();
    let (length, may_go_on) = if filled.is_likely() {
        receive_into(socket, buf, RecvFlags::DONTWAIT).map(|length| (length, true))
    } else {
        receive_noting_control(socket, buf, RecvFlags::DONTWAIT)
    }?;
    filled.count(length == room);
    Ok((length, may_go_on))
}

/// Reports whether this process may query the type of a descriptor. If a system call filter forbids
/// that, this side cannot recognize an offer, and would take its byte for data.
fn can_tell_offers(socket: BorrowedFd<'_>) -> bool {
    socket_domain(socket).is_ok() && socket_type(socket).is_ok() && mapping::can_ask(socket)
}

/// Returns the byte that comes with an offer. Both sides derive it from the name that is the mark.
fn byte_of_mark(name: &[u8]) -> Option<u8> {
    let digits = name.strip_prefix(MARK).filter(|digits| digits.len() == 16)?;
    u8::from_str_radix(std::str::from_utf8(digits.get(14..)?).ok()?, 16).ok()
}

/// Returns whether the stream is eager, or `None` if it does not use shared memory.
fn eager(options: StreamOptions) -> Option<bool> {
    match options.shared_memory {
        SharedMemory::Off => None,
        SharedMemory::Auto => Some(false),
        SharedMemory::Eager => Some(true),
    }
}
