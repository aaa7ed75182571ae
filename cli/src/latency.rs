//! Statistics of round trips: percentiles, and a histogram.

use std::time::Duration;

/// The length of the longest bar, in characters.
const BAR: usize = 28;

/// Round trips, shortest first.
pub struct Latencies(Vec<u64>);

/// How many round trips took at least `from` and less than `to` nanoseconds.
#[derive(Debug, PartialEq, Eq)]
pub struct Bucket {
    pub from: u64,
    pub to: u64,
    pub count: usize,
}

impl Latencies {
    /// Expects at least one round trip.
    pub fn new(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        Self(nanoseconds)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the smallest latency that `percent` per cent of all do not exceed (nearest rank). 0
    /// gives the minimum, and 100 the maximum.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// Returns buckets in steps of 1, 2, 5, 10, 20, 50 and so on, from the first to the last one
    /// that is not empty.
    pub fn histogram(&self) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> = Vec::new();
        let mut left = &self.0[..];
        let mut from = 0;
        for to in edges() {
            let count = left.partition_point(|&latency| latency < to);
            left = &left[count..];
            if count > 0 || !buckets.is_empty() {
                buckets.push(Bucket { from, to, count });
            }
            if left.is_empty() {
                break;
            }
            from = to;
        }
        buckets
    }

    /// Returns the histogram as lines of text.
    pub fn drawn(&self) -> Vec<String> {
        let buckets = self.histogram();
        let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1);
        let line = |bucket: &Bucket| {
            let (from, to) = (human(bucket.from), human(bucket.to));
            // Every count above zero has a visible bar.
            let bar = "#".repeat((bucket.count * BAR).div_ceil(most));
            format!("{from:>8} to {to:>8} {:>10} {bar}", bucket.count).trim_end().to_owned()
        };
        buckets.iter().map(line).collect()
    }
}

/// 1, 2, 5, 10 … nanoseconds, up to the largest that fits.
fn edges() -> impl Iterator<Item = u64> {
    let decades = (0..20).map(|exponent| 10_u64.checked_pow(exponent));
    let edges = decades.flat_map(|decade| {
        [1, 2, 5].map(|step| decade.and_then(|decade| decade.checked_mul(step)).unwrap_or(u64::MAX))
    });
    // Below a microsecond, neither clocks nor peers are precise enough.
    edges.filter(|&edge| edge >= 1000)
}

/// Formats a duration with three digits: `41.2 µs`.
pub fn human(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds {
        0..1_000_000 => (nanoseconds as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanoseconds as f64 / 1e6, "ms"),
        _ => (nanoseconds as f64 / 1e9, "s"),
    };
    let digits = if value >= 100.0 || value == value.trunc() {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let hundred = Latencies::new((1..=100).rev().collect());
        for (percent, expected) in [
            (0.0, 1),
            (1.0, 1),
            (1.1, 2),
            (50.0, 50),
            (50.1, 51),
            (90.0, 90),
            (99.0, 99),
            (100.0, 100),
        ] {
            assert_eq!(hundred.percentile(percent), expected, "{percent}");
        }

        let one = Latencies::new(vec![7]);
        assert_eq!([0.0, 50.0, 99.0, 100.0].map(|percent| one.percentile(percent)), [7; 4]);
        let two = Latencies::new(vec![9, 7]);
        assert_eq!([0.0, 50.0, 51.0, 99.0].map(|percent| two.percentile(percent)), [7, 7, 9, 9]);
        let thousand = Latencies::new((1..=1000).collect());
        assert_eq!([50.0, 90.0, 99.0].map(|percent| thousand.percentile(percent)), [500, 900, 990]);
    }

    #[test]
    fn every_round_trip_is_in_one_bucket() {
        let latencies = vec![999, 1000, 1999, 2000, 5000, 70_000, u64::MAX - 1];
        let histogram = Latencies::new(latencies.clone()).histogram();
        assert_eq!(histogram.iter().map(|bucket| bucket.count).sum::<usize>(), latencies.len());
        assert_eq!(histogram[0], Bucket { from: 0, to: 1000, count: 1 });
        assert_eq!(histogram[1], Bucket { from: 1000, to: 2000, count: 2 });
        assert_eq!(histogram[2], Bucket { from: 2000, to: 5000, count: 1 });
        assert!(histogram.windows(2).all(|pair| pair[0].to == pair[1].from));
        // Empty buckets are kept between two full ones, and left out at both ends.
        let middle = Latencies::new(vec![30_000, 30_001, 300_000]).histogram();
        assert_eq!(middle.first().map(|bucket| (bucket.from, bucket.count)), Some((20_000, 2)));
        assert_eq!(middle.last().map(|bucket| (bucket.to, bucket.count)), Some((500_000, 1)));
        assert_eq!(middle.len(), 4);
    }

    #[test]
    fn histogram_lines_have_bars_in_proportion() {
        let lines = Latencies::new([vec![1500; 400], vec![2500], vec![7000; 200]].concat()).drawn();
        assert_eq!(lines[0], format!("    1 µs to     2 µs        400 {}", "#".repeat(28)));
        assert_eq!(lines[1], "    2 µs to     5 µs          1 #");
        assert_eq!(lines[2], format!("    5 µs to    10 µs        200 {}", "#".repeat(14)));
    }

    #[test]
    fn times_are_shown_with_three_digits() {
        for (nanoseconds, text) in [
            (0, "0 µs"),
            (41_234, "41.2 µs"),
            (1_234, "1.23 µs"),
            (999_999, "1000 µs"),
            (2_000_000, "2 ms"),
            (123_456_789, "123 ms"),
            (1_500_000_000, "1.50 s"),
        ] {
            assert_eq!(human(nanoseconds), text);
        }
    }
}
