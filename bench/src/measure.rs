//! The measurements of a client.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The clock of one client. A twentieth of the time is for warming up, and does not count.
pub struct Clock {
    pub start: Instant,
    pub end: Instant,
}

impl Clock {
    pub fn new(millis: u64) -> Self {
        let start = Instant::now() + Duration::from_millis(millis / 20);
        Self { start, end: start + Duration::from_millis(millis) }
    }
}

/// How long each operation took, in nanoseconds.
#[derive(Default)]
pub struct Times(Vec<u32>);

impl Times {
    pub fn push(&mut self, clock: &Clock, from: Instant, to: Instant) {
        if from >= clock.start {
            self.0.push((to - from).as_nanos().try_into().unwrap_or(u32::MAX));
        }
    }

    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Returns the outcome of these operations, which took `seconds` together.
    pub fn outcome(mut self, seconds: f64) -> Outcome {
        self.0.sort_unstable();
        let at = |part: f64| {
            let last = self.0.len().saturating_sub(1);
            self.0
                .get((last as f64 * part) as usize)
                .map_or(f64::NAN, |nanos| f64::from(*nanos) / 1e3)
        };
        Outcome { ops: self.0.len() as f64, seconds, p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub ops: f64,
    pub seconds: f64,
    /// The median in microseconds. It is NaN if single operations were not timed.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Outcome {
    pub fn counted(ops: f64, seconds: f64) -> Self {
        Self { ops, seconds, p50: f64::NAN, p99: f64::NAN, p999: f64::NAN }
    }

    pub fn rate(&self) -> f64 {
        self.ops / self.seconds
    }

    pub fn line(&self) -> String {
        let Self { ops, seconds, p50, p99, p999 } = self;
        format!("ops={ops} seconds={seconds} p50={p50} p99={p99} p999={p999}")
    }

    pub fn parse(line: &str) -> Option<Self> {
        let pairs: HashMap<_, _> =
            line.split_whitespace().filter_map(|p| p.split_once('=')).collect();
        let number = |name| pairs.get(name)?.parse().ok();
        let or_nan = |name| number(name).unwrap_or(f64::NAN);
        Some(Self {
            ops: number("ops")?,
            seconds: number("seconds")?,
            p50: or_nan("p50"),
            p99: or_nan("p99"),
            p999: or_nan("p999"),
        })
    }
}
