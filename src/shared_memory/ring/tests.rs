use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU8;
use std::sync::{Condvar, Mutex};
use std::thread;

use proptest::prelude::*;

use super::*;

thread_local! {
    /// A function that is called before each access to a word.
    pub(crate) static STEP: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

pub(crate) fn step() {
    STEP.with_borrow(|step| step.iter().for_each(|step| step()));
}

/// The bytes of a ring, in this process's own memory.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Vec<AtomicU8>);

impl Plain {
    pub(crate) fn new(length: usize) -> Self {
        Self((0..length).map(|_| AtomicU8::new(0)).collect())
    }
}

impl Bytes for &Plain {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        let to = &self.0[at..at + bytes.len()];
        to.iter().zip(bytes).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
    }

    fn get(&self, at: usize, bytes: &mut [u8]) {
        let from = &self.0[at..at + bytes.len()];
        bytes.iter_mut().zip(from).for_each(|(to, byte)| *to = byte.load(Ordering::Relaxed));
    }
}

/// Writes into one of the words, as a peer that breaks the rules does.
pub(crate) fn overwrite(words: &Words, at: u64, word: u64) {
    match at {
        0 => words.socket_bytes.0.store(word, Ordering::Relaxed),
        1 => words.on_ring.0.store(word as u32, Ordering::Relaxed),
        2 => words.tail.0.store(word, Ordering::Relaxed),
        3 => words.head.0.store(word, Ordering::Relaxed),
        4 => words.reader_waits.0.store(word as u32, Ordering::Relaxed),
        5 => words.writer_waits.0.store(word as u32, Ordering::Relaxed),
        _ => words.ended.0.store(word as u32, Ordering::Relaxed),
    }
}

/// Adds to the writer's position, or moves the reader's position up to the writer's.
pub(crate) fn move_on(words: &Words, writer: bool, count: u64) {
    let (tail, head) = (words.tail.0.load(Ordering::Relaxed), words.head.0.load(Ordering::Relaxed));
    if writer {
        words.tail.0.store(tail.wrapping_add(count), Ordering::Relaxed);
    } else {
        let count = count.min(tail.wrapping_sub(head));
        words.head.0.store(head.wrapping_add(count), Ordering::Relaxed);
    }
}

/// Returns how many bytes a direction has carried, once it has switched.
pub(crate) fn published(words: &Words) -> Option<u64> {
    words.switched_at().map(|before| before + words.tail.0.load(Ordering::Relaxed))
}

/// Reports whether no side has more unread bytes than the ring holds.
pub(crate) fn is_possible(reader: &Reader, writer: &Writer, length: u64) -> bool {
    reader.unread() <= length && writer.unread() <= length
}

/// Returns the configuration of `proptest`, with fewer cases under Miri.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if cfg!(miri) { ProptestConfig { cases: 8, ..config } } else { config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_of_calls_keeps_the_bytes_in_order(
        calls in prop::collection::vec((any::<bool>(), 0_usize..20), 1..60),
    ) {
        let (words, plain) = (Words::default(), Plain::new(16));
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let (mut queue, mut next) = (VecDeque::<u8>::new(), 0_u8);

        for (writes, length) in calls {
            if writes {
                let bytes: Vec<u8> = (0..length).map(|at| next.wrapping_add(at as u8)).collect();
                let written = writer.put(&words, &&plain, &bytes).expect("no corruption");
                writer.publish(&words);
                prop_assert_eq!(written, length.min(16 - queue.len()));
                queue.extend(&bytes[..written]);
                next = next.wrapping_add(written as u8);
            } else {
                let mut bytes = vec![0; length];
                let read = reader.read(&words, &&plain, &mut bytes).expect("no corruption");
                prop_assert_eq!(read, length.min(queue.len()));
                prop_assert_eq!(&bytes[..read], queue.drain(..read).collect::<Vec<_>>());
            }
        }
    }

    /// Each value that a peer writes is either a possible position or an error.
    #[test]
    fn random_positions_of_the_peer_are_harmless(
        positions in prop::collection::vec(
            (any::<bool>(), prop_oneof![any::<u64>(), 0_u64..40]),
            1..40,
        ),
    ) {
        let (words, plain) = (Words::default(), Plain::new(16));
        let (mut writer, mut reader) = (Writer::default(), Reader::default());

        for (tail, position) in positions {
            let word = if tail { &words.tail } else { &words.head };
            word.0.store(position, Ordering::Relaxed);
            if let Ok(read) = reader.read(&words, &&plain, &mut [0; 20]) {
                prop_assert!(read <= 16);
            }
            if let Ok(written) = writer.put(&words, &&plain, &[0; 20]) {
                prop_assert!(written <= 16);
            }
            prop_assert!(reader.unread() <= 16 && writer.unread() <= 16);
        }
    }
}

