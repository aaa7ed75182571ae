//! Numbers that are to stay the same for as long as the storm lasts.

use crate::report::Report;

/// From this length of a run on, what leaks shows. In a shorter one a process still grows to what
/// it needs.
const LONG: u64 = 300;

pub(crate) struct Flat {
    what: &'static str,
    unit: u64,
    /// How much more is still the same, because the load changes all the time.
    slack: u64,
    /// The highest numbers of an early and of the last third.
    early: u64,
    late: u64,
}

impl Flat {
    pub(crate) fn new(what: &'static str, unit: u64, slack: u64) -> Self {
        Self { what, unit, slack: slack * unit, early: 0, late: 0 }
    }

    /// Takes a number at a time between the start, 0, and the end, 1.
    pub(crate) fn see(&mut self, time: f64, number: u64) {
        match time {
            0.1..0.43 => self.early = self.early.max(number),
            0.67.. => self.late = self.late.max(number),
            _ => {}
        }
    }

    pub(crate) fn judge(&self, report: &mut Report) {
        let Self { what, unit, slack, early, late } = *self;
        let seen = format!("{}, and {} in the last third", early / unit, late / unit);
        let bar = format!("< {} more at the end", slack / unit);
        report.judge_from(LONG, what, bar, seen, self.is_flat());
    }

    fn is_flat(&self) -> bool {
        // A number that was never taken is 0.
        self.early > 0 && self.late > 0 && self.late < self.early + self.slack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_for_the_whole_run_is_not_flat() {
        for (growth, is_flat) in [(0, true), (20, true), (200, false)] {
            let mut flat = Flat::new("numbers", 1, 16);
            for step in 0..100 {
                flat.see(step as f64 / 100.0, 1000 + growth * step / 100 + step % 3);
            }
            assert_eq!(flat.is_flat(), is_flat, "{growth}");
        }
    }

    #[test]
    fn what_was_seen_in_one_third_only_is_not_flat() {
        for times in [&[][..], &[0.2], &[0.9]] {
            let mut flat = Flat::new("numbers", 1, 16);
            times.iter().for_each(|time| flat.see(*time, 10));
            assert!(!flat.is_flat(), "{times:?}");
        }
    }
}
