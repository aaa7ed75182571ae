//! The other side's part of the protocol, written out so that a test can break each of its rules.
#![allow(unsafe_code, reason = "memory that two sides map")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg};

pub(crate) const RING: u64 = 256 * 1024;
pub(crate) const RINGS: usize = 4096;
pub(crate) const SIZE: usize = RINGS + 2 * RING as usize;
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

pub(crate) const OFFERED: u64 = 1;
pub(crate) const ACCEPTED: u64 = 2;
pub(crate) const WITHDRAWN: u64 = 3;

/// The offsets of the words, each in a line of 128 bytes.
pub(crate) const MAGIC: usize = 0;
pub(crate) const VERSION: usize = 128;
pub(crate) const LENGTH: usize = 256;
pub(crate) const STATE: usize = 384;
pub(crate) const WORDS: usize = 18;
/// The words of the direction that the server writes. Those of the client's direction are `CLIENT`
/// bytes before them.
pub(crate) const SOCKET_BYTES: usize = 1408;
pub(crate) const ON_RING: usize = 1536;
pub(crate) const TAIL: usize = 1664;
pub(crate) const HEAD: usize = 1792;
pub(crate) const ENDED: usize = 2176;
pub(crate) const CLIENT: usize = 896;

/// Returns a memfd, with a valid header if `size` has room for one.
pub(crate) fn memory(size: usize, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("by-hand", flags).expect("a memfd");
    ftruncate(&memory, size as u64).expect("a size");
    if size >= RINGS {
        let write = |at: usize, word: u64| {
            rustix::io::pwrite(&memory, &word.to_ne_bytes(), at as u64).expect("a write");
        };
        write(MAGIC, u64::from_ne_bytes(*b"sockpipe"));
        write(VERSION, 1);
        write(LENGTH, RING);
        write(STATE, OFFERED);
    }
    if !seals.is_empty() {
        fcntl_add_seals(&memory, seals).expect("seals");
    }
    memory
}

/// This side's mapping of the memory.
pub(crate) struct Mapped(NonNull<u8>);

// SAFETY: it is used through atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub(crate) fn new(memory: &OwnedFd) -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place.
        let start =
            unsafe { mmap(ptr::null_mut(), SIZE, access, MapFlags::SHARED, memory.as_fd(), 0) };
        Ok(Self(NonNull::new(start?.cast()).expect("a place")))
    }

    /// Returns the word at `at`. A word of four bytes is followed by zeros.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at % 8 == 0 && at < SIZE);
        // SAFETY: the word is in the mapping.
        let word = unsafe { self.0.add(at) };
        // SAFETY: it is aligned, and the mapping lives as long as `self`.
        unsafe { word.cast().as_ref() }
    }

    pub(crate) fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, at: usize, word: u64) {
        self.word(at).store(word, Ordering::SeqCst);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping, and nothing refers to it any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

/// Returns the byte in the mark of the peer's socket.
pub(crate) fn mark_of_peer(socket: &UnixStream) -> Option<u8> {
    let address = socket.peer_addr().expect("an address");
    let digits = address.as_abstract_name()?.strip_prefix(b"sockpipe-lane-1-")?;
    u8::from_str_radix(std::str::from_utf8(&digits[14..]).ok()?, 16).ok()
}

/// Marks a client's socket with the byte 0xa5.
pub(crate) fn mark(socket: &UnixStream) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = u64::from(std::process::id()) << 24 | COUNT.fetch_add(1, Ordering::Relaxed);
    assert!(mark_as(socket, &format!("sockpipe-lane-1-{:016x}", number << 8 | 0xa5)));
}

/// Marks a socket with `name`. Returns `false` if another socket has it.
pub(crate) fn mark_as(socket: &UnixStream, name: &str) -> bool {
    let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a name");
    rustix::net::bind(socket, &name).is_ok()
}

pub(crate) fn send_with(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut room = [MaybeUninit::uninit(); 256];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
}