#[test]
fn a_position_that_goes_back_is_an_error() {
    let (words, plain) = (Words::default(), Plain::new(16));
    let (mut writer, mut reader) = (Writer::default(), Reader::default());
    assert_eq!(writer.put(&words, &&plain, &[1; 8]), Ok(8));
    writer.publish(&words);
    assert_eq!(reader.read(&words, &&plain, &mut [0; 4]), Ok(4));
    assert_eq!(writer.has_unread(&words), Ok(true));
    words.head.0.store(3, Ordering::Relaxed);
    assert_eq!(writer.has_unread(&words), Err(Corrupt));
    words.head.0.store(9, Ordering::Relaxed);
    assert_eq!(writer.has_unread(&words), Err(Corrupt), "beyond what was written");
    words.tail.0.store(7, Ordering::Relaxed);
    assert_eq!(reader.read(&words, &&plain, &mut [0; 8]), Err(Corrupt));
    words.tail.0.store(21, Ordering::Relaxed);
    assert_eq!(reader.read(&words, &&plain, &mut [0; 8]), Err(Corrupt), "more than there is room");
}

#[test]
fn a_full_ring_has_no_room_and_an_emptied_one_no_bytes() {
    let (words, plain) = (Words::default(), Plain::new(16));
    let (mut writer, mut reader) = (Writer::default(), Reader::default());
    assert_eq!(writer.put(&words, &&plain, &[1; 16]), Ok(16));
    writer.publish(&words);
    assert_eq!(writer.has_room(&words, 16), Ok(false));

    assert_eq!(reader.read(&words, &&plain, &mut [0; 1]), Ok(1));
    assert_eq!((writer.has_room(&words, 16), writer.has_unread(&words)), (Ok(true), Ok(true)));
    assert!(!reader.frees_enough(16), "less than a quarter is free");
    assert_eq!(reader.read(&words, &&plain, &mut [0; 3]), Ok(3));
    assert!(reader.frees_enough(16), "a quarter is free");
    assert_eq!(reader.read(&words, &&plain, &mut [0; 16]), Ok(12));
    assert_eq!(writer.has_unread(&words), Ok(false));
}

#[test]
fn only_a_side_that_waits_gets_a_bell_and_only_one() {
    let words = Words::default();
    assert!(!words.reader_wants_bell() && !words.writer_wants_bell());
    words.reader_waits(true);
    assert!(!words.writer_wants_bell());
    assert!(words.reader_wants_bell());
    assert!(!words.reader_wants_bell());

    words.writer_waits(true);
    assert!(!words.reader_wants_bell());
    words.writer_waits(false);
    assert!(!words.writer_wants_bell());
}

/// A bell that stands in for a byte in a socket.
#[derive(Default)]
struct Bell(Mutex<u32>, Condvar);

impl Bell {
    fn ring(&self) {
        *self.0.lock().expect("no panic") += 1;
        self.1.notify_one();
    }

    fn hear(&self) {
        let mut rung = self.0.lock().expect("no panic");
        while *rung == 0 {
            rung = self.1.wait(rung).expect("no panic");
        }
        *rung = 0;
    }
}

/// The two threads sleep whenever they have nothing to do.
#[test]
fn a_sleeping_side_is_woken_and_no_byte_is_lost() {
    const LENGTH: usize = if cfg!(miri) { 300 } else { 200_000 };
    let (words, plain) = (Words::default(), Plain::new(16));
    let (to_reader, to_writer) = (Bell::default(), Bell::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::default();
            let mut sent = 0;
            while sent < LENGTH {
                let bytes: Vec<u8> =
                    (sent..LENGTH.min(sent + 1 + sent % 23)).map(|at| at as u8).collect();
                let written = writer.put(&words, &&plain, &bytes).expect("no corruption");
                sent += written;
                writer.publish(&words);

                if words.reader_wants_bell() {
                    to_reader.ring();
                }
                if written == 0 {
                    words.writer_waits(true);
                    if !writer.has_room(&words, 16).expect("no corruption") {
                        to_writer.hear();
                    }
                    words.writer_waits(false);
                }
            }
        });

        let mut reader = Reader::default();
        let mut got = 0;
        while got < LENGTH {
            let mut bytes = vec![0; 1 + got % 19];
            let mut read = reader.read(&words, &&plain, &mut bytes).expect("no corruption");

            if read == 0 {
                words.reader_waits(true);
                read = reader.read(&words, &&plain, &mut bytes).expect("no corruption");
                if read == 0 {
                    to_reader.hear();
                }
                words.reader_waits(false);
            }

            assert!(bytes[..read].iter().enumerate().all(|(at, byte)| *byte == (got + at) as u8));
            got += read;
            if reader.frees_enough(16) && words.writer_wants_bell() {
                to_writer.ring();
            }
        }
    });
}
