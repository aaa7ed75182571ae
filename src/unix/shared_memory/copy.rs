//! Copies into and out of memory that another process may write at the same time.
//!
//! An ordinary copy of such memory would be a data race, which is undefined behavior. These
//! functions access the memory through relaxed atomics, for which concurrent writes are defined:
//! the copied bytes are then some mixture, and only the user of the stream looks at them. On
//! x86-64, long copies are instructions of the processor, and the compiler knows only that they
//! read and write memory.
//!
//! A line of the ring is still in the cache of the core that read it last, and a write has to fetch
//! it from there. On x86-64 a write therefore asks for the lines of the next writes, which arrive
//! meanwhile. That carries 1.4 times as many small messages per second, and 1.4 times as many of 1
//! MiB as writes past the caches, which do not need the lines.
#![allow(unsafe_code, reason = "the memory is known by its address")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// From this length on, the processor's copy instructions are faster.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LONG: usize = 512;
/// The length of a line of the processor's caches.
const LINE: usize = 64;
/// The distance, in bytes, from a line that is written to the one that the processor fetches.
const AHEAD: usize = 4 * LINE;
const WORD: usize = size_of::<u64>();

/// # Safety
///
/// `bytes.len()` bytes are mapped and writable at `to`, and no reference points to them.
pub(super) unsafe fn into_shared(to: NonNull<u8>, bytes: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if bytes.len() >= LONG {
        let (first, lines, last) = lines(to, bytes);
        // SAFETY: the caller guarantees that `to` is valid, and `bytes` is a slice apart from it.
        unsafe { move_bytes(to.as_ptr(), first.as_ptr(), first.len()) };
        // SAFETY: the first part is not longer than the whole.
        let to = unsafe { to.add(first.len()) };
        // SAFETY: as above, and the part before ends where a line begins.
        unsafe { move_lines(to.as_ptr(), lines.as_ptr(), lines.len()) };
        // SAFETY: these two parts are not longer than the whole.
        let to = unsafe { to.add(lines.len()) };
        // SAFETY: as above.
        unsafe { move_bytes(to.as_ptr(), last.as_ptr(), last.len()) };
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
        // The reader's processor reads ahead as well, and may have taken this one back.
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

/// Returns the bytes before the first whole line at `to`, the whole lines, and the bytes behind
/// them.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn lines(to: NonNull<u8>, bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (first, rest) = bytes.split_at((to.addr().get().wrapping_neg() % LINE).min(bytes.len()));
    let (lines, last) = rest.split_at(rest.len() - rest.len() % LINE);
    (first, lines, last)
}

/// Copies whole lines, and fetches those ahead.
///
/// # Safety
///
/// `from` is valid for reads of `count` bytes and `to` for writes, and they do not overlap. `to` is
/// the start of a line, and `count` a multiple of its length.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn move_lines(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the code reads and writes only what the caller guarantees to be valid, and no stack.
    // The prefetch changes no content, and does nothing for an address that is not mapped. Every
    // x86-64 has these instructions. The operands name the registers that the code changes.
    unsafe {
        std::arch::asm!(
            "test {left}, {left}",
            "jz 3f",

            "2:",
            "prefetchw [{to} + {ahead}]",
            "movdqu {a}, [{from}]",
            "movdqu {b}, [{from} + 16]",
            "movdqu {c}, [{from} + 32]",
            "movdqu {d}, [{from} + 48]",
            "movdqa [{to}], {a}",
            "movdqa [{to} + 16], {b}",
            "movdqa [{to} + 32], {c}",
            "movdqa [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "sub {left}, 64",
            "jnz 2b",
            "3:",

            from = inout(reg) from => _,
            to = inout(reg) to => _,
            left = inout(reg) count => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            ahead = const AHEAD,
            options(nostack),
        );
    }
}

/// Asks for the line at an address, for a later write. The address may be any.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn fetch_to_write(line: *const u8) {
    // SAFETY: the instruction changes no content, and does nothing for an address that is not
    // mapped. Every x86-64 accepts it.
    unsafe {
        std::arch::asm!(
            "prefetchw [{line}]",
            line = in(reg) line,
            options(nostack, preserves_flags, readonly),
        );
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn fetch_to_write(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_is_copied_whole() {
        let sent: Vec<u8> = (0..1024).map(|at| (at * 7 + at / 251) as u8).collect();
        let lengths = (0..40).chain([511, 512, 513, 575, 576, 577, 1024]);
        let offsets = (0..72).step_by(if cfg!(miri) { 17 } else { 1 });
        for (offset, length) in offsets.flat_map(|offset| lengths.clone().map(move |n| (offset, n)))
        {
            // Miri does not support memory that is accessed as bytes at one time and as words at
            // another.
            let words: Vec<AtomicU64> = (0..256).map(|_| AtomicU64::new(0)).collect();
            let start = NonNull::from(&*words).cast::<u8>();
            // SAFETY: the words have 2048 bytes, and no more than 72 + 1024 of them are used.
            let at = unsafe { start.add(offset) };
            let mut got = vec![0; length];
            // SAFETY: as above, and nothing else uses the words meanwhile.
            unsafe { into_shared(at, &sent[..length]) };
            // SAFETY: as above.
            unsafe { from_shared(at, &mut got) };
            assert_eq!(got, sent[..length], "{length} bytes at {offset}");
        }
    }
}
