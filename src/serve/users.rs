//! How many connections each user has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::peer::UserId;
use crate::stream::LocalStream;

/// The connections that each user has.
#[derive(Clone, Default)]
pub(super) struct Users(Arc<Mutex<HashMap<Option<UserId>, usize>>>);

impl Users {
    /// `None` if the peer's user has as many connections as allowed. Unknown users count as one.
    pub(super) fn seat(&self, stream: &impl LocalStream, limit: usize) -> Option<Seat> {
        let user = stream.peer_credentials().ok().map(|peer| peer.user().clone());
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(user.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Seat { users: self.clone(), user })
    }
}

/// Given back when the handler is done, however it ends.
pub(super) struct Seat {
    users: Users,
    user: Option<UserId>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}
