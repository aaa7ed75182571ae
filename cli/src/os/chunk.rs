//! Buffers that are held only while bytes pass through them.

use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use super::Attached;

/// The most bytes that one read or write moves. A larger buffer would gain little.
pub const CHUNK: usize = 64 * 1024;
/// How many unused buffers are kept for later.
const SPARE: usize = 8;

static KEPT: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// Bytes on their way, and what is attached to the first of them.
pub struct Chunk {
    buffer: Box<[u8]>,
    length: usize,
    pub attached: Attached,
}

impl Chunk {
    /// Creates an empty chunk.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory for the buffer.
    pub fn new() -> io::Result<Self> {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = match kept {
            Some(buffer) => buffer,
            None => allocate()?,
        };
        Ok(Self { buffer, length: 0, attached: Attached::default() })
    }

    /// Returns the buffer to read into.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Notes that `length` bytes have been read.
    pub fn filled(mut self, length: usize) -> Self {
        self.length = length;
        self
    }

    /// Whether the buffer is full, so that there may be more to read at once.
    pub fn is_full(&self) -> bool {
        self.length == self.buffer.len()
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < SPARE {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

fn allocate() -> io::Result<Box<[u8]>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(CHUNK).map_err(|_| io::Error::from(ErrorKind::OutOfMemory))?;
    buffer.resize(CHUNK, 0);
    Ok(buffer.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_only_a_few_are_kept() {
        let many: Vec<_> = (0..3 * SPARE).map(|_| Chunk::new().expect("memory")).collect();
        drop(many);
        assert!(KEPT.lock().expect("no panic").len() <= SPARE);
        let chunk = Chunk::new().expect("memory").filled(3);
        assert_eq!((chunk.len(), chunk.is_full()), (3, false));
    }
}
