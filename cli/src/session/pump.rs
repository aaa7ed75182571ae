//! Bytes one way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::state::Ending;
use crate::side::{Fault, Sink, Source};

/// What has been moved in one direction.
#[derive(Default)]
pub struct Moved {
    bytes: AtomicU64,
    /// Some have been read and not written.
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

    /// Notes that so many have been written, and that nothing is left of what was read.
    pub fn finish(&self, bytes: usize) {
        self.under_way.store(false, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns once nothing has been moved for so long.
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

/// Moves bytes until the source ends or either is gone, and then the end if it is to be `passed_on`.
pub async fn pump(
    from: &mut Source,
    to: &mut Sink,
    moved: &Moved,
    passed_on: bool,
) -> Result<Ending> {
    loop {
        let chunk = match from.read().await {
            Ok(chunk) => chunk,
            Err(Fault::Gone) => return Ok(Ending::SourceGone),
            Err(Fault::Failed(error)) => return Err(error),
        };
        if chunk.is_empty() {
            let told = if passed_on { to.end().await } else { Ok(true) };
            return match told {
                Ok(true) | Err(Fault::Gone) => Ok(Ending::Carried),
                Ok(false) => Ok(Ending::Uncarried),
                Err(Fault::Failed(error)) => Err(error),
            };
        }

        let length = chunk.len();
        let full = chunk.is_full();
        moved.begin();
        match to.write(chunk).await {
            Ok(()) => moved.finish(length),
            Err(Fault::Gone) => return Ok(Ending::SinkGone),
            Err(Fault::Failed(error)) => return Err(error),
        }
        if full {
            match from.splice(to, moved).await {
                Ok(()) => {}
                Err(Fault::Gone) => return Ok(Ending::SinkGone),
                Err(Fault::Failed(error)) => return Err(error),
            }
        }
    }
}
