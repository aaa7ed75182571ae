//! The writing side of a lane.

use std::io::{self, ErrorKind, IoSlice};
use std::mem;
#[cfg(feature = "tokio")]
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{Common, Lane, Link, Outcome, Outgoing, Role, Then, Wire, lock};
use crate::shared_memory::ring::{Bytes, Words};

/// The reader receives a long write in pieces of this length, so that both sides copy at the same
/// time.
const PIECE: usize = 16 * 1024;

impl<L: Link, O> Lane<L, O> {
    /// Takes the first step towards shared memory before the first byte, if the stream is eager.
    pub(crate) fn start<W: Wire<Link = L, Offer = O>>(&self, wire: &W, eager: bool) {
        if eager && self.common.role == Role::Taker {
            self.is_hot_by_writes(wire);
        }
    }

    /// Writes to the socket or the ring.
    pub(crate) fn write<W: Wire<Link = L, Offer = O>>(
        &self,
        wire: &W,
        bufs: &[IoSlice<'_>],
        then: Then,
    ) -> io::Result<Outcome<usize>> {
        let mut outgoing = lock(&self.outgoing);
        self.common.switch(&mut outgoing);
        if outgoing.on_ring {
            return self.common.write_ring(&mut outgoing, wire, bufs, then);
        }
        let sent = match wire.send(bufs) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Outcome::Socket),
            // The peer closed with bytes of this side unread, during this call.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Err(ErrorKind::BrokenPipe.into());
            }
            sent => sent?,
        };

        outgoing.sent += sent as u64;
        self.common.wrote.store(true, Ordering::Relaxed);
        self.common.carried(&mut outgoing, sent, false);
        let is_hot = sent > 0 && outgoing.heat.carried(sent, false);
        match self.common.role {
            Role::Taker if is_hot => {
                drop(outgoing);
                self.is_hot_by_writes(wire);
            }
            Role::Maker if is_hot || outgoing.offer.is_some() => {
                self.make_offer(&mut outgoing, wire);
            }
            _ => {}
        }
        Ok(Outcome::Done(sent))
    }

    /// Writes to the ring. Returns `None` if the direction does not use it.
    #[cfg(any(feature = "tokio", test))]
    pub(crate) fn put<W: Wire<Link = L, Offer = O>>(
        &self,
        wire: &W,
        bufs: &[IoSlice<'_>],
        then: Then,
    ) -> Option<io::Result<Outcome<usize>>> {
        if !self.common.may_have_memory() {
            return None;
        }
        self.common.put(&mut lock(&self.outgoing), wire, bufs, then)
    }

    /// As [`put`](Self::put), for a caller that has the stream to itself, without the lock.
    #[cfg(feature = "tokio")]
    pub(crate) fn put_alone<W: Wire<Link = L, Offer = O>>(
        &mut self,
        wire: &W,
        bufs: &[IoSlice<'_>],
        then: Then,
    ) -> Option<io::Result<Outcome<usize>>> {
        if !self.common.may_have_memory() {
            return None;
        }
        let outgoing = self.outgoing.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.common.put(outgoing, wire, bufs, then)
    }

    /// Records that the peer has closed its end of the writers' bells.
    pub(crate) fn peer_is_gone(&self) {
        lock(&self.outgoing).broken = true;
    }

    /// Ends the write side.
    pub(crate) fn shut_down<W: Wire<Link = L, Offer = O>>(&self, wire: &W) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        // From here on this side offers nothing.
        self.common.withdraw(&mut outgoing);
        self.common.switch(&mut outgoing);
        if !outgoing.on_ring {
            outgoing.ended = true;
            return wire.shut_down();
        }
        if !mem::replace(&mut outgoing.ended, true) {
            if let Some(words) = self.common.outgoing_words() {
                words.end();
                // A peer that is gone needs no bell.
                let _ = ring_reader(words, wire);
            }
        }
        Ok(())
    }
}

impl<L: Link> Common<L> {
    fn outgoing_words(&self) -> Option<&Words> {
        Some(&self.link()?.header().directions[self.role.writes()])
    }

