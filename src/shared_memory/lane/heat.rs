//! Decides whether a stream is busy enough for shared memory to pay off.

use std::time::{Duration, Instant};

use super::Role;

/// A stream is hot after this many answers, or this many bytes, within the time beside the number.
const EXCHANGES: (u16, Duration) = (16, Duration::from_millis(10));
const BYTES: (u32, Duration) = (1 << 20, Duration::from_millis(100));

/// The number of bytes that cost as much as a call on a socket.
const CALL: u32 = 256;

/// The side that accepted asks its peer after only a part of the bytes. One read may return many
/// small writes, so this side cannot know how much they cost.
const ASKED: u32 = BYTES.0 / 4;

/// An exchange counts as this many bytes while a stream waits for the answer to an offer.
const EXCHANGE: u32 = BYTES.0 / EXCHANGES.0 as u32;
/// The exchanges for which each offer stands.
const PATIENCE: [u32; 3] = [64, 512, 4096];

/// Counts what one direction of a stream carries. Each stream with shared memory on has two of
/// these, so they are small. The counts of exchanges do not overflow: each exchange counts as
/// [`CALL`] bytes or more, and after 4,096 of them counting starts again.
#[derive(Debug)]
pub(super) struct Heat {
    /// The time at which counting began. It is not used once the stream is hot.
    since: Option<Instant>,
    bytes: u32,
    exchanges: u16,
    /// The exchanges and bytes to reach before the next look at the clock or, once the stream is
    /// hot, at the peer.
    next_exchanges: u16,
    next_bytes: u32,
    hot: bool,
}

impl Heat {
    pub(super) fn new(role: Role, eager: bool) -> Self {
        let enough = if role == Role::Maker { ASKED } else { BYTES.0 };
        let (next_exchanges, next_bytes) = if eager { (1, 0) } else { (EXCHANGES.0, enough) };
        Self { since: None, bytes: 0, exchanges: 0, next_exchanges, next_bytes, hot: eager }
    }

    /// Counts `bytes`, and an exchange if they are an answer. Reports whether it is time to try the
    /// move into memory: once the stream is hot, and then each time it has carried twice as much,
    /// or another MiB. The stream retries because the peer may become hot much later. The cost of a
    /// try is negligible beside so many bytes.
    pub(super) fn carried(&mut self, bytes: usize, answers: bool) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(CALL);
        self.bytes = self.bytes.saturating_add(bytes);
        self.exchanges = self.exchanges.saturating_add(u16::from(answers));
        if self.exchanges < self.next_exchanges && self.bytes < self.next_bytes {
            if self.since.is_none() && !self.hot {
                self.since = Some(Instant::now());
            }
            return false;
        }

        // A hot stream retries after as much again as it has carried so far.
        let mut known = self.next_bytes;
        if self.hot {
            self.next_exchanges = self.next_exchanges.saturating_mul(2);
        } else {
            let took = self.since.map_or(Duration::ZERO, |since| since.elapsed());
            self.hot = self.is_enough(took);
            known = 0;
        }
        if self.hot {
            self.next_bytes = known.saturating_add(self.bytes).min(BYTES.0);
        } else {
            self.since = Some(Instant::now());
        }
        (self.exchanges, self.bytes) = (0, 0);
        self.hot
    }

    /// Reports whether the counts, reached within `took`, make the stream hot.
    fn is_enough(&self, took: Duration) -> bool {
        (self.exchanges >= EXCHANGES.0 && took <= EXCHANGES.1)
            || (self.bytes >= self.next_bytes && took <= BYTES.1)
    }
}

/// Decides when to withdraw an offer that the peer has not accepted, so that its memory does not
/// count against the limits while the stream goes on without it.
///
/// A peer that accepts offers usually does so with its next read. But it may have many messages of
/// this side still unread, or be at its own limit for the moment. So there are three offers, and
/// each stands longer than the one before. A socket of the usual size holds fewer than 300
/// messages, so a peer that reads finds the second offer while it stands. One that only writes
/// finds the first alone, because it cannot look behind that. The cost of three is negligible
/// beside what the stream carries between them.
#[derive(Debug)]
pub(super) struct Patience(u32);

impl Patience {
    /// The number of offers that a stream makes.
    pub(super) const OFFERS: u8 = PATIENCE.len() as u8;

    /// Returns the patience for the next offer, after `offers` of them.
    pub(super) fn after(offers: u8) -> Option<Self> {
        let exchanges = *PATIENCE.get(usize::from(offers))?;
        #[cfg(test)]
        let exchanges = super::tests::patience().unwrap_or(exchanges);
        Some(Self(exchanges * EXCHANGE))
    }

