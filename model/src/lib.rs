//! Checks the crate's ring, and the agreement to use it, with loom's atomics. Loom runs every order
//! in which two threads can see each other's words, with up to three preemptions. The bytes are
//! plain memory, so that loom finds an unordered access. `scripts/soundness.sh loom` runs these
//! tests in half a minute.
#![cfg(test)]

#[path = "../../src/shared_memory"]
mod shared_memory {
    #[path = "ring.rs"]
    #[allow(dead_code, reason = "the model needs a part of it")]
    pub(crate) mod ring;

    #[path = "lane/header.rs"]
    pub(crate) mod header;
}

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::{Arc, Notify};
use loom::thread;

use shared_memory::header::Header;
use shared_memory::ring::{Bytes, Reader, Words, Writer};

/// Memory in which loom finds races.
struct Plain(Vec<UnsafeCell<u8>>);

impl Bytes for &Plain {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        for (cell, byte) in self.0[at..].iter().zip(bytes) {
            // SAFETY: the words of the ring give this part to the writer. Loom checks it.
            cell.with_mut(|to| unsafe { *to = *byte });
        }
    }

    fn get(&self, at: usize, bytes: &mut [u8]) {
        for (cell, byte) in self.0[at..].iter().zip(bytes) {
            // SAFETY: the words of the ring give this part to the reader. Loom checks it.
            *byte = cell.with(|from| unsafe { *from });
        }
    }
}

// SAFETY: as in `put` and `get`, the words of the ring give each part to one side at a time.
unsafe impl Sync for Plain {}

struct Shared {
    words: Words,
    plain: Plain,
    to_reader: Notify,
    to_writer: Notify,
}

/// Sends the numbers below `count`, one at a time, and sleeps while there is no room.
fn write(shared: &Shared, count: u8, ends: bool) {
    let Shared { words, plain, to_reader, to_writer } = shared;
    let mut writer = Writer::default();
    let mut next = 0;
    while next < count {
        if writer.put(words, &plain, &[next]) == Ok(1) {
            next += 1;
            writer.publish(words);
            if words.reader_wants_bell() {
                to_reader.notify();
            }
            continue;
        }
        words.writer_waits(true);
        if writer.has_room(words, plain.length()) == Ok(true) {
            words.writer_waits(false);
        } else {
            to_writer.wait();
        }
    }
    if ends {
        words.end();
        if words.reader_wants_bell() {
            to_reader.notify();
        }
    }
}

/// Reads until the end, or until `count` bytes have arrived, and sleeps while there is nothing to
/// read.
fn read(shared: &Shared, count: u8, ends: bool) {
    let Shared { words, plain, to_reader, to_writer } = shared;
    let mut reader = Reader::default();
    let (mut got, mut byte) = (0, [0]);
    while ends || got < count {
        let ended = words.has_ended();
        let mut length = reader.read(words, &plain, &mut byte).expect("no corruption");
        if length == 0 && !ended {
            words.reader_waits(true);
            let ended = words.has_ended();
            length = reader.read(words, &plain, &mut byte).expect("no corruption");
            if length == 0 && !ended {
                to_reader.wait();
                continue;
            }
            words.reader_waits(false);
        }
        if length == 0 {
            break;
        }
        assert_eq!(byte, [got]);
        got += 1;
        if reader.frees_enough(plain.length()) && words.writer_wants_bell() {
            to_writer.notify();
        }
    }
    assert_eq!(got, count);
}

fn check(ring: usize, count: u8, ends: bool) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let shared = Arc::new(Shared {
            words: Words::default(),
            plain: Plain((0..ring).map(|_| UnsafeCell::new(0)).collect()),
            to_reader: Notify::new(),
            to_writer: Notify::new(),
        });
        let writes = Arc::clone(&shared);
        let writing = thread::spawn(move || write(&writes, count, ends));
        read(&shared, count, ends);
        writing.join().expect("no panic");
    });
}

#[test]
fn no_byte_is_lost_and_no_side_sleeps_for_ever() {
    check(1, 3, false);
}

#[test]
fn the_end_comes_after_the_last_byte() {
    check(1, 2, true);
    check(2, 3, true);
}

#[test]
fn a_side_that_sees_the_switch_sees_its_position() {
    loom::model(|| {
        let words = Arc::new(Words::default());
        let switches = Arc::clone(&words);
        let writing = thread::spawn(move || switches.switch(7));
        assert!(words.switched_at().is_none_or(|position| position == 7));
        writing.join().expect("no panic");
        assert_eq!(words.switched_at(), Some(7));
    });
}

/// One side accepts while the other withdraws. Both reach the same result, and the side that
/// accepts has announced its switch by then.
#[test]
fn an_offer_is_accepted_or_withdrawn_and_both_sides_know_which() {
    loom::model(|| {
        let header = Arc::new(Header::default());
        header.prepare(8);
        let taker = Arc::clone(&header);
        let taking = thread::spawn(move || {
            assert!(taker.fits(8));
            taker.directions[0].switch(7);
            taker.accept()
        });
        let withdrawn = header.withdraw();
        if header.is_accepted() {
            assert!(!withdrawn);
            assert_eq!(header.directions[0].switched_at(), Some(7));
        }
        let accepted = taking.join().expect("no panic");
        assert_ne!(accepted, withdrawn);
        assert_eq!(header.is_accepted(), accepted);
    });
}

/// The maker writes to the socket until it sees the acceptance, here in the middle of its data. The
/// reader gets the bytes before the switch from the socket, and the others from the ring.
#[test]
fn a_switch_in_the_middle_loses_no_byte() {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let header = Arc::new(Header::default());
        header.prepare(2);
        let plain = Arc::new(Plain((0..2).map(|_| UnsafeCell::new(0)).collect()));
        let socket = Arc::new(loom::sync::Mutex::new(Vec::new()));
        let bell = Arc::new(Notify::new());
        let (makers, ring, sends) = (Arc::clone(&header), Arc::clone(&plain), Arc::clone(&socket));
        let rings = Arc::clone(&bell);
        let making = thread::spawn(move || {
            let words = &makers.directions[1];
            let (mut writer, mut on_ring) = (Writer::default(), false);
            for next in 0..2 {
                if !on_ring && makers.is_accepted() {
                    words.switch(next);
                    on_ring = true;
                }
                if on_ring {
                    assert_eq!(writer.put(words, &&*ring, &[next as u8]), Ok(1));
                    writer.publish(words);
                    if words.reader_wants_bell() {
                        rings.notify();
                    }
                } else {
                    sends.lock().expect("no panic").push(next as u8);
                    rings.notify();
                }
            }
        });

        header.directions[0].switch(0);
        assert!(header.accept());
        let words = &header.directions[1];
        let (mut reader, mut got, mut byte) = (Reader::default(), 0, [0]);
        while got < 2 {
            let last = words.switched_at();
            if last.is_some_and(|last| last <= u64::from(got)) {
                let mut length = reader.read(words, &&*plain, &mut byte).expect("no corruption");
                if length == 0 {
                    words.reader_waits(true);
                    length = reader.read(words, &&*plain, &mut byte).expect("no corruption");
                }
                if length == 0 {
                    bell.wait();
                    continue;
                }
            } else {
                let mut socket = socket.lock().expect("no panic");
                if socket.is_empty() {
                    drop(socket);
                    bell.wait();
                    continue;
                }
                byte = [socket.remove(0)];
            }
            assert_eq!(byte, [got]);
            got += 1;
        }
        making.join().expect("no panic");
    });
}
