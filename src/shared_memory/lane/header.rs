//! The header at the start of the memory. It identifies the memory, and records whether both sides
//! have agreed to use it.

#[cfg(not(sockpipe_loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(sockpipe_loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::shared_memory::ring::{Line, Words};

const MAGIC: u64 = u64::from_ne_bytes(*b"sockpipe");
const VERSION: u64 = 1;

const OFFERED: u32 = 1;
const ACCEPTED: u32 = 2;
const WITHDRAWN: u32 = 3;

/// The header at the start of the memory.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Header {
    magic: Line<AtomicU64>,
    version: Line<AtomicU64>,
    length: Line<AtomicU64>,
    state: Line<AtomicU32>,
    pub(crate) directions: [Words; 2],
}

impl Header {
    /// Prepares zeroed memory for an offer, with rings of `length` bytes.
    pub(crate) fn prepare(&self, length: u64) {
        self.magic.0.store(MAGIC, Ordering::Relaxed);
        self.version.0.store(VERSION, Ordering::Relaxed);
        self.length.0.store(length, Ordering::Relaxed);
        for direction in &self.directions {
            // The flag is up from the start, so that the first bytes in the ring wake a reader that
            // still waits for the socket.
            direction.reader_waits(true);
        }
        self.state.0.store(OFFERED, Ordering::Release);
    }

    /// Reports whether this is the memory of a lane with rings of `length` bytes.
    pub(crate) fn fits(&self, length: u64) -> bool {
        self.magic.0.load(Ordering::Relaxed) == MAGIC
            && self.version.0.load(Ordering::Relaxed) == VERSION
            && self.length.0.load(Ordering::Relaxed) == length
    }

    /// Accepts the offer. Returns `false` if the peer has withdrawn it.
    pub(crate) fn accept(&self) -> bool {
        self.change(ACCEPTED)
    }

    /// Withdraws the offer. Returns `false` if the peer has accepted it.
    pub(crate) fn withdraw(&self) -> bool {
        self.change(WITHDRAWN)
    }

    fn change(&self, to: u32) -> bool {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.state.0.compare_exchange(OFFERED, to, order.0, order.1).is_ok()
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.state.0.load(Ordering::Acquire) == ACCEPTED
    }

    /// Changes the state, as a peer that breaks the rules does.
    #[cfg(all(test, not(sockpipe_loom)))]
    pub(super) fn set_state(&self, state: u32) {
        self.state.0.store(state, Ordering::Relaxed);
    }

    #[cfg(all(test, not(sockpipe_loom)))]
    pub(super) fn is_withdrawn(&self) -> bool {
        self.state.0.load(Ordering::Acquire) == WITHDRAWN
    }
}