    /// Counts `bytes`, and an exchange if they are an answer. Reports whether it is time to
    /// withdraw the offer.
    pub(super) fn carried(&mut self, bytes: usize, answers: bool) -> bool {
        let least = if answers { EXCHANGE } else { 0 };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(least);
        self.0 = self.0.saturating_sub(bytes);
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_offer_stands_for_more_exchanges_than_the_one_before() {
        for (offers, exchanges) in [(0, 64), (1, 512), (2, 4096)] {
            let mut patience = Patience::after(offers).expect("an offer");
            assert!((1..exchanges).all(|_| !patience.carried(1, true)));
            assert!(patience.carried(1, true), "{exchanges}");
        }
        assert!(Patience::after(Patience::OFFERS).is_none());
    }

    #[test]
    fn bytes_without_answers_end_an_offer_too() {
        let first = || Patience::after(0).expect("an offer");
        let mut patience = first();
        assert!(!patience.carried((4 << 20) - 1, false));
        assert!(patience.carried(1, false));
        let mut patience = first();
        assert!((0..16_384).all(|_| !patience.carried(1, false)), "small writes");
    }

    #[test]
    #[cfg_attr(miri, ignore = "in an interpreter nothing is quick")]
    fn sixteen_quick_answers_or_a_mib_make_a_stream_hot() {
        let mut heat = Heat::new(Role::Taker, false);
        assert!((0..15).all(|_| !heat.carried(1, true)));
        assert!(heat.carried(1, true));
        let mut heat = Heat::new(Role::Taker, false);
        let calls = BYTES.0 / CALL;
        assert!(
            (1..calls).all(|_| !heat.carried(1, false)),
            "small writes that wait for no answer"
        );
        assert!(heat.carried(1, false));
        let mut heat = Heat::new(Role::Taker, false);
        assert!(!heat.carried((1 << 20) - CALL as usize, false));
        assert!(heat.carried(CALL as usize, false));
    }

    #[test]
    fn the_accepting_side_asks_after_a_quarter_of_the_bytes() {
        let mut heat = Heat::new(Role::Maker, false);
        let quarter = BYTES.0 as usize / 4;
        assert!(!heat.carried(quarter - 1, false));
        assert!(heat.carried(1, false));
    }

    /// The time limit for answers does not depend on bytes, nor the limit for bytes on answers.
    #[test]
    fn answers_and_bytes_each_have_a_time_limit() {
        let counted = |exchanges, bytes| Heat { exchanges, bytes, ..Heat::new(Role::Taker, false) };
        let (short, long) = (Duration::from_millis(10), Duration::from_millis(100));
        let moment = Duration::from_nanos(1);
        let answers = counted(16, 16 * CALL);
        assert!(answers.is_enough(short) && !answers.is_enough(short + moment));
        assert!(!counted(15, 15 * CALL).is_enough(Duration::ZERO), "one answer less");
        let bytes = counted(0, 1 << 20);
        assert!(bytes.is_enough(long) && !bytes.is_enough(long + moment));
        assert!(!counted(0, (1 << 20) - 1).is_enough(Duration::ZERO), "one byte less");
        let quarter = Heat { bytes: 1 << 18, ..Heat::new(Role::Maker, false) };
        assert!(quarter.is_enough(long) && !quarter.is_enough(long + moment));
    }

    #[test]
    fn a_slow_stream_stays_cold() {
        let mut heat = Heat::new(Role::Taker, false);
        for _ in 0..64 {
            let long_ago = heat.since.and_then(|since| since.checked_sub(Duration::from_secs(1)));
            heat.since = long_ago.or(heat.since);
            assert!(!heat.carried(1, true));
        }
        let mut heat = Heat::new(Role::Taker, false);
        for _ in 0..64 {
            let long_ago = heat.since.and_then(|since| since.checked_sub(Duration::from_secs(1)));
            heat.since = long_ago.or(heat.since);
            assert!(!heat.carried(1 << 19, false));
        }
    }

    #[test]
    fn slow_answers_do_not_make_a_stream_hot() {
        let mut heat = Heat::new(Role::Taker, false);
        assert!((0..15).all(|_| !heat.carried(1, true)));
        let long_ago = heat.since.and_then(|since| since.checked_sub(Duration::from_secs(1)));
        heat.since = Some(long_ago.expect("a second ago"));
        assert!(!heat.carried(1, true), "sixteen in more than a second");
        assert!((0..15).all(|_| !heat.carried(1, true)), "fifteen since");
        // A start in the future counts as just now, however slowly this process runs.
        heat.since = Some(Instant::now() + Duration::from_secs(3600));
        assert!(heat.carried(1, true));
    }

    #[test]
    fn a_hot_stream_of_short_answers_tries_rarely() {
        let mut heat = Heat::new(Role::Taker, false);
        let tries = (0..1 << 16).filter(|_| heat.carried(1, true)).count();
        assert!((2..30).contains(&tries), "{tries}");
    }

    #[test]
    fn a_hot_stream_tries_with_each_mib() {
        let mut heat = Heat::new(Role::Maker, false);
        let tries = (0..64 * 16).filter(|_| heat.carried(1 << 16, false)).count();
        assert!((60..70).contains(&tries), "{tries}");
    }
}
