//! Measures how late other work on the thread of a busy conversation runs.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::measure::{Clock, Outcome, Times};
use crate::work::Neighbour;

/// Measures how late the neighbour runs each time. A timer is compared with its least late run,
/// because the runtime rounds it up to whole milliseconds.
pub async fn measure(neighbour: Neighbour, millis: u64) -> io::Result<Outcome> {
    let clock = Clock::new(millis);
    let mut late = Times::default();
    match neighbour {
        Neighbour::Timer => {
            let mut rings = Vec::new();
            while Instant::now() < clock.end {
                let due = Instant::now() + Duration::from_micros(500);
                sleep_until(due.into()).await;
                rings.push((due, Instant::now()));
            }
            let least = rings.iter().map(|(due, rang)| *rang - *due).min().unwrap_or_default();
            for (due, rang) in rings {
                late.push(&clock, due + least, rang);
            }
        }
        Neighbour::Outside => {
            let (sender, mut calls) = unbounded_channel();
            let end = clock.end;
            let caller = thread::spawn(move || {
                while Instant::now() < end && sender.send(Instant::now()).is_ok() {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            while let Some(called) = calls.recv().await {
                late.push(&clock, called, Instant::now());
            }
            caller.join().expect("no panic");
        }
        Neighbour::Busy => {
            while Instant::now() < clock.end {
                let done = Instant::now() + Duration::from_micros(50);
                while Instant::now() < done {
                    std::hint::spin_loop();
                }
                let yielded = Instant::now();
                yield_now().await;
                late.push(&clock, yielded, Instant::now());
            }
        }
    }
    Ok(late.outcome((clock.end - clock.start).as_secs_f64()))
}
