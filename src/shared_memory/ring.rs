//! A ring of bytes in memory that two processes map, and when each side wakes the other.
//!
//! The peer can write any word of the memory at any time. So each word of the peer's is loaded
//! once, checked against what this side knows by itself, and only then used; the position of this
//! side is kept outside of the memory.

#[cfg(not(sockpipe_loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(sockpipe_loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(all(test, not(sockpipe_loom)))]
use self::tests::step;

/// Where the tests change to another side.
#[cfg(any(not(test), sockpipe_loom))]
const fn step() {}

/// The peer has written a position that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// Keeps a word on cache lines of its own: two, as processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// The words of one direction. Each has one side that writes it, but for the flags of waiters: the
/// waiter raises its flag, and whoever takes it down owes the waiter a bell.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Words {
    /// How many bytes came through the socket before the first one in the ring. It counts once
    /// `on_ring` is set.
    pub(crate) socket_bytes: Line<AtomicU64>,
    /// The writer has switched to the ring.
    pub(crate) on_ring: Line<AtomicU32>,
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    reader_waits: Line<AtomicU32>,
    writer_waits: Line<AtomicU32>,
    ended: Line<AtomicU32>,
}

/// The bytes of one direction. No position in a call is beyond the ring's length, and no part
/// wraps.
pub(crate) trait Bytes {
    /// A power of two.
    fn length(&self) -> u64;
    fn put(&self, at: usize, bytes: &[u8]);
    fn get(&self, at: usize, bytes: &mut [u8]);
}

impl Words {
    /// Announces that the writer uses the ring from here on, after `sent` bytes through the socket.
    pub(crate) fn switch(&self, sent: u64) {
        self.socket_bytes.0.store(sent, Ordering::Relaxed);
        step();
        self.on_ring.0.store(1, Ordering::Release);
    }

    /// Returns how many bytes came through the socket, once the writer has switched.
    pub(crate) fn switched_at(&self) -> Option<u64> {
        step();
        let switched = self.on_ring.0.load(Ordering::Acquire) != 0;
        switched.then(|| self.socket_bytes.0.load(Ordering::Relaxed))
    }

    /// Announces the end of file.
    pub(crate) fn end(&self) {
        step();
        self.ended.0.store(1, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        step();
        self.ended.0.load(Ordering::Acquire) != 0
    }

    /// Announces that the reader is about to wait. It looks at the ring again before it does.
    pub(crate) fn reader_waits(&self, waits: bool) {
        raise(&self.reader_waits.0, waits);
    }

    /// Announces that the writer is about to wait. It looks at the ring again before it does.
    pub(crate) fn writer_waits(&self, waits: bool) {
        raise(&self.writer_waits.0, waits);
    }

    /// Reports whether the caller, who has just published bytes or the end, has to ring for the
    /// reader.
    pub(crate) fn reader_wants_bell(&self) -> bool {
        take_down(&self.reader_waits.0)
    }

    /// Reports whether the caller, who has just made room, has to ring for the writer.
    pub(crate) fn writer_wants_bell(&self) -> bool {
        take_down(&self.writer_waits.0)
    }
}

/// The fence orders the flag before the look at the ring that follows, as the one in [`take_down`]
/// orders what was published before the look at the flag: one of the two sides sees the other.
fn raise(flag: &AtomicU32, waits: bool) {
    step();
    flag.store(u32::from(waits), Ordering::Relaxed);
    if waits {
        fence(Ordering::SeqCst);
    }
}

fn take_down(flag: &AtomicU32) -> bool {
    step();
    fence(Ordering::SeqCst);
    flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
}

/// The writing side of a ring.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    tail: u64,
    /// The reader's position when it was last looked at.
    head: u64,
}

impl Writer {
    /// Copies as many of `bytes` as there is room for, and returns how many. The reader sees them
    /// once they are [published](Self::publish).
    pub(crate) fn put(
        &mut self,
        words: &Words,
        ring: &impl Bytes,
        bytes: &[u8],
    ) -> Result<usize, Corrupt> {
        let wanted = bytes.len() as u64;
        let mut room = ring.length() - self.unread();
        if room < wanted {
            self.look(words)?;
            room = ring.length() - self.unread();
        }

        let count = room.min(wanted) as usize;
        if count == 0 {
            return Ok(0);
        }
        let at = (self.tail & (ring.length() - 1)) as usize;
        let first = count.min(ring.length() as usize - at);
        ring.put(at, &bytes[..first]);
        if first < count {
            ring.put(0, &bytes[first..count]);
        }

        self.tail = self.tail.wrapping_add(count as u64);
        Ok(count)
    }

    /// Gives the reader what was copied.
    pub(crate) fn publish(&self, words: &Words) {
        step();
        words.tail.0.store(self.tail, Ordering::Release);
    }

    /// Reports whether there is room for a byte.
    pub(crate) fn has_room(&mut self, words: &Words, length: u64) -> Result<bool, Corrupt> {
        self.look(words)?;
        Ok(self.unread() < length)
    }

    /// Reports whether the reader has not read everything that was written.
    pub(crate) fn has_unread(&mut self, words: &Words) -> Result<bool, Corrupt> {
        self.look(words)?;
        Ok(self.unread() > 0)
    }

    fn unread(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// The reader goes forward, and not beyond what was written.
    fn look(&mut self, words: &Words) -> Result<(), Corrupt> {
        step();
        let head = words.head.0.load(Ordering::Acquire);
        if self.tail.wrapping_sub(head) > self.unread() {
            return Err(Corrupt);
        }
        self.head = head;
        Ok(())
    }
}

/// The reading side of a ring.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: u64,
    /// The writer's position when it was last looked at.
    tail: u64,
}

impl Reader {
    /// Reads as many bytes as there are and `bytes` has room for, and returns how many.
    pub(crate) fn read(
        &mut self,
        words: &Words,
        ring: &impl Bytes,
        bytes: &mut [u8],
    ) -> Result<usize, Corrupt> {
        let wanted = bytes.len() as u64;
        if self.unread() < wanted {
            self.look(words, ring.length())?;
        }

        let count = self.unread().min(wanted) as usize;
        if count == 0 {
            return Ok(0);
        }
        let at = (self.head & (ring.length() - 1)) as usize;
        let first = count.min(ring.length() as usize - at);
        ring.get(at, &mut bytes[..first]);
        if first < count {
            ring.get(0, &mut bytes[first..count]);
        }

        self.head = self.head.wrapping_add(count as u64);
        step();
        words.head.0.store(self.head, Ordering::Release);
        Ok(count)
    }

    /// Reports whether a writer that waits is to be woken: only when a quarter of the ring is free,
    /// so that it does not wake for a few bytes. A reader that finds the ring empty has all of it
    /// free, so the writer is never forgotten.
    pub(crate) fn frees_enough(&self, length: u64) -> bool {
        length - self.unread() >= length / 4
    }

    fn unread(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// The writer goes forward, and not further than the ring is long.
    fn look(&mut self, words: &Words, length: u64) -> Result<(), Corrupt> {
        step();
        let tail = words.tail.0.load(Ordering::Acquire);
        let unread = tail.wrapping_sub(self.head);
        if unread < self.unread() || unread > length {
            return Err(Corrupt);
        }
        self.tail = tail;
        Ok(())
    }
}

#[cfg(all(test, not(sockpipe_loom)))]
pub(crate) mod tests;
