//! Counts what a session has moved so far.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// What has been moved in one direction.
#[derive(Default)]
pub struct Moved {
    bytes: AtomicU64,
    /// Whether bytes have been read and not written yet.
    under_way: AtomicBool,
}

impl Moved {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Notes that bytes have been read.
    pub fn begin(&self) {
        self.under_way.store(true, Ordering::Relaxed);
    }

    /// Notes that `bytes` bytes have been written, and that nothing is left of what was read.
    pub fn finish(&self, bytes: usize) {
        self.under_way.store(false, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns once nothing has been moved for `period`.
    pub async fn quiet_for(&self, period: Duration) {
        let mut before = self.bytes();
        loop {
            sleep(period).await;
            let now = self.bytes();
            if now == before {
                return;
            }
            before = now;
        }
    }
}
