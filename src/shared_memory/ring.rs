//! A byte ring in memory that two processes map, and the flags by which a side asks to be woken.
//!
//! The peer can write any word of the memory at any time. So this side loads each of the peer's
//! words once, checks it against its own state, and only then uses it. It keeps its own position
//! outside the shared memory.

#[cfg(not(sockpipe_loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(sockpipe_loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(all(test, not(sockpipe_loom)))]
use self::tests::step;

/// A point at which the tests can switch to another thread.
#[cfg(any(not(test), sockpipe_loom))]
const fn step() {}

/// The error for an impossible position that the peer has written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// Keeps a word on cache lines of its own. It takes two, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// The words of one direction. One side writes each word, except for the flags of waiters: the
/// waiter raises its flag, and the side that takes it down must ring for the waiter.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Words {
    /// The number of bytes sent through the socket before the first one in the ring. It is valid
    /// once `on_ring` is set.
    pub(crate) socket_bytes: Line<AtomicU64>,
    /// Whether the writer has switched to the ring.
    pub(crate) on_ring: Line<AtomicU32>,
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    reader_waits: Line<AtomicU32>,
    writer_waits: Line<AtomicU32>,
    ended: Line<AtomicU32>,
}

/// The bytes of one direction. Each range that a caller passes lies within the ring, and does not
/// wrap.
pub(crate) trait Bytes {
    /// Returns the length of the ring, which is a power of two.
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

    /// Sets or clears the reader's flag. A reader that sets it must check the ring again before it
    /// waits.
    pub(crate) fn reader_waits(&self, waits: bool) {
        raise(&self.reader_waits.0, waits);
    }

    /// Sets or clears the writer's flag. A writer that sets it must check the ring again before it
    /// waits.
    pub(crate) fn writer_waits(&self, waits: bool) {
        raise(&self.writer_waits.0, waits);
    }

    /// Takes the reader's flag down, and reports whether it was up. The caller has just published
    /// bytes or the end of file, and must ring for the reader if the flag was up.
    pub(crate) fn reader_wants_bell(&self) -> bool {
        take_down(&self.reader_waits.0)
    }

    /// Takes the writer's flag down, and reports whether it was up. The caller has just made room,
    /// and must ring for the writer if the flag was up.
    pub(crate) fn writer_wants_bell(&self) -> bool {
        take_down(&self.writer_waits.0)
    }
}

/// The fence orders the store to the flag before the caller's next load from the ring. The fence in
/// [`take_down`] orders the published position before the load of the flag. So at least one of the
/// two sides sees the other's store.
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
    /// The reader's position when it was last loaded.
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

    /// Makes the copied bytes visible to the reader.
    pub(crate) fn publish(&self, words: &Words) {
        step();
        words.tail.0.store(self.tail, Ordering::Release);
    }

    /// Reports whether there is room for a byte.
    pub(crate) fn has_room(&mut self, words: &Words, length: u64) -> Result<bool, Corrupt> {
        self.look(words)?;
        Ok(self.unread() < length)
    }

    /// Reports whether the reader has left written bytes unread.
    pub(crate) fn has_unread(&mut self, words: &Words) -> Result<bool, Corrupt> {
        self.look(words)?;
        Ok(self.unread() > 0)
    }

    fn unread(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// Loads the reader's position, which only moves forward, and not beyond the written bytes.
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
    /// The writer's position when it was last loaded.
    tail: u64,
}

impl Reader {
    /// Reads as many bytes as are there and fit into `bytes`, and returns how many.
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

    /// Reports whether enough is free to wake a waiting writer. This takes a quarter of the ring,
    /// so that the writer does not wake for a few bytes. Once the reader has emptied the ring, all
    /// of it is free, so a waiting writer is always woken.
    pub(crate) fn frees_enough(&self, length: u64) -> bool {
        length - self.unread() >= length / 4
    }

    fn unread(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// Loads the writer's position, which only moves forward, and not further ahead than the ring
    /// is long.
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
