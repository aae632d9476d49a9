//! Latencies as bars.

use hdrhistogram::Histogram;

/// The longest bar, in characters.
const WIDTH: u64 = 40;

/// Calls whose latency lies below `below_us` and not below the bucket before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    pub(super) below_us: f64,
    pub(super) calls: u64,
}

/// Latencies in nanoseconds by buckets of which each reaches twice as far as the one before, from
/// the first to the last that is not empty.
pub(super) fn buckets(latency: &Histogram<u64>) -> Vec<Bucket> {
    const FIRST_BELOW: u64 = 1_000;
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut below = FIRST_BELOW;
    let mut calls = 0;
    let push = |below: u64, calls: u64, buckets: &mut Vec<Bucket>| {
        if calls > 0 || !buckets.is_empty() {
            buckets.push(Bucket { below_us: below as f64 / 1_000.0, calls });
        }
    };
    for value in latency.iter_recorded() {
        while value.value_iterated_to() >= below {
            push(below, calls, &mut buckets);
            (below, calls) = (below.saturating_mul(2), 0);
        }
        calls += value.count_at_value();
    }
    if calls > 0 {
        push(below, calls, &mut buckets);
    }
    buckets
}

/// A line for each bucket.
pub(super) fn lines(buckets: &[Bucket]) -> Vec<String> {
    let most = buckets.iter().map(|bucket| bucket.calls).max().unwrap_or(0).max(1);
    let line = |bucket: &Bucket| {
        // Whatever is there is seen.
        let length = (bucket.calls * WIDTH / most).max(u64::from(bucket.calls > 0));
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        format!("  < {:>9} µs {:>10}  {bar}", bucket.below_us, bucket.calls)
    };
    buckets.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double_and_begin_and_end_with_what_was_seen() {
        let mut latency = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for micros in [3, 3, 9] {
            latency.record(micros * 1_000).unwrap();
        }
        let bucket = |below_us, calls| Bucket { below_us, calls };
        assert_eq!(buckets(&latency), [bucket(4.0, 2), bucket(8.0, 0), bucket(16.0, 1)]);
        let lines = lines(&buckets(&latency));
        assert!(lines[0].ends_with(&"#".repeat(40)) && lines[2].ends_with(&"#".repeat(20)));
    }

    #[test]
    fn nothing_has_no_buckets() {
        assert!(buckets(&Histogram::new_with_bounds(1, 1_000_000, 3).unwrap()).is_empty());
    }
}
