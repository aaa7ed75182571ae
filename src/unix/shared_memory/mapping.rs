//! The memory of a lane: made and sealed, or checked and mapped.
#![allow(unsafe_code, reason = "no safe call maps memory that another process writes")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
    memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::process::{Resource, getrlimit};

use super::copy;
use crate::shared_memory::lane::Header;
use crate::shared_memory::ring::Bytes;

/// Bytes of one ring. Two of them and a reader's buffer fit into a processor's own cache.
const RING: usize = 256 * 1024;
/// Before the rings: a page for the header.
const RINGS: usize = 4096;
pub(super) const SIZE: usize = RINGS + 2 * RING;
/// Memory is touched in slices, for a long one would keep the process's other maps from changing.
const SLICE: usize = 64 * 1024;
const TMPFS: u64 = 0x0102_1994;

const _: () = assert!(size_of::<Header>() <= RINGS && RING.is_power_of_two());

/// Reports whether no later doing of the peer's can make an access to this memory fail: memory that
/// can shrink, or that lies in huge pages, would end this process.
pub(super) fn is_memory(memory: &OwnedFd) -> bool {
    // First, as only memory has seals: a call to a file system of the peer's may never return.
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(sealed))
        && fstatfs(memory).is_ok_and(|system| system.f_type as u64 == TMPFS)
        && fstat(memory).is_ok_and(|file| file.st_size == SIZE as i64)
}

/// Reports whether this process may make the calls of [`is_memory`], which a `socket` is not.
pub(super) fn can_ask(socket: BorrowedFd<'_>) -> bool {
    fcntl_get_seals(socket) == Err(Errno::INVAL) && fstatfs(socket).is_ok() && fstat(socket).is_ok()
}

/// Memory that the peer maps too.
#[derive(Debug)]
pub(super) struct Mapping(NonNull<u8>);

// SAFETY: the mapping belongs to no thread. It is used through atomics and through the copies of
// `copy`, which need no order.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Makes memory that can be offered, and its descriptor. `None` where this system or its limits
    /// do not allow it.
    pub(super) fn make() -> Option<(Self, OwnedFd)> {
        // A file beyond this limit would raise a signal.
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < SIZE as u64) {
            return None;
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = match memfd_create("sockpipe", flags | MemfdFlags::NOEXEC_SEAL) {
            // Linux before 6.3.
            Err(Errno::INVAL) => memfd_create("sockpipe", flags),
            made => made,
        };
        let memory = memory.ok()?;
        ftruncate(&memory, SIZE as u64).ok()?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).ok()?;

        let mapping = Self(map_shared(&memory)?);
        mapping.populate().ok()?;
        mapping.header().prepare(RING as u64);
        Some((mapping, memory))
    }

    /// Maps what the peer made, for which [`is_memory`] holds.
    pub(super) fn take(memory: &OwnedFd) -> Option<Self> {
        let mapping = Self(map_shared(memory)?);
        // Both have it now. Nobody else is to map it writable, and no holes are to be made in it:
        // not even between this and the first touch.
        fcntl_add_seals(memory, SealFlags::FUTURE_WRITE | SealFlags::SEAL).ok()?;
        mapping.populate().ok()?;
        mapping.header().fits(RING as u64).then_some(mapping)
    }

    /// All pages are there afterwards. The first touch of a missing page kills a process that may
    /// have no more memory, where this is an error.
    fn populate(&self) -> Result<(), Errno> {
        (0..SIZE).step_by(SLICE).try_for_each(|at| self.populate_slice(at))
    }

    fn populate_slice(&self, at: usize) -> Result<(), Errno> {
        let length = SLICE.min(SIZE - at);
        // SAFETY: `at` is less than the mapping's size.
        let start = unsafe { self.0.as_ptr().add(at) };
        // SAFETY: the range is in the mapping, and populating it changes no content.
        unsafe { madvise(start.cast(), length, Advice::LinuxPopulateWrite) }
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, larger than a header, and lives as long as `self`. A
        // header consists of atomics, for which any bytes are valid, and which others may change.
        unsafe { self.0.cast().as_ref() }
    }

    pub(super) fn ring(&self, direction: usize) -> Ring<'_> {
        let at = RINGS + direction.min(1) * RING;
        // SAFETY: two rings follow the header's page, and this is one of the two.
        let start = unsafe { self.0.add(at) };
        Ring { start, of: std::marker::PhantomData }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping, and references into it borrow `self`. Nothing can be
        // done about a failure, and there is none for a mapping that exists.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

fn map_shared(memory: &OwnedFd) -> Option<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so no other mapping is replaced.
    let start = unsafe { mmap(ptr::null_mut(), SIZE, access, MapFlags::SHARED, memory.as_fd(), 0) };
    NonNull::new(start.ok()?.cast())
}

/// The bytes of one direction.
pub(super) struct Ring<'a> {
    start: NonNull<u8>,
    of: std::marker::PhantomData<&'a Mapping>,
}

impl Ring<'_> {
    fn at(&self, at: usize, length: usize) -> NonNull<u8> {
        assert!(at <= RING && length <= RING - at, "a range in the ring");
        // SAFETY: the assertion keeps it in the ring.
        unsafe { self.start.add(at) }
    }
}

impl Bytes for Ring<'_> {
    fn length(&self) -> u64 {
        RING as u64
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        let to = self.at(at, bytes.len());
        // SAFETY: the range is in the ring, which is mapped as long as it is borrowed.
        unsafe { copy::into_shared(to, bytes) }
    }

    fn get(&self, at: usize, bytes: &mut [u8]) {
        let from = self.at(at, bytes.len());
        // SAFETY: as in `put`.
        unsafe { copy::from_shared(from, bytes) }
    }
}
