//! The reading side of a lane.

use std::io::{self, ErrorKind};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::{
    Came, Common, Incoming, Lane, Link, Mark, Outcome, Read, Received, Role, Then, Wire, lock,
};
use crate::shared_memory::ring::{Bytes, Corrupt};

/// The most receives in one call that return no data, only bells or an offer. A peer of this crate
/// never causes so many.
const EMPTY_RECEIVES: usize = 16;
/// The most bells that one receive takes.
const BELLS: usize = 256;
/// The number of bells that may be pending in the socket before they are taken. The smallest socket
/// buffer of Linux holds six, and a bell that finds it full would wake nobody.
#[cfg(any(feature = "tokio", test))]
const MANY: u32 = 4;

impl<L: Link, O> Lane<L, O> {
    /// Reads from the socket or the ring. `buf` must not be empty. The call may also change the
    /// part of `buf` behind the bytes that it returns.
    pub(crate) fn read<W: Wire<Link = L, Offer = O>>(
        &self,
        wire: &W,
        buf: &mut [u8],
        then: Then,
    ) -> io::Result<Outcome<Read>> {
        let mut incoming = lock(&self.incoming);
        if incoming.on_ring {
            return self.common.read_ring(&mut incoming, buf, then);
        }
        let outcome = self.read_socket(&mut incoming, wire, buf, then)?;
        if let Outcome::Done(Read { length, .. }) = outcome {
            // A swap would lock the line for nothing.
            let answers = self.common.wrote.load(Ordering::Relaxed);
            if answers {
                self.common.wrote.store(false, Ordering::Relaxed);
            }
            if length > 0 && self.common.offered.load(Ordering::Relaxed) {
                self.common.carried(&mut lock(&self.outgoing), length, answers);
            }
            if length > 0 && incoming.heat.carried(length, answers) {
                self.is_hot(incoming, wire);
            }
        }
        Ok(outcome)
    }

    /// Reads from the ring. The call accesses only memory, unless the peer's writer waits. Returns
    /// `None` if the direction does not use the ring.
    pub(crate) fn look(&self, buf: &mut [u8]) -> Option<io::Result<Outcome<Read>>> {
        // Most streams never have a link, and this check costs them less than a lock.
        self.link()?;
        let mut incoming = lock(&self.incoming);
        incoming.on_ring.then(|| self.common.read_ring(&mut incoming, buf, Then::LookAgain))
    }

    /// Reports whether so many bells may be pending that it is time to [`hear`](Self::hear) them.
    #[cfg(any(feature = "tokio", test))]
    pub(crate) fn has_many_bells(&self) -> bool {
        lock(&self.incoming).bells >= MANY
    }

