//! Creates and seals the memory of a lane, or checks and maps that of the peer.
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

/// The length of one ring. Two rings and a reader's buffer fit into a processor's own cache.
const RING: usize = 256 * 1024;
/// The offset of the rings. The header has a page before them.
const RINGS: usize = 4096;
pub(super) const SIZE: usize = RINGS + 2 * RING;
/// The memory is populated in slices of this length. A long slice would keep the process's other
/// mappings from changing meanwhile.
const SLICE: usize = 64 * 1024;
const TMPFS: u64 = 0x0102_1994;

const _: () = assert!(size_of::<Header>() <= RINGS && RING.is_power_of_two());

/// Reports whether accesses to this memory succeed whatever the peer does later. An access to
/// memory that has shrunk, or that lies in huge pages, could kill this process.
pub(super) fn is_memory(memory: &OwnedFd) -> bool {
    // The seals are checked first, because only memory has them. A call to a file system that the
    // peer runs may never return.
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(sealed))
        && fstatfs(memory).is_ok_and(|system| system.f_type as u64 == TMPFS)
        && fstat(memory).is_ok_and(|file| file.st_size == SIZE as i64)
}

/// Reports whether this process may make the calls of [`is_memory`]. It makes them on a `socket`,
/// which has no seals.
pub(super) fn can_ask(socket: BorrowedFd<'_>) -> bool {
    fcntl_get_seals(socket) == Err(Errno::INVAL) && fstatfs(socket).is_ok() && fstat(socket).is_ok()
}

/// Memory that the peer maps too.
#[derive(Debug)]
pub(super) struct Mapping(NonNull<u8>);

// SAFETY: the mapping is not tied to a thread. It is accessed through atomics and through the
// copies of `copy`, which need no order.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Creates memory that can be offered, and its descriptor. Returns `None` if the system or its
    /// limits do not allow it.
    pub(super) fn make() -> Option<(Self, OwnedFd)> {
        // A file beyond this limit would raise a signal.
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < SIZE as u64) {
            return None;
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = match memfd_create("sockpipe", flags | MemfdFlags::NOEXEC_SEAL) {
            // Linux before 6.3 does not know `NOEXEC_SEAL`.
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

    /// Maps memory that the peer created. [`is_memory`] must hold for it.
    pub(super) fn take(memory: &OwnedFd) -> Option<Self> {
        let mapping = Self(map_shared(memory)?);
        // Both sides have mapped the memory by now. These seals prevent further writable mappings,
        // and holes in the memory, even between this call and the first touch.
        fcntl_add_seals(memory, SealFlags::FUTURE_WRITE | SealFlags::SEAL).ok()?;
        mapping.populate().ok()?;
        mapping.header().fits(RING as u64).then_some(mapping)
    }

    /// Allocates all pages. If the process may have no more memory, this call fails, but a later
    /// touch of a missing page would kill the process.
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
        // SAFETY: this is the whole mapping, and references into it borrow `self`. The call does
        // not fail for a mapping that exists, and nothing could be done about a failure.
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
        // SAFETY: the assertion keeps the range in the ring.
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