    /// Switches the direction to the ring once the offer is accepted. The maker learns here that it
    /// was.
    fn switch<O>(&self, outgoing: &mut Outgoing<L, O>) {
        if outgoing.on_ring || outgoing.ended {
            return;
        }
        self.settle(outgoing);
        if let Some(words) = self.outgoing_words() {
            words.switch(outgoing.sent);
            outgoing.on_ring = true;
        }
    }

    fn write_ring<O>(
        &self,
        outgoing: &mut Outgoing<L, O>,
        wire: &impl Wire,
        bufs: &[IoSlice<'_>],
        then: Then,
    ) -> io::Result<Outcome<usize>> {
        let Some(link) = self.link() else { return Err(ErrorKind::BrokenPipe.into()) };
        let words = &link.header().directions[self.role.writes()];
        let ring = link.ring(self.role.writes());
        self.look_after_peer(outgoing, words, wire)?;
        if outgoing.ended || outgoing.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }

        let mut written = put_all(outgoing, words, &ring, wire, bufs)?;
        if written == 0 && bufs.iter().any(|buf| !buf.is_empty()) {
            if then == Then::LookAgain {
                return Ok(Outcome::Ring);
            }
            words.writer_waits(true);
            if !outgoing.writer.has_room(words, ring.length())? {
                return Ok(Outcome::Ring);
            }
            words.writer_waits(false);
            written = put_all(outgoing, words, &ring, wire, bufs)?;
        }
        self.wrote.store(true, Ordering::Relaxed);
        Ok(Outcome::Done(written))
    }

    /// Detects a peer that died while it did not wait, by the bytes that it left unread. The check
    /// costs a load of the peer's position and a system call, so it does not run at each write.
    fn look_after_peer<O>(
        &self,
        outgoing: &mut Outgoing<L, O>,
        words: &Words,
        wire: &impl Wire,
    ) -> io::Result<()> {
        let now = wire.ticks();
        if now != mem::replace(&mut outgoing.looked, now)
            && outgoing.writer.has_unread(words)?
            && wire.is_gone()
        {
            outgoing.broken = true;
        }
        Ok(())
    }

    #[cfg(any(feature = "tokio", test))]
    fn put<O>(
        &self,
        outgoing: &mut Outgoing<L, O>,
        wire: &impl Wire,
        bufs: &[IoSlice<'_>],
        then: Then,
    ) -> Option<io::Result<Outcome<usize>>> {
        self.switch(outgoing);
        outgoing.on_ring.then(|| self.write_ring(outgoing, wire, bufs, then))
    }
}

/// Copies and publishes piece by piece, while there is room.
fn put_all<L, O>(
    outgoing: &mut Outgoing<L, O>,
    words: &Words,
    ring: &impl Bytes,
    wire: &impl Wire,
    bufs: &[IoSlice<'_>],
) -> io::Result<usize> {
    let (mut written, mut published) = (0, 0);

    'all: for buf in bufs {
        for piece in buf.chunks(PIECE) {
            let length = outgoing.writer.put(words, ring, piece)?;
            written += length;

            if written - published >= PIECE || length < piece.len() {
                publish(outgoing, words, wire)?;
                published = written;
            }
            if length < piece.len() {
                break 'all;
            }
        }
    }

    if published < written {
        publish(outgoing, words, wire)?;
    }
    Ok(written)
}

fn publish<L, O>(outgoing: &mut Outgoing<L, O>, words: &Words, wire: &impl Wire) -> io::Result<()> {
    outgoing.writer.publish(words);
    ring_reader(words, wire).inspect_err(|_| outgoing.broken = true)
}

/// Rings if the reader waits. If the socket is full, its unread bytes wake the reader as well.
fn ring_reader(words: &Words, wire: &impl Wire) -> io::Result<()> {
    if !words.reader_wants_bell() {
        return Ok(());
    }
    match wire.ring_reader() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            Err(ErrorKind::BrokenPipe.into())
        }
        rung => rung,
    }
}