    /// Takes pending bells. Fails with `WouldBlock` if there are no more.
    pub(crate) fn hear<W: Wire<Link = L, Offer = O>>(&self, wire: &W) -> io::Result<()> {
        let mut incoming = lock(&self.incoming);
        match wire.receive(&mut [0; BELLS]) {
            Ok(Received { length: 0, .. }) => incoming.ended = true,
            Ok(Received { length, came: Came::Nothing }) if length < BELLS => {
                incoming.bells = 1;
                return Err(ErrorKind::WouldBlock.into());
            }
            // There may be more. The kernel ends a receive behind control data, and a side that has
            // accepted an offer ahead of its reads finds the offer's byte before the bells.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                incoming.ended = true;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read_socket<W: Wire<Link = L, Offer = O>>(
        &self,
        incoming: &mut Incoming,
        wire: &W,
        buf: &mut [u8],
        then: Then,
    ) -> io::Result<Outcome<Read>> {
        for _ in 0..EMPTY_RECEIVES {
            self.latch(incoming);
            if incoming.last == Some(incoming.received) {
                incoming.on_ring = true;
                return self.common.read_ring(incoming, buf, then);
            }
            let received = if matches!(incoming.mark, Mark::Made(_)) {
                wire.receive_with_offer(buf)
            } else {
                wire.receive(buf)
            };
            let Received { mut length, came } = match received {
                // Linux reports this if the peer closed with bytes of this side unread. For a
                // reader it is the end of file.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    Received { length: 0, came: Came::Nothing }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Outcome::Socket),
                received => received?,
            };
            if length == 0 {
                // The peer published its bytes in the ring before this end. Checking the ring
                // before the receive would miss bytes that are published between the two.
                self.latch(incoming);
                if incoming.last != Some(incoming.received) {
                    return Ok(Outcome::Done(Read { length: 0, emptied: false }));
                }
                incoming.ended = true;
                continue;
            }

            let mut emptied = length < buf.len();
            match (came, incoming.mark) {
                (Came::Offer(offer), Mark::Made(byte))
                    if buf[length - 1] == byte
                        && offer.as_ref().is_none_or(|offer| wire.is_offer(offer)) =>
                {
                    // The kernel ends a read behind an offer, so its byte is the last.
                    length -= 1;
                    emptied = false;
                    if let Some(offer) = offer {
                        self.consider(wire, offer);
                    }
                }
                (Came::Nothing, _) => {}
                _ => emptied = false,
            }
            incoming.received += length as u64;
            self.latch(incoming);
            // The bytes behind the last byte of data are bells.
            if let Some(beyond) = incoming.last.and_then(|last| incoming.received.checked_sub(last))
            {
                let beyond = usize::try_from(beyond).unwrap_or(usize::MAX);
                length = length.checked_sub(beyond).ok_or(Corrupt)?;
                incoming.received -= beyond as u64;
                emptied = false;
            }
            incoming.on_ring = incoming.last == Some(incoming.received);
            if length > 0 {
                return Ok(Outcome::Done(Read { length, emptied }));
            }
        }
        // The call stops here so that other tasks get their turn. It has not found the socket
        // empty.
        Err(ErrorKind::Interrupted.into())
    }

    /// Accepts an offer. The direction that this side writes switches before the peer can see the
    /// acceptance. A peer that has withdrawn the offer meanwhile sees neither.
    fn consider<W: Wire<Link = L, Offer = O>>(&self, wire: &W, offer: O) {
        if self.common.role != Role::Taker || self.link().is_some() {
            return;
        }
        let Some(link) = wire.take(offer) else { return };
        let mut outgoing = lock(&self.outgoing);
        if outgoing.ended || outgoing.broken {
            return;
        }
        link.header().directions[self.common.role.writes()].switch(outgoing.sent);
        if link.header().accept() {
            outgoing.on_ring = true;
            let _ = self.common.link.set(Box::new(link));
        }
    }

    /// Records that the peer's writer has switched. The peer cannot take that back.
    pub(super) fn latch(&self, incoming: &mut Incoming) {
        if incoming.last.is_some() {
            return;
        }
        if self.common.offered.load(Ordering::Acquire) {
            self.common.settle(&mut lock(&self.outgoing));
        }
        let reads = self.common.role.reads();
        incoming.last = self.link().and_then(|link| link.header().directions[reads].switched_at());
    }

    /// Takes this side's next step towards shared memory.
    fn is_hot<W: Wire<Link = L, Offer = O>>(
        &self,
        mut incoming: MutexGuard<'_, Incoming>,
        wire: &W,
    ) {
        match self.common.role {
            Role::Taker => mark(&mut incoming, wire),
            Role::Maker => {
                drop(incoming);
                self.make_offer(&mut lock(&self.outgoing), wire);
            }
        }
    }

    /// Takes the same step for a side that only writes. It can accept an offer before it reads the
    /// offer's byte. The read that reaches that byte cuts it off.
    pub(super) fn is_hot_by_writes<W: Wire<Link = L, Offer = O>>(&self, wire: &W) {
        // The socket is marked only while no read is in progress. A read that began before the mark
        // would lose the offer.
        let Ok(mut incoming) = self.incoming.try_lock() else { return };
        mark(&mut incoming, wire);
        let Mark::Made(byte) = incoming.mark else { return };
        if self.link().is_some() {
            return;
        }
        if let Some(offer) = wire.peek_offer(byte).filter(|offer| wire.is_offer(offer)) {
            self.consider(wire, offer);
        }
    }
}

impl<L: Link> Common<L> {
    fn read_ring(
        &self,
        incoming: &mut Incoming,
        buf: &mut [u8],
        then: Then,
    ) -> io::Result<Outcome<Read>> {
        let Some(link) = self.link() else { return Err(Corrupt.into()) };
        let words = &link.header().directions[self.role.reads()];
        let ring = link.ring(self.role.reads());

        // The end is loaded before the position, so that no byte before it is missed.
        incoming.ended = incoming.ended || words.has_ended();
        let mut length = incoming.reader.read(words, &ring, buf)?;
        if length == 0 && !incoming.ended {
            if then == Then::LookAgain {
                return Ok(Outcome::Ring);
            }
            words.reader_waits(true);
            incoming.bells = incoming.bells.saturating_add(1);
            incoming.ended = words.has_ended();
            length = incoming.reader.read(words, &ring, buf)?;
            if length == 0 && !incoming.ended {
                return Ok(Outcome::Ring);
            }
            words.reader_waits(false);
        }

        if length > 0 && incoming.reader.frees_enough(ring.length()) && words.writer_wants_bell() {
            link.ring_writer();
        }
        Ok(Outcome::Done(Read { length, emptied: false }))
    }
}

/// Marks the socket. From here on, reads have room for an offer.
fn mark<W: Wire>(incoming: &mut Incoming, wire: &W) {
    if incoming.mark == Mark::NotYet {
        incoming.mark = wire.mark().map_or(Mark::Never, Mark::Made);
    }
}
