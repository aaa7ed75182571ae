//! The maker's offer, from its creation until the peer accepts it or this side withdraws it.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use super::heat::Patience;
use super::{Common, Lane, Link, Outgoing, Wire};

/// An offer that the peer has not accepted yet. The memory belongs to this offer alone, so that a
/// withdrawal can release it.
#[derive(Debug)]
pub(super) struct Open<L, O> {
    pub(super) link: Box<L>,
    /// The byte and the descriptors, until the socket has room for them.
    pub(super) unsent: Option<(u8, O)>,
    pub(super) patience: Patience,
}

impl<L: Link, O> Lane<L, O> {
    /// Creates an offer for a peer that accepts one, and sends it. If an earlier offer is not sent
    /// yet, sends that.
    pub(super) fn make_offer<W: Wire<Link = L, Offer = O>>(
        &self,
        outgoing: &mut Outgoing<L, O>,
        wire: &W,
    ) {
        if outgoing.ended || self.link().is_some() {
            return;
        }
        if outgoing.offer.is_none() {
            let Some(patience) = Patience::after(outgoing.offers) else { return };
            let Some(byte) = wire.mark_of_peer() else { return };
            let Some((link, offer)) = wire.make() else { return };

            let open = Open { link: Box::new(link), unsent: Some((byte, offer)), patience };
            outgoing.offers += 1;
            outgoing.offer = Some(Box::new(open));
            // The flag is up before the offer is sent, because another thread may receive the
            // answer.
            self.common.offered.store(true, Ordering::Release);
        }
        self.common.send_offer(outgoing, wire);
    }
}

impl<L: Link> Common<L> {
    /// Reports whether the stream has memory, or has offered some that the peer may have accepted.
    #[cfg(any(feature = "tokio", test))]
    pub(super) fn may_have_memory(&self) -> bool {
        self.link().is_some() || self.offered.load(Ordering::Acquire)
    }

    fn send_offer<W: Wire<Link = L>>(&self, outgoing: &mut Outgoing<L, W::Offer>, wire: &W) {
        let Some(open) = &mut outgoing.offer else { return };
        let Some((byte, offer)) = &open.unsent else { return };
        match wire.offer(*byte, offer) {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(()) => open.unsent = None,
            // The offer cannot be sent, and the stream stays on its socket.
            Err(_) => {
                outgoing.offers = Patience::OFFERS;
                self.close(outgoing);
            }
        }
    }

    /// Makes the link known to both directions once the peer has accepted it. The state is not
    /// loaded again afterwards, because the peer could change it back.
    pub(super) fn settle<O>(&self, outgoing: &mut Outgoing<L, O>) {
        let accepted = |open: &mut Box<Open<L, O>>| open.link.header().is_accepted();
        let Some(open) = outgoing.offer.take_if(accepted) else { return };
        let _ = self.link.set(open.link);
        // A reader that finds the flag down finds the link.
        self.offered.store(false, Ordering::Release);
    }

    /// Counts what the stream carries while an offer is open, and withdraws an offer that the peer
    /// has left unanswered for too long.
    pub(super) fn carried<O>(&self, outgoing: &mut Outgoing<L, O>, bytes: usize, answers: bool) {
        let Some(open) = &mut outgoing.offer else { return };
        // The peer cannot answer an offer that the socket has had no room for.
        if open.unsent.is_none() && open.patience.carried(bytes, answers) {
            self.withdraw(outgoing);
        }
    }

    /// Withdraws an open offer and releases its memory, unless the peer has accepted it.
    pub(super) fn withdraw<O>(&self, outgoing: &mut Outgoing<L, O>) {
        let Some(open) = &outgoing.offer else { return };
        if !open.link.header().withdraw() {
            self.settle(outgoing);
        }
        // A state that is neither of the two is not from a peer of this crate, so the offer ends.
        self.close(outgoing);
    }

    fn close<O>(&self, outgoing: &mut Outgoing<L, O>) {
        if outgoing.offer.take().is_some() {
            self.offered.store(false, Ordering::Release);
        }
    }
}
