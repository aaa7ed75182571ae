//! Copies into and out of memory that another process may write at the same time.
//!
//! An ordinary copy of such memory would be a data race, which is undefined behavior. These
//! functions access the memory through relaxed atomics, for which concurrent writes are defined:
//! the copied bytes are then some mixture, and only the user of the stream looks at them. On
//! x86-64, long copies are instructions of the processor, and the compiler knows only that they
//! read and write memory.
//!
//! A line of the ring is still in the cache of the core that read it last, and a write has to fetch
//! it from there. On x86-64 a write therefore also asks for the lines that the next bytes go to,
//! which arrive meanwhile. At the end of the ring it asks in vain.
#![allow(unsafe_code, reason = "the memory is known by its address")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// From this length on, the processor's copy instruction is faster.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LONG: usize = 512;
/// The length of a line of the processor's caches.
const LINE: usize = 64;
/// The distance, in bytes, from a short write to the farther of the two lines that it asks for.
const AHEAD: usize = 4 * LINE;
/// A long write is copied in blocks of this length, and each asks for the lines of the next.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const BLOCK: usize = 16 * LINE;
const WORD: usize = size_of::<u64>();

/// # Safety
///
/// `bytes.len()` bytes are mapped and writable at `to`, and no reference points to them.
pub(super) unsafe fn into_shared(to: NonNull<u8>, bytes: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if bytes.len() >= LONG {
        let mut to = to.as_ptr();
        for block in bytes.chunks(BLOCK) {
            for line in (0..block.len()).step_by(LINE) {
                fetch_to_write(to.wrapping_add(BLOCK + line));
            }
            // SAFETY: the caller guarantees that all of `bytes` have room at its `to`, and this is
            // the room of one block. `bytes` is a slice apart from it.
            unsafe { move_bytes(to, block.as_ptr(), block.len()) };
            to = to.wrapping_add(block.len());
        }
        return;
    }
    // SAFETY: the caller guarantees that the bytes are mapped.
    let (head, words, tail) = unsafe { parts(to, bytes.len()) };
    let (first, rest) = bytes.split_at(head.len());
    let (middle, last) = rest.split_at(words.len() * WORD);
    first.iter().zip(head).for_each(|(byte, to)| to.store(*byte, Relaxed));
    for (line, to) in middle.chunks(LINE).zip(words.chunks(LINE / WORD)) {
        let here = to.as_ptr();
        fetch_to_write(here.wrapping_byte_add(AHEAD).cast());
        // The reader's processor reads ahead too. If it has taken a line back, ask again.
        fetch_to_write(here.wrapping_byte_add(AHEAD / 2).cast());
        for (word, to) in line.chunks_exact(WORD).zip(to) {
            let mut bytes = [0; WORD];
            bytes.copy_from_slice(word);
            to.store(u64::from_ne_bytes(bytes), Relaxed);
        }
    }
    last.iter().zip(tail).for_each(|(byte, to)| to.store(*byte, Relaxed));
}

/// # Safety
///
/// `bytes.len()` bytes are mapped at `from`, and no reference points to them.
pub(super) unsafe fn from_shared(from: NonNull<u8>, bytes: &mut [u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if bytes.len() >= LONG {
        // SAFETY: the caller guarantees that `from` is valid, and `bytes` is a slice apart from it.
        unsafe { move_bytes(bytes.as_mut_ptr(), from.as_ptr(), bytes.len()) };
        return;
    }
    // SAFETY: the caller guarantees that the bytes are mapped.
    let (head, words, tail) = unsafe { parts(from, bytes.len()) };
    let (first, rest) = bytes.split_at_mut(head.len());
    let (middle, last) = rest.split_at_mut(words.len() * WORD);
    first.iter_mut().zip(head).for_each(|(byte, from)| *byte = from.load(Relaxed));
    for (word, from) in middle.chunks_exact_mut(WORD).zip(words) {
        word.copy_from_slice(&from.load(Relaxed).to_ne_bytes());
    }
    last.iter_mut().zip(tail).for_each(|(byte, from)| *byte = from.load(Relaxed));
}

/// Returns the bytes before the first aligned word, the words, and the bytes behind them.
///
/// # Safety
///
/// `length` bytes are mapped at `start` for as long as the parts are used.
unsafe fn parts<'a>(
    start: NonNull<u8>,
    length: usize,
) -> (&'a [AtomicU8], &'a [AtomicU64], &'a [AtomicU8]) {
    // SAFETY: the caller guarantees that the bytes are mapped, and atomics may be shared and
    // changed.
    let bytes: &[AtomicU8] =
        unsafe { NonNull::slice_from_raw_parts(start.cast(), length).as_ref() };
    // SAFETY: any eight bytes are a word, and the parts do not overlap.
    unsafe { bytes.align_to() }
}

/// # Safety
///
/// `from` is valid for reads of `count` bytes and `to` for writes, and they do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn move_bytes(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the instruction reads and writes only what the caller guarantees to be valid, and no
    // stack. The direction flag is clear, as it always is in inline assembly. The operands name the
    // registers that the instruction changes.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Asks for the line at an address, which may be any, for a later write. Some processors that are
/// older than SSE4.2 do not have the instruction.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn fetch_to_write(line: *const u8) {
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: processors with SSE4.2 accept the instruction, at least as one that does nothing;
        // 64-bit Windows has needed it since 8.1. It changes no content, and does nothing for an
        // address that is not mapped.
        unsafe {
            std::arch::asm!(
                "prefetchw [{line}]",
                line = in(reg) line,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn fetch_to_write(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_is_copied_whole_and_nothing_beside_it_changes() {
        let sent: Vec<u8> = (0..3000).map(|at| (at * 7 + at / 251) as u8).collect();
        let lengths = (0..40).chain([511, 512, 513, 575, 1023, 1024, 1025, 1600, 3000]);
        let offsets = (0..72).step_by(if cfg!(miri) { 17 } else { 1 });
        for (offset, length) in offsets.flat_map(|offset| lengths.clone().map(move |n| (offset, n)))
        {
            // Miri does not support memory that is accessed as bytes at one time and as words at
            // another.
            let words: Vec<AtomicU64> = (0..400).map(|_| AtomicU64::new(u64::MAX)).collect();
            let start = NonNull::from(&*words).cast::<u8>();
            // SAFETY: the words have 3200 bytes, and no more than 72 + 3000 of them are used.
            let at = unsafe { start.add(offset) };
            let mut got = vec![0; length];
            // SAFETY: as above, and nothing else uses the words meanwhile.
            unsafe { into_shared(at, &sent[..length]) };
            // SAFETY: as above.
            unsafe { from_shared(at, &mut got) };
            assert_eq!(got, sent[..length], "{length} bytes at {offset}");
            if cfg!(miri) {
                continue;
            }
            let mut expected = [u8::MAX; 3200];
            expected[offset..offset + length].copy_from_slice(&sent[..length]);
            let all = words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
            assert!(all.eq(expected), "{length} bytes at {offset}: others changed");
        }
    }
}
