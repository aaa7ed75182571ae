//! Limits how many streams of this process may use shared memory.

use std::sync::{Mutex, PoisonError};

use crate::unix::access::is_own;

/// The most streams that use memory. Each takes a little more than half a MiB, and all together 33
/// MiB.
const STREAMS: usize = 64;
/// The most streams that use memory with the same other user, so that one user leaves room for the
/// rest.
const FOREIGN: usize = 16;

/// The user at the other end of each stream that uses memory.
static USERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// One stream's place within the limits, until it is dropped.
#[derive(Debug)]
pub(super) struct Share(u32);

impl Share {
    pub(super) fn take(user: u32) -> Option<Self> {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = if is_own(user) { STREAMS } else { FOREIGN };
        let same = users.iter().filter(|known| **known == user).count();
        if users.len() >= STREAMS || same >= limit {
            return None;
        }
        users.push(user);
        Some(Self(user))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = users.iter().position(|user| *user == self.0) {
            users.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_foreign_user_leaves_room_for_others() {
        // No process of these tests belongs to these users.
        let foreign: Vec<_> = std::iter::from_fn(|| Share::take(4_000_000_001)).collect();
        assert_eq!(foreign.len(), FOREIGN);
        assert!(Share::take(4_000_000_002).is_some());
        drop(foreign);
        assert!(Share::take(4_000_000_001).is_some());
    }
}
