mod handlers;
mod limits;
mod refusals;
mod stops;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::memory::tests::at_once;
use crate::{echo, memory};

fn ends(drained: Drained) -> (usize, usize) {
    (drained.finished(), drained.cut())
}

/// A shutdown signal that completes when the sender sends or is dropped.
async fn ended(stopped: oneshot::Receiver<()>) {
    let _ = stopped.await;
}
